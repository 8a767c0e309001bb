//! The queries to send: callbacks of real providers, special characters that break redirects, and
//! long ones. Every value is invented; `{S}` becomes a state that Nango never issued.

use std::fmt::Write as _;

/// One query to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// The provider, or what it tests.
    pub(super) name: &'static str,
    /// What is special about it, to find the firewall rule that blocks it.
    pub(super) what: &'static str,
    /// The query; `None` for no `?` at all.
    pub(super) query: Option<String>,
    /// Its state.
    pub(super) state: String,
    /// Whether RFC 3986 §3.4 allows every byte of it. Providers send nothing else, so a server may
    /// change or reject other bytes. No probe has a byte that browsers never send.
    pub(super) conforming: bool,
}

impl Probe {
    fn new(
        name: &'static str,
        what: &'static str,
        query: &str,
        conforming: bool,
        run: &Run,
    ) -> Self {
        let state = run.state();
        let query = Some(query.replace("{S}", &state));
        Self { name, what, query, state, conforming }
    }

    /// The minimum of a callback: state and code.
    pub(super) fn plain(run: &Run) -> Self {
        Self::new("plain", "state and code", "state={S}&code=invented-code", true, run)
    }

    /// No parameter: without a `?`, and with a bare one.
    pub(super) fn empty(run: &Run) -> [Self; 2] {
        let state = run.state();
        let none = Self {
            name: "none",
            what: "no `?`",
            query: None,
            state: state.clone(),
            conforming: true,
        };
        let bare =
            Self { name: "bare", what: "a bare `?`", query: Some(String::new()), ..none.clone() };
        [none, bare]
    }

    /// An error with a nonce as its description, for the end-to-end step.
    pub(super) fn echo(nonce: &str, run: &Run) -> Self {
        let query = format!("state={{S}}&error=callback_edge_check&error_description={nonce}");
        Self::new("echo", "a nonce in error_description", &query, true, run)
    }

    pub(super) fn providers(run: &Run) -> Vec<Self> {
        PROVIDERS
            .iter()
            .map(|(name, what, query)| Self::new(name, what, query, true, run))
            .collect()
    }

    pub(super) fn spellings(run: &Run) -> Vec<Self> {
        let conforming = CONFORMING.iter().map(|row| (row, true));
        let nonconforming = NONCONFORMING.iter().map(|row| (row, false));
        conforming
            .chain(nonconforming)
            .map(|((name, rest), conforming)| {
                let query = format!("state={{S}}&code=invented&{rest}");
                Self::new(name, name, &query, conforming, run)
            })
            .collect()
    }

    /// A few queries that combine what redirects change, for [`Coverage::Small`](super::Coverage::Small).
    pub(super) fn small(run: &Run) -> Vec<Self> {
        SMALL.iter().map(|(name, query)| Self::new(name, name, query, true, run)).collect()
    }

    pub(super) fn sizes(run: &Run) -> Vec<Self> {
        SIZES
            .iter()
            .map(|(name, size)| {
                let mut probe = Self::new(name, "a long code", "state={S}&code=0.AX", true, run);
                if let Some(query) = &mut probe.query {
                    // Not one repeated letter: it compresses well and triggers bot protection.
                    for number in 0_u32.. {
                        if query.len() >= *size {
                            break;
                        }
                        let _ = write!(query, "{:x}-", number.wrapping_mul(0x9E37_79B1));
                    }
                    query.truncate(*size);
                }
                probe
            })
            .collect()
    }
}

/// The common prefix of the states of one run, to recognize the response to another probe.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The first eight digits of every state.
    pub(super) prefix: String,
}

impl Run {
    pub(super) fn new() -> Self {
        Self { prefix: format!("{:08x}", u128::from_be_bytes(random()) >> 96) }
    }

