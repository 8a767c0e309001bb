//! The baseline: TCP, rustls and a constant response. It parses no request, has no time-out, limit or
//! metric, and sends the same response to every client.

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// TLS with this ALPN, and without tickets.
pub(crate) fn acceptor(certificate: &str, key: &str, alpn: &[&str]) -> TlsAcceptor {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certificate).unwrap()],
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    TlsAcceptor::from(Arc::new(config))
}

/// Prints its addresses, and serves until it is killed.
pub(crate) fn run(certificate: &str, key: &str) {
    let acceptor = acceptor(certificate, key, &["http/1.1"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let [plain, tls] = listen().await;
        tokio::spawn(async move {
            loop {
                let stream = accept(&plain).await;
                tokio::spawn(respond(stream));
            }
        });
        loop {
            let stream = accept(&tls).await;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    respond(stream).await;
                }
            });
        }
    });
}

/// Listens for plain HTTP and for TLS, and prints the addresses.
pub(crate) async fn listen() -> [TcpListener; 2] {
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let tls = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for (name, listener) in [("http", &plain), ("https", &tls)] {
        println!("listening {name} {}", listener.local_addr().unwrap());
    }
    [plain, tls]
}

pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn respond(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let response = format!(
        "HTTP/1.1 308 Permanent Redirect\r\ncache-control: no-store\r\nlocation: {}?{}\r\n\
         content-length: 0\r\ndate: Wed, 25 Nov 2026 00:00:00 GMT\r\n\r\n",
        crate::load::TARGET,
        crate::load::query(crate::load::QUERY_BYTES),
    );
    let mut request = [0; 4096];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut request[filled..]).await {
        filled += read;
        if request[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(response.as_bytes()).await.is_err() {
                return;
            }
        }
    }
    let _ = stream.shutdown().await;
}
