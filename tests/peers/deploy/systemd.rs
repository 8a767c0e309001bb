//! The units, read by systemd and run by one that is booted.

use super::service::{Load, MAIN_PROCESS, is_refused, look, renew};
use super::{run, swap, text};
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

/// The most that `systemd-analyze security` may find, in tenths.
const EXPOSURE: &str = "15";

#[test]
fn systemd_takes_the_units_without_a_word() {
    let dir = units();
    let tool = program("systemd-analyze");
    for unit in ["callback-edge.service", "callback-edge.socket"] {
        let said = run(Command::new(&tool).arg("verify").arg(dir.path().join(unit)));
        assert_eq!(said, "", "{unit}");
    }
}

#[test]
fn systemd_finds_little_exposed() {
    let dir = units();
    let mut analyze = Command::new(program("systemd-analyze"));
    analyze
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE}"));
    run(analyze.arg(dir.path().join("callback-edge.service")));
}

#[test]
fn settings_and_sockets_of_systemd_name_the_same_addresses() {
    let sockets: BTreeSet<String> = lines_of("systemd/callback-edge.socket", "ListenStream=");
    for file in ["systemd/config.toml", "systemd/keys.toml"] {
        let settings = swap(&text(file), &[]).parse::<toml_edit::DocumentMut>().unwrap();
        let listen = |key: &str| {
            let list = settings["listen"][key].as_array().unwrap().iter();
            list.map(|address| address.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let named: BTreeSet<String> =
            [listen("http"), listen("https")].concat().into_iter().collect();
        assert_eq!(named, sockets, "{file}");
    }
    // The credentials by the names under which the settings look for them.
    let shown = lines_of("systemd/keys.conf", "LoadCredential=");
    for credential in shown {
        let (name, source) = credential.split_once(':').unwrap();
        assert!(text("systemd/keys.toml").contains(&format!("/callback-edge.service/{name}\"")));
        assert!(source.starts_with("/etc/callback-edge/"));
    }
}

#[test]
fn the_service_allows_more_time_than_the_edge_takes() {
    let stop = &lines_of("systemd/callback-edge.service", "TimeoutStopSec=");
    let stop: u64 = stop.first().unwrap().parse().unwrap();
    let dir = TempDir::new().unwrap();
    let shown = run(command(dir.path()).args(["config", "show"]));
    assert!(shown.contains("30s"), "the default of `shutdown.grace` is another now:\n{shown}");
    assert!(stop > 30);
}

/// From the units being installed to the socket being closed, under a systemd that is booted for it;
/// the clients never stop asking.
#[test]
fn a_booted_systemd_starts_reloads_and_restarts_it_and_nobody_is_lost() {
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
    // There is nobody to ask for a certificate: alive, and not ready.
    let health = "callback-edge -c /etc/callback-edge/config.toml health";
    machine.run(health);
    assert!(!machine.try_run(&format!("{health} --ready")).0);

    // What cannot be used is told at once, and changes nothing.
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
    let leads = |to: &str| look(&machine, &authority).1.starts_with(to);
    let waits = Instant::now();
    while !leads("https://nango.example.com/") {
        assert!(waits.elapsed() < PATIENCE, "the reload changed nothing");
    }
    machine.write("/etc/callback-edge/config.toml", &settings, 0o644);

    let mut served = look(&machine, &authority).0;
    for _ in 0..5 {
        load.goes_on();
        renew(&machine, &authority);
        let process = machine.run(MAIN_PROCESS);
        machine.run("systemctl restart callback-edge.service");
        assert_ne!(machine.run(MAIN_PROCESS), process);
        let now = look(&machine, &authority).0;
        assert_ne!(now, served, "the certificate is the one of before");
        served = now;
    }
    load.finish();

    // After a crash, who comes too early waits; and a connection starts what was stopped.
    machine.run("systemctl kill --signal=KILL callback-edge.service");
    look(&machine, &authority);
    machine.run("systemctl stop callback-edge.service");
    look(&machine, &authority);
    machine.run("systemctl stop callback-edge.socket callback-edge.service");
    assert!(is_refused(&machine));
}

/// The units in a folder, with the built program in the place of the installed one; the drop-in is
/// part of them.
fn units() -> TempDir {
    let dir = TempDir::new().unwrap();
    let service = text("systemd/callback-edge.service");
    let service = swap(&service, &[("=callback-edge ", &format!("={PROGRAM} "))]);
    fs::write(dir.path().join("callback-edge.service"), service).unwrap();
    let socket = text("systemd/callback-edge.socket");
    fs::write(dir.path().join("callback-edge.socket"), socket).unwrap();
    let drop_in = dir.path().join("callback-edge.service.d");
    fs::create_dir(&drop_in).unwrap();
    fs::write(drop_in.join("keys.conf"), text("systemd/keys.conf")).unwrap();
    dir
}

/// What stands behind this begin of a line of a unit.
fn lines_of(file: &str, key: &str) -> BTreeSet<String> {
    text(file).lines().filter_map(|line| line.strip_prefix(key)).map(ToOwned::to_owned).collect()
}
