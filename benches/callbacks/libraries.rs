//! The smallest program on the libraries of the server: tokio, rustls, hyper and h2 with a constant response. It has
//! no time-out, limit or metric. What it costs cannot be avoided with these libraries.

use crate::baseline::{accept, acceptor, listen};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use tokio::io::{AsyncRead, AsyncWrite};

/// Prints its addresses, and serves until it is killed.
pub(crate) fn run(certificate: &str, key: &str) {
    let acceptor = acceptor(certificate, key, &["h2", "http/1.1"]);
    // With a worker for each CPU, as the server has.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().build().unwrap().block_on(async {
        let [plain, tls] = listen().await;
        tokio::spawn(async move {
            loop {
                let stream = accept(&plain).await;
                tokio::spawn(serve(stream, false));
            }
        });
        let accepting = tokio::spawn(async move {
            loop {
                let stream = accept(&tls).await;
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        serve(stream, h2).await;
                    }
                });
            }
        });
        accepting.await.unwrap();
    });
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, h2: bool) {
    let location =
        format!("{}?{}", crate::load::TARGET, crate::load::query(crate::load::QUERY_BYTES));
    let location = HeaderValue::from_maybe_shared(Bytes::from(location)).unwrap();
    let service = service_fn(move |_: Request<Incoming>| {
        let location = location.clone();
        async move {
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(LOCATION, location);
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(stream);
    let _ = if h2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        http1::Builder::new().header_read_timeout(None).serve_connection(io, service).await
    };
}
