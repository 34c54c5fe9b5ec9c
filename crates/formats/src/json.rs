//! Small JSON files, read into as little as they need: known keys only, counted while they arrive.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::FormatError;
use crate::error::clip;

/// Longest JSON string of a file that is read through this module, escapes included.
const STRING_LIMIT_BYTES: usize = 64 << 10;

/// Bytes of all strings kept of one file.
const TEXT_LIMIT_BYTES: usize = 64 << 10;

/// Values kept of one file: three lists for 1024 layers, and the rest. An object counts as [`OBJECT_UNITS`].
const UNITS_LIMIT: usize = 4096;
const OBJECT_UNITS: usize = 20;

/// Reads the JSON file `path`, at most `limit_bytes` long.
///
/// # Errors
/// [`FormatError::Io`]; [`FormatError::Unsupported`] if it is no regular file or too long.
pub(crate) fn read(path: &Path, limit_bytes: usize) -> Result<Vec<u8>, FormatError> {
    let io = |e| FormatError::io(path, e);
    // Looked at before opening: opening a pipe would wait for its writer.
    let about = std::fs::metadata(path).map_err(io)?;
    let size = usize::try_from(about.len()).unwrap_or(usize::MAX);
    if !about.is_file() || size > limit_bytes {
        let why = format!("no regular file of at most {limit_bytes} bytes (it has {size})");
        return Err(FormatError::unsupported(path, "file", why));
    }
    let mut bytes = Vec::with_capacity(size);
    std::fs::File::open(path).map_err(io)?.take(about.len()).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// The length of the longest string in `json`, escapes included, without parsing it.
pub(crate) fn longest_string(json: &[u8]) -> usize {
    let mut longest = 0;
    let mut rest = json.iter();
    while rest.by_ref().any(|byte| *byte == b'"') {
        let mut len = 0usize;
        while let Some(byte) = rest.next() {
            match byte {
                b'"' => break,
                b'\\' => {
                    rest.next();
                    len += 2;
                }
                _ => len += 1,
            }
        }
        longest = longest.max(len);
    }
    longest
}

/// Refuses a file with a string so long that reading it would take too much memory.
pub(crate) fn check_strings(file: &Path, json: &[u8]) -> Result<(), FormatError> {
    let longest = longest_string(json);
    if longest > STRING_LIMIT_BYTES {
        let why = format!("a string of {longest} bytes; the limit is {STRING_LIMIT_BYTES}");
        return Err(FormatError::corrupt(file, "json", why));
    }
    Ok(())
}

/// A JSON value of which only known keys were kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Object(BTreeMap<String, Node>),
}

impl Node {
    /// The value for an error text.
    pub(crate) fn show(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Unsigned(value) => value.to_string(),
            Self::Negative(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => clip(&format!("\"{value}\"")),
            Self::List(_) => "a list".into(),
            Self::Object(_) => "an object".into(),
        }
    }
}

/// Parses the object in `json`, keeping the keys in `known` and skipping all others.
///
/// # Errors
/// [`FormatError::Corrupt`] if it is no JSON, a known key appears twice in one object, or the known values are too many.
/// The error names the key that was being read.
pub(crate) fn parse(file: &Path, json: &[u8], known: &[&str]) -> Result<BTreeMap<String, Node>, FormatError> {
    check_strings(file, json)?;
    let mut state = State { known, path: String::new(), units: UNITS_LIMIT, text_bytes: TEXT_LIMIT_BYTES };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = Keep(&mut state).deserialize(&mut reader).and_then(|node| reader.end().map(|()| node));
    match read {
        Ok(Node::Object(map)) => Ok(map),
        Ok(other) => Err(FormatError::corrupt(file, "json", format!("is {}, not an object", other.show()))),
        Err(e) => {
            let field = if state.path.is_empty() { "json" } else { &state.path };
            Err(FormatError::corrupt(file, field, e.to_string()))
        }
    }
}

struct State<'a> {
    known: &'a [&'a str],
    /// The key being read, with those around it; left standing by an error.
    path: String,
    units: usize,
    text_bytes: usize,
}

impl State<'_> {
    fn charge<E: Error>(&mut self, units: usize) -> Result<(), E> {
        self.units = self.units.checked_sub(units).ok_or_else(|| E::custom("too many values"))?;
        Ok(())
    }
}

/// Reads one value.
struct Keep<'s, 'a>(&'s mut State<'a>);

