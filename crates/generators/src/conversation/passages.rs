//! Questions about sentences of real prose.

use std::collections::HashSet;
use std::sync::Arc;

use rand::RngExt;

use super::allowed;
use crate::choose::{once_in, one_of};
use crate::wording::{ask, readings};
use crate::{Draw, Generator, Role, Sample, Split, Turn};

/// Sentences that stand on their own, in the order of their text.
#[derive(Debug, Clone, Default)]
pub struct Sentences(Vec<String>);

/// Bytes of a sentence.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=120;
/// Words of a sentence at least.
const WORDS: usize = 5;

impl Sentences {
    /// Those of `text`: whole lines or parts of them, from a capital to a full stop, question or exclamation mark, made
    /// of words and plain punctuation. Typographic quotes become plain ones.
    pub fn of(text: &str) -> Self {
        let plain = |c: char| match c {
            '‘' | '’' => '\'',
            '“' | '”' => '"',
            '\u{2009}' | '\u{200a}' | '\u{a0}' => ' ',
            c => c,
        };
        let mut sentences = Vec::new();
        for paragraph in text.split("\n\n") {
            let words = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
            let words: String = words.chars().map(plain).filter(|c| *c != '\u{2060}').collect();
            sentences.extend(
                words.split_inclusive(['.', '?', '!']).map(str::trim).filter(|it| is_whole(it)).map(str::to_owned),
            );
        }
        Self(sentences)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of `other` too.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// Whether a part of a paragraph is a sentence that can be asked about.
fn is_whole(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphabetic() || matches!(c, ' ' | ',' | '\'' | ';' | '.' | '?' | '!');
    LENGTHS.contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(allowed)
        && text.split(' ').count() >= WORDS
        // "Mr." and the like end nothing.
        && text.split(' ').next_back().is_some_and(|last| last.len() > 3)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Missing,
    GoOn,
    Has,
    Which,
    First,
    Last,
    Count,
    Longest,
}

#[rustfmt::skip]
const KINDS: &[(Kind, &[&str])] = &[
    (Kind::Missing, &["Which word is missing? {t}", "Fill in the missing word: {t}", "Put the right word in the gap: {t}"]),
    (Kind::GoOn, &["How does this sentence go on? {t}", "Finish the sentence: {t}", "Go on: {t}"]),
    (Kind::Has, &["Is the word \"{w}\" in this text? {t}", "Does this have the word \"{w}\" in it? {t}", "Look for the word \"{w}\". Is it there? {t}"]),
    (Kind::Which, &["Which sentence has the word \"{w}\"? {t}", "Copy the sentence with the word \"{w}\": {t}", "In which sentence is \"{w}\"? {t}"]),
    (Kind::First, &["Copy the first sentence: {t}", "What is the first sentence? {t}", "How does this text begin? {t}"]),
    (Kind::Last, &["Copy the last sentence: {t}", "What is the last sentence? {t}", "Write only the sentence at the end: {t}"]),
    (Kind::Count, &["How many sentences are these? {t}", "Count the sentences: {t}", "How many sentences does this text have? {t}"]),
    (Kind::Longest, &["Which is the longest word? {t}", "Find the longest word: {t}", "What is the word with the most letters? {t}"]),
];

/// What an operator may say before; the answers follow it anyway.
const RULES: &[&str] = &[
    "You help people to read.",
    "Answer from the text alone.",
    "You are nano, a small model. Be brief.",
    "Answer questions about texts. Say nothing else.",
    "Be exact.",
];

/// See [the module](self).
pub(super) struct Passages(pub(super) Arc<Sentences>);

/// A word's letters.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_ascii_alphabetic())
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').map(bare).filter(|word| !word.is_empty())
}

/// The one longest word, if no other is as long.
fn longest(text: &str) -> Option<&str> {
    let longest = words_of(text).max_by_key(|word| word.len())?;
    let as_long: HashSet<&str> = words_of(text).filter(|word| word.len() == longest.len()).collect();
    (as_long.len() == 1).then_some(longest)
}

/// The sentences of a passage.
fn sentences_of(text: &str) -> Vec<&str> {
    text.split_inclusive(['.', '?', '!']).map(str::trim).filter(|it| !it.is_empty()).collect()
}

impl Passages {
    /// Up to `n` sentences that follow each other.
    fn passage(&self, draw: &mut Draw, n: usize) -> Vec<&str> {
        let Sentences(all) = &*self.0;
        let first = draw.random_range(0..all.len());
        all[first..all.len().min(first + n)].iter().map(String::as_str).collect()
    }

