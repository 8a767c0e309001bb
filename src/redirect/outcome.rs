/// What a callback brings, told by parameter **names** alone: no value is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The provider granted something: an authorization code or what it calls so.
    Code,
    /// The provider or the user declined (RFC 6749 §4.1.2.1).
    Error,
    /// Neither is named.
    Other,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Code, Self::Error, Self::Other];

    /// Reads the names in a raw query (or form), the first telling one decides.
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
    fn outcome_is_told_by_names_alone() {
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
