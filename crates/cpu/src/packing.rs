//! How quantised weights of [`ROWS`] output rows lie side by side.
//!
//! A row group holds units, one after another: the integers of one block of [`BLOCK`] inputs or of several, and then
//! their head, which is scales and offsets. So one token reads a group from its first byte to its last; with all heads
//! behind all integers, the processor fetched ahead a tenth to a fifth less.
//!
//! Of a block, integers lie in eight pieces of four inputs: row 0's four bytes, row 1's, and so on, so that a 32-bit
//! lane is a row. Four bits of two pieces share [`PIECE`] bytes, the second one in the high nibbles;
//! what integers have beyond four bits follows in planes: bit j of a plane's byte (two bits from 2j on, where there are
//! two) belongs to piece j of those that the plane is for. A packed row group takes as many bytes as the file's rows.

use std::marker::PhantomData;

use tensor::quant::Kind;

use crate::kernels::ROWS;
use crate::simd::Simd;

/// Inputs of a block.
pub(crate) const BLOCK: usize = 32;
/// Bytes of a piece: four for each row.
pub(crate) const PIECE: usize = 4 * ROWS;

/// How one format lies in memory.
pub(crate) trait Packing {
    /// Bits of an integer. 8: signed; fewer: unsigned, the format's integer plus 2^[`SHIFT`](Self::SHIFT).
    const BITS: u32;
    /// See [`BITS`](Self::BITS); 0 if integers are stored as they are.
    const SHIFT: u32;
    /// Whether halves of a block have scales of their own.
    const HALVES: bool;
    /// How scales are stored.
    type Head: Head;

    /// Scales of a block.
    const GROUPS: usize = if Self::HALVES { 2 } else { 1 };
    /// Bytes of a block's integers.
    const BODY: usize = BLOCK * ROWS * Self::BITS as usize / 8;
    /// Bytes of all integers of a unit, and so where its head begins.
    const BODIES: usize = Self::BODY * Self::Head::BLOCKS;
    /// Bytes of a unit.
    const UNIT: usize = Self::BODIES + Self::Head::BYTES;
    /// Whether heads take so long to read that for many columns they are read once, as [`Head::Wide`].
    const IS_WIDENED: bool = Self::Head::BLOCKS > 1;

    /// Bytes of a row group of `n_in` inputs.
    fn bytes(n_in: usize) -> Option<usize> {
        (n_in / BLOCK / Self::Head::BLOCKS).checked_mul(Self::UNIT)
    }

    /// Four pieces of the block at `body`: the first half of its inputs or the second.
    ///
    /// # Safety
    /// As [`Simd`]; `first_row` is a multiple of the lanes.
    #[inline(always)]
    unsafe fn pieces<S: Simd>(body: *const u8, half: usize, first_row: usize) -> [S::Bytes; 4] {
        // SAFETY: inside of the block's body.
        unsafe {
            let piece = |i: usize| S::bytes(body.add(i * PIECE + 4 * first_row));
            if Self::BITS == 8 {
                return [piece(4 * half), piece(4 * half + 1), piece(4 * half + 2), piece(4 * half + 3)];
            }
            let (a, b) = (piece(2 * half), piece(2 * half + 1));
            let [mut a, mut b, mut c, mut d] =
                [S::and(a, 15), S::and(S::shift(a, -4), 15), S::and(b, 15), S::and(S::shift(b, -4), 15)];
            if Self::BITS == 5 {
                let plane = piece(4);
                let bit = |i: i32| S::and(S::shift(plane, 4 - (4 * half as i32 + i)), 0x10);
                [a, b, c, d] = [S::or(a, bit(0)), S::or(b, bit(1)), S::or(c, bit(2)), S::or(d, bit(3))];
            } else if Self::BITS == 6 {
                let plane = piece(4 + half);
                let bits = |i: i32| S::and(S::shift(plane, 4 - 2 * i), 0x30);
                [a, b, c, d] = [S::or(a, bits(0)), S::or(b, bits(1)), S::or(c, bits(2)), S::or(d, bits(3))];
            }
            [a, b, c, d]
        }
    }

