//! How keys and values are stored.

use crate::quant::{ACTIVATION_LEN, quantise_block};

/// How keys and values are stored. Storing rounds; attention computes in f32 with what was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvFormat {
    /// As they are.
    F32,
    /// Half precision.
    #[default]
    F16,
    /// Signed bytes, with one f32 scale for at most [`ACTIVATION_LEN`] components of a head.
    Q8,
}

impl KvFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8];

    /// Bytes of one position's keys, or values, of one head with `head_len` components.
    pub fn bytes(self, head_len: usize) -> usize {
        match self {
            Self::F32 => 4 * head_len,
            Self::F16 => 2 * head_len,
            Self::Q8 => head_len + 4 * head_len.div_ceil(ACTIVATION_LEN),
        }
    }

    /// Rounds one head's keys, or values, of one position to what is stored.
    pub fn round(self, head: &mut [f32]) {
        match self {
            Self::F32 => {}
            Self::F16 => head.iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32()),
            Self::Q8 => {
                for block in head.chunks_mut(ACTIVATION_LEN) {
                    let (scale, q) = quantise_head(block);
                    for (x, q) in block.iter_mut().zip(q) {
                        *x = scale * f32::from(q);
                    }
                }
            }
        }
    }
}

/// At most [`ACTIVATION_LEN`] components of a head in [`KvFormat::Q8`]: their scale and integers. See
/// [`Activation`](crate::quant::Activation) for the rounding.
pub fn quantise_head(block: &[f32]) -> (f32, [i8; ACTIVATION_LEN]) {
    let (mut x, mut q) = ([0.0; ACTIVATION_LEN], [0; ACTIVATION_LEN]);
    x[..block.len()].copy_from_slice(block);
    (quantise_block(&x, &mut q).0, q)
}
