//! The container image: the last stage of the Dockerfile as a root file system.

use super::{PROJECT, deploy_path, run, text, yaml};
use crate::peer::program;
use crate::support::files_below;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

#[test]
fn hadolint_accepts_the_dockerfile() {
    let output = run(Command::new(program("hadolint")).arg(deploy_path("docker/Dockerfile")));
    assert_eq!(output, "");
    let images = text("docker/Dockerfile");
    for image in images.lines().filter_map(|line| line.strip_prefix("FROM ")) {
        let pinned = image.split_whitespace().next().unwrap();
        assert!(pinned == "scratch" || pinned.contains(':') && !pinned.contains("latest"));
    }
}

/// Runs in its own network and mount namespaces, which prevent port conflicts, with the files that
/// a container engine adds.
#[test]
fn the_image_runs_unprivileged_with_an_empty_root() {
    let image = Image::of_the_final_stage();
    // A container contains no other file.
    let files = files_below(&image.root);
    let names: Vec<_> = files.iter().map(|file| file.strip_prefix(&image.root).unwrap()).collect();
    assert_eq!(names, ["callback-edge", "etc/hosts", "etc/resolv.conf"].map(Path::new));

    let url = "http://127.0.0.1:8080/oauth/callback";
    let output = image.run(&image.variables, &format!("inside check --no-follow {url}"));
    assert!(output.contains("√ the callback works: "), "{output}");
}

#[test]
fn compose_runs_the_image_with_its_own_certificates() {
    let image = Image::of_the_final_stage();
    let service = &yaml("docker/compose.yaml")[0]["services"]["callback-edge"];
    let mut variables = image.variables.clone();
    let own = service["environment"].as_object().unwrap().iter();
    variables.extend(own.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())));
    // Without network there is no certificate: it is alive and not ready.
    image.run(&variables, "! inside health --ready");
    let state = "var/lib/callback-edge";
    assert!(image.volume.join("acme").is_dir(), "the state directory was not written");
    assert_eq!(service["volumes"][0], format!("state:/{state}"));
    let ports = ["80:8080", "443:8443"];
    assert_eq!(service["ports"], serde_json::json!(ports));
    for (key, port) in ["HTTP", "HTTPS"].iter().zip(ports) {
        let listens = &variables[&format!("CALLBACK_EDGE_LISTEN__{key}")];
        assert_eq!(listens.split_once(':').unwrap().1, port.split_once(':').unwrap().1);
    }
    assert_eq!(service["read_only"], true);
    assert_eq!(service["cap_drop"][0], "ALL");
}

/// The final stage of the Dockerfile as a directory.
struct Image {
    _dir: TempDir,
    root: PathBuf,
    /// The volume, initially with the owner and mode of the directory that it covers.
    volume: PathBuf,
    user: String,
    variables: BTreeMap<String, String>,
    health: String,
    command: String,
}

