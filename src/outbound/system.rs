//! The addresses of a host name as this Linux system is configured to find them.
//!
//! `/etc/hosts` is read and the name servers of `/etc/resolv.conf` are queried, never
//! getaddrinfo(3): release binaries contain a static glibc, which loads the NSS modules that the
//! host's `nsswitch.conf` names into this process and can crash it
//! (<https://github.com/rust-lang/rust/issues/100711>). Both files are read for each lookup and
//! nothing is cached, so that changes to either take effect immediately.

use super::{Fault, Reason, Step};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// hickory ignores the ICMP error of a name server that does not run, and waits for the timeout. With
/// resolv.conf(5)'s 5 s the lookup would outlast the step of a check.
const DEFAULT_OPTIONS: &[u8] = b"options timeout:2 attempts:2\n";

pub(super) async fn lookup(host: &str) -> Result<Vec<IpAddr>, Fault> {
    Box::pin(lookup_with(Path::new("/etc/hosts"), Path::new("/etc/resolv.conf"), host)).await
}

async fn lookup_with(hosts: &Path, resolv_conf: &Path, host: &str) -> Result<Vec<IpAddr>, Fault> {
    // A container may have neither file.
    let hosts = tokio::fs::read(hosts).await.unwrap_or_default();
    let listed = find_in_hosts(&String::from_utf8_lossy(&hosts), host);
    if !listed.is_empty() {
        return Ok(listed);
    }
    // RFC 6761 §6.3: names of this machine are not sent to a name server.
    if is_same_name(host, "localhost") || has_suffix(host, ".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let not_configured = |why: &dyn fmt::Display| {
        let text = format!("cannot use `{}`: {why}", resolv_conf.display());
        Fault::new(Step::Resolve, Reason::ResolverNotConfigured, text)
    };
    let text = tokio::fs::read(resolv_conf).await.map_err(|error| not_configured(&error))?;
    // The file's own options come later and override these.
    let text = [DEFAULT_OPTIONS, &text].concat();
    let (config, mut options) = parse_resolv_conf(text).map_err(|error| match error {
        NetError::Io(error) => not_configured(&error),
        error => not_configured(&error),
    })?;
    // hickory retries so many times, after the first attempt.
    options.attempts = options.attempts.saturating_sub(1);
    query(config, options, host).await
}

/// The addresses that hosts(5) lists for a name. As with `hosts: files dns`, no name server is queried
/// when there are any.
fn find_in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut fields = line.split('#').next()?.split_ascii_whitespace();
        let address = fields.next()?.parse().ok()?;
        fields.any(|name| is_same_name(name, host)).then_some(address)
    });
    addresses.collect()
}

fn is_same_name(one: &str, other: &str) -> bool {
    without_dot(one).eq_ignore_ascii_case(without_dot(other))
}

