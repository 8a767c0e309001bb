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

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Code, Self::Error, Self::Other];

    /// Reads the names in a raw query (or form); the first that matches decides.
    pub fn of(query: &str) -> Self {
        query
            .split('&')
            .find_map(|parameter| match parameter.split('=').next().unwrap_or_default() {
                // RFC 6749 §4.1.2; Amazon SP; OAuth 1 (RFC 5849 §2.2); GitHub Apps; Entra consent.
                "code" | "spapi_oauth_code" | "oauth_verifier" | "installation_id"
                | "admin_consent" => Some(Self::Code),
                // RFC 6749 §4.1.2.1; `denied` is OAuth 1 at X.
                "error" | "denied" => Some(Self::Error),
                _ => None,
            })
            .unwrap_or(Self::Other)
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
        ];
        for (query, outcome) in table {
            assert_eq!(Outcome::of(query), outcome, "{query:?}");
        }
    }
}
