//! Kernels that are the same code on every instruction set.
//!
//! All are `#[inline(always)]`: [`shared_kernels`](crate::kernels::shared_kernels) compiles each of them once for each
//! set. Loops run over fixed arrays of [`ROWS`] so that they become vector code; since Rust keeps the order of
//! floating-point operations, the bits do not depend on it.

use tensor::quant::{ACTIVATION_LEN, quantise_block};
use tensor::{DENSE_BLOCK, PAGE_LEN, Pairing, math};

use crate::column::Column;
use crate::kernels::{Dense, HeadGroup, Lanes, ROWS, TILE};

#[inline(always)]
pub(crate) fn quantise(row: &[f32], column: &mut Column) {
    assert_eq!(row.len(), column.q.len(), "column");
    let blocks = row.as_chunks::<ACTIVATION_LEN>().0.iter().zip(column.q.as_chunks_mut::<ACTIVATION_LEN>().0);
    let halves = column.by_16.exact.as_chunks_mut::<2>().0.iter_mut().zip(column.by_16.scaled.as_chunks_mut::<2>().0);
    let wholes = column.by_32.exact.iter_mut().zip(&mut column.by_32.scaled);
    let sums = halves.zip(wholes);
    for (((x, q), scale), ((halves, scaled_halves), (whole, scaled_whole))) in blocks.zip(&mut column.scale).zip(sums) {
        *scale = quantise_block(x, q);
        let (first, second) = q.split_at(16);
        *halves = [first, second].map(|half| half.iter().map(|v| i32::from(*v)).sum());
        *whole = halves[0] + halves[1];
        *scaled_halves = halves.map(|sum| *scale * sum as f32);
        *scaled_whole = *scale * *whole as f32;
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
pub(crate) fn swiglu(gate_up: &[f32], out: &mut [f32]) {
    let (gate, up) = gate_up.split_at(out.len());
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

#[inline(always)]
pub(crate) fn dot_dense(format: Dense, weights: &[u8], x: &[f32], acc: &mut [Lanes]) {
    match format {
        Dense::F32 => dot_tiles(weights.as_chunks::<4>().0, f32::from_le_bytes, x, acc),
        Dense::F16 => dot_tiles(weights.as_chunks::<2>().0, |raw| widen_f16(u16::from_le_bytes(raw)), x, acc),
        Dense::BF16 => {
            let widen = |raw| f32::from_bits(u32::from(u16::from_le_bytes(raw)) << 16);
            dot_tiles(weights.as_chunks::<2>().0, widen, x, acc);
        }
    }
}

#[inline(always)]
fn dot_tiles<W: Copy>(weights: &[W], widen: impl Fn(W) -> f32 + Copy, x: &[f32], acc: &mut [Lanes]) {
    let weights = weights.as_chunks::<ROWS>().0;
    assert_eq!(x.len(), weights.len() * acc.len(), "rows");
    let len = weights.len();
    let mut first = 0;
    while first < acc.len() {
        let x = &x[first * len..];
        first += match &mut acc[first..] {
            [a, b, c, d, ..] => dot_tile::<TILE, W>(weights, widen, x, [a, b, c, d]),
            [a, b, c] => dot_tile::<3, W>(weights, widen, x, [a, b, c]),
            [a, b] => dot_tile::<2, W>(weights, widen, x, [a, b]),
            [a] => dot_tile::<1, W>(weights, widen, x, [a]),
            [] => return,
        };
    }
}

/// The products of one row group with the first `N` rows of `x`; returns `N`.
#[inline(always)]
fn dot_tile<const N: usize, W: Copy>(
    weights: &[[W; ROWS]],
    widen: impl Fn(W) -> f32,
    x: &[f32],
    acc: [&mut Lanes; N],
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
            _ => attend_heads::<TILE>(q, group, out),
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

    #[test]
    fn every_half_precision_number_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (got, want) = (widen_f16(bits), half::f16::from_bits(bits).to_f32());
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#x}: {got} {want}");
        }
    }

    #[test]
    fn a_column_holds_what_an_activation_holds() {
        let mut column = Column::default();
        for (scale, len) in [(1.0f32, 96), (1e-44, 32), (1e38, 64), (0.0, 32), (f32::NAN, 32), (f32::INFINITY, 64)] {
            let row: Vec<f32> = (0..len).map(|i| (i as f32 * 1.3 - 20.0) * 0.1 * scale).collect();
            let want = tensor::quant::Activation::quantise(&row);
            column.resize(len);
            quantise(&row, &mut column);
            assert_eq!((&column.q, &column.by_16.exact), (&want.q, &want.half_sums), "{scale}");
            for (i, (got, want)) in column.scale.iter().zip(&want.scale).enumerate() {
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{scale}");
                let sum = column.by_16.exact[2 * i] + column.by_16.exact[2 * i + 1];
                assert_eq!(column.by_32.exact[i], sum);
                assert_eq!(column.by_32.scaled[i].to_bits(), (got * sum as f32).to_bits());
            }
        }
    }
}
