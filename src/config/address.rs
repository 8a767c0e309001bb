//! Parsers of network values: addresses, networks, hosts, paths and URLs.

use super::leaf::{Invalid, ParseResult, shown};
use super::settings::Origin;
use crate::outbound::Override;
use crate::redirect::{BadPath, BadTarget, Host, Path, Target};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use url::Url;

pub(super) fn socket(text: &str) -> ParseResult<SocketAddr> {
    text.parse().map_err(|_| {
        let bad = Invalid::new(format!("`{}` is not a socket address", shown(text)));
        if let Some((address, port)) = text.rsplit_once(':')
            && is_port(port)
            && address.parse::<Ipv6Addr>().is_ok()
        {
            return bad.hint(format!("put an IPv6 address in brackets: `[{address}]:{port}`"));
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return bad.hint(format!("include a port, for example `{}`", SocketAddr::new(address, 443)));
        }
        if let Some((_, rest)) = text.split_once("://") {
            let rest = rest.trim_end_matches('/');
            return bad.hint(format!("write it without the scheme: `{rest}`"));
        }
        let clean: String = text.split_whitespace().collect();
        if clean.parse::<SocketAddr>().is_ok() {
            return bad.hint(format!("write it without spaces: `{clean}`"));
        }
        match text.rsplit_once(':') {
            Some(("" | "*", port)) if is_port(port) => {
                bad.hint(format!("include an address: `0.0.0.0:{port}` for all interfaces, `127.0.0.1:{port}` for this machine only"))
            }
            Some(("localhost", port)) if is_port(port) => {
                bad.hint(format!("use `127.0.0.1:{port}` or `[::1]:{port}`"))
            }
            Some((name, port)) if is_port(port) && Host::parse(name).is_ok() => {
                bad.hint(format!("use an IP address, for example `0.0.0.0:{port}`; host names are not resolved"))
            }
            Some((address, port)) if is_digits(port) && address.parse::<IpAddr>().is_ok() => {
                bad.hint("a port is a number from 1 to 65535")
            }
            _ if is_port(text) => bad.hint(format!("include an address, for example `0.0.0.0:{text}`")),
            _ => bad.hint("give an IP address and a port, for example `0.0.0.0:443` or `[::]:443`"),
        }
    })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// A network, or a single address.
pub(super) fn network(text: &str) -> ParseResult<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text.parse().map_err(|_| {
        Invalid::new(format!("`{text}` is not a network"))
            .hint("give an address and a prefix length, for example `10.0.0.0/8`")
    })?;
    if network == network.trunc() {
        return Ok(network);
    }
    Err(Invalid::new(format!("`{text}` has bits set after its prefix")).hint(format!(
        "write `{}`, or `{}` for the single address",
        network.trunc(),
        network.addr()
    )))
}

/// A network with addresses that are never public.
pub(super) fn private_network(text: &str) -> ParseResult<IpNet> {
    const PRIVATE: [&str; 9] = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        // Shared address space of carriers and overlay networks (RFC 6598).
        "100.64.0.0/10",
        "169.254.0.0/16",
        "127.0.0.0/8",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    ];
    let given = network(text)?;
    let private = PRIVATE.iter().flat_map(|private| private.parse::<IpNet>());
    if private.into_iter().any(|private| private.contains(&given)) {
        return Ok(given);
    }
    Err(Invalid::new(format!("`{text}` is not a private network")).hint(
        "plain http is for private networks only, such as `10.0.0.0/8`, `172.16.0.0/12`, \
         `192.168.0.0/16`, `100.64.0.0/10` or `fc00::/7`; reach anything else over https",
    ))
}

