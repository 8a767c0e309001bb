//! The state directory: restarts, kills, damaged files, and a second process.

use super::{NAME, admin, persistent, redirects, served};
use crate::pebble::{Options, Pebble, handshake};
use crate::support::{Edge, until};
use rustix::process::Signal;
use std::time::Duration;
use tempfile::TempDir;

#[tokio::test]
async fn a_restart_orders_nothing_and_damaged_files_are_set_aside() {
    let pebble = Pebble::start(Options::default()).await;
    let (dir, state) = persistent();
    let settings = pebble.settings(&[NAME], &state);
    let edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    edge.stop();
    let client = pebble.client().await;
    let edge = Edge::start(&settings);
    assert!(edge.stderr().contains("valid until "), "{}", edge.stderr());
    assert!(served(&client, &pebble, NAME).await.is_some(), "immediately");
    edge.stop();
    assert_eq!(pebble.orders(), 1);

    let state_dir = dir.path().join("acme");
    let file = |name: &str| state_dir.join(name);
    // The journal is damaged: the certificate stays valid.
    std::fs::write(file("auth.example.com.json"), "{\"pending\":").unwrap();
    let mut edge = Edge::start(&settings);
    edge.wait_for("acme_state_damaged");
    assert!(served(&client, &pebble, NAME).await.is_some());
    edge.stop();
    assert_eq!(pebble.orders(), 1);

    // The certificate is truncated, the account is damaged.
    let pem = std::fs::read(file("auth.example.com.pem")).unwrap();
    std::fs::write(file("auth.example.com.pem"), &pem[..pem.len() / 3]).unwrap();
    let account = std::fs::read_dir(&state_dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().contains("account"))
        .unwrap();
    std::fs::write(account, "\0\0\0").unwrap();
    let edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    assert!(file("auth.example.com.pem.damaged").exists());
    edge.stop();
    assert_eq!(pebble.orders(), 2);
}

#[tokio::test]
async fn an_unwritable_state_directory_costs_no_order_and_loses_none() {
    let pebble = Pebble::start(Options::default()).await;
    let (dir, state) = persistent();
    let settings = pebble.settings(&[NAME], &state);
    let state_dir = dir.path().join("acme");
    // A file instead of the directory.
    std::fs::write(&state_dir, "").unwrap();
    let mut edge = Edge::start(&settings);
    edge.wait_for("\"reason\":\"state_dir\"");
    assert_eq!((admin(&edge, "/readyz").await.0, pebble.orders()), (503, 0));
    edge.stop();
    std::fs::remove_file(&state_dir).unwrap();

    // The journal cannot be written: a directory with its name simulates a full disk, because root
    // ignores file modes.
    let block =
        |name: &str| std::fs::create_dir_all(state_dir.join(name).join("in the way")).unwrap();
    let free = |name: &str| std::fs::remove_dir_all(state_dir.join(name)).unwrap();
    block(".auth.example.com.json.new");
    let mut edge = Edge::start(&settings);
    edge.wait_for("\"reason\":\"state_dir\"");
    assert_eq!(pebble.orders(), 0);
    free(".auth.example.com.json.new");

    // The certificate cannot be written: it is used, and a restart obtains the same one again.
    block(".auth.example.com.pem.new");
    redirects(&pebble, NAME).await;
    let client = pebble.client().await;
    let first = served(&client, &pebble, NAME).await;
    edge.stop();
    assert!(!state_dir.join("auth.example.com.pem").exists());
    free(".auth.example.com.pem.new");
    let edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    assert_eq!(served(&client, &pebble, NAME).await, first);
    until("the certificate is stored", async || state_dir.join("auth.example.com.pem").exists())
        .await;
    assert_eq!(pebble.orders(), 1);
    drop(edge);
}

/// Starts the server in a mount namespace with another file system at its state directory.
fn mounted(settings: &str, dir: TempDir, mount: &str) -> Edge {
    let inner = format!("{mount} && exec \"$0\" \"$@\"");
    let script = format!("exec unshare --mount /bin/sh -c '{inner}' \"$0\" \"$@\"");
    Edge::start_from_shell(dir, settings, &script, |_| {})
}