    /// A random UUID of version 4 (RFC 9562 §5.4).
    pub(super) fn state(&self) -> String {
        let bits = u128::from_be_bytes(random());
        let (variant, version) = (0x8000 | (bits >> 48 & 0x3fff), 0x4000 | (bits >> 64 & 0x0fff));
        let (high, node) = (bits >> 80 & 0xffff, bits & 0xffff_ffff_ffff);
        format!("{}-{high:04x}-{version:04x}-{variant:04x}-{node:012x}", self.prefix)
    }

    /// Unpredictable letters and digits.
    pub(super) fn nonce() -> String {
        format!("n{:032x}", u128::from_be_bytes(random()))
    }
}

/// Random bytes. Zeros if the system has none, which only makes the probes identical.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    let _ = rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes);
    bytes
}

/// Sizes of queries. Entra's codes with echoed scopes reach 6 KiB. AWS's managed rules stop at 2 KiB,
/// other firewalls and proxies between 4 and 8 KiB, nginx's default line buffer at 8 KiB, and Nango's
/// header limit is 16 KiB.
const SIZES: [(&str, usize); 8] = [
    ("1.9 KiB", 1945),
    ("2.1 KiB", 2150),
    ("4 KiB", 4 << 10),
    ("5 KiB", 5 << 10),
    ("6 KiB", 6 << 10),
    ("7 KiB", 7 << 10),
    ("8 KiB", 8 << 10),
    ("12 KiB", 12 << 10),
];

