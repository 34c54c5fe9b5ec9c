//! The recogniser: text in, text and calls out.

use super::json::{Cursor, Extent, Match};
use super::python;

/// Bytes that one call may take before it is taken for text.
const MOST_BYTES: usize = 256 << 10;
/// Held text that is long.
const LONG_BYTES: usize = 4 << 10;

/// What a piece of an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// It is text.
    Text(String),
    /// A call begins.
    Call {
        /// Calls before it.
        index: usize,
        /// The tool.
        name: String,
    },
    /// More of the arguments of a call, JSON in all.
    Arguments {
        /// The call.
        index: usize,
        /// What comes next.
        text: String,
    },
}

/// Finds calls in the text of one answer.
#[derive(Debug, Clone)]
pub struct Recogniser {
    names: Vec<String>,
    /// Text of which is not known yet what it says.
    held: String,
    /// How long it has to be for the next look, once it is long.
    next_bytes: usize,
    state: State,
    n_calls: usize,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Text, in which a call may begin.
    Text,
    /// After a call: what separates calls is no text.
    Between,
    /// In a JSON call, after its name or a value.
    Keys { has_arguments: bool },
    /// In a value of a JSON call.
    Value(Extent, Use),
    /// In a list of calls, before the bracket that opens it and a name, or before the name of a further one.
    List { is_first: bool },
    /// In a list of calls, after one.
    Listed,
    /// In the arguments of a tagged call.
    Tagged,
}

/// What a value of a JSON call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Arguments as they should be.
    Object,
    /// Arguments as JSON in a string, or nothing that can be arguments.
    Other,
    /// Something else.
    Skip { has_arguments: bool },
}

/// The shape of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Json,
    List,
    Tagged,
}

