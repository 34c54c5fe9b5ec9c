//! Dot products of quantised weights with eight-bit columns.
//!
//! A vector holds eight output rows, four integers of each. `maddubs` multiplies unsigned by signed bytes and adds
//! pairs into 16 bits with saturation, so each kernel states why its sums never reach that.

use std::arch::x86_64::*;

use crate::column::{Column, ColumnView};
use crate::kernels::{Integers, Lanes, Quantised, ROWS, Scales, TILE};

/// Bytes of one piece: four integers of each row, or twice as many in nibbles.
const PIECE: usize = 4 * ROWS;
/// Rows of a vector.
const WIDTH: usize = ROWS / 2;

/// Dot products of one row group with every column of `x`.
///
/// # Safety
/// Needs AVX2, FMA and F16C, and arguments that passed [`Quantised::check`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn dot(layout: Quantised, weights: &[u8], x: &[Column], acc: &mut [Lanes]) {
    // SAFETY: passes on this function's contract; the second parameter is the layout's group.
    unsafe {
        match (layout.integers, layout.group) {
            (Integers::Nibbles { .. }, 32) => tiles::<true, 32>(layout, weights, x, acc),
            (Integers::Nibbles { .. }, _) => tiles::<true, 16>(layout, weights, x, acc),
            (Integers::Bytes, 32) => tiles::<false, 32>(layout, weights, x, acc),
            (Integers::Bytes, _) => tiles::<false, 16>(layout, weights, x, acc),
        }
    }
}

/// Goes through the columns, [`TILE`] at a time.
///
/// # Safety
/// As [`dot`], and `G` is the layout's group.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tiles<const NIBBLES: bool, const G: usize>(
    layout: Quantised,
    weights: &[u8],
    x: &[Column],
    acc: &mut [Lanes],
) {
    for (x, acc) in x.chunks(TILE).zip(acc.chunks_mut(TILE)) {
        // SAFETY: passes on this function's contract.
        unsafe {
            match x.len() {
                1 => tile::<NIBBLES, G, 1>(layout, weights, x, acc),
                2 => tile::<NIBBLES, G, 2>(layout, weights, x, acc),
                3 => tile::<NIBBLES, G, 3>(layout, weights, x, acc),
                _ => tile::<NIBBLES, G, TILE>(layout, weights, x, acc),
            }
        }
    }
}

/// The products with `N` columns.
///
/// # Safety
/// As [`tiles`], and `x` and `acc` are `N` long.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const NIBBLES: bool, const G: usize, const N: usize>(
    layout: Quantised,
    weights: &[u8],
    x: &[Column],
    acc: &mut [Lanes],
) {
    let x: [ColumnView<'_>; N] = std::array::from_fn(|n| x[n].view(G));
    let bias = match layout.integers {
        Integers::Nibbles { bias } => bias,
        Integers::Bytes => 0,
    };
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (g, group) in weights.chunks_exact(layout.group_bytes()).enumerate() {
        for half in 0..2 {
            // SAFETY: by `Quantised::check` a group holds its head and its pieces and a column has integers, scale
            // and sums for each of the groups.
            unsafe {
                let q = x.map(|x| x.q.as_ptr().add(g * G));
                let body = group.as_ptr().add(layout.head_bytes() + half * PIECE / 2);
                let products = if NIBBLES { nibbles::<G, N>(body, q) } else { bytes::<G, N>(body, q) };
                let scale = load(layout.scales, group.as_ptr(), half);
                for n in 0..N {
                    let mut product = products[n];
                    if bias != 0 {
                        product = _mm256_add_epi32(product, _mm256_set1_epi32(bias * *x[n].sums.get_unchecked(g)));
                    }
                    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(*x[n].scale.get_unchecked(g * G / 32)));
                    sums[n][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), scale, sums[n][half]);
                }
                if layout.offsets {
                    let offset = load(layout.scales, group.as_ptr(), half + 2);
                    for n in 0..N {
                        let sum = _mm256_set1_ps(*x[n].scaled_sums.get_unchecked(g));
                        sums[n][half] = _mm256_fmadd_ps(offset, sum, sums[n][half]);
                    }
                }
            }
        }
    }
    for (acc, sums) in acc.iter_mut().zip(sums) {
        let (halves, _) = acc.as_chunks_mut::<WIDTH>();
        for (half, sum) in halves.iter_mut().zip(sums) {
            // SAFETY: `half` is eight floats.
            unsafe { _mm256_storeu_ps(half.as_mut_ptr(), sum) };
        }
    }
}

/// Exact products of eight rows of nibbles with `N` columns over `G` inputs, without the bias.
///
/// A pair is at most 2 · 15 · 127 = 3810, and at most eight of them add up before they widen: 30480 < 2¹⁵.
///
/// # Safety
/// `body` points to `G / 8` half pieces at a distance of [`PIECE`], each of `q` to `G` integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn nibbles<const G: usize, const N: usize>(body: *const u8, q: [*const i8; N]) -> [__m256i; N] {
    let mut sums = [_mm256_setzero_si256(); N];
    for i in 0..G / 8 {
        // SAFETY: inside of the pieces and of the columns by this function's contract.
        unsafe {
            let both = _mm256_loadu_si256(body.add(i * PIECE).cast());
            let low = _mm256_and_si256(both, _mm256_set1_epi8(15));
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), _mm256_set1_epi8(15));
            for n in 0..N {
                let low = _mm256_maddubs_epi16(low, broadcast(q[n].add(8 * i)));
                let high = _mm256_maddubs_epi16(high, broadcast(q[n].add(8 * i + 4)));
                sums[n] = _mm256_add_epi16(sums[n], _mm256_add_epi16(low, high));
            }
        }
    }
    sums.map(|sum| _mm256_madd_epi16(sum, _mm256_set1_epi16(1)))
}

/// Exact products of eight rows of signed bytes with `N` columns over `G` inputs.
///
/// The weight's sign moves to the column's integer: w · x = |w| · (sign(w) · x). A pair is at most
/// 2 · 128 · 127 = 32512 < 2¹⁵ and widens at once.
///
/// # Safety
/// As [`nibbles`] with `G / 4` half pieces.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn bytes<const G: usize, const N: usize>(body: *const u8, q: [*const i8; N]) -> [__m256i; N] {
    let mut sums = [_mm256_setzero_si256(); N];
    for i in 0..G / 4 {
        // SAFETY: inside of the pieces and of the columns by this function's contract.
        unsafe {
            let w = _mm256_loadu_si256(body.add(i * PIECE).cast());
            let magnitude = _mm256_abs_epi8(w);
            for n in 0..N {
                let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(broadcast(q[n].add(4 * i)), w));
                sums[n] = _mm256_add_epi32(sums[n], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            }
        }
    }
    sums
}

/// Four integers of a column, for each row.
///
/// # Safety
/// `q` points to four integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn broadcast(q: *const i8) -> __m256i {
    // SAFETY: by this function's contract.
    _mm256_set1_epi32(unsafe { q.cast::<i32>().read_unaligned() })
}

/// The `index`-th eight of a group's scales and offsets.
///
/// # Safety
/// `head` points to at least `index + 1` times eight of them.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load(scales: Scales, head: *const u8, index: usize) -> __m256 {
    // SAFETY: by this function's contract.
    unsafe {
        match scales {
            Scales::F16 => _mm256_cvtph_ps(_mm_loadu_si128(head.add(index * 2 * WIDTH).cast())),
            Scales::F32 => _mm256_loadu_ps(head.add(index * 4 * WIDTH).cast()),
        }
    }
}
