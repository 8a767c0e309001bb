use std::fmt;
use std::num::NonZeroU16;

/// The values of a user that a recipe contains.
///
/// Every character of them has the same meaning in all syntaxes of the recipes: a letter, a digit, or one
/// of `-._~/:`. Only a regular expression needs an escape, for the dot. Any other character is refused, so
/// no syntax needs an escape that could be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    callback: Parts,
    routes: Vec<Route>,
}

/// A path and the URL that it redirects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `callback` or `connect`, for the names of a recipe.
    pub name: &'static str,
    /// The path, with a leading slash.
    pub path: String,
    target: Parts,
}

/// A URL of which every part is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    scheme: String,
    /// With a port, if the URL has one.
    authority: String,
    path: String,
}

/// The end of the OAuth callback's path, and what Nango replaces it with for GitHub Apps.
const ENDS: [&str; 2] = ["oauth/callback", "app-auth/connect"];

impl Values {
    /// The values of a callback and its target. If both paths end in `oauth/callback`, there is a second
    /// route, for GitHub Apps.
    pub fn new(callback: &str, target: &str) -> Result<Self, Unsafe> {
        let callback = Parts::of(callback).map_err(|why| why.in_value(callback))?;
        let target = Parts::of(target).map_err(|why| why.in_value(target))?;
        if callback == target {
            return Err(Why::Loop.in_value(&callback.url()));
        }
        let connect = |path: &str| {
            let before = path.strip_suffix(ENDS[0])?;
            before.ends_with('/').then(|| format!("{before}{}", ENDS[1]))
        };
        let second = connect(&callback.path).zip(connect(&target.path)).map(|(path, at_target)| {
            Route { name: "connect", path, target: Parts { path: at_target, ..target.clone() } }
        });
        let first = Route { name: "callback", path: callback.path.clone(), target };
        Ok(Self { callback, routes: [first].into_iter().chain(second).collect() })
    }

    /// The route of the callback, then that of GitHub Apps if there is one.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// A template with these values. Lines between `@EACH@` and `@END@` are repeated for each route. A
    /// placeholder outside of them has the value of the callback.
    pub(super) fn fill(&self, template: &str) -> String {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, each)) = split_at_line(rest, "@EACH@") {
            let (repeated, after) = split_at_line(each, "@END@").unwrap_or((each, ""));
            text.push_str(&self.first(before));
            for (number, route) in self.routes.iter().enumerate() {
                let is_last = number + 1 == self.routes.len();
                let repeated = repeated.replace("@,@", if is_last { "" } else { "," });
                text.push_str(&self.with_route(&repeated, route));
            }
            rest = after;
        }
        text + &self.first(rest)
    }

    fn first(&self, template: &str) -> String {
        match self.routes.first() {
            Some(route) => self.with_route(template, route),
            None => template.to_owned(),
        }
    }

    /// A template of one route.
    pub(super) fn with_route(&self, template: &str, route: &Route) -> String {
        let Parts { scheme, authority, path } = &route.target;
        let default_port = if scheme == "http" { "80" } else { "443" };
        let (host, port) = authority.split_once(':').unwrap_or((authority, default_port));
        let own_host = self.callback.authority.split(':').next().unwrap_or_default();
        let paths: Vec<_> = self.routes.iter().map(|route| route.path.as_str()).collect();
        // No value contains an `@`, so a value is never mistaken for a placeholder.
        [
            ("@NAME@", route.name),
            ("@PATH@", &route.path),
            ("@PATH_REGEX@", &route.path.replace('.', r"\.")),
            ("@TARGET@", &route.target.url()),
            ("@TARGET_SCHEME@", scheme),
            ("@TARGET_AUTHORITY@", authority),
            ("@TARGET_HOST@", host),
            ("@TARGET_PORT@", port),
            ("@TARGET_PATH@", path),
            ("@CALLBACK@", &self.callback.url()),
            ("@HOST@", own_host),
            ("@PATHS@", &paths.join(" ")),
        ]
        .iter()
        .fold(template.to_owned(), |text, (placeholder, value)| text.replace(placeholder, value))
    }
}

