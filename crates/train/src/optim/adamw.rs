//! AdamW: <https://arxiv.org/abs/1711.05101>, algorithm 2, in the order of operations of `torch.optim.AdamW`.

use tensor::math::pow;

use super::piece::Piece;

/// What AdamW is set to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate at the schedule's peak.
    pub lr: f64,
    /// Decay of the first and of the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of a weight, times the learning rate, that a step takes from it.
    pub weight_decay: f64,
}

/// One step's numbers, the same for all values of a parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamWStep {
    kept: f32,
    /// Shares of a new gradient in the moments, and of the old second moment in itself.
    first: f32,
    second: f32,
    second_kept: f32,
    /// Learning rate over the correction of the first moment.
    rate: f32,
    /// One over the root of the correction of the second moment.
    root_scale: f32,
    eps: f32,
    /// What gradients are multiplied by.
    clip: f32,
}

impl AdamW {
    /// The numbers of applied step `step`, counted from 1, at `factor` of the peak.
    pub(crate) fn at(&self, step: u64, factor: f64, weight_decay: f64, clip: f32) -> AdamWStep {
        let [first, second] = self.betas;
        // Exact up to 2⁵³ steps.
        let n_steps = step as f64;
        let lr = self.lr * factor;
        AdamWStep {
            kept: (1.0 - lr * weight_decay) as f32,
            first: (1.0 - first) as f32,
            second: (1.0 - second) as f32,
            second_kept: second as f32,
            rate: (lr / (1.0 - pow(first, n_steps))) as f32,
            root_scale: (1.0 / (1.0 - pow(second, n_steps)).sqrt()) as f32,
            eps: self.eps as f32,
            clip,
        }
    }
}

impl AdamWStep {
    /// Updates the values and moments of `piece`.
    pub(crate) fn apply(&self, piece: &mut Piece<'_>) {
        let [firsts, seconds] = &mut piece.moments;
        let moments = firsts.iter_mut().zip(seconds.iter_mut());
        for ((value, gradient), (first, second)) in piece.values.iter_mut().zip(piece.gradient).zip(moments) {
            let gradient = gradient * self.clip;
            *first += (gradient - *first) * self.first;
            *second = *second * self.second_kept + gradient * gradient * self.second;
            let root = second.sqrt() * self.root_scale + self.eps;
            *value = *value * self.kept - self.rate * (*first / root);
        }
    }
}
