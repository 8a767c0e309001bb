//! A proxy in front of Pebble that adds ACME Renewal Information (RFC 9773) and can reject orders.

use crate::pebble::{Pebble, handshake};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The proxy of one Pebble.
pub(crate) struct AriProxy {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    window: (String, String),
    retry_after: bool,
    /// The `Retry-After` of rejected orders, in seconds; without it, orders are forwarded.
    reject_for: Option<u64>,
    rejected: usize,
    window_requests: usize,
    replaced: Vec<String>,
}

impl AriProxy {
    pub(crate) async fn start(pebble: &Pebble, retry_after: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let read = |name| std::fs::read(pebble.dir.path().join(name)).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(&read("pebble.pem")).unwrap()];
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&read("pebble.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let state = Arc::new(Mutex::new(State { retry_after, ..State::default() }));
        let (client, pebble_at) = (pebble.authority.client(&[]), pebble.acme);
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, acceptor) = (Arc::clone(&shared), acceptor.clone());
                let client = Arc::clone(&client);
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.ok()?;
                    let request = read_request(&mut stream).await?;
                    let response = forward(&request, address, pebble_at, &client, &state).await;
                    stream.write_all(response.as_bytes()).await.ok()?;
                    stream.shutdown().await.ok()
                });
            }
        });
        Self { address, state, task }
    }

    /// Sets the suggested window, in hours from now.
    pub(crate) fn set_window(&self, from: i64, to: i64) {
        let at = |hours: i64| {
            let now = jiff::Timestamp::now().as_second();
            jiff::Timestamp::from_second(now + hours * 3600).unwrap().to_string()
        };
        self.state.lock().unwrap().window = (at(from), at(to));
    }

    /// Rejects orders from now on, with this `Retry-After`.
    pub(crate) fn reject_orders(&self, seconds: u64) {
        self.state.lock().unwrap().reject_for = Some(seconds);
    }

    /// The number of rejected orders.
    pub(crate) fn rejected_orders(&self) -> usize {
        self.state.lock().unwrap().rejected
    }

    /// The number of requests for a window.
    pub(crate) fn window_requests(&self) -> usize {
        self.state.lock().unwrap().window_requests
    }

    /// The identifiers in the field `replaces` of orders.
    pub(crate) fn replaced_certificates(&self) -> Vec<String> {
        self.state.lock().unwrap().replaced.clone()
    }
}

impl Drop for AriProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads head and body.
async fn read_request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Forwards a request to Pebble, which makes its URLs from the `Host` of the request; responds itself
/// to requests for a window, and to rejected orders.
async fn forward(
    request: &str,
    own: SocketAddr,
    pebble: SocketAddr,
    client: &Arc<ClientConfig>,
    state: &Mutex<State>,
) -> String {
    let path = request.split(' ').nth(1).unwrap();
    let respond = |body: &str, fields: &str| {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
    };
    if path.starts_with("/ari/") {
        let mut state = state.lock().unwrap();
        state.window_requests += 1;
        let (start, end) = state.window.clone();
        let window = serde_json::json!({ "suggestedWindow": { "start": start, "end": end } });
        let fields = if state.retry_after { "Retry-After: 21600\r\n" } else { "" };
        return respond(&window.to_string(), fields);
    }
    if let ("/order-plz", mut state) = (path, state.lock().unwrap())
        && let Some(seconds) = state.reject_for
    {
        state.rejected += 1;
        let body = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}"#;
        let length = body.len();
        return format!(
            "HTTP/1.1 429 Too Many Requests\r\nReplay-Nonce: bm9uY2U\r\n\
             Retry-After: {seconds}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
    }
    let mut stream = handshake(client, pebble, "localhost").await.unwrap();
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    let response = String::from_utf8(response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let Ok(mut json) = serde_json::from_str::<serde_json::Value>(body) else { return response };
    match path {
        "/dir" => json["renewalInfo"] = format!("https://{own}/ari").into(),
        "/order-plz" => {
            let jose = request.split_once("\r\n\r\n").unwrap().1;
            let jose: serde_json::Value = serde_json::from_str(jose).unwrap();
            let payload = jose["payload"].as_str().unwrap().as_bytes();
            let payload = data_encoding::BASE64URL_NOPAD.decode(payload).unwrap();
            let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            if let Some(replaces) = payload["replaces"].as_str() {
                state.lock().unwrap().replaced.push(replaces.to_owned());
                json["replaces"] = replaces.into();
            }
        }
        _ => return response,
    }
    let body = json.to_string();
    let head: Vec<_> =
        head.lines().filter(|line| !line.to_lowercase().starts_with("content-length")).collect();
    format!("{}\r\nContent-Length: {}\r\n\r\n{body}", head.join("\r\n"), body.len())
}