impl Parts {
    fn of(url: &str) -> Result<Self, Why> {
        let is_safe = |it: char| it.is_ascii_alphanumeric() || "-._~/:".contains(it);
        if let Some(refused) = url.chars().find(|it| !is_safe(*it)) {
            return Err(Why::Character(refused));
        }
        let (scheme, rest) = url.split_once("://").ok_or(Why::NotAUrl)?;
        let (authority, path) = rest.split_once('/').ok_or(Why::NoPath)?;
        // Kubernetes refuses a host with capital letters.
        let [scheme, authority] = [scheme, authority].map(str::to_ascii_lowercase);
        let (host, port) = authority.split_once(':').unwrap_or((&authority, "443"));
        let is_label = |label: &str| {
            !label.is_empty()
                && !label.contains(['~', '_'])
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_valid = ["http", "https"].contains(&&*scheme)
            && host.split('.').all(is_label)
            && port.parse::<NonZeroU16>().is_ok();
        if !is_valid {
            return Err(Why::NotAUrl);
        }
        if path.is_empty() {
            return Err(Why::NoPath);
        }
        // Files are named after segments: `..` would be another directory.
        if path.split('/').any(|segment| segment.chars().all(|it| it == '.')) {
            return Err(Why::Segment);
        }
        if path.contains(':') {
            return Err(Why::Character(':'));
        }
        Ok(Self { scheme, authority, path: format!("/{path}") })
    }

    fn url(&self) -> String {
        let Self { scheme, authority, path } = self;
        format!("{scheme}://{authority}{path}")
    }
}

/// The text before the line that contains a mark, and the text after that line.
fn split_at_line<'t>(text: &'t str, mark: &str) -> Option<(&'t str, &'t str)> {
    let (before, after) = text.split_once(mark)?;
    let line = before.rfind('\n').map_or(0, |at| at + 1);
    let after = after.split_once('\n').map_or("", |(_, after)| after);
    Some((before.get(..line)?, after))
}

/// A value that no recipe can contain, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsafe {
    value: String,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    Character(char),
    NotAUrl,
    NoPath,
    Segment,
    Loop,
}

impl Why {
    fn in_value(self, value: &str) -> Unsafe {
        Unsafe { value: value.to_owned(), why: self }
    }
}

impl Unsafe {
    /// What to change.
    pub fn hint(&self) -> &'static str {
        match self.why {
            Why::Character(refused) if !refused.is_ascii() => {
                "write an international host in Punycode, for example `xn--bcher-kva.example`"
            }
            Why::Character(_) => {
                "a recipe accepts a scheme, a host, a port, and a path of letters, digits, `-`, `.`, `_`, `~` and `/`"
            }
            Why::NotAUrl | Why::NoPath => {
                "pass a complete URL, for example `https://auth.example.com/oauth/callback`"
            }
            Why::Loop => "pass the URL on your own domain with --callback",
            Why::Segment => "remove trailing and double slashes, and segments of dots",
        }
    }
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let visible = |it: char| match it {
            ' '..='~' => it.to_string(),
            other => other.escape_default().to_string(),
        };
        let value: String = self.value.chars().map(visible).collect();
        match self.why {
            Why::Character(refused) => {
                write!(f, "`{value}` contains `{}`", visible(refused))
            }
            Why::NotAUrl => write!(f, "`{value}` is not an http or https URL with a host"),
            Why::NoPath => write!(f, "`{value}` has no path"),
            Why::Loop => write!(f, "`{value}` is the callback and its own target"),
            Why::Segment => write!(f, "the path of `{value}` has an empty segment or one of dots"),
        }
    }
}

impl std::error::Error for Unsafe {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALLBACK: &str = "https://auth.example.com/oauth/callback";
    const TARGET: &str = "https://api.nango.dev/oauth/callback";

