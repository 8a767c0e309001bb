//! The laws of [`super::Lifecycle`], over random connections at random times.
//!
//! The connections come from a model of what hyper and the I/O do: HTTP/1 parses one buffered head at a
//! time and none after the last response, a write may stall, and timers fire late.

use super::tests::{FORM, limits};
use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

/// What the outside does next.
#[derive(Clone, Debug)]
enum Step {
    /// Time passes, and all deadlines in it are kept.
    Wait(u64),
    /// Bytes arrive: so many heads, so many bytes of a further one, each head asking to close or not.
    Read {
        heads: Vec<bool>,
        partial: usize,
    },
    /// hyper polls its connection.
    Poll,
    /// The pending response, if there is one, is ready.
    Complete,
    Stall,
    Flush,
    Drain,
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![0_u64..400, 0_u64..40_000].prop_map(Step::Wait),
        4 => (prop::collection::vec(prop::bool::weighted(0.2), 0..5), 0_usize..200)
            .prop_filter("some bytes", |(heads, partial)| !heads.is_empty() || *partial > 0)
            .prop_map(|(heads, partial)| Step::Read { heads, partial }),
        6 => Just(Step::Poll),
        2 => Just(Step::Complete),
        1 => Just(Step::Stall),
        2 => Just(Step::Flush),
        1 => Just(Step::Drain),
        1 => prop::bool::weighted(0.1).prop_map(|evict| if evict { Step::Evict } else { Step::Poll }),
    ]
}

/// An HTTP/1 connection with its hyper and its driver.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of the outside")]
struct Model {
    life: Lifecycle,
    now: Instant,
    /// Heads that hyper has in its buffer, and whether each asks to close.
    buffered: VecDeque<bool>,
    partial: usize,
    /// hyper has a response that is not ready.
    pending: Option<bool>,
    /// The last response was handed over.
    last_sent: bool,
    stalled: bool,
    hibernating: bool,
    over: bool,
}

impl Model {
    fn new() -> Self {
        let now = Instant::now();
        let mut life = Lifecycle::new(now);
        life.on(Event::Ready { multiplexed: false }, now);
        Self {
            life,
            now,
            buffered: VecDeque::new(),
            partial: 0,
            pending: None,
            last_sent: false,
            stalled: false,
            hibernating: false,
            over: false,
        }
    }

