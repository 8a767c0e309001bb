//! Sends probes and returns the results, without evaluating them.

use super::corpus::{Probe, Run};
use super::evidence::{Answer, Evidence};
use super::landing::Landing;
use super::location::Callback;
use super::origins::origin;
use super::plan::Mark;
use super::query::Difference;
use crate::outbound::{
    Connection, Endpoint, Fault, Offer, Outbound, Peer, Reason, Request, Response, Step,
};
use crate::redirect::Target;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// The common state of all probes of one run.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    pub(super) outbound: Outbound,
    /// Cancelled when no more probes must be sent.
    interrupt: CancellationToken,
    pub(super) run: Run,
    /// Sent in a header field and a cookie; a response must not contain it.
    pub(super) canary: String,
    pub(super) deadline: Instant,
    /// Cookies that the callback set and requires.
    pub(super) cookies: Option<String>,
    /// How many seconds the run still waits for rate limits.
    patience: Arc<AtomicU64>,
    /// Marks every request; `None` for other hosts than that of the callback.
    mark: Option<Mark>,
}

/// How long a run waits for rate limits in total, and each time: longer values of `Retry-After` are
/// not respected, and the result stays unconfirmed.
const MAX_PATIENCE: u64 = 10;
const MAX_WAIT: u64 = 5;

/// A probe, all attempts to send it, and the result that the checks evaluate.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) probe: Probe,
    /// Of the first attempt that reached the target, else of the first attempt.
    pub(super) result: Result<Received, Fault>,
    pub(super) attempts: Vec<Answer>,
    /// Other queries of the same length, sent between the attempts.
    pub(super) controls: Vec<Answer>,
    /// The responses of failed attempts and controls.
    pub(super) failures: Vec<String>,
    /// What makes the query fail, if that was determined.
    pub(super) cause: Option<Cause>,
    pub(super) duration: Duration,
}

/// The part of a request that the server rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The origin in the `Referer`.
    Referer(&'static str),
    /// The parameter with this name.
    Parameter(String),
    /// The query passes with this parameter added.
    Missing(&'static str),
}

/// A response and where it leads.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) response: Response,
    pub(super) landing: Landing,
}

impl Outcome {
    pub(super) fn new(probe: Probe, result: Result<Received, Fault>, duration: Duration) -> Self {
        let (attempts, controls) = (vec![answer(&result)], Vec::new());
        let failures = failure(&result).into_iter().collect();
        Self { probe, result, attempts, controls, failures, cause: None, duration }
    }

    /// Adds another attempt.
    pub(super) fn repeated(&mut self, result: Result<Received, Fault>) {
        let again = answer(&result);
        self.failures.extend(failure(&result));
        let is_better = again == Answer::Reached
            || again == Answer::Failed && self.attempts.first() == Some(&Answer::Limited);
        if is_better && answer(&self.result) != Answer::Reached {
            self.result = result;
        }
        self.attempts.push(again);
    }

    /// Adds a control.
    pub(super) fn controlled(&mut self, result: &Result<Received, Fault>) {
        self.failures.extend(failure(result));
        self.controls.push(answer(result));
    }

    pub(super) fn evidence(&self) -> Evidence {
        Evidence::of(&self.attempts, &self.controls)
    }

    pub(super) fn landing(&self) -> Option<&Landing> {
        self.result.as_ref().ok().map(|got| &got.landing)
    }

    pub(super) fn is_exact(&self) -> bool {
        self.landing().is_some_and(Landing::is_exact)
    }

    /// Whether the target gets every value.
    pub(super) fn keeps_values(&self) -> bool {
        self.landing().is_some_and(Landing::keeps_values)
    }

    pub(super) fn status(&self) -> Option<StatusCode> {
        self.result.as_ref().ok().map(|got| got.response.status)
    }

    /// Whether two responses are equivalent. `redirect.cache` reports what a cache mixed up, and
    /// the checks of the query what arrives in other bytes.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let is_stale =
            |outcome: &Self| outcome.landing() == Some(&Landing::Altered(Difference::Stale));
        let keep_values = self.keeps_values() && other.keeps_values();
        if is_stale(self) || is_stale(other) || keep_values {
            self.status() == other.status()
        } else {
            self.shape() == other.shape()
        }
    }

    /// A description that is identical for equivalent responses.
    pub(super) fn shape(&self) -> String {
        shape(&self.result)
    }
}

fn shape(result: &Result<Received, Fault>) -> String {
    match result {
        Err(fault) => fault.to_string(),
        Ok(got) => match &got.landing {
            Landing::Exact => format!("{} to the target", got.response.status.as_u16()),
            Landing::Altered(difference) => {
                format!("{}, {}", got.response.status.as_u16(), difference.description())
            }
            Landing::Elsewhere(_) => format!("{} elsewhere", got.response.status.as_u16()),
            Landing::Stays(status) => format!("{}, no redirect", status.as_u16()),
        },
    }
}

pub(super) fn answer(result: &Result<Received, Fault>) -> Answer {
    Answer::of(result.as_ref().map(|got| (&got.response, &got.landing)))
}

