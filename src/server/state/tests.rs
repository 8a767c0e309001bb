//! The deadline of each stage of [`super::Lifecycle`], and what each event does.

use super::*;

/// A third of what may be awaited.
pub(super) const FORM: Pending = Pending::Form { bytes: PENDING_FORM_BYTES / 3 };

pub(super) fn limits() -> Limits {
    Limits {
        connections: 10,
        connections_per_address: 10,
        handshake_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(15),
        idle_timeout: Duration::from_secs(30),
        proxy_idle_timeout: Duration::from_mins(2),
        connection_age: Duration::from_mins(10),
        header_bytes: 65_536,
        header_fields: 100,
        query_bytes: 32_768,
        form_bytes: 32_768,
    }
}

/// A connection that is ready now, and that time.
fn ready(multiplexed: bool) -> (Lifecycle, Instant) {
    let now = Instant::now();
    let mut life = Lifecycle::new(now);
    life.on(Event::Ready { multiplexed }, now);
    (life, now)
}

const SECOND: Duration = Duration::from_secs(1);

/// What the next deadline is, how long after `now`, and what it does.
fn due(life: &Lifecycle, now: Instant) -> (Duration, Action, Option<Deadline>) {
    let at = life.deadline(&limits());
    let mut life = life.clone();
    let before = at.checked_sub(Duration::from_nanos(1)).unwrap();
    assert_eq!(life.on_timer(before, &limits()), (Action::Continue, None));
    let (action, deadline) = life.on_timer(at, &limits());
    (at - now, action, deadline)
}

#[test]
fn every_stage_has_its_deadline() {
    let (life, now) = ready(false);
    let first = Some(Deadline::FirstRequest);
    assert_eq!(due(&life, now), (15 * SECOND, Action::Drop, first));

    let mut life = Lifecycle::new(now);
    assert_eq!(life.state(), ConnectionState::Handshake);
    assert_eq!(due(&life, now), (10 * SECOND, Action::Drop, Some(Deadline::Handshake)));
    life.on(Event::ProxyHeaderExpected, now + SECOND);
    assert_eq!(life.state(), ConnectionState::Handshake);
    assert_eq!(due(&life, now), (10 * SECOND, Action::Drop, Some(Deadline::ProxyHeader)));
    life.on(Event::ProxyHeaderRead, now + 2 * SECOND);
    assert_eq!(due(&life, now), (10 * SECOND, Action::Drop, Some(Deadline::Handshake)));

    let (mut life, now) = ready(false);
    life.on(Event::Read { heads: 0, partial: 1 }, now + SECOND);
    let (after, action, deadline) = due(&life, now + SECOND);
    assert_eq!((action, deadline), (Action::Drop, first));
    assert_eq!(after, SLOW_START + Duration::from_millis(2), "one byte at 500 a second");
    life.on(Event::Read { heads: 0, partial: 5000 }, now + 2 * SECOND);
    assert_eq!(due(&life, now + SECOND), (15 * SECOND, Action::Drop, first));
    life.on(Event::Read { heads: 1, partial: 0 }, now + 3 * SECOND);
    life.on(Event::Request, now + 3 * SECOND);
    let response = Some(Deadline::Response);
    assert_eq!(due(&life, now + 3 * SECOND), (15 * SECOND, Action::Drop, response));
    life.on(Event::Responded { last: false }, now + 4 * SECOND);
    assert_eq!(due(&life, now + 4 * SECOND), (HIBERNATE_AFTER, Action::Hibernate, None));
    life.on_timer(now + 5 * SECOND, &limits());
    let idle = Some(Deadline::Idle);
    assert_eq!(due(&life, now + 4 * SECOND), (30 * SECOND, Action::Shutdown, idle));
    life.on(Event::Read { heads: 0, partial: 1 }, now + 6 * SECOND);
    assert_eq!(due(&life, now).2, Some(Deadline::Request));
}

#[test]
fn a_partial_request_behind_another_has_the_deadline_of_a_request() {
    let (mut life, now) = ready(false);
    life.on(Event::Read { heads: 1, partial: 10 }, now);
    life.on(Event::Request, now);
    life.on(Event::Responded { last: false }, now);
    let (after, action, deadline) = due(&life, now);
    assert_eq!((action, deadline), (Action::Drop, Some(Deadline::Request)));
    assert!(after < 6 * SECOND);
    assert_eq!(life.state(), ConnectionState::Active);
}

