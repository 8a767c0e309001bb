//! The rendered manifests, and pods with their configuration.

use super::{PROJECT, REFUSED, assert_healthy, deploy_path, documents, run, substitute, yaml};
use crate::peer::program;
use crate::support::{Edge, certified, command, files_below};
use serde_json::Value;
use std::fs;
use std::process::{Command, Output};
use tempfile::TempDir;

/// The supported versions of Kubernetes.
const KUBERNETES: [&str; 3] = ["1.35", "1.36", "1.37"];

/// Kinds of other projects, which have their own schemas.
const CUSTOM_KINDS: [&str; 4] = ["ServiceMonitor", "PrometheusRule", "HTTPRoute", "Certificate"];

#[test]
fn kubernetes_accepts_the_rendered_overlays() {
    for (overlay, kinds) in [
        ("overlays/gateway", (8, 3)),
        ("overlays/own-tls", (8, 3)),
        ("preflight", (1, 0)),
        ("preflight-now", (1, 0)),
    ] {
        assert_eq!(validate(rendered(overlay)), kinds, "{overlay}");
    }
}

/// Asserts that the schemas accept every document; returns how many are of built-in and of custom kinds.
pub(crate) fn validate(documents: Vec<Value>) -> (usize, usize) {
    let (custom, builtin): (Vec<_>, Vec<_>) = documents
        .into_iter()
        .partition(|document| CUSTOM_KINDS.contains(&document["kind"].as_str().unwrap()));
    let kinds = (builtin.len(), custom.len());
    let dir = TempDir::new().unwrap();
    for (number, document) in builtin.iter().enumerate() {
        let file = dir.path().join(format!("{number}.yaml"));
        fs::write(file, document.to_string()).unwrap();
    }
    for version in KUBERNETES.iter().filter(|_| kinds.0 > 0) {
        let mut validate = Command::new(program("kubernetes-validate"));
        validate.args(["--strict", "--no-warn", "-k", version]);
        let output = run(validate.args(files_below(dir.path())));
        let passed = output.matches(&format!("against version {version}")).count();
        assert_eq!(passed, kinds.0, "{output}");
    }
    let list = dir.path().join("custom.json");
    fs::write(&list, Value::from(custom).to_string()).unwrap();
    let mut validate = Command::new(program("node"));
    validate.arg("tests/peers/resources.mjs").current_dir(PROJECT);
    let output = run(validate.stdin(fs::File::open(list).unwrap()));
    assert_eq!(output.lines().count(), kinds.1, "{output}");
    kinds
}

#[tokio::test]
async fn pods_start_with_the_configuration_of_their_overlay() {
    for overlay in ["overlays/gateway", "overlays/own-tls"] {
        let documents = rendered(overlay);
        let of = |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap();
        let settings = of("ConfigMap")["data"]["config.toml"].as_str().unwrap();
        let pod = &of("Deployment")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let mut local = settings.replace("auth.example.com", "localhost");
        for port in container["ports"].as_array().unwrap() {
            let port = format!("\"0.0.0.0:{}\"", port["containerPort"]);
            local = substitute(&local, &[(&port, "\"127.0.0.1:0\"")]);
        }
        let (_, dir) = certified(&["localhost"]);
        for (ending, file) in [("crt", "edge.pem"), ("key", "edge.key")] {
            local = local.replace(&format!("/tls/tls.{ending}"), &format!("{{dir}}/{file}"));
        }
        let edge = Edge::start_in(dir, &local, |_| {});
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let probe = &container[probe]["httpGet"];
            assert_eq!(probe["port"], "admin");
            assert_healthy(edge.admin[0], probe["path"].as_str().unwrap()).await;
        }
        // The grace period covers the complete drain.
        let seconds = |key: &str| -> u64 {
            let (_, rest) = settings.split_once(&format!("\n{key} = \"")).unwrap();
            rest.split_once("s\"").unwrap().0.parse().unwrap()
        };
        let allowed = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(allowed > seconds("delay") + seconds("grace"), "{overlay}");
        // The Pod Security Standard "restricted".
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
        assert_eq!(of("PrometheusRule")["spec"], yaml("prometheus/alerts.yml")[0]);
    }
}

/// Nango refuses connections, so the preflight cannot pass; it accepts the arguments and reads the
/// mounted key.
#[test]
fn the_jobs_pass_arguments_that_preflight_accepts() {
    let mut pods = [
        rendered("preflight")[0]["spec"]["jobTemplate"]["spec"]["template"].take(),
        rendered("preflight-now")[0]["spec"]["template"].take(),
    ];
    for pod in &pods {
        // The Service must not select the pod of a job.
        let edge = &rendered("overlays/gateway");
        let service = edge.iter().find(|document| document["kind"] == "Service").unwrap();
        let name = "app.kubernetes.io/name";
        assert_ne!(pod["metadata"]["labels"][name], service["spec"]["selector"][name]);

        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("secret-key"), "a key").unwrap();
        let container = &pod["spec"]["containers"][0];
        let mount = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
        let arguments = container["args"].as_array().unwrap().iter().map(|word| {
            let word = word.as_str().unwrap();
            let word = word.replace("https://auth.example.com", "http://127.0.0.1:2");
            word.replace(mount, &dir.path().display().to_string())
        });
        let mut preflight = command(dir.path());
        preflight.args(arguments).env("CALLBACK_EDGE_NANGO__URL", REFUSED);
        let Output { status, stdout, stderr } = preflight.output().unwrap();
        let output = String::from_utf8([stdout, stderr].concat()).unwrap();
        assert!(matches!(status.code(), Some(1..=3)) && output.contains("nango.key"), "{output}");
    }
    // Except for their arguments, both are identical.
    let [daily, now] = &mut pods;
    for pod in [&mut *daily, &mut *now] {
        pod["spec"]["containers"][0]["args"].take();
    }
    assert_eq!(daily, now);
}

fn rendered(overlay: &str) -> Vec<Value> {
    let overlay = deploy_path("kubernetes").join(overlay);
    documents(&run(Command::new(program("kubectl")).arg("kustomize").arg(overlay)))
}
