//! Q4_0: an f16 scale, then 16 bytes of nibbles in halves; 8 is subtracted from each nibble.

use super::fit::Levels;
use super::packing::{pack_nibbles, unpack_nibbles};
use super::{Block, f16_at, put_f16};

pub(super) struct Q4_0;

const LEVELS: Levels = Levels { low: -8.0, high: 7.0 };

impl Block for Q4_0 {
    const NAME: &'static str = "Q4_0";
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const OFFSETS: bool = false;

    fn encode(values: &[f32], block: &mut [u8]) {
        let scale = LEVELS.fit_f16_scale(values);
        put_f16(block, 0, scale);
        let mut codes = [0; 32];
        LEVELS.codes(values, scale, 0.0, &mut codes);
        pack_nibbles(&codes, &mut block[2..]);
    }

    #[inline]
    fn integers(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        scale[0] = f16_at(block, 0);
        offset[0] = 0.0;
        unpack_nibbles(&block[2..], q);
        for q in q {
            *q -= 8;
        }
    }
}
