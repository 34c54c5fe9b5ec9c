//! One sequence: what is known of it, how much of that is computed, and its pages.

use crate::media::Keys;
use crate::pages::{PageTable, Pool};

/// What stands at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A token.
    Token(u32),
    /// A row of an encoded image or clip.
    Media {
        /// Index into the sequence's media.
        media: usize,
        /// Row of its features.
        row: usize,
    },
}

/// An image or a clip after its tower.
#[derive(Debug, Clone)]
pub struct Encoded<T> {
    /// Identify what it was: equal images or clips of one conversation share their computed rows.
    pub keys: Keys,
    /// `[n, D]`.
    pub features: T,
}

/// Everything that stands in a sequence, in order.
#[derive(Debug, Clone)]
pub struct Content<T> {
    /// One entry a position.
    pub known: Vec<Known>,
    /// The images and clips that entries point into.
    pub media: Vec<Encoded<T>>,
}

impl<T> Content<T> {
    /// The token at each text position; images and clips are skipped.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        self.known.iter().filter_map(|known| match known {
            Known::Token(id) => Some(*id),
            Known::Media { .. } => None,
        })
    }

    /// Positions from the start at which `self` and `other` hold the same.
    fn common_prefix(&self, other: &Self) -> usize {
        let key = |content: &Self, media: usize, row| content.media.get(media).map(|media| media.keys.of_row(row));
        let same = |(a, b): &(&Known, &Known)| match (a, b) {
            (Known::Token(a), Known::Token(b)) => a == b,
            (Known::Media { media: a, row: i }, Known::Media { media: b, row: j }) => {
                i == j && key(self, *a, *i) == key(other, *b, *j)
            }
            _ => false,
        };
        self.known.iter().zip(&other.known).take_while(same).count()
    }
}

/// A sequence with its pages.
#[derive(Debug)]
pub struct Sequence<T> {
    pub(crate) content: Content<T>,
    /// Positions whose keys and values are stored.
    pub(crate) n_computed: usize,
    pub(crate) global: PageTable,
    pub(crate) chunked: PageTable,
}

impl<T> Default for Sequence<T> {
    fn default() -> Self {
        let content = Content { known: Vec::new(), media: Vec::new() };
        Self { content, n_computed: 0, global: PageTable::default(), chunked: PageTable::default() }
    }
}

impl<T> Sequence<T> {
    /// Positions known so far.
    pub fn len(&self) -> usize {
        self.content.known.len()
    }

    /// Whether nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.content.known.is_empty()
    }

    /// Makes one more token known.
    pub fn push(&mut self, id: u32) {
        self.content.known.push(Known::Token(id));
    }

    /// Positions whose keys and values are stored.
    pub fn n_computed(&self) -> usize {
        self.n_computed
    }

    /// Replaces what is known, keeping what was computed for the common beginning. `chunk` is the model's chunk
    /// length. At least one position is left to compute, so that there are logits to go on from.
    pub(crate) fn replace(&mut self, content: Content<T>, chunk: Option<usize>, pools: (&mut Pool, &mut Pool)) {
        let mut kept = self.content.common_prefix(&content).min(self.n_computed).min(content.known.len().max(1) - 1);
        if let Some(chunk) = chunk {
            // A chunked layer needs its chunk from the start; what was retired has to be computed again.
            if self.chunked.run().first_position > kept - kept % chunk {
                kept = 0;
            }
        }
        self.content = content;
        self.n_computed = kept;
        self.global.truncate(pools.0, kept);
        self.chunked.truncate(pools.1, kept);
    }
}