impl<'de> DeserializeSeed<'de> for Keep<'_, '_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keep<'_, '_> {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Negative(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        let left = self.0.text_bytes.checked_sub(text.len());
        self.0.text_bytes = left.ok_or_else(|| E::custom("too much text"))?;
        Ok(Node::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element_seed(Keep(&mut *self.0))? {
            self.0.charge(1)?;
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut object = BTreeMap::new();
        let outer = self.0.path.len();
        while let Some(key) = map.next_key_seed(Known(self.0.known))? {
            let Some(key) = key else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            self.0.charge(if object.is_empty() { OBJECT_UNITS } else { 1 })?;
            if outer > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(key);
            if object.contains_key(key) {
                return Err(A::Error::custom("appears twice"));
            }
            let node = map.next_value_seed(Keep(&mut *self.0))?;
            object.insert(key.into(), node);
            self.0.path.truncate(outer);
        }
        Ok(Node::Object(object))
    }
}

/// A key, if it is known.
struct Known<'a>(&'a [&'a str]);

impl<'de, 'a> DeserializeSeed<'de> for Known<'a> {
    type Value = Option<&'a str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Known<'a> {
    type Value = Option<&'a str>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().copied().find(|known| *known == key))
    }
}

/// An object of a file, with the way to it for error texts.
#[derive(Debug, Clone)]
pub(crate) struct Section<'a> {
    file: &'a Path,
    prefix: String,
    map: &'a BTreeMap<String, Node>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(file: &'a Path, map: &'a BTreeMap<String, Node>) -> Self {
        Self { file, prefix: String::new(), map }
    }

    /// `key` with the keys around it.
    pub(crate) fn field(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(crate) fn corrupt(&self, key: &str, why: impl AsRef<str>) -> FormatError {
        FormatError::corrupt(self.file, &self.field(key), why)
    }

    pub(crate) fn unsupported(&self, key: &str, why: impl AsRef<str>) -> FormatError {
        FormatError::unsupported(self.file, &self.field(key), why)
    }

    pub(crate) fn missing(&self, key: &str) -> FormatError {
        FormatError::missing(self.file, &self.field(key))
    }

    /// The value of `key`, null included.
    pub(crate) fn node(&self, key: &str) -> Option<&'a Node> {
        self.map.get(key)
    }

    /// The value of `key`, unless it is null or missing.
    pub(crate) fn given(&self, key: &str) -> Option<&'a Node> {
        self.map.get(key).filter(|node| **node != Node::Null)
    }

