//! Questions about words that a synthetic voice says: which, how many, which of them.

use rand::RngExt;

use super::room::record;
use super::voice::Speaker;
use super::words::{WORDS, is_pair_of};
use crate::asked::{self, worded, words_of};
use crate::choose::one_of;
use crate::{Draw, Generator, Part, Sample, Sound, Split};

/// "What is said?"
pub(super) struct Transcribe;

/// What asks for all words.
pub(crate) const TRANSCRIBE: &[&str] =
    &["What is said?", "Write down what you hear.", "Transcribe the clip.", "Which words are said?"];

impl Generator for Transcribe {
    fn name(&self) -> &'static str {
        "transcribe"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let words = row(split, draw.random_range(1..=5), draw);
        let sound = spoken(split, &words, draw);
        let question = one_of(draw, TRANSCRIBE);
        asked::sample(draw, self.name(), vec![Part::Sound(sound)], *question, spelled(&words))
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        words_of(asked::expected(sample)) == words_of(answer)
    }

    fn chance(&self) -> f64 {
        0.0
    }
}

/// "Which word is said?", of a clip with only one: who hears these is ready for more.
pub(super) struct OneWord;

impl Generator for OneWord {
    fn name(&self) -> &'static str {
        "one_word"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let words = row(split, 1, draw);
        let sound = spoken(split, &words, draw);
        let question = one_of(draw, &["Which word is said?", "What is the word?", "Repeat the word."]);
        asked::sample(draw, self.name(), vec![Part::Sound(sound)], *question, spelled(&words))
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        1.0 / WORDS.len() as f64
    }
}

/// "How many words are said?"
pub(super) struct CountWords;

/// What asks for their number.
pub(crate) const COUNT: &[&str] = &[
    "How many words are said?",
    "Count the words.",
    "How many words do you hear?",
    "What is the number of words in the clip?",
];

/// Most words to count.
const MOST: usize = 6;

impl Generator for CountWords {
    fn name(&self) -> &'static str {
        "count_words"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let n = draw.random_range(1..=MOST);
        let words = row(split, n, draw);
        let sound = spoken(split, &words, draw);
        let question = one_of(draw, COUNT);
        asked::sample(draw, self.name(), vec![Part::Sound(sound)], *question, n.to_string())
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        1.0 / MOST as f64
    }
}

/// "Which is the third word?"
pub(super) struct NthWord;

pub(crate) const NTH: [&str; 5] = ["first", "second", "third", "fourth", "last"];

/// A question for a word by its place in [`NTH`].
pub(crate) fn which(draw: &mut Draw, nth: usize) -> String {
    let wordings = ["Which is the * word?", "What is the * word?", "Repeat the * word.", "Which word is said *?"];
    worded(draw, &wordings[..if nth == 0 || nth == 4 { 4 } else { 3 }], NTH[nth])
}

impl Generator for NthWord {
    fn name(&self) -> &'static str {
        "nth_word"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let nth = draw.random_range(0..NTH.len());
        let n = draw.random_range((nth + 1).clamp(2, 4)..=5);
        let words = row(split, n, draw);
        let word = if nth == 4 { words[n - 1] } else { words[nth] };
        let sound = spoken(split, &words, draw);
        let question = which(draw, nth);
        asked::sample(draw, self.name(), vec![Part::Sound(sound)], question, WORDS[word].0)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        1.0 / WORDS.len() as f64
    }
}

/// `n` words, each next to one that it may stand next to in `split`; no word twice in a row.
pub(crate) fn row(split: Split, n: usize, draw: &mut Draw) -> Vec<usize> {
    let mut words: Vec<usize> = Vec::new();
    while words.len() < n {
        let word = draw.random_range(0..WORDS.len());
        if words.last().is_none_or(|&before| before != word && is_pair_of(split, before, word)) {
            words.push(word);
        }
    }
    words
}

/// A recording of `words` by a speaker of `split`.
pub(crate) fn spoken(split: Split, words: &[usize], draw: &mut Draw) -> Sound {
    let clip = Speaker::of(split, draw).say(words, draw);
    record(&clip, split, draw)
}

/// As they are written.
pub(crate) fn spelled(words: &[usize]) -> String {
    words.iter().map(|&word| WORDS[word].0).collect::<Vec<_>>().join(" ")
}
