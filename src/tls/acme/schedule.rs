//! When to order and when to retry: pure functions of the journal and the time, in Unix seconds.
//!
//! Everything is relative to the lifetime of a certificate, so that lifetimes of 90, 45 and 6 days,
//! and of a few hours with a private CA, need no rules of their own.

/// The most orders for one domain in any hour. Let's Encrypt allows five failed validations for each
/// account and domain, and an order causes at most one.
pub(super) const ORDERS_PER_HOUR: usize = 4;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// The longest `Retry-After` that is respected.
pub(super) const MAX_RETRY_AFTER: u64 = 7 * DAY;

/// The longest wait that [`backoff`] returns, jitter included.
pub(super) const MAX_BACKOFF: u64 = COSTLY.1 + COSTLY.1 / 4;

// First wait, longest wait, and the exponent of two between consecutive waits.
const COSTLY: (u64, u64, u32) = (15, 12 * HOUR, 3);
const FREE: (u64, u64, u32) = (5, 10 * 60, 1);

/// How long to wait after `failures` consecutive failures. The wait after failures that may count as
/// failed validations at the CA grows to half a day, after others (the ACME server is down, a DNS
/// record does not exist yet) to minutes. `share`, from 0 to 1, is the jitter.
pub(super) fn backoff(failures: u32, costly: bool, share: f64) -> u64 {
    let (first, longest, power) = if costly { COSTLY } else { FREE };
    let shift = failures.saturating_sub(1).saturating_mul(power).min(32);
    let wait = (first << shift).min(longest);
    wait + fraction(wait / 4, share)
}

/// The earliest time at which another order stays within [`ORDERS_PER_HOUR`].
pub(super) fn next_allowed(orders: &[u64], now: u64) -> u64 {
    match orders.len().checked_sub(ORDERS_PER_HOUR).and_then(|first| orders.get(first)) {
        Some(oldest) => now.max(oldest + HOUR),
        None => now,
    }
}

/// Removes the orders that [`next_allowed`] no longer needs.
pub(super) fn discard_old(orders: &mut Vec<u64>, now: u64) {
    orders.retain(|order| order + HOUR > now);
}

/// The minimum time between two orders, when the last `early` certificates were replaced too early.
/// One may be: the CA requests it (RFC 9773), or the configuration changes. More have another cause,
/// perhaps the clock, which a new certificate does not fix: the interval grows, so that certificates
/// with a lifetime of six days or more are ordered at most five times a week.
pub(super) fn min_interval(early: u32, lifetime: u64) -> u64 {
    match early {
        0 => 0,
        _ => (lifetime / 8).saturating_mul(1 << (early - 1).min(8)).min(lifetime),
    }
}

/// Whether a certificate of this age was replaced too early.
pub(super) fn is_early(age: u64, lifetime: u64) -> bool {
    age < lifetime / 5 * 3
}

/// When to renew: within the window that the CA suggests, else after two thirds of the lifetime.
/// `share`, from 0 to 1, is the jitter; it is constant for a certificate, so that a restart does not
/// change the time.
pub(super) fn renew_at(
    not_before: u64,
    not_after: u64,
    window: Option<(u64, u64)>,
    share: f64,
) -> u64 {
    let lifetime = not_after.saturating_sub(not_before);
    match window {
        // A window that ends when the certificate expires, or later, leaves no time for a retry.
        Some((start, end)) => (start + fraction(end.saturating_sub(start), share))
            .min(not_after.saturating_sub(lifetime / 12)),
        None => not_before + lifetime / 3 * 2 - fraction(lifetime / 30, share),
    }
}

/// The seconds until the next request for the window: `Retry-After` (RFC 9773 §4.3.2), within limits.
pub(super) fn poll_after(retry_after: Option<u64>) -> u64 {
    retry_after.unwrap_or(6 * HOUR).clamp(60, DAY)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds, of a share between 0 and 1; fractions are irrelevant"
)]
fn fraction(whole: u64, share: f64) -> u64 {
    ((whole as f64) * share.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn backoff_grows_to_its_maximum() {
        let waits = |costly| (1..=8).map(move |n| backoff(n, costly, 0.0)).collect::<Vec<_>>();
        assert_eq!(waits(true), [15, 120, 960, 7680, 43_200, 43_200, 43_200, 43_200]);
        assert_eq!(waits(false), [5, 10, 20, 40, 80, 160, 320, 600]);
        assert_eq!(backoff(u32::MAX, true, 1.0), MAX_BACKOFF);
    }

    #[test]
    fn a_third_of_the_lifetime_remains_at_the_renewal() {
        for lifetime in [90 * DAY, 45 * DAY, 6 * DAY, DAY, 300] {
            let renewal = renew_at(1_000, 1_000 + lifetime, None, 0.0) - 1_000;
            assert_eq!(renewal, lifetime / 3 * 2);
            let earliest = renew_at(1_000, 1_000 + lifetime, None, 1.0) - 1_000;
            assert!(!is_early(earliest, lifetime), "{lifetime}");
        }
    }

    #[test]
    fn the_window_is_used_but_never_up_to_the_expiry() {
        let at = |window, share| renew_at(0, 1200, Some(window), share);
        assert_eq!(
            (at((100, 200), 0.0), at((100, 200), 0.5), at((100, 200), 1.0)),
            (100, 150, 200)
        );
        assert_eq!(at((5000, 6000), 0.5), 1100);
        assert_eq!(at((10, 5), 0.5), 10);
    }

    #[test]
    fn at_most_five_certificates_are_ordered_a_week() {
        for lifetime in [6 * DAY, 45 * DAY, 90 * DAY] {
            let (mut now, mut early, mut issued) = (0, 0, vec![]);
            while now < 400 * DAY {
                if let Some(last) = issued.last() {
                    early = if is_early(now - last, lifetime) { early + 1 } else { 0 };
                }
                issued.push(now);
                // Renewed as early as allowed, forever.
                now += min_interval(early, lifetime);
            }
            for first in &issued {
                let week = issued.iter().filter(|at| (*first..first + 7 * DAY).contains(at));
                assert!(week.count() <= 5, "{lifetime}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_hour_has_more_orders_than_allowed(waits in prop::collection::vec(0_u64..2000, 1..200)) {
            let (mut now, mut recent, mut all) = (1_000_000, vec![], vec![]);
            for wait in waits {
                now = next_allowed(&recent, now + wait);
                discard_old(&mut recent, now);
                recent.push(now);
                all.push(now);
            }
            for first in &all {
                let hour = all.iter().filter(|at| (*first..first + HOUR).contains(at)).count();
                prop_assert!(hour <= ORDERS_PER_HOUR, "{hour} orders in an hour");
            }
        }

        #[test]
        fn a_renewal_is_never_after_the_expiry(
            not_before in 0_u64..1 << 33,
            lifetime in 60_u64..1 << 30,
            window in prop::option::of((0_u64..1 << 34, 0_u64..1 << 34)),
            share in 0.0..1.0_f64,
        ) {
            prop_assert!(renew_at(not_before, not_before + lifetime, window, share) < not_before + lifetime);
        }
    }
}
