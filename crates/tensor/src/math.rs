//! Scalar arithmetic that every CPU device shares, and with it every order of additions.
//!
//! All functions are `#[inline(always)]`: compiled inside a function with an instruction set switched on they become
//! that set's code, and since Rust never reorders floating-point operations the bits stay the same. Sums that would
//! otherwise be one long chain run over [`LANES`] chains with a fixed fold.

use crate::device::{DENSE_BLOCK, PAGE_LEN};

/// Chains of a row sum.
pub const LANES: usize = 16;

/// Folds the chains of a row sum in halves: 16 to 8 to 4 to 2 to 1.
#[inline(always)]
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of `x`: value i goes to chain i mod 16; the chains are folded in halves.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            lanes[i] += block[i];
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += value;
    }
    fold(lanes)
}

/// The sum of squares of `x − mean`, in the order of [`sum`], each square added by a fused multiply-add.
#[inline(always)]
pub fn sum_squares(x: &[f32], mean: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            let d = block[i] - mean;
            lanes[i] = d.mul_add(d, lanes[i]);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        let d = value - mean;
        *lane = d.mul_add(d, *lane);
    }
    fold(lanes)
}

/// RMS-normalises `x` into `out`; see [`Device::rms_norm`](crate::Device::rms_norm).
#[inline(always)]
pub fn rms_norm(x: &[f32], gain: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (sum_squares(x, 0.0) / x.len() as f32 + eps).sqrt();
    match gain {
        Some(gain) => {
            for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
                *out = x * scale * gain;
            }
        }
        None => {
            for (out, x) in out.iter_mut().zip(x) {
                *out = x * scale;
            }
        }
    }
}

/// Layer-normalises `x` into `out`; see [`Device::layer_norm`](crate::Device::layer_norm).
#[inline(always)]
pub fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let len = x.len() as f32;
    let mean = sum(x) / len;
    let scale = 1.0 / (sum_squares(x, mean) / len + eps).sqrt();
    for (((out, x), gain), bias) in out.iter_mut().zip(x).zip(gain).zip(bias) {
        *out = ((x - mean) * scale).mul_add(*gain, *bias);
    }
}