    /// Writes one row's integers of a block, in the form that [`Kind::integers`] gives.
    fn put(q: &[i8], row: usize, body: &mut [u8]) {
        for (piece, q) in q.as_chunks::<4>().0.iter().enumerate() {
            for (i, q) in q.iter().enumerate() {
                let at = 4 * row + i;
                if Self::BITS == 8 {
                    body[piece * PIECE + at] = q.cast_unsigned();
                    continue;
                }
                let stored = (i32::from(*q) + if Self::SHIFT > 0 { 1 << Self::SHIFT } else { 0 }) as u8;
                body[piece / 2 * PIECE + at] |= (stored & 15) << (4 * (piece % 2));
                match Self::BITS {
                    5 => body[4 * PIECE + at] |= stored >> 4 << piece,
                    6 => body[(4 + piece / 4) * PIECE + at] |= stored >> 4 << (2 * (piece % 4)),
                    _ => {}
                }
            }
        }
    }
}

/// How scales and offsets lie in memory.
pub(crate) trait Head {
    /// The same in single precision, or itself.
    type Wide: Head;
    /// Blocks that share a head.
    const BLOCKS: usize;
    /// Bytes of a head.
    const BYTES: usize;
    /// Whether there are offsets.
    const OFFSETS: bool;

    /// The scales of group `group` of the head's.
    ///
    /// # Safety
    /// As [`Simd`]; `group` and `first_row` are inside of the head.
    unsafe fn scale<S: Simd>(head: *const u8, group: usize, first_row: usize) -> S::F32;

    /// The offsets. Called where there are some.
    ///
    /// # Safety
    /// As [`scale`](Self::scale).
    unsafe fn offset<S: Simd>(head: *const u8, group: usize, first_row: usize) -> S::F32;

    /// Writes one row's part of a head. `stored` is what the file holds of the blocks, `scale` and `offset` are their
    /// groups' values.
    fn put(stored: &[u8], scale: &[f32], offset: &[f32], row: usize, head: &mut [u8]);
}

/// A half-precision scale a block and, if `OFFSETS`, an offset.
pub(crate) struct Halves<const OFFSETS: bool>;

impl<const OFFSETS: bool> Head for Halves<OFFSETS> {
    type Wide = Self;

    const BLOCKS: usize = 1;
    const BYTES: usize = 2 * ROWS * if OFFSETS { 2 } else { 1 };
    const OFFSETS: bool = OFFSETS;

    #[inline(always)]
    unsafe fn scale<S: Simd>(head: *const u8, _group: usize, first_row: usize) -> S::F32 {
        // SAFETY: the scales come first.
        unsafe { S::load_f16(head.add(2 * first_row)) }
    }

    #[inline(always)]
    unsafe fn offset<S: Simd>(head: *const u8, _group: usize, first_row: usize) -> S::F32 {
        // SAFETY: the offsets follow the scales.
        unsafe { S::load_f16(head.add(2 * ROWS + 2 * first_row)) }
    }

    fn put(_stored: &[u8], scale: &[f32], offset: &[f32], row: usize, head: &mut [u8]) {
        // Both come from half precision, so this is exact.
        head[2 * row..][..2].copy_from_slice(&half::f16::from_f32(scale[0]).to_le_bytes());
        if OFFSETS {
            head[2 * (ROWS + row)..][..2].copy_from_slice(&half::f16::from_f32(offset[0]).to_le_bytes());
        }
    }
}

/// Two single-precision scales a block and, if `OFFSETS`, two offsets: for formats that are not worth a layout of their
/// own, and for what many columns read.
pub(crate) struct Singles<const OFFSETS: bool>;

impl<const OFFSETS: bool> Head for Singles<OFFSETS> {
    type Wide = Self;

    const BLOCKS: usize = 1;
    const BYTES: usize = 2 * 4 * ROWS * if OFFSETS { 2 } else { 1 };
    const OFFSETS: bool = OFFSETS;

    #[inline(always)]
    unsafe fn scale<S: Simd>(head: *const u8, group: usize, first_row: usize) -> S::F32 {
        // SAFETY: one group's scales, then the other's.
        unsafe { S::load(head.add(4 * (group * ROWS + first_row)).cast()) }
    }

