//! Behind a proxy the query is unchanged, and the log has the address of the client.

use crate::peer::Peer;
use crate::support::{self, Authority, Edge, Http1, handshake, until, with_timeout};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

/// The address of the client; the proxies connect from 127.0.0.1.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));
/// Headers that proxies add to a response.
const PROXY_HEADERS: &[&str] = &["server"];

#[tokio::test]
async fn haproxy_forwards_tcp_with_both_versions_of_the_proxy_header() {
    for version in ["send-proxy", "send-proxy-v2"] {
        let (authority, edge) = edge_behind_a_proxy_header();
        let haproxy = Peer::haproxy(
            &"
            defaults
                mode tcp
                timeout client 20s
                timeout connect 20s
                timeout server 20s
            listen plain
                bind 127.0.0.1:{port:plain}
                server edge {http} {send}
            listen tls
                bind 127.0.0.1:{port:tls}
                server edge {https} {send}
            "
            .replace("{http}", &edge[0].http[0].to_string())
            .replace("{https}", &edge[1].https[0].to_string())
            .replace("{send}", version),
        );
        assert_unchanged_plain_and_tls(&authority, &edge, &haproxy).await;
    }
}

#[tokio::test]
async fn nginx_forwards_tcp_with_a_proxy_header() {
    let (authority, edge) = edge_behind_a_proxy_header();
    let nginx = Peer::nginx(
        &"
        stream {
            proxy_protocol on;
            server { listen 127.0.0.1:{port:plain}; proxy_pass {http}; }
            server { listen 127.0.0.1:{port:tls}; proxy_pass {https}; }
        }
        "
        .replace("{http}", &edge[0].http[0].to_string())
        .replace("{https}", &edge[1].https[0].to_string()),
    );
    assert_unchanged_plain_and_tls(&authority, &edge, &nginx).await;
}

#[tokio::test]
async fn nginx_forwards_http_and_the_client_address() {
    let edge = edge_behind_a_trusted_proxy();
    let nginx = Peer::nginx(
        &"
        http {
            # The first is for the request line; the others, for the Location of the response.
            large_client_header_buffers 4 64k;
            proxy_buffer_size 64k;
            proxy_buffers 4 64k;
            server {
                listen 127.0.0.1:{port:front};
                location / {
                    proxy_pass http://{edge};
                    proxy_set_header Host $host;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    proxy_set_header Forwarded \"\";
                }
            }
        }
        "
        .replace("{edge}", &edge.http[0].to_string()),
    );
    assert_unchanged_over_http(&edge, nginx.address("front")).await;
}

#[tokio::test]
async fn haproxy_forwards_http_and_the_client_address() {
    let edge = edge_behind_a_trusted_proxy();
    let haproxy = Peer::haproxy(
        &"
        global
            tune.bufsize 65536
        defaults
            mode http
            option forwardfor
            timeout client 20s
            timeout connect 20s
            timeout server 20s
        listen front
            bind 127.0.0.1:{port:front}
            http-request del-header forwarded
            server edge {edge}
        "
        .replace("{edge}", &edge.http[0].to_string()),
    );
    assert_unchanged_over_http(&edge, haproxy.address("front")).await;
}

/// Neither proxy removes the header that the server does not read.
#[tokio::test]
async fn forwarded_contains_the_client_address_if_it_is_the_configured_header() {
    let settings = "listen.trusted_proxies = '127.0.0.1/32'\nlisten.client_address = 'forwarded'";
    let edge = Edge::plain(settings);
    // As in the documentation of nginx, without its validation of the header of the client.
    let nginx = Peer::nginx(
        &"
        http {
            large_client_header_buffers 4 64k;
            proxy_buffer_size 64k;
            proxy_buffers 4 64k;
            server {
                listen 127.0.0.1:{port:front};
                location / {
                    proxy_pass http://{edge};
                    proxy_set_header Host $host;
                    proxy_set_header Forwarded \"$http_forwarded, for=$remote_addr;proto=$scheme\";
                }
            }
        }
        "
        .replace("{edge}", &edge.http[0].to_string()),
    );
    assert_unchanged_over_http(&edge, nginx.address("front")).await;
    let edge = Edge::plain(settings);
    let haproxy = Peer::haproxy(
        &"
        global
            tune.bufsize 65536
        defaults
            mode http
            timeout client 20s
            timeout connect 20s
            timeout server 20s
        listen front
            bind 127.0.0.1:{port:front}
            http-request add-header Forwarded for=\\\"%[src]\\\";proto=http
            server edge {edge}
        "
        .replace("{edge}", &edge.http[0].to_string()),
    );
    assert_unchanged_over_http(&edge, haproxy.address("front")).await;
}

