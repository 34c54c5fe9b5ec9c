//! Top-k, top-p and min-p: which tokens a draw chooses from. Each sorts no more than it needs.

use std::cmp::Ordering;

use super::scores::{Candidate, Scores, weight};

/// Tokens that top-p sorts first; it goes on with four times as many until it has its share.
const FIRST_SORTED: usize = 256;

/// What to keep. A filter that is off is `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Filter {
    /// How many of the largest scores; at least 1.
    pub(super) top_k: Option<usize>,
    /// Probability to reach, below 1.
    pub(super) top_p: Option<f64>,
    /// Share of the largest probability, above 0.
    pub(super) min_p: Option<f32>,
}

impl Filter {
    /// Whether every token is kept.
    pub(super) fn keeps_all(&self) -> bool {
        self.top_k.is_none() && self.top_p.is_none() && self.min_p.is_none()
    }

    /// The tokens that are left, in the order of ids. `largest` is the largest score; its token is always left.
    pub(super) fn keep(&self, scores: &Scores<'_>, largest: f32, temperature: f32) -> Vec<Candidate> {
        let weight_of = |candidate: &Candidate| f64::from(weight(candidate.score, largest, temperature));
        let mut kept = match self.top_k {
            Some(k) => {
                let mut best = best(scores, k);
                best.sort_unstable_by(likeliest_first);
                if let Some(p) = self.top_p {
                    let total = best.iter().map(weight_of).sum::<f64>();
                    cut(&mut best, p * total, weight_of);
                }
                best
            }
            None => match self.top_p {
                Some(p) => {
                    let total = scores.total(largest, temperature);
                    // Tokens below (1 − p) / V of the total have less than 1 − p of it together, so the tokens above
                    // reach p without them.
                    let floor = (1.0 - p) / scores.len() as f64 * total;
                    let mut likely = scores.at_least(score_of(floor, largest, temperature));
                    cut(&mut likely, p * total, weight_of);
                    likely
                }
                None => {
                    let floor = self.min_p.map_or(0.0, f64::from);
                    scores.at_least(score_of(floor, largest, temperature))
                }
            },
        };
        if let Some(min_p) = self.min_p {
            kept.retain(|candidate| weight(candidate.score, largest, temperature) >= min_p);
        }
        kept.sort_unstable_by_key(|candidate| candidate.id);
        kept
    }
}

/// Larger score first, of equal ones the lower id.
pub(super) fn likeliest_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// The `k` likeliest tokens in no particular order, fewer if fewer have a score above −∞.
pub(super) fn best(scores: &Scores<'_>, k: usize) -> Vec<Candidate> {
    let k = k.clamp(1, scores.len().max(1));
    let mut best: Vec<Candidate> = Vec::new();
    let mut floor = f32::NEG_INFINITY;
    // Ids ascend, so a later score that only equals the k-th best loses to it: strictly above is right.
    scores.visit_above(|candidate| {
        best.push(candidate);
        if best.len() >= 2 * k + 64 {
            best.select_nth_unstable_by(k - 1, likeliest_first);
            best.truncate(k);
            floor = best.iter().fold(f32::INFINITY, |least, candidate| least.min(candidate.score));
        }
        floor
    });
    if best.len() > k {
        best.select_nth_unstable_by(k - 1, likeliest_first);
        best.truncate(k);
    }
    best
}

/// A score somewhat below the one whose weight is `weight`: rounding here may let more through, never less.
fn score_of(weight: f64, largest: f32, temperature: f32) -> f32 {
    let exact = f64::from(largest) + f64::from(temperature) * (weight.ln() - 1e-3);
    let slack = 1e-6 * (exact.abs() + f64::from(largest).abs());
    // A weight of 0 gives −∞; −∞ itself is no score to keep.
    ((exact - slack) as f32).max(f32::MIN)
}

