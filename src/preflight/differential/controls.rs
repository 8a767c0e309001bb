//! Controls: unregistered redirect URIs that a filter cannot distinguish from a real one. They have
//! the same length, and consist of words.

use url::{Position, Url};

/// The controls of a test.
#[derive(Clone, Debug)]
pub(super) struct Controls {
    /// Another path on the host of the new callback.
    pub(super) path: String,
    /// A path of the new host that exists: the other callback of Nango. Where there is none, `path`.
    pub(super) live: String,
    /// The path of the new callback on another host.
    pub(super) host: String,
    /// Another path on the host of the old callback.
    pub(super) old_path: String,
}

impl Controls {
    /// `None` when one of them is not a URL.
    pub(super) fn of(old: &str, new: &str) -> Option<Self> {
        let (old, new) = (Url::parse(old).ok()?, Url::parse(new).ok()?);
        let path = with_other_path(&new)?;
        let live = match new.path().strip_suffix("oauth/callback") {
            Some(before) => with_path(&new, &format!("{before}app-auth/connect")),
            None => path.clone(),
        };
        // Not below `.invalid`: Google rejects that before it compares.
        let length = new.host_str()?.len().saturating_sub(PARENT.len());
        let label = word(length.clamp(3, 40), new.host_str()?.split('.').next()?);
        let host = format!("https://{label}{PARENT}{}", &new[Position::BeforePath..]);
        Some(Self { path, live, host, old_path: with_other_path(&old)? })
    }
}

/// Reserved for examples (RFC 2606 §3): no app uses it.
const PARENT: &str = ".example.com";

/// With another last segment of the same length.
fn with_other_path(url: &Url) -> Option<String> {
    url.host_str()?;
    let (before, last) = url.path().rsplit_once('/')?;
    let last = word(last.len().max(4), last);
    Some(with_path(url, &format!("{before}/{last}")))
}

fn with_path(url: &Url, path: &str) -> String {
    let mut url = url.clone();
    url.set_path(path);
    url.into()
}

/// One word with this length, or several, other than `not`.
fn word(length: usize, not: &str) -> String {
    let first = WORDS.iter().position(|word| word.len() == length && *word != not);
    let mut text = String::new();
    for word in WORDS.iter().cycle().skip(first.unwrap_or_default()) {
        if text.len() >= length {
            break;
        }
        if !text.is_empty() {
            text.push('-');
        }
        text.push_str(word);
    }
    text.truncate(length);
    // A hyphen is not allowed at the end of a host label.
    if text.ends_with('-') {
        text.pop();
        text.push('s');
    }
    text
}

/// Two of each usual length, none about OAuth, which someone may have registered.
const WORDS: [&str; 20] = [
    "map",
    "faq",
    "news",
    "blog",
    "about",
    "press",
    "report",
    "travel",
    "invoice",
    "weather",
    "overview",
    "calendar",
    "inventory",
    "documents",
    "statistics",
    "newsletter",
    "translation",
    "photography",
    "achievements",
    "publications",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_have_the_length_of_the_real_url_and_consist_of_words() {
        let old = "https://api.nango.dev/oauth/callback";
        for new in [
            "https://auth.example.org/oauth/callback",
            "https://a.example.org/cb",
            "https://integrations.login.a-long-name.example.org/nango/very-long-callback-path?x=1",
            "https://overview.example.com/oauth/overview",
            "https://auth.example.org/",
            "http://auth.localhost:8080/oauth/callback",
        ] {
            let Controls { path, live, host, old_path } = Controls::of(old, new).unwrap();
            let all = [&path, &live, &host, &old_path];
            for control in all {
                assert!(control != new && control != old, "{new}: {control}");
                let digits = control.bytes().filter(u8::is_ascii_digit).count();
                assert!(digits <= 4, "only of the port or the query: {control}");
            }
            let real = Url::parse(new).unwrap();
            let of = |url: &str| Url::parse(url).unwrap();
            assert_eq!(of(&path).host_str(), real.host_str());
            assert_eq!(of(&live).host_str(), real.host_str());
            assert_eq!(of(&path).query(), real.query());
            assert!(of(&host).host_str().unwrap().ends_with(PARENT));
            assert_eq!(of(&host).path(), real.path());
            if real.path().len() > 4 {
                assert_eq!(path.len(), new.len(), "{path}");
            }
            if real.host_str().unwrap().len() > 15 && real.port().is_none() {
                assert_eq!(host.len(), new.len(), "{host}");
            }
        }
        let controls = Controls::of(old, "https://auth.example.org/oauth/callback").unwrap();
        assert_eq!(controls.path, "https://auth.example.org/oauth/overview");
        assert_eq!(controls.live, "https://auth.example.org/app-auth/connect");
        assert_eq!(controls.host, "https://news.example.com/oauth/callback");
        assert_eq!(controls.old_path, "https://api.nango.dev/oauth/overview");
        assert!(Controls::of(old, "no URL").is_none());
        assert!(Controls::of("", old).is_none());
    }
}
