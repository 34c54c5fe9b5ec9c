//! Activations in eight bits, for products with quantised weights.

use crate::math;

/// Values that share one activation scale.
pub const ACTIVATION_LEN: usize = 32;

/// One row of activations, quantised in blocks of [`ACTIVATION_LEN`]: `x[i] ≈ scale[i / 32] · q[i]`, `q` in −127…127.
///
/// The scale is the block's largest magnitude over 127; a block of zeros has scale 0. A block that holds a NaN or an
/// infinity has scale NaN, so that a broken row stays visibly broken instead of turning into a plausible one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activation {
    /// The integers, as long as the row.
    pub q: Vec<i8>,
    /// One scale a block.
    pub scale: Vec<f32>,
    /// The sum of `q` over each half block of 16, two a block.
    pub half_sums: Vec<i32>,
}

impl Activation {
    /// Quantises `row`, whose length is a multiple of [`ACTIVATION_LEN`].
    ///
    /// # Panics
    /// If it is not: shapes are checked where an op begins.
    pub fn quantise(row: &[f32]) -> Self {
        assert_eq!(row.len() % ACTIVATION_LEN, 0, "activation row of {}", row.len());
        let n_blocks = row.len() / ACTIVATION_LEN;
        let mut this = Self { q: vec![0; row.len()], scale: vec![0.0; n_blocks], half_sums: vec![0; 2 * n_blocks] };
        let (blocks, _) = row.as_chunks::<ACTIVATION_LEN>();
        let (q_blocks, _) = this.q.as_chunks_mut::<ACTIVATION_LEN>();
        for (i, (x, q)) in blocks.iter().zip(q_blocks).enumerate() {
            let (scale, half_sums) = quantise_block(x, q);
            this.scale[i] = scale;
            this.half_sums[2 * i..2 * i + 2].copy_from_slice(&half_sums);
        }
        this
    }
}

/// Quantises one block; returns its scale and the sums of both halves' integers. Inlined into each instruction set's
/// variant.
#[inline(always)]
pub fn quantise_block(x: &[f32; ACTIVATION_LEN], q: &mut [i8; ACTIVATION_LEN]) -> (f32, [i32; 2]) {
    // Magnitudes order like their bits, and integers, unlike floats, are compared in any order.
    let largest = x.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7FFF_FFFF));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        q.fill(0);
        return (f32::NAN, [0; 2]);
    }
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let mut integers = [0; ACTIVATION_LEN];
    for (integer, &value) in integers.iter_mut().zip(x) {
        // A tiny `largest` makes `inverse` infinite: the clamp keeps the integer in range, and 0 · ∞ is to be 0.
        let scaled = value * inverse;
        let scaled = if scaled.is_nan() { 0.0 } else { scaled.clamp(-127.0, 127.0) };
        *integer = math::round(scaled).1;
    }
    for (q, integer) in q.iter_mut().zip(integers) {
        *q = integer as i8;
    }
    let (first, second) = integers.split_at(ACTIVATION_LEN / 2);
    (largest / 127.0, [sum(first), sum(second)])
}

/// The sum of 16 integers, folded as vectors are.
#[inline(always)]
fn sum(x: &[i32]) -> i32 {
    let eight: [i32; 8] = std::array::from_fn(|i| x[i] + x[i + 8]);
    let four: [i32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    four[0] + four[2] + (four[1] + four[3])
}