/// A host without port; international names become their `xn--` form.
pub(super) fn host(text: &str) -> ParseResult<Host> {
    let bad = || Invalid::new(format!("`{text}` is not a host name or IP address"));
    if let Ok(url) = Url::parse(text)
        && let Some(host) = url.host_str().filter(|host| !host.is_empty())
    {
        return Err(bad().hint(format!("give only the host: `{host}`")));
    }
    if text.contains('*') {
        return Err(bad().hint("wildcards are not supported; omit `host` to serve any host"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(bad().hint(format!("put an IPv6 address in brackets: `[{text}]`")));
    }
    if let Some((name, port)) = text.rsplit_once(':')
        && is_port(port)
        && Host::parse(name).is_ok()
    {
        return Err(bad().hint(format!("give the host without a port: `{name}`")));
    }
    let normal = url::Host::parse(text).ok().and_then(|host| Host::parse(&host.to_string()).ok());
    normal.ok_or_else(|| match text.split_once('/') {
        Some((name, _)) if Host::parse(name).is_ok() => {
            bad().hint(format!("give only the host: `{name}`"))
        }
        _ => bad().hint("give a name such as `auth.example.com`, or an IP address"),
    })
}

/// A host name under which the admin listener responds.
pub(super) fn admin_host(text: &str) -> ParseResult<Host> {
    if text.contains('*') {
        return Err(Invalid::new(format!("`{text}` is a wildcard")).hint("list each host"));
    }
    host(text)
}

/// A name or address to obtain a certificate for.
pub(super) fn domain(text: &str) -> ParseResult<Host> {
    if text.contains('*') {
        return Err(Invalid::new(format!("`{text}` is a wildcard")).hint(
            "its certificate needs a DNS challenge, which is not supported: list each host",
        ));
    }
    host(text)
}

/// The directory URL of an ACME server. Requests of the account are signed, but not secret.
pub(super) fn directory(text: &str) -> ParseResult<Box<str>> {
    if has_userinfo(text) {
        return Err(Invalid::userinfo());
    }
    match Url::parse(text) {
        Ok(url) if url.scheme() == "https" && url.has_host() && url.fragment().is_none() => {
            Ok(text.into())
        }
        Ok(url) if url.scheme() == "http" => Err(Invalid::new(format!("`{text}` is not an https URL"))
            .hint("ACME needs https; set `root_ca` to trust a private CA")),
        _ => Err(Invalid::new(format!("`{text}` is not an https URL")).hint(
            "give the directory URL of an ACME server, for example `https://acme-v02.api.letsencrypt.org/directory`",
        )),
    }
}

pub(super) fn path(text: &str) -> ParseResult<Path> {
    Path::parse(text).map_err(|error| {
        let bad = Invalid::new(format!("`{}` {error}", shown(text)));
        if let Ok(url) = Url::parse(text)
            && url.has_host()
        {
            return bad.hint(format!("give only the path: `{}`", url.path()));
        }
        match error {
            // The query of a request is passed on, whatever it is.
            BadPath::NotOnlyAPath => {
                let path = text.split(['?', '#']).next().unwrap_or_default();
                bad.hint(format!("write `{path}`: it matches with every query"))
            }
            BadPath::NoSlash if Path::parse(&format!("/{text}")).is_ok() => {
                bad.hint(format!("write `/{text}`"))
            }
            BadPath::Character if text.trim() != text => {
                bad.hint(format!("write `{}`", text.trim()))
            }
            _ => bad.hint("give the path as in a request line, for example `/oauth/callback`"),
        }
    })
}

pub(super) fn target(text: &str) -> ParseResult<Target> {
    if has_userinfo(text) {
        return Err(Invalid::userinfo());
    }
    Target::parse(text).map_err(|error| {
        // Its query may contain a secret.
        let (base, query) = text.split_once('?').map_or((text, ""), |(base, _)| (base, "?…"));
        let bad = Invalid::new(format!("`{base}{query}` {error}"));
        let bad = Invalid { secret: !query.is_empty(), ..bad };
        match (error, Url::parse(base)) {
            (BadTarget::Fragment, _) => bad.hint("remove `#` and everything after it"),
            (BadTarget::NotAscii, Ok(url)) => {
                bad.hint(format!("write it in ASCII: `{url}{query}`"))
            }
            _ => {
                bad.hint("give a complete URL, for example `https://api.nango.dev/oauth/callback`")
            }
        }
    })
}

/// Scheme, host and port.
pub(super) fn origin(text: &str) -> ParseResult<Origin> {
    if has_userinfo(text) {
        return Err(Invalid::userinfo());
    }
    let (bad, url) = web_url(text, "https://auth.example.com")?;
    let host = url.host_str().and_then(|host| Host::parse(host).ok());
    let Some(host) = host else { return Err(bad.hint("the host is not a valid name")) };
    let origin = Origin { https: url.scheme() == "https", host, port: url.port() };
    if url.path() != "/" || text.contains(['?', '#']) {
        return Err(Invalid::new(format!("`{text}` has more than a scheme, a host and a port"))
            .hint(format!("write `{origin}`; the routes define the paths")));
    }
    Ok(origin)
}

/// An `http` or `https` URL to append paths to; without the trailing slash.
pub(super) fn base(text: &str) -> ParseResult<Target> {
    if has_userinfo(text) {
        return Err(Invalid::userinfo());
    }
    let (bad, _) = web_url(text, "https://api.nango.dev")?;
    if text.contains(['?', '#']) {
        return Err(Invalid::new(format!("`{text}` has a query or a fragment"))
            .hint("paths are appended to this URL; remove `?` or `#` and everything after it"));
    }
    let base = text.trim_end_matches('/');
    Target::parse(&format!("{base}/")).map_err(|error| bad.hint(format!("it {error}")))
}

fn web_url(text: &str, example: &str) -> ParseResult<(Invalid, Url)> {
    let bad = || Invalid::new(format!("`{}` is not an http or https URL", shown(text)));
    // URL parsers tolerate the following; programs that the value is copied to may not.
    let has = |what: &str| Invalid::new(format!("`{}` has {what}", shown(text)));
    if text.contains(|it: char| it.is_whitespace() || it.is_control()) {
        let clean: String = text.split(|it: char| it.is_whitespace() || it.is_control()).collect();
        return Err(has("spaces or control characters").hint(format!("write `{clean}`")));
    }
    let authority = text
        .split_once("://")
        .map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && text.contains("://") => {
            if authority == Some("") || text.contains('\\') {
                let bad = has("the wrong number or kind of slashes");
                return Err(
                    bad.hint(format!("write two slashes before the host, as in `{example}`"))
                );
            }
            if authority.is_some_and(|authority| authority.contains('%')) {
                let host = url.host_str().unwrap_or_default();
                let bad = has("percent signs in its host");
                return Err(bad.hint(format!("write the host without percent-encoding: `{host}`")));
            }
            if url.port() == Some(0) {
                let bad = has("port 0, which no client can connect to");
                return Err(bad.hint("remove the port, or use another"));
            }
            Ok((bad(), url))
        }
        _ if text.contains('.') && Host::parse(text).is_ok() => {
            Err(bad().hint(format!("write `https://{text}`")))
        }
        _ => Err(bad().hint(format!("give a scheme and a host, for example `{example}`"))),
    }
}

/// Checks the text, since a URL that a parser rejects may still contain a password. Parsers skip
/// extra slashes, and treat `\` as one (<https://url.spec.whatwg.org/#special-authority-ignore-slashes-state>).
fn has_userinfo(text: &str) -> bool {
    let rest = text.split_once(':').map_or("", |(_, rest)| rest.trim_start_matches(['/', '\\']));
    rest.split(['/', '\\', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// `HOST:PORT:ADDRESS:PORT`
pub(super) fn connect_to(text: &str) -> ParseResult<Override> {
    let found = text.parse::<Override>().ok();
    let found =
        found.and_then(|it| Some(Override { host: host(&it.host).ok()?.to_string(), ..it }));
    found.ok_or_else(|| {
        Invalid::new(format!("`{text}` is not of the form `HOST:PORT:ADDRESS:PORT`"))
            .hint("for example `auth.example.com:443:127.0.0.1:8443`; the address is an IP address")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_normalized() {
        #[rustfmt::skip]
        let table = [
            ("Auth.Example.COM.", "auth.example.com"), ("bücher.example", "xn--bcher-kva.example"),
            ("127.1", "127.0.0.1"), ("[0:0::1]", "[::1]"),
        ];
        for (text, expected) in table {
            assert_eq!(host(text).unwrap().as_str(), expected);
        }
        for bad in ["a b", "a/b", "https://a", "a:80", "::1", "*.a", "a..b", "user@a"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_and_base_urls_are_normalized() {
        let written = |text| origin(text).unwrap().to_string();
        assert_eq!(written("https://Auth.example.com:443/"), "https://auth.example.com");
        assert_eq!(written("http://[::1]:8080"), "http://[::1]:8080");
        assert_eq!(base("https://a/n//").unwrap().as_str(), "https://a/n/");
        #[rustfmt::skip]
        let bad = [
            "https:a", "ftp://a", "https://", "https://a/x", "https://a?", "https://a#", " https://a",
            "https://a ", "https:///a", "https://a\\", "https://%61.example", "https://a:0", "https://a\nb",
        ];
        for bad in bad {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_never_repeated() {
        #[rustfmt::skip]
        let urls = [
            "https://u:hunter2@a/cb", "https://u:hunter2@/", "http://:hunter2@a?x#y",
            "https:///u:hunter2@a", "https:u:hunter2@a", "https:\\\\u:hunter2@a/", " https://u:hunter2@a",
        ];
        for url in urls {
            for bad in [target(url).unwrap_err(), origin(url).unwrap_err(), base(url).unwrap_err()]
            {
                assert!(bad.secret && !format!("{bad:?}").contains("hunter2"), "{bad:?}");
            }
        }
    }

    #[test]
    fn networks_are_networks_or_addresses() {
        assert_eq!(network("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(network("fd00::/8").unwrap().to_string(), "fd00::/8");
        assert!(private_network("10.9.0.0/16").is_ok() && private_network("fd00::/8").is_ok());
        for public in ["8.8.8.8", "0.0.0.0/0", "10.0.0.0/7", "::/0", "2001:db8::/32"] {
            assert!(private_network(public).is_err(), "{public}");
        }
    }

    #[test]
    fn connect_to_overrides_have_a_host_and_an_address() {
        let entry = connect_to("[::1]:443:[::2]:8443").unwrap();
        assert_eq!((entry.host.as_str(), entry.port), ("[::1]", 443));
        assert_eq!(entry.address, "[::2]:8443".parse().unwrap());
        for bad in ["", "a:1", "a:1:b:2", "a:1:127.0.0.1", "[::1:1:127.0.0.1:2", "a:x:127.0.0.1:2"]
        {
            assert!(connect_to(bad).is_err(), "{bad}");
        }
    }
}
