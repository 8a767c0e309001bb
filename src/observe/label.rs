//! The label values of metrics and events, as enums.
//!
//! These enums describe connections, TLS and ACME, but are here and not in the modules that use them,
//! because a label value is part of a metric like its name and help: alerts and dashboards contain it,
//! the documentation lists it, and a change breaks them. [`super::Metrics`] defines all metrics in one
//! table. With the enums in their modules, the table would import from higher layers, or each module
//! would have a table of its own, or label values would be untyped strings. The enums have no behaviour;
//! the modules that count decide on the values.

/// A label whose values are an enum, so that clients cannot increase the number of series.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// The index in [`Label::ALL`].
    fn index(self) -> usize;
    /// The exported value.
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
    /// The status codes of responses.
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
    /// Requests that are not those of clients.
    InternalRequest, "kind" {
        /// A recognised request of the self-check.
        Probe => "probe",
        /// `/healthz` and `/readyz`.
        Health => "health",
        /// The admin listener and the self-check endpoint.
        Admin => "admin",
    }
}

label! {
    /// The state of a connection.
    ConnectionState, "state" {
        /// PROXY header or TLS handshake.
        Handshake => "handshake",
        /// A request is received or processed.
        Active => "active",
        /// Waiting for a request.
        Idle => "idle",
    }
}

label! {
    /// The protocol of a listener.
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
        /// The data is not TLS.
        NotTls => "not_tls",
        /// No protocol version, cipher suite, group or signature in common.
        NothingInCommon => "nothing_in_common",
        /// No application protocol in common (RFC 7301 §3.2).
        NoProtocol => "no_protocol",
        /// There is no certificate.
        NoCertificate => "no_certificate",
        /// The client sent an alert, usually because it does not trust the certificate.
        Alert => "alert",
        /// Anything else.
        Other => "other",
    }
}

label! {
    /// Why a connection ended with an error after the handshake.
    ConnectionError, "reason" {
        /// Request line and header fields over `limits.header_bytes`.
        HeadTooLarge => "head_too_large",
        /// The data is not HTTP.
        Malformed => "malformed",
        /// It was closed during a request.
        Incomplete => "incomplete",
        /// More control frames than browsers send (HTTP/2).
        Flood => "flood",
        /// Another HTTP/2 protocol error.
        Protocol => "protocol",
        /// It was reset, or closed without a TLS or HTTP/2 close.
        Io => "io",
    }
}

label! {
    /// The time-out that ended a connection.
    Deadline, "stage" {
        /// No PROXY header arrived.
        ProxyHeader => "proxy_header",
        /// The TLS handshake did not finish.
        Handshake => "handshake",
        /// No first request arrived.
        FirstRequest => "first_request",
        /// A further request did not arrive completely.
        Request => "request",
        /// A form body did not arrive completely.
        Body => "body",
        /// The client did not read the response.
        Response => "response",
        /// No further request.
        Idle => "idle",
        /// The connection reached its maximum age.
        Age => "age",
    }
}

label! {
    /// The limit that was reached.
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
        /// Concurrent forms and self-checks of one connection.
        PendingRequests => "pending_requests",
        /// The process has reached its limit of open files.
        OpenFiles => "open_files",
    }
}

label! {
    /// Why a connection was refused.
    Refusal, "reason" {
        /// Its address has reached its limit of connections.
        Address => "address",
        /// A trusted proxy sent no valid PROXY header.
        ProxyHeader => "proxy_header",
    }
}

label! {
    /// The steps of an ACME order.
    AcmeStep, "step" {
        /// The test before the order succeeded.
        Trial => "trial",
        /// An account was created.
        Account => "account",
        /// An order was created.
        Order => "order",
        /// A pending order was resumed.
        Resumed => "resumed",
        /// The validation of a challenge was requested.
        Challenge => "challenge",
        /// The challenge is valid, and the CSR was sent.
        Finalize => "finalize",
        /// The certificate was issued, and is in use.
        Certificate => "certificate",
        /// The ACME server returned a renewal window.
        RenewalInfo => "renewal_info",
    }
}

label! {
    /// Why an ACME order failed.
    AcmeFailure, "reason" {
        /// The CA limits orders.
        RateLimited => "rate_limited",
        /// The domain has no address, or the lookup failed.
        Dns => "dns",
        /// No response from the address of the domain.
        Unreachable => "unreachable",
        /// Another server responds at the address of the domain.
        WrongAnswer => "wrong_answer",
        /// The ACME server is down, or does not work.
        ServerDown => "directory_down",
        /// The ACME server rejects nonces repeatedly.
        BadNonce => "bad_nonce",
        /// The ACME server rejects the account.
        Account => "account",
        /// A CAA record forbids this CA.
        Caa => "caa",
        /// The ACME server does not offer the profile.
        Profile => "profile",
        /// The CA does not issue certificates for such a name.
        Refused => "refused",
        /// The state directory cannot be used.
        State => "state_dir",
        /// Anything else.
        Other => "other",
    }
}

label! {
    /// The result of a reload of the configuration.
    ReloadResult, "result" {
        /// The new configuration is in use.
        Success => "success",
        /// The previous configuration stays in use.
        Failure => "failure",
    }
}