/// The description of a failed attempt.
fn failure(result: &Result<Received, Fault>) -> Option<String> {
    (answer(result) == Answer::Failed).then(|| shape(result))
}

/// One address of the callback: whether it accepts connections, its certificate, and its response.
#[derive(Debug)]
pub(super) struct AddressProbe {
    pub(super) address: SocketAddr,
    /// Why no connection was established.
    pub(super) failure: Option<Fault>,
    pub(super) peer: Option<Peer>,
    pub(super) first: Option<Outcome>,
    /// Queries that often break, sent to every address when there are several.
    pub(super) hard: Vec<Outcome>,
    pub(super) duration: Duration,
}

/// The kind of client that the request imitates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// A browser that a provider redirected.
    Browser,
    /// A program with this `User-Agent`; empty for none.
    Program(&'static str),
    /// A browser that posts the parameters as a form (`response_mode=form_post`).
    Form,
}

impl Prober {
    pub(super) fn new(outbound: &Outbound, plan: &super::plan::Plan) -> Self {
        let run = Run::new();
        let canary = Run::nonce();
        Self {
            outbound: outbound.clone(),
            run,
            canary,
            deadline: Instant::now() + plan.total,
            interrupt: plan.interrupt.clone(),
            cookies: None,
            patience: Arc::new(AtomicU64::new(MAX_PATIENCE)),
            mark: plan.mark.clone(),
        }
    }

    /// The same for another host, which must not get the marks.
    pub(super) fn without_mark(&self) -> Self {
        Self { mark: None, ..self.clone() }
    }

    /// Waits as long as a rate limit requires; `false` when the run has waited enough.
    pub(super) async fn wait(&self, result: &Result<Received, Fault>) -> bool {
        let required = result.as_ref().ok().and_then(|got| got.response.retry_after());
        let seconds = required.unwrap_or_default().max(1);
        let left = self.patience.load(Ordering::Relaxed);
        if seconds > MAX_WAIT || seconds > left {
            return false;
        }
        self.patience.store(left - seconds, Ordering::Relaxed);
        let end = Instant::now() + Duration::from_secs(seconds);
        let wait = tokio::time::sleep_until(end.min(self.deadline));
        self.interrupt.run_until_cancelled(wait).await.is_some() && end < self.deadline
    }

    /// Runs a step, unless the time limit of the check is exceeded or the check is interrupted.
    pub(super) async fn timed<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        // On the heap: handshakes are large, and many steps share the stack of one worker.
        let work = timeout_at(self.deadline, Box::pin(work));
        // Biased: after an interrupt not even a step that ends at once is run.
        let text = tokio::select! {
            biased;
            () = self.interrupt.cancelled() => "the check is interrupted",
            result = work => match result {
                Ok(result) => return result,
                Err(_) => "the time limit of the check is exceeded",
            },
        };
        Err(Fault::new(Step::Connect, Reason::OutOfTime, text))
    }

    fn request(&self, path: &str, probe: &Probe, client: Client) -> Request {
        let query = probe.query.as_deref();
        let (method, query, body) = match client {
            Client::Form => {
                (Method::POST, None, Bytes::copy_from_slice(query.unwrap_or_default().as_bytes()))
            }
            Client::Browser | Client::Program(_) => (Method::GET, query, Bytes::new()),
        };
        let path_and_query = match query {
            None => path.to_owned(),
            Some(query) => format!("{path}?{query}"),
        };
        let mut headers = headers(client);
        let mut cookies = format!("callback_edge_canary={}", self.canary);
        if let Some(required) = &self.cookies {
            cookies.push_str("; ");
            cookies.push_str(required);
        }
        let mut fields = vec![
            (HeaderName::from_static("x-callback-edge-canary"), self.canary.clone()),
            (header::COOKIE, cookies),
        ];
        if let (Client::Browser, Some(origin)) = (client, origin(probe.name)) {
            // The default policy, strict-origin-when-cross-origin (Referrer Policy §8.4).
            fields.push((header::REFERER, format!("{origin}/")));
        }
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        Request { method, path_and_query, headers, body }
    }
}

/// Four sessions to one endpoint, which keep their connections from one list of probes to the next.
#[derive(Debug)]
pub(super) struct Parallel([Session; 4]);

