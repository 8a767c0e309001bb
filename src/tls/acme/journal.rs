//! The persistent state of one domain, and when it allows the next order.

use super::schedule;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Stored in a file next to the certificate. It is written before an order is requested, and after
/// each step that must not be repeated. All times are Unix seconds. Field names in the file are stable.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Journal {
    /// The order that is not finished.
    pub(super) pending: Option<Pending>,
    /// Set while an order is requested: a crash may lose the response.
    #[serde(rename = "asking")]
    requesting: bool,
    /// When orders were requested in the last hour.
    orders: Vec<u64>,
    /// Consecutive failures that may count as failed validations at the CA, and those that do not.
    costly: u32,
    free: u32,
    /// No order before this.
    retry_at: u64,
    /// ACME servers that sent `Retry-After`, and until when.
    #[serde(rename = "held")]
    retry_after: BTreeMap<String, u64>,
    /// When the last certificate was issued, its lifetime, and how many were replaced too early.
    issued_at: Option<u64>,
    lifetime: u64,
    early: u32,
    /// The ACME server that issued it.
    pub(super) directory: Option<String>,
    /// The renewal window that the CA suggests.
    pub(super) window: Option<Window>,
}

/// An order at an ACME server, with its private key, because the certificate is for that key.
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

/// The renewal window (RFC 9773).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    /// The identifier of the certificate (RFC 9773 §4.1).
    pub(super) certificate: String,
    /// Start and end; `None` when the ACME server returned none.
    pub(super) span: Option<(u64, u64)>,
    /// When to request it again.
    #[serde(rename = "ask_at")]
    pub(super) request_at: u64,
}

impl Journal {
    /// Corrects the state after a crash, and after the clock was set back: times in the far future are
    /// limited.
    pub(super) fn normalize(&mut self, now: u64) {
        if std::mem::take(&mut self.requesting) && self.pending.is_none() {
            // The ACME server may have an order whose URL is lost. It counts as a failed one, so that
            // repeated crashes do not create orders endlessly.
            self.failed(now, true, 0.0);
        }
        for order in &mut self.orders {
            *order = now.min(*order);
        }
        schedule::discard_old(&mut self.orders, now);
        self.retry_at = self.retry_at.min(now + schedule::MAX_BACKOFF);
        self.issued_at = self.issued_at.map(|at| at.min(now));
        self.retry_after.retain(|_, until| *until > now);
        for until in self.retry_after.values_mut() {
            *until = (*until).min(now + schedule::MAX_RETRY_AFTER);
        }
        if let Some(window) = &mut self.window {
            window.request_at = window.request_at.min(now + schedule::poll_after(Some(u64::MAX)));
        }
    }

    /// When an order that is due at `wanted` is allowed.
    pub(super) fn next(&self, wanted: u64, now: u64) -> u64 {
        if self.pending.is_some() {
            // It was counted when it was requested.
            return self.retry_at;
        }
        let interval = schedule::min_interval(self.early, self.lifetime);
        let earliest = self.issued_at.map_or(0, |at| at + interval);
        wanted.max(self.retry_at).max(earliest).max(schedule::next_allowed(&self.orders, now))
    }

    /// Whether an order is allowed now.
    pub(super) fn may_order(&self, now: u64) -> bool {
        schedule::next_allowed(&self.orders, now) <= now
    }

    /// Records that an order is requested.
    pub(super) fn order_requested(&mut self, now: u64) {
        self.orders.push(now);
        self.requesting = true;
        self.pending = None;
    }

    /// Records that the ACME server rejected the order.
    pub(super) fn order_rejected(&mut self) {
        self.orders.pop();
        self.requesting = false;
    }

    /// Records a new order.
    pub(super) fn order_created(&mut self, pending: Pending) {
        self.requesting = false;
        self.pending = Some(pending);
    }

    /// Records a failure, and returns when to retry.
    pub(super) fn failed(&mut self, now: u64, costly: bool, share: f64) -> u64 {
        self.requesting = false;
        let failures = if costly { &mut self.costly } else { &mut self.free };
        *failures = failures.saturating_add(1);
        self.retry_at = now + schedule::backoff(*failures, costly, share);
        self.retry_at
    }

