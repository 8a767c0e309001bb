//! Listeners: bind, accept, close.

use super::connection::{self, Accepted};
use super::context::DrainSignal;
use super::handle::Handle;
use super::origin::Addresses;
use super::port_owner;
use super::shared::Shared;
use crate::config::{Listen, Problem};
use crate::observe::{Label, Limit, ListenerKind};
use crate::tls::Acceptor;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Connections that the kernel queues while all slots are taken.
const BACKLOG: i32 = 4096;
/// Open connections on an admin listener. The public limits do not include them, so that the listener
/// responds when those are reached.
const ADMIN_CONNECTIONS: usize = 64;
/// Unacknowledged data ends a connection after this, whatever its state. macOS does not have the
/// option: the time-outs of each state apply.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait before a listener tries again after an error that may last.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);
/// After this many errors in a row, the listener waits before it retries, whatever the error.
const SPIN_LIMIT: u32 = 64;
/// How often a listener reports that the process is out of files.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Cannot listen on an address.
#[derive(Debug)]
pub(super) struct BindError {
    kind: ListenerKind,
    address: SocketAddr,
    /// Whether a listener of this process has the port.
    own: bool,
    cause: io::Error,
}

impl From<&BindError> for Problem {
    fn from(error: &BindError) -> Self {
        let (kind, address) = (error.kind.value(), error.address);
        let problem = Self::error(format!("cannot listen on `{address}` (`listen.{kind}`)"))
            .caused_by(&error.cause);
        match error.cause.kind() {
            io::ErrorKind::AddrInUse if error.own => problem.hint(
                "this process already listens on the port, with another address or kind: \
                 restart it, since a reload cannot change that",
            ),
            io::ErrorKind::AddrInUse => problem.hint(match port_owner::find(address) {
                Some(owner) => format!("{owner} listens there: stop it, or choose another port"),
                None => "another process listens there, perhaps another callback-edge: stop it, \
                         or choose another port"
                    .to_owned(),
            }),
            io::ErrorKind::PermissionDenied => problem.hint(
                "ports below 1024 require a privilege: grant CAP_NET_BIND_SERVICE, \
                 use socket activation, or choose a port above 1023",
            ),
            io::ErrorKind::AddrNotAvailable => problem.hint(
                "no interface of this machine has the address: use `0.0.0.0` or `[::]` to listen on all",
            ),
            _ => problem,
        }
    }
}

/// Which listener: kind and address as configured.
pub(super) type Key = (ListenerKind, SocketAddr);

/// A bound socket without a running listener.
pub(super) struct Bound {
    socket: StdListener,
    local: SocketAddr,
    /// Passed by a service manager, which keeps it open when this process closes it.
    inherited: bool,
}

/// The listeners of the process.
pub(super) struct Listeners {
    running: HashMap<Key, (SocketAddr, DrainSignal)>,
    /// Kept open while a listener accepts from them and after it has closed: their addresses could not
    /// be bound again.
    inherited: Vec<StdListener>,
    /// Listeners and connections that a drain waits for.
    public: TaskTracker,
}

impl Listeners {
    /// No listener yet. Inherited sockets serve the addresses that they are bound to.
    pub(super) fn new(inherited: Vec<StdListener>) -> Self {
        Self { running: HashMap::new(), inherited, public: TaskTracker::new() }
    }

    /// Binds the addresses in the settings that no listener has yet, without accepting from them.
    /// Returns all errors.
    pub(super) fn bind(&self, wanted: &Listen) -> Result<HashMap<Key, Bound>, Vec<BindError>> {
        let mut bound = HashMap::new();
        let mut errors = Vec::new();
        let own = |port| self.running.values().any(|(local, _)| local.port() == port);
        for (kind, address) in keys(wanted) {
            if self.running.contains_key(&(kind, address)) {
                continue;
            }
            match self.bind_one(address, wanted) {
                Ok(socket) => {
                    bound.insert((kind, address), socket);
                }
                Err(cause) => {
                    let own = own(address.port());
                    errors.push(BindError { kind, address, own, cause });
                }
            }
        }
        if errors.is_empty() { Ok(bound) } else { Err(errors) }
    }