    #[test]
    fn both_routes_exist_only_if_both_paths_end_in_oauth_callback() {
        let paths = |callback: &str, target: &str| {
            let values = Values::new(callback, target).unwrap();
            values.routes.iter().map(|it| (it.path.clone(), it.target.url())).collect::<Vec<_>>()
        };
        let own = |path: &str, target: &str| (path.to_owned(), target.to_owned());
        let connect = "https://api.nango.dev/app-auth/connect";
        assert_eq!(
            paths(CALLBACK, TARGET),
            [own("/oauth/callback", TARGET), own("/app-auth/connect", connect)]
        );
        assert_eq!(
            paths("http://localhost:3000/api/oauth/callback", TARGET),
            [own("/api/oauth/callback", TARGET), own("/api/app-auth/connect", connect)]
        );
        for callback in
            ["https://a.b/nango", "https://a.b/noauth/callback/x", "https://a.b/xoauth/callback"]
        {
            assert_eq!(paths(callback, TARGET).len(), 1, "{callback}");
        }
    }

    #[test]
    fn repeated_lines_appear_once_for_each_route() {
        let template =
            "@PATH@ @HOST@\n// @EACH@\n@NAME@ @PATH_REGEX@ @TARGET_PATH@@,@\n// @END@\nend\n";
        let values = Values::new("https://h.example:8443/v1.0/oauth/callback", TARGET).unwrap();
        assert_eq!(
            values.fill(template),
            "/v1.0/oauth/callback h.example\n\
             callback /v1\\.0/oauth/callback /oauth/callback,\n\
             connect /v1\\.0/app-auth/connect /app-auth/connect\nend\n"
        );
    }

    #[test]
    fn a_refused_value_is_named_with_its_reason() {
        for (value, message) in [
            ("https://h/a'b", "`https://h/a'b` contains `'`"),
            ("https://h/a?b", "`https://h/a?b` contains `?`"),
            ("https://h/a\nb", "`https://h/a\\nb` contains `\\n`"),
            ("https://h/a:b", "`https://h/a:b` contains `:`"),
            ("https://u@h/a", "`https://u@h/a` contains `@`"),
            ("https://[::1]/a", "`https://[::1]/a` contains `[`"),
            ("/oauth/callback", "`/oauth/callback` is not an http or https URL with a host"),
            ("ftp://h/a", "`ftp://h/a` is not an http or https URL with a host"),
            ("https://h:0x/a", "`https://h:0x/a` is not an http or https URL with a host"),
            ("https://h:0/a", "`https://h:0/a` is not an http or https URL with a host"),
            ("https://h..i/a", "`https://h..i/a` is not an http or https URL with a host"),
            ("https://-h/a", "`https://-h/a` is not an http or https URL with a host"),
            ("https://b\u{fc}/a", "`https://b\\u{fc}/a` contains `\\u{fc}`"),
            ("https://h", "`https://h` has no path"),
            ("https://h/", "`https://h/` has no path"),
            ("https://h/a/", "the path of `https://h/a/` has an empty segment or one of dots"),
            ("https://h/../a", "the path of `https://h/../a` has an empty segment or one of dots"),
        ] {
            for refused in [Values::new(value, TARGET), Values::new(CALLBACK, value)] {
                assert_eq!(refused.unwrap_err().to_string(), message);
            }
        }
    }

    #[test]
    fn a_callback_that_is_its_own_target_is_refused() {
        let refused = Values::new("https://API.nango.dev/oauth/callback", TARGET).unwrap_err();
        assert_eq!(refused.to_string(), format!("`{TARGET}` is the callback and its own target"));
    }

    #[test]
    fn the_scheme_and_the_host_are_written_in_lower_case() {
        let values = Values::new("HTTPS://H.Example/A/oauth/callback", TARGET).unwrap();
        assert_eq!(
            values.fill("@CALLBACK@ @HOST@"),
            "https://h.example/A/oauth/callback h.example"
        );
    }

    proptest! {
        /// Whatever a value contains, a text that is accepted has only characters without a meaning in
        /// any syntax.
        #[test]
        fn no_character_with_a_meaning_is_accepted(
            before in "[a-z/._~-]{0,6}", special in r"[^a-zA-Z0-9._~/-]", after in "[a-z/]{0,6}",
        ) {
            let value = format!("https://h.example/{before}{special}{after}");
            prop_assert!(Values::new(&value, TARGET).is_err(), "{value:?}");
            prop_assert!(Values::new(CALLBACK, &value).is_err(), "{value:?}");
            let value = format!("https://h{special}.example/a");
            prop_assert!(Values::new(&value, TARGET).is_err() || special == "-", "{value:?}");
        }
    }
}
