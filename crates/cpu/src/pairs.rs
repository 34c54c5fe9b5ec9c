//! Products of numbers that are rounded to bfloat16, summed in f32: what training may use instead of exact products.
//!
//! The order of additions is that of the tile instructions: of every [`BLOCK`] inputs the even ones in one chain of
//! multiply-adds from 0 and the odd ones in another, the sum of the two added to that of the blocks before. Products of
//! two bfloat16 are exact in f32, so all instruction sets give the same bits, but for subnormal sums, which tiles take
//! for 0.
//!
//! Two neighbouring inputs are a pair: the even one in the lower half of a `u32`. Weights lie in row groups: pair 0 of
//! each of a group's rows, then pair 1 of each. Rows lie one after another. Both are padded with zeros to whole blocks.
//! An instruction set may have them [arranged](crate::kernels::Kernels::arrange) in another order.

use std::ops::Range;

use crate::kernels::{Lanes, ROWS, RowGroups};
use crate::product::Strided;

/// Inputs of two chains.
pub(crate) const BLOCK: usize = 32;
/// Pairs of a block.
pub(crate) const PAIRS: usize = BLOCK / 2;
/// Rows whose sums stay in registers together.
const COLUMNS: usize = 4;
/// Rows that may be read behind the last one, whatever they hold.
pub(crate) const BEHIND: usize = 15;

/// Pairs of a row of `n_in` inputs, those of its padding too.
pub(crate) const fn n_pairs(n_in: usize) -> usize {
    n_in.div_ceil(BLOCK) * PAIRS
}

/// The nearest bfloat16's bits, ties to even; what is no number stays none.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

#[inline(always)]
fn pair(even: f32, odd: f32) -> u32 {
    round(even) | round(odd) << 16
}

/// `x · factor` in pairs. What is left of `out` is filled with zeros.
#[inline(always)]
pub(crate) fn round_row(x: &[f32], factor: f32, out: &mut [u32]) {
    let (pairs, rest) = x.as_chunks::<2>();
    let (whole, padding) = out.split_at_mut(pairs.len());
    for (out, [even, odd]) in whole.iter_mut().zip(pairs) {
        *out = pair(even * factor, odd * factor);
    }
    padding.fill(0);
    if let (Some(out), [even]) = (padding.first_mut(), rest) {
        *out = pair(even * factor, 0.0);
    }
}

/// `rows` of `n_in` columns of `matrix` in pairs, one row after another.
#[inline(always)]
pub(crate) fn pack_rows(matrix: &Strided<'_>, rows: Range<usize>, n_in: usize, out: &mut [u32]) {
    let Strided { values, row, column } = *matrix;
    let stride = n_pairs(n_in).max(1);
    if column == 1 {
        for (i, out) in rows.zip(out.chunks_exact_mut(stride)) {
            round_row(&values[i * row..][..n_in], 1.0, out);
        }
        return;
    }
    // Blocks of a few rows, so that what is written stays in the first cache.
    for (first, out) in rows.clone().step_by(ROWS).zip(out.chunks_mut(ROWS * stride)) {
        for begin in (0..n_in).step_by(BLOCK) {
            let mut block = [[0; ROWS]; PAIRS];
            pack_block(matrix, first..rows.end.min(first + ROWS), begin..n_in.min(begin + BLOCK), &mut block);
            for (i, out) in out.chunks_exact_mut(stride).enumerate() {
                let out = &mut out[begin / 2..begin / 2 + PAIRS];
                out.iter_mut().zip(&block).for_each(|(out, lanes)| *out = lanes[i]);
            }
        }
    }
}

/// `rows`, at most [`ROWS`], of `n_in` columns of `matrix` as a row group.
#[inline(always)]
pub(crate) fn pack_group(matrix: &Strided<'_>, rows: Range<usize>, n_in: usize, out: &mut [u32]) {
    let (lanes, _) = out.as_chunks_mut::<ROWS>();
    for (begin, out) in (0..n_in).step_by(BLOCK).zip(lanes.as_chunks_mut::<PAIRS>().0) {
        pack_block(matrix, rows.clone(), begin..n_in.min(begin + BLOCK), out);
    }
}

