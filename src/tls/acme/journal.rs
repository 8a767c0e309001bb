//! What is remembered of one name between starts, and what follows from it for the next order.

use super::schedule;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Kept beside the certificate. Written before an order begins and after each step that must not
/// be taken twice; all times are Unix seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Journal {
    /// The order that is not finished.
    pub(super) pending: Option<Pending>,
    /// Set while an order is asked for: the answer may be lost in a crash.
    asking: bool,
    /// When orders were begun in the last hour.
    orders: Vec<u64>,
    /// Failures in a row that may have cost an attempt, and those that cost nothing.
    costly: u32,
    free: u32,
    /// No order before this.
    retry_at: u64,
    /// Directories that want to be left alone, and until when.
    held: BTreeMap<String, u64>,
    /// When the last certificate was issued, its lifetime, and how many were replaced early.
    issued_at: Option<u64>,
    lifetime: u64,
    early: u32,
    /// The directory that issued it.
    pub(super) directory: Option<String>,
    /// When the authority wants it to be renewed.
    pub(super) window: Option<Window>,
}

/// An order at a directory. With its key, because the certificate is for that key.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) directory: String,
    pub(super) url: String,
    pub(super) key: String,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The window of RFC 9773.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    /// The certificate it is for, as the directory names it.
    pub(super) certificate: String,
    /// From and to; `None` when the directory did not tell.
    pub(super) span: Option<(u64, u64)>,
    /// When to ask again.
    pub(super) ask_at: u64,
}

impl Journal {
    /// Makes up for a crash and for a clock that was set back: what was to be in a far future is
    /// not waited for.
    pub(super) fn steady(&mut self, now: u64) {
        if std::mem::take(&mut self.asking) && self.pending.is_none() {
            // An order may stand at the directory that nobody knows of. It counts as one that
            // failed, so that a crash that repeats cannot order without end.
            self.failed(now, true, 0.0);
        }
        for order in &mut self.orders {
            *order = now.min(*order);
        }
        schedule::forget(&mut self.orders, now);
        self.retry_at = self.retry_at.min(now + schedule::LONGEST_BACK_OFF);
        self.issued_at = self.issued_at.map(|at| at.min(now));
        self.held.retain(|_, until| *until > now);
        for until in self.held.values_mut() {
            *until = (*until).min(now + schedule::LONGEST_HOLD);
        }
        if let Some(window) = &mut self.window {
            window.ask_at = window.ask_at.min(now + schedule::ask_again_in(Some(u64::MAX)));
        }
    }

    /// When an order may begin that is wanted from `wanted` on.
    pub(super) fn next(&self, wanted: u64, now: u64) -> u64 {
        if self.pending.is_some() {
            // It was counted when it began.
            return self.retry_at;
        }
        let pause = schedule::pause(self.early, self.lifetime);
        let kept = self.issued_at.map_or(0, |at| at + pause);
        wanted.max(self.retry_at).max(kept).max(schedule::hourly(&self.orders, now))
    }

    /// Whether an order may begin at this moment.
    pub(super) fn may_order(&self, now: u64) -> bool {
        schedule::hourly(&self.orders, now) <= now
    }

    /// An order is asked for.
    pub(super) fn begins(&mut self, now: u64) {
        self.orders.push(now);
        self.asking = true;
        self.pending = None;
    }

    /// The directory refused, so there is none.
    pub(super) fn not_ordered(&mut self) {
        self.orders.pop();
        self.asking = false;
    }

    /// The order stands.
    pub(super) fn ordered(&mut self, pending: Pending) {
        self.asking = false;
        self.pending = Some(pending);
    }

    /// Something failed; tells when to try again.
    pub(super) fn failed(&mut self, now: u64, costly: bool, share: f64) -> u64 {
        self.asking = false;
        let failures = if costly { &mut self.costly } else { &mut self.free };
        *failures = failures.saturating_add(1);
        self.retry_at = now + schedule::back_off(*failures, costly, share);
        self.retry_at
    }

    /// A directory wants to be left alone for so many seconds.
    pub(super) fn hold(&mut self, directory: &str, now: u64, seconds: u64) {
        self.held.insert(directory.to_owned(), now + seconds.min(schedule::LONGEST_HOLD));
    }

