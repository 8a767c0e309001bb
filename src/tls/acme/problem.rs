use instant_acme::Problem;

/// The namespace of the problem types.
pub(super) const NAMESPACE: &str = "urn:ietf:params:acme:error:";

/// Declares the problem types with their names within the namespace.
macro_rules! kinds {
    ($($kind:ident = $name:literal),+ $(,)?) => {
        /// The type of a problem document: RFC 8555 §6.7, RFC 9773 §7.4, and `invalidProfile` of
        /// draft-aaron-acme-profiles.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind {
            $($kind,)+
            /// Another type, or no type.
            Unknown,
        }

        impl Kind {
            fn named(name: &str) -> Self {
                match name {
                    $($name => Self::$kind,)+
                    _ => Self::Unknown,
                }
            }
        }
    };
}

kinds! {
    AccountDoesNotExist = "accountDoesNotExist",
    AlreadyReplaced = "alreadyReplaced",
    BadCsr = "badCSR",
    BadNonce = "badNonce",
    BadPublicKey = "badPublicKey",
    BadSignatureAlgorithm = "badSignatureAlgorithm",
    Caa = "caa",
    Compound = "compound",
    Connection = "connection",
    Dns = "dns",
    ExternalAccountRequired = "externalAccountRequired",
    IncorrectResponse = "incorrectResponse",
    InvalidContact = "invalidContact",
    InvalidProfile = "invalidProfile",
    Malformed = "malformed",
    RateLimited = "rateLimited",
    RejectedIdentifier = "rejectedIdentifier",
    ServerInternal = "serverInternal",
    Tls = "tls",
    Unauthorized = "unauthorized",
    UnsupportedContact = "unsupportedContact",
    UnsupportedIdentifier = "unsupportedIdentifier",
    UserActionRequired = "userActionRequired",
}

impl Kind {
    /// The type of a problem. An order has one identifier, so the first subproblem (RFC 8555 §6.7.1)
    /// determines the type of a compound problem.
    pub(super) fn of(problem: &Problem) -> Self {
        let own = Self::named(name(problem.r#type.as_deref()));
        let first = problem.subproblems.first();
        match (own, first) {
            (Self::Compound, Some(first)) => Self::named(name(first.r#type.as_deref())),
            (own, _) => own,
        }
    }
}

/// The name within the namespace; empty for a type of another namespace.
fn name(urn: Option<&str>) -> &str {
    urn.and_then(|urn| urn.strip_prefix(NAMESPACE)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Kind {
        Kind::of(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn a_compound_problem_has_the_type_of_its_first_subproblem_and_other_namespaces_are_unknown() {
        let urn = NAMESPACE;
        assert_eq!(kind(&format!(r#"{{"type":"{urn}badNonce"}}"#)), Kind::BadNonce);
        let parts = format!(r#"[{{"type":"{urn}caa"}},{{"type":"{urn}dns"}}]"#);
        let compound = format!(r#"{{"type":"{urn}compound","subproblems":{parts}}}"#);
        assert_eq!(kind(&compound), Kind::Caa);
        assert_eq!(kind(&format!(r#"{{"type":"{urn}compound"}}"#)), Kind::Compound);
        for other in ["urn:example:badNonce", "badNonce", "urn:ietf:params:acme:error:BADNONCE"] {
            assert_eq!(kind(&format!(r#"{{"type":"{other}"}}"#)), Kind::Unknown, "{other}");
        }
        assert_eq!(kind("{}"), Kind::Unknown);
    }
}