#[tokio::test]
async fn a_full_disk_costs_no_order_and_is_retried() {
    let pebble = Pebble::start(Options::default()).await;
    let settings = pebble.settings(&[NAME], "state_dir = '{dir}/acme'");
    let fill = "mkdir acme && mount -t tmpfs -o size=64k tmpfs acme; \
                head -c 100000 /dev/zero > acme/filler 2> acme.log; true";
    let mut edge = mounted(&settings, TempDir::new().unwrap(), fill);
    edge.wait_for("No space left on device");
    assert_eq!((admin(&edge, "/readyz").await.0, pebble.orders()), (503, 0));
    // Free the disk in the namespace of the server.
    let state_dir = format!("/proc/{}/root{}/acme", edge.id(), edge.dir().display());
    std::fs::remove_file(format!("{state_dir}/filler")).unwrap();
    redirects(&pebble, NAME).await;
    assert_eq!(pebble.orders(), 1);
}

#[tokio::test]
async fn a_read_only_disk_serves_the_stored_certificate() {
    let pebble = Pebble::start(Options::default()).await;
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_owned();
    let settings = pebble.settings(&[NAME], "state_dir = '{dir}/acme'");
    let first = Edge::start_in(dir, &settings, |_| {});
    redirects(&pebble, NAME).await;
    until("the certificate is stored", async || path.join("acme/auth.example.com.pem").exists())
        .await;
    let copy = TempDir::new().unwrap();
    std::fs::create_dir(copy.path().join("acme")).unwrap();
    for file in std::fs::read_dir(path.join("acme")).unwrap().flatten() {
        std::fs::copy(file.path(), copy.path().join("acme").join(file.file_name())).unwrap();
    }
    first.stop();

    let read_only = "mount --bind acme acme && mount -o remount,ro,bind acme";
    let mut edge = mounted(&settings, copy, read_only);
    edge.wait_for("Read-only file system");
    let client = pebble.client().await;
    assert!(served(&client, &pebble, NAME).await.is_some());
    assert_eq!((admin(&edge, "/readyz").await.0, pebble.orders()), (200, 1));
}

#[tokio::test]
async fn ten_kills_during_an_order_cause_at_most_four_orders() {
    let pebble = Pebble::start(Options { delay: 1, ..Options::default() }).await;
    let (dir, state) = persistent();
    let settings = pebble.settings(&[NAME], &state);
    // An order takes about a second here, and is resumed after a kill.
    let points: Vec<u64> = (0..10).map(|_| random() % 300).collect();
    println!("killed after these milliseconds: {points:?}");
    for point in points {
        let edge = Edge::start(&settings);
        tokio::time::sleep(Duration::from_millis(point)).await;
        edge.signal(Signal::KILL);
        edge.wait();
        let left = std::fs::read_dir(dir.path().join("acme")).map_or(0, Iterator::count);
        assert!(left < 10, "{left} files");
    }
    let orders = pebble.orders();
    let _edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    println!("{} orders over ten kills, {orders} of them before the last start", pebble.orders());
    // The limit for one hour.
    assert!(pebble.orders() <= 4, "{} orders", pebble.orders());
}

#[tokio::test]
async fn a_second_process_serves_the_certificates_of_the_first_and_takes_over() {
    let pebble = Pebble::start(Options::default()).await;
    let (dir, state) = persistent();
    let settings = pebble.settings(&[NAME], &state);
    let first = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    let own = settings
        .replace(&format!("http = '{}'", pebble.edge_http), "http = '127.0.0.1:0'")
        .replace(&format!("https = '{}'", pebble.edge_https), "https = '127.0.0.1:0'");
    let mut second = Edge::start(&own);
    let client = pebble.client().await;
    handshake(&client, second.https[0], NAME).await.unwrap();
    second.wait_for("acme_state_held");
    first.stop();
    // Only the owner of the lock writes.
    let journal = dir.path().join("acme/auth.example.com.json");
    std::fs::remove_file(&journal).unwrap();
    until("the second takes over", async || journal.exists()).await;
    assert_eq!(pebble.orders(), 1);
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
