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

/// How many connections may still be closing while so many slots are taken: they are as many further files. Where
/// slots are free, as many more may be closing. Thousands may close together.
pub(super) fn closing_limit(limit: usize) -> usize {
    (limit / 16).clamp(64, 512)
}

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
    /// Connections that have a slot no longer, and have not closed yet.
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
    /// It was evicted, or its client has closed it.
    closing: bool,
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
        if self.lock().is_available() {
            return;
        }
        // Connections that their clients have closed may be among those that run next.
        tokio::task::yield_now().await;
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

    /// Evicts one connection, if one may be, and waits for the next one to close, but no longer than
    /// this: when the process is out of files.
    pub(super) async fn evict_and_wait(&self, at_most: Duration) {
        let freed = self.freed.notified();
        tokio::pin!(freed);
        freed.as_mut().enable();
        self.evict_from(&mut self.lock());
        let _ = tokio::time::timeout(at_most, freed).await;
    }

    fn evict_from(&self, table: &mut Table) -> bool {
        let victim = if table.closing < closing_limit(table.limit) {
            table.victim(Instant::now())
        } else {
            None
        };
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

impl Slot {
    /// Another connection may have the slot: the client has closed this one. Returns whether it may wait for its
    /// turn: if too many files are open, no connection can be accepted.
    pub(super) fn closes(&mut self) -> bool {
        let mut table = self.slots.lock();
        table.closes(self.id);
        let may_wait = table.entries.len() <= table.limit + closing_limit(table.limit) / 2;
        drop(table);
        self.slots.freed.notify_waiters();
        may_wait
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
        let files = self.entries.len();
        files - self.closing < self.limit && files <= self.limit + closing_limit(self.limit)
    }

    fn insert(&mut self, client: IpAddr, handle: Arc<Handle>) -> usize {
        let id = self.entries.insert(Entry { handle, client, is_client: false, closing: false });
        self.networks.insert(client, id);
        id
    }

    fn identify(&mut self, id: usize, client: IpAddr, is_client: bool) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.client != client && !entry.closing {
            self.networks.remove(entry.client, id);
            self.networks.insert(client, id);
        }
        entry.client = client;
        entry.is_client = is_client;
    }

    fn remove(&mut self, id: usize) {
        if let Some(entry) = self.entries.try_remove(id) {
            if entry.closing {
                self.closing -= 1;
            } else {
                self.networks.remove(entry.client, id);
            }
        }
    }

    fn evict(&mut self, id: usize) {
        let Some(entry) = self.entries.get(id).filter(|entry| !entry.closing) else { return };
        entry.handle.evict();
        self.closes(id);
    }

    /// From here on the connection counts for no network.
    fn closes(&mut self, id: usize) {
        let Some(entry) = self.entries.get_mut(id).filter(|entry| !entry.closing) else { return };
        entry.closing = true;
        self.networks.remove(entry.client, id);
        self.closing += 1;
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
                let entry = self.entries.get(id).filter(|entry| !entry.closing)?;
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
mod tests;
