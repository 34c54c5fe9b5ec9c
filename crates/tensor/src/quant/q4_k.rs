//! Q4_K: an f16 scale of the scales, an f16 scale of the minimums, six-bit scales and minimums of 8 groups in 12 bytes,
//! 128 bytes of nibbles: of each 32 bytes the low nibbles are one group, the high nibbles the next.

use super::Block;
use super::fit::Levels;
use super::nested::Affine;
use super::packing::{pack_nibbles, pack_six_bit_parameters, six_bit_parameters, unpack_nibbles};

pub(super) struct Q4K;

const LEVELS: Levels = Levels { low: 0.0, high: 15.0 };

impl Block for Q4K {
    const NAME: &'static str = "Q4_K";
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const OFFSETS: bool = true;

    fn encode(values: &[f32], block: &mut [u8]) {
        let fit = Affine::fit(values, Self::GROUP, LEVELS, 63);
        pack_six_bit_parameters(&fit, &mut block[..16]);
        for (codes, bytes) in fit.codes.chunks_exact(64).zip(block[16..].chunks_exact_mut(32)) {
            pack_nibbles(codes, bytes);
        }
    }

    #[inline]
    fn integers(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        six_bit_parameters(&block[..16], scale, offset);
        for (bytes, q) in block[16..].chunks_exact(32).zip(q.chunks_exact_mut(64)) {
            unpack_nibbles(bytes, q);
        }
    }
}
