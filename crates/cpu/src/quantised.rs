//! Dot products of quantised weights with eight-bit rows.
//!
//! The order is the canonical one: an exact integer sum a group, then one fused multiply-add, and one more where the
//! format has offsets. One function serves every number of columns; the integers of a weight are taken apart once for
//! all columns that the registers hold.

use std::marker::PhantomData;

use tensor::quant::Kind;

use crate::kernels::{Lanes, ROWS, RowGroups, TILE};
use crate::packing::{BLOCK, Head, Packing, with_packing};
use crate::panel::{SUMS_SHIFT, Tile};
use crate::simd::{Simd, Work, with_columns};

/// How far ahead of few columns' products weights are asked for, in bytes. Of many columns' products the next row
/// group's are: this one's stay in the first-level cache while all columns go through.
const PREFETCH: usize = 2048;

/// The products of every row group with every column of `tile`: `out` is `[n_groups][width]`.
///
/// # Safety
/// Needs the instructions of `S`.
///
/// # Panics
/// If the lengths do not fit.
#[inline(always)]
pub(crate) unsafe fn dot_quantised<S: Simd>(kind: Kind, weights: RowGroups<'_>, tile: Tile<'_>, out: &mut [Lanes]) {
    with_packing!(kind, P => {
        let n_blocks = check::<P>(weights, tile, out);
        let mut first = 0;
        while first < tile.width {
            // SAFETY: the groups, the tile and `out` were checked to be as long as the work takes them to be, and the
            // tile has the columns.
            first += unsafe {
                with_columns!(S, tile.width - first, N => {
                    let out = &mut *out;
                    Columns::<S, P, N> { weights, n_blocks, tile, first, out, set: PhantomData }
                })
            };
        }
    });
}

/// Panics unless everything is as long as the tile says; returns its blocks.
#[inline(always)]
fn check<P: Packing>(weights: RowGroups<'_>, tile: Tile<'_>, out: &[Lanes]) -> usize {
    let (width, n_blocks) = (tile.width, tile.q.len() / BLOCK / tile.width.max(1));
    assert!((1..=TILE).contains(&width) && n_blocks.is_multiple_of(P::Head::BLOCKS), "a tile of {width}");
    let lens = (tile.q.len(), tile.scale.len(), tile.negated_sums.len(), tile.scaled_sums.len());
    let n = n_blocks * width;
    assert_eq!(lens, (n * BLOCK, n, n * P::GROUPS, n * P::GROUPS), "a tile's parts");
    assert!(Some(weights.group_bytes()) == P::bytes(n_blocks * BLOCK), "a row group's bytes");
    assert_eq!(out.len(), weights.len() * width, "the output's length");
    n_blocks
}

/// The products of all row groups with `N` columns of a tile from `first` on.
struct Columns<'a, S, P, const N: usize> {
    weights: RowGroups<'a>,
    n_blocks: usize,
    tile: Tile<'a>,
    first: usize,
    out: &'a mut [Lanes],
    set: PhantomData<(S, P)>,
}

impl<S: Simd, P: Packing, const N: usize> Work for Columns<'_, S, P, N> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { weights, n_blocks, tile, first, out, .. } = self;
        for (i, out) in out.chunks_exact_mut(tile.width).enumerate() {
            let (group, out) = (weights.group(i).as_ptr(), &mut out[first..first + N]);
            // SAFETY: `check` saw the lengths, and the tile has `N` columns from `first` on.
            unsafe {
                // Few columns: both halves of a cache line are used while it is there. Many: one half at a time, so
                // that its sums stay in registers.
                if 2 * S::LANES == ROWS && N <= 2 {
                    columns::<S, P, N, 2>(group, n_blocks, tile, first, 0, out);
                } else {
                    for row in (0..ROWS).step_by(S::LANES) {
                        columns::<S, P, N, 1>(group, n_blocks, tile, first, row, out);
                    }
                }
            }
        }
    }
}

/// The products of `R` vectors of rows of a group, from `row` on, with `N` columns.
///
/// # Safety
/// Needs the instructions of `S`; lengths are as `check` wants them, and the tile has `N` columns from `first` on.
#[inline(always)]
unsafe fn columns<S: Simd, P: Packing, const N: usize, const R: usize>(
    weights: *const u8,
    n_blocks: usize,
    tile: Tile<'_>,
    first: usize,
    row: usize,
    out: &mut [Lanes],
) {
    let width = tile.width;
    let ahead = P::bytes(n_blocks * BLOCK).filter(|_| N > 2).unwrap_or(PREFETCH);
    // Where the set's bytes are unsigned, signed ones come with a shift of their own.
    let shift = if P::BITS == 8 { S::BYTE_SHIFT } else { P::SHIFT };
    // SAFETY: all offsets stay inside of what `check` found; `N` columns are there by this function's contract.
    unsafe {
        let mut acc = [[S::splat(0.0); N]; R];
        let mut head = weights.add(n_blocks * P::BODY);
        let (mut q, mut scale) = (tile.q.as_ptr().add(first * BLOCK), tile.scale.as_ptr().add(first));
        let (mut sums, mut scaled) = (tile.negated_sums.as_ptr().add(first), tile.scaled_sums.as_ptr().add(first));
        for block in 0..n_blocks {
            let body = weights.add(block * P::BODY);
            let first_group = block % P::Head::BLOCKS * P::GROUPS;
            if row == 0 {
                for line in (0..P::BODY).step_by(64) {
                    S::prefetch(body.wrapping_add(ahead + line));
                }
                S::prefetch(head.wrapping_add(ahead));
            }
            for g in 0..P::GROUPS {
                for r in 0..R {
                    let row = row + r * S::LANES;
                    let w_scale = P::Head::scale::<S>(head, first_group + g, row);
                    let mut products = [S::begin(); N];
                    for half in if P::HALVES { g..g + 1 } else { 0..2 } {
                        let w = P::pieces::<S>(body, half, row);
                        S::dots(&mut products, w, q.add(BLOCK / 2 * half), P::BITS);
                    }
                    for n in 0..N {
                        let start =
                            if shift > 0 { S::splat_i32(sums.add(n), shift - SUMS_SHIFT) } else { S::zero_i32() };
                        let scale = S::mul(w_scale, S::splat(*scale.add(n)));
                        acc[r][n] = S::fma(S::to_f32(S::end(products[n], start, P::BITS)), scale, acc[r][n]);
                    }
                    if P::Head::OFFSETS {
                        let offset = P::Head::offset::<S>(head, first_group + g, row);
                        for n in 0..N {
                            acc[r][n] = S::fma(offset, S::splat(*scaled.add(n)), acc[r][n]);
                        }
                    }
                }
                (sums, scaled) = (sums.add(width), scaled.add(width));
            }
            (q, scale) = (q.add(width * BLOCK), scale.add(width));
            if (block + 1) % P::Head::BLOCKS == 0 {
                head = head.add(P::Head::BYTES);
            }
        }
        for r in 0..R {
            for n in 0..N {
                S::store(acc[r][n], out[n].as_mut_ptr().add(row + r * S::LANES));
            }
        }
    }
}
