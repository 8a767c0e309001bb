//! The units, verified by systemd and run by a booted systemd.

use super::service::{Load, MAIN_PROCESS, is_refused, renew, served};
use super::{run, substitute, text};
use crate::machine::Machine;
use crate::peer::program;
use crate::support::process::PROGRAM;
use crate::support::{Authority, PATIENCE, command};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;

/// The maximum exposure for `systemd-analyze security`, in tenths.
const EXPOSURE: &str = "15";

#[test]
fn systemd_verifies_the_units_without_warnings() {
    let dir = units();
    let tool = program("systemd-analyze");
    for unit in ["callback-edge.service", "callback-edge.socket"] {
        let output = run(Command::new(&tool).arg("verify").arg(dir.path().join(unit)));
        assert_eq!(output, "", "{unit}");
    }
}

#[test]
fn the_service_has_a_low_exposure() {
    let dir = units();
    let mut analyze = Command::new(program("systemd-analyze"));
    analyze
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE}"));
    run(analyze.arg(dir.path().join("callback-edge.service")));
}

#[test]
fn configuration_and_socket_unit_have_the_same_addresses() {
    let sockets: BTreeSet<String> = lines_of("systemd/callback-edge.socket", "ListenStream=");
    for file in ["systemd/config.toml", "systemd/keys.toml"] {
        let settings = substitute(&text(file), &[]).parse::<toml_edit::DocumentMut>().unwrap();
        let listen = |key: &str| {
            let list = settings["listen"][key].as_array().unwrap().iter();
            list.map(|address| address.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let named: BTreeSet<String> =
            [listen("http"), listen("https")].concat().into_iter().collect();
        assert_eq!(named, sockets, "{file}");
    }
    // The names of the credentials are those of the configuration.
    let credentials = lines_of("systemd/keys.conf", "LoadCredential=");
    for credential in credentials {
        let (name, source) = credential.split_once(':').unwrap();
        assert!(text("systemd/keys.toml").contains(&format!("/callback-edge.service/{name}\"")));
        assert!(source.starts_with("/etc/callback-edge/"));
    }
}

#[test]
fn the_stop_timeout_exceeds_the_grace_period() {
    let stop = &lines_of("systemd/callback-edge.service", "TimeoutStopSec=");
    let stop: u64 = stop.first().unwrap().parse().unwrap();
    let dir = TempDir::new().unwrap();
    let shown = run(command(dir.path()).args(["config", "show"]));
    assert!(shown.contains("30s"), "the default of `shutdown.grace` has changed:\n{shown}");
    assert!(stop > 30);
}

/// From the installation of the units to the end of the socket, with clients that send requests
/// continuously.
#[test]
fn systemd_starts_reloads_and_restarts_the_service_without_a_lost_request() {
    let machine = Machine::boot();
    machine.copy(Path::new(PROGRAM), "/usr/local/bin/callback-edge", 0o755);
    for unit in ["callback-edge.service", "callback-edge.socket"] {
        let text = text(&format!("systemd/{unit}"));
        machine.write(&format!("/etc/systemd/system/{unit}"), text, 0o644);
    }
    machine.write("/etc/callback-edge/config.toml", text("systemd/config.toml"), 0o644);
    machine.run("systemctl daemon-reload");
    machine.run("systemctl enable --now callback-edge.socket callback-edge.service");
    assert_eq!(machine.run("systemctl is-active callback-edge.service"), "active\n");
    // There is no CA: it is alive and not ready.
    let health = "callback-edge -c /etc/callback-edge/config.toml health";
    machine.run(health);
    assert!(!machine.try_run(&format!("{health} --ready")).0);

    // A reload of an invalid configuration fails and changes nothing.
    machine.write("/etc/callback-edge/config.toml", "nonsense = 1", 0o644);
    assert!(!machine.try_run("systemctl reload callback-edge.service").0);
    assert_eq!(machine.run("systemctl is-active callback-edge.service"), "active\n");

    let authority = Arc::new(Authority::new());
    renew(&machine, &authority);
    let drop_in = "/etc/systemd/system/callback-edge.service.d/keys.conf";
    machine.write(drop_in, text("systemd/keys.conf"), 0o644);
    let settings = text("systemd/keys.toml");
    machine.write("/etc/callback-edge/config.toml", &settings, 0o644);
    machine.run("systemctl daemon-reload");
    machine.run("systemctl restart callback-edge.service");
    machine.run(&format!("{health} --ready"));
    machine.run(&format!("! grep -q '^Uid:.0' /proc/$({MAIN_PROCESS})/status"));

    let load = Load::start(&machine, &authority);

    let other = "[nango]\nurl = \"https://nango.example.com\"\n";
    machine.write("/etc/callback-edge/config.toml", format!("{settings}{other}"), 0o644);
    machine.run("systemctl reload callback-edge.service");
    let leads = |to: &str| served(&machine, &authority).1.starts_with(to);
    let started = Instant::now();
    while !leads("https://nango.example.com/") {
        assert!(started.elapsed() < PATIENCE, "the reload changed nothing");
    }
    machine.write("/etc/callback-edge/config.toml", &settings, 0o644);

    let mut certificate = served(&machine, &authority).0;
    for _ in 0..5 {
        load.wait_for_requests();
        renew(&machine, &authority);
        let process = machine.run(MAIN_PROCESS);
        machine.run("systemctl restart callback-edge.service");
        assert_ne!(machine.run(MAIN_PROCESS), process);
        let new = served(&machine, &authority).0;
        assert_ne!(new, certificate, "still the previous certificate");
        certificate = new;
    }
    load.finish();

    // After a crash, connections wait for the restart; a connection starts a stopped service.
    machine.run("systemctl kill --kill-whom=main --signal=KILL callback-edge.service");
    served(&machine, &authority);
    machine.run("systemctl stop callback-edge.service");
    served(&machine, &authority);
    machine.run("systemctl stop callback-edge.socket callback-edge.service");
    assert!(is_refused(&machine));
}

/// A directory with the units and the drop-in, with the path of the built program.
fn units() -> TempDir {
    let dir = TempDir::new().unwrap();
    let service = text("systemd/callback-edge.service");
    let service = substitute(&service, &[("=callback-edge ", &format!("={PROGRAM} "))]);
    fs::write(dir.path().join("callback-edge.service"), service).unwrap();
    let socket = text("systemd/callback-edge.socket");
    fs::write(dir.path().join("callback-edge.socket"), socket).unwrap();
    let drop_in = dir.path().join("callback-edge.service.d");
    fs::create_dir(&drop_in).unwrap();
    fs::write(drop_in.join("keys.conf"), text("systemd/keys.conf")).unwrap();
    dir
}

/// The values of this key of a unit.
fn lines_of(file: &str, key: &str) -> BTreeSet<String> {
    text(file).lines().filter_map(|line| line.strip_prefix(key)).map(ToOwned::to_owned).collect()
}
