//! The Debian package.

use super::image::static_program;
use super::service::{Load, MAIN_PROCESS, is_refused, renew};
use super::{deploy_path, run};
use crate::machine::Machine;
use crate::peer::search_path;
use crate::support::Authority;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// The package contains the same static binary as the image.
#[test]
fn the_debian_package_installs_upgrades_and_purges_completely() {
    let binary = static_program();
    let mut package = Command::new(deploy_path("debian/package"));
    package.arg(binary).args(["--fast", "--quiet"]).env("PATH", search_path());
    let package = run(&mut package);

    let machine = Machine::boot();
    machine.copy(Path::new(package.trim()), "/root/callback-edge.deb", 0o644);
    let before = files(&machine);
    machine.run("dpkg --install /root/callback-edge.deb");
    assert!(!machine.try_run("systemctl is-active callback-edge.service").0);
    machine.run("callback-edge config check");
    let installed = &files(&machine) - &before;
    for path in [
        "/usr/share/bash-completion/completions/callback-edge",
        "/usr/share/man/man1/callback-edge.1.gz",
        "/usr/share/man/man1/callback-edge-config-check.1.gz",
        "/usr/share/doc/callback-edge/README.md",
        "/usr/share/doc/callback-edge/docs/checks.md",
        "/usr/share/doc/callback-edge/copyright",
    ] {
        assert!(installed.contains(path), "{path} is not in {installed:?}");
    }

    let authority = Arc::new(Authority::new());
    renew(&machine, &authority);
    let examples = "/usr/share/doc/callback-edge/examples";
    let service = "/etc/systemd/system/callback-edge.service.d";
    machine.run(&format!("install -D -m 644 {examples}/keys.conf {service}/keys.conf"));
    machine.run(&format!("install -m 644 {examples}/keys.toml /etc/callback-edge/config.toml"));
    machine.run("systemctl enable --now callback-edge.socket callback-edge.service");
    machine.run("callback-edge health --ready");

    // An upgrade keeps the configuration, runs the new binary, and loses no request.
    let load = Load::start(&machine, &authority);
    load.wait_for_requests();
    let process = machine.run(MAIN_PROCESS);
    machine.run("dpkg --install /root/callback-edge.deb");
    assert_ne!(machine.run(MAIN_PROCESS), process);
    load.finish();

    machine.run(&format!("rm -r /etc/callback-edge/*.pem {service}"));
    machine.run("dpkg --purge callback-edge");
    assert!(is_refused(&machine));
    assert_eq!(&files(&machine) - &before, BTreeSet::new());
}

/// All files that a package could leave, without dpkg's database.
fn files(machine: &Machine) -> BTreeSet<String> {
    let found = "find /etc /usr /var/lib /var/cache -xdev -not -path '/var/lib/dpkg/*'";
    machine.run(found).lines().map(ToOwned::to_owned).collect()
}
