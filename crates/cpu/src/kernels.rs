//! What every instruction set implements, and the layouts that its kernels read.

use tensor::{Pairing, RowKeys};

use crate::attention::Pages;
use crate::column::Column;

/// Output rows that lie side by side in packed weights.
pub(crate) const ROWS: usize = 16;

/// One value for each of [`ROWS`] output rows.
pub(crate) type Lanes = [f32; ROWS];

/// Activation rows that a kernel takes at once, so that a weight is decoded once for all of them.
pub(crate) const TILE: usize = 4;

/// Unquantised weights: for each input, one little-endian number for each of [`ROWS`] output rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dense {
    F32,
    F16,
    BF16,
}

impl Dense {
    /// Bytes of one number.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

/// Quantised weights of [`ROWS`] output rows: group after group along the input, each group as [`ROWS`] scales, then
/// [`ROWS`] offsets if the format has them, then the integers.
///
/// Integers lie in pieces of [`ROWS`] × 4 values: row 0's next four, row 1's next four, and so on. A
/// [`Nibbles`](Integers::Nibbles) piece holds two such pieces, the second one in the high nibbles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantised {
    /// How integers are stored.
    pub(crate) integers: Integers,
    /// How scales and offsets are stored.
    pub(crate) scales: Scales,
    /// Whether groups have offsets.
    pub(crate) offsets: bool,
    /// Values in a group: 16 or 32.
    pub(crate) group: usize,
}

/// How integers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Integers {
    /// Unsigned four bits; the integer is the nibble plus `bias`.
    Nibbles {
        /// What to add to the stored nibble.
        bias: i32,
    },
    /// Signed bytes.
    Bytes,
}

/// How scales and offsets are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scales {
    /// In half precision, where that is exact for all of them.
    F16,
    /// In single precision.
    F32,
}

impl Scales {
    /// Bytes of one number.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

impl Quantised {
    /// Bytes of a group's scales and offsets.
    pub(crate) fn head_bytes(&self) -> usize {
        ROWS * self.scales.bytes() * (1 + usize::from(self.offsets))
    }

    /// Bytes of a group.
    pub(crate) fn group_bytes(&self) -> usize {
        let integers = match self.integers {
            Integers::Nibbles { .. } => ROWS * self.group / 2,
            Integers::Bytes => ROWS * self.group,
        };
        self.head_bytes() + integers
    }

    /// Panics unless `weights` and every column are whole and of one length. Kernels rest their memory safety on this.
    pub(crate) fn check(&self, weights: &[u8], x: &[Column], acc: &[Lanes]) {
        let n_groups = weights.len() / self.group_bytes();
        assert_eq!(n_groups * self.group_bytes(), weights.len(), "packed weights");
        assert!(matches!(self.group, 16 | 32), "groups of {}", self.group);
        assert_eq!(x.len(), acc.len(), "columns");
        let len = n_groups * self.group;
        for column in x {
            let view = column.view(self.group);
            let lens = (view.q.len(), view.scale.len() * 32, view.sums.len(), view.scaled_sums.len());
            assert_eq!(lens, (len, len, n_groups, n_groups), "column");
        }
    }
}

/// One row's query heads that read the same key head, and what they see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadGroup<'a> {
    pub(crate) pages: &'a Pages,
    /// The key head.
    pub(crate) head: usize,
    pub(crate) row: &'a RowKeys<'a>,
}

/// The kernels of one instruction set. All sets give the same bits.
pub(crate) trait Kernels: Send + Sync {
    /// Quantises `row` into `column`, which has its size.
    fn quantise(&self, row: &[f32], column: &mut Column);

    /// The dot products of one row group of unquantised weights with every row of `x`, one row for each of `acc`.
    fn dot_dense(&self, format: Dense, weights: &[u8], x: &[f32], acc: &mut [Lanes]);

    /// The same for quantised weights and columns.
    fn dot_quantised(&self, layout: Quantised, weights: &[u8], x: &[Column], acc: &mut [Lanes]);

    /// [`tensor::math::rms_norm`] on each `width`-long part of `x`.
    fn rms_norm(&self, x: &[f32], gain: Option<&[f32]>, width: usize, eps: f32, out: &mut [f32]);

    /// [`tensor::math::layer_norm`].
    fn layer_norm(&self, x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);

    /// [`tensor::math::rotate`] on each head of a row.
    fn rope(&self, pairing: Pairing, row: &mut [f32], cos: &[f32], sin: &[f32]);

    /// `silu(gate) · up` of one row, gate in the first half.
    fn swiglu(&self, gate_up: &[f32], out: &mut [f32]);

    /// [`tensor::math::gelu`] of each value.
    fn gelu(&self, x: &[f32], out: &mut [f32]);

    /// Attention of `q`, a few heads, into `out`, which is zero.
    fn attend(&self, q: &[f32], group: HeadGroup<'_>, out: &mut [f32]);
}

/// Writes the methods of [`Kernels`] that are [`shared`](crate::shared) code, compiled under the given attributes.
macro_rules! shared_kernels {
    ($(#[$attribute:meta])*) => {
        shared_kernels! { @methods [$(#[$attribute])*]
            fn quantise(row: &[f32], column: &mut Column);
            fn rms_norm(x: &[f32], gain: Option<&[f32]>, width: usize, eps: f32, out: &mut [f32]);
            fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);
            fn rope(pairing: Pairing, row: &mut [f32], cos: &[f32], sin: &[f32]);
            fn swiglu(gate_up: &[f32], out: &mut [f32]);
            fn gelu(x: &[f32], out: &mut [f32]);
            fn attend(q: &[f32], group: HeadGroup<'_>, out: &mut [f32]);
            fn dot_dense(format: Dense, weights: &[u8], x: &[f32], acc: &mut [Lanes]);
        }
    };
    (@methods $attributes:tt $(fn $name:ident($($arg:ident: $type:ty),*);)*) => {
        $(shared_kernels! { @method $attributes $name($($arg: $type),*) })*
    };
    (@method [$($attribute:tt)*] $name:ident($($arg:ident: $type:ty),*)) => {
        fn $name(&self, $($arg: $type),*) {
            $($attribute)*
            unsafe fn compiled($($arg: $type),*) {
                crate::shared::$name($($arg),*);
            }
            // SAFETY: the attributes at most switch instructions on, and `self` exists only where they were detected.
            unsafe { compiled($($arg),*) }
        }
    };
}

pub(crate) use shared_kernels;
