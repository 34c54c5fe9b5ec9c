//! Finds scales and offsets: what the encoders of all formats share.
//!
//! Values are finite, and come in a multiple of 8. Near the limits of f32 the sums of a search overflow; an error that is
//! infinite or NaN is never less than another, so that the scale that spans the range stays.

use half::f16;

/// The integers that a format can store, `low..=high`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    /// The smallest; 0 in formats with offsets.
    pub low: f32,
    /// The largest.
    pub high: f32,
}

/// How far the search for a scale goes to either side of the one that spans the range, in tenths of a level.
const SEARCH_TENTHS: i8 = 10;

impl Levels {
    /// The level nearest to `x`.
    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        const ONES: f32 = 12_582_912.0; // 1.5·2²³, where neighbouring floats are 1 apart: adding it rounds to even
        let x = if x > self.low { x } else { self.low };
        let x = if x < self.high { x } else { self.high };
        (x + ONES) - ONES
    }

    /// The sum of squared errors when each value takes its nearest level.
    pub fn error(self, values: &[f32], scale: f32, offset: f32) -> f32 {
        let inverse = reciprocal(scale);
        let [error] = sums(values, |x| {
            let error = scale * self.nearest((x - offset) * inverse) + offset - x;
            [error * error]
        });
        error
    }

    /// Writes each value's nearest level, counted from `low`.
    pub fn codes(self, values: &[f32], scale: f32, offset: f32, codes: &mut [u8]) {
        let inverse = reciprocal(scale);
        for (code, x) in codes.iter_mut().zip(values) {
            *code = (self.nearest((x - offset) * inverse) - self.low) as u8;
        }
    }

    /// The scale with the least squared error that a search finds.
    ///
    /// Begins with the scale that puts the value of largest magnitude on `low`, the side with one level more, and goes
    /// through [`SEARCH_TENTHS`] to both sides; each attempt fixes the levels and solves for the scale.
    pub fn fit_scale(self, values: &[f32]) -> f32 {
        let peak = peak(values);
        if peak == 0.0 {
            return 0.0;
        }
        let mut best = peak / self.low;
        let mut least = self.error(values, best, 0.0);
        for tenths in -SEARCH_TENTHS..=SEARCH_TENTHS {
            let inverse = (self.low - 0.1 * f32::from(tenths)) / peak;
            let [q_x, q_q] = sums(values, |x| {
                let q = self.nearest(x * inverse);
                [q * x, q * q]
            });
            let scale = q_x / q_q; // the peak's level is not 0
            let error = self.error(values, scale, 0.0);
            if error < least {
                (best, least) = (scale, error);
            }
        }
        best
    }

    /// The scale and the offset, at most `ceiling`, with the least squared error that a search finds.
    ///
    /// Begins with the smallest value (or `ceiling`) on level 0 and the largest on `high`, and goes through
    /// [`SEARCH_TENTHS`] to both sides; each attempt fixes the levels and solves for both.
    pub fn fit_affine(self, values: &[f32], ceiling: f32) -> (f32, f32) {
        let (low, high) = range(values);
        let low = low.min(ceiling);
        let range = high - low;
        if range <= 0.0 {
            return (0.0, low);
        }
        let mut best = (range / self.high, low);
        let mut least = self.error(values, best.0, best.1);
        for tenths in -SEARCH_TENTHS..=SEARCH_TENTHS {
            let inverse = (self.high + 0.1 * f32::from(tenths)) / range;
            let (scale, offset) = self.solve(values, low, inverse, ceiling);
            let error = self.error(values, scale, offset);
            if error < least {
                (best, least) = ((scale, offset), error);
            }
        }
        best
    }

    /// Least squares for fixed levels, those nearest to `(x − low) · inverse`.
    fn solve(self, values: &[f32], low: f32, inverse: f32, ceiling: f32) -> (f32, f32) {
        let n = values.len() as f32;
        let [sum_q, q_q, sum_y, q_y] = sums(values, |x| {
            let y = x - low; // small numbers: the products below lose less
            let q = self.nearest(y * inverse);
            [q, q * q, y, q * y]
        });
        let determinant = n * q_q - sum_q * sum_q; // an exact integer; 0 if all levels are equal
        if determinant <= 0.0 {
            return (q_y / q_q.max(1.0), low);
        }
        let scale = (n * q_y - sum_q * sum_y) / determinant;
        let offset = low + (sum_y - scale * sum_q) / n;
        if offset <= ceiling { (scale, offset) } else { ((q_y - (ceiling - low) * sum_q) / q_q, ceiling) }
    }

    /// [`fit_scale`](Self::fit_scale) for a scale stored as f16: the better of the fitted and the spanning one, after
    /// rounding.
    pub fn fit_f16_scale(self, values: &[f32]) -> f32 {
        let spanning = scale_to_f16(peak(values) / self.low);
        let fitted = scale_to_f16(self.fit_scale(values));
        if self.error(values, fitted, 0.0) <= self.error(values, spanning, 0.0) { fitted } else { spanning }
    }

    /// [`fit_affine`](Self::fit_affine) for a scale and an offset stored as f16: the better of the fitted and the
    /// spanning ones, after rounding.
    pub fn fit_f16_affine(self, values: &[f32]) -> (f32, f32) {
        let (low, high) = range(values);
        let low = at_most(low);
        let spanning = (scale_to_f16((high - low) / self.high), low);
        let (scale, offset) = self.fit_affine(values, f32::INFINITY);
        let fitted = (scale_to_f16(scale), nearest_f16(offset));
        let error = |(scale, offset)| self.error(values, scale, offset);
        if error(fitted) <= error(spanning) { fitted } else { spanning }
    }
}