#[test]
fn a_complete_request_behind_another_keeps_the_connection_busy() {
    let (mut life, now) = ready(false);
    life.on(Event::Read { heads: 1, partial: 5 }, now);
    life.on(Event::Read { heads: 1, partial: 0 }, now);
    life.on(Event::Request, now);
    life.on(Event::Responded { last: false }, now);
    assert_eq!(life.stage, Stage::ReadingHead);
    assert_eq!(due(&life, now), (SLOW_START, Action::Drop, Some(Deadline::Request)));
    life.on(Event::Request, now);
    life.on(Event::Responded { last: false }, now);
    assert_eq!(life.stage, Stage::Idle);
}

#[test]
fn no_event_leads_back_from_the_end() {
    let grace = SECOND;
    for end in [Stage::Closing, Stage::Lingering, Stage::Closed] {
        for multiplexed in [false, true] {
            for event in [
                Event::ProxyHeaderExpected,
                Event::ProxyHeaderRead,
                Event::Ready { multiplexed },
                Event::Read { heads: 1, partial: 1 },
                Event::Request,
                Event::Responded { last: false },
                Event::Responded { last: true },
                Event::ShutdownStarted,
                Event::ShutdownSent,
                Event::Drain { grace },
            ] {
                let (mut life, now) = ready(multiplexed);
                life.enter(end, now);
                life.on(event, now);
                assert!(life.stage >= end, "{event:?} leads from {end:?} to {:?}", life.stage);
                assert!(life.is_draining());
            }
        }
    }
}

#[test]
fn the_start_of_a_shutdown_and_further_responses_do_not_extend_the_time_to_close() {
    let (mut life, now) = ready(false);
    life.on(Event::ShutdownStarted, now);
    let end = (LINGER_TIMEOUT, Action::Drop, None);
    assert_eq!(due(&life, now), end);
    life.on(Event::ShutdownStarted, now + LINGER_TIMEOUT / 2);
    assert_eq!(due(&life, now), end);

    let (mut life, now) = ready(false);
    for _ in 0..3 {
        life.on(Event::Request, now);
    }
    life.on(Event::Responded { last: true }, now);
    life.on(Event::Responded { last: true }, now + SECOND);
    assert_eq!(due(&life, now), (15 * SECOND, Action::Drop, None));
}

#[test]
fn the_age_counts_from_the_accept() {
    let (mut life, now) = ready(false);
    life.on(Event::Request, now + SECOND);
    assert_eq!(life.age(now + 3 * SECOND), 3 * SECOND);
}

#[test]
fn an_idle_connection_over_http2_keeps_its_buffers() {
    let (mut life, now) = ready(true);
    life.on(Event::Request, now);
    life.on(Event::Responded { last: false }, now);
    assert_eq!(due(&life, now), (30 * SECOND, Action::Shutdown, Some(Deadline::Idle)));
}

#[test]
fn further_requests_are_no_progress_of_those_whose_responses_are_not_taken() {
    let (mut life, now) = ready(true);
    life.on(Event::Request, now);
    life.on(Event::BodyStarted, now);
    life.on(Event::Responded { last: false }, now);
    life.on(Event::Request, now + 10 * SECOND);
    let response = Some(Deadline::Response);
    assert_eq!(due(&life, now), (15 * SECOND, Action::Drop, response));
    life.on(Event::BodyTaken, now + 12 * SECOND);
    assert_eq!(due(&life, now), (27 * SECOND, Action::Drop, response));
}

#[test]
fn a_stalled_write_ends_any_stage() {
    let (mut life, now) = ready(false);
    life.on(Event::Request, now);
    life.on(Event::Responded { last: false }, now);
    life.on(Event::WriteStalled, now);
    life.on(Event::WriteStalled, now + 5 * SECOND);
    let response = Some(Deadline::Response);
    assert_eq!(due(&life, now), (15 * SECOND, Action::Drop, response));
    life.on(Event::WriteFlushed, now);
    assert_eq!(due(&life, now).1, Action::Hibernate);
}

