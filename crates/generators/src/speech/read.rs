//! Numbers, digits, words and questions that are read out.

use std::sync::Arc;

use rand::RngExt;

use super::Voice;
use crate::asked::{self, words_of};
use crate::choose::one_of;
use crate::pictures::words::WORDS;
use crate::{Draw, Generator, Part, Sample, Split};

/// What is read out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// One number below 10 000.
    Number,
    /// Two to six digits.
    Digits,
    /// One to four words.
    Words,
}

/// "What is said?"
pub(super) struct ReadOut {
    pub(super) voice: Arc<Voice>,
    pub(super) text: Text,
}

/// Words that sound like others with another spelling.
const HOMOPHONES: [&str; 46] = [
    "ant", "bean", "bear", "blue", "board", "bread", "brake", "break", "buy", "cheap", "coat", "fair", "flower", "for",
    "four", "great", "hair", "heart", "here", "horse", "hour", "in", "know", "made", "mail", "main", "meat", "new",
    "no", "off", "one", "our", "pair", "plane", "rain", "read", "red", "road", "rose", "sail", "sea", "sun", "tail",
    "tea", "two", "week",
];
/// More of them.
const MORE_HOMOPHONES: [&str; 26] = [
    "ate", "be", "bee", "blew", "eight", "eye", "grey", "not", "or", "oar", "peace", "right", "role", "roll", "root",
    "route", "see", "son", "steel", "toe", "wait", "way", "wood", "write", "zinc", "vase",
];

impl Generator for ReadOut {
    fn name(&self) -> &'static str {
        match self.text {
            Text::Number => "spoken_number",
            Text::Digits => "spoken_digits",
            Text::Words => "spoken_words",
        }
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let (text, question) = match self.text {
            Text::Number => {
                let digits = draw.random_range(1..=4);
                let wordings = ["Which number is said?", "What number do you hear?", "Write the number in digits."];
                (draw.random_range(0..10u32.pow(digits)).to_string(), *one_of(draw, &wordings))
            }
            Text::Digits => {
                let n = draw.random_range(2..=6);
                let digits: Vec<_> = (0..n).map(|_| draw.random_range(0..10).to_string()).collect();
                let wordings = ["Which digits are said?", "Write down the digits.", "What digits do you hear?"];
                (digits.join(" "), *one_of(draw, &wordings))
            }
            Text::Words => {
                let n = draw.random_range(1..=4);
                let words: Vec<_> = (0..n).map(|_| word(draw)).collect();
                let wordings = ["What is said?", "Write down what you hear.", "Transcribe the clip."];
                (words.join(" "), *one_of(draw, &wordings))
            }
        };
        // commas keep digits and unrelated words apart
        let spoken = text.replace(' ', ", ");
        let Some(sound) = self.voice.say(&spoken, split, draw) else { return super::silence(self.name(), draw) };
        asked::sample(draw, self.name(), vec![Part::Sound(sound)], question, text)
    }

    /// Digits with or without spaces between them.
    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        let (expected, answer) = (words_of(asked::expected(sample)), words_of(answer));
        expected == answer
            || self.text != Text::Words && !answer.is_empty() && expected.concat() == answer.concat().replace(',', "")
    }

    fn chance(&self) -> f64 {
        0.0
    }
}

fn word(draw: &mut Draw) -> &'static str {
    loop {
        let word = *one_of(draw, WORDS);
        if !HOMOPHONES.contains(&word) && !MORE_HOMOPHONES.contains(&word) {
            return word;
        }
    }
}

/// Short spoken questions with a number as answer.
pub(super) struct SpokenQuestion {
    pub(super) voice: Arc<Voice>,
}

/// Answers are equally likely from 0 to this.
const LARGEST: u32 = 20;

impl Generator for SpokenQuestion {
    fn name(&self) -> &'static str {
        "spoken_question"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let answer = draw.random_range(0..=LARGEST);
        let question = match draw.random_range(0..4) {
            0 => {
                let first = draw.random_range(0..=answer);
                format!("what is {first} plus {}?", answer - first)
            }
            1 => {
                let less = draw.random_range(0..=LARGEST);
                format!("what is {} minus {less}?", answer + less)
            }
            2 if answer > 0 => format!("which number comes after {}?", answer - 1),
            _ => format!("which number comes before {}?", answer + 1),
        };
        let Some(sound) = self.voice.say(&question, split, draw) else { return super::silence(self.name(), draw) };
        let wordings = ["Answer the question.", "Answer what is asked in the clip.", "Listen, and answer in digits."];
        let wording = one_of(draw, &wordings);
        asked::sample(draw, self.name(), vec![Part::Sound(sound)], *wording, answer.to_string())
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        1.0 / f64::from(LARGEST + 1)
    }
}
