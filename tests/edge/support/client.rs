use super::{Authority, with_timeout};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Every header that a response may have. Any other header fails the test.
const ALLOWED: [&str; 11] = [
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "location",
    "strict-transport-security",
    "www-authenticate",
    "x-content-type-options",
];

/// A response as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    fn new(status: u16, headers: Vec<(String, Vec<u8>)>, also: &[&str]) -> Self {
        for (position, (name, _)) in headers.iter().enumerate() {
            let allowed = ALLOWED.iter().chain(also).any(|allowed| allowed == name);
            assert!(allowed, "unexpected header {name}");
            assert!(headers[..position].iter().all(|(other, _)| other != name), "{name} twice");
        }
        Self { status, headers, body: Vec::new() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// A header as text; empty if it is missing.
    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.header(name).unwrap_or_default()).into_owned()
    }

    pub(crate) fn location(&self) -> String {
        self.text("location")
    }

    /// The names of its headers, sorted, in one line.
    pub(crate) fn names(&self) -> String {
        let mut names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.join(" ")
    }
}

pub(crate) async fn connect(address: SocketAddr) -> Http1<TcpStream> {
    let stream = with_timeout(TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    Http1::new(stream)
}

/// A TLS connection with this server name and these ALPN protocols.
pub(crate) async fn connect_tls(
    authority: &Authority,
    address: SocketAddr,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = with_timeout(TcpStream::connect(address)).await?;
    stream.set_nodelay(true)?;
    handshake(authority.client(alpn), stream, name).await
}

/// A TLS handshake with this server name on an open connection.
pub(crate) async fn handshake(
    client: Arc<ClientConfig>,
    stream: TcpStream,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    with_timeout(TlsConnector::from(client).connect(name, stream)).await
}

/// An HTTP/1 client that sends exactly the given bytes.
pub(crate) struct Http1<S> {
    stream: BufReader<S>,
    also: &'static [&'static str],
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self::allowing(stream, &[])
    }

    /// Also allows these headers, which a proxy in between adds.
    pub(crate) fn allowing(stream: S, also: &'static [&'static str]) -> Self {
        Self { stream: BufReader::with_capacity(64 * 1024, stream), also }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // If the peer has closed, reading the response shows it.
        let _ = with_timeout(self.stream.get_mut().write_all(bytes)).await;
        let _ = with_timeout(self.stream.get_mut().flush()).await;
    }

    /// A GET of a raw target.
    pub(crate) async fn get(&mut self, target: impl AsRef<[u8]>) -> Option<Reply> {
        self.request("GET", target, "", b"").await
    }

    /// A POST of a form to a raw target.
    pub(crate) async fn post(&mut self, target: &str, form: &str) -> Option<Reply> {
        let length = form.len();
        let fields = format!(
            "content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n"
        );
        self.request("POST", target, &fields, form.as_bytes()).await
    }

    pub(crate) async fn request(
        &mut self,
        method: &str,
        target: impl AsRef<[u8]>,
        fields: &str,
        body: &[u8],
    ) -> Option<Reply> {
        let mut bytes = format!("{method} ").into_bytes();
        bytes.extend_from_slice(target.as_ref());
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        if !fields.to_ascii_lowercase().contains("host:") {
            bytes.extend_from_slice(b"Host: localhost\r\n");
        }
        bytes.extend_from_slice(fields.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.send(&bytes).await;
        if method == "HEAD" { self.reply_to_head().await } else { self.reply().await }
    }

    /// The next response; `None` if the connection ended instead.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        with_timeout(self.read(true)).await
    }

    pub(crate) async fn reply_to_head(&mut self) -> Option<Reply> {
        with_timeout(self.read(false)).await
    }

    async fn read(&mut self, body: bool) -> Option<Reply> {
        let status_line = self.line().await?;
        let status = String::from_utf8(status_line).unwrap();
        assert!(status.starts_with("HTTP/1."), "{status:?}");
        let status: u16 = status[9..12].parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let colon = line.iter().position(|&byte| byte == b':').unwrap();
            let name = String::from_utf8(line[..colon].to_ascii_lowercase()).unwrap();
            headers.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
        let mut reply = Reply::new(status, headers, self.also);
        if status == 100 {
            return Box::pin(self.read(body)).await;
        }
        if body && status != 204 {
            let length = reply.text("content-length").parse().unwrap();
            reply.body = vec![0; length];
            self.stream.read_exact(&mut reply.body).await.ok()?;
        }
        Some(reply)
    }

    async fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line).await.ok()?;
        if read == 0 {
            return None;
        }
        assert!(line.ends_with(b"\r\n"), "{:?}", String::from_utf8_lossy(&line));
        line.truncate(line.len() - 2);
        Some(line)
    }

    /// Whether the peer has closed without another response.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(with_timeout(self.stream.read(&mut byte)).await, Ok(0) | Err(_))
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream.into_inner()
    }
}

/// An HTTP/2 client on a TLS connection.
pub(crate) struct Http2 {
    sender: h2::client::SendRequest<bytes::Bytes>,
}

impl Http2 {
    pub(crate) async fn connect(authority: &Authority, address: SocketAddr, name: &str) -> Self {
        let stream = connect_tls(authority, address, name, &["h2"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = with_timeout(h2::client::handshake(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    pub(crate) async fn get(&mut self, target: &str) -> Result<Reply, h2::Error> {
        let request = http::Request::get(format!("https://localhost{target}"));
        self.request(request.body(()).unwrap(), b"").await
    }

    pub(crate) async fn request(
        &mut self,
        request: http::Request<()>,
        body: &'static [u8],
    ) -> Result<Reply, h2::Error> {
        with_timeout(async {
            let mut sender = self.sender.clone().ready().await?;
            let (response, mut stream) = sender.send_request(request, body.is_empty())?;
            if !body.is_empty() {
                stream.send_data(bytes::Bytes::from_static(body), true)?;
            }
            let (head, mut incoming) = response.await?.into_parts();
            let mut body = Vec::new();
            while let Some(chunk) = incoming.data().await {
                body.extend_from_slice(&chunk?);
            }
            let headers = head.headers.iter();
            let headers =
                headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            Ok(Reply { body, ..Reply::new(head.status.as_u16(), headers.collect(), &[]) })
        })
        .await
    }
}
