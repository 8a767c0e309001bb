use super::activity::Activity;
use crate::observe::{ConnectionState, Label, Limit, Metrics, Refusal};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// One in so many connections is asked to leave at once when room is short, and no more than
/// [`MAKE_ROOM`]: where there are many, a look through all of them is paid once for several
/// newcomers; where there are few, nobody leaves for nothing.
const MAKE_ROOM_OF: usize = 256;
const MAKE_ROOM: usize = 32;

/// A connection that has been quiet for less is not idle: its request may be on its way.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// The places that connections take: so many in all, so many for one address.
#[derive(Debug)]
pub(super) struct Slots {
    inner: Mutex<Inner>,
    freed: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Inner {
    limit: usize,
    limit_per_address: usize,
    taken: usize,
    by_address: HashMap<IpAddr, usize>,
    open: HashMap<u64, Open>,
    next_id: u64,
}

#[derive(Debug)]
struct Open {
    address: Option<IpAddr>,
    activity: Arc<Activity>,
}

impl Slots {
    pub(super) fn new(limit: usize, limit_per_address: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let inner = Inner {
            limit,
            limit_per_address,
            taken: 0,
            by_address: HashMap::new(),
            open: HashMap::new(),
            next_id: 0,
        };
        Arc::new(Self { inner: Mutex::new(inner), freed: Notify::new(), metrics })
    }

    /// Sets other limits; connections that are open stay open.
    pub(super) fn set_limits(&self, limit: usize, limit_per_address: usize) {
        let mut inner = self.lock();
        inner.limit = limit;
        inner.limit_per_address = limit_per_address;
        drop(inner);
        self.freed.notify_waiters();
    }

    /// Makes every connection look at its deadlines, which may be others now.
    pub(super) fn look_again(&self) {
        for open in self.lock().open.values() {
            open.activity.wake.notify_one();
        }
    }

    /// Waits until there is a place for a connection that is yet to be accepted. With none left,
    /// the longest idle connections are asked to leave, and the wait is for the first that does.
    ///
    /// Nothing is taken yet, so that a listener that nobody comes to keeps no place from another:
    /// each further listener can exceed the limit by one.
    pub(super) async fn room(&self) {
        let mut waited = false;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let inner = self.lock();
                if inner.taken < inner.limit {
                    return;
                }
                if !waited {
                    self.metrics.limits.count(Limit::Connections);
                    waited = true;
                }
                let most = (inner.limit / MAKE_ROOM_OF).clamp(1, MAKE_ROOM);
                self.make_room(&inner, |_| true, most);
            }
            // Connections become idle by themselves, and nobody tells.
            let _ = tokio::time::timeout(IDLE_AFTER, freed).await;
        }
    }

    /// Takes a place.
    pub(super) fn take(self: &Arc<Self>) -> Slot {
        self.lock().taken += 1;
        Slot { slots: Arc::clone(self), id: None }
    }

    /// How many connections are in each state.
    pub(super) fn by_state(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for open in self.lock().open.values() {
            if let Some(count) = counts.get_mut(open.activity.state().index()) {
                *count += 1;
            }
        }
        counts
    }

    fn make_room(&self, inner: &Inner, of: impl Fn(&Open) -> bool, most: usize) -> usize {
        let now = Instant::now();
        let mut idle: Vec<_> = inner
            .open
            .values()
            .filter(|open| of(open))
            .filter_map(|open| Some((open.activity.idle_since()?, &open.activity)))
            .filter(|(since, _)| now.duration_since(*since) >= IDLE_AFTER)
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate(most);
        for (_, activity) in &idle {
            activity.make_room();
            self.metrics.evicted.inc();
        }
        idle.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can panic half-way; if it did, the counts are still the best
        // there is.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place taken; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    id: Option<u64>,
}

/// The address has as many connections as it may.
#[derive(Debug)]
pub(super) struct TooMany;

impl Slot {
    /// Enters the connection, so that it is counted and can be asked to make room.
    pub(super) fn enter(&mut self, activity: &Arc<Activity>) {
        let mut inner = self.slots.lock();
        let id = inner.next_id;
        inner.next_id += 1;
        inner.open.insert(id, Open { address: None, activity: Arc::clone(activity) });
        drop(inner);
        self.id = Some(id);
    }

    /// Counts the connection for its client. At the limit the client's longest idle connection
    /// is asked to leave for it.
    pub(super) fn belongs_to(&self, client: IpAddr) -> Result<(), TooMany> {
        let key = network_of(client);
        let Some(id) = self.id else { return Ok(()) };
        let mut inner = self.slots.lock();
        let limit = inner.limit_per_address;
        let count = inner.by_address.get(&key).copied().unwrap_or_default();
        if count >= limit {
            self.slots.metrics.limits.count(Limit::ConnectionsPerAddress);
            let made = self.slots.make_room(&inner, |open| open.address == Some(key), 1);
            if made == 0 {
                self.slots.metrics.refused.count(Refusal::Address);
                return Err(TooMany);
            }
        }
        inner.by_address.insert(key, count + 1);
        if let Some(open) = inner.open.get_mut(&id) {
            open.address = Some(key);
        }
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.slots.lock();
        inner.taken -= 1;
        let address = self.id.and_then(|id| inner.open.remove(&id)).and_then(|open| open.address);
        if let Some(address) = address
            && let Some(count) = inner.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                inner.by_address.remove(&address);
            }
        }
        drop(inner);
        self.slots.freed.notify_waiters();
    }
}

/// What counts as one client: an IPv4 address, or the /64 that an IPv6 client is given whole.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

/// The sum of every state is what `/metrics` shows.
const _: () = assert!(ConnectionState::ALL.len() == 3);

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(limit: usize, per_address: usize) -> Arc<Slots> {
        Slots::new(limit, per_address, Arc::new(Metrics::new()))
    }

    #[tokio::test]
    async fn a_freed_place_is_for_who_waits() {
        let slots = slots(1, 1);
        slots.room().await;
        let first = slots.take();
        let waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let slots = slots(10, 1);
        let activity = || Arc::new(Activity::new());
        let enter = |address: &str| {
            let mut slot = slots.take();
            slot.enter(&activity());
            slot.belongs_to(address.parse().unwrap()).map(|()| slot)
        };
        let first = enter("2001:db8::1").unwrap();
        assert!(enter("2001:db8::ffff").is_err());
        let other = enter("2001:db8:0:1::1").unwrap();
        let mapped = enter("::ffff:192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_err());
        drop((first, other, mapped));
        assert!(enter("2001:db8::ffff").is_ok());
    }
}
