//! Dot products of unquantised weights.
//!
//! The order is the canonical one: every [`DENSE_BLOCK`] inputs in one chain of fused multiply-adds from 0, and the
//! chains' sums one after another from 0.

use std::marker::PhantomData;

use tensor::DENSE_BLOCK;

use crate::kernels::{Dense, Lanes, ROWS, RowGroups};
use crate::simd::{Simd, Work, with_columns};

/// The products of every row group with every row of `x`, `[width][n_in]`: `out` is `[n_groups][width]`.
///
/// # Safety
/// Needs the instructions of `S`.
///
/// # Panics
/// If the lengths do not fit.
#[inline(always)]
pub(crate) unsafe fn dot_dense<S: Simd>(format: Dense, weights: RowGroups<'_>, x: &[f32], out: &mut [Lanes]) {
    let n_in = weights.group_bytes() / (ROWS * format.bytes());
    let width = out.len().checked_div(weights.len()).unwrap_or(0);
    assert_eq!(weights.group_bytes(), n_in * ROWS * format.bytes(), "a row group's bytes");
    assert_eq!((out.len(), x.len()), (weights.len() * width, width * n_in), "rows");
    let rows = Rows { weights, n_in, x };
    let mut first = 0;
    while first < width {
        // SAFETY: the groups and `x` were checked.
        first += unsafe {
            let out = &mut *out;
            match format {
                Dense::F32 => rows.apply::<S, Singles>(first, width, out),
                Dense::F16 => rows.apply::<S, Halves>(first, width, out),
                Dense::BF16 => rows.apply::<S, Brains>(first, width, out),
            }
        };
    }
}

/// A format of unquantised weights.
trait Stored {
    /// Bytes of a number.
    const BYTES: usize;

    /// One number for each lane.
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn load<S: Simd>(w: *const u8) -> S::F32;
}

struct Singles;
struct Halves;
struct Brains;

impl Stored for Singles {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Simd>(w: *const u8) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::load(w.cast()) }
    }
}

impl Stored for Halves {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(w: *const u8) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::load_f16(w) }
    }
}

impl Stored for Brains {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(w: *const u8) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::load_bf16(w) }
    }
}

/// Row groups and the rows that they multiply.
#[derive(Clone, Copy)]
struct Rows<'a> {
    weights: RowGroups<'a>,
    n_in: usize,
    /// `[width][n_in]`.
    x: &'a [f32],
}

impl Rows<'_> {
    /// As many rows as the registers hold, from `first` on; returns how many.
    #[inline(always)]
    unsafe fn apply<S: Simd, F: Stored>(self, first: usize, width: usize, out: &mut [Lanes]) -> usize {
        // SAFETY: passes on the caller's contract.
        unsafe {
            with_columns!(S, width - first, N => {
                Columns::<S, F, N> { rows: self, first, width, out, set: PhantomData }
            })
        }
    }
}

/// The products of all row groups with `N` rows of `x` from `first` on.
struct Columns<'a, S, F, const N: usize> {
    rows: Rows<'a>,
    first: usize,
    width: usize,
    out: &'a mut [Lanes],
    set: PhantomData<(S, F)>,
}

impl<S: Simd, F: Stored, const N: usize> Work for Columns<'_, S, F, N> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { rows: Rows { weights, n_in, x }, first, width, out, .. } = self;
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            let weights = weights.group(i).as_ptr();
            for row in (0..ROWS).step_by(S::LANES) {
                // SAFETY: all offsets stay inside of the group and the `N` rows.
                unsafe {
                    let x = x.as_ptr().add(first * n_in);
                    let mut totals = [S::splat(0.0); N];
                    for begin in (0..n_in).step_by(DENSE_BLOCK) {
                        let mut sums = [S::splat(0.0); N];
                        for k in begin..n_in.min(begin + DENSE_BLOCK) {
                            let w = F::load::<S>(weights.add((k * ROWS + row) * F::BYTES));
                            for n in 0..N {
                                sums[n] = S::fma(w, S::splat(*x.add(n * n_in + k)), sums[n]);
                            }
                        }
                        for n in 0..N {
                            totals[n] = S::add(totals[n], sums[n]);
                        }
                    }
                    for (out, total) in out[first..first + N].iter_mut().zip(totals) {
                        S::store(total, out.as_mut_ptr().add(row));
                    }
                }
            }
        }
    }
}
