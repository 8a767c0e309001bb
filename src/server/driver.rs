//! Drives one connection after its handshake: polls its protocol, and does what its state demands.

use super::context::Context as Connection;
use super::state::{Action, Event};
use super::turns::Place;
use crate::observe::{
    ConnectionError, Deadline, InternalRequest, Label, Limit, ListenerKind, Status,
};
use futures_util::FutureExt as _;
use std::error::Error as _;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::{Sleep, timeout};

/// How long a deadline waits for bytes that may have arrived before it expired.
const LATE_BYTES: Duration = Duration::from_millis(5);

/// A connection in either version.
pub(super) trait Protocol: Future<Output = hyper::Result<()>> + Unpin {
    /// Announces that no further request is accepted, where that loses none.
    fn announce_last(&mut self);
    /// Closes gracefully, after the responses to all accepted requests.
    fn shutdown(&mut self);
    /// Frees what is not needed while the connection waits.
    fn hibernate(&mut self);
}

/// Owns a connection to its end.
pub(super) struct ConnectionDriver<P> {
    context: Arc<Connection>,
    protocol: P,
    draining: bool,
    /// Whether it has to wait for its turn.
    takes_turns: bool,
    place: Place,
    /// Requests before the current turn.
    requests: u32,
}

/// Why the driver has to act.
enum Wakeup {
    Deadline,
    /// Evicted, or the settings changed.
    Woken,
    Drain,
    Ended(hyper::Result<()>),
}