    #[inline(always)]
    unsafe fn offset<S: Simd>(head: *const u8, group: usize, first_row: usize) -> S::F32 {
        // SAFETY: the offsets follow both groups' scales.
        unsafe { S::load(head.add(4 * ((2 + group) * ROWS + first_row)).cast()) }
    }

    fn put(_stored: &[u8], scale: &[f32], offset: &[f32], row: usize, head: &mut [u8]) {
        let rows = head.as_chunks_mut::<4>().0.iter_mut().skip(row).step_by(ROWS);
        for (out, value) in rows.zip(scale.iter().chain(offset)) {
            *out = value.to_le_bytes();
        }
    }
}

/// Q4_K's and Q5_K's: of 256 inputs an f16 scale of the scales, one of the minimums, and the format's 12 bytes of
/// six-bit scales and minimums, byte 0 of all rows first.
pub(crate) struct SixBits;

impl SixBits {
    /// The six-bit numbers of group `group`: scales, or minimums with `kind` 1.
    #[inline(always)]
    unsafe fn six<S: Simd>(head: *const u8, group: usize, kind: usize, first_row: usize) -> S::F32 {
        // Bytes 0…11 of all rows follow the two f16 of all rows.
        let byte = |i: usize| {
            let mut lanes = [0u8; ROWS];
            // SAFETY: inside of the head, and no more than the lanes.
            unsafe {
                let from = head.add((4 + i) * ROWS + first_row);
                std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), S::LANES);
            }
            lanes
        };
        let six = if group < 4 {
            byte(4 * kind + group).map(|lane| lane & 63)
        } else {
            let (lower, upper) = (byte(4 + group), byte(4 * kind + group - 4));
            std::array::from_fn(|i| lower[i] >> (4 * kind) & 15 | upper[i] >> 6 << 4)
        };
        // SAFETY: sixteen bytes.
        unsafe { S::load_i8(six.as_ptr()) }
    }
}

impl Head for SixBits {
    type Wide = Singles<true>;

    const BLOCKS: usize = 8;
    const BYTES: usize = 16 * ROWS;
    const OFFSETS: bool = true;

    #[inline(always)]
    unsafe fn scale<S: Simd>(head: *const u8, group: usize, first_row: usize) -> S::F32 {
        // SAFETY: the f16 of the scales come first. Their products are exact: 11 bits times 6.
        unsafe { S::mul(S::load_f16(head.add(2 * first_row)), Self::six::<S>(head, group, 0, first_row)) }
    }

    #[inline(always)]
    unsafe fn offset<S: Simd>(head: *const u8, group: usize, first_row: usize) -> S::F32 {
        // SAFETY: then those of the minimums, stored negated.
        unsafe { S::mul(S::load_f16(head.add(2 * (ROWS + first_row))), Self::six::<S>(head, group, 1, first_row)) }
    }

    fn put(stored: &[u8], _scale: &[f32], _offset: &[f32], row: usize, head: &mut [u8]) {
        head[2 * row..][..2].copy_from_slice(&stored[..2]);
        // A minimum is subtracted: its scale changes sign.
        head[2 * (ROWS + row)..][..2].copy_from_slice(&[stored[2], stored[3] ^ 0x80]);
        for (i, byte) in stored[4..16].iter().enumerate() {
            head[(4 + i) * ROWS + row] = *byte;
        }
    }
}

/// Q6_K's: of 256 inputs an f16 scale of the scales, and 16 signed bytes of scales.
pub(crate) struct EightBits;

impl Head for EightBits {
    type Wide = Singles<false>;

    const BLOCKS: usize = 8;
    const BYTES: usize = 18 * ROWS;
    const OFFSETS: bool = false;

    #[inline(always)]
    unsafe fn scale<S: Simd>(head: *const u8, group: usize, first_row: usize) -> S::F32 {
        // SAFETY: the f16 of all rows, then byte 0 of all rows, and so on.
        unsafe { S::mul(S::load_f16(head.add(2 * first_row)), S::load_i8(head.add((2 + group) * ROWS + first_row))) }
    }

    #[inline(always)]
    unsafe fn offset<S: Simd>(_head: *const u8, _group: usize, _first_row: usize) -> S::F32 {
        // SAFETY: reads nothing.
        unsafe { S::splat(0.0) }
    }