impl Image {
    fn of_the_final_stage() -> Self {
        let (_, last) = stages();
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("root");
        // Accessible to other users than root.
        fs::create_dir(&root).unwrap();
        for path in [dir.path(), &root] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut image = Self {
            root,
            volume: dir.path().join("volume"),
            user: String::new(),
            variables: BTreeMap::new(),
            health: String::new(),
            command: String::new(),
            _dir: dir,
        };
        let binary = static_program();
        for line in last.lines() {
            let (instruction, rest) = line.split_once(' ').unwrap_or((line, ""));
            match instruction {
                "COPY" => image.copy(rest, &binary),
                "ENV" => {
                    let pairs = rest.split_whitespace().map(|pair| pair.split_once('=').unwrap());
                    image.variables.extend(pairs.map(|(key, value)| (key.into(), value.into())));
                }
                "USER" => rest.clone_into(&mut image.user),
                "HEALTHCHECK" => image.health = words(rest.split_once("CMD ").unwrap().1),
                "ENTRYPOINT" => image.command = words(rest),
                "CMD" => image.command = format!("{} {}", image.command, words(rest)),
                "" | "#" | "ARG" | "LABEL" | "EXPOSE" => {}
                other => panic!("the test does not support `{other}`"),
            }
        }
        // Engines add these files to every container.
        fs::create_dir(image.root.join("etc")).unwrap();
        fs::write(image.root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        fs::write(image.root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        image
    }

    fn copy(&self, rest: &str, binary: &Path) {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [.., from, to] = words[..] else { panic!("{rest}") };
        let to = self.root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let paths = if from == "/out/callback-edge" {
            fs::copy(binary, &to).unwrap();
            vec![&to]
        } else {
            vec![&to, &self.volume]
        };
        for path in paths {
            if !path.exists() {
                fs::create_dir(path).unwrap();
            }
            for word in &words {
                if let Some(owner) = word.strip_prefix("--chown=") {
                    let (user, group) = owner.split_once(':').unwrap();
                    chown(path, user.parse().ok(), group.parse().ok()).unwrap();
                }
                if let Some(mode) = word.strip_prefix("--chmod=") {
                    let bits = u32::from_str_radix(mode, 8).unwrap();
                    fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
                }
            }
        }
    }

    /// Starts it with a root that is read-only except for the volume, waits for its health check,
    /// runs `then`, and stops it; all must succeed. Returns the output.
    fn run(&self, variables: &BTreeMap<String, String>, then: &str) -> String {
        assert!(self.user.split(':').all(|id| id.parse::<u32>().unwrap() > 0), "{}", self.user);
        let script = format!(
            r#"
            ip link set lo up
            mount --bind "$ROOT" "$ROOT"
            mount -o remount,bind,ro "$ROOT"
            mount --bind "$VOLUME" "$ROOT/var/lib/callback-edge"
            contained() {{ chroot --userspec={user} "$ROOT" "$@"; }}
            inside() {{ contained /callback-edge "$@"; }}
            chroot --userspec={user} "$ROOT" {command} &
            edge=$!
            trap 'kill -9 $edge 2>/dev/null || :' EXIT
            for _ in $(seq 100); do
              if contained {health} >/dev/null 2>&1; then break; fi
              kill -0 $edge
              sleep 0.1
            done
            contained {health}
            grep -q "^Uid:.{uid}\b" /proc/$edge/status
            {then}
            kill $edge
            wait $edge
            trap - EXIT
            "#,
            user = self.user,
            uid = self.user.split(':').next().unwrap(),
            command = self.command,
            health = self.health,
        );
        let mut command = Command::new(program("unshare"));
        command.args(["--net", "--mount", "sh", "-euc", &script]).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("ROOT", &self.root);
        command.env("VOLUME", &self.volume).envs(variables);
        run(&mut command)
    }
}

/// The Dockerfile with one instruction per line: the build stage and the final stage.
fn stages() -> (String, String) {
    let dockerfile = text("docker/Dockerfile").replace("\\\n", " ");
    let (first, last) = dockerfile.split_once("FROM scratch").unwrap();
    (first.to_owned(), last.to_owned())
}

/// `["a", "b"]` as `a b`.
fn words(list: &str) -> String {
    serde_json::from_str::<Vec<String>>(list).unwrap().join(" ")
}

/// Builds the program as the first stage does, only from the files that are copied into it; without
/// optimisation, which takes minutes and makes no difference here.
pub(super) fn static_program() -> PathBuf {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    let (stage, _) = stages();
    let target = Path::new(PROJECT).join("target/static");
    let context = target.join("context");
    let mut copied = BTreeSet::new();
    let ignored = text("docker/Dockerfile.dockerignore");
    for line in stage.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let names: Vec<&str> = line.split_whitespace().collect();
        for name in &names[..names.len() - 1] {
            let is_excepted = ignored.lines().any(|line| line.strip_prefix('!') == Some(name));
            assert!(is_excepted, "the build does not see {name}");
            let from = Path::new(PROJECT).join(name);
            let files = if from.is_dir() { files_below(&from) } else { vec![from] };
            for file in files {
                let to = context.join(file.strip_prefix(PROJECT).unwrap());
                copy_if_new(&file, &to);
                copied.insert(to);
            }
        }
    }
    // Files of an earlier run that this one does not copy.
    for file in files_below(&context).iter().filter(|file| !copied.contains(*file)) {
        fs::remove_file(file).unwrap();
    }
    let (_, build) = stage.split_once("cargo build ").unwrap();
    let build = build.split_once("&&").unwrap().0.replace("--profile dist", "");
    let (_, flags) = stage.split_once("RUSTFLAGS='").unwrap();
    let flags = flags.split_once('\'').unwrap().0;
    let host = run(Command::new("rustc").args(["--print", "host-tuple"]));
    let host = host.trim();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&context).env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", &target);
    run(cargo.arg("build").args(build.replace("\"$target\"", host).split_whitespace()));
    target.join(host).join("debug/callback-edge")
}

/// Cargo rebuilds files with a new modification time.
fn copy_if_new(from: &Path, to: &Path) {
    let content = fs::read(from).unwrap();
    if fs::read(to).ok().as_ref() != Some(&content) {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, content).unwrap();
    }
}