    fn on(&mut self, event: Event) -> Action {
        self.life.on(event, self.now)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => self.wait(Duration::from_millis(ms)),
            Step::Read { heads, partial } => {
                // A head that was begun is completed first.
                let count = u32::try_from(heads.len()).unwrap();
                let partial = if heads.is_empty() { self.partial + partial } else { partial };
                if self.on(Event::Read { heads: count, partial }) != Action::Discard {
                    assert!(!self.last_sent, "bytes are given to hyper after the last response");
                    self.hibernating = false;
                    self.buffered.extend(heads);
                    self.partial = partial;
                }
            }
            Step::Poll => self.poll(),
            Step::Complete => {
                if let Some(close) = self.pending.take() {
                    self.on(Event::Completed(FORM));
                    self.respond(close);
                    self.poll();
                }
            }
            Step::Stall => {
                self.stalled = true;
                self.on(Event::WriteStalled);
            }
            Step::Flush => {
                self.stalled = false;
                self.on(Event::WriteFlushed);
                self.poll();
            }
            Step::Drain => {
                self.on(Event::Drain { grace: Duration::from_secs(30) });
            }
            Step::Evict => self.over |= self.on(Event::Evict) == Action::Drop,
        }
        self.laws();
    }

    /// hyper parses what it has; every third request takes time.
    fn poll(&mut self) {
        while !self.over && self.pending.is_none() && !self.stalled && !self.last_sent {
            let Some(close) = self.buffered.pop_front() else { break };
            if self.on(Event::Request) == Action::Refuse {
                self.over = true;
                return;
            }
            if self.buffered.len() % 3 == 2 {
                assert_eq!(self.on(Event::Pending(FORM)), Action::Continue);
                self.pending = Some(close);
            } else {
                self.respond(close);
            }
        }
        if self.last_sent && !self.stalled && self.life.stage < Stage::Lingering {
            self.on(Event::ShutdownStarted);
            self.on(Event::ShutdownSent);
        }
    }

    fn respond(&mut self, close: bool) {
        let last = close || self.life.is_draining();
        self.on(Event::Responded { last });
        self.last_sent |= last;
    }

    /// Lets time pass and keeps every deadline in it.
    fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        for turn in 0.. {
            let at = self.life.deadline(&limits());
            if at > until || self.over {
                break;
            }
            assert!(turn < 100, "a deadline that does nothing: {:?}", self.life);
            self.now = self.now.max(at);
            match self.life.on_timer(self.now, &limits()).0 {
                Action::Drop => self.over = true,
                Action::Hibernate => {
                    assert!(self.buffered.is_empty() && self.partial == 0, "a byte is lost");
                    assert!(!self.last_sent && self.pending.is_none() && !self.stalled);
                    self.hibernating = true;
                }
                Action::Shutdown => {
                    // hyper closes once it has nothing in hand.
                    assert!(self.pending.is_none(), "a request is cut off");
                    self.hibernating = false;
                    self.last_sent = true;
                    self.poll();
                }
                _ => {}
            }
            self.laws();
        }
        self.now = until;
    }

    fn laws(&mut self) {
        let stage = self.life.stage;
        if self.over {
            return;
        }
        // Idle means that no byte of a further request was read.
        if matches!(stage, Stage::Idle | Stage::Hibernating) {
            assert!(self.buffered.is_empty() && self.partial == 0, "{stage:?} with bytes");
            assert!(self.pending.is_none());
        }
        assert_eq!(self.hibernating, stage == Stage::Hibernating);
        // Nothing is accepted after the last response.
        if self.last_sent {
            assert!(stage >= Stage::Closing, "{stage:?} after the last response");
            let mut copy = self.life.clone();
            assert_eq!(copy.on(Event::Request, self.now), Action::Refuse);
            let read = Event::Read { heads: 1, partial: 0 };
            assert_eq!(copy.on(read, self.now), Action::Discard);
        }
        // Every state has a deadline, and none is far.
        let far = limits().connection_age + Duration::from_mins(2);
        assert!(self.life.deadline(&limits()) <= self.now + far);
    }

    /// Without any further event but the end of what is pending, the deadlines end it.
    fn ends(mut self) {
        for _ in 0..100 {
            if self.over {
                return;
            }
            let next = self.life.deadline(&limits());
            self.wait(next.saturating_duration_since(self.now));
        }
        panic!("it does not end: {:?}", self.life);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_over_http1(steps in prop::collection::vec(step(), 0..40)) {
        let mut model = Model::new();
        for step in steps {
            if model.over {
                return Ok(());
            }
            model.step(step);
        }
        model.ends();
    }

    /// HTTP/2: any number of streams, taken back or answered in any order.
    #[test]
    fn the_laws_hold_over_http2(steps in prop::collection::vec((0_u8..9, 0_u64..20_000), 0..60)) {
        let mut now = Instant::now();
        let mut life = Lifecycle::new(now);
        life.on(Event::Ready { multiplexed: true }, now);
        let (mut forms, mut checks) = (0_u32, 0_u32);
        for (kind, ms) in steps {
            match kind {
                0 | 1 if life.on(Event::Request, now) == Action::Continue => {
                    life.on(Event::Responded { last: false }, now);
                }
                2 | 3 => {
                    let pending = if kind == 2 { FORM } else { Pending::SelfCheck };
                    if life.on(Event::Request, now) == Action::Continue {
                        let count = if kind == 2 { &mut forms } else { &mut checks };
                        let few = if kind == 2 { 3 } else { PENDING_SELF_CHECKS };
                        let accepted = life.on(Event::Pending(pending), now) == Action::Continue;
                        prop_assert_eq!(accepted, *count < few);
                        if accepted {
                            *count += 1;
                        } else {
                            life.on(Event::Responded { last: false }, now);
                        }
                    }
                }
                4 if forms > 0 => {
                    forms -= 1;
                    life.on(Event::Completed(FORM), now);
                    life.on(Event::Responded { last: false }, now);
                }
                5 if checks > 0 => {
                    checks -= 1;
                    life.on(Event::Completed(Pending::SelfCheck), now);
                    life.on(Event::Responded { last: false }, now);
                }
                6 => {
                    life.on(Event::Drain { grace: Duration::from_secs(30) }, now);
                }
                _ => {}
            }
            now += Duration::from_millis(ms);
            let (action, _) = life.on_timer(now, &limits());
            prop_assert_ne!(action, Action::Hibernate);
            if action == Action::Drop {
                return Ok(());
            }
            if matches!(life.stage, Stage::Idle) {
                prop_assert_eq!((forms, checks, life.in_flight), (0, 0, 0));
            }
        }
        for _ in 0..100 {
            now = now.max(life.deadline(&limits()));
            if life.on_timer(now, &limits()).0 == Action::Drop {
                return Ok(());
            }
        }
        prop_assert!(false, "it does not end: {:?}", life);
    }
}
