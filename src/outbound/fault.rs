use std::fmt;
use std::io;

/// What went wrong on the way, and how far it had come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The step that failed.
    pub step: Step,
    /// What kind of failure it is.
    pub reason: Reason,
    /// In words. Never holds anything that was sent.
    pub text: String,
}

/// The steps of a request, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Host name to addresses.
    Resolve,
    /// TCP.
    Connect,
    /// TLS.
    Handshake,
    /// From the first byte sent to the end of the response head.
    Head,
    /// The response body.
    Body,
}

/// Why a step failed, as far as callers tell failures apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The name does not exist (NXDOMAIN).
    NoSuchHost,
    /// The name exists and has no address (NODATA).
    NoAddress,
    /// The name server reports that it cannot say (SERVFAIL, REFUSED).
    ResolverFailed,
    /// No name server can be reached from this machine.
    ResolverUnreachable,
    /// This system names no name server.
    ResolverNotConfigured,
    /// The client may not connect to this address.
    NotAllowed,
    /// Nothing listens there.
    Refused,
    /// This machine has no route there, for example no IPv6.
    NoRoute,
    /// The step took too long.
    Timeout,
    /// The peer closed or reset the connection.
    Closed,
    /// The response head is over its limit.
    TooLarge,
    /// The peer does not speak TLS, or none of the versions that are safe.
    NoTls,
    /// The peer speaks none of the HTTP versions that were offered.
    NoProtocol,
    /// The peer broke TLS off for another reason.
    Tls,
    /// The peer's certificate is not trusted.
    Untrusted,
    /// What came back is not HTTP.
    NotHttp,
    /// The request holds bytes that no request line may hold.
    Unsendable,
    /// The caller's own time is used up.
    OutOfTime,
    /// Anything else.
    Other,
}

impl Fault {
    /// A fault in words that hold nothing of what was sent.
    pub fn new(step: Step, reason: Reason, text: impl Into<String>) -> Self {
        Self { step, reason, text: text.into() }
    }

    /// Reads an I/O error, and a TLS error inside it.
    pub(super) fn io(step: Step, error: &io::Error) -> Self {
        let inside = error.get_ref();
        if let Some(tls) = inside.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::tls(step, tls);
        }
        let reason = match error.kind() {
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

    fn tls(step: Step, error: &rustls::Error) -> Self {
        use rustls::{AlertDescription, Error};
        let reason = match error {
            Error::InvalidMessage(_)
            | Error::PeerIncompatible(_)
            | Error::AlertReceived(AlertDescription::ProtocolVersion) => Reason::NoTls,
            Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            | Error::NoApplicationProtocol => Reason::NoProtocol,
            _ => Reason::Tls,
        };
        Self::new(step, reason, error.to_string())
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
            Self::new(step, Reason::TooLarge, "the head of the answer is over the limit")
        } else if error.is_parse() {
            Self::new(step, Reason::NotHttp, "the answer is not HTTP")
        } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            Self::new(step, Reason::Closed, "the connection was closed before an answer came")
        } else {
            // HTTP/2 errors: told by hyper in words that hold nothing of the request.
            Self::new(step, Reason::Other, error.to_string())
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Resolve => "resolve",
            Step::Connect => "connect",
            Step::Handshake => "TLS handshake",
            Step::Head => "response",
            Step::Body => "response body",
        };
        write!(f, "{step}: {}", self.text)
    }
}

impl std::error::Error for Fault {}
