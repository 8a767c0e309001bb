//! Sends probes and keeps what came of them; judges nothing.

use super::corpus::{Probe, Run};
use super::landing::Landing;
use super::place::Callback;
use super::query::Difference;
use crate::outbound::{
    Answer, Connection, Endpoint, Fault, Offer, Outbound, Peer, Reason, Request, Step,
};
use crate::redirect::Target;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What all probes of one run share.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    pub(super) outbound: Outbound,
    pub(super) run: Run,
    /// Sent in a header field and a cookie, and looked for in what comes back.
    pub(super) canary: String,
    pub(super) deadline: Instant,
}

/// A probe and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) probe: Probe,
    pub(super) result: Result<Got, Fault>,
    pub(super) took: Duration,
}

/// An answer and where it leads.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) answer: Answer,
    pub(super) landing: Landing,
}

impl Seen {
    pub(super) fn landing(&self) -> Option<&Landing> {
        self.result.as_ref().ok().map(|got| &got.landing)
    }

    pub(super) fn is_exact(&self) -> bool {
        self.landing().is_some_and(Landing::is_exact)
    }

    pub(super) fn status(&self) -> Option<StatusCode> {
        self.result.as_ref().ok().map(|got| got.answer.status)
    }

    /// Whether this says the same as another. What a cache mixed up is told by `redirect.cache`.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let is_stale = |seen: &Self| seen.landing() == Some(&Landing::Altered(Difference::Stale));
        if is_stale(self) || is_stale(other) {
            self.status() == other.status()
        } else {
            self.shape() == other.shape()
        }
    }

    /// What this and another answer must have in common to count as the same.
    pub(super) fn shape(&self) -> String {
        match &self.result {
            Err(fault) => fault.to_string(),
            Ok(got) => match &got.landing {
                Landing::Exact => format!("{} to the target", got.answer.status.as_u16()),
                Landing::Altered(difference) => {
                    format!("{}, {}", got.answer.status.as_u16(), difference.words())
                }
                Landing::Elsewhere(_) => format!("{} elsewhere", got.answer.status.as_u16()),
                Landing::Stays(status) => format!("{}, no redirect", status.as_u16()),
            },
        }
    }
}

/// One address of the callback: whether it answers, who it is, and what it says.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    /// Why no connection came about.
    pub(super) closed: Option<Fault>,
    pub(super) peer: Option<Peer>,
    pub(super) seen: Option<Seen>,
    pub(super) took: Duration,
}

/// What the request looks like apart from its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// A browser that comes back from a provider.
    Browser,
    /// A program.
    Plain,
    /// A browser that posts the parameters as a form (`response_mode=form_post`).
    Form,
}

impl Prober {
    pub(super) fn new(outbound: &Outbound, total: Duration) -> Self {
        let run = Run::new();
        let canary = Run::nonce();
        Self { outbound: outbound.clone(), run, canary, deadline: Instant::now() + total }
    }

    /// Runs a step unless the time for all of them is used up.
    pub(super) async fn timed<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        // On the heap: handshakes are large, and many steps share one worker's stack.
        timeout_at(self.deadline, Box::pin(work)).await.unwrap_or_else(|_| {
            let text = "the time for the whole check is used up";
            Err(Fault::new(Step::Connect, Reason::OutOfTime, text))
        })
    }

    fn request(&self, path: &str, probe: &Probe, client: Client) -> Request {
        let query = probe.query.as_deref();
        let (method, query, body) = match client {
            Client::Form => {
                (Method::POST, None, Bytes::copy_from_slice(query.unwrap_or_default().as_bytes()))
            }
            Client::Browser | Client::Plain => (Method::GET, query, Bytes::new()),
        };
        let path_and_query = match query {
            None => path.to_owned(),
            Some(query) => format!("{path}?{query}"),
        };
        let mut headers = headers(client);
        let canary = [
            (HeaderName::from_static("x-callback-edge-canary"), self.canary.clone()),
            (header::COOKIE, format!("callback_edge_canary={}", self.canary)),
        ];
        for (name, value) in canary {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        Request { method, path_and_query, headers, body }
    }

    /// Sends probes over a few connections at a time. An address that lets probe after probe
    /// time out is given up.
    pub(super) async fn many(
        &self,
        lane: &Lane,
        callback: &Callback,
        target: &Target,
        probes: Vec<Probe>,
    ) -> Vec<Seen> {
        let mut shares: [Vec<(usize, Probe)>; 4] = Default::default();
        for (number, probe) in probes.into_iter().enumerate() {
            if let Some(share) = shares.get_mut(number % 4) {
                share.push((number, probe));
            }
        }
        let work = shares.map(async |share| {
            let mut lane = Lane::new(self, lane.to.clone(), lane.offer);
            let mut all = Vec::new();
            let mut patience = 2;
            for (number, probe) in share {
                if patience == 0 {
                    let text = "given up after two timeouts";
                    let fault = Fault::new(Step::Head, Reason::Timeout, text);
                    all.push((number, Seen { probe, result: Err(fault), took: Duration::ZERO }));
                    continue;
                }
                let seen = lane.probe(callback, target, probe, Client::Browser).await;
                match &seen.result {
                    Err(fault) if fault.reason == Reason::Timeout => patience -= 1,
                    _ => patience = 2,
                }
                all.push((number, seen));
            }
            all
        });
        let [a, b, c, d] = work;
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        let mut all: Vec<_> = [a, b, c, d].into_iter().flatten().collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, seen)| seen).collect()
    }
}

