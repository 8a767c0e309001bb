//! The own test before an order: does what a directory will do, and costs nothing.

use super::challenge::{self, Challenges};
use super::failure::Failure;
use crate::config::Challenge;
use crate::observe::AcmeFailure as Reason;
use crate::outbound::{self, Offer, Outbound, Reason as Fault, Request, Server};
use bytes::Bytes;
use http::header::{HeaderMap, LOCATION};
use http::{Method, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;

/// Where requests for challenges come in (RFC 8555 §8.3).
pub const PATH: &str = "/.well-known/acme-challenge/";

/// Goes to the name as DNS tells it, and looks whether it comes out here.
pub(super) async fn run(
    outbound: &Outbound,
    challenges: &Arc<Challenges>,
    name: &str,
    challenge: Challenge,
) -> Result<(), Failure> {
    let port = match challenge {
        Challenge::TlsAlpn01 => 443,
        Challenge::Http01 => 80,
    };
    let found = outbound.resolve(name, port).await.map_err(|fault| unresolved(name, &fault))?;
    let secret = secret();
    let (mut passed, mut unreachable) = (false, None);
    for address in found.addresses {
        let seen = match challenge {
            Challenge::TlsAlpn01 => handshake(outbound, challenges, name, address, &secret).await,
            Challenge::Http01 => request(outbound, challenges, name, address, &secret).await,
        };
        match seen {
            Ok(()) => passed = true,
            // Directories try the next address as well.
            Err(failure) if failure.reason == Reason::Unreachable => {
                unreachable.get_or_insert(failure);
            }
            Err(failure) => return Err(failure),
        }
    }
    match unreachable {
        Some(failure) if !passed => Err(failure),
        _ => Ok(()),
    }
}

async fn handshake(
    outbound: &Outbound,
    challenges: &Arc<Challenges>,
    name: &str,
    address: SocketAddr,
    secret: &str,
) -> Result<(), Failure> {
    let host = challenge::server_name(name);
    let certificate = challenge::trial(&host, secret)
        .map_err(|error| Failure::new(Reason::Other, format_args!("cannot make a key: {error}")))?;
    let _answer = challenges.answer_handshakes(&host, certificate);
    let to = Server { tls: true, host, port: 443 }.at(address);
    match outbound.connect_without_verification(&to, Offer::AcmeTls).await {
        Ok(connection) => {
            let leaf = connection.peer().and_then(|peer| peer.leaf());
            if leaf.is_some_and(|leaf| leaf.subject.contains(secret)) {
                return Ok(());
            }
            Err(elsewhere(name, address, "shows another certificate"))
        }
        Err(fault) => Err(match fault.reason {
            Fault::Refused | Fault::NoRoute | Fault::Timeout | Fault::Closed | Fault::Other => {
                unreachable(name, address, &fault.text)
            }
            _ => elsewhere(name, address, "refuses the handshake of the challenge"),
        }),
    }
}

async fn request(
    outbound: &Outbound,
    challenges: &Arc<Challenges>,
    name: &str,
    address: SocketAddr,
    secret: &str,
) -> Result<(), Failure> {
    let _answer = challenges.answer_requests(secret, secret);
    let to = Server { tls: false, host: name.to_owned(), port: 80 }.at(address);
    let request = Request {
        method: Method::GET,
        path_and_query: format!("{PATH}{secret}"),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let answer = async {
        outbound.connect_without_verification(&to, Offer::Http1).await?.send(&request).await
    };
    let answer = answer.await.map_err(|fault| match fault.reason {
        Fault::NotHttp | Fault::TooLarge => elsewhere(name, address, "does not answer in HTTP"),
        _ => unreachable(name, address, &fault.text),
    })?;
    let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    match answer.status {
        StatusCode::OK if answer.body == secret.as_bytes() => Ok(()),
        // A directory follows it. To another host, it is hardly meant for us.
        status if status.is_redirection() => match location {
            Some(to) if to.contains(secret) && to.contains(name) => Ok(()),
            _ => Err(elsewhere(name, address, "redirects to somewhere else")),
        },
        status => {
            let says = format!("answers {} to what this process would answer", status.as_u16());
            Err(elsewhere(name, address, &says))
        }
    }
}

fn unresolved(name: &str, fault: &outbound::Fault) -> Failure {
    let what = match fault.reason {
        Fault::NoSuchHost => format!("`{name}` does not exist"),
        Fault::NoAddress => format!("`{name}` has no address"),
        _ => format!("cannot look up `{name}`: {}", fault.text),
    };
    Failure::new(Reason::Dns, what)
}

fn unreachable(name: &str, address: SocketAddr, why: &str) -> Failure {
    let what = format_args!("`{name}` is {address}, and nobody answers there: {why}");
    Failure::new(Reason::Unreachable, what)
}

fn elsewhere(name: &str, address: SocketAddr, what: &str) -> Failure {
    let what = format_args!("`{name}` is {address}, and who answers there {what}");
    Failure::new(Reason::WrongAnswer, what)
}

fn secret() -> String {
    let mut bytes = [0; 16];
    // Without randomness nothing else would work either.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    data_encoding::HEXLOWER.encode(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Step;

    #[test]
    fn a_failed_lookup_is_not_reported_as_a_name_without_address() {
        for (reason, text, expected) in [
            (Fault::NoSuchHost, "no such host", "`a.example` does not exist"),
            (Fault::NoAddress, "the name exists and has no address", "`a.example` has no address"),
            (
                Fault::ResolverFailed,
                "the name server reports an error: Server Failure",
                "cannot look up `a.example`: the name server reports an error: Server Failure",
            ),
            (
                Fault::Timeout,
                "no response from a name server",
                "cannot look up `a.example`: no response from a name server",
            ),
        ] {
            let fault = outbound::Fault::new(Step::Resolve, reason, text);
            let failure = unresolved("a.example", &fault);
            assert_eq!((failure.reason, &*failure.cause), (Reason::Dns, expected));
        }
    }
}
