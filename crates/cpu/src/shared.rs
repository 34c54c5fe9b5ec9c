//! Kernels that are the same code on every instruction set.
//!
//! All are `#[inline(always)]`: [`compile_kernels`](crate::kernels::compile_kernels) compiles each of them once for each
//! set. Loops run over fixed arrays of [`ROWS`] so that they become vector code; since Rust keeps the order of
//! floating-point operations, the bits do not depend on it.

use tensor::quant::quantise_block;
use tensor::{DENSE_BLOCK, PAGE_LEN, Pairing, math};

use crate::kernels::{HeadGroup, ROWS};
use crate::packing::BLOCK;
use crate::panel::TileMut;

#[inline(always)]
pub(crate) fn quantise(x: &[&[f32]], factors: &[f32], tile: TileMut<'_>) {
    let width = tile.width;
    assert!(x.len() == width && factors.len() == width, "a tile of {width}");
    for (n, (x, factor)) in x.iter().zip(factors).enumerate() {
        assert_eq!(x.len() * width, tile.q.len(), "a row of the tile");
        for (block, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
            let at = block * width + n;
            let q = &mut tile.q.as_chunks_mut::<BLOCK>().0[at];
            let scale = quantise_block(x, q) * factor;
            tile.scale[at] = scale;
            let (first, second) = q.split_at(BLOCK / 2);
            let sums: [i32; 2] = [first, second].map(|half| half.iter().map(|q| i32::from(*q)).sum());
            tile.whole.0[at] = -(sums[0] + sums[1]);
            tile.whole.1[at] = scale * (sums[0] + sums[1]) as f32;
            for (half, sum) in sums.into_iter().enumerate() {
                let at = (2 * block + half) * width + n;
                tile.halves.0[at] = -sum;
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

/// The products of one row group with the first `N` rows of `x`; returns `N`.
#[inline(always)]
fn dot_tile<const N: usize, W: Copy>(
    weights: &[[W; ROWS]],
    widen: impl Fn(W) -> f32,
    x: &[f32],
    acc: [&mut [f32; ROWS]; N],
) -> usize {
    let len = weights.len();
    let x: [&[f32]; N] = std::array::from_fn(|i| &x[i * len..(i + 1) * len]);
    let mut totals = [[0.0f32; ROWS]; N];
    for begin in (0..len).step_by(DENSE_BLOCK) {
        let mut sums = [[0.0f32; ROWS]; N];
        for k in begin..len.min(begin + DENSE_BLOCK) {
            for n in 0..N {
                let x = x[n][k];
                for lane in 0..ROWS {
                    sums[n][lane] = widen(weights[k][lane]).mul_add(x, sums[n][lane]);
                }
            }
        }
        for (total, sum) in totals.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
            *total += sum;
        }
    }
    for (acc, totals) in acc.into_iter().zip(totals) {
        *acc = totals;
    }
    N
}

#[inline(always)]
pub(crate) fn attend(q: &[f32], group: HeadGroup<'_>, out: &mut [f32]) {
    let len = group.pages.head_len();
    let (mut q, mut out) = (q, out);
    while !q.is_empty() {
        let n = match q.len() / len {
            1 => attend_heads::<1>(q, group, out),
            2 => attend_heads::<2>(q, group, out),
            3 => attend_heads::<3>(q, group, out),
            _ => attend_heads::<4>(q, group, out),
        };
        (q, out) = (&q[n * len..], &mut out[n * len..]);
    }
}

/// Attention of the first `N` heads; returns `N`. Head by head this is [`math::attend_page`] over the visible pages;
/// the heads go together so that a page is read once for all of them and their chains of additions overlap.
#[inline(always)]
fn attend_heads<const N: usize>(q: &[f32], group: HeadGroup<'_>, out: &mut [f32]) -> usize {
    let len = group.pages.head_len();
    let scale = 1.0 / (len as f32).sqrt();
    let (mut largest, mut total) = ([f32::NEG_INFINITY; N], [0.0f32; N]);
    for (page, slots) in group.row.visible() {
        let (keys, values) = group.pages.page(page, group.head);
        let mut weights = [[0.0f32; PAGE_LEN]; N];
        let mut rescale = [0.0f32; N];
        dot_tile::<N, f32>(keys.as_chunks::<ROWS>().0, |key| key, q, weights.each_mut());
        for n in 0..N {
            let before = largest[n];
            for score in &mut weights[n][slots.clone()] {
                *score *= scale;
                // A NaN score must reach the output, so it replaces the maximum and stays.
                largest[n] = if *score > largest[n] || score.is_nan() { *score } else { largest[n] };
            }
            rescale[n] = math::exp(before - largest[n]);
            for i in 0..PAGE_LEN {
                weights[n][i] = math::exp(weights[n][i] - largest[n]);
            }
            total[n] *= rescale[n];
            for weight in &weights[n][slots.clone()] {
                total[n] += weight;
            }
        }
        add_values(values, slots, &weights, &rescale, len, out);
    }
    for (out, total) in out.chunks_exact_mut(len).zip(total) {
        for value in out {
            *value /= total;
        }
    }
    N
}

/// Rescales what each head summed so far and adds one page's weighted values, slot after slot.
#[inline(always)]
fn add_values<const N: usize>(
    values: &[f32],
    slots: std::ops::Range<usize>,
    weights: &[[f32; PAGE_LEN]; N],
    rescale: &[f32; N],
    len: usize,
    out: &mut [f32],
) {
    let whole = len - len % ROWS;
    for at in (0..whole).step_by(ROWS) {
        let mut sums = [[0.0f32; ROWS]; N];
        for n in 0..N {
            let out = &out[n * len + at..][..ROWS];
            for lane in 0..ROWS {
                sums[n][lane] = out[lane] * rescale[n];
            }
        }
        for i in slots.clone() {
            let mut value = [0.0f32; ROWS];
            value.copy_from_slice(&values[i * len + at..][..ROWS]);
            for n in 0..N {
                let weight = weights[n][i];
                for lane in 0..ROWS {
                    sums[n][lane] = weight.mul_add(value[lane], sums[n][lane]);
                }
            }
        }
        for n in 0..N {
            out[n * len + at..][..ROWS].copy_from_slice(&sums[n]);
        }
    }
    for at in whole..len {
        for n in 0..N {
            let sum = &mut out[n * len + at];
            *sum *= rescale[n];
            for i in slots.clone() {
                *sum = weights[n][i].mul_add(values[i * len + at], *sum);
            }
        }
    }
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
                    assert_eq!(whole.negated_sums[at], -(sums[0] + sums[1]));
                    assert!(same(whole.scaled_sums[at], scale * (sums[0] + sums[1]) as f32));
                    for (half, sum) in sums.into_iter().enumerate() {
                        let at = (2 * block + half) * 3 + n;
                        assert_eq!(halves.negated_sums[at], -sum);
                        assert!(same(halves.scaled_sums[at], scale * sum as f32));
                    }
                }
            }
        }
    }
}
