//! Learning rates: what share of its peak a step uses, as a pure function of the step.

use serde::{Deserialize, Serialize};
use tensor::math::sin_cos;

/// A rise to the peak, and what comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Steps of the rise, which is linear and begins above 0. The peak is reached by its last step.
    pub warm_up: u64,
    /// What follows.
    pub then: Shape,
}

/// What follows the rise. `steps` counts all steps of a run, the rise included; after them the rate stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "snake_case")]
pub enum Shape {
    /// The peak, for ever.
    Constant,
    /// Half a wave of the cosine down to `floor` of the peak. <https://arxiv.org/abs/1608.03983>
    Cosine {
        /// Steps of the run.
        steps: u64,
        /// What is left at the end.
        floor: f64,
    },
    /// The peak, and in the last `decay` steps a straight line down to `floor` of it. <https://arxiv.org/abs/2404.06395>
    StableDecay {
        /// Steps of the run.
        steps: u64,
        /// Those of the way down.
        decay: u64,
        /// What is left at the end.
        floor: f64,
    },
}

impl Schedule {
    /// The share of the peak that `step`, counted from 0, uses.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warm_up {
            return ratio(step + 1, self.warm_up);
        }
        match self.then {
            Shape::Constant => 1.0,
            Shape::Cosine { steps, floor } => {
                let gone = progress(step, self.warm_up, steps);
                // The cosine of `tensor`, which is the same on every platform.
                let (_, cos) = sin_cos(std::f64::consts::PI * gone);
                floor + (1.0 - floor) * 0.5 * (1.0 + f64::from(cos))
            }
            Shape::StableDecay { steps, decay, floor } => {
                let begin = steps.saturating_sub(decay).max(self.warm_up);
                1.0 + (floor - 1.0) * progress(step, begin, steps)
            }
        }
    }
}

/// How much of the way from `begin` to `end` lies behind `step`: 0 to 1. Where there is no way, nothing ever does.
fn progress(step: u64, begin: u64, end: u64) -> f64 {
    if begin >= end { 0.0 } else { ratio(step.clamp(begin, end) - begin, end - begin) }
}

/// A quotient of counts, which are exact below 2⁵³.
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}
