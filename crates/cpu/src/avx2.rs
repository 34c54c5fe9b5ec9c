//! x86-64 with AVX2, FMA and F16C.

use std::arch::x86_64::*;

use crate::kernels::compile_kernels;
use crate::packing::BLOCK;
use crate::simd::{Simd, Work};

/// AVX2, FMA and F16C. A value exists only where [`detect`](Self::detect) found these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The kernels, if the machine can run them.
    pub(crate) fn detect() -> Option<Self> {
        let found =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }
}

compile_kernels! { Avx2, #[target_feature(enable = "avx2,fma,f16c")] }

/// Four integers of a column, for each row.
#[inline(always)]
unsafe fn broadcast(x: *const i8) -> __m256i {
    // SAFETY: the caller's, who has the instructions and four integers.
    unsafe { _mm256_set1_epi32(x.cast::<i32>().read_unaligned()) }
}

/// The sums of neighbouring 16-bit integers.
#[inline(always)]
unsafe fn widen(pairs: __m256i) -> __m256i {
    // SAFETY: the caller has the instructions.
    unsafe { _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)) }
}

/// The sums of neighbouring products of signed bytes.
#[inline(always)]
unsafe fn signed(w: __m256i, x: *const i8) -> __m256i {
    // SAFETY: the caller's, who has the instructions and four integers.
    unsafe { _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(broadcast(x), w)) }
}

// SAFETY, for all blocks: the trait's contract gives the instructions and the memory behind the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx2 {
    const LANES: usize = 8;
    const COLUMNS: usize = 4;
    const DENSE_COLUMNS: usize = 4;
    const BYTE_SHIFT: u32 = 0;

    type F32 = __m256;
    type I32 = __m256i;
    type Bytes = __m256i;
    type Products = __m256i;

    #[inline(always)]
    unsafe fn call(work: impl Work) {
        #[target_feature(enable = "avx2,fma,f16c")]
        #[inline(never)]
        unsafe fn compiled(work: impl Work) {
            unsafe { work.run() }
        }
        unsafe { compiled(work) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(x: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_f16(x: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(x: *const u8) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(x.cast())))) }
    }

    #[inline(always)]
    unsafe fn load_i8(x: *const u8) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.cast()))) }
    }

    #[inline(always)]
    unsafe fn store(x: __m256, out: *mut f32) {
        unsafe { _mm256_storeu_ps(out, x) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn to_f32(x: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(x) }
    }

    #[inline(always)]
    unsafe fn splat_i32(x: *const i32, shift: u32) -> __m256i {
        unsafe { _mm256_sll_epi32(_mm256_set1_epi32(x.read_unaligned()), _mm_cvtsi32_si128(shift as i32)) }
    }

    #[inline(always)]
    unsafe fn zero_i32() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn bytes(x: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(x.cast()) }
    }

    #[inline(always)]
    unsafe fn shift(x: __m256i, left: i32) -> __m256i {
        unsafe {
            match left {
                0 => x,
                1.. => _mm256_sll_epi16(x, _mm_cvtsi32_si128(left)),
                _ => _mm256_srl_epi16(x, _mm_cvtsi32_si128(-left)),
            }
        }
    }

    #[inline(always)]
    unsafe fn and(x: __m256i, mask: u8) -> __m256i {
        unsafe { _mm256_and_si256(x, _mm256_set1_epi8(mask.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    unsafe fn begin() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }

    /// `maddubs` multiplies unsigned by signed bytes and adds pairs into 16 bits with saturation. A pair is at most
    /// 2 · 15 · 127 = 3810 for four bits, of which eight add up to 30480 < 2¹⁵, so products of four bits stay in 16 bits
    /// until [`end`](Self::end). It is 2 · 31 · 127 = 7874 for five, of which four add up to 31496, and 2 · 63 · 127 =
    /// 16002 for six, of which two add up to 32004. For signed bytes the weight's sign moves to the column's integer,
    /// w · x = |w| · (sign(w) · x), and a pair is at most 2 · 128 · 127 = 32512.
    #[inline(always)]
    unsafe fn dot(products: __m256i, w: [__m256i; 4], x: *const i8, bits: u32) -> __m256i {
        unsafe {
            let pairs = |i: usize| match bits {
                8 => signed(w[i], x.add(4 * i)),
                _ => _mm256_maddubs_epi16(w[i], broadcast(x.add(4 * i))),
            };
            let two = |i: usize| _mm256_add_epi16(pairs(i), pairs(i + 1));
            match bits {
                4 => (0..4).fold(products, |sum, i| _mm256_add_epi16(sum, pairs(i))),
                5 => _mm256_add_epi32(products, widen(_mm256_add_epi16(two(0), two(2)))),
                6 => _mm256_add_epi32(products, _mm256_add_epi32(widen(two(0)), widen(two(2)))),
                _ => (0..4).fold(products, |sum, i| _mm256_add_epi32(sum, widen(pairs(i)))),
            }
        }
    }

    /// Signed bytes one piece after the other, so that it, its absolute values and all sums stay in registers. A single
    /// column or two have room for all pieces.
    #[inline(always)]
    unsafe fn dots<const N: usize, const R: usize>(
        products: &mut [[__m256i; N]; R],
        w: [[__m256i; 4]; R],
        x: *const i8,
        bits: u32,
    ) {
        unsafe {
            for (products, w) in products.iter_mut().zip(w) {
                if bits != 8 || N <= 2 {
                    for n in 0..N {
                        products[n] = Self::dot(products[n], w, x.add(n * BLOCK), bits);
                    }
                    continue;
                }
                // A loop that the compiler can not unroll: unrolled, it goes column by column after all, and keeps what
                // it has made of all pieces in memory.
                for (i, w) in w.iter().enumerate().take(std::hint::black_box(w.len())) {
                    for n in 0..N {
                        products[n] = _mm256_add_epi32(products[n], widen(signed(*w, x.add(n * BLOCK + 4 * i))));
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn end(products: __m256i, start: __m256i, bits: u32) -> __m256i {
        unsafe { _mm256_add_epi32(if bits == 4 { widen(products) } else { products }, start) }
    }
}
