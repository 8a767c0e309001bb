//! Repeats a preflight and exports its results as metrics.

use super::{Exit, eprint_line};
use crate::config::Problem;
use crate::observe::{PreflightRun, WatchMetrics};
use crate::report::{Report, Status, Verdict};
use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// The results of the runs, exported as metrics.
pub(super) struct Watch {
    metrics: Arc<WatchMetrics>,
}

/// The time limit of a scrape.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after a failed accept, for example when file descriptors run out.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

impl Watch {
    /// Serves the metrics, if an address is given.
    pub(super) async fn start(address: Option<SocketAddr>) -> Result<Self, Problem> {
        let metrics = Arc::new(WatchMetrics::new());
        if let Some(address) = address {
            let cannot =
                |error| Problem::error(format!("cannot listen on `{address}`")).caused_by(&error);
            let listener = TcpListener::bind(address).await.map_err(cannot)?;
            let bound = listener.local_addr().map_err(cannot)?;
            eprint_line(&format!("metrics on http://{bound}/metrics"));
            tokio::spawn(serve(listener, Arc::clone(&metrics)));
        }
        Ok(Self { metrics })
    }

    pub(super) fn record(&self, report: &Report) {
        let verdict = report.verdict();
        let switched = report.switch.as_ref().is_some_and(|switch| switch.switched);
        let run = PreflightRun {
            verdict: verdict.name(),
            safe: verdict == Verdict::Pass,
            switched,
            failed: report.count(Status::Fail),
        };
        let integrations = report
            .checks
            .iter()
            .filter_map(|check| Some((check.id.strip_prefix("integration.")?, check.state?)));
        self.metrics.record(run, integrations);
    }
}

/// Repeats the run until SIGTERM or SIGINT; returns the exit of the last run.
pub(super) async fn until_stopped<R>(
    every: Duration,
    run: impl Fn() -> R,
    mut on_report: impl FnMut(&Report) -> Exit,
) -> Exit
where
    R: Future<Output = Report>,
{
    let stopped = async {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stopped);
    let mut exit = Exit::Unconfirmed;
    loop {
        tokio::select! {
            report = Box::pin(run()) => exit = on_report(&report),
            () = &mut stopped => return exit,
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = &mut stopped => return exit,
        }
    }
}

async fn serve(listener: TcpListener, metrics: Arc<WatchMetrics>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let metrics = Arc::clone(&metrics);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(SCRAPE_TIMEOUT, respond(stream, metrics)).await;
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_RETRY_DELAY).await,
        }
    }
}

async fn respond(stream: TcpStream, metrics: Arc<WatchMetrics>) {
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let metrics = Arc::clone(&metrics);
        async move {
            let is_scrape = request.uri().path() == "/metrics" && request.method() == Method::GET;
            let text = if is_scrape { metrics.text().ok() } else { None };
            let mut response = Response::new(Full::new(Bytes::new()));
            match text {
                Some(text) => {
                    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    response
                        .headers_mut()
                        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
                    *response.body_mut() = Full::new(text.into());
                }
                None => *response.status_mut() = StatusCode::NOT_FOUND,
            }
            Ok::<_, Infallible>(response)
        }
    });
    // A client may disconnect at any time.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
