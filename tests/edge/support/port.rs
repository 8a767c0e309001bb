//! Ports of servers: a server that can bind port 0 reports its port ([`listening`]); for any other, a
//! port is reserved before it starts ([`Port`]). The tests and the benchmark share this file.

use socket2::{Domain, Socket, Type};
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;

/// A reserved port of the loopback interface: it is bound and does not listen, so the kernel
/// assigns it to no other socket. A server that sets `SO_REUSEADDR` can listen on it nevertheless.
pub(crate) struct Port {
    address: SocketAddr,
    _reserved: Socket,
}

/// Reserves a port that no other socket has.
pub(crate) fn free() -> Port {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    Port { address, _reserved: socket }
}

impl Port {
    /// Whether this process or one of its children listens on the port (`proc_net(5)`). A test
    /// connection would not show which process accepts it, and the server might log or forward it.
    pub(crate) fn is_listened_on_by(&self, process: u32) -> bool {
        let end = format!(":{:04X}", self.port());
        let tables =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap());
        let sockets: Vec<String> = tables
            .iter()
            .flat_map(|table| table.lines())
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words[1].ends_with(&end) && words[3] == "0A")
            .map(|words| format!("socket:[{}]", words[9]))
            .collect();
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        children.chain([process]).any(|process: u32| holds_one_of(process, &sockets))
    }
}

/// Whether one of these sockets is among the open files of a process.
fn holds_one_of(process: u32, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
        .any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
}

/// The listener that a line of a server's output reports, as an event or as text: its name and its
/// address.
pub(crate) fn listening(line: &str) -> Option<(String, SocketAddr)> {
    if let Ok(event) = serde_json::from_str::<serde_json::Value>(line) {
        let word = |name: &str| event[name].as_str();
        let is_one = word("event") == Some("listening");
        return is_one
            .then(|| Some((word("listener")?.to_owned(), word("address")?.parse().ok()?)))?;
    }
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["listening", name, address] => Some((name.to_owned(), address.parse().ok()?)),
        _ => None,
    }
}

impl Deref for Port {
    type Target = SocketAddr;

    fn deref(&self) -> &SocketAddr {
        &self.address
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[test]
fn a_reserved_port_is_assigned_to_no_other_socket_and_its_listener_is_found() {
    let port = free();
    let others: Vec<_> =
        (0..200).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    assert!(others.iter().all(|other| other.local_addr().unwrap() != *port));
    let own = std::process::id();
    assert!(!port.is_listened_on_by(own));
    let listener = std::net::TcpListener::bind(*port).unwrap();
    assert!(port.is_listened_on_by(own), "the listener is not found");
    assert!(!port.is_listened_on_by(1), "another process is reported as the listener");
    drop(listener);
    assert!(!port.is_listened_on_by(own));
}