/// Rotates one interleaved or half-split head in place; `cos` and `sin` are as long as half the head.
#[inline(always)]
pub fn rotate(pairing: crate::Pairing, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n_pairs = cos.len();
    match pairing {
        crate::Pairing::Interleaved => {
            for ((pair, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                let [a, b] = *pair;
                *pair = [a * cos - b * sin, a * sin + b * cos];
            }
        }
        crate::Pairing::Halves => {
            let (first, second) = head.split_at_mut(n_pairs);
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
}

/// `x` rounded to the nearest integer, ties to the even one, as a number and as an integer, for |x| < 2²².
///
/// Adding 1.5 · 2²³ leaves no bits below the point, and the integer stands in the lowest bits of the sum. Conversions
/// with `as` are the same there but saturate, for which instruction sets have no vector instruction.
#[inline(always)]
pub(crate) fn round(x: f32) -> (f32, i32) {
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x + SHIFT;
    (shifted - SHIFT, shifted.to_bits().wrapping_sub(SHIFT.to_bits()).cast_signed())
}

/// eˣ in f32, within 2 units in the last place; 0 below −87.3 and ∞ above 88.7.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; a polynomial of degree 6 in r (Taylor coefficients suffice: the first one left
/// out is below 2⁻²⁶ of the result); the scale 2ⁿ in two exact steps so that large n does not overflow early.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts: the first has trailing zeros, so n · LN2_HIGH is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Clamped by comparisons that let a NaN through.
    let x_in = if x < -104.0 { -104.0 } else { x };
    let x_in = if x_in > 89.0 { 89.0 } else { x_in };
    let (n, whole) = round(x_in * LOG2_E);
    let r = (-n).mul_add(LN2_LOW, (-n).mul_add(LN2_HIGH, x_in));
    let mut p = 1.0 / 720.0f32;
    p = p.mul_add(r, 1.0 / 120.0);
    p = p.mul_add(r, 1.0 / 24.0);
    p = p.mul_add(r, 1.0 / 6.0);
    p = p.mul_add(r, 0.5);
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    // Of a NaN the integer is anything; the product with p keeps the NaN.
    let half = whole >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    let y = p * power(half) * power(whole - half);
    if x < -87.3 { 0.0 } else { y }
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// x · sigmoid(x).
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The error function, within 1.4 units in the last place of f32 (at most 7.8e-8 absolute).
///
/// x + x·P(x²) for |x| < 0.875, else 1 − exp(−Q(|x|)), which rounds to 1 from 3.92 on. `scripts/fit_erf.py` makes the
/// coefficients and measures the whole against mpmath. Both forms are evaluated, so that the choice is a vector's too.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    const EDGE: f32 = 0.875;
    let a = x.abs();
    let square = x * x;
    let mut p = -6.038_805_6e-4f32;
    p = p.mul_add(square, 5.002_021e-3);
    p = p.mul_add(square, -2.677_228e-2);
    p = p.mul_add(square, 1.128_196_3e-1);
    p = p.mul_add(square, -3.761_250_7e-1);
    p = p.mul_add(square, 1.283_791_5e-1);
    let below = p.mul_add(x, x);
    // Clamped by a comparison that lets a NaN through.
    let clamped = if a > 4.0 { 4.0 } else { a };
    let mut q = -1.999_069_8e-4f32;
    q = q.mul_add(clamped, 3.082_031_4e-3);
    q = q.mul_add(clamped, -2.238_111e-2);
    q = q.mul_add(clamped, 1.042_502_8e-1);
    q = q.mul_add(clamped, 6.368_206e-1);
    q = q.mul_add(clamped, 1.127_889_4);
    q = q.mul_add(clamped, 1.442_088_3e-4);
    let above = (1.0 - exp(-q)).copysign(x);
    if a < EDGE { below } else { above }
}

/// eˣ in f64 for moderate x (|x| < 700), within 1e-14 relative.
#[inline(always)]
fn exp64(x: f64) -> f64 {
    let n = (x * std::f64::consts::LOG2_E).round_ties_even();
    let r = (-n).mul_add(1.908_214_929_270_587_7e-10, (-n).mul_add(6.931_471_803_691_238e-1, x));
    let mut p = 1.0f64;
    let mut k = 14.0f64;
    while k > 0.0 {
        p = (p * r / k) + 1.0;
        k -= 1.0;
    }
    p * f64::from_bits(((n as i64 + 1023) << 52) as u64)
}

/// The natural logarithm of a positive finite `x`, within 1e-15 relative.
///
/// x = m·2ⁿ with m in [√½, √2); ln m = 2·atanh((m − 1) / (m + 1)), whose series falls below 1e-16 after 12 terms.
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut n = ((bits >> 52) as i64 - 1023) as f64;
    let mut m = f64::from_bits((bits & 0x000F_FFFF_FFFF_FFFF) | (1023 << 52));
    if m > std::f64::consts::SQRT_2 {
        m /= 2.0;
        n += 1.0;
    }
    let z = (m - 1.0) / (m + 1.0);
    let square = z * z;
    let mut total = 0.0;
    let mut k = 23.0;
    while k > 0.0 {
        total = total * square + 1.0 / k;
        k -= 2.0;
    }
    n.mul_add(std::f64::consts::LN_2, 2.0 * z * total)
}

/// `base` to the power `exponent`, for a positive base and a result well inside the range of f64.
pub fn pow(base: f64, exponent: f64) -> f64 {
    exp64(ln(base) * exponent)
}

/// x · Φ(x), the exact form: x/2 · (1 + erf(x/√2)).
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Sine and cosine of `angle` (radians, |angle| < 2³⁰), within 1e-15 before the rounding to f32.
///
/// Reduced by multiples of π/2 in three parts (Cody and Waite), then Taylor series on ±π/4.
pub fn sin_cos(angle: f64) -> (f32, f32) {
    const PARTS: [f64; 3] = [1.570_796_326_734_125_6, 6.077_100_506_303_966e-11, 2.022_266_248_795_950_6e-21];
    let n = (angle * std::f64::consts::FRAC_2_PI).round_ties_even();
    let r = PARTS.iter().fold(angle, |r, part| (-n).mul_add(*part, r));
    let square = r * r;
    let series = |mut k: f64| {
        let mut p = 1.0f64;
        while k > 1.0 {
            p = 1.0 - p * square / (k * (k - 1.0));
            k -= 2.0;
        }
        p
    };
    let (sin, cos) = (r * series(17.0), series(18.0));
    let (sin, cos) = match (n as i64).rem_euclid(4) {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    };
    (sin as f32, cos as f32)
}

/// The running state of one query head's online softmax.
pub struct Softmax<'a> {
    /// Largest score so far; −∞ at the start.
    pub largest: f32,
    /// Σ e^(score − largest).
    pub total: f32,
    /// Σ e^(score − largest) · value, C long; zeros at the start.
    pub values: &'a mut [f32],
}

