//! The command to go back, for a shell.

/// The command line of this run, without what belongs to the switch alone. Keys are never arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation(Vec<String>);

/// Options of a switch that do not belong to the command that goes back, and whether they have a value.
const DROPPED: [(&str, bool); 15] = [
    ("--callback", true),
    ("--ack", true),
    ("--accept-risk", true),
    ("--only", true),
    ("--yes", false),
    ("-y", false),
    ("--plan", false),
    ("--back", false),
    ("--status", false),
    ("--json", false),
    ("--quiet", false),
    ("-q", false),
    ("--verbose", false),
    ("-v", false),
    ("--register-clients", false),
];

impl Invocation {
    /// From the arguments of the process, with the name of the program.
    pub fn new(arguments: impl IntoIterator<Item = String>) -> Self {
        let mut words = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(word) = arguments.next() {
            let name = word.split('=').next().unwrap_or_default();
            let is_dropped = |(dropped, _): &&(&str, bool)| *dropped == name;
            match DROPPED.iter().find(is_dropped) {
                // The value is the next argument.
                Some((_, true)) if !word.contains('=') => drop(arguments.next()),
                Some(_) => {}
                None => words.push(word),
            }
        }
        Self(words)
    }

    /// The command that goes back.
    pub fn back(&self) -> String {
        let mut words: Vec<_> = self.0.iter().map(|word| quoted(word)).collect();
        let mut is_value = false;
        let subcommand = words.iter().position(|word| {
            let is_found = word == "switch" && !is_value;
            is_value = matches!(word.as_str(), "-c" | "--config");
            is_found
        });
        words.insert(subcommand.map_or(words.len(), |at| at + 1), "--back".into());
        words.join(" ")
    }
}

/// A word for POSIX shells (XCU §2.2).
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn back(arguments: &[&str]) -> String {
        Invocation::new(arguments.iter().map(ToString::to_string)).back()
    }

    #[test]
    fn the_command_to_go_back_keeps_the_environment_and_drops_the_callback() {
        let given = [
            "callback-edge",
            "-c",
            "my config.toml",
            "switch",
            "--callback",
            "https://a/cb",
            "--yes",
            "--ack",
            "prod/slack=it's fine",
            "--accept-risk=x=y",
            "--environment",
            "prod,dev",
            "--project=p.toml",
            "--journal",
            "j.json",
            "--json",
        ];
        assert_eq!(
            back(&given),
            "callback-edge -c 'my config.toml' switch --back --environment prod,dev --project=p.toml \
             --journal j.json"
        );
        assert_eq!(back(&["callback-edge", "switch", "--back"]), "callback-edge switch --back");
    }

    #[test]
    fn a_shell_reads_every_word_as_it_was_given() {
        for word in [
            "", "a b", "it's", "$HOME", "`id`", "a;b", "a\"b", "*", "~", "#", "\\", "é", "a\nb",
            "!x",
        ] {
            let script = format!("printf %s {}", quoted(word));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
