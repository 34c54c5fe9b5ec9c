//! JSON as it comes: where tokens and values end.

/// What the beginning of a text says about a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match<T> {
    /// It is there.
    Yes(T),
    /// What is there fits, and more has to come.
    Maybe,
    /// It is not.
    No,
}

/// White space that a pattern may hold in one place, so that no text is held back for long.
const MOST_SPACE: usize = 64;

/// A position in a text that may not be complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) rest: &'a str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// Goes past white space.
    pub(super) fn space(&mut self) -> Match<()> {
        let rest = self.rest.trim_start();
        if self.rest.len() - rest.len() > MOST_SPACE {
            return Match::No;
        }
        self.rest = rest;
        if rest.is_empty() { Match::Maybe } else { Match::Yes(()) }
    }

    /// Goes past `literal`.
    pub(super) fn literal(&mut self, literal: &str) -> Match<()> {
        match self.rest.strip_prefix(literal) {
            Some(rest) => {
                self.rest = rest;
                Match::Yes(())
            }
            None if literal.starts_with(self.rest) => Match::Maybe,
            None => Match::No,
        }
    }

    /// Goes past one of `names` that is followed by `end`; the longest that fits.
    pub(super) fn name<'n>(&mut self, names: &'n [String], end: &str) -> Match<&'n str> {
        let mut maybe = false;
        for name in names {
            let mut cursor = *self;
            let found = match cursor.literal(name) {
                Match::Yes(()) => cursor.literal(end),
                other => other,
            };
            match found {
                Match::Yes(()) => {
                    *self = cursor;
                    return Match::Yes(name);
                }
                Match::Maybe => maybe = true,
                Match::No => {}
            }
        }
        if maybe { Match::Maybe } else { Match::No }
    }

    /// Goes past a string in double quotes and returns it with them.
    pub(super) fn string(&mut self) -> Match<&'a str> {
        if self.rest.is_empty() {
            return Match::Maybe;
        }
        if !self.rest.starts_with('"') {
            return Match::No;
        }
        let mut extent = Extent::default();
        match extent.end(self.rest) {
            Some(end) => {
                let (string, rest) = self.rest.split_at(end);
                self.rest = rest;
                Match::Yes(string)
            }
            None => Match::Maybe,
        }
    }
}

/// How far a value goes, found piece by piece. Brackets are counted, not matched: what is wrong inside is the reader's
/// business.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// A number, `true` or another value that only what follows ends.
    in_word: bool,
}

impl Extent {
    /// The length of the part of `text` that belongs to the value, if the value ends there. Otherwise all of it does, and
    /// the next call goes on.
    pub(super) fn end(&mut self, text: &str) -> Option<usize> {
        for (at, byte) in text.bytes().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' | b',' if self.depth == 0 => return Some(at),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                byte if self.depth == 0 => {
                    let is_space = byte.is_ascii_whitespace();
                    if is_space && self.in_word {
                        return Some(at);
                    }
                    self.in_word = !is_space;
                }
                _ => {}
            }
        }
        None
    }
}