/// A block of a row group.
#[inline(always)]
fn pack_block(matrix: &Strided<'_>, rows: Range<usize>, inputs: Range<usize>, out: &mut [[u32; ROWS]; PAIRS]) {
    let Strided { values, row, column } = *matrix;
    let n_rows = rows.len();
    if n_rows < ROWS || inputs.len() < BLOCK {
        out.fill([0; ROWS]);
    }
    if row == 1 {
        for (c, out) in inputs.clone().step_by(2).zip(out) {
            let even = &values[c * column + rows.start..][..n_rows];
            // The last input of an odd number has no neighbour.
            let odd = if c + 1 < inputs.end { &values[(c + 1) * column + rows.start..][..n_rows] } else { &[] };
            match (even.first_chunk::<ROWS>(), odd.first_chunk::<ROWS>()) {
                (Some(even), Some(odd)) => (0..ROWS).for_each(|i| out[i] = pair(even[i], odd[i])),
                _ => (0..n_rows).for_each(|i| out[i] = pair(even[i], odd.get(i).copied().unwrap_or(0.0))),
            }
        }
        return;
    }
    if column == 1 && n_rows == ROWS && inputs.len() == BLOCK {
        let mut lines = [[0; PAIRS]; ROWS];
        for (i, line) in rows.zip(&mut lines) {
            let (x, _) = values[i * row + inputs.start..][..BLOCK].as_chunks::<2>();
            line.iter_mut().zip(x).for_each(|(out, [even, odd])| *out = pair(*even, *odd));
        }
        for (p, out) in out.iter_mut().enumerate() {
            out.iter_mut().zip(&lines).for_each(|(out, line)| *out = line[p]);
        }
        return;
    }
    for (n, i) in rows.enumerate() {
        let at = |c: usize| if c < inputs.end { values[i * row + c * column] } else { 0.0 };
        for (c, out) in inputs.clone().step_by(2).zip(out.iter_mut()) {
            out[n] = pair(at(c), at(c + 1));
        }
    }
}

/// The products of every row group with every row: `out` is `[n_groups][width]`.
///
/// `x` is `width` rows and [`BEHIND`] more that are not used.
///
/// # Panics
/// If the lengths do not fit.
#[inline(always)]
pub(crate) fn dot_pairs_in_lanes(weights: RowGroups<'_>, x: &[u32], out: &mut [Lanes]) {
    let (n_pairs, width) = shape(weights, x, out);
    for (group, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
        let (weights, _) = bytemuck::cast_slice::<u8, u32>(weights.group(group)).as_chunks::<ROWS>();
        for (tile, out) in out.chunks_mut(COLUMNS).enumerate() {
            let x: [&[u32]; COLUMNS] =
                std::array::from_fn(|n| &x[(tile * COLUMNS + n.min(out.len() - 1)) * n_pairs..][..n_pairs]);
            let mut totals = [[0.0; ROWS]; COLUMNS];
            for (block, weights) in weights.chunks_exact(PAIRS).enumerate() {
                let (mut evens, mut odds) = ([[0.0f32; ROWS]; COLUMNS], [[0.0f32; ROWS]; COLUMNS]);
                for (p, weights) in weights.iter().enumerate() {
                    for n in 0..COLUMNS {
                        let [even, odd] = halves(x[n][block * PAIRS + p]);
                        for i in 0..ROWS {
                            let weights = halves(weights[i]);
                            evens[n][i] = weights[0].mul_add(even, evens[n][i]);
                            odds[n][i] = weights[1].mul_add(odd, odds[n][i]);
                        }
                    }
                }
                for n in 0..COLUMNS {
                    for i in 0..ROWS {
                        totals[n][i] += evens[n][i] + odds[n][i];
                    }
                }
            }
            out.iter_mut().zip(totals).for_each(|(out, total)| *out = total);
        }
    }
}

/// The numbers of a pair.
#[inline(always)]
fn halves(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
}

/// Pairs of a row, and rows.
///
/// # Panics
/// If the lengths do not fit.
#[inline(always)]
pub(crate) fn shape(weights: RowGroups<'_>, x: &[u32], out: &[Lanes]) -> (usize, usize) {
    let n_pairs = weights.group_bytes() / (ROWS * size_of::<u32>());
    let width = out.len().checked_div(weights.len()).unwrap_or(0);
    assert_eq!((weights.group_bytes(), n_pairs % PAIRS), (n_pairs * ROWS * size_of::<u32>(), 0), "a row group's bytes");
    assert!(out.len() == weights.len() * width && x.len() >= (width + BEHIND) * n_pairs, "rows");
    (n_pairs, width)
}