#[test]
fn a_partial_request_that_is_not_read_since_a_write_stalls_has_the_deadline_of_the_write() {
    let (mut life, now) = ready(false);
    life.on(Event::Read { heads: 1, partial: 1 }, now);
    life.on(Event::Request, now);
    life.on(Event::Responded { last: false }, now);
    life.on(Event::WriteStalled, now);
    assert_eq!(life.stage, Stage::ReadingHead);
    assert_eq!(due(&life, now), (15 * SECOND, Action::Drop, Some(Deadline::Response)));
}

#[test]
fn a_connection_hibernates_only_before_its_idle_timeout() {
    let (mut life, now) = ready(false);
    life.on(Event::Request, now);
    life.on(Event::Responded { last: false }, now);
    let at_the_end = |idle_timeout| {
        let limits = Limits { idle_timeout, ..limits() };
        life.clone().on_timer(now + HIBERNATE_AFTER, &limits).0
    };
    assert_eq!(at_the_end(HIBERNATE_AFTER), Action::Shutdown);
    assert_eq!(at_the_end(HIBERNATE_AFTER + Duration::from_nanos(1)), Action::Hibernate);
}

#[test]
fn what_is_pending_keeps_its_own_deadline_and_a_response_does_not() {
    let (mut life, now) = ready(true);
    life.on(Event::Request, now);
    life.on(Event::Pending(Pending::SelfCheck), now);
    let age = limits().connection_age;
    assert_eq!(due(&life, now), (age, Action::AnnounceLast, Some(Deadline::Age)));
    life.on(Event::Request, now);
    assert_eq!(due(&life, now), (15 * SECOND, Action::Drop, Some(Deadline::Response)));
}

#[test]
fn a_drain_gives_a_window_and_then_the_grace_period() {
    let grace = 8 * SECOND;
    let (mut idle, now) = ready(false);
    assert!(!idle.is_draining());
    assert_eq!(idle.on(Event::Drain { grace }, now), Action::AnnounceLast);
    assert_eq!(idle.on(Event::Drain { grace }, now + SECOND), Action::Continue);
    assert!(idle.is_draining());
    assert_eq!(due(&idle, now), (DRAIN_WINDOW, Action::Shutdown, None));
    let (mut busy, now) = ready(false);
    busy.on(Event::Request, now);
    busy.on(Event::Pending(FORM), now);
    busy.on(Event::Drain { grace }, now);
    assert_eq!(due(&busy, now), (grace, Action::Drop, None));
    // Waiting connections are gone before a short grace period ends.
    let (mut idle, now) = ready(false);
    idle.on(Event::Drain { grace: SECOND }, now);
    assert_eq!(due(&idle, now), (SECOND / 4, Action::Shutdown, None));
    idle.on_timer(now + SECOND / 4, &limits());
    idle.on(Event::ShutdownStarted, now + SECOND / 4);
    idle.on(Event::ShutdownSent, now + SECOND / 4);
    assert_eq!(due(&idle, now), (SECOND / 2, Action::Drop, None));
}

#[test]
fn the_last_response_closes_within_the_time_to_linger() {
    let (mut life, now) = ready(false);
    life.on(Event::Request, now);
    life.on(Event::BodyStarted, now);
    life.on(Event::Responded { last: true }, now);
    assert_eq!(due(&life, now), (15 * SECOND, Action::Drop, None));
    assert_eq!(life.state(), ConnectionState::Active);
    life.on(Event::BodyTaken, now + SECOND);
    assert_eq!(due(&life, now), (SECOND + LINGER_TIMEOUT, Action::Drop, None));
    life.on(Event::WriteStalled, now + SECOND);
    assert_eq!(due(&life, now), (16 * SECOND, Action::Drop, None));
    life.on(Event::WriteFlushed, now + 2 * SECOND);
    life.on(Event::ShutdownStarted, now + 2 * SECOND);
    life.on(Event::ShutdownSent, now + 2 * SECOND);
    assert_eq!(due(&life, now + 2 * SECOND), (LINGER_TIMEOUT, Action::Drop, None));
    assert_eq!(life.state(), ConnectionState::Idle);
}

