//! Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles; bit g of byte i is that of value i of group g.

use super::Block;
use super::fit::Levels;
use super::nested::Affine;
use super::packing::{pack_nibbles, pack_six_bit_parameters, six_bit_parameters, unpack_nibbles};

pub(super) struct Q5K;

const LEVELS: Levels = Levels { low: 0.0, high: 31.0 };

impl Block for Q5K {
    const NAME: &'static str = "Q5_K";
    const LEN: usize = 256;
    const BYTES: usize = 176;
    const GROUP: usize = 32;
    const OFFSETS: bool = true;

    fn encode(values: &[f32], block: &mut [u8]) {
        let fit = Affine::fit(values, Self::GROUP, LEVELS, 63);
        pack_six_bit_parameters(&fit, &mut block[..16]);
        block[16..48].fill(0);
        for (group, codes) in fit.codes.chunks_exact(32).enumerate() {
            for (byte, code) in block[16..48].iter_mut().zip(codes) {
                *byte |= (code >> 4) << group;
            }
        }
        for (codes, bytes) in fit.codes.chunks_exact(64).zip(block[48..].chunks_exact_mut(32)) {
            pack_nibbles(codes, bytes);
        }
    }

    #[inline]
    fn integers(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        six_bit_parameters(&block[..16], scale, offset);
        for (bytes, q) in block[48..].chunks_exact(32).zip(q.chunks_exact_mut(64)) {
            unpack_nibbles(bytes, q);
        }
        for (group, q) in q.chunks_exact_mut(32).enumerate() {
            for (q, byte) in q.iter_mut().zip(&block[16..48]) {
                *q += ((byte >> group & 1) << 4).cast_signed();
            }
        }
    }
}
