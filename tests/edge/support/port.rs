use socket2::{Domain, Socket, Type};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;

/// An address of this machine that nobody else is given while it is held: it is bound, and not
/// listened on. Whoever sets `SO_REUSEADDR`, as servers do, can listen there all the same.
pub(crate) struct Port {
    address: SocketAddr,
    _held: Socket,
}

/// One that nobody has.
pub(crate) fn free() -> Port {
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    held.set_reuse_address(true).unwrap();
    held.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = held.local_addr().unwrap().as_socket().unwrap();
    Port { address, _held: held }
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