impl Recogniser {
    /// For tools with these names; without any, everything is text.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        // Where one name begins another, the longer one is tried first.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Self { names, held: String::new(), next_bytes: 0, state: State::Text, n_calls: 0 }
    }

    /// Calls that have begun.
    pub fn n_calls(&self) -> usize {
        self.n_calls
    }

    /// Takes more of the answer; returns what is certain because of it.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        let mut parts = Vec::new();
        // What is held is read from its beginning each time: once it is long, only when it has grown by a share of itself,
        // so that all readings together take time in proportion to the answer.
        if self.held.len() < LONG_BYTES || self.held.len() >= self.next_bytes {
            while self.step(&mut parts) {}
            self.next_bytes = self.held.len() + self.held.len() / 8;
        }
        if self.held.len() > MOST_BYTES {
            self.state = State::Text;
            emit(&mut parts, Part::Text(std::mem::take(&mut self.held)));
        }
        parts
    }

    /// The answer is over; returns what was held back.
    pub fn finish(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        while self.step(&mut parts) {}
        match self.state {
            State::Tagged => self.tagged(self.held.len(), 0, &mut parts),
            State::Keys { has_arguments: false } => self.arguments("{}".to_owned(), &mut parts),
            State::Value(_, Use::Other) => self.value_in_string(&mut parts),
            State::Text | State::List { .. } => {}
            _ => self.held.clear(),
        }
        let text = std::mem::take(&mut self.held);
        emit(&mut parts, Part::Text(text));
        self.state = State::Text;
        parts
    }

    /// One step; whether another may follow.
    fn step(&mut self, parts: &mut Vec<Part>) -> bool {
        match self.state {
            State::Text => self.text(parts),
            State::Between => {
                let rest = self.held.trim_start_matches([' ', '\t', '\r', '\n', ',', ';', ']']);
                self.held = rest.to_owned();
                if !self.held.is_empty() {
                    self.state = State::Text;
                }
                !self.held.is_empty()
            }
            State::Keys { has_arguments } => self.keys(has_arguments, parts),
            State::Value(extent, what) => self.value(extent, what, parts),
            State::List { is_first } => self.list(is_first, parts),
            State::Listed => {
                let rest = self.held.trim_start();
                self.state = match rest.chars().next() {
                    None => return false,
                    Some(',') => State::List { is_first: false },
                    Some(_) => State::Between,
                };
                self.held = rest.strip_prefix(',').unwrap_or(rest).to_owned();
                true
            }
            State::Tagged => match self.held.find("</function>") {
                Some(end) => {
                    self.tagged(end, "</function>".len(), parts);
                    true
                }
                None => false,
            },
        }
    }

    /// Lets text through up to where a call begins. White space is held back: before a call, it is the call's.
    fn text(&mut self, parts: &mut Vec<Part>) -> bool {
        let mut from = 0;
        let found = loop {
            let Some(at) = self.held[from..].find(['{', '[', '<']).map(|at| from + at) else {
                break None;
            };
            match begins(&self.held[at..], &self.names) {
                Match::No => from = at + 1,
                Match::Maybe => break Some((at, None)),
                Match::Yes(begun) => break Some((at, Some(begun))),
            }
        };
        let begin = found.map_or(self.held.len(), |(at, _)| at);
        let call = found.and_then(|(_, begun)| begun).map(|(shape, name, len)| (shape, name.to_owned(), len));
        let end = self.held[..begin].trim_end().len();
        let rest = self.held.split_off(end);
        emit(parts, Part::Text(std::mem::replace(&mut self.held, rest)));
        let Some((shape, name, len)) = call else { return false };
        self.state = match shape {
            Shape::Json => State::Keys { has_arguments: false },
            Shape::List => State::List { is_first: true },
            Shape::Tagged => State::Tagged,
        };
        if shape != Shape::List {
            self.held.drain(..begin - end + len);
            self.call(name, parts);
        }
        true
    }

    fn call(&mut self, name: String, parts: &mut Vec<Part>) {
        parts.push(Part::Call { index: self.n_calls, name });
        self.n_calls += 1;
    }

    /// More arguments of the last call.
    fn arguments(&self, text: String, parts: &mut Vec<Part>) {
        if !text.is_empty() {
            parts.push(Part::Arguments { index: self.n_calls - 1, text });
        }
    }

    /// The end of a JSON call, or the next key and the beginning of its value.
    fn keys(&mut self, has_arguments: bool, parts: &mut Vec<Part>) -> bool {
        let mut cursor = Cursor::new(&self.held);
        let found = next_key(&mut cursor);
        let rest = cursor.rest.len();
        let what = match found {
            Match::Maybe => return false,
            Match::Yes(Some(key)) => match key {
                "\"parameters\"" | "\"arguments\"" if !has_arguments => match cursor.rest.chars().next() {
                    None => return false,
                    Some('{') => Use::Object,
                    Some(_) => Use::Other,
                },
                _ => Use::Skip { has_arguments },
            },
            // The closing bracket, or something that does not belong here.
            Match::Yes(None) | Match::No => {
                if !has_arguments {
                    self.arguments("{}".to_owned(), parts);
                }
                self.held.drain(..self.held.len() - rest);
                self.state = State::Between;
                return true;
            }
        };
        self.held.drain(..self.held.len() - rest);
        self.state = State::Value(Extent::default(), what);
        true
    }

    fn value(&mut self, mut extent: Extent, what: Use, parts: &mut Vec<Part>) -> bool {
        if what == Use::Other {
            // All of it, or nothing.
            let Some(end) = Extent::default().end(&self.held) else { return false };
            let rest = self.held.split_off(end);
            self.value_in_string(parts);
            self.held = rest;
            self.state = State::Keys { has_arguments: true };
            return true;
        }
        let end = extent.end(&self.held);
        let rest = self.held.split_off(end.unwrap_or(self.held.len()));
        let text = std::mem::replace(&mut self.held, rest);
        let has_arguments = match what {
            Use::Skip { has_arguments } => has_arguments,
            _ => {
                self.arguments(text, parts);
                true
            }
        };
        self.state = match end {
            Some(_) => State::Keys { has_arguments },
            None => State::Value(extent, what),
        };
        end.is_some()
    }

    /// Arguments that are not an object: JSON in a string is taken out of it; nothing else can be arguments.
    fn value_in_string(&mut self, parts: &mut Vec<Part>) {
        let text = std::mem::take(&mut self.held);
        let inner = serde_json::from_str::<String>(&text).unwrap_or_default();
        let is_object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&inner).is_ok();
        self.arguments(if is_object { inner } else { "{}".to_owned() }, parts);
    }

    /// One call of a Python list, from its name on.
    fn list(&mut self, is_first: bool, parts: &mut Vec<Part>) -> bool {
        let mut cursor = Cursor::new(self.held.trim_start());
        if is_first {
            // It is there, or this would not be a list.
            cursor.rest = cursor.rest.strip_prefix('[').unwrap_or(cursor.rest).trim_start();
        }
        if cursor.rest.is_empty() {
            return false;
        }
        let name = match cursor.name(&self.names, "(") {
            Match::Yes(name) => name.to_owned(),
            Match::Maybe => return false,
            Match::No => {
                self.state = State::Between;
                return true;
            }
        };
        let Some(end) = python::extent(cursor.rest) else { return false };
        let (inside, rest) = cursor.rest.split_at(end);
        let arguments = python::arguments(&inside[..end - 1]);
        let rest = rest.to_owned();
        match arguments {
            Some(arguments) => {
                self.call(name, parts);
                self.arguments(arguments, parts);
                self.held = rest;
                self.state = State::Listed;
            }
            None => {
                let len = self.held.len() - rest.len();
                self.held.truncate(len);
                let text = std::mem::replace(&mut self.held, rest);
                emit(parts, Part::Text(text));
                self.state = State::Text;
            }
        }
        true
    }

    /// A tagged call whose arguments are the first `len` bytes that are held, before a tag of `tag_len`.
    fn tagged(&mut self, len: usize, tag_len: usize, parts: &mut Vec<Part>) {
        let rest = self.held.split_off(len + tag_len);
        let mut text = std::mem::replace(&mut self.held, rest);
        text.truncate(len);
        let is_object = |text: &str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok();
        let text = text.trim();
        // Some write Python's quotes.
        let swapped = text.replace('\'', "\"");
        let arguments = [text, &swapped].into_iter().find(|text| is_object(text)).unwrap_or("{}");
        self.arguments(arguments.to_owned(), parts);
        self.state = State::Between;
    }
}

