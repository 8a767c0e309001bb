//! The slots that connections take, limited in total and for each address. When all are taken, the
//! network that holds the most loses one.
//!
//! An attacker fills slots from a few networks, a visitor holds one slot for less than a second. So the
//! victim is taken from the network that holds the most slots, and is not the oldest connection: a
//! client that opens connections all the time evicts its own, and not the slow one of a visitor.
//!
//! Networks are nested. IPv4: /24, /32; IPv6: /48, /56, /64, which are what a site, a customer and one
//! link are given (RFC 6177). No step inspects more than [`SAMPLE`] connections, however many are open.

use super::handle::Handle;
use super::state::{SLOW_START, Stage};
use crate::observe::{ConnectionState, Label, Limit, Metrics, Refusal};
use indexmap::{IndexMap, IndexSet};
use slab::Slab;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How many addresses and how many connections are inspected to find a victim.
const SAMPLE: usize = 64;

/// How long a connection without a request must have waited to be evicted from a network that does not
/// hold [`MANY`]: the request may be in transit.
const WAITING_SETTLES: Duration = Duration::from_secs(1);

/// The same for a connection that receives a request or responds to one. A visitor on a slow line needs
/// as long.
const BUSY_SETTLES: Duration = SLOW_START;

/// A network with so many slots has more than visitors take.
const MANY: usize = 8;

/// How many evicted connections may still be closing while new ones are accepted.
const CLOSING: usize = 64;

/// How often to look for a connection that has settled.
const RETRY: Duration = Duration::from_millis(250);

/// How many connections are inspected under one lock where all of them are.
const BATCH: usize = 256;

/// The slots of the public listeners.
#[derive(Debug)]
pub(super) struct Slots {
    table: Mutex<Table>,
    freed: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Table {
    limit: usize,
    limit_per_address: usize,
    entries: Slab<Entry>,
    networks: Networks,
    /// Evicted connections that have not closed yet.
    closing: usize,
    /// Changes which connections are inspected.
    turn: usize,
}

#[derive(Debug)]
struct Entry {
    handle: Arc<Handle>,
    client: IpAddr,
    /// Whether the address is a client's: known, and not that of a proxy.
    is_client: bool,
    evicted: bool,
}

impl Slots {
    pub(super) fn new(limit: usize, limit_per_address: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let table = Table {
            limit,
            limit_per_address,
            entries: Slab::new(),
            networks: Networks::default(),
            closing: 0,
            turn: 0,
        };
        Arc::new(Self { table: Mutex::new(table), freed: Notify::new(), metrics })
    }

    /// Sets other limits; connections that are open stay open.
    pub(super) fn set_limits(&self, limit: usize, limit_per_address: usize) {
        let mut table = self.lock();
        table.limit = limit;
        table.limit_per_address = limit_per_address;
        drop(table);
        self.freed.notify_waiters();
    }

    /// Makes every connection check its deadlines, which may have changed.
    pub(super) fn wake_all(&self) {
        self.for_each(Handle::wake);
    }

    /// How many connections are in each state.
    pub(super) fn by_state(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        self.for_each(|handle| {
            if let Some(count) = counts.get_mut(handle.state().index()) {
                *count += 1;
            }
        });
        counts
    }

    fn for_each(&self, mut each: impl FnMut(&Handle)) {
        let mut at = 0;
        loop {
            let table = self.lock();
            if at >= table.entries.capacity() {
                return;
            }
            let batch = at..at + BATCH;
            batch.clone().filter_map(|id| table.entries.get(id)).for_each(|it| each(&it.handle));
            at = batch.end;
        }
    }

    /// Waits until there is a slot for a connection that was accepted. Where none is free,
    /// one connection is evicted.
    ///
    /// Nothing is taken yet, so that a listener without connections keeps no slot from another: each
    /// further listener can exceed the limit by one.
    pub(super) async fn available(&self) {
        let mut counted = false;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let mut table = self.lock();
                if table.is_available() {
                    return;
                }
                if !counted {
                    self.metrics.limits.count(Limit::Connections);
                    counted = true;
                }
                if self.evict_from(&mut table) {
                    continue;
                }
            }
            let _ = tokio::time::timeout(RETRY, freed).await;
        }
    }

    /// Evicts one connection, if one may be: when the process is out of files.
    pub(super) fn evict(&self) -> bool {
        self.evict_from(&mut self.lock())
    }

    fn evict_from(&self, table: &mut Table) -> bool {
        let victim = if table.closing < CLOSING { table.victim(Instant::now()) } else { None };
        if let Some(id) = victim {
            table.evict(id);
            self.metrics.evicted.inc();
        }
        victim.is_some()
    }

    /// Takes a slot for a connection from this address.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr, handle: &Arc<Handle>) -> Slot {
        let id = self.lock().insert(peer, Arc::clone(handle));
        Slot { slots: Arc::clone(self), id }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing under the lock can panic half-way; if it did, the counts would still be the best
        // available.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot that is taken; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    id: usize,
}

