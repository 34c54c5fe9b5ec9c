//! x86-64 with AVX-512 (F, BW, VL) and VNNI.

use std::arch::x86_64::*;

use crate::amx::Amx;
use crate::chains::Chains;
use crate::kernels::{Lanes, ROWS, RowGroups, compile_kernels};
use crate::packing::BLOCK;
use crate::pairs::Operand;
use crate::simd::{Simd, Work};

/// AVX-512 with VNNI. A value exists only where [`detect`](Self::detect) found it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512 {
    bf16: Bf16,
}

/// What multiplies pairs of bfloat16.
#[derive(Debug, Clone, Copy)]
enum Bf16 {
    /// Multiply-adds of f32.
    Lanes,
    /// An instruction for them.
    Chains(Chains),
    /// Tiles.
    Tiles(Amx),
}

impl Avx512 {
    /// The kernels, if the machine can run them.
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self { bf16: Bf16::Lanes })
    }

    /// The same with the instruction for products of bfloat16.
    pub(crate) fn with_chains(self) -> Option<Self> {
        Chains::detect().map(|chains| Self { bf16: Bf16::Chains(chains) })
    }

    /// The same with tiles.
    pub(crate) fn with_tiles(self) -> Option<Self> {
        Amx::detect().map(|amx| Self { bf16: Bf16::Tiles(amx) })
    }
}

compile_kernels! {
    Avx512, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")];

    fn dot_pairs(&self, weights: RowGroups<'_>, x: &[u32], out: &mut [Lanes]) {
        match self.bf16 {
            Bf16::Lanes => self.dot_pairs_in_lanes(weights, x, out),
            Bf16::Chains(chains) => chains.dot_pairs(weights, x, out),
            Bf16::Tiles(amx) => amx.dot_pairs(weights, x, out),
        }
    }

    fn pack_pairs(&self, operand: &Operand<'_>, out: &mut [u32]) {
        match self.bf16 {
            Bf16::Chains(chains) => chains.pack(operand, out),
            Bf16::Lanes | Bf16::Tiles(_) => self.pack_in_order(operand, out),
        }
    }
}

// SAFETY, for all blocks: the trait's contract gives the instructions and the memory behind the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    const LANES: usize = 16;
    const COLUMNS: usize = 8;
    const DENSE_COLUMNS: usize = 12;
    const BYTE_SHIFT: u32 = 7;

    type F32 = __m512;
    type I32 = __m512i;
    type Bytes = __m512i;
    type Products = __m512i;

    #[inline(always)]
    unsafe fn call(work: impl Work) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
        #[inline(never)]
        unsafe fn compiled(work: impl Work) {
            unsafe { work.run() }
        }
        unsafe { compiled(work) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(x: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_f16(x: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(x: *const u8) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x.cast())))) }
    }

    #[inline(always)]
    unsafe fn load_i8(x: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.cast()))) }
    }

    #[inline(always)]
    unsafe fn store(x: __m512, out: *mut f32) {
        unsafe { _mm512_storeu_ps(out, x) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn to_f32(x: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    /// Pairs, then fours, within quarters of vectors; then quarters.
    #[inline(always)]
    unsafe fn turn(square: &mut [Lanes; ROWS]) {
        unsafe {
            let mut x = [_mm512_setzero_ps(); ROWS];
            for i in 0..ROWS {
                x[i] = _mm512_loadu_ps(square[i].as_ptr());
            }
            let mut pairs = x;
            for i in 0..ROWS / 2 {
                pairs[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
                pairs[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
            }
            let mut fours = pairs;
            for i in 0..ROWS / 4 {
                for half in 0..2 {
                    let a = _mm512_castps_pd(pairs[4 * i + half]);
                    let b = _mm512_castps_pd(pairs[4 * i + 2 + half]);
                    fours[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    fours[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                }
            }
            // Vector 4·i + c has, in each quarter q, column 4·q + c of rows 4·i..4·i + 4.
            for c in 0..4 {
                let [a, b] = [fours[c], fours[4 + c]];
                let [d, e] = [fours[8 + c], fours[12 + c]];
                let [low, high] = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)];
                let [later_low, later_high] = [_mm512_shuffle_f32x4::<0x88>(d, e), _mm512_shuffle_f32x4::<0xdd>(d, e)];
                _mm512_storeu_ps(square[c].as_mut_ptr(), _mm512_shuffle_f32x4::<0x88>(low, later_low));
                _mm512_storeu_ps(square[8 + c].as_mut_ptr(), _mm512_shuffle_f32x4::<0xdd>(low, later_low));
                _mm512_storeu_ps(square[4 + c].as_mut_ptr(), _mm512_shuffle_f32x4::<0x88>(high, later_high));
                _mm512_storeu_ps(square[12 + c].as_mut_ptr(), _mm512_shuffle_f32x4::<0xdd>(high, later_high));
            }
        }
    }

    #[inline(always)]
    unsafe fn splat_i32(x: *const i32, shift: u32) -> __m512i {
        unsafe { _mm512_sll_epi32(_mm512_set1_epi32(x.read_unaligned()), _mm_cvtsi32_si128(shift as i32)) }
    }

    #[inline(always)]
    unsafe fn zero_i32() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn bytes(x: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(x.cast()) }
    }

    #[inline(always)]
    unsafe fn shift(x: __m512i, left: i32) -> __m512i {
        unsafe {
            match left {
                0 => x,
                1.. => _mm512_sll_epi16(x, _mm_cvtsi32_si128(left)),
                _ => _mm512_srl_epi16(x, _mm_cvtsi32_si128(-left)),
            }
        }
    }

    #[inline(always)]
    unsafe fn and(x: __m512i, mask: u8) -> __m512i {
        unsafe { _mm512_and_si512(x, _mm512_set1_epi8(mask.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn begin() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn dot(products: __m512i, w: [__m512i; 4], x: *const i8, bits: u32) -> __m512i {
        unsafe {
            let mut sum = [[products]];
            Self::dots(&mut sum, [w], x, bits);
            sum[0][0]
        }
    }

    /// What is read of a column serves all vectors of rows: a core adds products faster than it can read. `vpdpbusd`
    /// takes unsigned weights, so 128 is added to signed ones.
    #[inline(always)]
    unsafe fn dots<const N: usize, const R: usize>(
        products: &mut [[__m512i; N]; R],
        w: [[__m512i; 4]; R],
        x: *const i8,
        bits: u32,
    ) {
        unsafe {
            for i in 0..4 {
                let mut piece = [_mm512_setzero_si512(); R];
                for r in 0..R {
                    piece[r] = if bits == 8 { _mm512_xor_si512(w[r][i], _mm512_set1_epi8(-128)) } else { w[r][i] };
                }
                for n in 0..N {
                    let x = _mm512_set1_epi32(x.add(n * BLOCK + 4 * i).cast::<i32>().read_unaligned());
                    for r in 0..R {
                        products[r][n] = _mm512_dpbusd_epi32(products[r][n], piece[r], x);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn end(products: __m512i, start: __m512i, _bits: u32) -> __m512i {
        unsafe { _mm512_add_epi32(products, start) }
    }
}