/// The value of largest magnitude.
pub(super) fn peak(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |peak, &x| if x.abs() > peak.abs() { x } else { peak })
}

/// The smallest and the largest value.
fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)))
}

/// `1 / scale`, and 0 for a scale of 0: everything goes to level 0.
fn reciprocal(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Sums the terms of all values over 8 chains each.
#[inline(always)]
fn sums<const N: usize>(values: &[f32], term: impl Fn(f32) -> [f32; N]) -> [f32; N] {
    let mut lanes = [[0.0f32; 8]; N];
    for block in values.as_chunks::<8>().0 {
        for (lane, &x) in block.iter().enumerate() {
            for (sum, term) in lanes.iter_mut().zip(term(x)) {
                sum[lane] += term;
            }
        }
    }
    lanes.map(|sum| sum.iter().sum())
}

/// The finite f16 nearest to `value`.
fn nearest_f16(value: f32) -> f32 {
    f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32())).to_f32()
}

/// The largest finite f16 that is at most `value`, or the smallest there is.
fn at_most(value: f32) -> f32 {
    let nearest = f16::from_f32(nearest_f16(value));
    if nearest.to_f32() <= value.max(f16::MIN.to_f32()) {
        return nearest.to_f32();
    }
    // One step down; the sign and magnitude of an f16 count like an integer.
    let bits = nearest.to_bits();
    f16::from_bits(if nearest.is_sign_negative() { bits + 1 } else { bits - 1 }).to_f32()
}

/// A scale as a finite f16: the nearest, but away from 0 among the subnormal ones, which are so far apart that a scale
/// rounded down would leave the largest values out of reach.
pub(super) fn scale_to_f16(scale: f32) -> f32 {
    if scale.abs() < f16::MIN_POSITIVE.to_f32() { -at_most(-scale.abs()) * scale.signum() } else { nearest_f16(scale) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_scales_are_finite_and_never_lose_a_small_value() {
        let step = f16::from_bits(1).to_f32();
        for (scale, expected) in [
            (0.0, 0.0),
            (1e9, 65504.0),
            (-1e9, -65504.0),
            (1.0, 1.0),
            (1.0004, 1.0),
            (0.1 * step, step),
            (-0.1 * step, -step),
            (1.4 * step, 2.0 * step),
            (3.0 * step, 3.0 * step),
        ] {
            assert_eq!(scale_to_f16(scale), expected, "{scale}");
        }
    }

    #[test]
    fn an_f16_at_most_a_value_is_the_next_one_down() {
        let step = f16::from_bits(1).to_f32();
        for (value, expected) in [
            (1.0, 1.0),
            (1.0009, 1.0),
            (0.99999, 1.0 - f16::EPSILON.to_f32() / 2.0),
            (-1.0, -1.0),
            (-1.0001, -1.0 - f16::EPSILON.to_f32()),
            (0.4 * step, 0.0),
            (-0.4 * step, -step),
            (-1e9, -65504.0),
            (1e9, 65504.0),
        ] {
            assert_eq!(at_most(value), expected, "{value}");
        }
    }

    #[test]
    fn a_fit_finds_the_grid_that_the_values_lie_on() {
        let levels = Levels { low: 0.0, high: 15.0 };
        let values: [f32; 32] = std::array::from_fn(|i| 0.25 * (i % 15) as f32 - 2.0);
        assert_eq!(levels.fit_affine(&values, 0.0), (0.25, -2.0));
        let levels = Levels { low: -8.0, high: 7.0 };
        let values: [f32; 32] = std::array::from_fn(|i| 0.25 * (i % 15) as f32 - 1.75);
        assert_eq!(levels.fit_scale(&values).abs(), 0.25);
    }

    #[test]
    fn a_fit_is_never_worse_than_spanning_the_range() {
        let levels = Levels { low: 0.0, high: 3.0 };
        let values: [f32; 16] = std::array::from_fn(|i| (i as f32 * 0.7).sin() + 3.0);
        let (scale, offset) = levels.fit_affine(&values, 0.0);
        assert!(offset <= 0.0);
        assert!(levels.error(&values, scale, offset) <= levels.error(&values, 4.0 / 3.0, 0.0));
    }
}
