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
            this.scale[i] = quantise_block(x, q);
            this.half_sums[2 * i] = q[..16].iter().map(|&v| i32::from(v)).sum();
            this.half_sums[2 * i + 1] = q[16..].iter().map(|&v| i32::from(v)).sum();
        }
        this
    }
}

/// Quantises one block and returns its scale. Inlined into each instruction set's variant.
#[inline(always)]
pub fn quantise_block(x: &[f32; ACTIVATION_LEN], q: &mut [i8; ACTIVATION_LEN]) -> f32 {
    // Magnitudes order like their bits, and integers, unlike floats, are compared in any order.
    let largest = x.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7FFF_FFFF));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        q.fill(0);
        return f32::NAN;
    }
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    for (q, &value) in q.iter_mut().zip(x) {
        // A tiny `largest` makes `inverse` infinite: the clamp keeps the integer in range, and 0 · ∞ is to be 0.
        let scaled = value * inverse;
        let scaled = if scaled.is_nan() { 0.0 } else { scaled.clamp(-127.0, 127.0) };
        *q = math::round(scaled).1 as i8;
    }
    largest / 127.0
}