    fn any(&self, draw: &mut Draw) -> (String, String) {
        loop {
            let (kind, wordings) = one_of(draw, KINDS);
            let n = match kind {
                Kind::Missing | Kind::GoOn | Kind::Longest => 1,
                _ => draw.random_range(1..=3),
            };
            let sentences = self.passage(draw, n);
            let text = sentences.join(" ");
            let words: Vec<&str> = words_of(&text).filter(|word| word.len() > 3).collect();
            let (Some(sentence), false) = (sentences.last().copied(), words.is_empty()) else { continue };
            let mut word = (*one_of(draw, &words)).to_owned();
            let (shown, answer) = match kind {
                Kind::Missing => (text.replacen(&word, "___", 1), word.clone()),
                Kind::GoOn => {
                    let parts: Vec<&str> = sentence.split(' ').collect();
                    let (begin, end) = parts.split_at(parts.len() / 2);
                    (begin.join(" "), end.join(" "))
                }
                Kind::Has => {
                    let is_there = draw.random_bool(0.5);
                    if !is_there {
                        let other = self.passage(draw, 1).concat();
                        let Some(new) = words_of(&other).find(|new| new.len() > 3 && !has(&text, new)) else {
                            continue;
                        };
                        word = new.to_owned();
                    }
                    (text, if is_there { "Yes." } else { "No." }.to_owned())
                }
                Kind::Which => {
                    let with: Vec<&&str> = sentences.iter().filter(|sentence| has(sentence, &word)).collect();
                    let ([with], true) = (with.as_slice(), n > 1) else { continue };
                    (text.clone(), (**with).to_owned())
                }
                Kind::First => (text, sentences[0].to_owned()),
                Kind::Last => (text.clone(), sentence.to_owned()),
                Kind::Count => (text, sentences.len().to_string()),
                Kind::Longest => match longest(&text).map(str::to_owned) {
                    Some(longest) => (text, longest),
                    None => continue,
                },
            };
            return (ask(draw, wordings, &[('t', &shown), ('w', &word)]), answer);
        }
    }
}

/// Whether `word` is one of the words of `text`, whatever its case.
fn has(text: &str, word: &str) -> bool {
    words_of(text).any(|it| it.eq_ignore_ascii_case(word))
}

/// What the reading asks for, where the question says it; `None` where only the prose does.
fn wanted(kind: Kind, slots: &crate::wording::Slots) -> Option<String> {
    let text = slots.text('t')?;
    let sentences = sentences_of(text);
    match kind {
        Kind::Missing | Kind::GoOn => None,
        Kind::Has => Some(if has(text, slots.text('w')?) { "yes" } else { "no" }.to_owned()),
        Kind::Which => {
            sentences.iter().find(|it| slots.text('w').is_some_and(|word| has(it, word))).map(|it| (*it).to_owned())
        }
        Kind::First => sentences.first().map(|it| (*it).to_owned()),
        Kind::Last => sentences.last().map(|it| (*it).to_owned()),
        Kind::Count => Some(sentences.len().to_string()),
        Kind::Longest => longest(text).map(str::to_owned),
    }
}

/// Without case and the marks around it.
fn plain(text: &str) -> String {
    text.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

impl Generator for Passages {
    fn name(&self) -> &'static str {
        "passages"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let (question, answer) = allowed(split, draw, |draw| self.any(draw));
        let mut turns = vec![Turn::text(Role::User, question), Turn::text(Role::Assistant, answer)];
        if once_in(draw, 4) {
            turns.insert(0, Turn::text(Role::System, *one_of(draw, RULES)));
        }
        Sample { task: "passages", turns }
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        let (question, said) = (sample.question(), plain(answer));
        let asked = KINDS.iter().flat_map(|(kind, wordings)| readings(wordings, &question).map(|slots| (*kind, slots)));
        // A question whose answer stands in it is answered by reading it; a gap only by the prose.
        let right = asked.filter_map(|(kind, slots)| wanted(kind, &slots)).next();
        !said.is_empty() && said == plain(&right.unwrap_or_else(|| sample.answer()))
    }

    fn chance(&self) -> f64 {
        // Half of the questions whether a word is there, and a third of those how many sentences.
        (0.5 + 1.0 / 3.0) / KINDS.len() as f64
    }
}
