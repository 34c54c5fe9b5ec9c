//! Text cut into sequences, in an order that a number decides.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::Sequence;

/// Of a thousand parts of what is hashed, those that are held out.
const PARTS: u64 = 1000;

/// Token ids as sequences of one length, of which some are held out. Sequence i of training is a function of the seed and
/// i alone, so a run that stops is resumed by a number.
#[derive(Debug, Clone)]
pub struct Feed {
    ids: Vec<u32>,
    length: usize,
    seed: u64,
    /// Where each sequence begins.
    trained: Vec<usize>,
    held_out: Vec<usize>,
    /// The order of one pass.
    order: Option<(u64, Vec<usize>)>,
}

impl Feed {
    /// Cuts `ids` into sequences of `length` targets each; what is left at the end is not used. A sequence is held out if
    /// the hash of its tokens says so, wherever it stands.
    pub fn new(ids: Vec<u32>, length: usize, held_out: f64, seed: u64) -> Self {
        let limit = (held_out * PARTS as f64) as u64;
        let begins = (0..ids.len().saturating_sub(1) / length.max(1)).map(|i| i * length);
        let is_held_out = |begin: &usize| hash(&ids[*begin..*begin + length]) % PARTS < limit;
        let (held_out, trained) = begins.partition(is_held_out);
        Self { ids, length, seed, trained, held_out, order: None }
    }

    /// Sequences to learn from in one pass.
    pub fn len(&self) -> usize {
        self.trained.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.trained.is_empty()
    }

    /// Sequence `index` of training; passes follow each other, each in an order of its own.
    pub fn at(&mut self, index: u64) -> Sequence {
        let n = self.trained.len().max(1) as u64;
        let (pass, place) = (index / n, (index % n) as usize);
        let order = match self.order.take() {
            Some((of, order)) if of == pass => order,
            _ => shuffled(self.trained.len(), self.seed, pass),
        };
        let begin = order.get(place).map_or(0, |i| self.trained[*i]);
        self.order = Some((pass, order));
        self.cut(begin)
    }

    /// The first `n` sequences that are only measured.
    pub fn held_out(&self, n: usize) -> Vec<Sequence> {
        self.held_out.iter().take(n).map(|begin| self.cut(*begin)).collect()
    }

    fn cut(&self, begin: usize) -> Sequence {
        Sequence::text(&self.ids[begin..self.ids.len().min(begin + self.length + 1)])
    }
}

/// FNV-1a.
fn hash(ids: &[u32]) -> u64 {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The lowest bits are mixed least.
    sum >> 16
}

/// `0..n` in an order of its own (Fisher and Yates).
fn shuffled(n: usize, seed: u64, pass: u64) -> Vec<usize> {
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    draw.set_stream(pass);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        // The bias of the remainder, below n / 2⁶⁴, is no concern here.
        order.swap(i, (draw.next_u64() % (i as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_comes_once_a_pass_and_none_that_is_held_out() {
        let ids: Vec<u32> = (0..8005).map(|i| (i * i) % 977).collect();
        let mut feed = Feed::new(ids, 8, 0.1, 3);
        let (n, held_out) = (feed.len(), feed.held_out(usize::MAX));
        assert_eq!(n + held_out.len(), 1000);
        assert!((60..140).contains(&held_out.len()), "{}", held_out.len());
        for pass in 0..2u64 {
            let mut seen: Vec<Vec<u32>> = (0..n as u64).map(|i| feed.at(pass * n as u64 + i).targets).collect();
            seen.sort();
            let mut want: Vec<Vec<u32>> = feed.trained.iter().map(|begin| feed.cut(*begin).targets).collect();
            want.sort();
            assert_eq!(seen, want);
        }
        let first: Vec<u32> = feed.at(0).targets;
        assert_ne!(first, feed.at(n as u64).targets);
        assert_eq!(first, feed.at(0).targets);
    }
}
