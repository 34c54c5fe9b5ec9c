//! The model's own distribution, before anything that a request asks for.

use super::SampleError;
use super::filter::{best, likeliest_first};
use super::scores::Scores;

/// Log-probabilities of one row of scores.
#[derive(Debug)]
pub struct LogProbs<'a> {
    scores: &'a [f32],
    /// The logarithm of the sum of e^score.
    log_total: f64,
}

impl<'a> LogProbs<'a> {
    /// Of `scores`, one a token of the vocabulary.
    ///
    /// # Errors
    /// [`SampleError::Numerical`] if a score is NaN or +∞, or none is finite.
    pub fn new(scores: &'a [f32]) -> Result<Self, SampleError> {
        let given = Scores::new(scores, &[]);
        let largest = given.largest().ok_or(SampleError::Numerical)?;
        let log_total = given.total(largest.score, 1.0).ln() + f64::from(largest.score);
        Ok(Self { scores, log_total })
    }

    /// The logarithm of the probability of token `id`; −∞ if there is none.
    pub fn of(&self, id: usize) -> f32 {
        self.scores.get(id).map_or(f32::NEG_INFINITY, |score| (f64::from(*score) - self.log_total) as f32)
    }

    /// The `n` likeliest tokens, likeliest first, of equal ones the lower id first, with the logarithms of their
    /// probabilities. Looks at every score once and sorts the `n` only.
    pub fn likeliest(&self, n: usize) -> Vec<(usize, f32)> {
        if n == 0 {
            return Vec::new();
        }
        let mut likeliest = best(&Scores::new(self.scores, &[]), n);
        likeliest.sort_unstable_by(likeliest_first);
        likeliest.iter().map(|candidate| (candidate.id, self.of(candidate.id))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_likeliest_are_those_that_sorting_finds(
            scores in prop::collection::vec((-40i32..40).prop_map(|i| i as f32 * 0.25), 1..600),
            n in 0usize..25,
        ) {
            let log_probs = LogProbs::new(&scores).expect("finite scores");
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
            order.truncate(n);
            let total: f64 = scores.iter().map(|score| f64::from(*score).exp()).sum();
            let got = log_probs.likeliest(n);
            prop_assert_eq!(got.iter().map(|(id, _)| *id).collect::<Vec<_>>(), order);
            for (id, log_prob) in got {
                let want = f64::from(scores[id]) - total.ln();
                // Weights are within 3 units in the last place of f32, so the logarithm of their sum is within 4e-7.
                prop_assert!((f64::from(log_prob) - want).abs() < 4e-7 + 1e-7 * want.abs(), "{} {}", log_prob, want);
            }
        }
    }

    #[test]
    fn a_broken_row_has_no_probabilities() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(LogProbs::new(&[0.0, bad, 1.0]).is_err());
        }
        assert!(LogProbs::new(&[f32::NEG_INFINITY; 3]).is_err());
    }
}
