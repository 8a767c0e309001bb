//! Every file has the names and the version of Cargo.toml, which `package.metadata.names` extends.

use std::fs;
use std::path::Path;
use toml_edit::{DocumentMut, Item};

const README: &str = "README.md";
const DEPLOY: &str = "deploy/README.md";
const DOCKERFILE: &str = "deploy/docker/Dockerfile";
const ACTION: &str = "action.yml";
const EXAMPLE: &str = "deploy/ci/callback.yml";
const SWITCH: &str = "deploy/ci/switch.yml";
const RELEASE: &str = ".github/workflows/release.yml";

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

struct Names {
    package: Item,
    version: String,
    /// `OWNER/NAME`.
    repository: String,
}

impl Names {
    fn read() -> Self {
        let manifest: DocumentMut = page("Cargo.toml").parse().unwrap();
        let package = manifest["package"].clone();
        let text = |item: &Item| item.as_str().unwrap().to_owned();
        let url = text(&package["repository"]);
        let path = url.split('/').skip(3).collect::<Vec<_>>().join("/");
        Self { version: text(&package["version"]), repository: path, package }
    }

    fn of_package(&self, key: &str) -> &str {
        self.package[key].as_str().unwrap()
    }

    fn name(&self, key: &str) -> &str {
        self.package["metadata"]["names"][key].as_str().unwrap()
    }
}

/// The rest of the line after each occurrence of `start`.
fn after<'p>(page: &'p str, start: &str) -> Vec<&'p str> {
    let found: Vec<_> =
        page.split(start).skip(1).map(|rest| rest.lines().next().unwrap_or_default()).collect();
    assert!(!found.is_empty(), "no `{start}`");
    found
}

#[test]
fn the_addresses_are_below_the_repository() {
    let names = Names::read();
    let repository = names.of_package("repository");
    for key in ["homepage", "documentation"] {
        assert!(names.of_package(key).starts_with(repository), "{key}");
    }
    // The workflow derives the name of the image from that of the repository.
    assert_eq!(names.name("image"), names.repository);
    // After the first release no file has the placeholder.
    let is_placeholder = repository.contains("/OWNER/");
    for file in [README, DEPLOY, DOCKERFILE, ACTION, EXAMPLE] {
        assert_eq!(page(file).contains("OWNER"), is_placeholder, "{file}");
    }
    let release = page(RELEASE);
    for image in after(&release, "IMAGE: ") {
        assert_eq!(image, "${{ vars.REGISTRY }}/${{ github.repository }}");
    }
}

#[test]
fn the_readme_marks_each_channel_as_published_or_not() {
    let names = Names::read();
    let readme = page(README);
    let published = names.package["metadata"]["names"]["published"].as_array().unwrap();
    let published: Vec<_> = published.iter().map(|name| name.as_str().unwrap()).collect();
    let tag = format!("callback-edge_{}-1_", names.version);
    let commands = [
        ("npm", format!("npx {} check", names.name("npm"))),
        ("PyPI", format!("uvx {} check", names.name("pypi"))),
        ("image", format!("docker run --rm REGISTRY/{} check", names.name("image"))),
        ("Homebrew", format!("brew install {}/callback-edge", names.name("homebrew-tap"))),
        ("release", format!("sudo dpkg --install {tag}")),
        ("repository", format!("cargo install --locked --git {}", names.of_package("repository"))),
    ];
    for (channel, command) in &commands {
        let line = after(&readme, command)[0];
        let comment = line.split_once(" # ").map(|(_, comment)| comment.to_owned());
        let mark = if published.contains(channel) { "" } else { ": not published yet" };
        assert_eq!(comment, Some(format!("{channel}{mark}")), "{command}");
    }
    for name in published {
        assert!(commands.iter().any(|(channel, _)| *channel == name), "`{name}` is no channel");
    }
}

#[test]
fn images_and_manifests_have_the_same_tag() {
    let Names { version, .. } = Names::read();
    let docker = page(DOCKERFILE);
    assert_eq!(after(&docker, "ARG VERSION="), [&version]);
    assert_eq!(after(&page("deploy/docker/compose.yaml"), "image: callback-edge:"), [&version]);
    for directory in ["base", "preflight", "preflight-now"] {
        let manifest = page(&format!("deploy/kubernetes/{directory}/kustomization.yaml"));
        assert_eq!(after(&manifest, "newTag: "), [&version], "{directory}");
    }
    // A tag of git is `v` and the version; that of an image is the version.
    let release = page(RELEASE);
    for tag in after(&release, "$IMAGE:") {
        assert!(tag.starts_with("${TAG#v}"), "{tag}");
    }
    assert!(release.contains("\"VERSION=${TAG#v}\""));
    assert!(page("deploy/debian/changelog").starts_with(&format!("callback-edge ({version}-")));
}

#[test]
fn labels_are_those_of_the_manifest() {
    let names = Names::read();
    let docker = page(DOCKERFILE);
    for (label, key) in [
        ("source", "repository"),
        ("url", "homepage"),
        ("documentation", "documentation"),
        ("description", "description"),
        ("licenses", "license"),
    ] {
        let value = after(&docker, &format!("org.opencontainers.image.{label}="))[0];
        let expected = format!("\"{}\"", names.of_package(key));
        assert_eq!(value.trim_end_matches(" \\"), expected, "{label}");
    }
}

#[test]
fn the_action_and_its_example_have_the_names_and_the_version() {
    let names = Names::read();
    let (action, version) = (page(ACTION), &names.version);
    let uses = format!("{}@v{version}`", names.repository);
    assert!(after(&action, "`uses: ")[0].starts_with(&uses));
    assert_eq!(after(&action, "callback-edge on npm\n    default: "), [version]);
    let installed = format!("\"{}@$VERSION\"", names.name("npm"));
    assert!(action.contains(&installed), "no {installed}");
    let switch = page(SWITCH);
    assert_eq!(after(&switch, "callback-edge on npm.\n  VERSION: "), [version]);
    assert_eq!(switch.matches(&installed).count(), 2, "a job without {installed}");
    let example = page(EXAMPLE);
    let uses = after(&example, &format!("uses: {}@", names.repository))[0];
    assert!(uses.ends_with(&format!(" # v{version}")), "{uses}");
}

/// `cargo run --release` does not wait for what only shipped programs need.
#[test]
fn everything_shipped_or_measured_has_the_profile_dist() {
    let manifest: DocumentMut = page("Cargo.toml").parse().unwrap();
    assert_eq!(manifest["profile"]["bench"]["inherits"].as_str(), Some("dist"));
    for file in [DOCKERFILE, RELEASE, DEPLOY] {
        let page = page(file);
        for arguments in after(&page, "cargo build ") {
            assert!(arguments.contains("--profile dist"), "{file}: {arguments}");
        }
    }
}
