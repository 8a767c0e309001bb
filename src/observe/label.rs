//! Everything that metrics and events tell apart, as closed sets of words.

/// A label with a closed set of values, so that no client can grow a metric.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// The position in [`Label::ALL`].
    fn index(self) -> usize;
    /// The value as exported.
    fn value(self) -> &'static str;
}

/// Declares an enum that is a [`Label`]: `variant => "value"`.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident, $label:literal { $($(#[$doc:meta])* $variant:ident => $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn index(self) -> usize {
                self as usize
            }
            fn value(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }
        }
    };
}

label! {
    /// The status codes that the service answers with.
    Status, "status" {
        /// 200.
        Ok => "200",
        /// 204.
        NoContent => "204",
        /// 303.
        SeeOther => "303",
        /// 308.
        PermanentRedirect => "308",
        /// 400.
        BadRequest => "400",
        /// 401.
        Unauthorized => "401",
        /// 404.
        NotFound => "404",
        /// 405.
        MethodNotAllowed => "405",
        /// 408.
        RequestTimeout => "408",
        /// 413.
        ContentTooLarge => "413",
        /// 414.
        UriTooLong => "414",
        /// 421.
        MisdirectedRequest => "421",
        /// 431.
        HeaderFieldsTooLarge => "431",
        /// 503.
        ServiceUnavailable => "503",
        /// Any other.
        Other => "other",
    }
}

impl From<http::StatusCode> for Status {
    fn from(status: http::StatusCode) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|known| known.value() == status.as_str())
            .unwrap_or(Self::Other)
    }
}

label! {
    /// What a connection is doing.
    ConnectionState, "state" {
        /// PROXY header or TLS handshake.
        Handshake => "handshake",
        /// A request is arriving or being answered.
        Active => "active",
        /// Waiting for a request.
        Idle => "idle",
    }
}

label! {
    /// What a listener speaks.
    ListenerKind, "listener" {
        /// Plain HTTP.
        Http => "http",
        /// HTTP over TLS.
        Https => "https",
        /// The admin listener.
        Admin => "admin",
    }
}

label! {
    /// Why a TLS handshake failed.
    HandshakeFailure, "reason" {
        /// The client closed or reset the connection.
        Closed => "closed",
        /// What came was not TLS.
        NotTls => "not_tls",
        /// No protocol version, cipher suite, group or signature in common.
        NothingInCommon => "nothing_in_common",
        /// No application protocol in common (RFC 7301 §3.2).
        NoProtocol => "no_protocol",
        /// There is no certificate to show.
        NoCertificate => "no_certificate",
        /// The client sent an alert: mostly it does not trust the certificate.
        Alert => "alert",
        /// Anything else.
        Other => "other",
    }
}

label! {
    /// Why a connection ended in an error after its handshake.
    ConnectionError, "reason" {
        /// Request line and header fields over `limits.header_bytes`.
        HeadTooLarge => "head_too_large",
        /// What came was not HTTP.
        Malformed => "malformed",
        /// It ended within a request.
        Incomplete => "incomplete",
        /// More of what costs little to send than any browser sends (HTTP/2).
        Flood => "flood",
        /// Another breach of HTTP/2.
        Protocol => "protocol",
        /// It was reset, or ended without the farewell of its protocol.
        Io => "io",
    }
}

label! {
    /// Which deadline ended a connection.
    Deadline, "stage" {
        /// The PROXY header did not arrive.
        ProxyHeader => "proxy_header",
        /// The TLS handshake did not end.
        Handshake => "handshake",
        /// No first request arrived.
        FirstRequest => "first_request",
        /// A later request began and did not arrive whole.
        Request => "request",
        /// A form body did not arrive whole.
        Body => "body",
        /// The client did not take its answer.
        Response => "response",
        /// No further request.
        Idle => "idle",
        /// The connection was old.
        Age => "age",
    }
}

label! {
    /// Which limit was reached.
    Limit, "limit" {
        /// `limits.connections`.
        Connections => "connections",
        /// `limits.connections_per_address`.
        ConnectionsPerAddress => "connections_per_address",
        /// `limits.header_bytes`, or the number of header fields.
        HeaderBytes => "header_bytes",
        /// `limits.query_bytes`.
        QueryBytes => "query_bytes",
        /// `limits.form_bytes`.
        FormBytes => "form_bytes",
        /// Forms and self-checks that one connection awaits at the same time.
        PendingRequests => "pending_requests",
        /// The process may open no more files.
        OpenFiles => "open_files",
    }
}

label! {
    /// Why a connection was turned away.
    Refusal, "reason" {
        /// Its address has as many as it may.
        Address => "address",
        /// A trusted network sent no valid PROXY header.
        ProxyHeader => "proxy_header",
    }
}

label! {
    /// What was done on the way to a certificate by ACME.
    AcmeStep, "step" {
        /// The own test of the challenge's way passed.
        Trial => "trial",
        /// An account was made.
        Account => "account",
        /// An order was made.
        Order => "order",
        /// An order from before was gone on with.
        Resumed => "resumed",
        /// The directory was asked to look at the challenge.
        Challenge => "challenge",
        /// The directory found the name to lead here, and was sent the key.
        Finalize => "finalize",
        /// The certificate came, and is in use.
        Certificate => "certificate",
        /// The directory told when to renew.
        RenewalInfo => "renewal_info",
    }
}

label! {
    /// Why a certificate could not be had by ACME.
    AcmeFailure, "reason" {
        /// The directory limits orders.
        RateLimited => "rate_limited",
        /// The name has no address, or its DNS does not answer.
        Dns => "dns",
        /// Nobody answers at the name's address.
        Unreachable => "unreachable",
        /// Somebody else answers there.
        WrongAnswer => "wrong_answer",
        /// The directory is down, or not well.
        Directory => "directory_down",
        /// The directory keeps refusing nonces.
        BadNonce => "bad_nonce",
        /// The directory does not accept the account.
        Account => "account",
        /// CAA forbids the directory's authority.
        Caa => "caa",
        /// The directory does not offer the profile.
        Profile => "profile",
        /// The directory does not certify such a name.
        Refused => "refused",
        /// The state folder cannot be used.
        State => "state_dir",
        /// Anything else.
        Other => "other",
    }
}

label! {
    /// How a reload of the settings ended.
    ReloadResult, "result" {
        /// The new settings are in force.
        Success => "success",
        /// The old settings stay.
        Failure => "failure",
    }
}
