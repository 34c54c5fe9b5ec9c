//! What it was not taught, and what is not there: it says so.

use super::{allowed, talk};
use crate::choose::one_of;
use crate::words::{NAMES, THINGS, invented};
use crate::{Draw, Generator, Sample, Split};

#[rustfmt::skip]
const UNKNOWN: &[&str] = &[
    "Who is {n}?", "Where does {n} live?", "How old is {n}?", "What is {n}'s telephone number?", "What did {n} do yesterday?", "Is {n} at home?",
    "What is the weather like right now?", "Will it rain {d}?", "How warm will it be {d}?", "What happened in the news {d}?", "Who will win the match {d}?",
    "Which numbers will win the lottery {d}?", "What will {t} cost {d}?", "What time is it now?", "What does the word {w} mean?", "What is a {w}?",
    "Who invented the {w}?", "How do I use a {w}?", "Where can I buy a {w}?", "Which pills should I take against my headache?", "Is this rash dangerous?",
    "How much medicine should I give to {n}?", "Can I sue my neighbour {n}?", "Should {n} sign this contract?", "What is my name?", "What is my password?",
    "Where did I leave my {t}?", "What did I eat {d}?", "What is {n} thinking?", "How many {t} does {n} have?", "Who wrote the book about the {w}?",
    "In which year was {n} born?", "Will {n} marry {m}?", "Who is taller, {n} or {m}?", "What is in my pocket?", "What is {n} going to do {d}?",
];
#[rustfmt::skip]
const KNOWS_NOT: &[&str] = &[
    "I do not know.", "I don't know that.", "Sorry, I do not know.", "That I do not know.", "I don't know. I was not taught that.",
    "I am a small model, and I do not know that.", "I cannot say; I do not know it.", "I have no way to know that, so I do not know.",
];
#[rustfmt::skip]
const PICTURE: &[&str] = &[
    "What is in the picture?", "What do you see in this picture?", "How many {t} are in the image?", "Is {n} in the photo?", "Which colour is the {w} in the picture?",
    "Describe the picture.", "What is written in the image?", "Are there any {t} in this picture?",
];
#[rustfmt::skip]
const NO_PICTURE: &[&str] = &["I see no picture here.", "There is no picture, so I do not know.", "I do not see a picture. Can you send it?", "No picture came with your question."];
#[rustfmt::skip]
const SOUND: &[&str] = &[
    "What do you hear?", "Which digits are said in the clip?", "Who is speaking in the recording?", "Write down what is said in the clip.",
    "Is that the voice of {n} in the clip?", "Do you hear a {w} in the sound?", "How often does {n} speak in the recording?",
];
#[rustfmt::skip]
const NO_SOUND: &[&str] = &["I hear no sound here.", "There is no sound, so I do not know.", "No sound came with your question.", "I do not hear a sound. Can you send it?"];
const DAYS: &[&str] =
    &["today", "tomorrow", "yesterday", "next week", "next year", "on Monday", "on Friday", "this evening", "in May"];

/// See [the module](self).
pub(super) struct Unknown;

fn any(draw: &mut Draw) -> (String, String) {
    let kinds = [(UNKNOWN, KNOWS_NOT), (UNKNOWN, KNOWS_NOT), (PICTURE, NO_PICTURE), (SOUND, NO_SOUND)];
    let (asked, said) = *one_of(draw, &kinds);
    let wording = *one_of(draw, asked);
    let day = match wording {
        _ if wording.contains("did") || wording.contains("happened") || wording.contains("eat") => "yesterday",
        _ if wording.contains("will") || wording.contains("Will") || wording.contains("going") => {
            *one_of(draw, &["tomorrow", "next week", "next year", "on Friday", "on Monday", "this evening", "in May"])
        }
        _ => one_of(draw, DAYS),
    };
    let (name, other) = (*one_of(draw, NAMES), *one_of(draw, &["Mr Brown", "Mrs Hill", "Peter", "Sofia", "Bob"]));
    let question = wording
        .replace("{n}", name)
        .replace("{m}", other)
        .replace("{d}", day)
        .replace("{t}", one_of::<&str>(draw, THINGS))
        .replace("{w}", &invented(draw));
    (question, (*one_of(draw, said)).to_owned())
}

impl Generator for Unknown {
    fn name(&self) -> &'static str {
        "unknown"
    }

    /// A few wordings have nothing to fill in: those are in one split only, by their text.
    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        talk("unknown", vec![allowed(split, draw, any)])
    }

    /// It says that it does not know, or that nothing is there where the question is about something that is not.
    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        let (question, answer) = (sample.question(), answer.to_lowercase().replace('’', "'"));
        let is_about = |words: &[&str]| words.iter().any(|word| question.contains(word));
        let says = |words: &[&str]| words.iter().any(|word| answer.contains(word));
        let denies = ["do not know", "don't know", "no way to know", "not sure"];
        if is_about(&["picture", "image", "the photo?"]) {
            return says(&["picture", "image", "photo"]) && says(&["no ", "not ", "n't "]);
        }
        if is_about(&["you hear", "clip", "recording"]) {
            return says(&["sound", "clip", "recording"]) && says(&["no ", "not ", "n't "]);
        }
        says(&denies)
    }

    fn chance(&self) -> f64 {
        0.0
    }
}
