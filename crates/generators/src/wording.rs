//! Questions in many words, and the way back.
//!
//! A wording is a text in which `{a}` stands for a value named `a`. The same table writes questions and reads them, so
//! a checker knows what was asked from the question's text alone.

use rand::RngExt;

use crate::{
    Draw,
    choose::{once_in, one_of},
};

/// What people put before a question.
const OPENERS: &[&str] = &[
    "Hi! ",
    "Hello. ",
    "Please answer: ",
    "Quick question: ",
    "Can you help me? ",
    "I need help with this. ",
    "Here is a question for you. ",
    "Next one: ",
    "Tell me: ",
    "One more: ",
];

/// Values that a wording was read to have, by their names.
pub(crate) struct Slots(Vec<(char, String)>);

impl Slots {
    /// The value named `name`.
    pub(crate) fn text(&self, name: char) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The same as a number.
    pub(crate) fn number(&self, name: char) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// The same as numbers between commas or spaces, with or without brackets.
    pub(crate) fn numbers(&self, name: char) -> Option<Vec<i64>> {
        let text = self.text(name)?.trim_matches(['[', ']']);
        text.split([',', ' ']).filter(|item| !item.is_empty()).map(|item| item.parse().ok()).collect()
    }

    /// The same as words between commas or spaces.
    pub(crate) fn words(&self, name: char) -> Option<Vec<String>> {
        let text = self.text(name)?;
        Some(text.split([',', ' ']).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }
}

/// Puts a question: one of `wordings` with its values, sometimes with a word before it or written carelessly.
pub(crate) fn ask(draw: &mut Draw, wordings: &[&str], values: &[(char, &str)]) -> String {
    let wording = one_of(draw, wordings);
    let mut text = fill(wording, values);
    if once_in(draw, 8) {
        text = careless(wording, &text);
    }
    if draw.random_bool(0.1) {
        text.insert_str(0, one_of::<&str>(draw, OPENERS));
    }
    text
}

/// `wording` with its values in their places.
pub(crate) fn fill(wording: &str, values: &[(char, &str)]) -> String {
    values.iter().fold(wording.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// Every way to read `question` as one of `wordings`.
pub(crate) fn readings<'a>(wordings: &'a [&'a str], question: &'a str) -> impl Iterator<Item = Slots> + 'a {
    let question = OPENERS.iter().find_map(|opener| question.strip_prefix(opener)).unwrap_or(question);
    wordings.iter().filter_map(move |wording| read(&careless(wording, wording), &careless(wording, question)))
}

/// `text`, which is `wording` or made of it, without the capital and the stop that `wording` has.
fn careless(wording: &str, text: &str) -> String {
    let text = if wording.ends_with(['?', '.']) { text.trim_end_matches(['?', '.']) } else { text };
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if !wording.starts_with('{') => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

fn read(wording: &str, text: &str) -> Option<Slots> {
    let mut pieces = wording.split('{');
    let mut rest = text.strip_prefix(pieces.next()?)?;
    let mut slots = Slots(Vec::new());
    let mut pieces = pieces.peekable();
    while let Some(piece) = pieces.next() {
        let (name, literal) = piece.split_once('}')?;
        let name = name.chars().next()?;
        let value = if pieces.peek().is_some() {
            let (value, after) = rest.split_once(literal)?;
            rest = after;
            value
        } else {
            let value = rest.strip_suffix(literal)?;
            rest = "";
            value
        };
        if slots.text(name).is_some_and(|known| known != value) {
            return None;
        }
        slots.0.push((name, value.to_owned()));
    }
    rest.is_empty().then_some(slots)
}
