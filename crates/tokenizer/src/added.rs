//! Finding whole tokens in a text, whatever surrounds them.

use aho_corasick::{AhoCorasick, MatchKind};

/// Finds the tokens of a list in a text: the leftmost first, of several that start together the longest.
#[derive(Debug)]
pub(crate) struct Finder {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

/// A stretch of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// No token of the list; not empty.
    Text(&'a str),
    /// A token of the list.
    Token(u32),
}

impl Finder {
    /// A finder of these spellings; none if there are none that are text.
    ///
    /// # Errors
    /// The automaton's own words if the spellings are too many.
    pub fn new<'a>(tokens: impl IntoIterator<Item = (&'a str, u32)>) -> Result<Option<Self>, String> {
        let (spellings, ids): (Vec<&str>, Vec<u32>) = tokens.into_iter().filter(|(s, _)| !s.is_empty()).unzip();
        if ids.is_empty() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(spellings);
        Ok(Some(Self { automaton: automaton.map_err(|e| e.to_string())?, ids }))
    }

    /// Whether a token of the list is in `text`.
    pub fn is_in(&self, text: &str) -> bool {
        self.automaton.is_match(text)
    }

    /// Calls `each` with the stretches of `text`, in order.
    pub fn each<'a>(&self, text: &'a str, mut each: impl FnMut(Found<'a>)) {
        let mut begin = 0;
        for found in self.automaton.find_iter(text) {
            if begin < found.start() {
                each(Found::Text(text.get(begin..found.start()).unwrap_or_default()));
            }
            if let Some(&id) = self.ids.get(found.pattern().as_usize()) {
                each(Found::Token(id));
            }
            begin = found.end();
        }
        if begin < text.len() {
            each(Found::Text(text.get(begin..).unwrap_or_default()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leftmost_and_longest_token_is_found() {
        let finder = Finder::new([("<a>", 1), ("<a>b", 2), ("é", 3)]).expect("small").expect("not empty");
        let mut found = Vec::new();
        finder.each("x<a>bé<a><a", |f| found.push(f));
        use Found::{Text, Token};
        assert_eq!(found, [Text("x"), Token(2), Token(3), Token(1), Text("<a")]);
        assert!(Finder::new([("", 1)]).expect("small").is_none());
    }
}
