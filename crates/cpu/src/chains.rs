//! AVX-512's products of bfloat16 (`vdpbf16ps`), for processors that have these and no tiles.
//!
//! The instruction adds the product of the upper halves of two pairs to a sum, and that of the lower halves to the result:
//! two links of one chain. The order of additions in [`pairs`] has a chain of even inputs and one of odd ones, so two
//! neighbouring pairs exchange a half: the first then has their even inputs, the second their odd ones.

use std::arch::x86_64::*;

use crate::kernels::{Lanes, ROWS, RowGroups};
use crate::pairs::{self, PAIRS};

/// Row groups that share what is read of a row.
const GROUPS: usize = 2;
/// Rows that share what is read of a row group.
const COLUMNS: usize = 4;

/// Leave to use the instruction: a value exists only where [`detect`](Self::detect) got it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chains(());

impl Chains {
    /// Leave to use the instruction, where the processor has it.
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512bf16").then_some(Self(()))
    }

    /// Lets neighbouring pairs of each of `width` rows, 1 or [`ROWS`], which lie side by side, exchange a half.
    pub(crate) fn arrange(self, width: usize, pairs: &mut [u32]) {
        // SAFETY: `self` says that the processor has the instruction, and with it AVX-512.
        unsafe {
            match width {
                ROWS => exchange::<ROWS>(pairs),
                _ => exchange::<1>(pairs),
            }
        }
    }

    /// [`pairs::dot_pairs_in_lanes`] of pairs that were [arranged](Self::arrange).
    pub(crate) fn dot_pairs(self, weights: RowGroups<'_>, x: &[u32], out: &mut [Lanes]) {
        // SAFETY: `self` says that the processor has the instruction, and with it AVX-512.
        unsafe { dot_pairs(weights, x, out) }
    }
}

/// [`Chains::arrange`] for `WIDTH` rows.
#[target_feature(enable = "avx512f")]
fn exchange<const WIDTH: usize>(pairs: &mut [u32]) {
    for [first, second] in pairs.as_chunks_mut::<WIDTH>().0.as_chunks_mut::<2>().0 {
        for (first, second) in first.iter_mut().zip(second) {
            let evens = *first << 16 | *second & 0xffff;
            let odds = *first & 0xffff_0000 | *second >> 16;
            (*first, *second) = (evens, odds);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_pairs(weights: RowGroups<'_>, x: &[u32], out: &mut [Lanes]) {
    let (n_pairs, width) = pairs::shape(weights, x, out);
    for group in (0..weights.len()).step_by(GROUPS) {
        // A group that is not there is the last one a second time, whose products nobody reads.
        let of = |i: usize| (group + i).min(weights.len() - 1);
        let w = [weights.group(of(0)), weights.group(of(1))].map(|group| group.as_ptr().cast());
        for row in (0..width).step_by(COLUMNS) {
            let x = [0, 1, 2, 3].map(|n| x[(row + n) * n_pairs..][..n_pairs].as_ptr());
            // SAFETY: row groups have `n_pairs` for each of their rows, and each row has `n_pairs`, those behind the
            // last one included, by `shape`.
            let sums = unsafe { tile(w, x, n_pairs) };
            for r in 0..GROUPS.min(weights.len() - group) {
                for n in 0..COLUMNS.min(width - row) {
                    // SAFETY: the place is as long as a vector.
                    unsafe { _mm512_storeu_ps(out[(group + r) * width + row + n].as_mut_ptr(), sums[r][n]) }
                }
            }
        }
    }
}

/// The products of two row groups with a few rows.
///
/// # Safety
/// `n_pairs`, a multiple of [`PAIRS`], can be read from each of `x` on, and as many for each row of a group from each of
/// `w` on.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile(w: [*const u32; GROUPS], x: [*const u32; COLUMNS], n_pairs: usize) -> [[__m512; COLUMNS]; GROUPS] {
    let mut totals = [[_mm512_setzero_ps(); COLUMNS]; GROUPS];
    for block in (0..n_pairs).step_by(PAIRS) {
        let mut chains = [[[_mm512_setzero_ps(); COLUMNS]; GROUPS]; 2];
        for p in (block..block + PAIRS).step_by(2) {
            for (half, chains) in chains.iter_mut().enumerate() {
                for n in 0..COLUMNS {
                    for r in 0..GROUPS {
                        // SAFETY: the caller's. All bits of a vector are pairs.
                        unsafe {
                            let w = _mm512_loadu_si512(w[r].add((p + half) * ROWS).cast());
                            let x = _mm512_set1_epi32(x[n].add(p + half).read().cast_signed());
                            let w = std::mem::transmute::<__m512i, __m512bh>(w);
                            let x = std::mem::transmute::<__m512i, __m512bh>(x);
                            chains[r][n] = _mm512_dpbf16_ps(chains[r][n], w, x);
                        }
                    }
                }
            }
        }
        for r in 0..GROUPS {
            for n in 0..COLUMNS {
                let sum = _mm512_add_ps(chains[0][r][n], chains[1][r][n]);
                totals[r][n] = _mm512_add_ps(totals[r][n], sum);
            }
        }
    }
    totals
}
