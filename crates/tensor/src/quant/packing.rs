//! The ways in which several formats lay small integers into bytes.

use super::nested::Affine;
use super::{f16_at, put_f16};

/// The inverse of [`unpack_nibbles`], of the lower four bits of `codes`.
pub(super) fn pack_nibbles(codes: &[u8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(bytes.len());
    for ((low, high), byte) in low.iter().zip(high).zip(bytes) {
        *byte = low & 15 | high << 4;
    }
}

/// Nibbles in halves: the low nibbles of `bytes` are the first half of `q`, the high nibbles the second.
#[inline]
pub(super) fn unpack_nibbles(bytes: &[u8], q: &mut [i8]) {
    let (low, high) = q.split_at_mut(bytes.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = (byte & 15).cast_signed();
        *high = (byte >> 4).cast_signed();
    }
}

/// The inverse of [`add_fifth_bits`].
pub(super) fn pack_fifth_bits(codes: &[u8], bytes: &mut [u8]) {
    for (codes, byte) in codes.chunks_exact(8).zip(bytes) {
        *byte = codes.iter().rev().fold(0, |byte, code| byte << 1 | code >> 4);
    }
}

/// Adds bit i of the four `bytes`, as 16, to value i of `q`.
#[inline]
pub(super) fn add_fifth_bits(bytes: &[u8], q: &mut [i8]) {
    for (q, byte) in q.chunks_exact_mut(8).zip(bytes) {
        for (bit, q) in q.iter_mut().enumerate() {
            *q += ((byte >> bit & 1) << 4).cast_signed();
        }
    }
}

/// The inverse of [`unpack_pairs`], of the lower two bits of `codes`.
pub(super) fn pack_pairs(codes: &[u8], bytes: &mut [u8]) {
    for (codes, bytes) in codes.chunks_exact(128).zip(bytes.chunks_exact_mut(32)) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = [96, 64, 32, 0].iter().fold(0, |byte, quarter| byte << 2 | codes[quarter + i] & 3);
        }
    }
}

/// Two-bit numbers in quarters: of each 32 `bytes`, the lowest pairs of bits are the first 32 of 128 values, the next
/// pairs the next 32, and so on.
#[inline]
pub(super) fn unpack_pairs(bytes: &[u8], q: &mut [i8]) {
    for (bytes, q) in bytes.chunks_exact(32).zip(q.chunks_exact_mut(128)) {
        for (quarter, q) in q.chunks_exact_mut(32).enumerate() {
            for (q, byte) in q.iter_mut().zip(bytes) {
                *q = (byte >> (2 * quarter) & 3).cast_signed();
            }
        }
    }
}

/// The inverse of [`six_bit_parameters`].
pub(super) fn pack_six_bit_parameters(fit: &Affine, head: &mut [u8]) {
    put_f16(head, 0, fit.d);
    put_f16(head, 2, fit.d_min);
    for i in 0..4 {
        head[4 + i] = fit.scales[i] | fit.scales[i + 4] >> 4 << 6;
        head[8 + i] = fit.minimums[i] | fit.minimums[i + 4] >> 4 << 6;
        head[12 + i] = fit.scales[i + 4] & 15 | fit.minimums[i + 4] << 4;
    }
}

/// Scales and offsets of Q4_K's and Q5_K's 8 groups from the first 16 bytes of the block: an f16 for the scales, an
/// f16 for the minimums, 8 six-bit scales and 8 six-bit minimums.
///
/// Bytes 4…7 hold scales 0…3 in their lower six bits, bytes 8…11 minimums 0…3; bytes 12…15 hold the lower four bits of
/// scales (low nibble) and minimums (high nibble) 4…7, whose upper two bits are the upper two of bytes 4…11.
#[inline]
pub(super) fn six_bit_parameters(head: &[u8], scale: &mut [f32], offset: &mut [f32]) {
    let (d, d_min) = (f16_at(head, 0), f16_at(head, 2));
    for i in 0..4 {
        let (scales, minimums, lower) = (head[4 + i], head[8 + i], head[12 + i]);
        scale[i] = d * f32::from(scales & 63);
        scale[i + 4] = d * f32::from(lower & 15 | scales >> 6 << 4);
        offset[i] = -(d_min * f32::from(minimums & 63));
        offset[i + 4] = -(d_min * f32::from(lower >> 4 | minimums >> 6 << 4));
    }
}
