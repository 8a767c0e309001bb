//! What can be written for a key.

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Integer(i64),
    Fraction,
    /// No setting is a date.
    Date,
    List(Vec<Value>),
    Table,
}

impl Value {
    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Wide enough for what a size becomes with its unit.
    pub(super) fn as_integer(&self) -> Option<i128> {
        if let Self::Integer(number) = self { Some((*number).into()) } else { None }
    }

    pub(super) fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    pub(super) fn is_table(&self) -> bool {
        *self == Self::Table
    }

    /// What a person calls it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Flag(_) => "true or false",
            Self::Integer(_) => "a number",
            Self::Fraction => "a fraction",
            Self::Date => "a date",
            Self::List(_) => "a list",
            Self::Table => "a table",
        }
    }

    /// The value as one line.
    pub(super) fn in_one_line(&self) -> String {
        match self {
            Self::Text(text) => {
                text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
            }
            Self::Flag(flag) => flag.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::List(values) if values.is_empty() => "off".into(),
            Self::List(values) => {
                values.iter().map(Self::in_one_line).collect::<Vec<_>>().join(", ")
            }
            Self::Fraction | Self::Date | Self::Table => self.kind().into(),
        }
    }
}
