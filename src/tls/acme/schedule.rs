//! When to do what: functions of what is known and of the time, all in Unix seconds.
//!
//! No number of days stands in here. Certificates of 90, 45 and 6 days, and of a private
//! authority's few hours, differ in their lifetime only.

/// Orders for one name in any hour. Let's Encrypt allows five failed validations for each account
/// and name, and an order can fail no more than one.
pub(super) const ORDERS_PER_HOUR: usize = 4;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// The longest that an authority's `Retry-After` is believed.
pub(super) const LONGEST_HOLD: u64 = 7 * DAY;

/// The longest wait that [`back_off`] gives, its spread included.
pub(super) const LONGEST_BACK_OFF: u64 = COSTLY.1 + COSTLY.1 / 4;

// First wait, longest wait, and the power of two between one and the next.
const COSTLY: (u64, u64, u32) = (15, 12 * HOUR, 3);
const FREE: (u64, u64, u32) = (5, 10 * 60, 1);

/// How long to wait after the last of `failures` in a row. A failure that may have cost one of an
/// authority's attempts grows to half a day, one that cost nothing (a directory that is down, a
/// DNS entry that is not there yet) to minutes. `share`, from 0 to 1, spreads a crowd.
pub(super) fn back_off(failures: u32, costly: bool, share: f64) -> u64 {
    let (first, longest, power) = if costly { COSTLY } else { FREE };
    let shift = failures.saturating_sub(1).saturating_mul(power).min(32);
    let wait = (first << shift).min(longest);
    wait + part(wait / 4, share)
}

/// The earliest time at which another order keeps [`ORDERS_PER_HOUR`].
pub(super) fn hourly(orders: &[u64], now: u64) -> u64 {
    match orders.len().checked_sub(ORDERS_PER_HOUR).and_then(|first| orders.get(first)) {
        Some(oldest) => now.max(oldest + HOUR),
        None => now,
    }
}

/// The orders that [`hourly`] still has to know of.
pub(super) fn forget(orders: &mut Vec<u64>, now: u64) {
    orders.retain(|order| order + HOUR > now);
}

/// How long a certificate is kept at least, when `early` ones before it were replaced before
/// their time. One may be: its authority asks for it (RFC 9773), or settings change. After that
/// something else is wrong, perhaps the clock, and a new certificate does not mend it: the pauses
/// grow, so that certificates of six days and more are ordered five times a week at most.
pub(super) fn pause(early: u32, lifetime: u64) -> u64 {
    match early {
        0 => 0,
        _ => (lifetime / 8).saturating_mul(1 << (early - 1).min(8)).min(lifetime),
    }
}

/// Whether a certificate was replaced before its time.
pub(super) fn is_early(age: u64, lifetime: u64) -> bool {
    age < lifetime / 5 * 3
}

/// When to renew: within the window that the authority suggests, else when two thirds of the
/// lifetime are over. `share`, from 0 to 1, spreads the certificates of a crowd, and is always
/// the same for the same certificate, so that a restart changes nothing.
pub(super) fn renew_at(
    not_before: u64,
    not_after: u64,
    window: Option<(u64, u64)>,
    share: f64,
) -> u64 {
    let lifetime = not_after.saturating_sub(not_before);
    match window {
        // A window that ends with the certificate, or after it, leaves no room for a failure.
        Some((start, end)) => (start + part(end.saturating_sub(start), share))
            .min(not_after.saturating_sub(lifetime / 12)),
        None => not_before + lifetime / 3 * 2 - part(lifetime / 30, share),
    }
}

/// When to ask for the window again: when the authority says so (RFC 9773 §4.3.2), within reason.
pub(super) fn ask_again_in(retry_after: Option<u64>) -> u64 {
    retry_after.unwrap_or(6 * HOUR).clamp(60, DAY)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of a share between 0 and 1; the fraction does not matter"
)]
fn part(whole: u64, share: f64) -> u64 {
    ((whole as f64) * share.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_grow_to_their_bound() {
        let waits = |costly| (1..=8).map(move |n| back_off(n, costly, 0.0)).collect::<Vec<_>>();
        assert_eq!(waits(true), [15, 120, 960, 7680, 43_200, 43_200, 43_200, 43_200]);
        assert_eq!(waits(false), [5, 10, 20, 40, 80, 160, 320, 600]);
        assert_eq!(back_off(u32::MAX, true, 1.0), LONGEST_BACK_OFF);
    }

    #[test]
    fn a_third_of_every_lifetime_is_left_to_renew() {
        for lifetime in [90 * DAY, 45 * DAY, 6 * DAY, DAY, 300] {
            let renewal = renew_at(1_000, 1_000 + lifetime, None, 0.0) - 1_000;
            assert_eq!(renewal, lifetime / 3 * 2);
            let earliest = renew_at(1_000, 1_000 + lifetime, None, 1.0) - 1_000;
            assert!(!is_early(earliest, lifetime), "{lifetime}");
        }
    }

    #[test]
    fn a_window_is_used_and_never_up_to_the_end() {
        let at = |window, share| renew_at(0, 1200, Some(window), share);
        assert_eq!(
            (at((100, 200), 0.0), at((100, 200), 0.5), at((100, 200), 1.0)),
            (100, 150, 200)
        );
        assert_eq!(at((5000, 6000), 0.5), 1100);
        assert_eq!(at((10, 5), 0.5), 10);
    }

    #[test]
    fn whatever_asks_for_certificates_gets_five_a_week() {
        for lifetime in [6 * DAY, 45 * DAY, 90 * DAY] {
            let (mut now, mut early, mut issued) = (0, 0, vec![]);
            while now < 400 * DAY {
                if let Some(last) = issued.last() {
                    early = if is_early(now - last, lifetime) { early + 1 } else { 0 };
                }
                issued.push(now);
                // Renewed as soon as may be, for ever.
                now += pause(early, lifetime);
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
            let (mut now, mut kept, mut all) = (1_000_000, vec![], vec![]);
            for wait in waits {
                now = hourly(&kept, now + wait);
                forget(&mut kept, now);
                kept.push(now);
                all.push(now);
            }
            for first in &all {
                let hour = all.iter().filter(|at| (*first..first + HOUR).contains(at)).count();
                prop_assert!(hour <= ORDERS_PER_HOUR, "{hour} orders in an hour");
            }
        }

        #[test]
        fn a_renewal_is_never_after_the_end(
            begin in 0_u64..1 << 33,
            lifetime in 60_u64..1 << 30,
            window in prop::option::of((0_u64..1 << 34, 0_u64..1 << 34)),
            share in 0.0..1.0_f64,
        ) {
            prop_assert!(renew_at(begin, begin + lifetime, window, share) < begin + lifetime);
        }
    }
}
