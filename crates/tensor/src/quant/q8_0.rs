//! Q8_0: an f16 scale, then 32 signed bytes.

use super::fit::{Levels, peak, scale_to_f16};
use super::{Block, f16_at, put_f16};

pub(super) struct Q8_0;

const LEVELS: Levels = Levels { low: -127.0, high: 127.0 };

impl Block for Q8_0 {
    const NAME: &'static str = "Q8_0";
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const GROUP: usize = 32;
    const OFFSETS: bool = false;

    fn encode(values: &[f32], block: &mut [u8]) {
        let scale = scale_to_f16(peak(values).abs() / 127.0);
        put_f16(block, 0, scale);
        LEVELS.codes(values, scale, 0.0, &mut block[2..]);
        for byte in &mut block[2..] {
            *byte = byte.wrapping_sub(127);
        }
    }

    #[inline]
    fn integers(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        scale[0] = f16_at(block, 0);
        offset[0] = 0.0;
        for (q, byte) in q.iter_mut().zip(&block[2..]) {
            *q = byte.cast_signed();
        }
    }
}
