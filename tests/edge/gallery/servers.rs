//! Wrong URLs, certificates, addresses and targets.

use super::{BOTH, Case, World, to};
use crate::fakes::{
    Act, Authority, CertificateSpec, Chain, HOST, Received, Reply, behaviour, correct, nango,
    plain, plain_at, tls, tls_at,
};
use callback_edge::redirect::Target;
use std::net::SocketAddr;
use std::time::Duration;

/// Wrong URLs.
pub(super) async fn urls(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    let written: [(&'static str, String, &'static [&'static str]); 12] = [
        ("a newline", format!("https://{HOST}/oauth/callback\n"), &["url.characters=U+000A"]),
        (
            "a zero-width space",
            format!("https://{HOST}/oauth\u{200b}/callback"),
            &["url.characters"],
        ),
        ("upper case", "https://Auth.Example.test/oauth/callback".to_owned(), &["!url.case"]),
        ("the default port", format!("https://{HOST}:443/oauth/callback"), &["!url.port"]),
        ("a fragment", format!("https://{HOST}/oauth/callback#s3cret"), &["url.fragment"]),
        ("a query", format!("https://{HOST}/oauth/callback?code=s3cret"), &["url.query"]),
        ("a password", format!("https://me:s3cret@{HOST}/oauth/callback"), &["url.userinfo"]),
        ("not a URL", format!("{HOST}/oauth/callback"), &["url.syntax"]),
        (
            "a space in the host",
            format!("https://{} {}/oauth/callback", &HOST[..1], &HOST[1..]),
            &["url.characters", "url.syntax=the host contains a space"],
        ),
        ("spaces around", format!(" https://{HOST}/oauth/callback\u{200b}"), &["url.characters"]),
        (
            "a port out of range",
            format!("https://{HOST}:99999/oauth/callback"),
            &["url.syntax=port 99999"],
        ),
        ("port 0", format!("https://{HOST}:0/oauth/callback"), &["url.syntax=port 0"]),
    ];
    for (name, url, expected) in written {
        let mut case = world.case(name, expected, |_, correct| Act::Reply(correct)).await;
        case.url = url;
        cases.push(case);
    }
    let any_path = |world: &World| {
        let origin = world.origin.clone();
        behaviour(move |heard| {
            let path = "/oauth/callback".to_owned();
            Act::Reply(correct(&origin, &Received { path, ..heard.clone() }))
        })
    };
    let server = tls(world.config(BOTH), any_path(world)).await;
    let mut slash = world.at("a trailing slash", &["!url.path", "!url.slash"], server);
    slash.url.push('/');
    cases.push(slash);
    let mut path = world.at("another path", &["!url.path"], server);
    path.url = format!("https://{HOST}/integrations/done");
    cases.push(path);
    let mut insecure = world.at("plain http", &["url.https"], server);
    insecure.url = format!("http://{HOST}/oauth/callback");
    insecure.overrides =
        vec![to(HOST, 80, plain(behaviour(world.changed(|_, correct| Act::Reply(correct)))).await)];
    cases.push(insecure);
    let local = plain(behaviour(world.changed(|_, correct| Act::Reply(correct)))).await;
    let mut development = world.at("plain http on this machine", &["!url.https"], local);
    development.url = format!("http://{local}/oauth/callback");
    development.overrides.clear();
    cases.push(development);
    let foreign = "xn--uth-tna.example.test";
    let spec = CertificateSpec { names: vec![foreign.to_owned()], ..CertificateSpec::default() };
    let config = world.authority.issue(spec).config(BOTH);
    let server = tls(config, behaviour(world.changed(|_, correct| Act::Reply(correct)))).await;
    let mut lookalike = world.at("a confusable host", &["!url.lookalike"], server);
    lookalike.url = format!("https://{foreign}/oauth/callback");
    lookalike.overrides = vec![to(foreign, 443, server)];
    cases.push(lookalike);
    let mut own = world.at("the target is the callback", &["url.target"], server);
    own.target = Target::parse(&own.url).unwrap();
    cases.push(own);
    cases
}

pub(super) async fn certificates(world: &World) -> Vec<Case> {
    let days = |days: u64| Duration::from_hours(24 * days);
    let root = &world.authority;
    let names: Vec<_> = (0..1000).map(|number| format!("n{number}.example.test")).collect();
    let chains: Vec<(&'static str, &'static [&'static str], Chain)> = vec![
        (
            "expired",
            &["tls.expiry=has expired"],
            root.issue(CertificateSpec { left: Err(days(1)), ..CertificateSpec::default() }),
        ),
        (
            "not valid yet",
            &["tls.expiry=not valid yet"],
            root.issue(CertificateSpec { from_tomorrow: true, ..CertificateSpec::default() }),
        ),
        (
            "expires soon",
            &["!tls.expiry"],
            root.issue(CertificateSpec { left: Ok(days(3)), ..CertificateSpec::default() }),
        ),
        (
            "short-lived, with less than a third left",
            &["!tls.expiry"],
            root.issue(CertificateSpec {
                age: days(5),
                left: Ok(days(1)),
                ..CertificateSpec::default()
            }),
        ),
        (
            "another name",
            &["tls.name=other.example.test"],
            root.issue(CertificateSpec {
                names: vec!["other.example.test".to_owned()],
                ..CertificateSpec::default()
            }),
        ),
        ("self-signed", &["tls.chain=self-signed"], Chain::self_signed()),
        (
            "unknown CA",
            &["tls.chain=CN=unknown is neither sent nor given"],
            Authority::new("unknown").issue(CertificateSpec::default()),
        ),
        (
            "incomplete chain",
            &["tls.chain=an intermediate certificate is missing"],
            root.issue_below_intermediate(CertificateSpec {
                issuer_is_published: true,
                ..CertificateSpec::default()
            }),
        ),
        (
            "expired, with another name and CA",
            &["tls.chain", "tls.expiry", "tls.name"],
            Authority::new("unknown").issue(CertificateSpec {
                names: vec!["other.example.test".to_owned()],
                left: Err(days(1)),
                ..CertificateSpec::default()
            }),
        ),
        (
            "a certificate with 1000 names",
            &["tls.name"],
            root.issue(CertificateSpec { names, ..CertificateSpec::default() }),
        ),
    ];
    let mut cases = Vec::new();
    for (name, expected, chain) in chains {
        let behaviour = behaviour(world.changed(|_, correct| Act::Reply(correct)));
        cases.push(world.at(name, expected, tls(chain.config(BOTH), behaviour).await));
    }
    let short = CertificateSpec { age: days(1), left: Ok(days(5)), ..CertificateSpec::default() };
    let behaviour = behaviour(world.changed(|_, correct| Act::Reply(correct)));
    let fresh = tls(root.issue(short).config(BOTH), behaviour).await;
    cases.push(world.at("short-lived, but fresh", &[], fresh));
    cases
}

pub(super) async fn addresses(world: &World) -> Vec<Case> {
    let correct = || behaviour(world.changed(|_, correct| Act::Reply(correct)));
    let mut cases = Vec::new();
    let dead = dead();
    cases.push(world.at("nothing listens", &["dns.reach"], dead));
    let mut half = world.at("one address is dead", &["dns.reach=1 of 2"], dead);
    let good = tls(world.config(BOTH), correct()).await;
    half.overrides.push(to(HOST, 443, good));
    cases.push(half);
    let mut old = world.at("one address is an outdated server", &["dns.alike=404"], good);
    let forgotten = behaviour(|_| Act::Reply(Reply::page(404, "default backend")));
    let forgotten = tls_at(another_family(), world.config(BOTH), forgotten).await;
    old.overrides.push(to(HOST, 443, forgotten));
    cases.push(old);
    let mut expired = world.at(
        "one address has an old certificate",
        &["dns.alike=certificate is not valid"],
        good,
    );
    let spec =
        CertificateSpec { left: Err(Duration::from_hours(24)), ..CertificateSpec::default() };
    let config = world.authority.issue(spec).config(BOTH);
    expired.overrides.push(to(HOST, 443, tls(config, correct()).await));
    cases.push(expired);
    let mut bare = world.at("one address without TLS", &["dns.alike"], good);
    // The server waits for the end of a request that never comes.
    bare.timeout = Duration::from_secs(3);
    bare.overrides.push(to(HOST, 443, plain_at(another_family(), correct()).await));
    cases.push(bare);
    // RFC 6761 §6.4: does not exist. Without a resolver, the check is unknown instead.
    let nowhere = "auth.invalid";
    let error = tokio::net::lookup_host((nowhere, 443)).await.err().unwrap().to_string();
    let is_down = error.contains("Temporary failure");
    let expected: &[_] = if is_down { &["?dns.resolves"] } else { &["dns.resolves"] };
    let mut unknown = world.at("no such host", expected, good);
    unknown.url = format!("https://{nowhere}/oauth/callback");
    unknown.overrides.clear();
    cases.push(unknown);
    // RFC 1122 §3.2.1.3: not an address of a host, but it leads to this machine here.
    let this = "0.0.0.0";
    let spec = CertificateSpec { names: vec![this.to_owned()], ..CertificateSpec::default() };
    let here = tls(world.authority.issue(spec).config(BOTH), correct()).await;
    let mut odd = world.at("a reserved address", &["!dns.public=reserved"], here);
    odd.url = format!("https://{this}:{}/oauth/callback", here.port());
    odd.overrides.clear();
    cases.push(odd);
    cases
}

/// IPv6, if the machine has it.
fn another_family() -> SocketAddr {
    let v6: SocketAddr = "[::1]:0".parse().unwrap();
    let has_v6 = std::net::TcpListener::bind(v6).is_ok();
    if has_v6 { v6 } else { "127.0.0.1:0".parse().unwrap() }
}

/// An address where nothing listens.
fn dead() -> SocketAddr {
    // Bound and not listening, as long as the process runs, so that no other process can use it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// Wrong targets.
pub(super) async fn nangos(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    let stripped = |heard: &Received, keep: fn(&str) -> Option<&str>| {
        let mut heard = heard.clone();
        for (_, value) in heard.headers.iter_mut().filter(|(name, _)| name == "referer") {
            *value = keep(value).unwrap_or("https://github.com").to_owned();
        }
        nango(&heard)
    };
    let targets: [(&'static str, &'static [&'static str], SocketAddr); 7] = [
        (
            "the target is not Nango",
            &["nango.callback", "nango.echo"],
            plain(behaviour(|_| Act::Reply(Reply::page(404, "Cannot GET")))).await,
        ),
        (
            "a proxy before Nango drops the query",
            &["nango.echo"],
            plain(behaviour(|heard| nango(&Received { query: None, ..heard.clone() }))).await,
        ),
        (
            "a proxy before Nango drops the Referer",
            &["!nango.end_to_end=removes it"],
            plain(behaviour(move |heard| stripped(heard, |_| None))).await,
        ),
        (
            "a proxy before Nango cuts the path of the Referer",
            &["!nango.end_to_end=removes it"],
            plain(behaviour(move |heard| {
                stripped(heard, |it| it.rfind('/').map(|slash| &it[..=slash]))
            }))
            .await,
        ),
        (
            "a Nango that does not redirect to the Referer",
            &[],
            plain(behaviour(|heard| match heard.query.as_deref() {
                Some(query) if query.contains("setup_action") => {
                    nango(&Received { query: None, ..heard.clone() })
                }
                _ => nango(heard),
            }))
            .await,
        ),
        ("Nango cannot be reached", &["?nango.callback", "?nango.echo"], dead()),
        (
            "Nango limits the rate",
            &["?nango.callback", "?nango.echo"],
            plain(behaviour(|_| Act::Reply(Reply::new(429)))).await,
        ),
    ];
    for (name, expected, nango) in targets {
        let origin = format!("http://{nango}");
        let target = Target::parse(&format!("{origin}/oauth/callback")).unwrap();
        let server = behaviour(move |heard| Act::Reply(correct(&origin, heard)));
        let mut case = world.at(name, expected, tls(world.config(BOTH), server).await);
        case.target = target;
        cases.push(case);
    }
    cases
}

/// What `nango.end_to_end` alone shows.
pub(super) async fn proofs(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    // Without `nango.callback` and `nango.echo`, the proof alone shows what the target is.
    let alone: [(&'static str, &'static [&'static str], &str, SocketAddr); 4] = [
        (
            "the target of a proof is not Nango",
            &["nango.end_to_end=responds with 404"],
            "oauth/callback",
            plain(behaviour(|_| Act::Reply(Reply::page(404, "Cannot GET")))).await,
        ),
        (
            "the target of a proof is not Nango's Setup URL",
            &["?nango.end_to_end"],
            "app-auth/connect",
            plain(behaviour(|_| Act::Reply(Reply::page(404, "Cannot GET")))).await,
        ),
        (
            "the target of a proof cannot be reached",
            &["?nango.end_to_end"],
            "oauth/callback",
            dead(),
        ),
        (
            "the target of a proof redirects elsewhere",
            &["?nango.end_to_end"],
            "oauth/callback",
            plain(behaviour(|heard| {
                Act::Reply(
                    Reply::new(301).with("location", format!("https://{HOST}{}", heard.path)),
                )
            }))
            .await,
        ),
    ];
    for (name, expected, path, nango) in alone {
        let origin = format!("http://{nango}");
        let target = Target::parse(&format!("{origin}/{path}")).unwrap();
        let server = behaviour(move |heard| Act::Reply(correct(&origin, heard)));
        let mut case = world.at(name, expected, tls(world.config(BOTH), server).await);
        case.url = format!("https://{HOST}/{path}");
        case.target = target;
        case.selection.only = vec!["nango.end_to_end".to_owned()];
        cases.push(case);
    }
    let without_state = |heard: &Received, correct: Reply| {
        let query = heard.query.as_deref().unwrap_or("code");
        let is_refused = query.contains("installation_id=0");
        Act::Reply(if is_refused { Reply::new(400) } else { correct })
    };
    cases.push(
        world
            .case("a callback that requires a state", &["!nango.end_to_end=is 400"], without_state)
            .await,
    );
    cases
}
