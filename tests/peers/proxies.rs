//! With a proxy in front: the redirect stays exact, and the log still names the client.

use crate::peer::Peer;
use crate::support::{self, Authority, Edge, Http1, handshake, soon, until};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

/// Where the client calls from; the proxies call from 127.0.0.1.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));
/// What proxies add to an answer.
const OF_PROXIES: &[&str] = &["server"];

#[tokio::test]
async fn haproxy_passes_tcp_on_with_either_proxy_header() {
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
        both_ways_stay_exact(&authority, &edge, &haproxy).await;
    }
}

#[tokio::test]
async fn nginx_passes_tcp_on_with_a_proxy_header() {
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
    both_ways_stay_exact(&authority, &edge, &nginx).await;
}

#[tokio::test]
async fn nginx_passes_http_on_and_names_the_client() {
    let edge = edge_behind_a_trusted_proxy();
    let nginx = Peer::nginx(
        &"
        http {
            # The request line comes in by the first; the answer's Location, by the others.
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
    http_stays_exact(&edge, nginx.address("front")).await;
}

#[tokio::test]
async fn haproxy_passes_http_on_and_names_the_client() {
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
    http_stays_exact(&edge, haproxy.address("front")).await;
}

/// Neither proxy removes the field that the edge does not read.
#[tokio::test]
async fn forwarded_names_the_client_where_it_is_the_configured_field() {
    let settings = "listen.trusted_proxies = '127.0.0.1/32'\nlisten.client_address = 'forwarded'";
    let edge = Edge::plain(settings);
    // As the documentation of nginx has it, without the check of the client's own field.
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
    http_stays_exact(&edge, nginx.address("front")).await;
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
    http_stays_exact(&edge, haproxy.address("front")).await;
}

#[tokio::test]
async fn caddy_passes_http_on_and_names_the_client() {
    let edge = edge_behind_a_trusted_proxy();
    let caddy = Peer::caddy(
        &"http://:{port:front} {
            bind 127.0.0.1
            reverse_proxy {edge}
        }
        "
        .replace("{edge}", &edge.http[0].to_string()),
    );
    http_stays_exact(&edge, caddy.address("front")).await;
}

/// One plain and one with TLS: where both are on, the plain one leads to the other.
fn edge_behind_a_proxy_header() -> (Authority, [Edge; 2]) {
    let trusting = "listen.proxy_protocol = '127.0.0.1/32'";
    let (tls, authority) = Edge::over_tls(trusting);
    (authority, [Edge::plain(trusting), tls])
}

fn edge_behind_a_trusted_proxy() -> Edge {
    Edge::plain("listen.trusted_proxies = '127.0.0.1/32'")
}

async fn both_ways_stay_exact(authority: &Authority, edges: &[Edge; 2], proxy: &Peer) {
    let stream = connect_from_afar(proxy.address("plain")).await;
    let plain = queries_stay_exact(&mut Http1::new(stream)).await;
    let stream = connect_from_afar(proxy.address("tls")).await;
    let stream = handshake(authority.client(&[]), stream, "localhost").await.unwrap();
    let tls = queries_stay_exact(&mut Http1::new(stream)).await;
    for (edge, requests) in edges.iter().zip([plain, tls]) {
        every_request_is_the_clients(edge, requests).await;
    }
}

async fn http_stays_exact(edge: &Edge, front: SocketAddr) {
    let stream = connect_from_afar(front).await;
    let requests = queries_stay_exact(&mut Http1::allowing(stream, OF_PROXIES)).await;
    every_request_is_the_clients(edge, requests).await;
}

pub(crate) async fn connect_from_afar(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((CLIENT, 0).into()).unwrap();
    soon(socket.connect(address)).await.unwrap()
}

/// Queries that a rewriting hop would change.
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

/// What a client says of itself, which is not believed, and stops no callback.
const FORGED: [&[u8]; 6] = [
    b"203.0.113.9",
    b"for=203.0.113.9",
    b"for=\"203.0.113.9\", for=\"_hidden",
    b"\"203.0.113.9, for=203.0.113.8\\",
    b"\xff\xc3\xa9, for=\"\x80",
    b",,;=",
];

/// Sends callbacks with and without forged addresses of the client; tells how many.
pub(crate) async fn queries_stay_exact<S>(client: &mut Http1<S>) -> usize
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The size of the largest codes seen in the field, twice over.
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

pub(crate) async fn every_request_is_the_clients(edge: &Edge, requests: usize) {
    let clients = || {
        let requests = support::requests(&edge.stderr());
        requests.iter().map(|line| line["client"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until("a log line for each request", async || clients().len() >= requests).await;
    assert!(clients().iter().all(|client| *client == CLIENT.to_string()), "{:?}", clients());
}
