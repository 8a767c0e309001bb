//! A directory that stands before Pebble: it tells renewal windows (RFC 9773), and refuses orders.

use crate::pebble::{Pebble, handshake};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One that stands before this Pebble.
pub(crate) struct Windows {
    pub(crate) address: SocketAddr,
    told: Arc<Mutex<Told>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Told {
    window: (String, String),
    retry_after: bool,
    /// Orders are refused, for so many seconds.
    refused_for: Option<u64>,
    refused: usize,
    asked: usize,
    replaced: Vec<String>,
}

impl Windows {
    pub(crate) async fn before(pebble: &Pebble, retry_after: bool) -> Self {
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
        let told = Arc::new(Mutex::new(Told { retry_after, ..Told::default() }));
        let (client, pebble_at) = (pebble.authority.client(&[]), pebble.acme);
        let shared = Arc::clone(&told);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (told, acceptor) = (Arc::clone(&shared), acceptor.clone());
                let client = Arc::clone(&client);
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.ok()?;
                    let request = read_request(&mut stream).await?;
                    let answer = pass(&request, address, pebble_at, &client, &told).await;
                    stream.write_all(answer.as_bytes()).await.ok()?;
                    stream.shutdown().await.ok()
                });
            }
        });
        Self { address, told, task }
    }

    /// From and to, in hours from now.
    pub(crate) fn tell(&self, from: i64, to: i64) {
        let at = |hours: i64| {
            let now = jiff::Timestamp::now().as_second();
            jiff::Timestamp::from_second(now + hours * 3600).unwrap().to_string()
        };
        self.told.lock().unwrap().window = (at(from), at(to));
    }

    /// Refuses orders from now on, for so many seconds as it says.
    pub(crate) fn refuse(&self, seconds: u64) {
        self.told.lock().unwrap().refused_for = Some(seconds);
    }

    /// How many orders it refused.
    pub(crate) fn refused(&self) -> usize {
        self.told.lock().unwrap().refused
    }

    /// How often it was asked for a window.
    pub(crate) fn asked(&self) -> usize {
        self.told.lock().unwrap().asked
    }

    /// What orders said that they replace.
    pub(crate) fn replaced(&self) -> Vec<String> {
        self.told.lock().unwrap().replaced.clone()
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Head and body.
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

/// Everything goes to Pebble, which builds its URLs from the `Host` that it is asked for.
async fn pass(
    request: &str,
    own: SocketAddr,
    pebble: SocketAddr,
    client: &Arc<ClientConfig>,
    told: &Mutex<Told>,
) -> String {
    let path = request.split(' ').nth(1).unwrap();
    let respond = |body: &str, fields: &str| {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
    };
    if path.starts_with("/ari/") {
        let mut told = told.lock().unwrap();
        told.asked += 1;
        let (start, end) = told.window.clone();
        let window = serde_json::json!({ "suggestedWindow": { "start": start, "end": end } });
        let fields = if told.retry_after { "Retry-After: 21600\r\n" } else { "" };
        return respond(&window.to_string(), fields);
    }
    if let ("/order-plz", mut told) = (path, told.lock().unwrap())
        && let Some(seconds) = told.refused_for
    {
        told.refused += 1;
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
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let Ok(mut json) = serde_json::from_str::<serde_json::Value>(body) else { return answer };
    match path {
        "/dir" => json["renewalInfo"] = format!("https://{own}/ari").into(),
        "/order-plz" => {
            let jose = request.split_once("\r\n\r\n").unwrap().1;
            let jose: serde_json::Value = serde_json::from_str(jose).unwrap();
            let payload = jose["payload"].as_str().unwrap().as_bytes();
            let payload = data_encoding::BASE64URL_NOPAD.decode(payload).unwrap();
            let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            if let Some(replaces) = payload["replaces"].as_str() {
                told.lock().unwrap().replaced.push(replaces.to_owned());
                json["replaces"] = replaces.into();
            }
        }
        _ => return answer,
    }
    let body = json.to_string();
    let head: Vec<_> =
        head.lines().filter(|line| !line.to_lowercase().starts_with("content-length")).collect();
    format!("{}\r\nContent-Length: {}\r\n\r\n{body}", head.join("\r\n"), body.len())
}