impl Parallel {
    /// Sends probes, in an order of its own. A session stops after two consecutive time-outs.
    pub(super) async fn send(
        &mut self,
        callback: &Callback,
        target: &Target,
        probes: Vec<Probe>,
    ) -> Vec<Outcome> {
        let mut shares: [Vec<(usize, Probe)>; 4] = Default::default();
        for (number, probe) in probes.into_iter().enumerate() {
            if let Some(share) = shares.get_mut(number % 4) {
                share.push((number, probe));
            }
        }
        let work = async |session: &mut Session, share: Vec<(usize, Probe)>| {
            let mut all = Vec::new();
            let mut timeouts_left = 2;
            for (number, probe) in share {
                if timeouts_left == 0 {
                    let text = "not sent after two time-outs";
                    let fault = Fault::new(Step::Head, Reason::OutOfTime, text);
                    all.push((number, Outcome::new(probe, Err(fault), Duration::ZERO)));
                    continue;
                }
                let outcome = session.probe(callback, target, probe, Client::Browser).await;
                match &outcome.result {
                    Err(fault) if fault.reason == Reason::Timeout => timeouts_left -= 1,
                    _ => timeouts_left = 2,
                }
                all.push((number, outcome));
            }
            all
        };
        let Self([a, b, c, d]) = self;
        let [for_a, for_b, for_c, for_d] = shares;
        let (a, b, c, d) =
            tokio::join!(work(a, for_a), work(b, for_b), work(c, for_c), work(d, for_d));
        let mut all: Vec<_> = [a, b, c, d].into_iter().flatten().collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

/// Sequential requests to one endpoint, over one connection as long as it stays open.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) prober: Prober,
    pub(super) to: Endpoint,
    pub(super) offer: Offer,
    connection: Option<Connection>,
}

impl Session {
    pub(super) fn new(prober: &Prober, to: Endpoint, offer: Offer) -> Self {
        Self { prober: prober.clone(), to, offer, connection: None }
    }

    /// A session to the same endpoint, with its own connection.
    pub(super) fn another(&self) -> Self {
        Self::new(&self.prober, self.to.clone(), self.offer)
    }

    /// Four such sessions.
    pub(super) fn parallel(&self) -> Parallel {
        Parallel([self.another(), self.another(), self.another(), self.another()])
    }

    /// Connects, unless a connection is open; returns the peer.
    pub(super) async fn open(&mut self) -> Result<Option<&Peer>, Fault> {
        let reusable = match &mut self.connection {
            Some(connection) => connection.ready().await,
            None => false,
        };
        if !reusable {
            self.connection = None;
            // Boxed, as below: the state of a handshake is large, and would be part of every
            // future that sends a probe.
            let connect =
                Box::pin(self.prober.outbound.connect_without_verification(&self.to, self.offer));
            self.connection = Some(self.prober.timed(connect).await?);
        }
        Ok(self.connection.as_ref().and_then(Connection::peer))
    }

    /// Sends a request, and once more when a reused connection was closed, also by a GOAWAY.
    pub(super) async fn send_retrying(&mut self, request: &Request) -> Result<Response, Fault> {
        let reused = self.connection.is_some();
        self.open().await?;
        match self.send(request).await {
            Err(fault) if reused && matches!(fault.reason, Reason::Closed | Reason::Other) => {
                self.connection = None;
                self.open().await?;
                self.send(request).await
            }
            done => done,
        }
    }

    async fn send(&mut self, request: &Request) -> Result<Response, Fault> {
        let Some(connection) = &mut self.connection else {
            return Err(Fault::new(Step::Head, Reason::Closed, "the connection was closed"));
        };
        let mut request = Cow::Borrowed(request);
        if let Some(mark) = &self.prober.mark
            && let Some(value) = (mark.next)()
        {
            request.to_mut().headers.insert(mark.field.clone(), value);
        }
        let response = self.prober.timed(Box::pin(connection.send(&request))).await;
        if response.is_err() {
            self.connection = None;
        }
        response
    }

    pub(super) async fn probe(
        &mut self,
        callback: &Callback,
        target: &Target,
        probe: Probe,
        client: Client,
    ) -> Outcome {
        let began = Instant::now();
        let request = self.prober.request(&callback.path, &probe, client);
        let result = self.send_retrying(&request).await.map(|response| {
            let landing = Landing::of(&response, &probe, callback, target, &self.prober.run.prefix);
            Received { response, landing }
        });
        Outcome::new(probe, result, began.elapsed())
    }
}

/// Connects to one address and sends the first probe.
pub(super) async fn probe_address(
    prober: Prober,
    callback: Callback,
    target: Target,
    address: SocketAddr,
) -> (AddressProbe, Session) {
    let began = Instant::now();
    let mut session = Session::new(&prober, callback.server.clone().at(address), Offer::Both);
    let mut result = AddressProbe {
        address,
        failure: None,
        peer: None,
        first: None,
        hard: Vec::new(),
        duration: Duration::ZERO,
    };
    match session.open().await {
        Err(fault) => result.failure = Some(fault),
        Ok(peer) => {
            result.peer = peer.cloned();
            let probe = Probe::plain(&prober.run);
            result.first = Some(session.probe(&callback, &target, probe, Client::Browser).await);
        }
    }
    result.duration = began.elapsed();
    (result, session)
}

/// The header of a client, without the canary. The browser's has the product name too, so that the
/// log of the server shows where the request came from.
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
    let program;
    let fields: &[(HeaderName, &str)] = match client {
        Client::Browser | Client::Form => &BROWSER,
        Client::Program("") => &[(header::ACCEPT, "*/*")],
        Client::Program(name) => {
            program = [(header::ACCEPT, "*/*"), (header::USER_AGENT, name)];
            &program
        }
    };
    let mut headers: HeaderMap = fields
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), HeaderValue::from_str(value).ok()?)))
        .collect();
    // Fetch Metadata of a navigation caused by a provider's redirect. No `Sec-Fetch-User`: browsers
    // send it only for the first request of a navigation that the user activated.
    if !matches!(client, Client::Program(_)) {
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