    fn put(stored: &[u8], _scale: &[f32], _offset: &[f32], row: usize, head: &mut [u8]) {
        let (scales, d) = stored[192..210].split_at(16);
        head[2 * row..][..2].copy_from_slice(d);
        for (i, byte) in scales.iter().enumerate() {
            head[(2 + i) * ROWS + row] = *byte;
        }
    }
}

/// A [`Packing`] by its numbers.
pub(crate) struct Packed<const BITS: u32, const SHIFT: u32, const HALVES: bool, H>(PhantomData<H>);

impl<const BITS: u32, const SHIFT: u32, const HALVES: bool, H: Head> Packing for Packed<BITS, SHIFT, HALVES, H> {
    const BITS: u32 = BITS;
    const SHIFT: u32 = SHIFT;
    const HALVES: bool = HALVES;
    type Head = H;
}

/// Evaluates an expression with `$P` as the packing of a [`Kind`]: the one place where formats get their layouts.
macro_rules! with_packing {
    ($kind:expr, $P:ident => $body:expr) => {{
        use crate::packing::{EightBits, Halves, Packed, Singles, SixBits};
        with_packing! { @arms $kind, $P => $body,
            Q4_0 => Packed<4, 3, false, Halves<false>>;
            Q4_1 => Packed<4, 0, false, Halves<true>>;
            Q5_0 => Packed<5, 4, false, Halves<false>>;
            Q5_1 => Packed<5, 0, false, Halves<true>>;
            Q8_0 => Packed<8, 0, false, Halves<false>>;
            Q2_K => Packed<4, 0, true, Singles<true>>;
            Q3_K => Packed<4, 3, true, Singles<false>>;
            Q4_K => Packed<4, 0, false, SixBits>;
            Q5_K => Packed<5, 0, false, SixBits>;
            Q6_K => Packed<6, 5, true, EightBits>;
        }
    }};
    (@arms $kind:expr, $P:ident => $body:expr, $($name:ident => $packing:ty;)*) => {
        match $kind {
            $(tensor::quant::Kind::$name => {
                type $P = $packing;
                $body
            })*
        }
    };
}

pub(crate) use with_packing;

/// Bytes of a row group of `n_in` inputs; `None` if that overflows.
pub(crate) fn group_bytes(kind: Kind, n_in: usize) -> Option<usize> {
    with_packing!(kind, P => P::bytes(n_in))
}

/// Writes one row, as the file stores it, as row `row` of a zeroed row group.
pub(crate) fn put_row(kind: Kind, stored: &[u8], row: usize, group: &mut [u8]) {
    with_packing!(kind, P => put::<P>(kind, stored, row, group));
}

fn put<P: Packing>(kind: Kind, stored: &[u8], row: usize, group: &mut [u8]) {
    /// Inputs of the longest unit.
    const MOST: usize = 256;
    // A unit covers whole blocks of the file, or the other way round.
    let (span, groups) = (P::Head::BLOCKS * BLOCK, P::Head::BLOCKS * P::GROUPS);
    let most = span.max(kind.len());
    let mut q = [0i8; MOST];
    let (mut scale, mut offset) = ([0.0f32; MOST / 16], [0.0f32; MOST / 16]);
    let units = group.chunks_exact_mut(most / span * P::UNIT);
    for (stored, units) in stored.chunks_exact(most / kind.len() * kind.bytes()).zip(units) {
        let n_groups = most / span * groups;
        kind.integers(stored, &mut q[..most], &mut scale[..n_groups], &mut offset[..n_groups]);
        let parts = q.chunks_exact(span).zip(scale.chunks_exact(groups)).zip(offset.chunks_exact(groups));
        for (unit, ((q, scale), offset)) in units.chunks_exact_mut(P::UNIT).zip(parts) {
            let (bodies, head) = unit.split_at_mut(P::BODIES);
            for (q, body) in q.as_chunks::<BLOCK>().0.iter().zip(bodies.chunks_exact_mut(P::BODY)) {
                P::put(q, row, body);
            }
            P::Head::put(stored, scale, offset, row, head);
        }
    }
}
