use rustix::io::Errno;
use std::fmt;
use std::io;

/// Why a request failed, and at which step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The step that failed.
    pub step: Step,
    /// The kind of failure.
    pub reason: Reason,
    /// The error text. It never contains request data.
    pub text: String,
}

/// The steps of a request, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Host name to addresses.
    Resolve,
    /// The tunnel through a proxy. Its text names the proxy.
    Proxy,
    /// TCP.
    Connect,
    /// TLS.
    Handshake,
    /// From the first byte sent to the end of the response head.
    Head,
    /// The response body.
    Body,
}

/// Why a step failed, as far as callers distinguish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The name does not exist (NXDOMAIN).
    NoSuchHost,
    /// The name exists and has no address (NODATA).
    NoAddress,
    /// The name server responds with an error (SERVFAIL, REFUSED).
    ResolverFailed,
    /// No name server can be reached from this machine.
    ResolverUnreachable,
    /// This system has no name server configured.
    ResolverNotConfigured,
    /// The client is not allowed to connect to this address.
    NotAllowed,
    /// Connection refused: no process listens on the port.
    Refused,
    /// This machine has no route to the address, for example no IPv6.
    NoRoute,
    /// The step took too long.
    Timeout,
    /// The peer closed or reset the connection.
    Closed,
    /// The response head exceeds its size limit.
    TooLarge,
    /// The peer does not support TLS, or only insecure versions.
    NoTls,
    /// The peer sends an HTTP response without TLS.
    PlainHttp,
    /// The newest version that the peer accepts is older than TLS 1.2.
    OldTls,
    /// The peer accepts RSA key exchange, and nothing else.
    RsaKeyExchange,
    /// The peer accepts ECDHE only with cipher suites in CBC mode.
    CbcOnly,
    /// The peer accepts only cipher suites that browsers do not offer.
    OldSuites,
    /// The peer rejects all versions, cipher suites and kinds of certificates that were offered.
    NothingInCommon,
    /// The peer has no certificate for the host.
    UnknownName,
    /// The peer requires a client certificate.
    ClientCertificate,
    /// The peer supports none of the offered HTTP versions.
    NoProtocol,
    /// The TLS handshake failed for another reason.
    Tls,
    /// The peer's certificate is not trusted.
    Untrusted,
    /// The response is not HTTP.
    NotHttp,
    /// The request target contains bytes that are not allowed in a request line.
    Unsendable,
    /// The time limit of the caller is reached.
    OutOfTime,
    /// Anything else.
    Other,
}

impl Fault {
    /// A fault; its text must not contain request data.
    pub fn new(step: Step, reason: Reason, text: impl Into<String>) -> Self {
        Self { step, reason, text: text.into() }
    }

    /// Classifies an I/O error, or the TLS error in it.
    pub(super) fn io(step: Step, error: &io::Error) -> Self {
        let inner = error.get_ref();
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::tls(step, tls);
        }
        let reason = match error.kind() {
            // The kernel has no IPv6 at all (`ipv6.disable=1`).
            _ if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) => Reason::NoRoute,
            io::ErrorKind::ConnectionRefused => Reason::Refused,
            io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::AddrNotAvailable => Reason::NoRoute,
            io::ErrorKind::TimedOut => Reason::Timeout,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Reason::Closed,
            _ => Reason::Other,
        };
        let text = match reason {
            Reason::Refused => "connection refused".to_owned(),
            Reason::NoRoute => "no route to this address".to_owned(),
            Reason::Closed => "the connection was closed".to_owned(),
            _ => error.to_string(),
        };
        Self::new(step, reason, text)
    }

    pub(super) fn client_certificate(step: Step) -> Self {
        Self::new(step, Reason::ClientCertificate, "the server requires a client certificate")
    }

    /// The text of a TLS error comes from here: that of the library is for its authors.
    fn tls(step: Step, error: &rustls::Error) -> Self {
        use rustls::{AlertDescription as Alert, Error, PeerIncompatible};
        let (reason, text) = match error {
            Error::InvalidMessage(_) => {
                (Reason::NoTls, "the server does not respond with TLS".to_owned())
            }
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            )
            | Error::AlertReceived(Alert::ProtocolVersion) => {
                (Reason::NoTls, "the server rejects TLS 1.2 and TLS 1.3".to_owned())
            }
            Error::PeerIncompatible(_)
            | Error::AlertReceived(Alert::HandshakeFailure | Alert::InsufficientSecurity) => (
                Reason::NothingInCommon,
                "no common TLS version, cipher suite or kind of certificate".to_owned(),
            ),
            Error::AlertReceived(Alert::NoApplicationProtocol) | Error::NoApplicationProtocol => {
                (Reason::NoProtocol, "no common HTTP version".to_owned())
            }
            Error::AlertReceived(Alert::UnrecognisedName) => {
                (Reason::UnknownName, "the server has no certificate for this host".to_owned())
            }
            Error::AlertReceived(Alert::CertificateRequired) => {
                return Self::client_certificate(step);
            }
            Error::AlertReceived(Alert::InternalError) => {
                (Reason::Tls, "the server reports an internal error".to_owned())
            }
            Error::AlertReceived(Alert::AccessDenied) => {
                (Reason::Tls, "the server denies access".to_owned())
            }
            Error::AlertReceived(Alert::CloseNotify | Alert::UserCanceled) => {
                (Reason::Closed, "the connection was closed".to_owned())
            }
            Error::AlertReceived(alert) => {
                let number = u8::from(*alert);
                (Reason::Tls, format!("the server rejects the handshake (TLS alert {number})"))
            }
            Error::InvalidCertificate(_) => {
                (Reason::Tls, "the private key does not belong to the certificate".to_owned())
            }
            Error::NoCertificatesPresented => {
                (Reason::Tls, "the server sends no certificate".to_owned())
            }
            _ => (Reason::Tls, "the server violates the TLS protocol".to_owned()),
        };
        Self::new(step, reason, text)
    }

    pub(super) fn http(step: Step, error: &hyper::Error) -> Self {
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                let fault = Self::io(step, io);
                if fault.reason != Reason::Other {
                    return fault;
                }
            }
            source = inner.source();
        }
        if error.is_parse_too_large() {
            Self::new(step, Reason::TooLarge, "the response head exceeds the size limit")
        } else if error.is_parse() {
            Self::new(step, Reason::NotHttp, "the response is not HTTP")
        } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            Self::new(step, Reason::Closed, "the connection was closed before a response")
        } else {
            // HTTP/2 errors; hyper's text contains no request data.
            Self::new(step, Reason::Other, error.to_string())
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Resolve => "resolve",
            Step::Proxy => return f.write_str(&self.text),
            Step::Connect => "connect",
            Step::Handshake => "TLS handshake",
            Step::Head => "response",
            Step::Body => "response body",
        };
        write!(f, "{step}: {}", self.text)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What connect(2) and socket(2) return on machines without IPv6.
    #[test]
    fn a_machine_without_ipv6_has_no_route() {
        for errno in
            [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT]
        {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            assert_eq!(Fault::io(Step::Connect, &error).reason, Reason::NoRoute, "{error}");
        }
    }
}