impl<P: Protocol> ConnectionDriver<P> {
    pub(super) fn new(context: Arc<Connection>, protocol: P) -> Self {
        Self {
            context,
            protocol,
            draining: false,
            takes_turns: false,
            place: Place::default(),
            requests: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let context = Arc::clone(&self.context);
        let mut timer = pin!(tokio::time::sleep_until(self.deadline().into()));
        let mut drain = pin!(context.drain.started());
        let mut woken = pin!(context.handle.woken());
        loop {
            // Both have locks; once they have the waker, a flag shows whether to poll them.
            let mut registered = false;
            let wakeup = poll_fn(|cx| {
                // The protocol last: under a flood it would use up the task's budget each time, and
                // the deadline would never be polled.
                let expired = timer.as_mut().poll(cx).is_ready();
                if (!registered || context.handle.is_signalled())
                    && woken.as_mut().poll(cx).is_ready()
                {
                    return Poll::Ready(Wakeup::Woken);
                }
                if !self.draining
                    && (!registered || context.drain.is_started())
                    && drain.as_mut().poll(cx).is_ready()
                {
                    return Poll::Ready(Wakeup::Drain);
                }
                registered = true;
                if expired {
                    ready!(self.wait_in_line(cx));
                    return Poll::Ready(Wakeup::Deadline);
                }
                let (ended, deadline) = ready!(self.take_turn(cx));
                if let Poll::Ready(ended) = ended {
                    return Poll::Ready(Wakeup::Ended(ended));
                }
                // A later deadline is noticed when the earlier one has passed.
                let deadline = deadline.into();
                if deadline < timer.deadline() {
                    timer.as_mut().reset(deadline);
                    if timer.as_mut().poll(cx).is_ready() {
                        ready!(self.wait_in_line(cx));
                        return Poll::Ready(Wakeup::Deadline);
                    }
                }
                Poll::Pending
            })
            .await;
            let continues = match wakeup {
                Wakeup::Ended(ended) => return self.ended(ended),
                Wakeup::Deadline => match self.late_bytes().await {
                    Some(ended) => return self.ended(ended),
                    None => self.deadline_passed(),
                },
                Wakeup::Woken if self.context.handle.is_evicted() => {
                    // Writes only what can be written at once: the slot is needed.
                    self.context.handle.on(Event::Evict);
                    self.protocol.shutdown();
                    let _ = timeout(Duration::ZERO, &mut self.protocol).await;
                    return;
                }
                Wakeup::Woken => {
                    woken.set(context.handle.woken());
                    true
                }
                Wakeup::Drain => {
                    self.draining = true;
                    let grace = self.context.snapshot().settings.shutdown.grace;
                    let action = self.context.handle.on(Event::Drain { grace });
                    self.perform(action)
                }
            };
            if !continues {
                // If only the client has not closed yet, hyper has its result now, such as a head that it rejected.
                if let Some(ended) = (&mut self.protocol).now_or_never() {
                    self.ended(ended);
                }
                return;
            }
            rearm(timer.as_mut(), self.deadline());
        }
    }

    /// Polls the protocol, if it is the connection's turn. Returns also the deadline after that.
    fn take_turn(&mut self, cx: &mut Context<'_>) -> Poll<(Poll<hyper::Result<()>>, Instant)> {
        let turns = &self.context.shared.turns;
        let turn = if self.takes_turns {
            Some(ready!(turns.poll_begin(&mut self.place, cx)))
        } else {
            None
        };
        let ended = Pin::new(&mut self.protocol).poll(cx);
        let after = self.context.handle.usage(&self.context.snapshot().settings.limits);
        if let Some(turn) = turn {
            turns.end(turn, after.requests.wrapping_sub(self.requests));
        }
        self.requests = after.requests;
        self.takes_turns = after.takes_turns;
        Poll::Ready((ended, after.deadline))
    }

    /// Deadlines of connections that were opened together expire together. Other clients do not wait until
    /// all of them are closed.
    fn wait_in_line(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.context.shared.turns.poll_closing(&mut self.place, cx)
    }

    /// Reads what arrived in time while the process was stopped or the machine was busy. Timers may fire
    /// before sockets are read; a second one does not.
    async fn late_bytes(&mut self) -> Option<hyper::Result<()>> {
        if self.deadline() > Instant::now() {
            return None;
        }
        timeout(LATE_BYTES, &mut self.protocol).await.ok()
    }

    /// Does what is due. Returns whether the connection continues.
    fn deadline_passed(&mut self) -> bool {
        let (action, expired) = {
            let snapshot = self.context.snapshot();
            self.context.handle.on_timer(&snapshot.settings.limits)
        };
        if let Some(deadline) = expired {
            self.count(deadline);
        }
        self.perform(action)
    }

    fn perform(&mut self, action: Action) -> bool {
        match action {
            Action::Hibernate => self.protocol.hibernate(),
            Action::AnnounceLast => self.protocol.announce_last(),
            Action::Shutdown => self.protocol.shutdown(),
            Action::Drop => return false,
            Action::Continue | Action::Discard | Action::Refuse => {}
        }
        true
    }

    fn deadline(&self) -> Instant {
        self.context.handle.deadline(&self.context.snapshot().settings.limits)
    }

    fn count(&self, stage: Deadline) {
        self.context.shared.metrics.deadlines.count(stage);
        tracing::debug!(event = "deadline", stage = stage.value(), client = %self.context.client);
    }

    /// Counts and logs the responses that hyper sends without the service.
    fn ended(&self, ended: hyper::Result<()>) {
        let Err(error) = ended else { return };
        let metrics = &self.context.shared.metrics;
        if error.is_parse_too_large() {
            metrics.limits.count(Limit::HeaderBytes);
            self.rejected(Status::HeaderFieldsTooLarge, "header_bytes");
        } else if error.is_parse() {
            self.rejected(Status::BadRequest, "malformed");
        }
        let reason = reason(&error);
        metrics.connection_errors.count(reason);
        tracing::debug!(
            event = "connection_error",
            reason = reason.value(),
            client = %self.context.client,
        );
    }

    /// A head that hyper rejects. It is known only that the limit of bytes or that of fields is reached.
    fn rejected(&self, status: Status, reason: &'static str) {
        let Connection { shared, kind, client, .. } = &*self.context;
        if *kind == ListenerKind::Admin {
            return shared.metrics.internal_requests.count(InternalRequest::Admin);
        }
        shared.metrics.requests.count(status);
        if self.context.snapshot().logs_requests() {
            tracing::info!(
                event = "request",
                listener = kind.value(),
                %client,
                reason,
                status = status.value(),
            );
        }
    }
}

fn rearm(timer: Pin<&mut Sleep>, deadline: Instant) {
    timer.reset(deadline.into());
}

/// One value of an enum: hyper's own text may quote the request.
fn reason(error: &hyper::Error) -> ConnectionError {
    let source = error.source();
    let h2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    if error.is_parse_too_large() {
        ConnectionError::HeadTooLarge
    } else if error.is_parse() {
        ConnectionError::Malformed
    } else if error.is_incomplete_message() {
        ConnectionError::Incomplete
    } else if h2.is_some_and(|error| error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
        || io.is_some_and(|error| error.kind() == std::io::ErrorKind::QuotaExceeded)
    {
        ConnectionError::Flood
    } else if h2.is_some_and(|error| !error.is_io()) {
        ConnectionError::Protocol
    } else {
        ConnectionError::Io
    }
}
