//! Quantised block formats, one file each, and the integer form that they share.
//!
//! Every format is, group by group, `value = scale · q + offset` with a small integer `q`. That *integer form*
//! ([`Kind::integers`]) is what linear maps are computed from and what [`Kind::decode`] is defined by.

mod activation;
mod fit;
mod nested;
mod packing;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

pub use activation::{ACTIVATION_LEN, Activation, quantise_block};

/// Groups in the longest block: 256 values in groups of 16.
const MAX_GROUPS: usize = 16;

/// Values in the longest block.
const MAX_LEN: usize = 256;

/// One block format: what a file in this folder implements.
trait Block {
    /// The name in GGUF files.
    const NAME: &'static str;
    /// Values in a block.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Values that share a scale and an offset: 16 or 32.
    const GROUP: usize;
    /// Whether groups have an offset.
    const OFFSETS: bool;
    /// Quantises `values`, `LEN` long and finite, into `block`, `BYTES` long. All scales written are finite.
    fn encode(values: &[f32], block: &mut [u8]);
    /// Writes the integers of `block` to `q`, `LEN` long, and each group's scale and offset.
    fn integers(block: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]);
}

/// Writes [`Kind`] and its methods from one line a format.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $format:ty;)*) => {
        /// A quantised block format.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types)] // the names that GGUF files and their users write
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every format.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The name in GGUF files.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => <$format>::NAME,)* }
            }

            /// Values in a block.
            #[allow(clippy::len_without_is_empty)] // a block is never empty
            pub fn len(self) -> usize {
                match self { $(Self::$kind => <$format>::LEN,)* }
            }

            /// Bytes of a block.
            pub fn bytes(self) -> usize {
                match self { $(Self::$kind => <$format>::BYTES,)* }
            }

            /// Values that share a scale and an offset: 16 or 32.
            pub fn group(self) -> usize {
                match self { $(Self::$kind => <$format>::GROUP,)* }
            }

            /// Whether groups have an offset; without one, [`integers`](Self::integers) writes zeros.
            pub fn has_offsets(self) -> bool {
                match self { $(Self::$kind => <$format>::OFFSETS,)* }
            }

            /// Quantises `values`, a whole number of blocks, into `bytes`.
            ///
            /// Finite values beyond what the format can hold become the largest that it can. A block that holds a NaN
            /// or an infinity decodes to NaN throughout, so that a broken weight stays visibly broken.
            ///
            /// # Panics
            /// If the lengths do not fit: shapes are checked where a row is made.
            pub fn encode(self, values: &[f32], bytes: &mut [u8]) {
                match self { $(Self::$kind => encode::<$format>(values, bytes),)* }
            }

            /// The integer form of a row: `q` is as long as the row, `scale` and `offset` have one entry a group.
            ///
            /// # Panics
            /// If the lengths do not fit.
            pub fn integers(self, bytes: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
                match self { $(Self::$kind => integers::<$format>(bytes, q, scale, offset),)* }
            }

            /// Decodes a row: `scale · q + offset`, each operation rounded.
            ///
            /// # Panics
            /// If the lengths do not fit.
            pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
                match self { $(Self::$kind => decode::<$format>(bytes, out),)* }
            }
        }
    };
}

kinds! {
    /// 4-bit integers in blocks of 32 with one f16 scale.
    Q4_0 => q4_0::Q4_0;
    /// 4-bit integers in blocks of 32 with an f16 scale and an f16 minimum.
    Q4_1 => q4_1::Q4_1;
    /// 5-bit integers in blocks of 32 with one f16 scale.
    Q5_0 => q5_0::Q5_0;
    /// 5-bit integers in blocks of 32 with an f16 scale and an f16 minimum.
    Q5_1 => q5_1::Q5_1;
    /// 8-bit integers in blocks of 32 with one f16 scale.
    Q8_0 => q8_0::Q8_0;
    /// 2-bit integers in blocks of 256, groups of 16 with 4-bit scales and minimums.
    Q2_K => q2_k::Q2K;
    /// 3-bit integers in blocks of 256, groups of 16 with 6-bit scales.
    Q3_K => q3_k::Q3K;
    /// 4-bit integers in blocks of 256, groups of 32 with 6-bit scales and minimums.
    Q4_K => q4_k::Q4K;
    /// 5-bit integers in blocks of 256, groups of 32 with 6-bit scales and minimums.
    Q5_K => q5_k::Q5K;
    /// 6-bit integers in blocks of 256, groups of 16 with 8-bit scales.
    Q6_K => q6_k::Q6K;
}

fn encode<B: Block>(values: &[f32], bytes: &mut [u8]) {
    assert_eq!(values.len() % B::LEN, 0, "{} row of {}", B::NAME, values.len());
    assert_eq!(values.len() / B::LEN * B::BYTES, bytes.len(), "{} bytes", B::NAME);
    for (values, block) in values.chunks_exact(B::LEN).zip(bytes.chunks_exact_mut(B::BYTES)) {
        if values.iter().all(|v| v.is_finite()) {
            B::encode(values, block);
        } else {
            block.fill(0xff); // every f16 in it is a NaN
        }
    }
}

fn integers<B: Block>(bytes: &[u8], q: &mut [i8], scale: &mut [f32], offset: &mut [f32]) {
    let (n_blocks, n_groups) = (bytes.len() / B::BYTES, B::LEN / B::GROUP);
    assert_eq!(n_blocks * B::BYTES, bytes.len(), "{} bytes", B::NAME);
    assert_eq!(n_blocks * B::LEN, q.len(), "{} row of {}", B::NAME, q.len());
    assert_eq!((n_blocks * n_groups, scale.len()), (scale.len(), offset.len()), "{} groups", B::NAME);
    let groups = scale.chunks_exact_mut(n_groups).zip(offset.chunks_exact_mut(n_groups));
    let blocks = bytes.chunks_exact(B::BYTES).zip(q.chunks_exact_mut(B::LEN));
    for ((block, q), (scale, offset)) in blocks.zip(groups) {
        B::integers(block, q, scale, offset);
    }
}

fn decode<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let (mut q, mut scale, mut offset) = ([0i8; MAX_LEN], [0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
    let n_groups = B::LEN / B::GROUP;
    assert_eq!(out.len() % B::LEN, 0, "{} row of {}", B::NAME, out.len());
    assert_eq!(out.len() / B::LEN * B::BYTES, bytes.len(), "{} bytes", B::NAME);
    for (block, out) in bytes.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::LEN)) {
        B::integers(block, &mut q[..B::LEN], &mut scale[..n_groups], &mut offset[..n_groups]);
        for (i, out) in out.iter_mut().enumerate() {
            *out = scale[i / B::GROUP] * f32::from(q[i]) + offset[i / B::GROUP];
        }
    }
}

/// Reads the f16 at `at`.
fn f16_at(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Writes `value`, which is an f16's, at `at`.
fn put_f16(block: &mut [u8], at: usize, value: f32) {
    block[at..at + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
}
