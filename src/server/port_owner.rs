//! Finds the process that listens on a port, for the error that the port is in use.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The state of a listening socket in `proc_net_tcp(5)`.
const LISTENING: &str = "0A";

/// A process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortOwner {
    pid: u32,
    /// The name of its program; it may change its own, so that no control character is shown.
    name: String,
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (process {})", self.name, self.pid)
    }
}

/// The process that conflicts with a listener at this address. `None` where `/proc` does not show it,
/// which is usual for processes of other users.
pub(super) fn find(address: SocketAddr) -> Option<PortOwner> {
    // A listener of the same family conflicts in any case, one of the other only with both families.
    let mut tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    if address.is_ipv6() {
        tables.reverse();
    }
    let sockets = tables.iter().find_map(|table| {
        let table = fs::read_to_string(table).ok()?;
        let found: Vec<_> = table.lines().filter_map(|line| listener(line, address)).collect();
        (!found.is_empty()).then_some(found)
    })?;
    let pids = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| has_one_of(*pid, &sockets).unwrap_or_default()).find_map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let name = name.trim_end().chars().filter(|it| !it.is_control() && *it != '`').collect();
        Some(PortOwner { pid, name })
    })
}

/// The link of the socket that the line describes, if it conflicts with a listener at this address.
fn listener(line: &str, wanted: SocketAddr) -> Option<String> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = parse(fields.next()?)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    let (one, other) = (local.ip().to_canonical(), wanted.ip().to_canonical());
    let conflicts = one == other || one.is_unspecified() || other.is_unspecified();
    (state == LISTENING && local.port() == wanted.port() && conflicts)
        .then(|| format!("socket:[{inode}]"))
}

/// `ADDRESS:PORT` in hexadecimal digits; the address in 32-bit words of this machine's byte order.
fn parse(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if !matches!(address.len(), 8 | 32) {
        return None;
    }
    let mut bytes = Vec::new();
    for word in address.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match *bytes {
        [a, b, c, d] => IpAddr::from([a, b, c, d]),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some(SocketAddr::new(ip, port))
}

fn has_one_of(pid: u32, sockets: &[String]) -> Option<bool> {
    let mut files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(files.any(|file| {
        let link = file.and_then(|file| fs::read_link(file.path()));
        link.is_ok_and(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_process_is_found_by_any_address_that_conflicts() {
        let own = Some(std::process::id());
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = v4.local_addr().unwrap().port();
        for (address, pid) in
            [("127.0.0.1", own), ("0.0.0.0", own), ("[::]", own), ("127.0.0.2", None)]
        {
            let address = format!("{address}:{port}").parse().unwrap();
            assert_eq!(find(address).map(|owner| owner.pid), pid, "{address}");
        }
        let owner = find(v4.local_addr().unwrap()).unwrap().to_string();
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(owner, format!("`{}` (process {})", name.trim_end(), std::process::id()));
        drop(v4);
        assert_eq!(find(SocketAddr::from(([127, 0, 0, 1], port))), None);
        if let Ok(v6) = TcpListener::bind("[::1]:0") {
            assert_eq!(find(v6.local_addr().unwrap()).map(|owner| owner.pid), own);
        }
    }

    #[test]
    fn addresses_have_the_byte_order_of_the_machine() {
        if cfg!(target_endian = "little") {
            for (text, address) in [
                ("0100007F:1F90", "127.0.0.1:8080"),
                ("00000000000000000000000001000000:0050", "[::1]:80"),
                ("0000000000000000FFFF00000100007F:0050", "[::ffff:127.0.0.1]:80"),
            ] {
                assert_eq!(parse(text), address.parse().ok(), "{text}");
            }
        }
        for bad in ["", "0100007F", "0100007F:", "01:0050", "zz00007F:0050", "é100007:0050"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
