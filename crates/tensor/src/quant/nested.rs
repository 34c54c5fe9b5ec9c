//! Blocks whose group scales are integers themselves, times a scale of the block: what the encoders of the K formats
//! share.

use super::fit::{Levels, peak, scale_to_f16};
use super::{MAX_GROUPS, MAX_LEN};

/// A block of groups with scales only.
pub(super) struct Scaled {
    /// The scale of the group scales; an f16.
    pub d: f32,
    /// The group scales.
    pub scales: [i8; MAX_GROUPS],
    /// Each value's level, counted from the lowest.
    pub codes: [u8; MAX_LEN],
}

/// A block of groups with scales and minimums.
pub(super) struct Affine {
    /// The scale of the group scales; an f16.
    pub d: f32,
    /// The scale of the group minimums; an f16.
    pub d_min: f32,
    /// The group scales.
    pub scales: [u8; MAX_GROUPS],
    /// The group minimums: what is subtracted.
    pub minimums: [u8; MAX_GROUPS],
    /// Each value's level.
    pub codes: [u8; MAX_LEN],
}

impl Scaled {
    /// Quantises `values` in groups of `group`, with group scales from `least` to `most`; `least` is negative, and
    /// no smaller in magnitude than `most`.
    pub fn fit(values: &[f32], group: usize, levels: Levels, [least, most]: [i8; 2]) -> Self {
        let mut fitted = [0.0f32; MAX_GROUPS];
        for (scale, values) in fitted.iter_mut().zip(values.chunks_exact(group)) {
            *scale = levels.fit_scale(values);
        }
        let d = scale_to_f16(peak(&fitted) / f32::from(least));
        let mut this = Self { d, scales: [0; MAX_GROUPS], codes: [0; MAX_LEN] };
        for (g, (values, codes)) in values.chunks_exact(group).zip(this.codes.chunks_exact_mut(group)).enumerate() {
            let near = (quotient(fitted[g], d) as i8).clamp(least, most);
            let error = |scale: i8| levels.error(values, d * f32::from(scale), 0.0);
            let mut best = (error(near), near);
            for scale in [near.saturating_sub(1).max(least), near.saturating_add(1).min(most)] {
                let error = error(scale);
                if error < best.0 {
                    best = (error, scale);
                }
            }
            this.scales[g] = best.1;
            levels.codes(values, d * f32::from(best.1), 0.0, codes);
        }
        this
    }
}

impl Affine {
    /// Quantises `values` in groups of `group`, with group scales and minimums from 0 to `most`.
    pub fn fit(values: &[f32], group: usize, levels: Levels, most: u8) -> Self {
        let mut fitted = [(0.0f32, 0.0f32); MAX_GROUPS];
        let (mut largest, mut deepest) = (0.0f32, 0.0f32);
        for (fit, values) in fitted.iter_mut().zip(values.chunks_exact(group)) {
            *fit = levels.fit_affine(values, 0.0);
            (largest, deepest) = (largest.max(fit.0), deepest.max(-fit.1));
        }
        let (d, d_min) = (scale_to_f16(largest / f32::from(most)), scale_to_f16(deepest / f32::from(most)));
        let (scales, minimums) = ([0; MAX_GROUPS], [0; MAX_GROUPS]);
        let mut this = Self { d, d_min, scales, minimums, codes: [0; MAX_LEN] };
        for (g, (values, codes)) in values.chunks_exact(group).zip(this.codes.chunks_exact_mut(group)).enumerate() {
            let (scale, offset) = fitted[g];
            let near = [quotient(scale, d) as u8, quotient(-offset, d_min) as u8].map(|n| n.min(most));
            let error =
                |[scale, minimum]: [u8; 2]| levels.error(values, d * f32::from(scale), -(d_min * f32::from(minimum)));
            let mut best = (error(near), near);
            for scale in near[0].saturating_sub(1)..=(near[0] + 1).min(most) {
                for minimum in near[1].saturating_sub(1)..=(near[1] + 1).min(most) {
                    let error = error([scale, minimum]);
                    if error < best.0 {
                        best = (error, [scale, minimum]);
                    }
                }
            }
            let [scale, minimum] = best.1;
            (this.scales[g], this.minimums[g]) = (scale, minimum);
            levels.codes(values, d * f32::from(scale), -(d_min * f32::from(minimum)), codes);
        }
        this
    }
}

/// `value / unit`, rounded. 0 / 0 is NaN, which conversion to an integer makes 0.
fn quotient(value: f32, unit: f32) -> f32 {
    (value / unit).round()
}
