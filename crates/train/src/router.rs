//! What keeps routers healthy: experts equally busy, logits small.

use tensor::math;

/// What one layer's router lost.
///
/// With f the share of the choices that went to each expert and P the mean of the softmax of the logits, `balance` is
/// E · Σ f·P, which is 1 where all experts are equally busy (Switch Transformer, section 2.2, for any number of choices a
/// row); `z` is the mean square of the logits' logsumexp (ST-MoE, section 2.2). f counts as constant.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterLoss {
    /// The layer.
    pub layer: usize,
    /// E · Σ f·P.
    pub balance: f64,
    /// Mean square of the logsumexp.
    pub z: f64,
    /// Rows sent to each expert.
    pub sent: Vec<u64>,
    /// Rows that were routed: the weight of this measurement.
    pub n_rows: u64,
}

/// A layer's router, as far as its losses go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Router {
    pub(crate) layer: usize,
    pub(crate) n_experts: usize,
    pub(crate) top_k: usize,
}

impl Router {
    /// Measures `logits`, `[T, E]`; and the gradient of `balance_factor` times the one loss plus `z_factor` times the
    /// other.
    pub(crate) fn measure(self, logits: &[f32], [balance_factor, z_factor]: [f32; 2]) -> (RouterLoss, Vec<f32>) {
        let n_experts = self.n_experts;
        let n_rows = logits.len() / n_experts.max(1);
        let mut sent = vec![0u64; n_experts];
        let mut mean = vec![0.0f64; n_experts];
        let mut z = 0.0f64;
        // The softmax takes the place of the gradient until the shares are known.
        let mut gradient = logits.to_vec();
        let mut normalisers = Vec::with_capacity(n_rows);
        for row in gradient.chunks_exact_mut(n_experts) {
            for choice in math::choose(row, self.top_k) {
                sent[choice.expert as usize] += 1;
            }
            let normaliser = softmax(row);
            z += normaliser * normaliser;
            normalisers.push(normaliser as f32);
            mean.iter_mut().zip(row.iter()).for_each(|(mean, p)| *mean += f64::from(*p));
        }
        let n = n_rows.max(1) as f64;
        let share: Vec<f64> = sent.iter().map(|sent| *sent as f64 / (n * self.top_k as f64)).collect();
        let balance = share.iter().zip(&mean).map(|(share, mean)| share * mean / n).sum::<f64>() * n_experts as f64;
        let per_row = [balance_factor * n_experts as f32 / n as f32, 2.0 * z_factor / n as f32];
        for (row, normaliser) in gradient.chunks_exact_mut(n_experts).zip(normalisers) {
            let expected: f32 = row.iter().zip(&share).map(|(p, share)| p * *share as f32).sum();
            for (p, share) in row.iter_mut().zip(&share) {
                *p *= per_row[0] * (*share as f32 - expected) + per_row[1] * normaliser;
            }
        }
        (RouterLoss { layer: self.layer, balance, z: z / n, sent, n_rows: n_rows as u64 }, gradient)
    }
}

/// The softmax of `row` in place; returns its logsumexp.
fn softmax(row: &mut [f32]) -> f64 {
    let largest = row.iter().fold(f32::NEG_INFINITY, |largest, x| if *x > largest { *x } else { largest });
    row.iter_mut().for_each(|x| *x = math::exp(*x - largest));
    let total = math::sum(row);
    row.iter_mut().for_each(|x| *x /= total);
    math::ln(f64::from(total)) + f64::from(largest)
}

impl RouterLoss {
    /// Takes in what the same router lost in another piece of the step.
    pub(crate) fn merge(&mut self, other: &Self) {
        let (mine, theirs) = (self.n_rows as f64, other.n_rows as f64);
        let mean = |a: f64, b: f64| (a * mine + b * theirs) / (mine + theirs).max(1.0);
        (self.balance, self.z) = (mean(self.balance, other.balance), mean(self.z, other.z));
        self.sent.iter_mut().zip(&other.sent).for_each(|(sum, other)| *sum += other);
        self.n_rows += other.n_rows;
    }

    /// How much busier the busiest expert is than the mean.
    pub fn imbalance(&self) -> f64 {
        let total: u64 = self.sent.iter().sum();
        let most = self.sent.iter().copied().max().unwrap_or(0);
        most as f64 * self.sent.len() as f64 / (total as f64).max(1.0)
    }
}