#[test]
fn http2_answers_what_was_sent_before_goaway_arrived() {
    let (mut life, now) = ready(true);
    life.on(Event::Drain { grace: SECOND }, now);
    life.on_timer(now + DRAIN_WINDOW, &limits());
    assert_eq!(life.stage, Stage::Closing);
    assert_eq!(life.on(Event::Request, now + DRAIN_WINDOW), Action::Continue);
    life.on(Event::ShutdownSent, now + DRAIN_WINDOW);
    assert_eq!(life.on(Event::Request, now + DRAIN_WINDOW), Action::Refuse);
}

#[test]
fn slow_arrivals_have_the_less_time_the_less_arrives() {
    let limits = limits();
    assert_eq!(arrival_timeout(0, &limits), SLOW_START);
    assert_eq!(arrival_timeout(500, &limits), SLOW_START + SECOND);
    assert_eq!(arrival_timeout(usize::MAX, &limits), limits.request_timeout);
}

#[test]
fn one_form_may_be_of_any_size_and_several_share_a_budget() {
    let (mut life, now) = ready(true);
    let form = |bytes| Event::Pending(Pending::Form { bytes });
    assert_eq!(life.on(form(usize::MAX), now), Action::Continue);
    assert_eq!(life.on(form(1), now), Action::Refuse);
    life.on(Event::Completed(Pending::Form { bytes: usize::MAX }), now);
    for _ in 0..64 {
        assert_eq!(life.on(form(PENDING_FORM_BYTES / 64), now), Action::Continue);
    }
    assert_eq!(life.on(form(PENDING_FORM_BYTES / 64), now), Action::Refuse);
}

/// A connection that sends requests at these times in milliseconds, each with its response.
fn after_requests(multiplexed: bool, times: impl Iterator<Item = u64>) -> (Lifecycle, Instant) {
    let opened = Instant::now();
    let mut life = Lifecycle::new(opened);
    let mut now = opened;
    life.on(Event::Ready { multiplexed }, now);
    for time in times {
        now = opened + Duration::from_millis(time);
        life.on(Event::Request, now);
        life.responded(false, now);
    }
    (life, now)
}

#[test]
fn only_a_connection_with_many_requests_takes_turns() {
    let takes_turns =
        |times: &mut dyn Iterator<Item = u64>| after_requests(false, times).0.takes_turns();
    let interval = u64::try_from(FREE_INTERVAL.as_millis()).unwrap();
    let many = u64::from(FREE_AT_ONCE);
    assert!(!takes_turns(&mut std::iter::empty()));
    assert!(!takes_turns(&mut (0..many).map(|_| 0)));
    assert!(takes_turns(&mut (0..=many).map(|_| 0)));
    assert!(!takes_turns(&mut (0..1000).map(|number| number * interval)));
    assert!(takes_turns(&mut (0..1000).map(|number| number * interval / 2)));
    // Fewer requests end it.
    let fewer = (1000..=1000 + many).map(|number| number * interval);
    assert!(!takes_turns(&mut (0..1000).map(|_| 0).chain(fewer)));
}

#[test]
fn after_its_last_request_a_connection_announces_its_end() {
    for multiplexed in [false, true] {
        let requests = |count: u32| after_requests(multiplexed, (0..u64::from(count)).map(|_| 0));
        let (mut life, now) = requests(REQUESTS - 1);
        assert!(life.deadline(&limits()) > now && !life.is_draining());
        life.on(Event::Request, now);
        assert!(life.deadline(&limits()) <= now);
        assert_eq!(life.on_timer(now, &limits()), (Action::AnnounceLast, None));
        // Once.
        assert!(life.deadline(&limits()) > now);
        assert_eq!(life.responded(false, now), !multiplexed);
    }
}

#[test]
fn a_proxy_may_be_idle_for_longer() {
    for multiplexed in [false, true] {
        let limits = limits();
        let idle_until = |first: &[Event]| {
            let (mut life, now) = after_requests(multiplexed, 0..1);
            for event in first {
                life.on(*event, now);
            }
            life.on_timer(now + HIBERNATE_AFTER, &limits);
            life.deadline(&limits) - now
        };
        assert_eq!(idle_until(&[]), limits.idle_timeout);
        assert_eq!(idle_until(&[Event::FromProxy]), limits.proxy_idle_timeout);
    }
}
