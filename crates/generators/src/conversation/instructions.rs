//! Short instructions over a text that is given, some with an operator's rule that is followed.

use rand::RngExt;

use super::allowed;
use crate::choose::{once_in, one_of, some_of};
use crate::wording::{ask, readings};
use crate::words::WORDS;
use crate::{Draw, Generator, Role, Sample, Split, Turn};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Repeat,
    Upper,
    First,
    Last,
    Count,
    Listed,
    Reverse,
    Replace,
    Times,
}

#[rustfmt::skip]
const KINDS: &[(Kind, &[&str])] = &[
    (Kind::Repeat, &["Repeat after me: {t}", "Say this: {t}", "Copy this text: {t}", "Write exactly this: {t}"]),
    (Kind::Upper, &["Write in capitals: {t}", "Write this in upper case: {t}", "Put \"{t}\" in capital letters."]),
    (Kind::First, &["What is the first word of \"{t}\"?", "Give me the first word: {t}", "Which word comes first here: {t}"]),
    (Kind::Last, &["What is the last word of \"{t}\"?", "Give me the last word: {t}", "Which word comes last here: {t}"]),
    (Kind::Count, &["How many words are in \"{t}\"?", "Count the words: {t}", "How many words does this have: {t}"]),
    (Kind::Listed, &["Put these words in a list with dashes: {t}", "Make a list with dashes of: {t}", "Write as a list, each line with a dash: {t}"]),
    (Kind::Reverse, &["Write these words in reverse order: {t}", "Reverse the order of the words: {t}", "Write the words of \"{t}\" from the last to the first."]),
    (Kind::Replace, &["Replace {a} by {b}: {t}", "Write this with {b} in place of {a}: {t}", "Change the word {a} to {b}: {t}"]),
    (Kind::Times, &["Write {t} {k} times.", "Say {t} {k} times.", "Repeat the word {t} {k} times."]),
];
const CAPITALS: &[&str] =
    &["Answer in capitals.", "Write all answers in capital letters.", "Use only capital letters when you answer."];

/// See [the module](self).
pub(super) struct Instructions;

fn any(draw: &mut Draw) -> (String, String) {
    let (kind, wordings) = one_of(draw, KINDS);
    let n = if *kind == Kind::Times { 1 } else { draw.random_range(2..=6) };
    let words = some_of(draw, WORDS, n);
    let (old, new, times) = (*one_of(draw, &words), *one_of(draw, WORDS), draw.random_range(2..=6_usize));
    let text = words.join(" ");
    let values = [('t', text.as_str()), ('a', old), ('b', new), ('k', &times.to_string())];
    let question = ask(draw, wordings, &values);
    let answer = match kind {
        Kind::Repeat => text,
        Kind::Upper => text.to_uppercase(),
        Kind::First => words[0].to_owned(),
        Kind::Last => words[words.len() - 1].to_owned(),
        Kind::Count => words.len().to_string(),
        Kind::Listed => words.iter().map(|word| format!("- {word}")).collect::<Vec<_>>().join("\n"),
        Kind::Reverse => words.iter().rev().copied().collect::<Vec<_>>().join(" "),
        Kind::Replace => words.iter().map(|word| if *word == old { new } else { word }).collect::<Vec<_>>().join(" "),
        Kind::Times => vec![text; times].join(" "),
    };
    (question, answer)
}

/// Whether `answer` does what the reading asks: found by taking the answer apart.
fn does(kind: Kind, slots: &crate::wording::Slots, answer: &str) -> Option<bool> {
    let text = slots.text('t')?;
    let has: Vec<&str> = answer.split_whitespace().collect();
    let given: Vec<&str> = text.split(' ').collect();
    Some(match kind {
        Kind::Repeat => answer == text,
        Kind::Upper => answer == answer.to_uppercase() && answer.to_lowercase() == text,
        Kind::First => !answer.contains(' ') && (text == answer || text.starts_with(&format!("{answer} "))),
        Kind::Last => !answer.contains(' ') && (text == answer || text.ends_with(&format!(" {answer}"))),
        Kind::Count => answer.parse::<usize>().ok()? == text.matches(' ').count() + 1,
        Kind::Listed => {
            answer.lines().map(|line| line.strip_prefix("- ")).collect::<Option<Vec<_>>>()?.join(" ") == text
        }
        Kind::Reverse => has.len() == given.len() && (0..has.len()).all(|i| has[i] == given[given.len() - 1 - i]),
        Kind::Replace => {
            let (old, new) = (slots.text('a')?, slots.text('b')?);
            let fits = |(is, was): (&&str, &&str)| if *was == old { *is == new } else { is == was };
            has.len() == given.len() && has.iter().zip(&given).all(fits)
        }
        Kind::Times => {
            let times: usize = slots.text('k')?.parse().ok()?;
            has.len() == times && has.iter().all(|word| word.trim_end_matches(',') == text)
        }
    })
}

impl Generator for Instructions {
    fn name(&self) -> &'static str {
        "instructions"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let (question, answer) = allowed(split, draw, any);
        let mut turns = vec![Turn::text(Role::User, question), Turn::text(Role::Assistant, answer)];
        if once_in(draw, 8) {
            let shouted = turns[1].to_text().to_uppercase();
            turns[1] = Turn::text(Role::Assistant, shouted);
            turns.insert(0, Turn::text(Role::System, *one_of(draw, CAPITALS)));
        }
        Sample { task: "instructions", turns }
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        let question = sample.question();
        let mut answer = answer.trim().to_owned();
        if sample.turns.first().is_some_and(|turn| turn.role == Role::System) {
            if answer.contains(char::is_lowercase) {
                return false;
            }
            answer = answer.to_lowercase();
        }
        let in_capitals = sample.turns.len() > 2;
        KINDS.iter().any(|(kind, wordings)| {
            readings(wordings, &question).any(|slots| {
                let said = if *kind == Kind::Upper && in_capitals { answer.to_uppercase() } else { answer.clone() };
                !said.is_empty() && does(*kind, &slots, &said).unwrap_or(false)
            })
        })
    }

    fn chance(&self) -> f64 {
        0.0
    }
}
