//! Q3_K: 32 bytes with the third bits, 64 bytes with the lower two, 16 six-bit group scales in 12 bytes, an f16 scale of
//! the scales. 4 is subtracted from each three-bit number, 32 from each group scale.

use super::fit::Levels;
use super::nested::Scaled;
use super::packing::{pack_pairs, unpack_pairs};
use super::{Block, f16_at, put_f16};

pub(super) struct Q3K;

const LEVELS: Levels = Levels { low: -4.0, high: 3.0 };

impl Block for Q3K {
    const NAME: &'static str = "Q3_K";
    const LEN: usize = 256;
    const BYTES: usize = 110;
    const GROUP: usize = 16;
    const OFFSETS: bool = false;

    fn encode(values: &[f32], block: &mut [u8]) {
        let fit = Scaled::fit(values, Self::GROUP, LEVELS, [-32, 31]);
        block.fill(0);
        for (plane, codes) in fit.codes.chunks_exact(32).enumerate() {
            for (byte, code) in block.iter_mut().zip(codes) {
                *byte |= (code >> 2) << plane;
            }
        }
        pack_pairs(&fit.codes, &mut block[32..96]);
        for (group, scale) in fit.scales.iter().enumerate() {
            let scale = (scale + 32).cast_unsigned();
            block[96 + group % 8] |= (scale & 15) << (4 * (group / 8));
            block[104 + group % 4] |= (scale >> 4) << (2 * (group / 4));
        }
        put_f16(block, 108, fit.d);
    }

    #[inline]
    fn integers(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        let d = f16_at(block, 108);
        for (group, scale) in scale.iter_mut().enumerate() {
            let nibble = block[96 + group % 8] >> (4 * (group / 8)) & 15;
            let pair = block[104 + group % 4] >> (2 * (group / 4)) & 3;
            *scale = d * f32::from((nibble | pair << 4).cast_signed() - 32);
        }
        offset.fill(0.0);
        unpack_pairs(&block[32..96], q);
        for (plane, q) in q.chunks_exact_mut(32).enumerate() {
            for (q, byte) in q.iter_mut().zip(&block[..32]) {
                *q += ((byte >> plane & 1) << 2).cast_signed() - 4;
            }
        }
    }
}