impl<'a> Softmax<'a> {
    /// Nothing seen yet; `values` are zeros.
    #[inline(always)]
    pub fn new(values: &'a mut [f32]) -> Self {
        Self { largest: f32::NEG_INFINITY, total: 0.0, values }
    }

    /// Divides what was summed by the total.
    #[inline(always)]
    pub fn finish(self) {
        for value in self.values {
            *value /= self.total;
        }
    }
}

/// The largest of what was largest and the page's `scores`, those of `slots` times `scale`; turns these into weights
/// e^(score − largest), 0 for all other slots.
///
/// A NaN score replaces the maximum and stays, so that it reaches the output.
#[inline(always)]
pub fn weigh(scores: &mut [f32; PAGE_LEN], slots: std::ops::Range<usize>, scale: f32, before: f32) -> f32 {
    // Comparisons of 32 bits, like the scores, so that both are vectors of as many lanes.
    let (first, n) = (slots.start as u32, (slots.end - slots.start) as u32);
    let is_visible: [bool; PAGE_LEN] = std::array::from_fn(|i| (i as u32).wrapping_sub(first) < n);
    let mut most = [f32::NEG_INFINITY; PAGE_LEN];
    let mut poison = 0;
    for i in 0..PAGE_LEN {
        scores[i] = if is_visible[i] { scores[i] * scale } else { f32::NEG_INFINITY };
        most[i] = scores[i];
        poison |= u32::from(scores[i].is_nan());
    }
    let mut half = PAGE_LEN / 2;
    while half > 0 {
        for i in 0..half {
            most[i] = if most[i + half] > most[i] { most[i + half] } else { most[i] };
        }
        half /= 2;
    }
    let largest = if most[0] > before { most[0] } else { before };
    let largest = if poison != 0 { f32::NAN } else { largest };
    for i in 0..PAGE_LEN {
        // Of an invisible slot the score is −∞, and its weight 0 unless nothing was ever above −∞.
        let weight = exp(scores[i] - largest);
        scores[i] = if is_visible[i] { weight } else { 0.0 };
    }
    largest
}

/// The `top_k` largest of one row's router logits with their sigmoid, lower expert first; equal logits go to the lower
/// expert and a NaN goes before every number, so that it is chosen and its score poisons the row.
pub fn choose(logits: &[f32], top_k: usize) -> Vec<crate::Choice> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let key = |&expert: &u32| {
        let logit = logits[expert as usize];
        // Adding 0 turns −0 into 0, so that the total order sees the two as equal.
        if logit.is_nan() { f32::INFINITY } else { logit + 0.0 }
    };
    order.sort_by(|a, b| key(b).total_cmp(&key(a)).then(a.cmp(b)));
    order.truncate(top_k);
    order.sort_unstable();
    order.into_iter().map(|expert| crate::Choice { expert, score: sigmoid(logits[expert as usize]) }).collect()
}