    /// Until when a directory wants to be left alone; 0 when it does not.
    pub(super) fn held(&self, directory: &str) -> u64 {
        self.held.get(directory).copied().unwrap_or_default()
    }

    /// The certificate is here.
    pub(super) fn issued(&mut self, now: u64, lifetime: u64, directory: &str) {
        let early =
            self.issued_at.is_some_and(|at| schedule::is_early(now.saturating_sub(at), lifetime));
        self.early = if early { self.early.saturating_add(1) } else { 0 };
        self.issued_at = Some(now);
        self.lifetime = lifetime;
        self.directory = Some(directory.to_owned());
        self.pending = None;
        self.asking = false;
        self.window = None;
        (self.costly, self.free, self.retry_at) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 60 * 60;

    fn pending() -> Pending {
        Pending { directory: "d".into(), url: "u".into(), key: "secret".into() }
    }

    #[test]
    fn what_is_written_is_read_again_and_keys_are_not_shown() {
        let mut journal = Journal::default();
        journal.begins(7);
        journal.ordered(pending());
        journal.hold("d", 7, 60);
        let text = serde_json::to_string(&journal).unwrap();
        let read: Journal = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{journal:?}"), format!("{read:?}"));
        assert_eq!(read.pending.as_ref().unwrap().key, "secret");
        assert!(!format!("{read:?}").contains("secret"));
    }

    #[test]
    fn a_crash_between_asking_and_knowing_counts_as_a_failure() {
        let mut journal = Journal::default();
        journal.begins(1000);
        let mut read: Journal =
            serde_json::from_str(&serde_json::to_string(&journal).unwrap()).unwrap();
        read.steady(1001);
        assert!(read.next(0, 1001) > 1001);
        journal.ordered(pending());
        journal.steady(1001);
        assert!(journal.next(0, 1001) <= 1001, "an order that is known is gone on with at once");
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_up_for_long() {
        let mut journal = Journal::default();
        let future = 2_000_000_000;
        journal.begins(future);
        journal.failed(future, true, 0.0);
        journal.hold("d", future, 60);
        journal.issued_at = Some(future);
        let now = 1_000_000_000;
        journal.steady(now);
        assert!(journal.next(0, now) <= now + schedule::LONGEST_BACK_OFF);
        assert!(journal.held("d") <= now + schedule::LONGEST_HOLD);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Fails(bool),
        Succeeds,
        CrashesWhileAsking,
        CrashesLater,
        SetsTheClockBack(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => any::<bool>().prop_map(Event::Fails),
            1 => Just(Event::Succeeds),
            2 => Just(Event::CrashesWhileAsking),
            1 => Just(Event::CrashesLater),
            1 => (0_u64..100_000).prop_map(Event::SetsTheClockBack),
        ]
    }

    proptest! {
        /// Whatever happens, whoever asks as early as may be stays below what five failed
        /// validations an hour need.
        #[test]
        fn no_hour_sees_five_orders(
            events in prop::collection::vec(event(), 1..80),
            lifetime in 60_u64..8_000_000,
        ) {
            let mut journal = Journal::default();
            // True time, and how far the machine's clock is behind it.
            let (mut time, mut behind) = (1_000_000_000_u64, 0);
            let mut orders: Vec<u64> = vec![];
            for event in events {
                let mut now = time - behind;
                journal.steady(now);
                let at = journal.next(now, now).max(now);
                time += at - now;
                now = at;
                journal.steady(now);
                if journal.pending.is_none() {
                    prop_assert!(journal.may_order(now));
                    orders.push(time);
                    journal.begins(now);
                }
                match event {
                    Event::CrashesWhileAsking => {}
                    Event::CrashesLater => journal.ordered(pending()),
                    Event::Fails(costly) => {
                        journal.ordered(pending());
                        journal.pending = None;
                        journal.failed(now, costly, 0.0);
                    }
                    Event::Succeeds => journal.issued(now, lifetime, "d"),
                    Event::SetsTheClockBack(by) => {
                        journal.ordered(pending());
                        journal.pending = None;
                        journal.failed(now, true, 0.0);
                        behind += by;
                    }
                }
            }
            for first in &orders {
                let hour = orders.iter().filter(|at| (*first..first + HOUR).contains(at)).count();
                prop_assert!(hour <= schedule::ORDERS_PER_HOUR, "{hour} orders in an hour");
            }
        }
    }
}
