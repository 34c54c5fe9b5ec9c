//! Kernels that are the same code on every instruction set.
//!
//! All are `#[inline(always)]`: [`compile_kernels`](crate::kernels::compile_kernels) compiles each of them once for each
//! set. Loops run over fixed arrays of [`ROWS`] so that they become vector code; since Rust keeps the order of
//! floating-point operations, the bits do not depend on it.

use tensor::quant::quantise_block;
use tensor::{Pairing, math};

use crate::packing::BLOCK;
use crate::panel::{SUMS_SHIFT, TileMut};

#[inline(always)]
pub(crate) fn quantise(x: &[&[f32]], factors: &[f32], tile: TileMut<'_>) {
    let width = tile.width;
    assert!(x.len() == width && factors.len() == width, "a tile of {width}");
    for (n, (x, factor)) in x.iter().zip(factors).enumerate() {
        assert_eq!(x.len() * width, tile.q.len(), "a row of the tile");
        for (block, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
            let at = block * width + n;
            let q = &mut tile.q.as_chunks_mut::<BLOCK>().0[at];
            let (scale, sums) = quantise_block(x, q);
            let scale = scale * factor;
            tile.scale[at] = scale;
            tile.whole.0[at] = -(sums[0] + sums[1]) << SUMS_SHIFT;
            tile.whole.1[at] = scale * (sums[0] + sums[1]) as f32;
            for (half, sum) in sums.into_iter().enumerate() {
                let at = (2 * block + half) * width + n;
                tile.halves.0[at] = -sum << SUMS_SHIFT;
                tile.halves.1[at] = scale * sum as f32;
            }
        }
    }
}

#[inline(always)]
pub(crate) fn rms_norm(x: &[f32], gain: Option<&[f32]>, width: usize, eps: f32, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        math::rms_norm(x, gain, eps, out);
    }
}

#[inline(always)]
pub(crate) fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    math::layer_norm(x, gain, bias, eps, out);
}

#[inline(always)]
pub(crate) fn rope(pairing: Pairing, row: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in row.chunks_exact_mut(2 * cos.len()) {
        math::rotate(pairing, head, cos, sin);
    }
}

#[inline(always)]
pub(crate) fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = math::silu(*gate) * up;
    }
}

#[inline(always)]
pub(crate) fn gelu(x: &[f32], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = math::gelu(*x);
    }
}

/// f16 to f32, exactly, in operations that exist for vectors everywhere.
#[inline(always)]
pub(crate) fn widen_f16(bits: u16) -> f32 {
    let (sign, magnitude) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7FFF));
    // The exponent's bias differs by 112. For a subnormal the shifted bits are a subnormal f32, which the
    // multiplication scales exactly too.
    let finite = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let special = f32::from_bits(magnitude << 13 | 0x7F80_0000);
    let value = if magnitude >= 0x7C00 { special } else { finite };
    f32::from_bits(value.to_bits() | sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel::Panel;

    #[test]
    fn every_half_precision_number_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (got, want) = (widen_f16(bits), half::f16::from_bits(bits).to_f32());
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#x}: {got} {want}");
        }
    }

    #[test]
    fn a_panel_holds_what_activations_hold() {
        for (scale, len) in [(1.0f32, 96), (1e-44, 32), (1e38, 64), (0.0, 32), (f32::NAN, 32), (f32::INFINITY, 64)] {
            let rows: Vec<Vec<f32>> =
                (0..3).map(|n| (0..len).map(|i| ((i + 7 * n) as f32 * 1.3 - 20.0) * 0.1 * scale).collect()).collect();
            let mut panel = Panel::default();
            panel.resize(4, len);
            let x: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let factors = [1.0, 0.5, 0.7];
            let tiles = panel.tiles_mut();
            // SAFETY: the only tile alive.
            quantise(&x, &factors, unsafe { tiles.tile(1..4) });
            let (whole, halves) = (panel.tile(1..4, false), panel.tile(1..4, true));
            let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            for (n, (row, factor)) in rows.iter().zip(factors).enumerate() {
                let want = tensor::quant::Activation::quantise(row);
                for block in 0..len / BLOCK {
                    let at = block * 3 + n;
                    assert_eq!(whole.q[at * BLOCK..][..BLOCK], want.q[block * BLOCK..][..BLOCK]);
                    let sums = [want.half_sums[2 * block], want.half_sums[2 * block + 1]];
                    let scale = want.scale[block] * factor;
                    assert!(same(whole.scale[at], scale), "{scale}");
                    assert_eq!(whole.negated_sums[at], -8 * (sums[0] + sums[1]));
                    assert!(same(whole.scaled_sums[at], scale * (sums[0] + sums[1]) as f32));
                    for (half, sum) in sums.into_iter().enumerate() {
                        let at = (2 * block + half) * 3 + n;
                        assert_eq!(halves.negated_sums[at], -8 * sum);
                        assert!(same(halves.scaled_sums[at], scale * sum as f32));
                    }
                }
            }
        }
    }
}