    fn bind_one(&self, address: SocketAddr, wanted: &Listen) -> io::Result<Bound> {
        let existing = self
            .inherited
            .iter()
            .find(|socket| socket.local_addr().is_ok_and(|local| local == address));
        let (socket, inherited) = if let Some(existing) = existing {
            (Socket::from(existing.try_clone()?), true)
        } else {
            let socket =
                Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                // `[::]` takes IPv4 as well, unless that has a listener of its own.
                let own_v4 = keys(wanted)
                    .any(|(_, other)| other.is_ipv4() && other.port() == address.port());
                socket.set_only_v6(own_v4)?;
            }
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            (socket, false)
        };
        // Accepted sockets inherit these.
        socket.set_tcp_nodelay(true)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        socket.set_nonblocking(true)?;
        let socket = StdListener::from(socket);
        let local = socket.local_addr()?;
        Ok(Bound { socket, local, inherited })
    }

    /// The addresses as they will be when `bound` runs too, in the order of the settings.
    pub(super) fn addresses(&self, wanted: &Listen, bound: &HashMap<Key, Bound>) -> Addresses {
        let mut addresses = Addresses::default();
        for key in keys(wanted) {
            let running = self.running.get(&key).map(|(local, _)| *local);
            let Some(local) = running.or_else(|| bound.get(&key).map(|bound| bound.local)) else {
                continue;
            };
            match key.0 {
                ListenerKind::Http => addresses.http.push(local),
                ListenerKind::Https => addresses.https.push(local),
                ListenerKind::Admin => addresses.admin.push(local),
            }
        }
        addresses
    }

    /// Starts listeners on what was bound, and closes those that are not in the settings.
    pub(super) fn apply(
        &mut self,
        wanted: &Listen,
        bound: HashMap<Key, Bound>,
        shared: &Arc<Shared>,
        tls: &Acceptor,
    ) -> io::Result<()> {
        for (key, bound) in bound {
            let drain = DrainSignal::default();
            self.running.insert(key, (bound.local, drain.clone()));
            let listener = Listener {
                kind: key.0,
                local: bound.local,
                inherited: bound.inherited,
                tls: (key.0 == ListenerKind::Https).then(|| tls.clone()),
                drain,
                shared: Arc::clone(shared),
                tasks: (key.0 != ListenerKind::Admin).then(|| self.public.clone()),
            };
            let socket = TcpListener::from_std(bound.socket)?;
            let tasks = listener.tasks.clone();
            spawn(tasks.as_ref(), listener.run(socket));
        }
        let wanted: Vec<Key> = keys(wanted).collect();
        self.running.retain(|key, (_, drain)| {
            let keep = wanted.contains(key);
            if !keep {
                drain.start();
            }
            keep
        });
        Ok(())
    }

    /// Closes the public listeners and waits for their connections to finish. The admin listener
    /// responds until the end.
    pub(super) async fn drain(&mut self) {
        for ((kind, _), (_, drain)) in &self.running {
            if *kind != ListenerKind::Admin {
                drain.start();
            }
        }
        self.public.close();
        self.public.wait().await;
    }

    /// Inherited sockets whose addresses are not in the settings.
    pub(super) fn unclaimed(&self) -> impl Iterator<Item = SocketAddr> {
        let addresses = self.inherited.iter().filter_map(|socket| socket.local_addr().ok());
        addresses.filter(|address| !self.running.values().any(|(local, _)| local == address))
    }
}

fn keys(listen: &Listen) -> impl Iterator<Item = Key> {
    let of = |kind, addresses: &[SocketAddr]| {
        addresses.iter().map(move |address| (kind, *address)).collect::<Vec<_>>()
    };
    of(ListenerKind::Http, &listen.http)
        .into_iter()
        .chain(of(ListenerKind::Https, &listen.https))
        .chain(of(ListenerKind::Admin, &listen.admin))
}

/// A running listener.
struct Listener {
    kind: ListenerKind,
    local: SocketAddr,
    inherited: bool,
    tls: Option<Acceptor>,
    drain: DrainSignal,
    shared: Arc<Shared>,
    /// What a drain waits for; `None` on the admin listener.
    tasks: Option<TaskTracker>,
}

