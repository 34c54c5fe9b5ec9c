//! Pre-tokenisation: cutting a text into the pieces inside which tokens are merged.
//!
//! Each [`Pattern`] is a published regular expression, matched here by a scanner that reads every character a bounded
//! number of times. The alternatives are tried in the order of the expression, greedily, with the same backtracking.

pub(crate) mod classes;
mod scan;

use classes::{Classes, NUMBER, PUNCTUATION};
use scan::Scan;

/// A published pre-tokenisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// GPT-4o's and Llama 4's: words by case, digits in threes.
    O200k,
    /// Llama 3's: words of letters, digits in threes.
    Llama3,
    /// Qwen2's: Llama 3's with single digits.
    Qwen2,
    /// GPT-2's: words, numbers, the rest, each with one space before it.
    Gpt2,
    /// Single digits first, GPT-2's between them.
    SmolLm,
    /// llama.cpp's fallback: punctuation first, then GPT-2's, then digits in threes.
    Default,
}

impl Pattern {
    /// The pattern of a GGUF's `tokenizer.ggml.pre`. Source: llama.cpp, `llama-vocab.cpp`.
    pub fn of_gguf(pre: &str) -> Option<Self> {
        Some(match pre {
            "llama4" | "gpt-4o" => Self::O200k,
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "pixtral" | "dbrx" | "smaug-bpe" => Self::Llama3,
            "qwen2" | "stablelm2" | "deepseek-r1-qwen" => Self::Qwen2,
            "gpt-2" | "phi-2" | "olmo" | "gigachat" => Self::Gpt2,
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => Self::SmolLm,
            "default" => Self::Default,
            _ => return None,
        })
    }

    /// Whether a piece that is itself a token takes that id without merging.
    pub fn ignores_merges(self) -> bool {
        self == Self::Llama3
    }
}

/// Cuts texts by one pattern.
#[derive(Debug)]
pub(crate) struct Splitter {
    pattern: Pattern,
    classes: Classes,
}

impl Splitter {
    pub fn new(pattern: Pattern) -> Self {
        Self { pattern, classes: Classes::new() }
    }

    /// Calls `each` with the pieces of `text`, in order; together they are the text.
    pub fn each<'a>(&self, text: &'a str, each: &mut impl FnMut(&'a str)) {
        match self.pattern {
            Pattern::SmolLm => self.runs(text, NUMBER, &mut |piece, is_run| match is_run {
                true => chars(piece, each),
                false => self.scan(piece, |scan, at| scan.gpt2(at), each),
            }),
            Pattern::Default => self.runs(text, PUNCTUATION, &mut |piece, _| {
                self.scan(piece, |scan, at| scan.gpt2(at), &mut |word| {
                    self.runs(word, NUMBER, &mut |part, is_run| match is_run {
                        true => triples(part, each),
                        false => each(part),
                    });
                });
            }),
            Pattern::O200k => self.scan(text, |scan, at| scan.o200k(at), each),
            Pattern::Llama3 => self.scan(text, |scan, at| scan.llama3(at, 3), each),
            Pattern::Qwen2 => self.scan(text, |scan, at| scan.llama3(at, 1), each),
            Pattern::Gpt2 => self.scan(text, |scan, at| scan.gpt2(at), each),
        }
    }

    /// Applies `next`, which gives the end of the match that begins at a place, from the start to the end.
    fn scan<'a>(&self, text: &'a str, next: impl Fn(&Scan<'_>, usize) -> usize, each: &mut impl FnMut(&'a str)) {
        let scan = Scan { text, classes: &self.classes };
        let mut at = 0;
        while at < text.len() {
            let end = next(&scan, at);
            each(text.get(at..end).unwrap_or_default());
            at = end;
        }
    }

    /// Cuts `text` into runs of characters of `class` (called with true) and what lies between them.
    fn runs<'a>(&self, text: &'a str, class: u8, each: &mut impl FnMut(&'a str, bool)) {
        let mut begin = 0;
        let mut in_run = false;
        for (at, c) in text.char_indices() {
            let is_class = self.classes.of(c) & class != 0;
            if is_class != in_run && at > begin {
                each(text.get(begin..at).unwrap_or_default(), in_run);
                begin = at;
            }
            in_run = is_class;
        }
        if begin < text.len() {
            each(text.get(begin..).unwrap_or_default(), in_run);
        }
    }
}

/// Every character by itself.
fn chars<'a>(run: &'a str, each: &mut impl FnMut(&'a str)) {
    for (at, c) in run.char_indices() {
        each(run.get(at..at + c.len_utf8()).unwrap_or_default());
    }
}

/// A run of digits: ASCII digits in threes from the left, and whatever lies between such triples in one.
fn triples<'a>(run: &'a str, each: &mut impl FnMut(&'a str)) {
    let (mut begin, mut ascii) = (0, 0);
    for (at, c) in run.char_indices() {
        ascii = if c.is_ascii_digit() { ascii + 1 } else { 0 };
        if ascii == 3 {
            // The three are one byte each.
            let triple = at - 2;
            if begin < triple {
                each(run.get(begin..triple).unwrap_or_default());
            }
            each(run.get(triple..=at).unwrap_or_default());
            (begin, ascii) = (at + 1, 0);
        }
    }
    if begin < run.len() {
        each(run.get(begin..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
