/// The outcome of an authorization, determined by parameter **names** only; values are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The provider granted access: an authorization code or its equivalent.
    Code,
    /// The provider or the user declined (RFC 6749 §4.1.2.1).
    Error,
    /// Neither parameter is present.
    Other,
}

const NAMES: [(&str, Outcome); 7] = [
    // RFC 6749 §4.1.2; Amazon SP; OAuth 1 (RFC 5849 §2.2); GitHub Apps; Entra consent.
    ("code", Outcome::Code),
    ("spapi_oauth_code", Outcome::Code),
    ("oauth_verifier", Outcome::Code),
    ("installation_id", Outcome::Code),
    ("admin_consent", Outcome::Code),
    // RFC 6749 §4.1.2.1; `denied` is OAuth 1 at X.
    ("error", Outcome::Error),
    ("denied", Outcome::Error),
];

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Code, Self::Error, Self::Other];

    /// Reads the names in a raw query (or form); the first that matches decides.
    pub fn of(query: &str) -> Self {
        let bytes = query.as_bytes();
        let starts = memchr::memchr_iter(b'&', bytes).map(|at| at + 1);
        std::iter::once(0)
            .chain(starts)
            .find_map(|start| Self::of_parameter(bytes.get(start..)?))
            .unwrap_or(Self::Other)
    }

    /// The outcome that the parameter at the start of these bytes shows.
    fn of_parameter(bytes: &[u8]) -> Option<Self> {
        NAMES.into_iter().find_map(|(name, outcome)| {
            let after = bytes.strip_prefix(name.as_bytes())?;
            matches!(after.first(), None | Some(b'=' | b'&')).then_some(outcome)
        })
    }

    /// The name used in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Error => "error",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameter_names_determine_the_outcome() {
        let table = [
            ("", Outcome::Other),
            ("state=code", Outcome::Other),
            ("state=1&code=2", Outcome::Code),
            ("code", Outcome::Code),
            ("error=access_denied&error_description=code%3D", Outcome::Error),
            ("spapi_oauth_code=1&selling_partner_id=2", Outcome::Code),
            ("oauth_token=1&oauth_verifier=2", Outcome::Code),
            ("xcode=1&codes=2", Outcome::Other),
            ("&code", Outcome::Code),
            ("a&denied&code", Outcome::Error),
            ("state=1&", Outcome::Other),
            ("installation_id=1&setup_action=install", Outcome::Code),
            ("admin_consent=True", Outcome::Code),
            ("cod", Outcome::Other),
            ("error_description=1", Outcome::Other),
        ];
        for (query, outcome) in table {
            assert_eq!(Outcome::of(query), outcome, "{query:?}");
        }
    }
}
