//! AArch64 with NEON, and where it is there, with its products of four bytes at once (FEAT_DotProd).

use std::arch::aarch64::*;
use std::arch::asm;

use crate::kernels::compile_kernels;
use crate::simd::{Simd, Work};

/// NEON; with FEAT_DotProd if `DOT`. A value exists only where `detect` found these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon<const DOT: bool>(());

impl Neon<false> {
    /// The kernels, if the machine can run them.
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

impl Neon<true> {
    /// The kernels, if the machine can run them.
    pub(crate) fn detect() -> Option<Self> {
        let found =
            std::arch::is_aarch64_feature_detected!("neon") && std::arch::is_aarch64_feature_detected!("dotprod");
        found.then_some(Self(()))
    }
}

compile_kernels! { Neon<false>, #[target_feature(enable = "neon")] }
compile_kernels! { Neon<true>, #[target_feature(enable = "neon,dotprod")] }

/// Eight lanes: two registers, so that what is read of a column serves both.
type Two<V> = [V; 2];

#[inline(always)]
fn each<A: Copy, B>(a: Two<A>, f: impl Fn(A) -> B) -> Two<B> {
    [f(a[0]), f(a[1])]
}

#[inline(always)]
fn both<A: Copy, B: Copy, C>(a: Two<A>, b: Two<B>, f: impl Fn(A, B) -> C) -> Two<C> {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// Adds, in each lane, the products of its four bytes of `w` with four of `x`, those of lane `LANE`.
///
/// The intrinsic for it, `vdotq_laneq_s32`, is not stable (rust-lang/rust#117224).
///
/// # Safety
/// Needs FEAT_DotProd.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn dot_four<const LANE: usize>(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction is there, and it changes nothing but `sums`.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// The sums of each byte's products, in 16 bits: of the lower two lanes and of the upper two.
#[inline(always)]
unsafe fn multiply<const N: usize>(w: [int8x16_t; N], x: [int8x16_t; N]) -> (int16x8_t, int16x8_t) {
    // SAFETY: the caller has the instructions.
    unsafe {
        let first = (vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0])), vmull_high_s8(w[0], x[0]));
        (1..N).fold(first, |(low, high), i| {
            (vmlal_s8(low, vget_low_s8(w[i]), vget_low_s8(x[i])), vmlal_high_s8(high, w[i], x[i]))
        })
    }
}

/// [`Simd::dot`] of one register's rows without FEAT_DotProd; `x` holds four integers of the column over and over.
///
/// A byte's products add up in 16 bits. Each is at most 15 · 127 = 1905 for four bits, of which 16 add up to 30480 <
/// 2¹⁵, so pairs of them stay there until [`Simd::end`]. It is 31 · 127 = 3937 for five, of which eight add up to 31496,
/// and 63 · 127 = 8001 for six, of which four add up to 32004. It is 128 · 127 = 16256 for signed bytes, of which two
/// add up to 32512.
#[inline(always)]
unsafe fn dot_widening(products: int32x4_t, w: [int8x16_t; 4], x: [int8x16_t; 4], bits: u32) -> int32x4_t {
    // SAFETY: the caller has the instructions.
    unsafe {
        let halves = || [multiply([w[0], w[1]], [x[0], x[1]]), multiply([w[2], w[3]], [x[2], x[3]])];
        match bits {
            4 => {
                let (low, high) = multiply(w, x);
                vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(products), vpaddq_s16(low, high)))
            }
            5 => {
                let (low, high) = multiply(w, x);
                vpadalq_s16(products, vpaddq_s16(low, high))
            }
            6 => halves().into_iter().fold(products, |sum, (low, high)| vpadalq_s16(sum, vpaddq_s16(low, high))),
            _ => {
                let [(low, high), (more_low, more_high)] = halves();
                let low = vpadalq_s16(vpaddlq_s16(low), more_low);
                let high = vpadalq_s16(vpaddlq_s16(high), more_high);
                vaddq_s32(products, vpaddq_s32(low, high))
            }
        }
    }
}

