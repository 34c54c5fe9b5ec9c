//! What an instruction set offers to kernels.

use crate::kernels::{Lanes, ROWS};
use crate::packing::BLOCK;

/// Work that is written over [`Simd`].
pub(crate) trait Work {
    /// Does it. `#[inline(always)]`, so that it becomes part of [`Simd::call`].
    ///
    /// # Safety
    /// Needs the set's instructions.
    unsafe fn run(self);
}

/// Calls `$work` with `$N` as the most columns of 1, 2, 3, 4 and 8 that are no more than `$n` and the set's, and returns
/// how many these were.
macro_rules! with_columns {
    ($S:ident, $n:expr, $N:ident => $work:expr) => {{
        match usize::min($n, $S::COLUMNS) {
            1 => with_columns!(@call $S, $N, 1, $work),
            2 => with_columns!(@call $S, $N, 2, $work),
            3 => with_columns!(@call $S, $N, 3, $work),
            4..8 => with_columns!(@call $S, $N, 4, $work),
            _ => with_columns!(@call $S, $N, 8, $work),
        }
    }};
    (@call $S:ident, $N:ident, $n:literal, $work:expr) => {{
        const $N: usize = $n;
        $S::call($work);
        $n
    }};
}

pub(crate) use with_columns;

/// Asks for the cache line at `x`, which may lie anywhere.
#[inline(always)]
pub(crate) fn prefetch(x: *const u8) {
    // SAFETY: a hint, which every processor of this kind knows and which never faults.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(x.cast());
    }
    // SAFETY: the same. The intrinsic for it, `_prefetch`, is not stable (rust-lang/rust#117217).
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{x}]", x = in(reg) x, options(nomem, nostack, preserves_flags));
    }
}

/// Vectors of one instruction set. Kernels are written once over this trait and compiled for each set.
///
/// A vector holds [`LANES`](Self::LANES) output rows, so [`ROWS`](crate::kernels::ROWS) rows are one vector or several.
/// Every function is one or a few instructions and rounds each operation once, so all sets give the same bits.
///
/// # Safety
/// All functions need the set's instructions and are `#[inline(always)]`, so that they become part of a caller that is
/// compiled for the set. Pointers must be good for what is read or written; none needs an alignment.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// 32-bit lanes of a vector; divides [`ROWS`](crate::kernels::ROWS).
    const LANES: usize;
    /// Columns whose sums the registers hold at once, at most [`TILE`](crate::kernels::TILE).
    const COLUMNS: usize;
    /// Columns of unquantised products whose sums the registers hold at once, each for all rows of a row group; divides
    /// [`DENSE_BLOCK`](crate::linear::DENSE_ROWS).
    const DENSE_COLUMNS: usize;
    /// [`dot`](Self::dot) of signed bytes leaves out 2 to the power of this times the sum of `x`; 0 if it is exact.
    const BYTE_SHIFT: u32;

    /// A number for each lane.
    type F32: Copy;
    /// An integer for each lane.
    type I32: Copy;
    /// Four bytes for each lane.
    type Bytes: Copy;
    /// A sum of products of bytes for each lane, in whatever form it adds up fastest.
    type Products: Copy;

    /// Does `work` in a function of its own that is compiled for the set. One function for everything that a kernel can
    /// be would take the compiler minutes.
    unsafe fn call(work: impl Work);

    /// `x` in all lanes.
    unsafe fn splat(x: f32) -> Self::F32;
    /// One number for each lane.
    unsafe fn load(x: *const f32) -> Self::F32;
    /// The same from half precision.
    unsafe fn load_f16(x: *const u8) -> Self::F32;
    /// The same from bfloat16.
    unsafe fn load_bf16(x: *const u8) -> Self::F32;
    /// The same from signed bytes.
    unsafe fn load_i8(x: *const u8) -> Self::F32;
    /// Writes one number for each lane.
    unsafe fn store(x: Self::F32, out: *mut f32);
    /// `a + b`.
    unsafe fn add(a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b`.
    unsafe fn mul(a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c`, rounded once.
    unsafe fn fma(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The integers as numbers.
    unsafe fn to_f32(x: Self::I32) -> Self::F32;

    /// Exchanges rows and columns.
    #[inline(always)]
    unsafe fn turn(square: &mut [Lanes; ROWS]) {
        for i in 0..ROWS {
            for j in 0..i {
                let x = square[i][j];
                square[i][j] = square[j][i];
                square[j][i] = x;
            }
        }
    }

    /// `x · 2^shift` in all lanes.
    unsafe fn splat_i32(x: *const i32, shift: u32) -> Self::I32;
    /// Zero in all lanes.
    unsafe fn zero_i32() -> Self::I32;

    /// Four bytes for each lane.
    unsafe fn bytes(x: *const u8) -> Self::Bytes;
    /// Shifts left (right if negative) in units that hold two bytes each; bits that cross from one byte into the other
    /// are the caller's to mask.
    unsafe fn shift(x: Self::Bytes, left: i32) -> Self::Bytes;
    /// Keeps the bits of `mask` in each byte.
    unsafe fn and(x: Self::Bytes, mask: u8) -> Self::Bytes;
    /// All bits of both.
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;

    /// No products yet.
    unsafe fn begin() -> Self::Products;
    /// Adds, in each lane, the products of its 16 bytes of `w` with the 16 integers at `x`.
    ///
    /// `bits` says what the bytes hold: unsigned integers of 4 to 6 bits, or signed bytes where it is 8. The integers
    /// at `x` lie in −127…127. At most two calls between [`begin`](Self::begin) and [`end`](Self::end), with the same
    /// `bits`.
    unsafe fn dot(products: Self::Products, w: [Self::Bytes; 4], x: *const i8, bits: u32) -> Self::Products;
    /// [`dot`](Self::dot) for `R` vectors of rows and `N` columns, each [`BLOCK`] integers after the one before.
    #[inline(always)]
    unsafe fn dots<const N: usize, const R: usize>(
        products: &mut [[Self::Products; N]; R],
        w: [[Self::Bytes; 4]; R],
        x: *const i8,
        bits: u32,
    ) {
        for n in 0..N {
            for r in 0..R {
                // SAFETY: the caller's.
                products[r][n] = unsafe { Self::dot(products[r][n], w[r], x.add(n * BLOCK), bits) };
            }
        }
    }
    /// `start` plus the sum of all products.
    unsafe fn end(products: Self::Products, start: Self::I32, bits: u32) -> Self::I32;
}
