//! Dot products of quantised weights with eight-bit rows.
//!
//! The order is the canonical one: an exact integer sum a group, then one fused multiply-add, and one more where the
//! format has offsets. One function serves every number of columns; the integers of a weight are taken apart once for
//! all columns that the registers hold.

use std::marker::PhantomData;

use tensor::quant::Kind;

use crate::kernels::{Lanes, ROWS, RowGroups, TILE};
use crate::packing::{BLOCK, Head, Packing, with_packing};
use crate::panel::Tile;
use crate::simd::{Simd, Work, with_columns};

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
            let group = weights.group(i).as_ptr();
            for row in (0..ROWS).step_by(S::LANES) {
                // SAFETY: `check` saw the lengths, and the tile has `N` columns from `first` on.
                unsafe { columns::<S, P, N>(group, n_blocks, tile, first, row, &mut out[first..first + N]) };
            }
        }
    }
}

/// The products of `S::LANES` rows of a group, from `row` on, with `N` columns.
///
/// # Safety
/// Needs the instructions of `S`; lengths are as `check` wants them, and the tile has `N` columns from `first` on.
#[inline(always)]
unsafe fn columns<S: Simd, P: Packing, const N: usize>(
    weights: *const u8,
    n_blocks: usize,
    tile: Tile<'_>,
    first: usize,
    row: usize,
    out: &mut [Lanes],
) {
    let width = tile.width;
    // Where the set's bytes are unsigned, signed ones come with a shift of their own.
    let shift = if P::BITS == 8 { S::BYTE_SHIFT } else { P::SHIFT };
    // SAFETY: all offsets stay inside of what `check` found; `N` columns are there by this function's contract.
    unsafe {
        let mut acc = [S::splat(0.0); N];
        let mut head = weights.add(n_blocks * P::BODY);
        let (mut q, mut scale) = (tile.q.as_ptr().add(first * BLOCK), tile.scale.as_ptr().add(first));
        let (mut sums, mut scaled) = (tile.negated_sums.as_ptr().add(first), tile.scaled_sums.as_ptr().add(first));
        for block in 0..n_blocks {
            let body = weights.add(block * P::BODY);
            let first_group = block % P::Head::BLOCKS * P::GROUPS;
            for g in 0..P::GROUPS {
                let mut products = [S::zero_i32(); N];
                if shift > 0 {
                    for n in 0..N {
                        products[n] = S::splat_i32(sums.add(n), shift);
                    }
                }
                for half in if P::HALVES { g..g + 1 } else { 0..2 } {
                    let w = P::pieces::<S>(body, half, row);
                    for n in 0..N {
                        products[n] = S::dot4(products[n], w, q.add(n * BLOCK + 16 * half), P::BITS);
                    }
                }
                let w_scale = P::Head::scale::<S>(head, first_group + g, row);
                for n in 0..N {
                    let scale = S::mul(w_scale, S::splat(*scale.add(n)));
                    acc[n] = S::fma(S::to_f32(products[n]), scale, acc[n]);
                }
                if P::Head::OFFSETS {
                    let offset = P::Head::offset::<S>(head, first_group + g, row);
                    for n in 0..N {
                        acc[n] = S::fma(offset, S::splat(*scaled.add(n)), acc[n]);
                    }
                }
                (sums, scaled) = (sums.add(width), scaled.add(width));
            }
            (q, scale) = (q.add(width * BLOCK), scale.add(width));
            if (block + 1) % P::Head::BLOCKS == 0 {
                head = head.add(P::Head::BYTES);
            }
        }
        for n in 0..N {
            S::store(acc[n], out[n].as_mut_ptr().add(row));
        }
    }
}