// SAFETY, for all blocks: the trait's contract gives the instructions and the memory behind the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const DOT: bool> Simd for Neon<DOT> {
    const LANES: usize = 8;
    // Four columns' sums and products are 16 of the 32 registers, a half block's weights 8.
    const COLUMNS: usize = 4;
    // Of all sixteen rows, that is 16 registers of sums.
    const DENSE_COLUMNS: usize = 4;
    const BYTE_SHIFT: u32 = 0;

    type F32 = Two<float32x4_t>;
    type I32 = Two<int32x4_t>;
    type Bytes = Two<uint8x16_t>;
    type Products = Two<int32x4_t>;

    #[inline(always)]
    unsafe fn call(work: impl Work) {
        #[target_feature(enable = "neon")]
        #[inline(never)]
        unsafe fn compiled(work: impl Work) {
            unsafe { work.run() }
        }
        #[target_feature(enable = "neon,dotprod")]
        #[inline(never)]
        unsafe fn compiled_with_dot(work: impl Work) {
            unsafe { work.run() }
        }
        unsafe { if DOT { compiled_with_dot(work) } else { compiled(work) } }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Two<float32x4_t> {
        unsafe { [vdupq_n_f32(x); 2] }
    }

    #[inline(always)]
    unsafe fn load(x: *const f32) -> Two<float32x4_t> {
        unsafe { [vld1q_f32(x), vld1q_f32(x.add(4))] }
    }

    #[inline(always)]
    unsafe fn load_f16(x: *const u8) -> Two<float32x4_t> {
        unsafe {
            let x = vreinterpretq_f16_u16(vld1q_u16(x.cast()));
            [vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)]
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(x: *const u8) -> Two<float32x4_t> {
        unsafe {
            let x = vld1q_u16(x.cast());
            each([vmovl_u16(vget_low_u16(x)), vmovl_high_u16(x)], |x| vreinterpretq_f32_u32(vshlq_n_u32::<16>(x)))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(x: *const u8) -> Two<float32x4_t> {
        unsafe {
            let x = vmovl_s8(vld1_s8(x.cast()));
            each([vmovl_s16(vget_low_s16(x)), vmovl_high_s16(x)], |x| vcvtq_f32_s32(x))
        }
    }

    #[inline(always)]
    unsafe fn store(x: Two<float32x4_t>, out: *mut f32) {
        unsafe {
            vst1q_f32(out, x[0]);
            vst1q_f32(out.add(4), x[1]);
        }
    }

    #[inline(always)]
    unsafe fn add(a: Two<float32x4_t>, b: Two<float32x4_t>) -> Two<float32x4_t> {
        unsafe { both(a, b, |a, b| vaddq_f32(a, b)) }
    }

    #[inline(always)]
    unsafe fn mul(a: Two<float32x4_t>, b: Two<float32x4_t>) -> Two<float32x4_t> {
        unsafe { both(a, b, |a, b| vmulq_f32(a, b)) }
    }

    #[inline(always)]
    unsafe fn fma(a: Two<float32x4_t>, b: Two<float32x4_t>, c: Two<float32x4_t>) -> Two<float32x4_t> {
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn to_f32(x: Two<int32x4_t>) -> Two<float32x4_t> {
        unsafe { each(x, |x| vcvtq_f32_s32(x)) }
    }

    #[inline(always)]
    unsafe fn splat_i32(x: *const i32, shift: u32) -> Two<int32x4_t> {
        unsafe { [vshlq_s32(vdupq_n_s32(x.read_unaligned()), vdupq_n_s32(shift as i32)); 2] }
    }

    #[inline(always)]
    unsafe fn zero_i32() -> Two<int32x4_t> {
        unsafe { [vdupq_n_s32(0); 2] }
    }

    #[inline(always)]
    unsafe fn bytes(x: *const u8) -> Two<uint8x16_t> {
        unsafe { [vld1q_u8(x), vld1q_u8(x.add(16))] }
    }

    /// In units of one byte: the bits that would cross are masked by the caller anyway, and where none are left to
    /// mask, the compiler drops that instruction.
    #[inline(always)]
    unsafe fn shift(x: Two<uint8x16_t>, left: i32) -> Two<uint8x16_t> {
        unsafe { each(x, |x| vshlq_u8(x, vdupq_n_s8(left as i8))) }
    }

    #[inline(always)]
    unsafe fn and(x: Two<uint8x16_t>, mask: u8) -> Two<uint8x16_t> {
        unsafe { each(x, |x| vandq_u8(x, vdupq_n_u8(mask))) }
    }

    #[inline(always)]
    unsafe fn or(a: Two<uint8x16_t>, b: Two<uint8x16_t>) -> Two<uint8x16_t> {
        unsafe { both(a, b, |a, b| vorrq_u8(a, b)) }
    }

    #[inline(always)]
    unsafe fn begin() -> Two<int32x4_t> {
        unsafe { [vdupq_n_s32(0); 2] }
    }

    /// All products here are of signed bytes: unsigned weights have at most six bits.
    #[inline(always)]
    unsafe fn dot(products: Two<int32x4_t>, w: [Two<uint8x16_t>; 4], x: *const i8, bits: u32) -> Two<int32x4_t> {
        unsafe {
            let w = [0, 1].map(|half| w.map(|w: Two<uint8x16_t>| vreinterpretq_s8_u8(w[half])));
            if DOT {
                let x = vld1q_s8(x);
                return both(products, w, |sums, w| {
                    let sums = dot_four::<0>(sums, w[0], x);
                    let sums = dot_four::<1>(sums, w[1], x);
                    let sums = dot_four::<2>(sums, w[2], x);
                    dot_four::<3>(sums, w[3], x)
                });
            }
            let x = x.cast::<[i32; 4]>().read_unaligned().map(|four| vreinterpretq_s8_s32(vdupq_n_s32(four)));
            both(products, w, |products, w| dot_widening(products, w, x, bits))
        }
    }

    #[inline(always)]
    unsafe fn end(products: Two<int32x4_t>, start: Two<int32x4_t>, bits: u32) -> Two<int32x4_t> {
        unsafe {
            both(products, start, |products, start| {
                if !DOT && bits == 4 {
                    vpadalq_s16(start, vreinterpretq_s16_s32(products))
                } else {
                    vaddq_s32(products, start)
                }
            })
        }
    }
}
