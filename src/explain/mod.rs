//! The reference sections of the documents, by id.
//!
//! `docs/checks.md`, `operations.md` and `reference.md` are compiled in. Each section below a heading
//! `### prefix.name` explains one id: a check, a provider state (`state.`), an ACME failure reason
//! (`acme.`), an alert (`alert.`) or a log event (`event.`). The first paragraph of a section is its
//! title.

mod terminal;

use pulldown_cmark::{Event, Parser, Tag, TagEnd, html};
use std::sync::LazyLock;

pub use terminal::wrap;

const DOCUMENTS: [(&str, &str); 3] = [
    ("docs/checks.md", include_str!("../../docs/checks.md")),
    ("docs/operations.md", include_str!("../../docs/operations.md")),
    ("docs/reference.md", include_str!("../../docs/reference.md")),
];

/// The section of every integration: their keys are not known in advance.
const INTEGRATION: &str = "integration.KEY";

static ALL: LazyLock<Vec<Explanation>> =
    LazyLock::new(|| DOCUMENTS.iter().flat_map(|(path, text)| sections(path, text)).collect());

/// The section that explains one id.
#[derive(Clone, Copy, Debug)]
pub struct Explanation {
    /// The id.
    pub id: &'static str,
    /// The heading above the section.
    pub group: &'static str,
    /// The first paragraph, in one sentence.
    pub title: &'static str,
    document: &'static str,
    /// Markdown, starting with the title.
    body: &'static str,
}

/// Every section, in the order of the documents.
pub fn all() -> &'static [Explanation] {
    &ALL
}

/// The section of an id, or of a name without its prefix that no other id has, as alerts and log
/// lines contain it. `integration` and `integration.<any key>` share one.
pub fn find(id: &str) -> Option<&'static Explanation> {
    let is_integration = id.split('.').next() == Some("integration");
    let id = if is_integration { INTEGRATION } else { id };
    let is_id = |it: &&Explanation| it.id.eq_ignore_ascii_case(id);
    ALL.iter().find(is_id).or_else(|| {
        let mut named =
            ALL.iter().filter(|it| it.names().any(|name| name.eq_ignore_ascii_case(id)));
        named.next().filter(|_| named.next().is_none())
    })
}

impl Explanation {
    /// The id without its prefix, and that of an alert also without the name of the program.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let name = self.id.split_once('.').map_or(self.id, |(_, name)| name);
        std::iter::once(name).chain(name.strip_prefix("CallbackEdge"))
    }

    /// The file and the anchor of the section, as GitHub derives it from the heading.
    pub fn link(&self) -> String {
        format!("{}#{}", self.document, self.id.replace('.', "").to_lowercase())
    }

    /// The section for a terminal. It contains escape sequences: print it through `anstream`.
    pub fn terminal(&self, columns: usize) -> String {
        terminal::render(self.id, self.body, columns)
    }

    /// The section as HTML, without the heading. Links become plain text, because the documents
    /// are not served.
    pub fn html(&self) -> String {
        let is_link = |event: &Event<'_>| {
            matches!(event, Event::Start(Tag::Link { .. }) | Event::End(TagEnd::Link))
        };
        let mut page = String::new();
        html::push_html(&mut page, Parser::new(self.body).filter(|event| !is_link(event)));
        page
    }
}

/// The sections of a document whose heading is an id.
fn sections(document: &'static str, text: &'static str) -> impl Iterator<Item = Explanation> {
    text.split("\n## ").skip(1).flat_map(move |part| {
        let group = part.lines().next().unwrap_or_default();
        part.split("\n### ").skip(1).filter_map(move |section| {
            let (id, body) = section.split_once('\n')?;
            let body = body.trim();
            let title = body.split("\n\n").next()?;
            Some(Explanation { id, group, title, document, body })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_has_an_id_and_a_title_of_one_sentence() {
        assert!(all().len() > 100, "{}", all().len());
        for (number, explanation) in all().iter().enumerate() {
            let Explanation { id, title, .. } = explanation;
            assert!(id.contains('.') && !id.contains(' '), "{id:?} is not an id");
            assert!(all()[..number].iter().all(|other| other.id != *id), "{id} has two sections");
            assert!(title.ends_with('.') && !title.contains(". "), "{id}: {title:?}");
            assert!(title.len() < 160, "{id}: the title is too long");
        }
    }

    #[test]
    fn ids_are_found_in_any_case_and_integrations_share_a_section() {
        assert_eq!(find("Redirect.Query").unwrap().id, "redirect.query");
        assert_eq!(find("integration.my.key").unwrap().id, INTEGRATION);
        assert_eq!(find("integration").unwrap().link(), "docs/checks.md#integrationkey");
        assert!(find("integrations").is_none() && find("").is_none());
    }

    #[test]
    fn html_has_no_links() {
        let page = find("nango.key").unwrap().html();
        assert!(page.contains("<code>switch.md</code>") && !page.contains("<a "), "{page}");
    }
}
