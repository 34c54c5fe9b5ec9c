//! One row of scores with the few that a request changed, without a copy of the row.

use std::iter;
use std::slice;

/// Chains of a sum of weights.
const LANES: usize = 8;
/// Values of a block whose sum is kept while drawing.
const BLOCK_LEN: usize = 1024;

/// The scores of all tokens: `logits`, save those ids that `changed` lists.
pub(super) struct Scores<'a> {
    logits: &'a [f32],
    /// Ascending ids inside of `logits`.
    changed: &'a [(usize, f32)],
}

/// A score that was kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// The token.
    pub(super) id: usize,
    /// Its score.
    pub(super) score: f32,
}

impl<'a> Scores<'a> {
    /// `changed` holds ascending ids, all smaller than the length of `logits`, with their scores.
    pub(super) fn new(logits: &'a [f32], changed: &'a [(usize, f32)]) -> Self {
        assert!(changed.windows(2).all(|pair| pair[0].0 < pair[1].0), "ids ascend");
        assert!(changed.last().is_none_or(|(id, _)| *id < logits.len()), "ids are in range");
        Self { logits, changed }
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.logits.len()
    }

    /// All scores in the order of ids, in pieces, each with the id of its first one.
    fn runs(&self) -> impl Iterator<Item = (usize, &'a [f32])> {
        let (logits, mut begin) = (self.logits, 0);
        let end_of_changed = self.changed.last().map_or(0, |(id, _)| id + 1);
        let tail = iter::once((end_of_changed, &logits[end_of_changed..]));
        self.changed
            .iter()
            .flat_map(move |(id, score)| {
                let before = (begin, &logits[begin..*id]);
                begin = id + 1;
                [before, (*id, slice::from_ref(score))]
            })
            .chain(tail)
    }

    /// The largest score and the lowest id that has it; `None` if a score is NaN or +∞, or none is finite.
    pub(super) fn largest(&self) -> Option<Candidate> {
        let mut largest = f32::NEG_INFINITY;
        for (_, run) in self.runs() {
            largest = largest.max(largest_of(run)?);
        }
        if largest == f32::NEG_INFINITY {
            return None;
        }
        let place = |(first, run): (usize, &[f32])| run.iter().position(|s| *s == largest).map(|at| first + at);
        self.runs().find_map(place).map(|id| Candidate { id, score: largest })
    }

    /// The sum of all weights; see [`weight`].
    pub(super) fn total(&self, largest: f32, temperature: f32) -> f64 {
        self.blocks(largest, temperature).map(|(_, _, total)| total).sum()
    }

    /// Pieces of at most [`BLOCK_LEN`] scores: first id, scores, sum of weights.
    fn blocks(&self, largest: f32, temperature: f32) -> impl Iterator<Item = (usize, &'a [f32], f64)> {
        self.runs().flat_map(move |(first, run)| {
            run.chunks(BLOCK_LEN)
                .enumerate()
                .map(move |(i, block)| (first + i * BLOCK_LEN, block, total_of(block, largest, temperature)))
        })
    }

    /// The tokens with a score of at least `floor`, in the order of ids.
    pub(super) fn at_least(&self, floor: f32) -> Vec<Candidate> {
        let mut kept = Vec::new();
        for (first, run) in self.runs() {
            for (i, score) in run.iter().enumerate() {
                if *score >= floor {
                    kept.push(Candidate { id: first + i, score: *score });
                }
            }
        }
        kept
    }

    /// Calls `visit` with each token whose score is above what the last call returned, at first above −∞; in the order
    /// of ids.
    pub(super) fn visit_above(&self, mut visit: impl FnMut(Candidate) -> f32) {
        let mut floor = f32::NEG_INFINITY;
        for (first, run) in self.runs() {
            for (i, score) in run.iter().enumerate() {
                if *score > floor {
                    floor = visit(Candidate { id: first + i, score: *score });
                }
            }
        }
    }

    /// The token at which the cumulative weight, in the order of ids, passes `u` of the total; `u` is in [0, 1).
    ///
    /// `largest` must be the largest score. Never a token without weight.
    pub(super) fn draw(&self, largest: Candidate, temperature: f32, u: f64) -> usize {
        let blocks: Vec<_> = self.blocks(largest.score, temperature).collect();
        let mut left = u * blocks.iter().map(|(_, _, total)| total).sum::<f64>();
        let mut chosen = None;
        for (first, block, total) in blocks {
            if total > 0.0 {
                chosen = Some((first, block));
                if left < total {
                    break;
                }
                left -= total;
            }
        }
        let Some((first, block)) = chosen else { return largest.id };
        let weights = block.iter().map(|score| f64::from(weight(*score, largest.score, temperature)));
        walk(weights, left).map_or(largest.id, |at| first + at)
    }
}

