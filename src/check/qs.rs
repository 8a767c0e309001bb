//! What Nango reads from a query: the semantics of the npm package `qs`. Without I/O.
//!
//! Nango's server sets Express' query parser to `qs.parse(query, { arrayLimit: 100 })`. This module
//! implements `qs` 6.17 with that option and the defaults of all others: `depth` 5,
//! `parameterLimit` 1000, no `comma`, no `allowDots`, no `allowPrototypes`, `duplicates: 'combine'`
//! and `strictMerge`. A test compares it with the package (`tests/peers/qs.rs`).

use serde_json::Value;
use std::collections::BTreeMap;

/// The option `arrayLimit` of Nango: a longer array becomes an object.
const ARRAY_LIMIT: usize = 100;

/// The option `parameterLimit`, by default: further parameters are ignored.
const PARAMETER_LIMIT: usize = 1000;

/// The option `depth`, by default: deeper brackets stay in the name.
const DEPTH: usize = 5;

/// The largest integer below which JavaScript's numbers are exact.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// The properties of JavaScript's `Object.prototype`. Without the option `allowPrototypes`, `qs`
/// ignores parameters with these names (ECMA-262 §20.1.3 and annex B.2.2).
const PROTOTYPE: [&str; 12] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// The parameters that Nango reads from a query, as npm `qs` 6.17 parses it with
/// `{ arrayLimit: 100 }`.
///
/// Two queries with equal results are the same to Nango: duplicates are arrays in the order of
/// the query, names with brackets are nested objects, and the order of different names is lost.
/// The query is one that a browser sends: ASCII, without the `?`.
pub fn read_by_nango(query: &str) -> Value {
    let mut root = Node::Object(Object::default());
    if !query.is_empty() {
        for (name, value) in values(query) {
            if let Some(parameter) = parameter(&name, value) {
                root = merge(root, parameter);
            }
        }
    }
    root.into_value()
}

/// A value under construction.
#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Array(Array),
    Object(Object),
}

/// An array of JavaScript: elements may be absent until the end.
#[derive(Clone, Debug, Default)]
struct Array {
    elements: Vec<Option<Node>>,
    /// The index of the last value that was in conflict with another type.
    conflict: Option<u64>,
}

/// An object of JavaScript.
#[derive(Clone, Debug, Default)]
struct Object {
    properties: BTreeMap<String, Node>,
    /// The last index of an array that exceeded the limit and became this object.
    overflow: Option<u64>,
    /// The index of the last value that was in conflict with another type.
    conflict: Option<u64>,
}

impl Node {
    /// The final value: arrays without absent elements (`compact`).
    fn into_value(self) -> Value {
        match self {
            Self::Text(text) => Value::String(text),
            Self::Array(array) => {
                array.elements.into_iter().flatten().map(Self::into_value).collect()
            }
            Self::Object(object) => object
                .properties
                .into_iter()
                .map(|(name, value)| (name, value.into_value()))
                .collect(),
        }
    }

    /// The elements to append to an array (`Array.prototype.concat`).
    fn into_elements(self) -> Vec<Option<Self>> {
        match self {
            Self::Array(array) => array.elements,
            other => vec![Some(other)],
        }
    }
}

impl Array {
    fn new(elements: Vec<Option<Node>>) -> Self {
        Self { elements, conflict: None }
    }

    /// The number of elements that are present.
    fn count(&self) -> usize {
        self.elements.iter().flatten().count()
    }

    /// The index after the last element.
    fn next_index(&self) -> u64 {
        self.elements.len() as u64
    }

    /// The object with the same elements (`arrayToObject`).
    fn into_object(self) -> Object {
        let elements = self.elements.into_iter().enumerate();
        Object {
            properties: elements
                .filter_map(|(index, element)| Some((index.to_string(), element?)))
                .collect(),
            ..Object::default()
        }
    }

    /// The array, or an object if one of its indices exceeds the limit.
    fn limited(self, count: usize) -> Node {
        if count <= ARRAY_LIMIT {
            return Node::Array(self);
        }
        let last = self.next_index().checked_sub(1);
        Node::Object(Object { overflow: last, ..self.into_object() })
    }
}