/// The address has as many connections as it may.
#[derive(Debug)]
pub(super) struct TooMany;

impl Slot {
    /// Counts the connection for its client. At the limit of the address, one of its connections is
    /// evicted that makes no progress. A proxy is not `limited`: it forwards many clients.
    pub(super) fn admit(&mut self, client: IpAddr, limited: bool) -> Result<(), TooMany> {
        let mut table = self.slots.lock();
        let metrics = &self.slots.metrics;
        if limited && table.networks.of(client, self.id) >= table.limit_per_address {
            metrics.limits.count(Limit::ConnectionsPerAddress);
            let Some(victim) = table.victim_of(client, self.id, Instant::now()) else {
                metrics.refused.count(Refusal::Address);
                return Err(TooMany);
            };
            table.evict(victim);
            metrics.evicted.inc();
        }
        table.identify(self.id, client, limited);
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().remove(self.id);
        self.slots.freed.notify_waiters();
    }
}

impl Table {
    fn is_available(&self) -> bool {
        self.entries.len() - self.closing < self.limit && self.closing <= CLOSING
    }

    fn insert(&mut self, client: IpAddr, handle: Arc<Handle>) -> usize {
        let id = self.entries.insert(Entry { handle, client, is_client: false, evicted: false });
        self.networks.insert(client, id);
        id
    }

    fn identify(&mut self, id: usize, client: IpAddr, is_client: bool) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.client != client && !entry.evicted {
            self.networks.remove(entry.client, id);
            self.networks.insert(client, id);
        }
        entry.client = client;
        entry.is_client = is_client;
    }

    fn remove(&mut self, id: usize) {
        if let Some(entry) = self.entries.try_remove(id) {
            if entry.evicted {
                self.closing -= 1;
            } else {
                self.networks.remove(entry.client, id);
            }
        }
    }

    /// From here on the connection counts for no network.
    fn evict(&mut self, id: usize) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if !entry.evicted {
            entry.evicted = true;
            entry.handle.evict();
            self.networks.remove(entry.client, id);
            self.closing += 1;
        }
    }

    /// The connection to evict for another, if any.
    fn victim(&mut self, now: Instant) -> Option<usize> {
        self.turn = self.turn.wrapping_add(1);
        let (slots, ids) = self.networks.heaviest(self.turn)?;
        let candidates = sample(ids.len(), self.turn).filter_map(|at| ids.get_index(at).copied());
        let heaviest = self.best(candidates, slots >= MANY, now);
        // Where no network holds many, any connection that makes no progress will do.
        heaviest.or_else(|| {
            let all = sample(self.entries.capacity(), self.turn);
            self.best(all, false, now)
        })
    }

    /// The same among the connections of one address, except this one.
    fn victim_of(&mut self, client: IpAddr, but: usize, now: Instant) -> Option<usize> {
        self.turn = self.turn.wrapping_add(1);
        let ids = self.networks.ids(client)?;
        let candidates = sample(ids.len(), self.turn).filter_map(|at| ids.get_index(at).copied());
        self.best(candidates.filter(|id| *id != but), false, now)
    }

    /// The candidate that is needed least: settled before unsettled, waiting before busy, and the longest
    /// without progress first. An unsettled one only if it is a client's, and if `unsettled_allowed`.
    fn best(
        &self,
        candidates: impl Iterator<Item = usize>,
        unsettled_allowed: bool,
        now: Instant,
    ) -> Option<usize> {
        candidates
            .filter_map(|id| {
                let entry = self.entries.get(id).filter(|entry| !entry.evicted)?;
                let (stage, since) = entry.handle.progress();
                let need = need(stage);
                let settles = if need < BUSY { WAITING_SETTLES } else { BUSY_SETTLES };
                let unsettled = now.saturating_duration_since(since) < settles;
                (!unsettled || unsettled_allowed && entry.is_client)
                    .then_some((unsettled, need, since, id))
            })
            .min()
            .map(|(.., id)| id)
    }
}

/// How much a connection in this stage is needed by its client.
fn need(stage: Stage) -> u8 {
    match stage {
        Stage::Closing | Stage::Lingering | Stage::Closed => 0,
        Stage::Idle | Stage::Hibernating => 1,
        Stage::ProxyHeader | Stage::Handshake | Stage::AwaitingRequest => 2,
        Stage::ReadingHead | Stage::Responding => BUSY,
    }
}