/// (provider, what is special about its callback, query)
#[rustfmt::skip]
const PROVIDERS: &[(&str, &str, &str)] = &[
    ("Google", "URLs in `scope`", "state={S}&iss=https%3A%2F%2Faccounts.google.com&code=4%2F0AbInvented-Code_x&scope=email%20profile%20https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fuserinfo.profile%20openid&authuser=0&hd=example.com&prompt=consent"),
    ("Google, slashes bare", "URLs in `scope`", "state={S}&code=4/0AbInvented&scope=email+https://www.googleapis.com/auth/userinfo.profile+https://www.googleapis.com/auth/drive.file&authuser=1&prompt=none"),
    ("Microsoft Entra", "a long `code`, `session_state`", "code=1.AXoAInvented.AgABBAIAAAAmoFfGtYxvRrNriQdPKIZ-AgDs_wUA9PInvented_code-with-Dots.and~tilde&state={S}&session_state=00aa11bb-22cc-33dd-44ee-55ff66aa77bb"),
    ("Microsoft Entra, declined", "line breaks and lower-case hex in `error_description`", "error=access_denied&error_subcode=cancel&state={S}&error_description=AADSTS65004%3a+User+declined+to+consent+to+access+the+app.%0d%0aTrace+ID%3a+00000000-invented%0d%0aTimestamp%3a+2026-01-01+00%3a00%3a00Z&error_uri=https%3a%2f%2flogin.microsoftonline.com%2ferror%3fcode%3d65004"),
    ("Microsoft admin consent", "`admin_consent` and `tenant`", "admin_consent=True&tenant=00aa11bb-22cc-33dd-44ee-55ff66aa77bb&state={S}&scope=https%3a%2f%2fgraph.microsoft.com%2f.default"),
    ("GitHub", "`code`", "code=0123456789abcdef0123&state={S}"),
    ("GitHub App", "`installation_id` and `setup_action`", "code=0123456789abcdef0123&installation_id=12345678&setup_action=install&state={S}"),
    ("Slack", "dots in `code`, empty `state` parts", "code=1234567890.0987654321.abcdef0123456789&state={S}"),
    ("Shopify", "`hmac`, `shop`, base64 in `host`", "code=0123abcd&hmac=ab12cd34ef56ab12cd34ef56ab12cd34&host=YWRtaW4uc2hvcGlmeS5jb20vc3RvcmUvaW52ZW50ZWQ%3D&shop=invented.myshopify.com&state={S}&timestamp=1760000000"),
    ("QuickBooks", "`realmId`", "code=XAB11invented&state={S}&realmId=9341450000000000"),
    ("Xero", "`scope` with dots", "code=invented_code&scope=openid%20profile%20accounting.transactions%20offline_access&state={S}&session_state=inv.ented"),
    ("Zoho", "a URL in `accounts-server`", "state={S}&code=1000.invented.code&location=eu&accounts-server=https%3A%2F%2Faccounts.zoho.eu&"),
    ("Amazon SP", "`spapi_oauth_code`", "state={S}&selling_partner_id=A1INVENTED&spapi_oauth_code=ANinventedcode&mws_auth_token="),
    ("Braintree", "`merchantId`", "state={S}&merchantId=invented&code=abc123"),
    ("Clover", "`merchant_id` and `employee_id`", "merchant_id=INVENTED1&employee_id=INVENTED2&client_id=INVENTED3&code=00aa11bb-22cc&state={S}"),
    ("Crisp", "`payload` instead of `state`", "payload={S}&website_id=00aa11bb-22cc-33dd&token=&code=abc"),
    ("Lightspeed", "`domain_prefix`", "code=invented&domain_prefix=invented-store&user_id=00aa11bb&state={S}&signature="),
    ("MYOB", "`businessId`", "code=inv%21ented%24code&businessId=00aa11bb-22cc&businessName=Invented%20%26%20Sons&state={S}"),
    ("Walmart", "`sellerId`", "code=ABCDEF0123&type=auth&sellerId=10001&clientId=00aa11bb&state={S}"),
    ("Wildix", "`subdomain`", "code=invented&subdomain=invented&state={S}"),
    ("Trello", "OAuth 1: `oauth_token` and `oauth_verifier`", "state={S}&oauth_token=0123abcd&oauth_verifier=abcd0123"),
    ("X, declined", "OAuth 1: `denied`", "state={S}&denied=NPcudxy0yU5T3tBzho7iCotZ3cnetKwcTIRlX0iwRl0"),
    ("Garmin", "OAuth 1: `oauth_verifier=null`", "state={S}&oauth_token=00aa11bb-22cc&oauth_verifier=null"),
    ("Salesforce", "padding in `code`", "code=aPrxInventedCode%3D%3D&state={S}"),
    ("LinkedIn, declined", "a sentence in `error_description`", "error=user_cancelled_login&error_description=The+user+cancelled+LinkedIn+login&state={S}"),
    ("Okta", "`iss` (RFC 9207)", "code=inv-ented_&state={S}&iss=https%3A%2F%2Finvented.okta.com%2Foauth2%2Fdefault"),
    ("Stripe", "`scope`", "scope=read_write&code=ac_InventedCode&state={S}"),
    ("Facebook, declined", "`error_reason`", "error=access_denied&error_code=200&error_description=Permissions+error&error_reason=user_denied&state={S}"),
    ("TikTok", "`%2A` and `%21` in `code`, commas in `scopes`", "code=inv%2Aented%216200&scopes=user.info.basic%2Cvideo.list&state={S}"),
    ("Shopline", "`customField` and `sign`", "appkey=inv&code=ented&customField={S}&handle=invented&lang=zh-hans-cn&timestamp=1760000000000&sign=00aa11bb"),
    ("Atlassian", "a JWT as `code`", "state={S}&code=eyJhbGciOiJIUzI1NiJ9.eyJpbnZlbnRlZCI6dHJ1ZX0.c2lnbmF0dXJl"),
    ("Typeform", "brackets in a name", "code=invented&state={S}&fields%5Bemail%5D=someone%40example.com"),
];

/// (what it tests, query)
#[rustfmt::skip]
const SMALL: &[(&str, &str)] = &[
    ("encoded and bare characters", "state={S}&code=4%2F0Ab/c%2fInvented%7E%61%2B%2525&iss=https%3a%2f%2Faccounts.google.com&scope=https://www.googleapis.com/auth/userinfo.profile%20openid+email"),
    ("duplicates, order and empty parameters", "z=1&scope=b&state={S}&scope=a&scope=b&empty=&bare&padded=a==&fields%5Bemail%5D=a%40example.com&code=2&"),
    ("delimiters and a sentence", "error=access_denied&error_description=The+user%0d%0adeclined:+caf%C3%A9%20%26%20more!$()*,;@-._~&state={S}&accounts-server=https%3A%2F%2Faccounts.zoho.eu"),
];