    /// Whether `key` is there and null.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.map.get(key) == Some(&Node::Null)
    }

    fn wrong(&self, key: &str, node: &Node, wanted: &str) -> FormatError {
        self.corrupt(key, format!("is {}, not {wanted}", node.show()))
    }

    /// The object at `key`, if it is given.
    pub(crate) fn section(&self, key: &str) -> Result<Option<Section<'a>>, FormatError> {
        match self.given(key) {
            None => Ok(None),
            Some(Node::Object(map)) => {
                Ok(Some(Section { file: self.file, prefix: format!("{}{key}.", self.prefix), map }))
            }
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }

    /// A whole number from 0 on.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>, FormatError> {
        self.given(key).map(|node| self.count_of(key, node)).transpose()
    }

    fn count_of(&self, key: &str, node: &Node) -> Result<usize, FormatError> {
        let count = match node {
            Node::Unsigned(value) => usize::try_from(*value).ok(),
            // Some writers make every number a float. 2^53 is the end of exactness, and exact in f64.
            Node::Float(value) if value.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(value) => {
                format!("{value:.0}").parse().ok()
            }
            _ => None,
        };
        count.ok_or_else(|| self.wrong(key, node, "a whole number from 0 on"))
    }

    /// A whole number from 1 to `limit`; `default` where it is null or missing.
    pub(crate) fn size(&self, key: &str, default: usize, limit: usize) -> Result<usize, FormatError> {
        let size = self.count(key)?.unwrap_or(default);
        if (1..=limit).contains(&size) {
            return Ok(size);
        }
        Err(self.corrupt(key, format!("is {size}; it has to be from 1 to {limit}")))
    }

    /// A finite number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f32>, FormatError> {
        let Some(node) = self.given(key) else { return Ok(None) };
        self.number_of(key, node).map(Some)
    }

    fn number_of(&self, key: &str, node: &Node) -> Result<f32, FormatError> {
        let value = match node {
            // Rounding to f32 is meant here; integers above 2^53 are rounded twice, which no setting comes near.
            Node::Unsigned(value) => Some(*value as f32),
            Node::Negative(value) => Some(*value as f32),
            Node::Float(value) => Some(*value as f32),
            _ => None,
        };
        value.filter(|value| value.is_finite()).ok_or_else(|| self.wrong(key, node, "a finite number"))
    }

    /// A finite number above 0; `default` where it is null or missing.
    pub(crate) fn positive(&self, key: &str, default: f32) -> Result<f32, FormatError> {
        match self.number(key)? {
            None => Ok(default),
            Some(value) if value > 0.0 => Ok(value),
            Some(value) => Err(self.corrupt(key, format!("is {value}; it has to be above 0"))),
        }
    }

    /// A finite number above 0 that has to be there.
    pub(crate) fn required_positive(&self, key: &str) -> Result<f32, FormatError> {
        if self.given(key).is_none() {
            return Err(self.missing(key));
        }
        self.positive(key, 0.0)
    }

    /// True or false.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, FormatError> {
        match self.given(key) {
            None => Ok(None),
            Some(Node::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, FormatError> {
        match self.given(key) {
            None => Ok(None),
            Some(Node::Text(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(key, other, "a text")),
        }
    }

    fn list(&self, key: &str) -> Result<Option<&'a [Node]>, FormatError> {
        match self.given(key) {
            None => Ok(None),
            Some(Node::List(list)) => Ok(Some(list)),
            Some(other) => Err(self.wrong(key, other, "a list")),
        }
    }

    /// A list of whole numbers from 0 on.
    pub(crate) fn counts(&self, key: &str) -> Result<Option<Vec<usize>>, FormatError> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        list.iter().map(|node| self.count_of(key, node)).collect::<Result<_, _>>().map(Some)
    }

    /// A list of finite numbers.
    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>, FormatError> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        list.iter().map(|node| self.number_of(key, node)).collect::<Result<_, _>>().map(Some)
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, FormatError> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let text = |node: &'a Node| match node {
            Node::Text(text) => Ok(text.as_str()),
            other => Err(self.wrong(key, other, "a text")),
        };
        list.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A token id, or a list of them; `[]` where it is null.
    pub(crate) fn tokens(&self, key: &str) -> Result<Option<Vec<u32>>, FormatError> {
        match self.node(key) {
            None => Ok(None),
            Some(Node::Null) => Ok(Some(Vec::new())),
            Some(Node::List(list)) => {
                list.iter().map(|node| self.token_of(key, node)).collect::<Result<_, _>>().map(Some)
            }
            Some(node) => Ok(Some(vec![self.token_of(key, node)?])),
        }
    }

    /// A token id.
    pub(crate) fn token(&self, key: &str) -> Result<Option<u32>, FormatError> {
        self.given(key).map(|node| self.token_of(key, node)).transpose()
    }

    fn token_of(&self, key: &str, node: &Node) -> Result<u32, FormatError> {
        let id = self.count_of(key, node).ok().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.wrong(key, node, "a token id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of_error(json: &str) -> String {
        let error = parse(Path::new("c.json"), json.as_bytes(), &["a", "b"]).unwrap_err();
        error.field().unwrap().into()
    }

    #[test]
    fn unknown_keys_are_skipped_at_any_depth() {
        let deep = format!(r#"{{"x":{}{}, "a":{{"y":[{{}}],"b":2}}}}"#, "[".repeat(9_000), "]".repeat(9_000));
        let map = parse(Path::new("c.json"), deep.as_bytes(), &["a", "b"]).unwrap();
        assert_eq!(map.keys().collect::<Vec<_>>(), ["a"]);
        let section = Section::new(Path::new("c.json"), &map).section("a").unwrap().unwrap();
        assert_eq!(section.count("b").unwrap(), Some(2));
    }

    #[test]
    fn an_error_names_the_key_being_read() {
        assert_eq!(field_of_error(r#"{"a":{"b":1,"b":2}}"#), "a.b");
        assert_eq!(field_of_error(r#"{"a":{"b":"#), "a.b");
        assert_eq!(field_of_error("[]"), "json");
        assert_eq!(field_of_error(&format!(r#"{{"a":{}"#, "[".repeat(5_000))), "a");
        assert_eq!(field_of_error(&format!(r#"{{"a":[{}0]}}"#, "0,".repeat(5_000))), "a");
    }

    #[test]
    fn the_longest_string_counts_escapes_and_open_ends() {
        assert_eq!(longest_string(br#"{"ab":"c\"d\\","e":1}"#), 6);
        assert_eq!(longest_string(br#"["abc"#), 3);
        assert_eq!(longest_string(br#"["abc\"#), 5);
        assert_eq!(longest_string(b"{}"), 0);
    }

    #[test]
    fn whole_floats_are_counts() {
        let map = parse(Path::new("c.json"), br#"{"a":48.0,"b":1.5}"#, &["a", "b"]).unwrap();
        let section = Section::new(Path::new("c.json"), &map);
        assert_eq!(section.count("a").unwrap(), Some(48));
        assert!(section.count("b").is_err());
    }
}
