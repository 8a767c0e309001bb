use super::{Host, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A raw request path, compared byte for byte and case-sensitively.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Box<str>);

impl Path {
    /// Parses a path as in a request line: it starts with `/`, no query, no fragment.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        if !text.starts_with('/') {
            return Err(BadPath::NoSlash);
        }
        if text.contains(['?', '#']) {
            return Err(BadPath::NotOnlyAPath);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic())
            || text.parse::<http::uri::PathAndQuery>().is_err()
        {
            return Err(BadPath::Character);
        }
        Ok(Self(text.into()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a [`Path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// It does not start with `/`.
    NoSlash,
    /// It has a query or a fragment.
    NotOnlyAPath,
    /// It has a character that must be percent-encoded in a path.
    Character,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSlash => "does not start with `/`",
            Self::NotOnlyAPath => "has a query or a fragment, but only paths are matched",
            Self::Character => "has a character that must be percent-encoded in a path",
        })
    }
}

impl std::error::Error for BadPath {}

/// What a route does with `response_mode=form_post` responses, which Nango refuses with 415.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FormPost {
    /// 303 to a GET with the fields in the query.
    #[default]
    Convert,
    /// 405.
    Reject,
}

/// A callback and its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The host that it matches; `None` for any.
    pub host: Option<Host>,
    /// The path that it matches.
    pub path: Path,
    /// The URL that it redirects to.
    pub target: Target,
    /// Whether forms are converted.
    pub form_post: FormPost,
}

impl Route {
    /// The value of `Allow` (RFC 9110 §10.2.1).
    pub const fn allow(&self) -> &'static str {
        match self.form_post {
            FormPost::Convert => "GET, HEAD, POST, OPTIONS",
            FormPost::Reject => "GET, HEAD, OPTIONS",
        }
    }
}

/// Something that is served at a path of one host or of any.
pub trait Mounted {
    /// The host; `None` for any.
    fn host(&self) -> Option<&Host>;
    /// The path.
    fn path(&self) -> &Path;
}

impl Mounted for Route {
    fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }
    fn path(&self) -> &Path {
        &self.path
    }
}

/// Items by host and path. A lookup takes a few comparisons, however many there are.
/// An item for the requested host takes precedence over one for any host.
#[derive(Clone, Debug)]
pub struct RouteTable<T = Route> {
    items: Vec<T>,
    by_path: BTreeMap<Box<str>, AtPath>,
    hosts: BTreeSet<Box<str>>,
    any_host: bool,
}

#[derive(Clone, Debug, Default)]
struct AtPath {
    any: Option<usize>,
    by_host: BTreeMap<Box<str>, usize>,
}

/// Two items have the same host and path; their positions in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The first one.
    pub first: usize,
    /// The one that repeats it.
    pub second: usize,
}

impl<T: Mounted> RouteTable<T> {
    /// Indexes the items; two with the same host and path are refused.
    pub fn new(items: Vec<T>) -> Result<Self, Duplicate> {
        let mut by_path: BTreeMap<Box<str>, AtPath> = BTreeMap::new();
        let mut hosts = BTreeSet::new();
        let mut any_host = false;
        for (second, item) in items.iter().enumerate() {
            let at_path = by_path.entry(item.path().as_str().into()).or_default();
            let taken = match item.host() {
                None => {
                    any_host = true;
                    at_path.any.replace(second)
                }
                Some(host) => {
                    hosts.insert(host.as_str().into());
                    at_path.by_host.insert(host.as_str().into(), second)
                }
            };
            if let Some(first) = taken {
                return Err(Duplicate { first, second });
            }
        }
        Ok(Self { items, by_path, hosts, any_host })
    }

    /// All items, in their order.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// The item for this host and path, and its position among [`RouteTable::items`].
    pub fn find(&self, host: Option<&str>, path: &str) -> Option<(usize, &T)> {
        let at_path = self.by_path.get(path)?;
        let named = host.and_then(|host| at_path.by_host.get(host));
        let position = named.copied().or(at_path.any)?;
        Some((position, self.items.get(position)?))
    }

    /// Whether any item matches this host, whatever its path.
    pub fn serves_host(&self, host: Option<&str>) -> bool {
        self.any_host || host.is_some_and(|host| self.hosts.contains(host))
    }

    /// Whether an item is configured for this host.
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts.contains(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: Option<&str>, path: &str) -> Route {
        Route {
            host: host.map(|host| Host::parse(host).unwrap()),
            path: Path::parse(path).unwrap(),
            target: Target::parse(&format!("https://t/{}", host.unwrap_or("any"))).unwrap(),
            form_post: FormPost::Convert,
        }
    }

    #[test]
    fn a_route_with_the_requested_host_takes_precedence() {
        let table = RouteTable::new(vec![
            route(None, "/cb"),
            route(Some("a.example"), "/cb"),
            route(Some("b.example"), "/other"),
        ])
        .unwrap();
        let found =
            |host, path| table.find(host, path).map(|(_, route)| route.target.path().to_owned());
        assert_eq!(found(Some("a.example"), "/cb").as_deref(), Some("/a.example"));
        assert_eq!(found(Some("b.example"), "/cb").as_deref(), Some("/any"));
        assert_eq!(found(None, "/cb").as_deref(), Some("/any"));
        assert_eq!(found(Some("a.example"), "/other"), None);
        assert_eq!(found(Some("a.example"), "/CB"), None);
        assert_eq!(found(Some("a.example"), "/cb/"), None);
    }

    #[test]
    fn two_routes_with_the_same_host_and_path_are_refused() {
        let twice = RouteTable::new(vec![
            route(Some("a.example"), "/cb"),
            route(None, "/cb"),
            route(Some("A.example"), "/cb"),
        ]);
        assert_eq!(twice.unwrap_err(), Duplicate { first: 0, second: 2 });
    }

    #[test]
    fn an_invalid_path_is_refused_with_its_reason() {
        let table = [
            ("", BadPath::NoSlash),
            ("oauth", BadPath::NoSlash),
            ("https://a/b", BadPath::NoSlash),
            ("/a?b", BadPath::NotOnlyAPath),
            ("/a#b", BadPath::NotOnlyAPath),
            ("/a b", BadPath::Character),
            ("/é", BadPath::Character),
        ];
        for (text, why) in table {
            assert_eq!(Path::parse(text), Err(why), "{text:?}");
        }
    }
}