    /// Records the `Retry-After` of an ACME server, in seconds.
    pub(super) fn set_retry_after(&mut self, directory: &str, now: u64, seconds: u64) {
        self.retry_after.insert(directory.to_owned(), now + seconds.min(schedule::MAX_RETRY_AFTER));
    }

    /// When an ACME server may be contacted again; 0 for now.
    pub(super) fn retry_after(&self, directory: &str) -> u64 {
        self.retry_after.get(directory).copied().unwrap_or_default()
    }

    /// Records an issued certificate.
    pub(super) fn issued(&mut self, now: u64, lifetime: u64, directory: &str) {
        let early =
            self.issued_at.is_some_and(|at| schedule::is_early(now.saturating_sub(at), lifetime));
        self.early = if early { self.early.saturating_add(1) } else { 0 };
        self.issued_at = Some(now);
        self.lifetime = lifetime;
        self.directory = Some(directory.to_owned());
        self.pending = None;
        self.requesting = false;
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
    fn a_journal_survives_serialisation_and_debug_output_has_no_key() {
        let mut journal = Journal::default();
        journal.order_requested(7);
        journal.order_created(pending());
        journal.set_retry_after("d", 7, 60);
        let text = serde_json::to_string(&journal).unwrap();
        let read: Journal = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{journal:?}"), format!("{read:?}"));
        assert_eq!(read.pending.as_ref().unwrap().key, "secret");
        assert!(!format!("{read:?}").contains("secret"));
    }

    #[test]
    fn a_crash_between_order_request_and_response_counts_as_a_failure() {
        let mut journal = Journal::default();
        journal.order_requested(1000);
        let mut read: Journal =
            serde_json::from_str(&serde_json::to_string(&journal).unwrap()).unwrap();
        read.normalize(1001);
        assert!(read.next(0, 1001) > 1001);
        journal.order_created(pending());
        journal.normalize(1001);
        assert!(journal.next(0, 1001) <= 1001, "a known order is resumed immediately");
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_block_orders_for_long() {
        let mut journal = Journal::default();
        let future = 2_000_000_000;
        journal.order_requested(future);
        journal.failed(future, true, 0.0);
        journal.set_retry_after("d", future, 60);
        journal.issued_at = Some(future);
        let now = 1_000_000_000;
        journal.normalize(now);
        assert!(journal.next(0, now) <= now + schedule::MAX_BACKOFF);
        assert!(journal.retry_after("d") <= now + schedule::MAX_RETRY_AFTER);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Fails(bool),
        Succeeds,
        CrashesDuringRequest,
        CrashesLater,
        SetsTheClockBack(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => any::<bool>().prop_map(Event::Fails),
            1 => Just(Event::Succeeds),
            2 => Just(Event::CrashesDuringRequest),
            1 => Just(Event::CrashesLater),
            1 => (0_u64..100_000).prop_map(Event::SetsTheClockBack),
        ]
    }

    proptest! {
        /// For any sequence of events, orders that are made as early as allowed never reach five an hour.
        #[test]
        fn at_most_four_orders_are_made_an_hour(
            events in prop::collection::vec(event(), 1..80),
            lifetime in 60_u64..8_000_000,
        ) {
            let mut journal = Journal::default();
            // The true time, and by how much the clock of the machine is slow.
            let (mut time, mut offset) = (1_000_000_000_u64, 0);
            let mut orders: Vec<u64> = vec![];
            for event in events {
                let mut now = time - offset;
                journal.normalize(now);
                let at = journal.next(now, now).max(now);
                time += at - now;
                now = at;
                journal.normalize(now);
                if journal.pending.is_none() {
                    prop_assert!(journal.may_order(now));
                    orders.push(time);
                    journal.order_requested(now);
                }
                match event {
                    Event::CrashesDuringRequest => {}
                    Event::CrashesLater => journal.order_created(pending()),
                    Event::Fails(costly) => {
                        journal.order_created(pending());
                        journal.pending = None;
                        journal.failed(now, costly, 0.0);
                    }
                    Event::Succeeds => journal.issued(now, lifetime, "d"),
                    Event::SetsTheClockBack(by) => {
                        journal.order_created(pending());
                        journal.pending = None;
                        journal.failed(now, true, 0.0);
                        offset += by;
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