/// The index at which the running sum of `weights` passes `left`; where rounding leaves none, the last one that has a
/// weight.
pub(super) fn walk(weights: impl Iterator<Item = f64>, mut left: f64) -> Option<usize> {
    let mut last = None;
    for (i, weight) in weights.enumerate() {
        if left < weight {
            return Some(i);
        }
        left -= weight;
        if weight > 0.0 {
            last = Some(i);
        }
    }
    last
}

/// The unnormalised probability of a score, e^((score − largest) / temperature): 1 for the largest one.
#[inline(always)]
pub(super) fn weight(score: f32, largest: f32, temperature: f32) -> f32 {
    exp((score - largest) / temperature)
}

/// The largest of `scores`, −∞ if there is none; `None` if one is NaN or +∞.
fn largest_of(scores: &[f32]) -> Option<f32> {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut usable = [true; 16];
    let (chunks, rest) = scores.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
            usable[i] &= chunk[i] < f32::INFINITY;
        }
    }
    let rest_usable = rest.iter().all(|score| *score < f32::INFINITY);
    let largest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    (rest_usable && usable == [true; 16]).then_some(largest)
}

/// The sum of the weights of `scores` in f64: value i goes to chain i mod 8, the chains are added first to last.
fn total_of(scores: &[f32], largest: f32, temperature: f32) -> f64 {
    let mut lanes = [0.0f64; LANES];
    for part in scores.chunks(8 * LANES) {
        // The weights of a part first: the compiler turns this loop into vector code, and the sum below into another.
        let mut weights = [0.0f32; 8 * LANES];
        for (weight_out, score) in weights.iter_mut().zip(part) {
            *weight_out = weight(*score, largest, temperature);
        }
        for chunk in weights.as_chunks::<LANES>().0 {
            for i in 0..LANES {
                lanes[i] += f64::from(chunk[i]);
            }
        }
    }
    lanes.iter().sum()
}

/// eˣ for x ≤ 0 within 3 units in the last place; 0 below −87, where e is close to the end of the normal numbers.
///
/// Like `tensor::math::exp`, but of plain products and sums: a fused multiply-add is a library call where the compiler
/// may not assume the instruction, and 200 000 of these a token then cost milliseconds. No operation here depends on
/// the platform, so neither does the result.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // ln 2 in two parts: the first has trailing zeros, so n · LN2_HIGH is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 · 2²³ rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 720.0f32;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x > -87.0 { p * power } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_three_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in 0..870_000 {
            let x = i as f32 * -1e-4;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        assert!(worst < 3.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert_eq!((exp(0.0), exp(-0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 1.0, 0.0, 0.0));
    }

    #[test]
    fn runs_show_every_score_once_with_changes_applied() {
        let logits: Vec<f32> = (0..10).map(|i| i as f32).collect();
        for changed in [vec![], vec![(0, -1.0)], vec![(9, -1.0)], vec![(0, -1.0), (1, -2.0), (5, -3.0), (9, -4.0)]] {
            let mut want = logits.clone();
            for (id, score) in &changed {
                want[*id] = *score;
            }
            let scores = Scores::new(&logits, &changed);
            let mut got = Vec::new();
            for (first, run) in scores.runs() {
                assert_eq!(first, got.len());
                got.extend_from_slice(run);
            }
            assert_eq!(got, want);
        }
    }

    #[test]
    fn a_bad_score_is_found_wherever_it_stands() {
        for bad in [f32::NAN, f32::INFINITY] {
            for at in 0..37 {
                let mut logits = vec![0.5; 37];
                logits[at] = bad;
                assert_eq!(Scores::new(&logits, &[]).largest(), None, "{bad} at {at}");
                let healed = [(at, 1.0)];
                assert_eq!(Scores::new(&logits, &healed).largest(), Some(Candidate { id: at, score: 1.0 }));
            }
        }
    }

    #[test]
    fn a_draw_never_takes_a_token_without_weight() {
        let mut logits = vec![f32::NEG_INFINITY; 5000];
        logits[1500] = -3.0;
        logits[4000] = 2.0;
        let scores = Scores::new(&logits, &[]);
        let largest = scores.largest().unwrap();
        for u in [0.0, 1e-9, 0.5, 1.0 - f64::EPSILON] {
            assert!([1500, 4000].contains(&scores.draw(largest, 1.0, u)), "{u}");
        }
        assert_eq!(scores.draw(largest, 1.0, 0.0), 1500);
        assert_eq!(scores.draw(largest, 1.0, 1.0 - f64::EPSILON), 4000);
    }
}
