//! Dot products of unquantised weights.
//!
//! The order is the canonical one: every [`DENSE_BLOCK`] inputs in one chain of fused multiply-adds from 0, and the
//! chains' sums one after another from 0.

use tensor::DENSE_BLOCK;

use crate::kernels::{Dense, Lanes, ROWS, RowGroups};
use crate::simd::Simd;

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
    for (i, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
        let weights = weights.group(i).as_ptr();
        // SAFETY: the group and `x` were checked; `load` reads one number for each lane.
        unsafe {
            match format {
                Dense::F32 => group::<S>(weights, 4, |w| S::load(w.cast()), n_in, x, out),
                Dense::F16 => group::<S>(weights, 2, |w| S::load_f16(w), n_in, x, out),
                Dense::BF16 => group::<S>(weights, 2, |w| S::load_bf16(w), n_in, x, out),
            }
        }
    }
}

/// One row group with all rows of `x`.
///
/// # Safety
/// Needs the instructions of `S`; the group holds `n_in` times [`ROWS`] numbers of `bytes`, `x` as many rows as `out`.
#[inline(always)]
unsafe fn group<S: Simd>(
    weights: *const u8,
    bytes: usize,
    load: impl Fn(*const u8) -> S::F32 + Copy,
    n_in: usize,
    x: &[f32],
    out: &mut [Lanes],
) {
    let mut first = 0;
    while first < out.len() {
        // SAFETY: `x` has as many rows as `out`.
        unsafe {
            let x = x.as_ptr().add(first * n_in);
            let out = &mut out[first..];
            first += match out.len().min(S::COLUMNS) {
                1 => columns::<S, 1>(weights, bytes, load, n_in, x, out),
                2 => columns::<S, 2>(weights, bytes, load, n_in, x, out),
                3 => columns::<S, 3>(weights, bytes, load, n_in, x, out),
                4 => columns::<S, 4>(weights, bytes, load, n_in, x, out),
                5 => columns::<S, 5>(weights, bytes, load, n_in, x, out),
                6 => columns::<S, 6>(weights, bytes, load, n_in, x, out),
                7 => columns::<S, 7>(weights, bytes, load, n_in, x, out),
                _ => columns::<S, 8>(weights, bytes, load, n_in, x, out),
            };
        }
    }
}

/// The products with `N` rows of `x`; returns `N`.
///
/// # Safety
/// As [`group`], with `N` rows.
#[inline(always)]
unsafe fn columns<S: Simd, const N: usize>(
    weights: *const u8,
    bytes: usize,
    load: impl Fn(*const u8) -> S::F32,
    n_in: usize,
    x: *const f32,
    out: &mut [Lanes],
) -> usize {
    for row in (0..ROWS).step_by(S::LANES) {
        // SAFETY: all offsets stay inside of the group and the `N` rows.
        unsafe {
            let mut totals = [S::splat(0.0); N];
            for begin in (0..n_in).step_by(DENSE_BLOCK) {
                let mut sums = [S::splat(0.0); N];
                for k in begin..n_in.min(begin + DENSE_BLOCK) {
                    let w = load(weights.add((k * ROWS + row) * bytes));
                    for n in 0..N {
                        sums[n] = S::fma(w, S::splat(*x.add(n * n_in + k)), sums[n]);
                    }
                }
                for n in 0..N {
                    totals[n] = S::add(totals[n], sums[n]);
                }
            }
            for n in 0..N {
                S::store(totals[n], out[n].as_mut_ptr().add(row));
            }
        }
    }
    N
}
