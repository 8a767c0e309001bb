//! The trial before an order: does the validation itself, so that a misconfiguration costs no failed
//! validation at the CA.

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

/// The path prefix of HTTP-01 challenges (RFC 8555 §8.3).
pub const PATH: &str = "/.well-known/acme-challenge/";

/// Resolves the domain, connects to each address, and verifies that this process responds.
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
    let server = Server { tls: port == 443, host: name.to_owned(), port };
    let resolved = outbound.resolve(&server).await.map_err(|fault| unresolved(name, &fault))?;
    let secret = secret();
    let (mut passed, mut unreachable) = (false, None);
    for address in resolved.addresses {
        let result = match challenge {
            Challenge::TlsAlpn01 => handshake(outbound, challenges, name, address, &secret).await,
            Challenge::Http01 => request(outbound, challenges, name, address, &secret).await,
        };
        match result {
            Ok(()) => passed = true,
            // CAs try the next address too.
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
    let certificate = challenge::trial(&host, secret).map_err(|error| {
        Failure::new(Reason::Other, format_args!("cannot generate a key: {error}"))
    })?;
    let _guard = challenges.serve_certificate(&host, certificate);
    let to = Server { tls: true, host, port: 443 }.at(address);
    match outbound.connect_without_verification(&to, Offer::AcmeTls).await {
        Ok(connection) => {
            let leaf = connection.peer().and_then(|peer| peer.leaf());
            if leaf.is_some_and(|leaf| leaf.subject.contains(secret)) {
                return Ok(());
            }
            Err(elsewhere(name, address, "does not present the test certificate"))
        }
        Err(fault) => Err(match fault.reason {
            Fault::Refused | Fault::NoRoute | Fault::Timeout | Fault::Closed | Fault::Other => {
                unreachable(name, address, &fault.text)
            }
            _ => elsewhere(name, address, "rejects the `acme-tls/1` handshake"),
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
    let _guard = challenges.serve_body(secret, secret);
    let to = Server { tls: false, host: name.to_owned(), port: 80 }.at(address);
    let request = Request {
        method: Method::GET,
        path_and_query: format!("{PATH}{secret}"),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let response = async {
        outbound.connect_without_verification(&to, Offer::Http1).await?.send(&request).await
    };
    let response = response.await.map_err(|fault| match fault.reason {
        Fault::NotHttp | Fault::TooLarge => elsewhere(name, address, "does not respond with HTTP"),
        _ => unreachable(name, address, &fault.text),
    })?;
    let location = response.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    match response.status {
        StatusCode::OK if response.body == secret.as_bytes() => Ok(()),
        // CAs follow redirects. One to another host does not lead to this process.
        status if status.is_redirection() => match location {
            Some(to) if to.contains(secret) && to.contains(name) => Ok(()),
            _ => Err(elsewhere(name, address, "redirects to another location")),
        },
        status => {
            let what = format!("responds {} to the test request", status.as_u16());
            Err(elsewhere(name, address, &what))
        }
    }
}

fn unresolved(name: &str, fault: &outbound::Fault) -> Failure {
    let cause = match fault.reason {
        Fault::NoSuchHost => format!("`{name}` does not exist"),
        Fault::NoAddress => format!("`{name}` has no address"),
        _ => format!("cannot look up `{name}`: {}", fault.text),
    };
    Failure::new(Reason::Dns, cause)
}

fn unreachable(name: &str, address: SocketAddr, why: &str) -> Failure {
    let cause = format_args!("test before the order: no response from {address} (`{name}`): {why}");
    Failure::new(Reason::Unreachable, cause)
}

fn elsewhere(name: &str, address: SocketAddr, what: &str) -> Failure {
    let cause = format_args!("test before the order: the server at {address} (`{name}`) {what}");
    Failure::new(Reason::WrongAnswer, cause)
}

fn secret() -> String {
    let mut bytes = [0; 16];
    // Without randomness, TLS does not work either.
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
