//! Q4_1: an f16 scale, an f16 minimum, then 16 bytes; byte i holds value i in its low and value i + 16 in its high
//! nibble.

use super::fit::Levels;
use super::packing::{pack_nibbles, unpack_nibbles};
use super::{Block, f16_at, put_f16};

pub(super) struct Q4_1;

const LEVELS: Levels = Levels { low: 0.0, high: 15.0 };

impl Block for Q4_1 {
    const NAME: &'static str = "Q4_1";
    const LEN: usize = 32;
    const BYTES: usize = 20;
    const GROUP: usize = 32;
    const OFFSETS: bool = true;

    fn encode(values: &[f32], block: &mut [u8]) {
        let (scale, offset) = LEVELS.fit_f16_affine(values);
        put_f16(block, 0, scale);
        put_f16(block, 2, offset);
        let mut codes = [0; 32];
        LEVELS.codes(values, scale, offset, &mut codes);
        pack_nibbles(&codes, &mut block[4..]);
    }

    #[inline]
    fn integers(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        scale[0] = f16_at(block, 0);
        offset[0] = f16_at(block, 2);
        unpack_nibbles(&block[4..], q);
    }
}
