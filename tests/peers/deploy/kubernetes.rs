//! The rendered manifests, and pods with their configuration.

use super::{PROJECT, REFUSED, assert_healthy, deploy_path, documents, run, substitute, yaml};
use crate::peer::program;
use crate::support::{Edge, certified, command, files_below};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// The supported versions of Kubernetes.
const KUBERNETES: [&str; 3] = ["1.35", "1.36", "1.37"];

/// Kinds of other projects, which have their own schemas.
const CUSTOM_KINDS: [&str; 4] = ["ServiceMonitor", "PrometheusRule", "HTTPRoute", "Certificate"];

/// The resources of the base, and how many each overlay adds: a `ConfigMap`, and one of a custom kind.
const BASE: usize = 7;

#[test]
fn kubernetes_accepts_every_combination_of_base_overlays_and_components() {
    // The base has no kind that a cluster without operators lacks.
    assert_eq!(validate(rendered("base")), (BASE, 0));
    for job in ["preflight", "preflight-now"] {
        assert_eq!(validate(rendered(job)), (1, 0), "{job}");
    }
    for overlay in ["overlays/gateway", "overlays/own-tls"] {
        assert_eq!(validate(rendered(overlay)), (BASE + 1, 1), "{overlay}");
        let monitored = monitored(overlay);
        let rules = monitored.iter().find(|document| document["kind"] == "PrometheusRule").unwrap();
        assert_eq!(rules["spec"], yaml("prometheus/alerts.yml")[0]);
        let all = monitored.iter().filter(|document| document["kind"] != "Namespace");
        let elsewhere = all.filter(|document| document["metadata"]["namespace"] != "callback-edge");
        assert_eq!(elsewhere.count(), 0, "{overlay}");
        assert_eq!(validate(monitored), (BASE + 1, 3), "{overlay} with monitoring");
    }
}

/// An overlay with the component that its comment describes.
fn monitored(overlay: &str) -> Vec<Value> {
    let dir = TempDir::new().unwrap();
    for file in files_below(&deploy_path("kubernetes")) {
        let to = dir.path().join(file.strip_prefix(deploy_path("kubernetes")).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    let file = dir.path().join(overlay).join("kustomization.yaml");
    let lines =
        [("#components:", "components:"), ("#  - ../../components", "  - ../../components")];
    let text = substitute(&fs::read_to_string(&file).unwrap(), &lines);
    fs::write(&file, text).unwrap();
    kustomize(&dir.path().join(overlay))
}

#[test]
fn prometheus_scrapes_the_admin_port_and_nothing_else_reaches_it() {
    for overlay in ["overlays/gateway", "overlays/own-tls"] {
        let admin = |documents: &[Value]| -> Vec<Value> {
            let policy = documents.iter().find(|one| one["kind"] == "NetworkPolicy").unwrap();
            let rules = policy["spec"]["ingress"].as_array().unwrap().iter();
            let of_admin = rules.filter(|rule| rule["ports"].to_string().contains("admin"));
            of_admin.cloned().collect()
        };
        assert_eq!(admin(&rendered(overlay)), [] as [Value; 0], "{overlay}");
        let monitored = monitored(overlay);
        let [rule] = &admin(&monitored)[..] else { panic!("{overlay}") };
        assert!(rule["from"][0]["namespaceSelector"].is_object(), "{rule}");
        let of = |kind: &str, name: &str| {
            let mut all = monitored.iter().filter(|document| document["kind"] == kind);
            all.find(|document| document["metadata"]["name"] == name).unwrap()
        };
        let monitor = &of("ServiceMonitor", "callback-edge")["spec"];
        let service = of("Service", "callback-edge-admin");
        for (label, value) in monitor["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(service["metadata"]["labels"][label], *value, "{label}");
        }
        assert_eq!(monitor["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
        // The job in the rules.
        let job = &service["metadata"]["labels"][monitor["jobLabel"].as_str().unwrap()];
        assert_eq!(job, "callback-edge");
        assert!(of("Service", "callback-edge")["spec"]["ports"].to_string().contains("http"));
        assert!(!of("Service", "callback-edge")["spec"]["ports"].to_string().contains("admin"));
    }
}

/// The most that a connection of an attacker held (`memory::` in the plain suite prints it for 256), and the server
/// without connections, in KiB.
const PER_CONNECTION: u64 = 184;
const WITHOUT_CONNECTIONS: u64 = 11 * 1024;

#[test]
fn the_memory_limit_fits_the_connections_and_the_tag_is_that_of_the_release() {
    let version = env!("CARGO_PKG_VERSION");
    for overlay in ["overlays/gateway", "overlays/own-tls"] {
        let documents = rendered(overlay);
        let of = |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap();
        let dir = TempDir::new().unwrap();
        let settings = of("ConfigMap")["data"]["config.toml"].as_str().unwrap();
        fs::write(dir.path().join("key"), "0".repeat(64)).unwrap();
        let key = dir.path().join("key").display().to_string();
        let settings = settings.replace("/probe/key", &key);
        fs::write(dir.path().join("config.toml"), settings).unwrap();
        let shown = run(command(dir.path()).args(["config", "show"]));
        let needed = connections(&shown) * PER_CONNECTION + WITHOUT_CONNECTIONS;
        let container = &of("Deployment")["spec"]["template"]["spec"]["containers"][0];
        let limit = container["resources"]["limits"]["memory"].as_str().unwrap();
        let limit = limit.strip_suffix("Mi").unwrap().parse::<u64>().unwrap() * 1024;
        assert!(limit > needed && limit < 2 * needed, "{needed} KiB of {limit}");
        assert_eq!(container["image"], format!("callback-edge:{version}"));
    }
    for job in ["preflight", "preflight-now"] {
        let image = format!("callback-edge:{version}");
        assert!(rendered(job)[0].to_string().contains(&image), "{job}");
    }
    let service = yaml("docker/compose.yaml")[0]["services"]["callback-edge"].take();
    let defaults = run(command(TempDir::new().unwrap().path()).args(["config", "show"]));
    let needed = connections(&defaults) * PER_CONNECTION + WITHOUT_CONNECTIONS;
    assert!(needed < 2 * 1024 * 1024 && service["mem_limit"] == "2g", "{needed} KiB");
    assert_eq!(service["image"], format!("callback-edge:{version}"));
    let dockerfile = fs::read_to_string(deploy_path("docker/Dockerfile")).unwrap();
    assert!(dockerfile.contains(&format!("\nARG VERSION={version}\n")));
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
        fs::write(dir.path().join("probe-key"), "0".repeat(64)).unwrap();
        local = substitute(&local, &[("/probe/key", "{dir}/probe-key")]);
        let key = pod["volumes"].as_array().unwrap().iter().find(|one| one["name"] == "probe");
        assert_eq!(key.unwrap()["secret"]["secretName"], "callback-edge-probe");
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
    }
}

/// The value in the output of `config show`.
fn connections(shown: &str) -> u64 {
    let mut words = shown.split_whitespace().skip_while(|word| *word != "limits.connections");
    words.nth(1).unwrap().parse().unwrap()
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
    kustomize(&deploy_path("kubernetes").join(overlay))
}

fn kustomize(directory: &Path) -> Vec<Value> {
    documents(&run(Command::new(program("kubectl")).arg("kustomize").arg(directory)))
}
