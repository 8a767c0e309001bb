//! How the static binary resolves names, in its own network and mount namespaces.

use super::image::static_program;
use super::run;
use crate::peer::program;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// An NSS module that aborts the process which loads it.
const MODULE: &str = "
    #include <stdlib.h>
    __attribute__((constructor)) static void loaded(void) { abort(); }";

/// The standard library resolves a name like this.
const CONTROL: &str = "
    #include <netdb.h>
    int main(void) {
        struct addrinfo *found;
        return getaddrinfo(\"edge.example.test\", 0, 0, &found) != 0;
    }";

const SCRIPT: &str = r#"
    ip link set lo up
    for file in nsswitch.conf resolv.conf hosts; do mount --bind "$DIR/$file" "/etc/$file"; done
    # Where a static glibc searches NSS modules.
    export LD_LIBRARY_PATH="$DIR"
    status=0
    "$DIR/control" || status=$?
    [ $status = 134 ]

    pids=
    trap 'kill -9 $pids 2>/dev/null || :' EXIT
    "$EDGE" serve &
    edge=$!
    pids="$edge"
    self_check() {
      exec 3<>/dev/tcp/127.0.0.1/8080
      printf 'GET /self-check HTTP/1.0\r\nAccept: application/json\r\n\r\n' >&3
      sed '1,/^\r$/d' <&3 >"$DIR/$1"
    }
    until (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null; do kill -0 $edge; sleep 0.1; done
    self_check without

    env -u LD_LIBRARY_PATH pebble-challtestsrv -defaultIPv4 127.0.0.1 -defaultIPv6 "" \
      -http01 "" -https01 "" -tlsalpn01 "" -dns01 127.0.0.1:53 -management 127.0.0.1:1053 &
    dns=$!
    pids="$pids $dns"
    until (exec 3<>/dev/tcp/127.0.0.1/53) 2>/dev/null; do kill -0 $dns; sleep 0.1; done
    echo 'nameserver 127.0.0.1' >"$DIR/resolv.conf"
    self_check with
    if grep -F .so /proc/$edge/maps; then exit 1; fi
    kill $edge
    wait $edge
"#;

#[test]
fn the_static_binary_resolves_names_without_the_modules_of_the_host() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    compile(MODULE, &["-shared", "-fPIC"], &at("libnss_trap.so.2"));
    compile(CONTROL, &["-static", "-w"], &at("control"));
    let nsswitch = "hosts: files trap resolve myhostname dns\npasswd: trap\ngroup: trap\n";
    fs::write(at("nsswitch.conf"), nsswitch).unwrap();
    fs::write(at("hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::write(at("resolv.conf"), "").unwrap();
    let mut command = Command::new(program("unshare"));
    command.args(["--net", "--mount", "bash", "-euc", SCRIPT]).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command.env("DIR", dir.path()).env("EDGE", static_program());
    command.env("CALLBACK_EDGE_PUBLIC_URL", "http://edge.example.test:8080");
    command.env("CALLBACK_EDGE_SELF_CHECK__CACHE", "0s");
    run(command.current_dir(dir.path()));
    let resolves = |name: &str| {
        let reports: Value = serde_json::from_slice(&fs::read(at(name)).unwrap()).unwrap();
        let checks = reports[0]["checks"].as_array().unwrap();
        checks.iter().find(|check| check["id"] == "dns.resolves").unwrap().clone()
    };
    let without = resolves("without");
    assert_eq!(without["status"], "unknown");
    assert!(without["detail"].as_str().unwrap().contains("/etc/resolv.conf"), "{without}");
    let with = resolves("with");
    assert_eq!((&with["status"], &with["detail"]), (&"pass".into(), &"127.0.0.1".into()));
}

fn compile(source: &str, flags: &[&str], to: &Path) {
    let file = to.with_extension("c");
    fs::write(&file, source).unwrap();
    run(Command::new("cc").args(flags).arg("-o").arg(to).arg(file));
}