/// Requests to one endpoint, one after the other, over one connection while it lasts.
#[derive(Debug)]
pub(super) struct Lane {
    prober: Prober,
    pub(super) to: Endpoint,
    pub(super) offer: Offer,
    connection: Option<Connection>,
}

impl Lane {
    pub(super) fn new(prober: &Prober, to: Endpoint, offer: Offer) -> Self {
        Self { prober: prober.clone(), to, offer, connection: None }
    }

    /// Connects, unless a connection is open; tells who is there.
    pub(super) async fn open(&mut self) -> Result<Option<&Peer>, Fault> {
        let reusable = match &mut self.connection {
            Some(connection) => connection.ready().await,
            None => false,
        };
        if !reusable {
            self.connection = None;
            // Boxed, as below: a handshake's state is large, and would be part of every future
            // that sends a probe somewhere.
            let connect =
                Box::pin(self.prober.outbound.connect_without_verification(&self.to, self.offer));
            self.connection = Some(self.prober.timed(connect).await?);
        }
        Ok(self.connection.as_ref().and_then(Connection::peer))
    }

    /// Asks, and asks once more when a connection that was kept open turns out to be closed, or
    /// says so by a GOAWAY.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<Answer, Fault> {
        let kept = self.connection.is_some();
        self.open().await?;
        match self.send(request).await {
            Err(fault) if kept && matches!(fault.reason, Reason::Closed | Reason::Other) => {
                self.connection = None;
                self.open().await?;
                self.send(request).await
            }
            done => done,
        }
    }

    async fn send(&mut self, request: &Request) -> Result<Answer, Fault> {
        let Some(connection) = &mut self.connection else {
            return Err(Fault::new(Step::Head, Reason::Closed, "the connection was closed"));
        };
        let answer = self.prober.timed(Box::pin(connection.send(request))).await;
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    pub(super) async fn probe(
        &mut self,
        callback: &Callback,
        target: &Target,
        probe: Probe,
        client: Client,
    ) -> Seen {
        let began = Instant::now();
        let request = self.prober.request(&callback.path, &probe, client);
        let result = self.ask(&request).await.map(|answer| {
            let landing = Landing::of(&answer, &probe, target, &self.prober.run.prefix);
            Got { answer, landing }
        });
        Seen { probe, result, took: began.elapsed() }
    }
}

/// Tries one address.
pub(super) async fn knock(
    prober: Prober,
    callback: Callback,
    target: Target,
    address: SocketAddr,
) -> (Door, Lane) {
    let began = Instant::now();
    let mut lane = Lane::new(&prober, callback.server.clone().at(address), Offer::Both);
    let mut door = Door { address, closed: None, peer: None, seen: None, took: Duration::ZERO };
    match lane.open().await {
        Err(fault) => door.closed = Some(fault),
        Ok(peer) => {
            door.peer = peer.cloned();
            let probe = Probe::plain(&prober.run);
            door.seen = Some(lane.probe(&callback, &target, probe, Client::Browser).await);
        }
    }
    door.took = began.elapsed();
    (door, lane)
}

/// What a client sends apart from the canary. The product name stays in the browser's: whoever
/// reads the server's log should know who asked.
pub(super) fn headers(client: Client) -> HeaderMap {
    const BROWSER: [(HeaderName, &str); 4] = [
        (header::ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        (header::ACCEPT_LANGUAGE, "en-US,en;q=0.9"),
        (header::UPGRADE_INSECURE_REQUESTS, "1"),
        (
            header::USER_AGENT,
            concat!(
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) ",
                "Chrome/140.0.0.0 Safari/537.36 callback-edge/",
                env!("CARGO_PKG_VERSION")
            ),
        ),
    ];
    const PLAIN: [(HeaderName, &str); 2] = [
        (header::ACCEPT, "*/*"),
        (header::USER_AGENT, concat!("callback-edge/", env!("CARGO_PKG_VERSION"))),
    ];
    let fields: &[(HeaderName, &str)] = match client {
        Client::Browser | Client::Form => &BROWSER,
        Client::Plain => &PLAIN,
    };
    let mut headers: HeaderMap = fields
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), HeaderValue::from_str(value).ok()?)))
        .collect();
    // Fetch Metadata, as for a navigation that a provider's redirect caused.
    if client != Client::Plain {
        for (name, value) in [
            ("sec-fetch-dest", "document"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-site", "cross-site"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
    }
    if client == Client::Form {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
    }
    headers
}
