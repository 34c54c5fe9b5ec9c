//! Conversation: everyday talk, simple facts, instructions over a text, and honest not-knowing. One file each, its line here.
//!
//! Held out are questions, by their text.

use crate::{Draw, Generator, Role, Sample, Split, Turn};

mod everyday;
mod facts;
mod instructions;
mod unknown;

/// All of them.
pub(crate) fn all() -> Vec<Box<dyn Generator>> {
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
        if Split::of(&question.to_lowercase()) == split {
            return (question, answer);
        }
    }
}

/// The exchanges in their order.
fn talk(task: &'static str, exchanges: Vec<(String, String)>) -> Sample {
    let turns = exchanges
        .into_iter()
        .flat_map(|(asked, said)| [Turn::text(Role::User, asked), Turn::text(Role::Assistant, said)])
        .collect();
    Sample { task, turns }
}