fn has_suffix(host: &str, suffix: &str) -> bool {
    let host = without_dot(host);
    let at = host.len().checked_sub(suffix.len());
    at.and_then(|at| host.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

async fn query(
    config: ResolverConfig,
    mut options: ResolverOpts,
    host: &str,
) -> Result<Vec<IpAddr>, Fault> {
    let names = names(host, &config.search, options.ndots)?;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .map_err(|error| fault(&error))?;
    let mut failed: Option<Fault> = None;
    for name in names {
        let (v4, v6) = tokio::join!(
            resolver.lookup(name.clone(), RecordType::A),
            resolver.lookup(name, RecordType::AAAA),
        );
        let [v4, v6] = [v4, v6].map(|result| match result {
            Ok(lookup) => {
                // The answer section contains aliases too.
                Ok(lookup.answers().iter().filter_map(|it| it.data.ip_addr()).collect())
            }
            Err(error) => Err(fault(&error)),
        });
        match merge(v4, v6) {
            Ok(addresses) => return Ok(addresses),
            // As in glibc: a name server that does not respond is not queried for the next name.
            Err(fault) if fault.reason == Reason::Timeout => return Err(fault),
            Err(fault) => failed = Some(failed.map_or(fault.clone(), |it| less_certain(it, fault))),
        }
    }
    Err(failed.unwrap_or_else(no_address))
}

/// The names to query, in order. A single label is not a public name: it is queried with the search
/// list of resolv.conf(5) first. A name with dots is queried as it is first, and then with the search
/// list, if `ndots` requires it, as in Kubernetes.
fn names(host: &str, search: &[Name], ndots: usize) -> Result<Vec<Name>, Fault> {
    let bad = |_| Fault::new(Step::Resolve, Reason::NoSuchHost, "the host is not a DNS name");
    let name = Name::from_ascii(without_dot(host)).map_err(bad)?;
    let dots = without_dot(host).matches('.').count();
    // A name that is too long with a suffix does not exist.
    let mut names: Vec<_> = if host.ends_with('.') || dots >= ndots {
        Vec::new()
    } else {
        search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect()
    };
    names.insert(if dots == 0 { names.len() } else { 0 }, name);
    for name in &mut names {
        name.set_fqdn(true);
    }
    Ok(names)
}

/// Both families alternate, IPv4 first: a client that tries a few addresses tries both, and does not
/// wait for a time-out where IPv6 is broken.
fn merge(
    v4: Result<Vec<IpAddr>, Fault>,
    v6: Result<Vec<IpAddr>, Fault>,
) -> Result<Vec<IpAddr>, Fault> {
    match (v4, v6) {
        (Err(v4), Err(v6)) => Err(less_certain(v4, v6)),
        (Ok(found), Err(fault)) | (Err(fault), Ok(found)) if found.is_empty() => Err(fault),
        (v4, v6) => {
            let (v4, v6) = (v4.unwrap_or_default(), v6.unwrap_or_default());
            let mut addresses = Vec::new();
            for index in 0..v4.len().max(v6.len()) {
                addresses.extend(v4.get(index).into_iter().chain(v6.get(index)));
            }
            if addresses.is_empty() { Err(no_address()) } else { Ok(addresses) }
        }
    }
}

/// The less certain fault: when one of two lookups failed, the name may have addresses.
fn less_certain(one: Fault, other: Fault) -> Fault {
    let uncertainty = |fault: &Fault| match fault.reason {
        Reason::NoSuchHost => 0,
        Reason::NoAddress => 1,
        _ => 2,
    };
    if uncertainty(&other) > uncertainty(&one) { other } else { one }
}

fn no_address() -> Fault {
    Fault::new(Step::Resolve, Reason::NoAddress, "the name exists and has no address")
}

fn fault(error: &NetError) -> Fault {
    let failed = |reason, text: &str| Fault::new(Step::Resolve, reason, text);
    match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. })) => {
            match response_code {
                ResponseCode::NXDomain => failed(Reason::NoSuchHost, "no such host"),
                _ => no_address(),
            }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            let text = format!("the name server reports an error: {code}");
            failed(Reason::ResolverFailed, &text)
        }
        NetError::Timeout => failed(Reason::Timeout, "no response from a name server"),
        NetError::Io(error) => {
            failed(Reason::ResolverUnreachable, &format!("no name server is reachable: {error}"))
        }
        NetError::NoConnections => {
            failed(Reason::ResolverUnreachable, "no name server is reachable")
        }
        error => failed(Reason::ResolverFailed, &format!("the lookup failed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
    use hickory_resolver::proto::op::Message;
    use hickory_resolver::proto::rr::rdata::CNAME;
    use hickory_resolver::proto::rr::{RData, Record};
    use std::net::SocketAddr;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UdpSocket};

    /// A name server on loopback, over UDP and TCP. The first label of a name determines the response.
    struct NameServer(SocketAddr);

    impl NameServer {
        async fn start() -> Self {
            // The port of a TCP listener may be in use for UDP.
            let (tcp, udp) = loop {
                let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
                if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                    break (tcp, udp);
                }
            };
            let address = udp.local_addr().unwrap();
            tokio::spawn(async move {
                let mut query = [0; 512];
                while let Ok((length, from)) = udp.recv_from(&mut query).await {
                    if let Some(response) = respond(&query[..length], true) {
                        udp.send_to(&response, from).await.unwrap();
                    }
                }
            });
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = tcp.accept().await {
                    let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
                    stream.read_exact(&mut query).await.unwrap();
                    let response = respond(&query, false).unwrap();
                    stream.write_u16(response.len().try_into().unwrap()).await.unwrap();
                    stream.write_all(&response).await.unwrap();
                }
            });
            Self(address)
        }

        async fn query(&self, host: &str) -> Result<Vec<String>, (Reason, String)> {
            self.query_with(host, &[], 1).await
        }

        async fn query_with(
            &self,
            host: &str,
            search: &[&str],
            ndots: usize,
        ) -> Result<Vec<String>, (Reason, String)> {
            let mut server = NameServerConfig::udp_and_tcp(self.0.ip());
            server.connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut server.connections {
                connection.port = self.0.port();
            }
            let search = search.iter().map(|name| Name::from_ascii(name).unwrap()).collect();
            let config = ResolverConfig::from_parts(None, search, vec![server]);
            let (timeout, attempts) = (Duration::from_millis(300), 1);
            let mut options = ResolverOpts::default();
            (options.ndots, options.timeout, options.attempts) = (ndots, timeout, attempts);
            let found = query(config, options, host).await;
            found
                .map(|all| all.iter().map(ToString::to_string).collect())
                .map_err(|fault| (fault.reason, fault.text))
        }
    }

    fn respond(query: &[u8], udp: bool) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).unwrap();
        let question = query.queries[0].clone();
        let name = question.name().clone();
        let v4 = question.query_type() == RecordType::A;
        let mut response = query.into_response();
        let labels: Vec<_> =
            name.iter().map(|it| String::from_utf8_lossy(it).to_lowercase()).collect();
        let address = |last| {
            let address: IpAddr = if v4 {
                [192, 0, 2, last].into()
            } else {
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()].into()
            };
            RData::from(address)
        };
        let mut add =
            |name: &Name, data| response.answers.push(Record::from_rdata(name.clone(), 60, data));
        let code = match (labels[0].as_str(), v4) {
            ("both" | "short", _) if name.num_labels() == 3 || labels[0] == "both" => {
                for last in [1, 2] {
                    add(&name, address(last));
                }
                ResponseCode::NoError
            }
            ("v4" | "v4-then-servfail", true) => {
                add(&name, address(1));
                ResponseCode::NoError
            }
            ("alias", _) => {
                let target = Name::from_ascii("both.example.").unwrap();
                add(&name, RData::CNAME(CNAME(target.clone())));
                add(&target, address(1));
                ResponseCode::NoError
            }
            ("alias-only", _) => {
                let target = Name::from_ascii("both.example.").unwrap();
                add(&name, RData::CNAME(CNAME(target)));
                ResponseCode::NoError
            }
            ("alias-of-itself", _) => {
                add(&name, RData::CNAME(CNAME(name.clone())));
                ResponseCode::NoError
            }
            ("alias-of-nothing", _) => {
                let target = Name::from_ascii("nothing.example.").unwrap();
                add(&name, RData::CNAME(CNAME(target)));
                ResponseCode::NXDomain
            }
            ("large", _) => {
                if udp {
                    response.metadata.truncation = true;
                } else {
                    for last in 1..=60 {
                        add(&name, address(last));
                    }
                }
                ResponseCode::NoError
            }
            ("v4", false) | ("nodata", _) | ("nodata-then-servfail", true) => ResponseCode::NoError,
            ("refused", _) => ResponseCode::Refused,
            ("servfail", _) | ("nodata-then-servfail" | "v4-then-servfail", false) => {
                ResponseCode::ServFail
            }
            ("silent", _) => return None,
            _ => ResponseCode::NXDomain,
        };
        response.metadata.response_code = code;
        Some(response.to_vec().unwrap())
    }

    #[tokio::test]
    async fn addresses_of_both_families_alternate() {
        let server = NameServer::start().await;
        let both = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"].map(str::to_owned);
        assert_eq!(server.query("both.example").await, Ok(both.to_vec()));
        assert_eq!(server.query("BOTH.example.").await, Ok(both.to_vec()));
        assert_eq!(server.query("v4.example").await, Ok(vec!["192.0.2.1".to_owned()]));
        assert_eq!(
            server.query("v4-then-servfail.example").await,
            Ok(vec!["192.0.2.1".to_owned()])
        );
    }

    #[tokio::test]
    async fn aliases_are_followed_and_loops_end() {
        let server = NameServer::start().await;
        let both = server.query("both.example").await;
        assert_eq!(server.query("alias-only.example").await, both);
        let one = ["192.0.2.1", "2001:db8::1"].map(str::to_owned);
        assert_eq!(server.query("alias.example").await, Ok(one.to_vec()));
        let endless = server.query("alias-of-itself.example").await.unwrap_err();
        assert!(endless.0 != Reason::NoSuchHost, "{endless:?}");
        let dangling = server.query("alias-of-nothing.example").await.unwrap_err();
        assert_eq!(dangling.0, Reason::NoSuchHost);
    }

    #[tokio::test]
    async fn a_truncated_response_is_read_over_tcp() {
        let found = NameServer::start().await.query("large.example").await.unwrap();
        assert_eq!(found.len(), 120);
    }

    #[tokio::test]
    async fn failures_are_distinguished() {
        let server = NameServer::start().await;
        for (host, reason, text) in [
            ("nothing.example", Reason::NoSuchHost, "no such host"),
            ("nodata.example", Reason::NoAddress, "the name exists and has no address"),
            (
                "servfail.example",
                Reason::ResolverFailed,
                "the name server reports an error: Server Failure",
            ),
            (
                "nodata-then-servfail.example",
                Reason::ResolverFailed,
                "the name server reports an error: Server Failure",
            ),
            (
                "refused.example",
                Reason::ResolverFailed,
                "the name server reports an error: Query Refused",
            ),
            ("silent.example", Reason::Timeout, "no response from a name server"),
            ("a..example", Reason::NoSuchHost, "the host is not a DNS name"),
            ("a.invalid", Reason::NoSuchHost, "no such host"),
        ] {
            assert_eq!(server.query(host).await, Err((reason, text.to_owned())), "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_server_that_does_not_run_is_reported() {
        let stopped =
            NameServer(UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
        assert_eq!(stopped.query("both.example").await.unwrap_err().0, Reason::Timeout);
    }

    /// The shortest step of a check has 5 s.
    #[tokio::test(start_paused = true)]
    async fn a_lookup_without_a_response_ends_within_four_seconds_unless_resolv_conf_has_options() {
        let dir = tempfile::tempdir().unwrap();
        let [hosts, resolv_conf] = ["hosts", "resolv.conf"].map(|name| dir.path().join(name));
        // No name server runs at this loopback address.
        let server = "nameserver 127.99.98.97\n";
        for (options, host, seconds) in [
            ("", "a.example", 4),
            ("search one.example two.example\n", "short", 4),
            ("options timeout:1 attempts:3\n", "a.example", 3),
            ("options timeout:7\noptions attempts:1\n", "a.example", 7),
        ] {
            std::fs::write(&resolv_conf, format!("{options}{server}")).unwrap();
            let started = tokio::time::Instant::now();
            let fault = lookup_with(&hosts, &resolv_conf, host).await.unwrap_err();
            assert_eq!(
                (fault.reason, &*fault.text),
                (Reason::Timeout, "no response from a name server"),
                "{options}"
            );
            // The clock is paused: only timeouts move it.
            assert_eq!(started.elapsed().as_secs(), seconds, "{options}");
        }
    }

    #[tokio::test]
    async fn only_short_names_are_looked_up_in_the_search_list() {
        let server = NameServer::start().await;
        let search = ["nothing.example.", "corp.example."];
        assert!(server.query_with("short", &search, 1).await.is_ok());
        assert!(server.query("short").await.is_err());
        // A public name is not searched for within the domain of this machine.
        assert!(server.query_with("both.other", &["x."], 1).await.is_ok());
        let corp = server.query_with("short.other", &["example."], 1).await;
        assert_eq!(corp.unwrap_err().0, Reason::NoSuchHost);
        assert!(server.query_with("short.other", &["example."], 5).await.is_ok());
        assert!(server.query_with("short.other.", &["example."], 5).await.is_err());
    }

    #[test]
    fn the_order_of_names_follows_their_dots() {
        let order = |host, ndots| {
            let search = ["a.example", "b.example"].map(|it| Name::from_ascii(it).unwrap());
            names(host, &search, ndots).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(order("nango", 1), ["nango.a.example.", "nango.b.example.", "nango."]);
        assert_eq!(
            order("nango.prod", 5),
            ["nango.prod.", "nango.prod.a.example.", "nango.prod.b.example."]
        );
        assert_eq!(order("nango.prod", 1), ["nango.prod."]);
        assert_eq!(order("nango.", 5), ["nango."]);
        assert_eq!(order("under_score.example", 1), ["under_score.example."]);
    }

    #[tokio::test]
    async fn the_hosts_file_takes_precedence_and_both_files_may_be_missing_or_change() {
        let dir = tempfile::tempdir().unwrap();
        let [hosts, resolv_conf] = ["hosts", "resolv.conf"].map(|name| dir.path().join(name));
        let lookup = async |host| {
            let found = lookup_with(&hosts, &resolv_conf, host).await;
            found
                .map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map_err(|fault| (fault.reason, fault.text))
        };
        let loopback = || Ok(["127.0.0.1", "::1"].map(str::to_owned).to_vec());
        for name in ["localhost", "LOCALHOST.", "a.b.localhost", "a.localhost."] {
            assert_eq!(lookup(name).await, loopback(), "{name}");
        }
        let path = resolv_conf.display();
        let (reason, text) = lookup("a.example").await.unwrap_err();
        assert_eq!(reason, Reason::ResolverNotConfigured);
        assert_eq!(text, format!("cannot use `{path}`: No such file or directory (os error 2)"));
        std::fs::write(&resolv_conf, "search example\n").unwrap();
        let (reason, text) = lookup("notlocalhost").await.unwrap_err();
        assert_eq!(reason, Reason::ResolverNotConfigured);
        assert_eq!(text, format!("cannot use `{path}`: no nameservers found in config"));

        let text = b"# a.example\n192.0.2.9\tB.example a.example. # c.example\n::1 a.example\n\
            192.0.2.8 localhost\nnonsense a.example\n\xff a.example\n192.0.2.7\n";
        std::fs::write(&hosts, text).unwrap();
        assert_eq!(lookup("A.example").await, Ok(["192.0.2.9", "::1"].map(str::to_owned).to_vec()));
        assert_eq!(lookup("b.example.").await, Ok(vec!["192.0.2.9".to_owned()]));
        assert_eq!(lookup("localhost").await, Ok(vec!["192.0.2.8".to_owned()]));
        assert!(lookup("c.example").await.is_err());
        std::fs::write(&hosts, "").unwrap();
        assert!(lookup("a.example").await.is_err());
    }
}
