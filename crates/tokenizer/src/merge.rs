//! Byte-pair merging: repeatedly joins the adjacent pair of lowest rank, the leftmost among equals.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No neighbour on this side, or a part that was merged away.
const NONE: u32 = u32::MAX;
/// The id of a part that is no token of its own.
pub(crate) const NO_TOKEN: u32 = u32::MAX;

/// A stretch of the piece that is one symbol so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// First byte within the piece.
    pub begin: u32,
    /// Bytes.
    pub len: u32,
    /// Its token, or [`NO_TOKEN`].
    pub id: u32,
    prev: u32,
    next: u32,
}

impl Part {
    /// Its bytes within `piece`.
    pub fn of<'a>(&self, piece: &'a [u8]) -> &'a [u8] {
        let begin = self.begin as usize;
        piece.get(begin..begin + self.len as usize).unwrap_or_default()
    }
}

/// What joining two parts makes: lower `rank` goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Join {
    pub rank: u32,
    pub id: u32,
}

/// A possible join; the order of the fields is the order in which joins are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    right: u32,
    len: u32,
    id: u32,
}

/// Merges one piece at a time and keeps its memory for the next.
///
/// A piece of n parts takes O(n log n) joins looked up. Pieces are shorter than 4 GiB.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    parts: Vec<Part>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Forgets the piece before.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.heap.clear();
    }

    /// Appends a part of `len` bytes.
    pub fn push(&mut self, len: u32, id: u32) {
        let at = self.parts.len() as u32;
        let (begin, prev) = match self.parts.last_mut() {
            Some(last) => {
                last.next = at;
                (last.begin + last.len, at - 1)
            }
            None => (0, NONE),
        };
        self.parts.push(Part { begin, len, id, prev, next: NONE });
    }

    /// Joins until `join` knows no pair any more.
    pub fn run(&mut self, join: impl Fn(&Part, &Part) -> Option<Join>) {
        for left in 0..self.parts.len() as u32 {
            self.offer(left, &join);
        }
        while let Some(Reverse(candidate)) = self.heap.pop() {
            if let Some(prev) = self.accept(candidate) {
                if prev != NONE {
                    self.offer(prev, &join);
                }
                self.offer(candidate.left, &join);
            }
        }
    }

    /// What is left, in order.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let mut at = if self.parts.is_empty() { NONE } else { 0 };
        std::iter::from_fn(move || {
            let part = self.parts.get(at as usize)?;
            at = part.next;
            Some(part)
        })
    }

    /// Puts the join of `left` and its neighbour on the heap, if there is one.
    fn offer(&mut self, left: u32, join: &impl Fn(&Part, &Part) -> Option<Join>) {
        let Some(a) = self.parts.get(left as usize) else { return };
        let Some(b) = self.parts.get(a.next as usize) else { return };
        if let Some(Join { rank, id }) = join(a, b) {
            self.heap.push(Reverse(Candidate { rank, left, right: a.next, len: a.len + b.len, id }));
        }
    }

    /// Makes a join unless one of its parts has changed since; returns the part before it.
    fn accept(&mut self, candidate: Candidate) -> Option<u32> {
        let a = *self.parts.get(candidate.left as usize)?;
        let b = *self.parts.get(candidate.right as usize)?;
        // A part that was merged away has length 0, one that grew is longer: either way the sum differs.
        if a.len == 0 || b.len == 0 || a.next != candidate.right || a.len + b.len != candidate.len {
            return None;
        }
        if let Some(after) = self.parts.get_mut(b.next as usize) {
            after.prev = candidate.left;
        }
        if let Some(gone) = self.parts.get_mut(candidate.right as usize) {
            gone.len = 0;
        }
        if let Some(kept) = self.parts.get_mut(candidate.left as usize) {
            *kept = Part { len: candidate.len, id: candidate.id, next: b.next, ..a };
        }
        Some(a.prev)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, quadratic: scan for the lowest rank, join, again.
    fn by_scanning(piece: &[u8], rank: &impl Fn(&[u8]) -> Option<u32>) -> Vec<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = piece.iter().map(|&b| vec![b]).collect();
        loop {
            let best = (0..parts.len().saturating_sub(1))
                .filter_map(|i| rank(&[parts[i].as_slice(), parts[i + 1].as_slice()].concat()).map(|r| (r, i)))
                .min();
            let Some((_, i)) = best else { return parts };
            let right = parts.remove(i + 1);
            parts[i].extend(right);
        }
    }

    fn by_heap(piece: &[u8], rank: &impl Fn(&[u8]) -> Option<u32>) -> Vec<Vec<u8>> {
        let mut merger = Merger::default();
        for &b in piece {
            merger.push(1, u32::from(b));
        }
        merger.run(|a, b| {
            let joined = piece.get(a.begin as usize..(b.begin + b.len) as usize)?;
            rank(joined).map(|rank| Join { rank, id: rank })
        });
        merger.parts().map(|p| p.of(piece).to_vec()).collect()
    }

    proptest::proptest! {
        #[test]
        fn the_heap_makes_the_joins_of_the_definition(
            piece in proptest::collection::vec(0u8..4, 0..60),
            words in proptest::collection::vec(proptest::collection::vec(0u8..4, 2..5), 0..40),
        ) {
            let rank = |joined: &[u8]| words.iter().position(|w| w == joined).map(|i| i as u32 / 2);
            proptest::prop_assert_eq!(by_heap(&piece, &rank), by_scanning(&piece, &rank));
        }
    }

    #[test]
    fn a_long_piece_of_one_letter_takes_few_lookups() {
        let n = 200_000;
        let mut merger = Merger::default();
        (0..n).for_each(|_| merger.push(1, 0));
        let lookups = std::cell::Cell::new(0u32);
        merger.run(|a, b| {
            lookups.set(lookups.get() + 1);
            let len = a.len + b.len;
            (a.len == b.len && len <= 64).then_some(Join { rank: len, id: len })
        });
        assert_eq!(merger.parts().map(|p| p.len).sum::<u32>(), n);
        assert!(lookups.get() < 4 * n, "{} lookups for {n} bytes", lookups.get());
    }
}
