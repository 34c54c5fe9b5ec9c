//! Q6_K: 128 bytes with the lower four bits, 64 with the upper two, 16 signed bytes of group scales, an f16 scale of the
//! scales. 32 is subtracted from each six-bit number.

use super::fit::Levels;
use super::nested::Scaled;
use super::packing::{pack_nibbles, pack_pairs, unpack_nibbles, unpack_pairs};
use super::{Block, f16_at, put_f16};

pub(super) struct Q6K;

const LEVELS: Levels = Levels { low: -32.0, high: 31.0 };

impl Block for Q6K {
    const NAME: &'static str = "Q6_K";
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const OFFSETS: bool = false;

    fn encode(values: &[f32], block: &mut [u8]) {
        let fit = Scaled::fit(values, Self::GROUP, LEVELS, [-128, 127]);
        for (codes, bytes) in fit.codes.chunks_exact(128).zip(block[..128].chunks_exact_mut(64)) {
            pack_nibbles(codes, bytes);
        }
        let upper = fit.codes.map(|code| code >> 4);
        pack_pairs(&upper, &mut block[128..192]);
        for (byte, scale) in block[192..208].iter_mut().zip(fit.scales) {
            *byte = scale.cast_unsigned();
        }
        put_f16(block, 208, fit.d);
    }

    #[inline]
    fn integers(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
        let d = f16_at(block, 208);
        for (scale, byte) in scale.iter_mut().zip(&block[192..208]) {
            *scale = d * f32::from(byte.cast_signed());
        }
        offset.fill(0.0);
        let mut upper = [0i8; 256];
        unpack_pairs(&block[128..192], &mut upper);
        for (bytes, q) in block[..128].chunks_exact(64).zip(q.chunks_exact_mut(128)) {
            unpack_nibbles(bytes, q);
        }
        for (q, upper) in q.iter_mut().zip(upper) {
            *q = (*q | upper << 4) - 32;
        }
    }
}
