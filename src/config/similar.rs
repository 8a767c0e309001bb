//! Suggestions: what was probably meant.

/// The item with the name that is most similar to the word, if one is similar enough.
pub(super) fn nearest<T>(
    word: &str,
    all: impl Iterator<Item = T>,
    name: impl Fn(&T) -> String,
) -> Option<T> {
    let word = normal(word);
    all.map(|one| (strsim::jaro_winkler(&normal(&name(&one)), &word), one))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, one)| one)
}

/// Whether two names differ only in case and separators.
pub(super) fn is_same_name(one: &str, other: &str) -> bool {
    normal(one) == normal(other)
}

fn normal(name: &str) -> String {
    name.to_lowercase().replace(['-', '_', '.'], "")
}
