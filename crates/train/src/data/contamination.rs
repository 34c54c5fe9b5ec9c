//! Whether benchmarks are in training text: by overlaps of thirteen words.
//!
//! The measure of Brown et al. 2020, "Language models are few-shot learners", appendix C: words in lower case without
//! punctuation, thirteen in a row.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::source::Raw;
use super::{DataError, Place};

/// Words of an overlap.
pub const N_WORDS: usize = 13;
/// Overlaps that a report shows.
const EXAMPLES: usize = 10;
/// An odd number with half of its bits set, as the base of the rolling hash: 2⁶⁴ divided by the golden ratio.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The items of benchmarks, as hashes of every thirteen words in a row: sixteen bytes each, with the table's room.
#[derive(Debug, Default)]
pub struct Benchmarks {
    items: Vec<Place>,
    /// The first item that has them.
    item_by_words: HashMap<u64, u32>,
    n_short: usize,
}

impl Benchmarks {
    /// Takes in an item: each of its texts by itself, whatever its field.
    ///
    /// # Errors
    /// [`DataError::Row`] if it is no JSON; [`DataError::Settings`] for more than 2³² items.
    pub fn add(&mut self, raw: &Raw) -> Result<(), DataError> {
        let number = u32::try_from(self.items.len()).map_err(|_| DataError::Settings("too many items".into()))?;
        let mut is_short = true;
        for text in raw.texts()? {
            each_overlap(&text, |words, _| {
                is_short = false;
                if let Entry::Vacant(entry) = self.item_by_words.entry(words) {
                    entry.insert(number);
                }
            });
        }
        self.n_short += usize::from(is_short);
        self.items.push(raw.place.clone());
        Ok(())
    }

    /// Items.
    pub fn n_items(&self) -> usize {
        self.items.len()
    }

    /// Items that are shorter than thirteen words, which can not be looked for.
    pub fn n_short(&self) -> usize {
        self.n_short
    }

    /// Different rows of thirteen words.
    pub fn n_overlaps(&self) -> usize {
        self.item_by_words.len()
    }
}

/// What training text has of benchmarks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contamination {
    /// Rows of training text looked at.
    pub n_rows: u64,
    /// Of those, rows that have thirteen words of a benchmark.
    pub n_rows_found: u64,
    /// How often thirteen words were found.
    pub n_found: u64,
    /// The first rows.
    pub examples: Vec<Overlap>,
}

/// Thirteen words that stand in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// Where in training text.
    pub place: Place,
    /// Where in a benchmark.
    pub item: Place,
    /// The words, as they stand in training text.
    pub words: String,
}

impl Contamination {
    /// Looks for `benchmarks` in a row of training text.
    pub fn look(&mut self, benchmarks: &Benchmarks, place: &Place, text: &str) {
        let mut n_found = 0;
        each_overlap(text, |words, at| {
            let Some(item) = benchmarks.item_by_words.get(&words).and_then(|item| benchmarks.items.get(*item as usize))
            else {
                return;
            };
            n_found += 1;
            if n_found == 1 && self.examples.len() < EXAMPLES {
                let words = text.get(at).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
                self.examples.push(Overlap { place: place.clone(), item: item.clone(), words });
            }
        });
        self.n_rows += 1;
        self.n_rows_found += u64::from(n_found > 0);
        self.n_found += n_found;
    }
}

/// Calls `each` with the hash of every thirteen words in a row and where they stand.
fn each_overlap(text: &str, mut each: impl FnMut(u64, std::ops::Range<usize>)) {
    let highest = (1..N_WORDS).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut ring = [(0u64, 0usize); N_WORDS];
    let (mut hash, mut n_words) = (0u64, 0usize);
    each_word(text, |word, at| {
        let (oldest, _) = ring[n_words % N_WORDS];
        hash = hash.wrapping_sub(oldest.wrapping_mul(highest)).wrapping_mul(BASE).wrapping_add(word);
        ring[n_words % N_WORDS] = (word, at.start);
        n_words += 1;
        if n_words >= N_WORDS {
            let (_, begin) = ring[n_words % N_WORDS];
            each(mixed(hash), begin..at.end);
        }
    });
}

/// Calls `each` with the hash of every word, in lower case and without punctuation, and where it stands.
fn each_word(text: &str, mut each: impl FnMut(u64, std::ops::Range<usize>)) {
    for word in text.split_whitespace() {
        let begin = word.as_ptr().addr() - text.as_ptr().addr();
        // FNV-1a, 64 bits.
        let (mut hash, mut is_empty) = (0xcbf2_9ce4_8422_2325u64, true);
        for letter in word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase) {
            is_empty = false;
            hash = (hash ^ u64::from(u32::from(letter))).wrapping_mul(0x0100_0000_01b3);
        }
        if !is_empty {
            each(mixed(hash), begin..begin + word.len());
        }
    }
}

/// Spreads every bit over all: the finaliser of MurmurHash3.
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
