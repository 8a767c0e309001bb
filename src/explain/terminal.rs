use anstyle::{AnsiColor, Style};
use pulldown_cmark::{Event, Parser, Tag, TagEnd};
use std::fmt::Write as _;

/// Renders a section: the id as heading, wrapped paragraphs and lists, indented code.
pub(super) fn render(id: &str, body: &str, columns: usize) -> String {
    let bold = Style::new().bold();
    let rule = "─".repeat(id.chars().count());
    let mut page =
        Page { columns, text: format!("{bold}{id}{bold:#}\n{rule}\n"), ..Page::default() };
    for event in Parser::new(body) {
        page.add(event);
    }
    page.text
}

/// Breaks a text at its spaces into lines of so many columns. The first line starts with `first`,
/// the others are indented as far. Escape sequences take no column; longer words and code in
/// backticks are not broken.
pub fn wrap(first: &str, text: &str, columns: usize) -> String {
    let indent = width(first);
    let mut wrapped = first.to_owned();
    let mut used = indent;
    for (number, word) in words(text).enumerate() {
        let word_width = width(word);
        if number > 0 && used + 1 + word_width > columns {
            wrapped.truncate(wrapped.trim_end_matches(' ').len());
            let _ = write!(wrapped, "\n{:indent$}", "");
            used = indent;
        } else if number > 0 {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += word_width;
    }
    wrapped
}

/// The text between spaces, except for spaces between a pair of backticks.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut in_code = false;
        let end = text.char_indices().find(|&(at, character)| {
            if character == '`' {
                // One without a partner is text.
                in_code = !in_code && text.get(at + 1..).is_some_and(|after| after.contains('`'));
            }
            character == ' ' && !in_code
        });
        let (word, after) = match end {
            Some((at, _)) => text.split_at(at),
            None => (text, ""),
        };
        rest = after.strip_prefix(' ');
        Some(word)
    })
}

fn width(text: &str) -> usize {
    anstream::adapter::strip_str(text).map(|part| part.chars().count()).sum()
}

const CODE: Style = AnsiColor::Cyan.on_default();

#[derive(Default)]
struct Page {
    columns: usize,
    text: String,
    /// The paragraph or list item so far.
    inline: String,
    /// The number of the next item; `None` for bullets. One for each list that is open.
    lists: Vec<Option<u64>>,
    in_code: bool,
    /// The address of the link that is open.
    link: String,
}

impl Page {
    fn add(&mut self, event: Event<'_>) {
        let bold = Style::new().bold();
        match event {
            Event::Start(Tag::List(first)) => {
                self.flush();
                self.lists.push(first);
            }
            Event::End(TagEnd::List(_)) => drop(self.lists.pop()),
            Event::End(TagEnd::Paragraph | TagEnd::Item) => self.flush(),
            Event::Start(Tag::CodeBlock(_)) => {
                self.in_code = true;
                self.text.push('\n');
            }
            Event::End(TagEnd::CodeBlock) => self.in_code = false,
            Event::Start(Tag::Strong) => self.put(format_args!("{bold}")),
            Event::End(TagEnd::Strong) => self.put(format_args!("{bold:#}")),
            Event::Start(Tag::Link { dest_url, .. }) => self.link = dest_url.into_string(),
            Event::End(TagEnd::Link) => self.end_link(),
            Event::Text(code) if self.in_code => {
                for line in code.lines() {
                    let _ = writeln!(self.text, "    {line}");
                }
            }
            Event::Code(code) => self.put(format_args!("{CODE}`{code}`{CODE:#}")),
            Event::Text(text) => self.put(format_args!("{text}")),
            Event::SoftBreak | Event::HardBreak => self.inline.push(' '),
            _ => {}
        }
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.inline.write_fmt(text);
    }

    /// A link to another section is an id, which the reader can pass to `explain`; any other gets
    /// its address, as seen from the root of the project.
    fn end_link(&mut self) {
        let link = std::mem::take(&mut self.link);
        if link.starts_with('#') {
            return;
        }
        let place = match link.strip_prefix("../") {
            Some(place) => place.to_owned(),
            None if link.contains("://") => link,
            None => format!("docs/{link}"),
        };
        self.put(format_args!(" ({place})"));
    }

    fn flush(&mut self) {
        let inline = std::mem::take(&mut self.inline);
        if inline.is_empty() {
            return;
        }
        let depth = self.lists.len();
        let first = match self.lists.last_mut() {
            None => {
                self.text.push('\n');
                String::new()
            }
            Some(None) => format!("{:1$}- ", "", depth * 2),
            Some(Some(number)) => {
                *number += 1;
                format!("{:1$}{2}. ", "", depth * 2, *number - 1)
            }
        };
        self.text.push_str(&wrap(&first, &inline, self.columns));
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(body: &str, columns: usize) -> String {
        let text = render("a.b", body, columns);
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn paragraphs_lists_and_code_are_wrapped_and_indented() {
        let body = "One two three\nfour `five`.\n\n**Fix:** Do it:\n\n1. first step here\n2. second\n\n- bullet\n\n```sh\ncode  stays   as it is, however long\n```\n";
        assert_eq!(
            plain(body, 16),
            "a.b\n───\n\nOne two three\nfour `five`.\n\nFix: Do it:\n  1. first step\n     here\n  2. second\n  - bullet\n\n    code  stays   as it is, however long\n"
        );
    }

    #[test]
    fn links_show_where_they_lead() {
        let body =
            "See [this](#other), [that](switch.md#a), [root](../x) and [web](https://a.example).";
        let shown = "See this, that (docs/switch.md#a), root (x) and web (https://a.example).";
        assert!(plain(body, 200).ends_with(&format!("\n{shown}\n")), "{}", plain(body, 200));
    }

    #[test]
    fn no_section_has_markup_that_a_terminal_cannot_show() {
        for explanation in crate::explain::all() {
            let text = anstream::adapter::strip_str(&explanation.terminal(80)).to_string();
            let body = text.lines().skip(2).collect::<Vec<_>>().join("\n");
            for markup in ["**", "](", "\n|", "<", "```"] {
                let found = body.contains(markup) && markup != "<";
                assert!(!found, "{}: {markup:?} in\n{text}", explanation.id);
            }
            for line in body.lines().filter(|line| line.contains(' ')) {
                assert!(line.trim().chars().count() <= 80, "{}: {line}", explanation.id);
            }
        }
    }
}