/// The names with their values, decoded, in the order in which they are merged (`parseValues`).
fn values(query: &str) -> Vec<(String, Node)> {
    let query = brackets_decoded(query);
    let mut values: Vec<(String, Node)> = Vec::new();
    let mut positions: BTreeMap<String, usize> = BTreeMap::new();
    for part in query.split('&').take(PARAMETER_LIMIT) {
        // The first `]=` separates, so that a `=` between brackets belongs to the name.
        let (name, value) = match part.split_once("]=") {
            Some((name, value)) => (decoded(&format!("{name}]")), decoded(value)),
            None => match part.split_once('=') {
                Some((name, value)) => (decoded(name), decoded(value)),
                None => (decoded(part), String::new()),
            },
        };
        let value = Node::Text(value);
        let position = positions.get(&name);
        if let Some((_, known)) = position.and_then(|position| values.get_mut(*position)) {
            let first = std::mem::replace(known, Node::Text(String::new()));
            *known = combine(first, value);
        } else {
            positions.insert(name.clone(), values.len());
            values.push((name, value));
        }
    }
    // JavaScript enumerates array indices first (ECMA-262 §10.1.11.1).
    let is_index = |name: &str| index(name).filter(|index| *index < u64::from(u32::MAX));
    values.sort_by_key(|(name, _)| is_index(name).unwrap_or(u64::MAX));
    values
}

/// The query with `%5B` and `%5D` decoded, in names and in values.
fn brackets_decoded(query: &str) -> String {
    let mut parts = query.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let bracket = match part.get(..2) {
            Some("5B" | "5b") => "[",
            Some("5D" | "5d") => "]",
            _ => {
                decoded.push('%');
                decoded.push_str(part);
                continue;
            }
        };
        decoded.push_str(bracket);
        decoded.push_str(part.get(2..).unwrap_or_default());
    }
    decoded
}

/// A name or value, decoded: `+` is a space. When `decodeURIComponent` fails, because of an invalid
/// escape or invalid UTF-8, the escapes stay.
fn decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.as_bytes().split(|byte| *byte == b'%');
    bytes.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        let escape = part.split_at_checked(2).and_then(|(escape, rest)| {
            let [high, low] = *escape else { return None };
            let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16)?).ok();
            Some((digit(high)? << 4 | digit(low)?, rest))
        });
        let Some((byte, rest)) = escape else { return text };
        bytes.push(byte);
        bytes.extend_from_slice(rest);
    }
    String::from_utf8(bytes).unwrap_or(text)
}

/// The index that a name is, as JavaScript writes it: without a sign or leading zeros.
fn index(name: &str) -> Option<u64> {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = digits && (name == "0" || !name.starts_with('0'));
    canonical.then(|| name.parse().ok()).flatten().filter(|index| *index <= MAX_SAFE_INTEGER)
}

/// The nested value of one name (`parseKeys`); `None` for a name that is ignored.
fn parameter(name: &str, value: Node) -> Option<Node> {
    if name.is_empty() {
        return None;
    }
    let mut node = value;
    for segment in segments(name)?.into_iter().rev() {
        node = match segment {
            Segment::Append => match node {
                Node::Object(object) if object.overflow.is_some() => Node::Object(object),
                node => combine(Node::Array(Array::default()), node),
            },
            Segment::Name { name, bracketed } => match index(name).filter(|_| bracketed) {
                Some(index) => match usize::try_from(index) {
                    Ok(place) if place < ARRAY_LIMIT => {
                        let mut elements = vec![None; place];
                        elements.push(Some(node));
                        Node::Array(Array::new(elements))
                    }
                    _ => Node::Object(Object { overflow: Some(index), ..property(name, node) }),
                },
                None => Node::Object(property(name, node)),
            },
        };
    }
    Some(node)
}

fn property(name: &str, value: Node) -> Object {
    Object { properties: BTreeMap::from([(name.to_owned(), value)]), ..Object::default() }
}

/// One step of a nested name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment<'n> {
    /// `[]`
    Append,
    /// A name, with or without brackets around it.
    Name { name: &'n str, bracketed: bool },
}

/// Splits `a[b][]` into `a`, `b` and `[]`; `None` when a step is a property of every object
/// (`splitKeyIntoSegments`).
fn segments(key: &str) -> Option<Vec<Segment<'_>>> {
    let mut segments = Vec::new();
    let (parent, mut rest) = key.split_at(key.find('[').unwrap_or(key.len()));
    if !parent.is_empty() {
        if PROTOTYPE.contains(&parent) {
            return None;
        }
        segments.push(Segment::Name { name: parent, bracketed: false });
    }
    while !rest.is_empty() {
        let close = (segments.len() < DEPTH + usize::from(!parent.is_empty()))
            .then(|| closing_bracket(rest))
            .flatten();
        let Some(close) = close else {
            // Too deep, or unbalanced: the remainder is one name, with its brackets.
            segments.push(Segment::Name { name: rest, bracketed: true });
            break;
        };
        let content = rest.get(1..close).unwrap_or_default();
        if PROTOTYPE.contains(&content) {
            return None;
        }
        segments.push(if content.is_empty() {
            Segment::Append
        } else {
            Segment::Name { name: content, bracketed: true }
        });
        let after = rest.get(close + 1..).unwrap_or_default();
        // Text between brackets is lost: `a[b]c[d]` is `a[b][d]`.
        rest = after.find('[').and_then(|open| after.get(open..)).unwrap_or_default();
    }
    Some(segments)
}

