//! What is kept on disk: over restarts, kills, damage, and with another edge beside.

use super::{NAME, admin, lasting, redirects, shown};
use crate::pebble::{Options, Pebble, handshake};
use crate::support::{Edge, until};
use rustix::process::Signal;
use std::time::Duration;
use tempfile::TempDir;

#[tokio::test]
async fn a_restart_orders_nothing_and_damaged_files_are_set_aside() {
    let pebble = Pebble::start(Options::default()).await;
    let (dir, state) = lasting();
    let settings = pebble.settings(&[NAME], &state);
    let edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    edge.stop();
    let client = pebble.client().await;
    let edge = Edge::start(&settings);
    assert!(edge.stderr().contains("valid to "), "{}", edge.stderr());
    assert!(shown(&client, &pebble, NAME).await.is_some(), "at once");
    edge.stop();
    assert_eq!(pebble.orders(), 1);

    let folder = dir.path().join("acme");
    let file = |name: &str| folder.join(name);
    // Its journal is lost: the certificate is good all the same.
    std::fs::write(file("auth.example.com.json"), "{\"pending\":").unwrap();
    let mut edge = Edge::start(&settings);
    edge.wait_for("acme_state_damaged");
    assert!(shown(&client, &pebble, NAME).await.is_some());
    edge.stop();
    assert_eq!(pebble.orders(), 1);

    // The certificate is cut short, the account is rubbish.
    let pem = std::fs::read(file("auth.example.com.pem")).unwrap();
    std::fs::write(file("auth.example.com.pem"), &pem[..pem.len() / 3]).unwrap();
    let account = std::fs::read_dir(&folder)
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
async fn a_folder_that_cannot_be_written_costs_no_order_and_loses_none() {
    let pebble = Pebble::start(Options::default()).await;
    let (dir, state) = lasting();
    let settings = pebble.settings(&[NAME], &state);
    let folder = dir.path().join("acme");
    // A file where the folder should be.
    std::fs::write(&folder, "").unwrap();
    let mut edge = Edge::start(&settings);
    edge.wait_for("\"reason\":\"state_dir\"");
    assert_eq!((admin(&edge, "/readyz").await.0, pebble.orders()), (503, 0));
    edge.stop();
    std::fs::remove_file(&folder).unwrap();

    // Nothing can be remembered: a folder where the journal is to be written stands for a disk
    // that is full, since root writes wherever it likes.
    let block = |name: &str| std::fs::create_dir_all(folder.join(name).join("in the way")).unwrap();
    let free = |name: &str| std::fs::remove_dir_all(folder.join(name)).unwrap();
    block(".auth.example.com.json.new");
    let mut edge = Edge::start(&settings);
    edge.wait_for("\"reason\":\"state_dir\"");
    assert_eq!(pebble.orders(), 0);
    free(".auth.example.com.json.new");

    // The certificate itself cannot be written: it is used, and a restart gets the same again.
    block(".auth.example.com.pem.new");
    redirects(&pebble, NAME).await;
    let client = pebble.client().await;
    let first = shown(&client, &pebble, NAME).await;
    edge.stop();
    assert!(!folder.join("auth.example.com.pem").exists());
    free(".auth.example.com.pem.new");
    let edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    assert_eq!(shown(&client, &pebble, NAME).await, first);
    until("the certificate is kept", async || folder.join("auth.example.com.pem").exists()).await;
    assert_eq!(pebble.orders(), 1);
    drop(edge);
}

/// Starts the edge where only it sees what is mounted over its state folder.
fn mounted(settings: &str, dir: TempDir, mount: &str) -> Edge {
    let inner = format!("{mount} && exec \"$0\" \"$@\"");
    let script = format!("exec unshare --mount /bin/sh -c '{inner}' \"$0\" \"$@\"");
    Edge::start_from_shell(dir, settings, &script, |_| {})
}

#[tokio::test]
async fn a_full_disk_costs_no_order_and_is_tried_again() {
    let pebble = Pebble::start(Options::default()).await;
    let settings = pebble.settings(&[NAME], "state_dir = '{dir}/acme'");
    let fill = "mkdir acme && mount -t tmpfs -o size=64k tmpfs acme; \
                head -c 100000 /dev/zero > acme/filler 2> acme.log; true";
    let mut edge = mounted(&settings, TempDir::new().unwrap(), fill);
    edge.wait_for("No space left on device");
    assert_eq!((admin(&edge, "/readyz").await.0, pebble.orders()), (503, 0));
    // As the edge sees it, there is room again.
    let folder = format!("/proc/{}/root{}/acme", edge.id(), edge.dir().display());
    std::fs::remove_file(format!("{folder}/filler")).unwrap();
    redirects(&pebble, NAME).await;
    assert_eq!(pebble.orders(), 1);
}

#[tokio::test]
async fn a_disk_that_became_read_only_serves_what_is_there() {
    let pebble = Pebble::start(Options::default()).await;
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_owned();
    let settings = pebble.settings(&[NAME], "state_dir = '{dir}/acme'");
    let first = Edge::start_in(dir, &settings, |_| {});
    redirects(&pebble, NAME).await;
    until("it is kept", async || path.join("acme/auth.example.com.pem").exists()).await;
    let kept = TempDir::new().unwrap();
    std::fs::create_dir(kept.path().join("acme")).unwrap();
    for file in std::fs::read_dir(path.join("acme")).unwrap().flatten() {
        std::fs::copy(file.path(), kept.path().join("acme").join(file.file_name())).unwrap();
    }
    first.stop();

    let read_only = "mount --bind acme acme && mount -o remount,ro,bind acme";
    let mut edge = mounted(&settings, kept, read_only);
    edge.wait_for("Read-only file system");
    let client = pebble.client().await;
    assert!(shown(&client, &pebble, NAME).await.is_some());
    assert_eq!((admin(&edge, "/readyz").await.0, pebble.orders()), (200, 1));
}

#[tokio::test]
async fn killed_at_ten_points_it_recovers_and_orders_no_more_than_it_was_killed() {
    let pebble = Pebble::start(Options { delay: 1, ..Options::default() }).await;
    let (dir, state) = lasting();
    let settings = pebble.settings(&[NAME], &state);
    // An order takes about a second here, and goes on from where it was killed.
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
    // What an hour allows, whatever happens.
    assert!(pebble.orders() <= 4, "{} orders", pebble.orders());
}

#[tokio::test]
async fn a_second_edge_uses_what_the_first_obtains_and_takes_over() {
    let pebble = Pebble::start(Options::default()).await;
    let (dir, state) = lasting();
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
    // The owner alone writes.
    let journal = dir.path().join("acme/auth.example.com.json");
    std::fs::remove_file(&journal).unwrap();
    until("the second takes over", async || journal.exists()).await;
    assert_eq!(pebble.orders(), 1);
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
