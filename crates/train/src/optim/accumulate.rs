//! Gradients of several small batches as that of a large one.

use std::collections::BTreeMap;

use super::piece::PIECE_LEN;
use super::threads::Threads;

/// The weighted sum of gradients by name.
#[derive(Debug, Default)]
pub struct Accumulator {
    sums: BTreeMap<String, Vec<f32>>,
    weight: f64,
}

impl Accumulator {
    /// Adds `weight` times `gradients`. For losses that are means over a batch's tokens, `weight` is their number, so
    /// that every token of the large batch counts the same. A name that a batch lacks counts as zeros there.
    pub fn add(&mut self, gradients: &BTreeMap<String, Vec<f32>>, weight: f64, threads: Threads) {
        self.weight += weight;
        for (name, gradient) in gradients {
            if !self.sums.contains_key(name) {
                self.sums.insert(name.clone(), vec![0.0; gradient.len()]);
            }
        }
        let sums = self.sums.iter_mut().filter_map(|(name, sum)| Some((sum, gradients.get(name)?)));
        let pieces =
            sums.flat_map(|(sum, gradient)| sum.chunks_mut(PIECE_LEN).zip(gradient.chunks(PIECE_LEN))).collect();
        let weight = weight as f32;
        threads.for_each(pieces, |(sum, gradient): (&mut [f32], &[f32])| {
            for (sum, gradient) in sum.iter_mut().zip(gradient) {
                *sum += weight * gradient;
            }
        });
    }

    /// The mean of what was added; nothing is left. Empty if all weights were 0.
    pub fn take_mean(&mut self, threads: Threads) -> BTreeMap<String, Vec<f32>> {
        let Self { mut sums, weight } = std::mem::take(self);
        if weight == 0.0 {
            return BTreeMap::new();
        }
        let scale = (1.0 / weight) as f32;
        let pieces = sums.values_mut().flat_map(|sum| sum.chunks_mut(PIECE_LEN)).collect();
        threads.for_each(pieces, |sum: &mut [f32]| sum.iter_mut().for_each(|sum| *sum *= scale));
        sums
    }
}