/// The position of the bracket that closes the first one.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut level = 0_usize;
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => level += 1,
            b']' => level -= 1,
            _ => {}
        }
        if level == 0 {
            return Some(position);
        }
    }
    None
}

/// Appends to an array, or to the object that a long one became (`combine`).
fn combine(first: Node, second: Node) -> Node {
    match first {
        Node::Object(Object { mut properties, overflow: Some(mut last), conflict }) => {
            // `second` is a new value, and those have no absent elements here.
            for element in second.into_elements().into_iter().flatten() {
                last += 1;
                properties.insert(last.to_string(), element);
            }
            Node::Object(Object { properties, overflow: Some(last), conflict })
        }
        first => {
            let mut elements = first.into_elements();
            elements.extend(second.into_elements());
            let count = elements.len();
            Array::new(elements).limited(count)
        }
    }
}

/// Merges a value into the one that has the same name (`merge`).
fn merge(target: Node, source: Node) -> Node {
    match (target, source) {
        (target, Node::Text(source)) if source.is_empty() => target,
        (Node::Array(mut target), source @ Node::Text(_)) => {
            let over = target.count() >= ARRAY_LIMIT;
            let last = target.next_index();
            target.elements.push(Some(source));
            if over {
                Node::Object(Object { overflow: Some(last), ..target.into_object() })
            } else {
                Node::Array(target)
            }
        }
        (Node::Object(mut target), source @ Node::Text(_)) => {
            let index = match (&mut target.overflow, &mut target.conflict) {
                (Some(last), _) | (None, Some(last)) => {
                    *last += 1;
                    *last
                }
                (None, None) => {
                    let elements = vec![Some(Node::Object(target)), Some(source)];
                    return Node::Array(Array { elements, conflict: Some(1) });
                }
            };
            target.properties.insert(index.to_string(), source);
            Node::Object(target)
        }
        (target @ Node::Text(_), Node::Object(Object { properties, overflow: Some(last), .. })) => {
            // Every index increases by one, for the value before them.
            let moved = properties
                .into_iter()
                .filter_map(|(name, value)| Some(((index(&name)? + 1).to_string(), value)));
            let properties = std::iter::once(("0".to_owned(), target)).chain(moved).collect();
            Node::Object(Object { properties, overflow: Some(last + 1), conflict: None })
        }
        (target @ Node::Text(_), source) => combine(target, source),
        (Node::Array(target), Node::Array(source)) => merge_arrays(target, source),
        (Node::Array(target), Node::Object(source)) => {
            let conflict = target.conflict.and_then(|_| target.next_index().checked_sub(1));
            Node::Object(merge_objects(Object { conflict, ..target.into_object() }, source))
        }
        (Node::Object(target), Node::Array(source)) => {
            Node::Object(merge_objects(target, source.into_object()))
        }
        (Node::Object(target), Node::Object(source)) => Node::Object(merge_objects(target, source)),
    }
}

fn merge_arrays(mut target: Array, source: Array) -> Node {
    for (index, element) in source.elements.into_iter().enumerate() {
        let Some(element) = element else { continue };
        if target.elements.len() <= index {
            target.elements.resize(index + 1, None);
        }
        let Some(place) = target.elements.get_mut(index) else { continue };
        match (place.take(), element) {
            (None, element) => *place = Some(element),
            (Some(known @ (Node::Array(_) | Node::Object(_))), element)
                if !matches!(element, Node::Text(_)) =>
            {
                *place = Some(merge(known, element));
            }
            (known, element) => {
                *place = known;
                target.elements.push(Some(element));
            }
        }
    }
    let count = target.count();
    target.limited(count)
}

fn merge_objects(mut target: Object, source: Object) -> Object {
    for (name, value) in source.properties {
        let merged = match target.properties.remove(&name) {
            Some(known) => merge(known, value),
            None => value,
        };
        target.properties.insert(name.clone(), merged);
        if let (Some(last), None) = (source.overflow, target.overflow) {
            let indices = target.properties.keys().filter_map(|name| index(name));
            target.overflow = Some(indices.max().map_or(last, |max| max.max(last)));
        }
        let Some(index) = index(&name) else { continue };
        target.overflow = target.overflow.map(|last| last.max(index));
        target.conflict = target.conflict.map(|last| last.max(index));
    }
    target
}

#[cfg(test)]
mod tests;
