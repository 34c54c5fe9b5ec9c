//! AVX-512's products of bfloat16 (`vdpbf16ps`), for processors that have these and no tiles.
//!
//! The instruction adds the product of the upper halves of two pairs to a sum, and that of the lower halves to the result:
//! two links of one chain. The order of additions in [`pairs`] has a chain of even inputs and one of odd ones, so two
//! neighbouring pairs exchange a half: the first then has their even inputs, the second their odd ones.

use std::arch::x86_64::*;

use crate::kernels::{Lanes, ROWS, RowGroups};
use crate::pairs::{self, BLOCK, Operand, Order, PAIRS};

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
        (is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw")).then_some(Self(()))
    }

    /// [`pairs::pack`] in the order of [`dot_pairs`](Self::dot_pairs).
    pub(crate) fn pack(self, operand: &Operand<'_>, out: &mut [u32]) {
        // SAFETY: `self` says that the processor has the instruction, and with it AVX-512.
        unsafe { pack(operand, out) }
    }

    /// [`pairs::dot_pairs_in_lanes`] of pairs from [`pack`](Self::pack).
    pub(crate) fn dot_pairs(self, weights: RowGroups<'_>, x: &[u32], out: &mut [Lanes]) {
        // SAFETY: `self` says that the processor has the instruction, and with it AVX-512.
        unsafe { dot_pairs(weights, x, out) }
    }
}

/// Pairs of the even inputs of four neighbours, the first in the upper half, then of the odd ones.
struct Halves;

/// Where each half of an arranged pair stands among 32 inputs in their order.
static OF_ROW: [u16; BLOCK] = {
    let mut from = [0; BLOCK];
    let mut i = 0;
    while i < BLOCK {
        from[i] = (i / 4 * 4 + [2, 0, 3, 1][i % 4]) as u16;
        i += 1;
    }
    from
};

/// Where each half of 16 pairs stands, whose lower halves come before all upper ones.
static OF_INPUTS: [u16; BLOCK] = {
    let mut from = [0; BLOCK];
    let mut i = 0;
    while i < BLOCK {
        from[i] = (i / 2 + i % 2 * ROWS) as u16;
        i += 1;
    }
    from
};

/// The nearest bfloat16 of `lower` and then of `upper`, each times `factor`, put where `from` says. Subnormal numbers
/// become 0, which products take them for anyway.
#[inline(always)]
unsafe fn rounded([lower, upper]: [&[f32; ROWS]; 2], factor: f32, from: &[u16; BLOCK]) -> [u32; PAIRS] {
    // SAFETY: the caller's instructions. All bits of a vector are pairs.
    unsafe {
        let factor = _mm512_set1_ps(factor);
        let [lower, upper] = [lower, upper].map(|x| _mm512_mul_ps(_mm512_loadu_ps(x.as_ptr()), factor));
        let numbers = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(upper, lower));
        let pairs = _mm512_permutexvar_epi16(_mm512_loadu_si512(from.as_ptr().cast()), numbers);
        std::mem::transmute::<__m512i, [u32; PAIRS]>(pairs)
    }
}

impl Order for Halves {
    #[inline(always)]
    unsafe fn of_row(x: &[f32; BLOCK], factor: f32) -> [u32; PAIRS] {
        let (halves, _) = x.as_chunks::<ROWS>();
        // SAFETY: the caller's.
        unsafe { rounded([&halves[0], &halves[1]], factor, &OF_ROW) }
    }

    #[inline(always)]
    unsafe fn of_inputs([a, b, c, d]: [&[f32; ROWS]; 4], factor: f32) -> [[u32; ROWS]; 2] {
        // SAFETY: the caller's.
        unsafe { [rounded([c, a], factor, &OF_INPUTS), rounded([d, b], factor, &OF_INPUTS)] }
    }

    #[inline(always)]
    unsafe fn turned(lines: &[[u32; ROWS]; PAIRS], out: &mut [[u32; ROWS]; PAIRS]) {
        // SAFETY: the caller's instructions; a line is as long as a vector.
        unsafe {
            // Pairs of lines, then fours: each quarter of a vector holds four lines of one column.
            let mut fours = [_mm512_setzero_si512(); PAIRS];
            for n in (0..PAIRS).step_by(4) {
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| _mm512_loadu_si512(lines[n + i].as_ptr().cast()));
                let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let (next_low, next_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                fours[n] = _mm512_unpacklo_epi64(low, next_low);
                fours[n + 1] = _mm512_unpackhi_epi64(low, next_low);
                fours[n + 2] = _mm512_unpacklo_epi64(high, next_high);
                fours[n + 3] = _mm512_unpackhi_epi64(high, next_high);
            }
            const EVEN: i32 = 0x88;
            const ODD: i32 = 0xdd;
            for n in 0..4 {
                let [a, b, c, d] = [fours[n], fours[4 + n], fours[8 + n], fours[12 + n]];
                let (even, next_even) = (_mm512_shuffle_i32x4::<EVEN>(a, b), _mm512_shuffle_i32x4::<EVEN>(c, d));
                let (odd, next_odd) = (_mm512_shuffle_i32x4::<ODD>(a, b), _mm512_shuffle_i32x4::<ODD>(c, d));
                let columns = [
                    _mm512_shuffle_i32x4::<EVEN>(even, next_even),
                    _mm512_shuffle_i32x4::<EVEN>(odd, next_odd),
                    _mm512_shuffle_i32x4::<ODD>(even, next_even),
                    _mm512_shuffle_i32x4::<ODD>(odd, next_odd),
                ];
                for (i, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_si512(out[4 * i + n].as_mut_ptr().cast(), column);
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack(operand: &Operand<'_>, out: &mut [u32]) {
    // SAFETY: this is compiled for the instructions.
    unsafe { pairs::pack::<Halves>(operand, out) }
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
