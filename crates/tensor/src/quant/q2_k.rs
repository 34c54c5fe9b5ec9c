//! Q2_K: 16 bytes of group parameters (scale in the low nibble, minimum in the high one), 64 bytes of two-bit numbers,
//! an f16 scale of the scales and an f16 scale of the minimums.

use super::fit::Levels;
use super::nested::Affine;
use super::packing::{pack_pairs, unpack_pairs};
use super::{Block, f16_at, put_f16};

pub(super) struct Q2K;

const LEVELS: Levels = Levels { low: 0.0, high: 3.0 };

impl Block for Q2K {
    const NAME: &'static str = "Q2_K";
    const LEN: usize = 256;
    const BYTES: usize = 84;
    const GROUP: usize = 16;
    const OFFSETS: bool = true;

    fn encode(values: &[f32], block: &mut [u8]) {
        let fit = Affine::fit(values, Self::GROUP, LEVELS, 15);
        for ((byte, scale), minimum) in block.iter_mut().zip(fit.scales).zip(fit.minimums) {
            *byte = scale | minimum << 4;
        }
        pack_pairs(&fit.codes, &mut block[16..80]);
        put_f16(block, 80, fit.d);
        put_f16(block, 82, fit.d_min);
    }

    #[inline]
    fn integers(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        let (d, d_min) = (f16_at(block, 80), f16_at(block, 82));
        for ((scale, offset), byte) in scale.iter_mut().zip(offset).zip(&block[..16]) {
            *scale = d * f32::from(byte & 15);
            *offset = -(d_min * f32::from(byte >> 4));
        }
        unpack_pairs(&block[16..80], q);
    }
}
