//! The formats that a weight's bytes can be in.

use crate::quant;

/// How the numbers of a weight are stored, one row after another, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)] // the names that GGUF files and their users write
pub enum Format {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// A quantised block format of [`quant`].
    Block(quant::Kind),
}

impl Format {
    /// The name that files and users write.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Block(kind) => kind.name(),
        }
    }

    /// Values in the smallest addressable unit: 1, or the length of a block.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Block(kind) => kind.len(),
        }
    }

    /// Bytes in the smallest addressable unit.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Block(kind) => kind.bytes(),
        }
    }

    /// Bytes of a row of `len` values; `None` where `len` is no whole number of blocks or the product overflows.
    pub fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The format called `name`, in whatever case.
    pub fn named(name: &str) -> Option<Self> {
        let plain = [Self::F32, Self::F16, Self::BF16];
        let all = plain.into_iter().chain(quant::Kind::ALL.iter().map(|kind| Self::Block(*kind)));
        all.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Encodes `values` into `bytes`: rounded to the nearest, ties to even, or as [`quant::Kind::encode`] does.
    ///
    /// # Panics
    /// If `bytes` are not exactly the bytes of `values.len()` values.
    pub fn encode(self, values: &[f32], bytes: &mut [u8]) {
        assert_eq!(self.row_bytes(values.len()), Some(bytes.len()), "{} row", self.name());
        match self {
            Self::F32 => {
                for (raw, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *raw = value.to_le_bytes();
                }
            }
            Self::F16 => {
                for (raw, value) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                    *raw = half::f16::from_f32(*value).to_le_bytes();
                }
            }
            Self::BF16 => {
                for (raw, value) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                    *raw = half::bf16::from_f32(*value).to_le_bytes();
                }
            }
            Self::Block(kind) => kind.encode(values, bytes),
        }
    }

    /// Decodes `bytes` into `out`.
    ///
    /// # Panics
    /// If `bytes` are not exactly the bytes of `out.len()` values: sizes are checked where a
    /// [`WeightSource`](crate::WeightSource) is made.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(self.row_bytes(out.len()), Some(bytes.len()), "{} row", self.name());
        match self {
            Self::F32 => {
                for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*raw);
                }
            }
            Self::F16 => {
                for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = half::f16::from_le_bytes(*raw).to_f32();
                }
            }
            Self::BF16 => {
                for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = half::bf16::from_le_bytes(*raw).to_f32();
                }
            }
            Self::Block(kind) => kind.decode(bytes, out),
        }
    }
}

/// Which axis of a stored matrix runs along its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Orientation {
    /// A stored row holds one output's weights over all inputs: `[out, in]`, the usual linear layer.
    OutIn,
    /// A stored row holds one input's weights to all outputs: `[in, out]`, as Hugging Face stores Llama 4's experts.
    /// Unquantised formats only.
    InOut,
    /// [`Packed`](crate::packed) row groups: several outputs side by side, as kernels read them.
    Packed,
}
