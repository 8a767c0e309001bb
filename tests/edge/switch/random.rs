//! Random faults at random requests, against a small model of what must hold.

use super::{World, concurrently};
use crate::fakes::Reply;
use crate::nango::{Fault, Kind, Rule, error};
use std::collections::BTreeSet;

/// A small generator of random numbers (xorshift64): the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn rule(&mut self) -> (String, Rule) {
        let kinds = [
            Kind::Patch,
            Kind::Patch,
            Kind::Read,
            Kind::Read,
            Kind::Start,
            Kind::Session,
            Kind::Integrations,
            Kind::List,
        ];
        let (kind, skip, times) = (self.of(&kinds), self.below(4), self.of(&[1, 1, 2, 9]));
        let faults: [NamedFault; 8] = [
            ("502", || Fault::Reply(Reply::page(502, "Bad Gateway"))),
            ("500", || Fault::Reply(error(500, "server_error", ""))),
            ("400", || Fault::Reply(error(400, "invalid_body", ""))),
            ("502 after", || Fault::ReplyAfter(Reply::page(502, "Bad Gateway"))),
            ("lost before", || Fault::LostBefore),
            ("lost after", || Fault::LostAfter),
            ("killed before", || Fault::HangBefore),
            ("killed after", || Fault::HangAfter),
        ];
        let (name, fault) = self.of(&faults);
        let times = if name.starts_with("killed") { 1 } else { times };
        let name = format!("{kind:?} {name}, {times} after {skip}");
        (name, Rule::repeated(kind, times, fault).after(skip))
    }
}

type NamedFault = (&'static str, fn() -> Fault);

/// Runs with random faults; then what is saved, the exit code, `--status` and the same command agree.
async fn random_faults(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let world = World::new(&["prod", "dev"]).await;
    let mut names = Vec::new();
    for _ in 0..=random.below(3) {
        let (name, rule) = random.rule();
        names.push(name);
        world.rule(rule);
    }
    let is_rejected = random.below(4) == 0;
    if is_rejected {
        names.push("rejected after the save of dev".into());
        world.rejects_after_save("dev");
    }
    let about = format!("seed {seed}: {names:?}");
    let mut command = world.command(&world.arguments(&["--yes"]));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let before = world.nango().saved();
    let child = command.spawn().unwrap();
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let hanging = std::sync::Arc::clone(&world.nango().hanging);
    let mut ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let (output, is_killed) = tokio::select! {
        output = &mut ended => (output.unwrap(), false),
        () = hanging.notified() => {
            rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
            (ended.await.unwrap(), true)
        }
    };
    world.nango().rules.clear();
    let run = world.checked(output, before);
    let about = format!("{about}, {}", run.text());
    let saved = world.nango().saved();
    for (name, value) in &saved {
        assert!([&world.old, &world.new].contains(&value), "{name} has {value}: {about}");
    }
    let values: BTreeSet<_> = saved.values().collect();
    match run.code {
        None => assert!(is_killed, "{about}"),
        Some(0 | 2) => assert_eq!(values, BTreeSet::from([&world.new]), "{about}"),
        Some(1 | 3) => assert_eq!(values, BTreeSet::from([&world.old]), "{about}"),
        Some(4) => assert!(values.contains(&world.new), "{about}"),
        Some(other) => panic!("exit {other}: {about}"),
    }
    // The status is the truth, and changes nothing.
    let status = world.status().await;
    assert_eq!(world.nango().saved(), saved, "{about}");
    if world.journal().exists() {
        assert!(matches!(status.code, Some(0 | 2)), "{about}{}", status.text());
        for (name, value) in &saved {
            let shown = status.environment(name);
            assert_eq!(shown["value"], **value, "{about}{}", status.text());
        }
    }
    // The same command again completes it, or restores what providers reject.
    world.register("dev-app", &[&world.old, &world.new]);
    let run = world.switch(&[]).await;
    assert_eq!(run.code, Some(0), "{about}, then {}", run.text());
    world.all_have(&world.new);
    world.back(&[]).await.exits(0);
    world.all_have(&world.old);
}

/// More with `SWITCH_SEEDS=1000`.
#[tokio::test(flavor = "multi_thread")]
async fn random_faults_never_leave_an_unknown_state() {
    let seeds = std::env::var("SWITCH_SEEDS").ok().and_then(|it| it.parse().ok()).unwrap_or(16);
    let from = std::env::var("SWITCH_FROM").ok().and_then(|it| it.parse().ok()).unwrap_or(1);
    concurrently(from..from + seeds, random_faults).await;
}
