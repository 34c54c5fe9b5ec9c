//! Conversation: everyday talk, simple facts, instructions over a text, questions about prose, and honest not-knowing.
//! One file each, its line here.
//!
//! Held out are questions, by their words; short ones, which have few wordings, are all for training.

use std::sync::Arc;

use crate::{Draw, Generator, Role, Sample, Split, Turn};

pub use passages::Sentences;

mod everyday;
mod facts;
mod instructions;
mod passages;
mod unknown;

/// All of them, and those about `prose` where there are sentences.
pub fn with(prose: Arc<Sentences>) -> Vec<Box<dyn Generator>> {
    let mut generators = all();
    if !prose.is_empty() {
        generators.push(Box::new(passages::Passages(prose)));
    }
    generators
}

/// All that need nothing from outside.
pub fn all() -> Vec<Box<dyn Generator>> {
    vec![
        Box::new(everyday::Everyday),
        Box::new(facts::Facts),
        Box::new(instructions::Instructions),
        Box::new(unknown::Unknown),
    ]
}

/// Draws exchanges of a question and its answer until one belongs to `split`.
fn allowed(split: Split, draw: &mut Draw, any: impl Fn(&mut Draw) -> (String, String)) -> (String, String) {
    loop {
        let (question, answer) = any(draw);
        if belongs_to(&question) == split {
            return (question, answer);
        }
    }
}

/// Words that a question has at least to be held out.
const HELD_OUT_WORDS: usize = 5;

/// Where a question belongs, whatever its case and punctuation.
fn belongs_to(question: &str) -> Split {
    let words: Vec<String> = question.split_whitespace().map(letters).filter(|word| !word.is_empty()).collect();
    if words.len() < HELD_OUT_WORDS { Split::Train } else { Split::of(&words.join(" ")) }
}

fn letters(word: &str) -> String {
    word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The exchanges in their order.
fn talk(task: &'static str, exchanges: Vec<(String, String)>) -> Sample {
    let turns = exchanges
        .into_iter()
        .flat_map(|(asked, said)| [Turn::text(Role::User, asked), Turn::text(Role::Assistant, said)])
        .collect();
    Sample { task, turns }
}
