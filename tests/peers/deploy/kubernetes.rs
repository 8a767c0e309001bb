//! Manifests: what the overlays render, and pods with their settings.

use super::{NOBODY, PROJECT, answers, documents, place, run, swap, yaml};
use crate::peer::program;
use crate::support::{Edge, certified, command, files_below};
use serde_json::Value;
use std::fs;
use std::process::{Command, Output};
use tempfile::TempDir;

/// The versions in support.
const KUBERNETES: [&str; 3] = ["1.35", "1.36", "1.37"];

/// Kinds of other projects, which have schemas of their own.
const OF_OTHERS: [&str; 4] = ["ServiceMonitor", "PrometheusRule", "HTTPRoute", "Certificate"];

#[test]
fn kubernetes_takes_what_the_overlays_render() {
    for (overlay, kinds) in [
        ("overlays/gateway", (8, 3)),
        ("overlays/own-tls", (8, 3)),
        ("preflight", (1, 0)),
        ("preflight-now", (1, 0)),
    ] {
        let documents = rendered(overlay);
        let (others, own): (Vec<_>, Vec<_>) = documents
            .into_iter()
            .partition(|document| OF_OTHERS.contains(&document["kind"].as_str().unwrap()));
        assert_eq!((own.len(), others.len()), kinds, "{overlay}");
        let dir = TempDir::new().unwrap();
        for (number, document) in own.iter().enumerate() {
            let file = dir.path().join(format!("{number}.yaml"));
            fs::write(file, document.to_string()).unwrap();
        }
        for version in KUBERNETES {
            let mut validate = Command::new(program("kubernetes-validate"));
            validate.args(["--strict", "--no-warn", "-k", version]);
            let said = run(validate.args(files_below(dir.path())));
            let passed = said.matches(&format!("against version {version}")).count();
            assert_eq!(passed, own.len(), "{said}");
        }
        let list = dir.path().join("others.json");
        fs::write(&list, Value::from(others).to_string()).unwrap();
        let mut validate = Command::new(program("node"));
        validate.arg("tests/peers/resources.mjs").current_dir(PROJECT);
        let said = run(validate.stdin(fs::File::open(list).unwrap()));
        assert_eq!(said.lines().count(), kinds.1, "{said}");
    }
}

#[tokio::test]
async fn pods_start_with_the_settings_of_their_overlay() {
    for overlay in ["overlays/gateway", "overlays/own-tls"] {
        let documents = rendered(overlay);
        let of = |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap();
        let settings = of("ConfigMap")["data"]["config.toml"].as_str().unwrap();
        let pod = &of("Deployment")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let mut ours = settings.replace("auth.example.com", "localhost");
        for port in container["ports"].as_array().unwrap() {
            let port = format!("\"0.0.0.0:{}\"", port["containerPort"]);
            ours = swap(&ours, &[(&port, "\"127.0.0.1:0\"")]);
        }
        let (_, dir) = certified(&["localhost"]);
        for (ending, file) in [("crt", "edge.pem"), ("key", "edge.key")] {
            ours = ours.replace(&format!("/tls/tls.{ending}"), &format!("{{dir}}/{file}"));
        }
        let edge = Edge::start_in(dir, &ours, |_| {});
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let probe = &container[probe]["httpGet"];
            assert_eq!(probe["port"], "admin");
            answers(edge.admin[0], probe["path"].as_str().unwrap()).await;
        }
        // The whole drain has its time.
        let seconds = |key: &str| -> u64 {
            let (_, rest) = settings.split_once(&format!("\n{key} = \"")).unwrap();
            rest.split_once("s\"").unwrap().0.parse().unwrap()
        };
        let allowed = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(allowed > seconds("delay") + seconds("grace"), "{overlay}");
        // By word of the standard "restricted".
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
        assert_eq!(of("PrometheusRule")["spec"], yaml("prometheus/alerts.yml")[0]);
    }
}

/// With nobody for Nango it cannot pass; it is understood, and reads its key where it is mounted.
#[test]
fn the_jobs_ask_what_preflight_understands() {
    let mut pods = [
        rendered("preflight")[0]["spec"]["jobTemplate"]["spec"]["template"].take(),
        rendered("preflight-now")[0]["spec"]["template"].take(),
    ];
    for pod in &pods {
        // No Service takes it for an edge.
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
        preflight.args(arguments).env("CALLBACK_EDGE_NANGO__URL", NOBODY);
        let Output { status, stdout, stderr } = preflight.output().unwrap();
        let said = String::from_utf8([stdout, stderr].concat()).unwrap();
        assert!(matches!(status.code(), Some(1..=3)) && said.contains("nango.key"), "{said}");
    }
    // But for that, both are one.
    let [daily, now] = &mut pods;
    for pod in [&mut *daily, &mut *now] {
        pod["spec"]["containers"][0]["args"].take();
    }
    assert_eq!(daily, now);
}

fn rendered(overlay: &str) -> Vec<Value> {
    let overlay = place("kubernetes").join(overlay);
    documents(&run(Command::new(program("kubectl")).arg("kustomize").arg(overlay)))
}