/// Shortens `candidates` to the fewest, likeliest first, whose weights add up to `target`.
fn cut(candidates: &mut Vec<Candidate>, target: f64, weight_of: impl Fn(&Candidate) -> f64) {
    let mut reached = 0.0;
    let (mut begin, mut n_next) = (0, FIRST_SORTED);
    while begin < candidates.len() {
        let end = candidates.len().min(begin + n_next);
        if end < candidates.len() {
            candidates[begin..].select_nth_unstable_by(end - begin - 1, likeliest_first);
        }
        candidates[begin..end].sort_unstable_by(likeliest_first);
        for i in begin..end {
            reached += weight_of(&candidates[i]);
            if reached >= target {
                candidates.truncate(i + 1);
                return;
            }
        }
        begin = end;
        n_next *= 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ids that are left, by sorting everything and adding in f64; `None` where a sum is too near its bound to say.
    fn naive(logits: &[f32], temperature: f32, filter: Filter) -> Option<Vec<usize>> {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weigh = |score: f32| ((f64::from(score) - f64::from(largest)) / f64::from(temperature)).exp();
        let mut order: Vec<usize> = (0..logits.len()).filter(|id| logits[*id] > f32::NEG_INFINITY).collect();
        order.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).unwrap().then(a.cmp(b)));
        order.truncate(filter.top_k.unwrap_or(usize::MAX));
        if let Some(p) = filter.top_p {
            let total: f64 = order.iter().map(|id| weigh(logits[*id])).sum();
            let mut reached = 0.0;
            let mut n = 0;
            while n < order.len() && reached < p * total {
                reached += weigh(logits[order[n]]);
                n += 1;
                if (reached / total - p).abs() < 1e-6 {
                    return None;
                }
            }
            order.truncate(n);
        }
        if let Some(min_p) = filter.min_p {
            if order.iter().any(|id| (weigh(logits[*id]) / f64::from(min_p) - 1.0).abs() < 1e-5) {
                return None;
            }
            order.retain(|id| weigh(logits[*id]) >= f64::from(min_p));
        }
        order.sort_unstable();
        Some(order)
    }

    fn check(logits: &[f32], temperature: f32, filter: Filter) -> Result<(), TestCaseError> {
        let scores = Scores::new(logits, &[]);
        let Some(largest) = scores.largest() else { return Ok(()) };
        let Some(want) = naive(logits, temperature, filter) else { return Err(TestCaseError::reject("too near")) };
        let got: Vec<usize> = filter.keep(&scores, largest.score, temperature).iter().map(|c| c.id).collect();
        prop_assert_eq!(got, want);
        Ok(())
    }

    fn some_logits() -> impl Strategy<Value = Vec<f32>> {
        // Coarse steps make equal scores common; a few are masked.
        let score = prop_oneof![
            8 => (-40i32..40).prop_map(|i| i as f32 * 0.25),
            4 => -15.0f32..15.0,
            1 => Just(f32::NEG_INFINITY)
        ];
        prop::collection::vec(score, 1..2000)
    }

    proptest! {
        #[test]
        fn top_k_keeps_what_sorting_keeps(logits in some_logits(), k in 1usize..2100) {
            check(&logits, 1.0, Filter { top_k: Some(k), top_p: None, min_p: None })?;
        }

        #[test]
        fn top_p_keeps_what_sorting_keeps(logits in some_logits(), p in 0.001f64..0.999, t in 0.05f32..2.0) {
            check(&logits, t, Filter { top_k: None, top_p: Some(p), min_p: None })?;
        }

        #[test]
        fn min_p_keeps_what_comparing_keeps(logits in some_logits(), p in 0.0001f32..1.0, t in 0.05f32..2.0) {
            check(&logits, t, Filter { top_k: None, top_p: None, min_p: Some(p) })?;
        }

        #[test]
        fn filters_work_in_their_stated_order(
            logits in some_logits(), k in 1usize..300, p in 0.01f64..0.999, q in 0.0001f32..1.0, t in 0.05f32..2.0
        ) {
            check(&logits, t, Filter { top_k: Some(k), top_p: Some(p), min_p: Some(q) })?;
            check(&logits, t, Filter { top_k: None, top_p: Some(p), min_p: Some(q) })?;
        }
    }

    #[test]
    fn a_flat_distribution_keeps_the_lowest_ids() {
        let logits = vec![3.0; 5000];
        let scores = Scores::new(&logits, &[]);
        let keep = |filter: Filter| filter.keep(&scores, 3.0, 1.0);
        let ids: Vec<usize> = keep(Filter { top_k: Some(7), top_p: None, min_p: None }).iter().map(|c| c.id).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6]);
        let half = keep(Filter { top_k: None, top_p: Some(0.5), min_p: None });
        assert_eq!((half.len(), half.last().map(|c| c.id)), (2500, Some(2499)));
        assert_eq!(keep(Filter { top_k: None, top_p: None, min_p: Some(1.0) }).len(), 5000);
    }
}
