use super::super::state::Event;
use super::*;
use proptest::prelude::*;

fn slots(limit: usize, per_address: usize) -> Arc<Slots> {
    Slots::new(limit, per_address, Arc::new(Metrics::new()))
}

fn admitted(slots: &Arc<Slots>, client: &str) -> Result<Slot, TooMany> {
    let client = client.parse().unwrap();
    let mut slot = slots.take(client, &Arc::new(Handle::new()));
    slot.admit(client, true).map(|()| slot)
}

/// A time at which every connection of the test has settled.
fn later() -> Instant {
    Instant::now() + 2 * BUSY_SETTLES
}

fn victim(slots: &Slots, now: Instant) -> Option<IpAddr> {
    let mut table = slots.lock();
    let id = table.victim(now)?;
    table.entries.get(id).map(|entry| entry.client)
}

/// The value of a counter in `/metrics`.
fn counter(slots: &Slots, series: &str) -> Option<u64> {
    let text = slots.metrics.text(&crate::observe::Sampled::default()).unwrap();
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Whether a wait for a slot ends with this, and not with the next retry.
async fn ends_the_wait(slots: &Slots, event: impl FnOnce()) -> bool {
    let both = async { tokio::join!(slots.available(), async { event() }) };
    tokio::time::timeout(RETRY / 2, both).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_freed_slot_or_a_higher_limit_ends_the_wait() {
    let slots = slots(1, 1);
    slots.available().await;
    let first = admitted(&slots, "192.0.2.1").unwrap();
    assert!(!ends_the_wait(&slots, || {}).await);
    assert!(ends_the_wait(&slots, || drop(first)).await);
    slots.set_limits(0, 0);
    assert!(!ends_the_wait(&slots, || {}).await);
    assert!(ends_the_wait(&slots, || slots.set_limits(1, 1)).await);
    assert!(admitted(&slots, "192.0.2.1").is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_wait_counts_the_limit_once() {
    let slots = slots(0, 1);
    let count = || counter(&slots, "callback_edge_limits_total{limit=\"connections\"}");
    assert_eq!(count(), Some(0));
    assert!(tokio::time::timeout(3 * RETRY, slots.available()).await.is_err());
    assert_eq!(count(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn every_open_connection_is_counted_by_its_state_and_woken() {
    let slots = slots(10_000, 10_000);
    let ready = Event::Ready { multiplexed: false };
    let open = |count: usize, events: &[Event]| -> Vec<(Slot, Arc<Handle>)> {
        let connections = (0..count).map(|_| {
            let handle = Arc::new(Handle::new());
            for event in events {
                handle.on(*event);
            }
            (slots.take(IpAddr::from([192, 0, 2, 1]), &handle), handle)
        });
        connections.collect()
    };
    let mut held = open(2, &[]);
    let closed = open(3, &[ready]);
    held.extend(open(2 * BATCH, &[ready, Event::Request]));
    held.extend(open(5, &[ready]));
    drop(closed);
    let mut expected = [0; 3];
    expected[ConnectionState::Handshake.index()] = 2;
    expected[ConnectionState::Active.index()] = 2 * BATCH;
    expected[ConnectionState::Idle.index()] = 5;
    assert_eq!(slots.by_state(), expected);
    slots.wake_all();
    for (_, handle) in &held {
        assert!(tokio::time::timeout(Duration::ZERO, handle.woken()).await.is_ok());
    }
}

#[test]
fn a_client_at_its_limit_loses_another_connection_of_its_own() {
    let slots = slots(1000, 2);
    let first = admitted(&slots, "192.0.2.1").unwrap();
    let second = admitted(&slots, "192.0.2.1").unwrap();
    let neighbor = admitted(&slots, "192.0.2.2").unwrap();
    let client = "192.0.2.1".parse().unwrap();
    let victim = |but: &Slot, now| slots.lock().victim_of(client, but.id, now);
    assert_eq!(victim(&first, later()), Some(second.id));
    assert_eq!(victim(&second, later()), Some(first.id));
    assert_eq!(victim(&neighbor, later()), Some(first.id));
    // The limit counts the others: a connection that is there may be admitted again.
    let mut second = second;
    assert!(second.admit(client, true).is_ok());
    drop(first);
    assert_eq!(victim(&second, later()), None);
}

#[test]
fn a_connection_settles_after_its_time_and_not_before() {
    let slots = slots(1000, 1000);
    let ready = Event::Ready { multiplexed: false };
    for (events, settles) in
        [(&[ready][..], WAITING_SETTLES), (&[ready, Event::Request], BUSY_SETTLES)]
    {
        let handle = Arc::new(Handle::new());
        for event in events {
            handle.on(*event);
        }
        let slot = slots.take(IpAddr::from([192, 0, 2, 1]), &handle);
        let (_, since) = handle.progress();
        let before = (since + settles).checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(slots.lock().victim(before), None);
        assert_eq!(slots.lock().victim(since + settles), Some(slot.id));
    }
}

#[test]
fn the_turns_sample_every_position() {
    for length in [0, 1, SAMPLE - 1, SAMPLE, SAMPLE + 1, 5 * SAMPLE / 2] {
        let turns = length.div_ceil(SAMPLE);
        let mut seen: Vec<usize> = Vec::new();
        for turn in 0..turns {
            let positions: Vec<usize> = sample(length, turn).collect();
            assert_eq!(positions.len(), length.min(SAMPLE));
            seen.extend(positions);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..length).collect::<Vec<_>>());
    }
    assert!(sample(3, usize::MAX).all(|at| at < 3));
}

#[test]
fn an_ipv6_client_is_its_network() {
    let slots = slots(10, 1);
    let first = admitted(&slots, "2001:db8::1").unwrap();
    assert!(admitted(&slots, "2001:db8::ffff").is_err());
    let other = admitted(&slots, "2001:db8:0:1::1").unwrap();
    let mapped = admitted(&slots, "::ffff:192.0.2.1").unwrap();
    assert!(admitted(&slots, "192.0.2.1").is_err());
    drop((first, other, mapped));
    assert!(admitted(&slots, "2001:db8::ffff").is_ok());
}

#[test]
fn a_client_belongs_to_its_site_its_customer_and_its_address() {
    for (client, expected) in [
        ("192.0.2.99", ["192.0.2.0", "192.0.2.99", "192.0.2.99"]),
        ("::ffff:192.0.2.99", ["192.0.2.0", "192.0.2.99", "192.0.2.99"]),
        ("2001:db8:1:2345:6:7:8:9", ["2001:db8:1::", "2001:db8:1:2300::", "2001:db8:1:2345::"]),
    ] {
        let expected = expected.map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!(networks_of(client.parse().unwrap()), expected);
    }
}

#[test]
fn the_network_with_the_most_slots_gives_one_back() {
    let slots = slots(1000, 1000);
    let add = |client: String| admitted(&slots, &client).unwrap();
    // One link of one customer among others, in a site that holds more than any other.
    let mut held: Vec<Slot> = (0..20).map(|n| add(format!("2001:db8:1:{n:02x}00::1"))).collect();
    held.extend((0..30).map(|n| add(format!("2001:db8:1:ff{n:02x}::1"))));
    held.extend((0..20).map(|_| add("2001:db8:1:ff07::1".into())));
    held.extend((0..60).map(|_| add("192.0.2.1".into())));
    assert_eq!(victim(&slots, Instant::now()), Some("2001:db8:1:ff07::1".parse().unwrap()));
    drop(held);
    assert_eq!(victim(&slots, later()), None);
}

#[test]
fn where_no_network_holds_many_only_settled_connections_are_evicted() {
    let slots = slots(1000, 1000);
    let held: Vec<Slot> =
        (0..100).map(|n| admitted(&slots, &format!("192.0.{n}.1")).unwrap()).collect();
    assert_eq!(victim(&slots, Instant::now()), None);
    assert!(victim(&slots, later()).is_some());
    drop(held);
}

#[test]
fn connections_of_a_proxy_are_evicted_only_when_they_have_settled() {
    let slots = slots(1000, 1);
    let proxy = "192.0.2.1".parse().unwrap();
    let mut held = Vec::new();
    for _ in 0..2 * MANY {
        let mut slot = slots.take(proxy, &Arc::new(Handle::new()));
        slot.admit(proxy, false).unwrap();
        held.push(slot);
    }
    assert_eq!(victim(&slots, Instant::now()), None);
    assert_eq!(victim(&slots, later()), Some(proxy));
}

#[test]
fn waiting_connections_are_evicted_before_busy_ones() {
    let slots = slots(1000, 1000);
    let client = "192.0.2.1".parse().unwrap();
    let connection = |events: &[Event]| {
        let handle = Arc::new(Handle::new());
        for event in events {
            handle.on(*event);
        }
        let mut slot = slots.take(client, &handle);
        slot.admit(client, true).unwrap();
        slot
    };
    let ready = Event::Ready { multiplexed: false };
    let answered = [ready, Event::Request, Event::Responded { last: false }];
    let responding = connection(&[ready, Event::Request]);
    let reading = connection(&[ready, Event::Read { heads: 0, partial: 3 }]);
    let waiting = connection(&[ready]);
    let idle = connection(&answered);
    let closing = connection(&[ready, Event::Request, Event::Responded { last: true }]);
    let mut order = Vec::new();
    while let Some(id) = { slots.lock().victim(later()) } {
        slots.lock().evict(id);
        order.push(id);
    }
    let expected = [&closing, &idle, &waiting, &responding, &reading].map(|slot| slot.id);
    assert_eq!(order, expected);
}

#[test]
fn evicted_connections_that_do_not_close_bound_what_is_accepted() {
    let slots = slots(100, 1000);
    let held: Vec<Slot> = (0..100).map(|_| admitted(&slots, "192.0.2.1").unwrap()).collect();
    let evicted = (0..100).filter(|_| slots.evict_from(&mut slots.lock())).count();
    assert_eq!(evicted, closing_limit(100));
    assert!(slots.lock().is_available());
    drop(held);
    assert_eq!(slots.lock().closing, 0);
}

#[test]
fn a_connection_that_its_client_has_closed_leaves_its_slot_to_another() {
    let slots = slots(1, 1);
    let mut closed = admitted(&slots, "192.0.2.1").unwrap();
    assert!(!slots.lock().is_available());
    for _ in 0..2 {
        assert!(closed.closes());
        assert!(slots.lock().is_available());
        assert_eq!(slots.lock().closing, 1);
    }
    let other = admitted(&slots, "192.0.2.1").unwrap();
    assert!(!other.slots.lock().entries[closed.id].handle.is_evicted());
    drop(closed);
    assert_eq!(slots.lock().closing, 0);
    assert!(!slots.lock().is_available());
}

#[test]
fn where_slots_are_free_all_that_close_wait_for_their_turn() {
    let slots = slots(1000, 1000);
    let mut held: Vec<Slot> = (0..1000).map(|_| admitted(&slots, "192.0.2.1").unwrap()).collect();
    assert!(held.iter_mut().all(Slot::closes));
    assert!(slots.lock().is_available());
}

#[test]
fn where_all_slots_are_taken_half_of_those_that_may_be_closing_wait_for_their_turn() {
    let slots = slots(100, 1000);
    let mut held: Vec<Slot> = (0..100).map(|_| admitted(&slots, "192.0.2.1").unwrap()).collect();
    let waiting = (0..100).take_while(|&at| {
        let waits = held[at].closes();
        assert!(slots.lock().is_available());
        held.push(admitted(&slots, "192.0.2.1").unwrap());
        waits
    });
    assert_eq!(waiting.count(), closing_limit(100) / 2 + 1);
}

#[test]
fn connections_that_close_and_open_ones_share_a_limit() {
    let slots = slots(100, 1000);
    let closing = (0..1000).map_while(|_| {
        let available = slots.lock().is_available();
        available.then(|| {
            let mut slot = admitted(&slots, "192.0.2.1").unwrap();
            slot.closes();
            slot
        })
    });
    assert_eq!(closing.collect::<Vec<_>>().len(), 100 + closing_limit(100) + 1);
}

#[tokio::test(start_paused = true)]
async fn without_files_the_next_connection_that_closes_ends_the_wait() {
    let slots = slots(100, 100);
    let held = admitted(&slots, "192.0.2.1").unwrap();
    let started = tokio::time::Instant::now();
    slots.evict_and_wait(RETRY).await;
    assert_eq!(started.elapsed(), RETRY);
    let started = tokio::time::Instant::now();
    tokio::join!(slots.evict_and_wait(RETRY), async { drop(held) });
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[derive(Clone, Debug)]
enum Step {
    Open(IpAddr),
    /// The connection turns out to come from another client.
    Identify(usize, IpAddr),
    Close(usize),
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    let address = prop_oneof![
        (0_u8..4, 0_u8..4).prop_map(|(site, host)| IpAddr::from([10, 0, site, host])),
        (0_u16..3, 0_u16..3, 0_u16..3).prop_map(|(site, customer, link)| {
            IpAddr::from([0x2001, 0xdb8, site, customer << 8 | link, 0, 0, 0, 1])
        }),
    ];
    prop_oneof![
        6 => address.clone().prop_map(Step::Open),
        2 => (any::<usize>(), address).prop_map(|(at, address)| Step::Identify(at, address)),
        2 => any::<usize>().prop_map(Step::Close),
        2 => Just(Step::Evict),
    ]
}

proptest! {
    /// Against a list of open connections: what is counted is what is there, and a victim is of
    /// a site that no other holds more slots than.
    #[test]
    fn the_table_counts_what_is_open(steps in prop::collection::vec(step(), 0..120)) {
        let slots = slots(10_000, 10_000);
        let mut open: Vec<(Slot, IpAddr, bool)> = Vec::new();
        for step in steps {
            match step {
                Step::Open(client) => {
                    let slot = slots.take(client, &Arc::new(Handle::new()));
                    open.push((slot, client, false));
                }
                Step::Identify(at, client) if !open.is_empty() => {
                    let at = at % open.len();
                    let (slot, address, _) = &mut open[at];
                    prop_assert!(slot.admit(client, true).is_ok());
                    *address = client;
                }
                Step::Close(at) if !open.is_empty() => {
                    let at = at % open.len();
                    drop(open.swap_remove(at));
                }
                Step::Evict => {
                    let victim = slots.lock().victim(later());
                    let counted = open.iter().filter(|(.., evicted)| !evicted);
                    let mut sites: HashMap<IpAddr, usize> = HashMap::new();
                    for (_, client, _) in counted {
                        *sites.entry(networks_of(*client)[0]).or_default() += 1;
                    }
                    let most = sites.values().max().copied();
                    prop_assert_eq!(victim.is_some(), most.is_some());
                    if let Some(id) = victim {
                        let it = open.iter_mut().find(|(slot, ..)| slot.id == id).unwrap();
                        prop_assert!(!it.2);
                        it.2 = true;
                        prop_assert_eq!(sites.get(&networks_of(it.1)[0]).copied(), most);
                        slots.lock().evict(id);
                    }
                }
                _ => {}
            }
            let table = slots.lock();
            prop_assert_eq!(table.entries.len(), open.len());
            let evicted = open.iter().filter(|(.., evicted)| *evicted).count();
            prop_assert_eq!(table.closing, evicted);
            let counted: usize = table.networks.sites.values().map(|site| site.slots).sum();
            prop_assert_eq!(counted, open.len() - evicted);
            let listed = table.networks.sites.values().flat_map(|site| site.addresses.values());
            prop_assert_eq!(listed.map(IndexSet::len).sum::<usize>(), counted);
        }
        drop(open);
        let table = slots.lock();
        prop_assert!(table.networks.sites.is_empty() && table.networks.by_slots.is_empty());
        prop_assert!(table.networks.customers.is_empty());
    }
}

proptest! {
    /// Listeners that accept as [`Slots::available`] allows, and connections that close late or never:
    /// what the process keeps free of its files is enough.
    #[test]
    fn open_connections_exceed_the_limit_by_no_more_than_those_that_close(
        limit in 0_usize..200,
        steps in prop::collection::vec((0_u8..4, 0_usize..400), 0..600),
    ) {
        const LISTENERS: usize = 2;
        let slots = slots(limit, 1000);
        let mut open: Vec<Slot> = Vec::new();
        let mut waiting = 0;
        for (kind, at) in steps {
            if kind < 2 {
                // Each listener has one that it has accepted and that has no slot yet.
                waiting = (waiting + 1).min(LISTENERS);
                let mut table = slots.lock();
                while !table.is_available() && slots.evict_from(&mut table) {}
                let accepts = if table.is_available() { waiting } else { 0 };
                drop(table);
                for _ in 0..accepts {
                    waiting -= 1;
                    open.push(slots.take(IpAddr::from([10, 0, 0, 1]), &Arc::new(Handle::new())));
                }
            } else if !open.is_empty() {
                let at = at % open.len();
                if kind == 2 {
                    open[at].closes();
                } else {
                    open.swap_remove(at);
                }
            }
            let files = open.len() + waiting;
            prop_assert!(files <= limit + closing_limit(limit) + 2 * LISTENERS, "{} files, {}", files, limit);
        }
    }
}