/// Spellings that RFC 3986 §3.4 allows: (what it tests, parameters)
/// Spellings that RFC 3986 §3.4 allows and browsers send: (what it tests, parameters). The callbacks
/// of providers contain the common ones: `%2F`, `%2f`, `%20`, `+` and parameters in any order.
#[rustfmt::skip]
const CONFORMING: &[(&str, &str)] = &[
    ("duplicates", "scope=a&scope=b&scope=a"),
    ("empty values", "empty=&also="),
    ("bare keys", "bare&flag"),
    ("empty parameters", "a=1&&b=2&=nameless&"),
    ("several equals signs", "a=b=c=="),
    ("%2B for a plus", "text=1%2B1"),
    ("an encoded percent sign", "text=100%2525%25"),
    ("an apostrophe", "name=O%27Brien"),
    ("delimiters", "text=!$()*,;:@/?-._~"),
    ("encoded letters", "text=%61%7E%2D"),
    ("encoded UTF-8", "name=caf%C3%A9"),
    ("an encoded ampersand", "name=a%26b%3Dc%23d"),
    // Servers that keep each of these alone may lose one of them in company.
    ("an apostrophe and spaces", "name=O%27Brien%20and%20Sons&city=K%C3%B6ln+Ehrenfeld"),
    ("a plus and spaces", "sum=1%2B1%20=+2&name=Smith%20%26+Co&path=%2Fa%2fb"),
    ("duplicates and encodings", "scope=read%20all&scope=a%2Cb&scope=read%20all&scope=&name=Zo%C3%AB%27s"),
    ("all of them", "text=%C3%A9+%20%27%22%3C%2B%26%3D%23%25%2F%2f~%7E!&text=&text=2&bare&%C3%A9%20=1&&z=1&a=b=c"),
];

/// Spellings that RFC 3986 does not allow, but that browsers send as they are.
#[rustfmt::skip]
const NONCONFORMING: &[(&str, &str)] = &[
    ("brackets", "list[]=1&map[a]=2"),
    ("braces, bars and carets", "text={a}|b^c`d"),
    ("a lone percent sign", "text=100%&more=%zz"),
];

#[cfg(test)]
mod tests {
    use super::super::query::as_browsers_send;
    use super::*;

    #[test]
    fn every_query_can_be_sent_and_contains_its_state() {
        let run = Run::new();
        let mut probes = Probe::providers(&run);
        assert!(probes.len() >= 25, "{}", probes.len());
        probes.extend(Probe::spellings(&run));
        probes.extend(Probe::small(&run));
        probes.extend(Probe::sizes(&run));
        probes.push(Probe::plain(&run));
        probes.push(Probe::echo(&Run::nonce(), &run));
        for probe in probes {
            let query = probe.query.unwrap();
            assert!(query.contains(&probe.state), "{}", probe.name);
            assert!(probe.state.starts_with(&run.prefix));
            assert_eq!(as_browsers_send(&query), query, "{}", probe.name);
            let path = http::uri::PathAndQuery::try_from(format!("/cb?{query}")).unwrap();
            assert_eq!(path.query(), Some(query.as_str()), "{}", probe.name);
            let allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
            assert_eq!(
                probe.conforming,
                query.bytes().all(allowed) && !query.contains("%&"),
                "{}",
                probe.name
            );
        }
    }

    #[test]
    fn sizes_are_exact() {
        for (probe, (_, size)) in Probe::sizes(&Run::new()).iter().zip(SIZES) {
            assert_eq!(probe.query.as_ref().unwrap().len(), size);
        }
    }

    #[test]
    fn states_are_uuids_of_version_4() {
        let state = Run::new().state();
        assert_eq!(state.len(), 36);
        assert_eq!(state.as_bytes()[14], b'4');
        assert!(matches!(state.as_bytes()[19], b'8'..=b'b'));
    }
}
