//! Repeats a check or a preflight and exports the results as metrics.

use super::connect::duration;
use super::{Exit, eprint_line};
use crate::config::Problem;
use crate::observe::Exported;
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

/// The time limit of a scrape.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after a failed accept, for example when file descriptors run out.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// How often to repeat, and where to serve the results.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct WatchOptions {
    /// Repeat this long after the end of each run, at least 10s
    #[arg(long, value_name = "DURATION", value_parser = every)]
    pub(super) every: Option<Duration>,

    /// Serve the results as metrics at `/metrics` of this address and port; needs --every
    #[arg(long, value_name = "ADDRESS", requires = "every")]
    metrics: Option<SocketAddr>,
}

/// Each run sends requests to Nango, and `preflight` to every provider; Nango's limits are per minute.
const MIN_EVERY: Duration = Duration::from_secs(10);

fn every(text: &str) -> Result<Duration, String> {
    let every = duration(text)?;
    if every < MIN_EVERY {
        return Err(format!("is too short: at least {} s", MIN_EVERY.as_secs()));
    }
    Ok(every)
}

impl WatchOptions {
    /// Serves the metrics, if an address is given.
    pub(super) async fn serve(&self, metrics: Exported) -> Result<(), Problem> {
        if let Some(address) = self.metrics {
            let cannot =
                |error| Problem::error(format!("cannot listen on `{address}`")).caused_by(&error);
            let listener = TcpListener::bind(address).await.map_err(cannot)?;
            let bound = listener.local_addr().map_err(cannot)?;
            eprint_line(&format!("metrics on http://{bound}/metrics"));
            tokio::spawn(serve(listener, Arc::new(metrics)));
        }
        Ok(())
    }
}

/// Repeats the run until SIGTERM or SIGINT; returns the exit of the last run.
pub(super) async fn until_stopped<T, R>(
    every: Duration,
    run: impl Fn() -> R,
    mut on_result: impl FnMut(T) -> Exit,
) -> Exit
where
    R: Future<Output = T>,
{
    let stopped = stop_signal();
    tokio::pin!(stopped);
    let mut exit = Exit::Unconfirmed;
    loop {
        tokio::select! {
            result = Box::pin(run()) => exit = on_result(result),
            () = &mut stopped => return exit,
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = &mut stopped => return exit,
        }
    }
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn serve(listener: TcpListener, metrics: Arc<Exported>) {
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

async fn respond(stream: TcpStream, metrics: Arc<Exported>) {
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