const BUSY: u8 = 3;

/// Positions below `length`, at most [`SAMPLE`] of them, others at each turn.
fn sample(length: usize, turn: usize) -> impl Iterator<Item = usize> {
    let start = turn.wrapping_mul(SAMPLE);
    (0..length.min(SAMPLE)).map(move |step| start.wrapping_add(step) % length)
}

/// Which connections each network holds.
#[derive(Debug, Default)]
struct Networks {
    sites: HashMap<IpAddr, Site>,
    /// The sites by the number of their slots.
    by_slots: BTreeSet<(usize, IpAddr)>,
    /// The slots of each customer of an IPv6 site.
    customers: HashMap<IpAddr, usize>,
}

/// An IPv4 /24 or an IPv6 /48.
#[derive(Debug, Default)]
struct Site {
    slots: usize,
    /// The connections of each address: IPv4 /32, IPv6 /64.
    addresses: IndexMap<IpAddr, IndexSet<usize>>,
}

impl Networks {
    fn insert(&mut self, client: IpAddr, id: usize) {
        let [site_key, customer, address] = networks_of(client);
        let site = self.sites.entry(site_key).or_default();
        site.addresses.entry(address).or_default().insert(id);
        self.by_slots.remove(&(site.slots, site_key));
        site.slots += 1;
        self.by_slots.insert((site.slots, site_key));
        if client.to_canonical().is_ipv6() {
            *self.customers.entry(customer).or_default() += 1;
        }
    }

    fn remove(&mut self, client: IpAddr, id: usize) {
        let [site_key, customer, address] = networks_of(client);
        let Some(site) = self.sites.get_mut(&site_key) else { return };
        if let Some(ids) = site.addresses.get_mut(&address) {
            ids.swap_remove(&id);
            if ids.is_empty() {
                site.addresses.swap_remove(&address);
            }
        }
        self.by_slots.remove(&(site.slots, site_key));
        site.slots -= 1;
        if site.slots == 0 {
            self.sites.remove(&site_key);
        } else {
            self.by_slots.insert((site.slots, site_key));
        }
        if let Some(slots) = self.customers.get_mut(&customer) {
            *slots -= 1;
            if *slots == 0 {
                self.customers.remove(&customer);
            }
        }
    }

    /// The connections of an address.
    fn ids(&self, client: IpAddr) -> Option<&IndexSet<usize>> {
        let [site, _, address] = networks_of(client);
        self.sites.get(&site)?.addresses.get(&address)
    }

    /// How many connections an address has in addition to this one.
    fn of(&self, client: IpAddr, but: usize) -> usize {
        self.ids(client).map_or(0, |ids| ids.len() - usize::from(ids.contains(&but)))
    }

    /// The site that holds the most slots: how many, and the connections of the heaviest address of
    /// its heaviest customer.
    fn heaviest(&self, turn: usize) -> Option<(usize, &IndexSet<usize>)> {
        let (slots, site) = self.by_slots.last()?;
        let addresses = &self.sites.get(site)?.addresses;
        let candidates = sample(addresses.len(), turn).filter_map(|at| addresses.get_index(at));
        let weight = |address: IpAddr, ids: &IndexSet<usize>| {
            let [_, customer, _] = networks_of(address);
            (self.customers.get(&customer).copied(), ids.len())
        };
        let heaviest = candidates.max_by_key(|(address, ids)| weight(**address, ids))?;
        Some((*slots, heaviest.1))
    }
}

/// The site, the customer and the address to which a client belongs. An IPv4 address is its own
/// customer.
fn networks_of(client: IpAddr) -> [IpAddr; 3] {
    match client.to_canonical() {
        IpAddr::V4(address) => {
            let site = Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8));
            [site.into(), address.into(), address.into()]
        }
        IpAddr::V6(address) => [48, 56, 64].map(|length| {
            Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - length))).into()
        }),
    }
}

/// The sum of every state is what `/metrics` shows.
const _: () = assert!(ConnectionState::ALL.len() == 3);

#[cfg(test)]
mod tests {
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
        let mut held: Vec<Slot> =
            (0..20).map(|n| add(format!("2001:db8:1:{n:02x}00::1"))).collect();
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
        let evicted = (0..100).filter(|_| slots.evict()).count();
        assert_eq!(evicted, CLOSING);
        assert!(slots.lock().is_available());
        drop(held);
        assert_eq!(slots.lock().closing, 0);
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
}
