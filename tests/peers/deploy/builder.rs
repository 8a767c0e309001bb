//! The Dockerfile in a builder that needs no engine and no user namespace: buildah with chroot isolation.

use super::image::static_program;
use super::{PROJECT, deploy_path, run, text};
use crate::peer::program;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The base image has the shell and the tools of this machine, mounted, and this instead of Cargo: it reports its
/// arguments, and installs the program that was compiled from the same lines (`static_program`).
const CARGO: &str = r#"#!/bin/sh
set -eu
echo "cargo $*"
echo "context: $(echo .[a-z]* *)"
while [ $# -gt 1 ]; do shift; done
mkdir -p "target/$1/dist"
cp /opt/callback-edge "target/$1/dist/"
"#;

#[test]
fn buildah_makes_the_image_from_the_dockerfile() {
    let builder = Builder::with_the_base();
    let (tools, binary) = (builder.dir.path().join("tools"), static_program());
    let host = run(Command::new("rustc").args(["--print", "host-tuple"]));
    fs::create_dir(&tools).unwrap();
    for (name, script) in [("cargo", CARGO), ("rustc", &format!("#!/bin/sh\necho {host}"))] {
        fs::write(tools.join(name), script).unwrap();
        fs::set_permissions(tools.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut build = builder.buildah(&["build", "--isolation", "chroot", "--pull-never"]);
    build.args(["--format", "docker", "--tag", "edge", "--build-arg", "VERSION=1.2.3"]);
    for directory in ["bin", "lib", "lib64"] {
        // Not every architecture has the last one.
        if !Path::new("/usr").join(directory).exists() {
            continue;
        }
        build.args(["--volume", &format!("/usr/{directory}:/usr/{directory}:ro")]);
    }
    build.arg("--volume").arg(format!("{}:/usr/local/cargo/bin:ro", tools.display()));
    build.arg("--volume").arg(format!("{}:/opt/callback-edge:ro", binary.display()));
    build.arg("--ignorefile").arg(deploy_path("docker/Dockerfile.dockerignore"));
    let output = run(build.arg("--file").arg(deploy_path("docker/Dockerfile")).arg(PROJECT));
    assert!(
        output.contains("\ncargo build --locked --profile dist --bin callback-edge "),
        "{output}"
    );
    assert!(
        output.contains("\ncontext: .cargo Cargo.lock Cargo.toml deploy docs src target\n"),
        "{output}"
    );

    let inspected = run(&mut builder.buildah(&["inspect", "--type", "image", "edge"]));
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let config = &inspected["Docker"]["config"];
    assert_eq!(config["Entrypoint"], json!(["/callback-edge"]));
    assert_eq!(config["Cmd"], json!(["serve"]));
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Healthcheck"]["Test"], json!(["CMD", "/callback-edge", "health"]));
    assert_eq!(config["Labels"]["org.opencontainers.image.version"], "1.2.3");

    let container = run(&mut builder.buildah(&["from", "--pull-never", "localhost/edge"]));
    let container = container.trim();
    let inside = run(&mut builder.buildah(&["mount", container]));
    let state = fs::metadata(Path::new(inside.trim()).join("var/lib/callback-edge")).unwrap();
    assert_eq!((state.uid(), state.gid()), (65532, 65532));
    let mut run_inside = builder.buildah(&["run", "--isolation", "chroot", container, "--"]);
    assert_eq!(
        run(run_inside.args(["/callback-edge", "--version"])),
        concat!("callback-edge ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

/// buildah with a store of its own.
struct Builder {
    dir: TempDir,
}

impl Builder {
    /// The base of the Dockerfile: empty directories for what is mounted.
    fn with_the_base() -> Self {
        let builder = Self { dir: TempDir::new().unwrap() };
        let base = builder.dir.path().join("base");
        for directory in ["usr/bin", "usr/lib", "usr/lib64", "usr/local/cargo/bin", "opt", "tmp"] {
            fs::create_dir_all(base.join(directory)).unwrap();
        }
        for link in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{link}"), base.join(link)).unwrap();
        }
        let container = run(&mut builder.buildah(&["from", "scratch"]));
        let container = container.trim();
        run(builder.buildah(&["copy", "--quiet", container]).arg(base).arg("/"));
        let path = "PATH=/usr/local/cargo/bin:/usr/bin";
        run(&mut builder.buildah(&["config", "--env", path, container]));
        let dockerfile = text("docker/Dockerfile");
        let (_, from) = dockerfile.split_once("\nFROM ").unwrap();
        let name = format!("docker.io/library/{}", from.split_once(" AS build\n").unwrap().0);
        run(&mut builder.buildah(&["commit", "--quiet", container, &name]));
        builder
    }

    fn buildah(&self, arguments: &[&str]) -> Command {
        let mut buildah = Command::new(program("buildah"));
        buildah.args(["--storage-driver", "vfs", "--root"]).arg(self.dir.path().join("store"));
        buildah.arg("--runroot").arg(self.dir.path().join("run")).args(arguments);
        // The caches of `RUN --mount` are below.
        buildah.env("TMPDIR", self.dir.path()).env_remove("XDG_RUNTIME_DIR");
        buildah
    }
}
