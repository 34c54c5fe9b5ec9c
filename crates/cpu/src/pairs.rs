//! Products of numbers that are rounded to bfloat16, summed in f32: what training may use instead of exact products.
//!
//! The order of additions is that of the tile instructions: of every [`BLOCK`] inputs the even ones in one chain of
//! multiply-adds from 0 and the odd ones in another, the sum of the two added to that of the blocks before. Products of
//! two bfloat16 are exact in f32, so all instruction sets give the same bits, but for subnormal sums, which tiles take
//! for 0.
//!
//! Two neighbouring inputs are a pair: the even one in the lower half of a `u32`. Weights lie in row groups: pair 0 of
//! each of a group's rows, then pair 1 of each. Rows lie one after another. Both are padded with zeros to whole blocks.
//! An instruction set may have them in an [order](Order) of its own.

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

/// Rows that are to be packed: `rows` of `n_in` columns of `matrix`, all times `factor`.
#[derive(Debug, Clone)]
pub(crate) struct Operand<'a> {
    pub(crate) matrix: Strided<'a>,
    pub(crate) rows: Range<usize>,
    pub(crate) n_in: usize,
    pub(crate) factor: f32,
    /// Whether they become row groups; otherwise they lie one after another.
    pub(crate) is_group: bool,
}

/// How numbers become pairs, in the order that an instruction set wants.
///
/// # Safety
/// All functions need the set's instructions and are `#[inline(always)]`, so that they become part of a caller that is
/// compiled for the set.
pub(crate) trait Order {
    /// A block of a row.
    unsafe fn of_row(x: &[f32; BLOCK], factor: f32) -> [u32; PAIRS];

    /// Four inputs, which begin at a multiple of four, of each row of a group: two pairs of each.
    unsafe fn of_inputs(x: [&[f32; ROWS]; 4], factor: f32) -> [[u32; ROWS]; 2];

    /// The transpose.
    unsafe fn turned(lines: &[[u32; ROWS]; PAIRS], out: &mut [[u32; ROWS]; PAIRS]);
}

/// Pairs in the order of their inputs, by the instructions that every set has.
pub(crate) struct InOrder;

impl Order for InOrder {
    #[inline(always)]
    unsafe fn of_row(x: &[f32; BLOCK], factor: f32) -> [u32; PAIRS] {
        let mut out = [0; PAIRS];
        for (out, [even, odd]) in out.iter_mut().zip(x.as_chunks::<2>().0) {
            *out = pair(even * factor, odd * factor);
        }
        out
    }

    #[inline(always)]
    unsafe fn of_inputs(x: [&[f32; ROWS]; 4], factor: f32) -> [[u32; ROWS]; 2] {
        let mut out = [[0; ROWS]; 2];
        for (out, [even, odd]) in out.iter_mut().zip(x.as_chunks::<2>().0) {
            (0..ROWS).for_each(|i| out[i] = pair(even[i] * factor, odd[i] * factor));
        }
        out
    }

    #[inline(always)]
    unsafe fn turned(lines: &[[u32; ROWS]; PAIRS], out: &mut [[u32; ROWS]; PAIRS]) {
        for (p, out) in out.iter_mut().enumerate() {
            out.iter_mut().zip(lines).for_each(|(out, line)| *out = line[p]);
        }
    }
}

/// [`pack`] by the instructions that every set has.
#[inline(always)]
pub(crate) fn pack_in_order(operand: &Operand<'_>, out: &mut [u32]) {
    // SAFETY: no set lacks them.
    unsafe { pack::<InOrder>(operand, out) }
}

/// Writes all of `operand` in pairs to the beginning of `out`, padded with zeros to whole blocks and whole groups.
///
/// # Safety
/// The order's.
#[inline(always)]
pub(crate) unsafe fn pack<O: Order>(operand: &Operand<'_>, out: &mut [u32]) {
    let Operand { matrix, ref rows, n_in, factor, is_group } = *operand;
    let stride = n_pairs(n_in).max(1);
    if matrix.column == 1 && !is_group {
        for (i, out) in rows.clone().zip(out.chunks_exact_mut(stride)) {
            let (blocks, rest) = matrix.values[i * matrix.row..][..n_in].as_chunks::<BLOCK>();
            let mut last = [0.0; BLOCK];
            last[..rest.len()].copy_from_slice(rest);
            for (x, out) in blocks.iter().chain([&last]).zip(out.as_chunks_mut::<PAIRS>().0) {
                // SAFETY: the caller's.
                *out = unsafe { O::of_row(x, factor) };
            }
        }
        return;
    }
    // All groups' blocks of some inputs before those of the next: what lies side by side is read together.
    for begin in (0..n_in).step_by(BLOCK) {
        for (first, out) in rows.clone().step_by(ROWS).zip(out.chunks_mut(ROWS * stride)) {
            let mut block = [[0; ROWS]; PAIRS];
            // SAFETY: the caller's.
            unsafe { pack_block::<O>(operand, first..rows.end.min(first + ROWS), begin, &mut block) }
            if is_group {
                out[begin / 2 * ROWS..][..PAIRS * ROWS].copy_from_slice(block.as_flattened());
                continue;
            }
            let mut lines = [[0; ROWS]; PAIRS];
            // SAFETY: the caller's.
            unsafe { O::turned(&block, &mut lines) }
            for (out, line) in out.chunks_exact_mut(stride).zip(&lines) {
                out[begin / 2..][..PAIRS].copy_from_slice(line);
            }
        }
    }
}

/// The block of a row group that holds the inputs from `begin` on of `rows`.
///
/// # Safety
/// The order's.
#[inline(always)]
unsafe fn pack_block<O: Order>(
    operand: &Operand<'_>,
    rows: Range<usize>,
    begin: usize,
    out: &mut [[u32; ROWS]; PAIRS],
) {
    let Operand { matrix: Strided { values, row, column }, n_in, factor, .. } = *operand;
    let inputs = begin..n_in.min(begin + BLOCK);
    let is_whole = rows.len() == ROWS && inputs.len() == BLOCK;
    if is_whole && row == 1 {
        for (c, out) in inputs.step_by(4).zip(out.as_chunks_mut::<2>().0) {
            let x = [0, 1, 2, 3].map(|n| values[(c + n) * column + rows.start..].first_chunk());
            if let [Some(a), Some(b), Some(c), Some(d)] = x {
                // SAFETY: the caller's.
                *out = unsafe { O::of_inputs([a, b, c, d], factor) };
            }
        }
        return;
    }
    let mut lines = [[0; PAIRS]; ROWS];
    for (i, line) in rows.zip(&mut lines) {
        let mut padded = [0.0; BLOCK];
        let x = match values[i * row + begin * column..].first_chunk::<BLOCK>() {
            Some(x) if is_whole && column == 1 => x,
            _ => {
                for (c, x) in inputs.clone().zip(&mut padded) {
                    *x = values[i * row + c * column];
                }
                &padded
            }
        };
        // SAFETY: the caller's.
        *line = unsafe { O::of_row(x, factor) };
    }
    // SAFETY: the caller's.
    unsafe { O::turned(&lines, out) }
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
