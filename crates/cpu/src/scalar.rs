//! Every machine.

use crate::kernels::{ROWS, compile_kernels};
use crate::shared::widen_f16;
use crate::simd::{Simd, Work};

/// The target's basic instructions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

compile_kernels! { Scalar, }

/// Reads `N` bytes for each lane.
#[inline(always)]
unsafe fn read<const N: usize, T>(x: *const u8, value: impl Fn([u8; N]) -> T) -> [T; ROWS] {
    // SAFETY: the caller's, who has `N` bytes for each of the lanes.
    std::array::from_fn(|lane| value(unsafe { x.add(N * lane).cast::<[u8; N]>().read() }))
}

#[inline(always)]
fn both<A: Copy, B: Copy, C>(a: [A; ROWS], b: [B; ROWS], f: impl Fn(A, B) -> C) -> [C; ROWS] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

// SAFETY, for all blocks: the trait's contract gives the memory behind the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Scalar {
    const LANES: usize = ROWS;
    const COLUMNS: usize = 2;
    const DENSE_COLUMNS: usize = 2;
    const BYTE_SHIFT: u32 = 0;

    type F32 = [f32; ROWS];
    type I32 = [i32; ROWS];
    type Bytes = [[u8; 4]; ROWS];
    type Products = [i32; ROWS];

    #[inline(always)]
    unsafe fn call(work: impl Work) {
        #[inline(never)]
        unsafe fn compiled(work: impl Work) {
            unsafe { work.run() }
        }
        unsafe { compiled(work) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; ROWS] {
        [x; ROWS]
    }

    #[inline(always)]
    unsafe fn load(x: *const f32) -> [f32; ROWS] {
        unsafe { x.cast::<[f32; ROWS]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_f16(x: *const u8) -> [f32; ROWS] {
        unsafe { read(x, |raw| widen_f16(u16::from_le_bytes(raw))) }
    }

    #[inline(always)]
    unsafe fn load_bf16(x: *const u8) -> [f32; ROWS] {
        unsafe { read(x, |raw| f32::from_bits(u32::from(u16::from_le_bytes(raw)) << 16)) }
    }

    #[inline(always)]
    unsafe fn load_i8(x: *const u8) -> [f32; ROWS] {
        unsafe { read(x, |[raw]| f32::from(raw.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn store(x: [f32; ROWS], out: *mut f32) {
        unsafe { out.cast::<[f32; ROWS]>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn add(a: [f32; ROWS], b: [f32; ROWS]) -> [f32; ROWS] {
        both(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; ROWS], b: [f32; ROWS]) -> [f32; ROWS] {
        both(a, b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; ROWS], b: [f32; ROWS], c: [f32; ROWS]) -> [f32; ROWS] {
        std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }

    #[inline(always)]
    unsafe fn to_f32(x: [i32; ROWS]) -> [f32; ROWS] {
        x.map(|x| x as f32)
    }

    #[inline(always)]
    unsafe fn splat_i32(x: *const i32, shift: u32) -> [i32; ROWS] {
        [unsafe { x.read_unaligned() } << shift; ROWS]
    }

    #[inline(always)]
    unsafe fn zero_i32() -> [i32; ROWS] {
        [0; ROWS]
    }

    #[inline(always)]
    unsafe fn bytes(x: *const u8) -> [[u8; 4]; ROWS] {
        unsafe { x.cast::<[[u8; 4]; ROWS]>().read() }
    }

    #[inline(always)]
    unsafe fn shift(x: [[u8; 4]; ROWS], left: i32) -> [[u8; 4]; ROWS] {
        x.map(|lane| {
            let [low, high] = [[lane[0], lane[1]], [lane[2], lane[3]]].map(|pair| {
                let pair = u16::from_le_bytes(pair);
                (if left < 0 { pair >> -left } else { pair << left }).to_le_bytes()
            });
            [low[0], low[1], high[0], high[1]]
        })
    }

    #[inline(always)]
    unsafe fn and(x: [[u8; 4]; ROWS], mask: u8) -> [[u8; 4]; ROWS] {
        x.map(|lane| lane.map(|byte| byte & mask))
    }

    #[inline(always)]
    unsafe fn or(a: [[u8; 4]; ROWS], b: [[u8; 4]; ROWS]) -> [[u8; 4]; ROWS] {
        both(a, b, |a, b| std::array::from_fn(|i| a[i] | b[i]))
    }

    #[inline(always)]
    unsafe fn begin() -> [i32; ROWS] {
        [0; ROWS]
    }

    #[inline(always)]
    unsafe fn dot(products: [i32; ROWS], w: [[[u8; 4]; ROWS]; 4], x: *const i8, bits: u32) -> [i32; ROWS] {
        let x = unsafe { x.cast::<[[i8; 4]; 4]>().read() };
        let value = |byte: u8| if bits == 8 { i32::from(byte.cast_signed()) } else { i32::from(byte) };
        std::array::from_fn(|lane| {
            let pairs = w.iter().zip(&x).flat_map(|(w, x)| w[lane].into_iter().zip(*x));
            pairs.fold(products[lane], |sum, (w, x)| sum + value(w) * i32::from(x))
        })
    }

    #[inline(always)]
    unsafe fn end(products: [i32; ROWS], start: [i32; ROWS], _bits: u32) -> [i32; ROWS] {
        both(products, start, |a, b| a + b)
    }
}