#[tokio::test]
async fn caddy_forwards_http_and_the_client_address() {
    let edge = edge_behind_a_trusted_proxy();
    let caddy = Peer::caddy(
        &"http://:{port:front} {
            bind 127.0.0.1
            reverse_proxy {edge}
        }
        "
        .replace("{edge}", &edge.http[0].to_string()),
    );
    assert_unchanged_over_http(&edge, caddy.address("front")).await;
}

/// One plain server and one with TLS: if both listeners are on, the plain one redirects to the other.
fn edge_behind_a_proxy_header() -> (Authority, [Edge; 2]) {
    let trusting = "listen.proxy_protocol = '127.0.0.1/32'";
    let (tls, authority) = Edge::over_tls(trusting);
    (authority, [Edge::plain(trusting), tls])
}

fn edge_behind_a_trusted_proxy() -> Edge {
    Edge::plain("listen.trusted_proxies = '127.0.0.1/32'")
}

async fn assert_unchanged_plain_and_tls(authority: &Authority, edges: &[Edge; 2], proxy: &Peer) {
    let stream = connect_as_client(proxy.address("plain")).await;
    let plain = assert_queries_unchanged(&mut Http1::new(stream)).await;
    let stream = connect_as_client(proxy.address("tls")).await;
    let stream = handshake(authority.client(&[]), stream, "localhost").await.unwrap();
    let tls = assert_queries_unchanged(&mut Http1::new(stream)).await;
    for (edge, requests) in edges.iter().zip([plain, tls]) {
        assert_log_names_the_client(edge, requests).await;
    }
}

async fn assert_unchanged_over_http(edge: &Edge, front: SocketAddr) {
    let stream = connect_as_client(front).await;
    let requests = assert_queries_unchanged(&mut Http1::allowing(stream, PROXY_HEADERS)).await;
    assert_log_names_the_client(edge, requests).await;
}

pub(crate) async fn connect_as_client(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((CLIENT, 0).into()).unwrap();
    with_timeout(socket.connect(address)).await.unwrap()
}

/// Queries that a proxy which rewrites them would change.
fn queries() -> [String; 8] {
    [
        "?code=4%2F0AX4XfWh&state=9b2d&scope=https://www.googleapis.com/auth/userinfo.email%20openid",
        "?a=%2f&b=%2F&c=%zz&d=%&e=%00%0d%0a",
        "?a=1&a=2&&bare&=x&e==&f",
        "?plus=a+b&space=a%20b&tilde=~&quote='&semi=a;b",
        "?accounts-server=https%3A%2F%2Faccounts.zoho.eu&location=eu",
        "?p={}|^`&q=[]\\&dots=/../x&at=@:$,!*()",
        "?q=?x=?&slash=//",
        "",
    ]
    .map(str::to_owned)
}

/// Forged client addresses, which are ignored and stop no callback.
const FORGED: [&[u8]; 6] = [
    b"203.0.113.9",
    b"for=203.0.113.9",
    b"for=\"203.0.113.9\", for=\"_hidden",
    b"\"203.0.113.9, for=203.0.113.8\\",
    b"\xff\xc3\xa9, for=\"\x80",
    b",,;=",
];

/// Sends callbacks with and without forged addresses of the client; returns their number.
pub(crate) async fn assert_queries_unchanged<S>(client: &mut Http1<S>) -> usize
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Twice as long as the longest known codes.
    let long = format!("?state=1&code={}", "0.AX4%2D".repeat(1500));
    let mut requests = 0;
    for query in queries().into_iter().chain([long]) {
        for forged in FORGED.iter().map(Some).chain([None]) {
            let target = format!("/oauth/callback{query}");
            let mut request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
            for field in ["Forwarded: ", "X-Forwarded-For: "] {
                let line = forged.map(|forged| [field.as_bytes(), forged, b"\r\n"].concat());
                request.extend(line.unwrap_or_default());
            }
            client.send(&[&*request, b"\r\n"].concat()).await;
            let reply = client.reply().await.expect("a response");
            assert_eq!(reply.status, 308, "{query}");
            assert_eq!(reply.location(), format!("https://api.nango.dev{target}"));
            assert_eq!(reply.text("cache-control"), "no-store");
            requests += 1;
        }
    }
    requests
}

pub(crate) async fn assert_log_names_the_client(edge: &Edge, requests: usize) {
    let clients = || {
        let requests = support::requests(&edge.stderr());
        requests.iter().map(|line| line["client"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until("a log line for each request", async || clients().len() >= requests).await;
    assert!(clients().iter().all(|client| *client == CLIENT.to_string()), "{:?}", clients());
}