/// Text next to text is one piece.
fn emit(parts: &mut Vec<Part>, part: Part) {
    match (parts.last_mut(), part) {
        (_, Part::Text(text)) if text.is_empty() => {}
        (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
        (_, part) => parts.push(part),
    }
}

/// Whether a call begins at the beginning of `text`: its shape, its name, and the length up to what follows the name (of a
/// list, nothing: it may turn out to be text).
fn begins<'n>(text: &str, names: &'n [String]) -> Match<(Shape, &'n str, usize)> {
    let mut maybe = false;
    for (shape, found) in [
        (Shape::Json, begins_json(text, names)),
        (Shape::List, begins_list(text, names)),
        (Shape::Tagged, begins_tagged(text, names)),
    ] {
        match found {
            Match::Yes((name, len)) => return Match::Yes((shape, name, len)),
            Match::Maybe => maybe = true,
            Match::No => {}
        }
    }
    if maybe { Match::Maybe } else { Match::No }
}

/// Goes on where a pattern is there so far, else returns what is to be said.
macro_rules! follow {
    ($found:expr) => {
        match $found {
            Match::Yes(value) => value,
            Match::Maybe => return Match::Maybe,
            Match::No => return Match::No,
        }
    };
}

/// `{"name": "f"`, perhaps with `"type": "function"` first, perhaps in a list.
fn begins_json<'n>(text: &str, names: &'n [String]) -> Match<(&'n str, usize)> {
    let mut cursor = Cursor::new(text);
    if let Some(inside) = text.strip_prefix('[') {
        cursor.rest = inside;
        follow!(cursor.space());
    }
    follow!(cursor.literal("{"));
    follow!(cursor.space());
    match cursor.literal("\"type\"") {
        Match::Yes(()) => {
            follow!(colon(&mut cursor));
            follow!(cursor.literal("\"function\""));
            follow!(cursor.space());
            follow!(cursor.literal(","));
            follow!(cursor.space());
        }
        Match::Maybe => return Match::Maybe,
        Match::No => {}
    }
    follow!(cursor.literal("\"name\""));
    follow!(colon(&mut cursor));
    follow!(cursor.literal("\""));
    let name = follow!(cursor.name(names, "\""));
    Match::Yes((name, text.len() - cursor.rest.len()))
}

/// `[f(`.
fn begins_list<'n>(text: &str, names: &'n [String]) -> Match<(&'n str, usize)> {
    let mut cursor = Cursor::new(text);
    follow!(cursor.literal("["));
    follow!(cursor.space());
    let name = follow!(cursor.name(names, "("));
    Match::Yes((name, 0))
}

/// `<function=f>`.
fn begins_tagged<'n>(text: &str, names: &'n [String]) -> Match<(&'n str, usize)> {
    let mut cursor = Cursor::new(text);
    follow!(cursor.literal("<function="));
    let name = follow!(cursor.name(names, ">"));
    Match::Yes((name, text.len() - cursor.rest.len()))
}

/// The next key of an object with its quotes, up to its value; `None` at the object's end.
fn next_key<'a>(cursor: &mut Cursor<'a>) -> Match<Option<&'a str>> {
    follow!(cursor.space());
    if let Some(rest) = cursor.rest.strip_prefix(',') {
        cursor.rest = rest;
        follow!(cursor.space());
    }
    if let Some(rest) = cursor.rest.strip_prefix('}') {
        cursor.rest = rest;
        return Match::Yes(None);
    }
    let key = follow!(cursor.string());
    follow!(colon(cursor));
    Match::Yes(Some(key))
}

/// A colon with white space around it, up to what follows.
fn colon(cursor: &mut Cursor<'_>) -> Match<()> {
    follow!(cursor.space());
    follow!(cursor.literal(":"));
    cursor.space()
}
