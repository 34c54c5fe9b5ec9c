//! What a template sees instead of text that is not its own.
//!
//! Each text stands as a mark: two private-use characters that occur in none of the texts, a number between them. A
//! template can print, join, compare and trim marks; what it printed is taken apart again, and only what stands outside
//! of marks may become control.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// A stretch of a string that a template holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stretch {
    /// The template's own.
    Own(String),
    /// Text that was given to it, or made from such text.
    Given(Arc<str>),
}

impl Stretch {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Own(text) => text,
            Self::Given(text) => text,
        }
    }
}

/// The texts behind the marks of one rendering.
#[derive(Debug)]
pub(super) struct Opaque {
    open: char,
    close: char,
    texts: Mutex<Texts>,
}

#[derive(Debug, Default)]
struct Texts {
    by_number: Vec<Arc<str>>,
    number_by_text: HashMap<Arc<str>, usize>,
}

/// The characters that marks are made of: the planes that Unicode leaves to private use.
fn private() -> impl Iterator<Item = char> {
    ('\u{f0000}'..='\u{ffffd}').chain('\u{100000}'..='\u{10fffd}')
}

impl Opaque {
    /// Marks that occur in none of `texts`; none if these use all private-use characters but one.
    pub fn apart_from<'a>(texts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let used: HashSet<char> = texts.flat_map(str::chars).filter(|&c| c >= '\u{f0000}').collect();
        let mut free = private().filter(|c| !used.contains(c));
        Some(Self { open: free.next()?, close: free.next()?, texts: Mutex::default() })
    }

    /// The mark of a text; equal texts have equal marks, and the empty text stands for itself.
    pub fn hide(&self, text: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match texts.number_by_text.get(text) {
            Some(&number) => number,
            None => {
                let (number, text) = (texts.by_number.len(), Arc::<str>::from(text));
                texts.by_number.push(Arc::clone(&text));
                texts.number_by_text.insert(text, number);
                number
            }
        };
        format!("{}{number}{}", self.open, self.close)
    }

    /// Takes a string apart.
    ///
    /// # Errors
    /// A sentence, if a mark in it is torn.
    pub fn stretches(&self, string: &str) -> Result<Vec<Stretch>, String> {
        let torn = || "it cut a text of the conversation in pieces, which is not supported".to_owned();
        let texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stretches = Vec::new();
        let mut rest = string;
        while let Some((own, marked)) = rest.split_once(self.open) {
            let (number, after) = marked.split_once(self.close).ok_or_else(torn)?;
            let text = number.parse().ok().and_then(|number: usize| texts.by_number.get(number)).ok_or_else(torn)?;
            if !own.is_empty() {
                stretches.push(Stretch::Own(own.to_owned()));
            }
            stretches.push(Stretch::Given(Arc::clone(text)));
            rest = after;
        }
        if !rest.is_empty() {
            stretches.push(Stretch::Own(rest.to_owned()));
        }
        match stretches.iter().any(|s| matches!(s, Stretch::Own(own) if own.contains(self.close))) {
            true => Err(torn()),
            false => Ok(stretches),
        }
    }

    /// The string of stretches.
    pub fn join(&self, stretches: &[Stretch]) -> String {
        let string = |stretch: &Stretch| match stretch {
            Stretch::Own(own) => own.clone(),
            Stretch::Given(text) => self.hide(text),
        };
        stretches.iter().map(string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_avoid_what_the_texts_contain() {
        let hostile = "\u{f0000}0\u{f0001}";
        let opaque = Opaque::apart_from([hostile].into_iter()).expect("most characters are free");
        let string = format!("a{}b", opaque.hide(hostile));
        assert_eq!(
            opaque.stretches(&string),
            Ok(vec![Stretch::Own("a".into()), Stretch::Given(hostile.into()), Stretch::Own("b".into())])
        );
        let everything: String = private().collect();
        assert!(Opaque::apart_from([everything.as_str()].into_iter()).is_none());
    }

    #[test]
    fn a_torn_mark_is_an_error() {
        let opaque = Opaque::apart_from(std::iter::empty()).expect("all characters are free");
        let mark = opaque.hide("x");
        for (cut, _) in mark.char_indices().skip(1) {
            assert!(opaque.stretches(&mark[..cut]).is_err());
            assert!(opaque.stretches(&mark[cut..]).is_err());
        }
        assert!(opaque.stretches(&mark.replace('0', "7")).is_err());
        assert_eq!(opaque.hide(""), "");
    }
}