impl Listener {
    /// Accepts until the listener is closed. No error ends it, and none makes it spin.
    async fn run(self, socket: TcpListener) {
        let admin = Arc::new(Semaphore::new(ADMIN_CONNECTIONS));
        let mut errors = Errors::default();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = self.drain.started() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    errors.in_a_row = 0;
                    // Not before: no connection is evicted for one that may never come. While it waits
                    // for a slot, the others stay in the kernel's queue.
                    let admission = self.admission(&admin).await;
                    self.spawn(stream, peer, admission);
                }
                Err(error) => {
                    self.handle_error(&error, &mut errors).await;
                }
            }
        }
        if !self.inherited {
            self.drain_queue(socket, &admin).await;
        }
    }

    /// Serves what the kernel has accepted already; closing the socket would reset it.
    async fn drain_queue(&self, socket: TcpListener, admin: &Arc<Semaphore>) {
        let Ok(socket) = socket.into_std() else { return };
        let mut errors = Errors::default();
        loop {
            let (stream, peer) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if errors.in_a_row < SPIN_LIMIT => {
                    self.handle_error(&error, &mut errors).await;
                    continue;
                }
                Err(_) => return,
            };
            let admission = self.admission(admin).await;
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = tokio::net::TcpStream::from_std(stream)
            {
                self.spawn(stream, peer, admission);
            }
        }
    }

    async fn admission(&self, admin: &Arc<Semaphore>) -> Admission {
        if self.kind != ListenerKind::Admin {
            self.shared.slots.available().await;
            return Admission::Public;
        }
        match Arc::clone(admin).acquire_owned().await {
            Ok(permit) => Admission::Admin(permit),
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    fn spawn(&self, stream: tokio::net::TcpStream, peer: SocketAddr, admission: Admission) {
        let handle = Arc::new(Handle::new());
        let (slot, permit) = match admission {
            Admission::Public => (Some(self.shared.slots.take(peer.ip(), &handle)), None),
            Admission::Admin(permit) => (None, Some(permit)),
        };
        let accepted = Accepted {
            stream,
            peer,
            kind: self.kind,
            slot,
            handle,
            tls: self.tls.clone(),
            drain: self.drain.clone(),
            shared: Arc::clone(&self.shared),
        };
        spawn(self.tasks.as_ref(), async move {
            connection::serve(accepted).await;
            drop(permit);
        });
    }

    /// Waits as long as an error of accept(2) requires.
    async fn handle_error(&self, error: &io::Error, errors: &mut Errors) {
        let in_a_row = errors.in_a_row;
        errors.in_a_row += 1;
        match AcceptError::of(error) {
            // The connection to accept is gone; the next may be in the queue.
            AcceptError::Connection if in_a_row < SPIN_LIMIT => {}
            AcceptError::OutOfFiles => {
                self.shared.metrics.limits.count(Limit::OpenFiles);
                if errors.reported.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
                    errors.reported = Some(Instant::now());
                    tracing::error!(
                        event = "out_of_files",
                        listener = self.kind.value(),
                        address = %self.local,
                        cause = %error,
                        hint = "raise the limit of open files (LimitNOFILE, ulimit -n) or lower `limits.connections`",
                    );
                }
                self.shared.slots.evict_and_wait(ACCEPT_BACKOFF).await;
            }
            AcceptError::Connection | AcceptError::Other => {
                if in_a_row.is_multiple_of(SPIN_LIMIT) {
                    tracing::error!(
                        event = "accept_failed",
                        listener = self.kind.value(),
                        address = %self.local,
                        cause = %error,
                        hint = "the listener retries; if the error persists, restart the process",
                    );
                }
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// The errors of a listener.
#[derive(Debug, Default)]
struct Errors {
    /// Since the last connection.
    in_a_row: u32,
    /// When it last reported that the process is out of files.
    reported: Option<Instant>,
}

/// What an error of accept(2) affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptError {
    /// Only the connection to accept.
    Connection,
    /// The process or the machine has no more files or memory.
    OutOfFiles,
    /// The listener, or something unknown.
    Other,
}

impl AcceptError {
    fn of(error: &io::Error) -> Self {
        let Some(errno) = Errno::from_io_error(error) else { return Self::Other };
        // macOS does not have this one.
        #[cfg(target_os = "linux")]
        if errno == Errno::NONET {
            return Self::Connection;
        }
        match errno {
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Self::OutOfFiles,
            // accept(2), "Error handling": network errors of the new socket; EPERM comes from a
            // firewall.
            Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::INTR
            | Errno::PERM
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::TIMEDOUT => Self::Connection,
            _ => Self::Other,
        }
    }
}

fn spawn(tasks: Option<&TaskTracker>, task: impl Future<Output = ()> + Send + 'static) {
    match tasks {
        Some(tasks) => drop(tasks.spawn(task)),
        None => drop(tokio::spawn(task)),
    }
}

/// The permission to accept a connection.
enum Admission {
    /// A slot is available; the connection takes it when it is accepted.
    Public,
    Admin(tokio::sync::OwnedSemaphorePermit),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Metrics;
    use crate::server::slots::Slots;

    /// tokio confines a panic to its task; this is about the slot and the drain.
    #[tokio::test]
    async fn a_connection_that_panics_frees_its_slot_and_does_not_block_a_drain() {
        let slots = Slots::new(1, 1, Arc::new(Metrics::new()));
        let tasks = TaskTracker::new();
        let available = || tokio::time::timeout(Duration::from_secs(5), slots.available());
        for _ in 0..3 {
            available().await.expect("the slot is lost");
            let slot = slots.take([192, 0, 2, 1].into(), &Arc::new(Handle::new()));
            spawn(Some(&tasks), async move {
                let _slot = slot;
                panic!("in a connection");
            });
        }
        available().await.expect("the slot is lost");
        tasks.close();
        tasks.wait().await;
    }

    #[test]
    fn an_unknown_accept_error_is_not_a_connection_error() {
        let of = |errno: Errno| AcceptError::of(&errno.into());
        assert_eq!(of(Errno::CONNABORTED), AcceptError::Connection);
        #[cfg(target_os = "linux")]
        assert_eq!(of(Errno::NONET), AcceptError::Connection);
        assert_eq!(of(Errno::MFILE), AcceptError::OutOfFiles);
        assert_eq!(of(Errno::INVAL), AcceptError::Other);
        assert_eq!(AcceptError::of(&io::Error::other("unknown")), AcceptError::Other);
    }
}