/// Takes `slots` of one page into `state`.
///
/// `keys` is the page's `[C, PAGE_LEN]` of one key head, `values` its `[PAGE_LEN, C]`. Each score is a dot
/// product in the order of a dense linear, times `scale`. What was summed so far is rescaled once a page; the page's
/// weights are added to the total in the order of position, and so is each weighted value, by fused multiply-add.
#[inline(always)]
pub fn attend_page(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    slots: std::ops::Range<usize>,
    scale: f32,
    state: &mut Softmax<'_>,
) {
    let mut weights = [0.0f32; PAGE_LEN];
    for (q, keys) in q.chunks(DENSE_BLOCK).zip(keys.as_chunks::<PAGE_LEN>().0.chunks(DENSE_BLOCK)) {
        let mut sums = [0.0f32; PAGE_LEN];
        for (q, keys) in q.iter().zip(keys) {
            for i in 0..PAGE_LEN {
                sums[i] = q.mul_add(keys[i], sums[i]);
            }
        }
        for i in 0..PAGE_LEN {
            weights[i] += sums[i];
        }
    }
    let largest = weigh(&mut weights, slots.clone(), scale, state.largest);
    // The first page has nothing to rescale: e^(−∞ − largest) is 0, and 0 · 0 stays 0.
    let rescale = exp(state.largest - largest);
    state.total *= rescale;
    for weight in &weights[slots.clone()] {
        state.total += weight;
    }
    for value in state.values.iter_mut() {
        *value *= rescale;
    }
    let len = state.values.len();
    for i in slots {
        for (sum, value) in state.values.iter_mut().zip(&values[i * len..(i + 1) * len]) {
            *sum = weights[i].mul_add(*value, *sum);
        }
    }
    state.largest = largest;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in -87_000..88_700 {
            let x = i as f32 * 1e-3;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert_eq!((exp(-200.0), exp(f32::NEG_INFINITY), exp(0.0)), (0.0, 0.0, 1.0));
        assert_eq!((exp(200.0), exp(f32::INFINITY)), (f32::INFINITY, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn rounding_is_the_librarys() {
        for i in -300_000..300_000 {
            let x = i as f32 * 0.125;
            assert_eq!(round(x), (x.round_ties_even(), x.round_ties_even() as i32), "{x}");
        }
    }

    /// The error function in f64, within 1e-12: a series of positive terms below 2, a continued fraction above.
    fn erf64(x: f64) -> f64 {
        let a = x.abs();
        let y = if a < 2.0 {
            // 2/√π · e^(−a²) · Σ 2ⁿ a^(2n+1) / (1·3·5·…·(2n+1))
            let (mut term, mut total) = (a, a);
            for n in 1..28 {
                term *= 2.0 * a * a / f64::from(2 * n + 1);
                total += term;
            }
            std::f64::consts::FRAC_2_SQRT_PI * (-a * a).exp() * total
        } else {
            let tail = (1..=40).rev().fold(0.0, |tail, n| f64::from(n) / 2.0 / (a + tail));
            1.0 - (-a * a).exp() / (a + tail) / std::f64::consts::PI.sqrt()
        };
        y.copysign(x)
    }

    #[test]
    fn erf_is_within_two_units_in_the_last_place() {
        // Abramowitz and Stegun, table 7.1: the yardstick of what follows.
        for (x, want) in [
            (0.0, 0.0),
            (0.1, 0.112_462_916_0),
            (0.5, 0.520_499_877_8),
            (1.0, 0.842_700_792_9),
            (1.5, 0.966_105_146_5),
            (2.0, 0.995_322_265_0),
            (3.0, 0.999_977_909_5),
        ] {
            assert!((erf64(x) - want).abs() < 1e-10, "erf({x})");
        }
        let (mut worst, mut worst_unit) = (0.0f64, 0.0f64);
        // Every 512th f32 from 2⁻²⁰ to 8, both signs.
        for bits in (0x3580_0000..0x4100_0000).step_by(512) {
            let x = f32::from_bits(bits);
            let (got, want) = (erf(x), erf64(f64::from(x)));
            let off = (f64::from(got) - want).abs();
            let unit = f64::from((want as f32).next_up()) - f64::from(want as f32);
            (worst, worst_unit) = (worst.max(off), worst_unit.max(off / unit));
            assert_eq!(erf(-x).to_bits(), (-got).to_bits(), "erf is odd at {x}");
        }
        println!("{worst:e}, {worst_unit} units");
        assert!(worst < 7.8e-8 && worst_unit < 1.4, "{worst:e}, {worst_unit} units");
        assert_eq!((erf(3.95), erf(20.0), erf(f32::INFINITY), erf(f32::NEG_INFINITY)), (1.0, 1.0, 1.0, -1.0));
        assert_eq!((erf(0.0).to_bits(), erf(-0.0).to_bits()), (0, 1 << 31));
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_is_x_times_the_normal_distribution() {
        for i in -80_000..80_000 {
            let x = i as f32 * 1e-4;
            let want = 0.5 * f64::from(x) * (1.0 + erf64(f64::from(x) * std::f64::consts::FRAC_1_SQRT_2));
            // Of the sum of 1 and erf, in units of epsilon: 0.7 for erf, half for x/√2 (its rounding and the constant's
            // times u·erf'(u) < 0.49), half for the sum, one for the product. Times x / 2.
            let most = 0.5 * f64::from(x.abs()) * 2.7 * f64::from(f32::EPSILON);
            assert!((f64::from(gelu(x)) - want).abs() <= most, "gelu({x}) is {}, not {want}", gelu(x));
        }
        assert_eq!((gelu(f32::INFINITY), gelu(0.0), gelu(-20.0)), (f32::INFINITY, 0.0, 0.0));
        assert!(gelu(f32::NAN).is_nan());
    }

    #[test]
    fn sin_cos_agrees_with_the_library_to_the_last_rounding() {
        for i in 0..200_000 {
            let angle = f64::from(i) * 13.37 - 1.0e6;
            let (sin, cos) = sin_cos(angle);
            assert!((f64::from(sin) - angle.sin()).abs() < 1e-7, "sin({angle})");
            assert!((f64::from(cos) - angle.cos()).abs() < 1e-7, "cos({angle})");
        }
    }

    #[test]
    fn ln_and_pow_agree_with_the_library() {
        for x in [1e-9, 0.1, 0.7, 1.0, 1.5, 2.0, 10.0, 500_000.0, 1e12f64] {
            assert!((ln(x) - x.ln()).abs() <= 1e-14 * x.ln().abs().max(1.0), "ln({x})");
            assert!((pow(x, -0.73) / x.powf(-0.73) - 1.0).abs() < 1e-13, "{x}^-0.73");
        }
    }

    #[test]
    fn equal_router_logits_go_to_the_lower_expert() {
        let experts = |logits: &[f32], k| choose(logits, k).iter().map(|c| c.expert).collect::<Vec<_>>();
        assert_eq!(experts(&[1.0, 2.0, 2.0], 1), [1]);
        assert_eq!(experts(&[0.0, -0.0, 0.0], 2), [0, 1]);
        assert_eq!(experts(&[-0.0, 0.0, -1.0], 1), [0]);
        assert_eq!(experts(&[3.0, 1.0, 2.0], 2), [0, 2]);
        assert!(choose(&[1.0, f32::NAN, 2.0], 1)[0].score.is_nan());
    }

    #[test]
    fn a_row_sum_has_the_stated_order() {
        let x: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin() * 1e3).collect();
        let mut lanes = [0.0f32; 16];
        for (i, v) in x.iter().enumerate() {
            lanes[i % 16] += v;
        }
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        assert_eq!(sum(&x), lanes[0]);
    }
}
