//! What every instruction set implements, and how kernels are compiled for it.

use std::ops::Range;

use tensor::Pairing;
use tensor::adjoint::math::{Heads, Piece};
use tensor::quant::Kind;

use crate::attention::Queries;
use crate::pairs::Operand;
use crate::panel::{Panel, TileMut};

/// Output rows that lie side by side in packed weights.
pub(crate) const ROWS: usize = 16;

/// One value for each of [`ROWS`] output rows.
pub(crate) type Lanes = [f32; ROWS];

/// Activation rows that lie side by side, so that a weight is taken apart once for all of them.
pub(crate) const TILE: usize = 8;

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

/// Row groups, one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowGroups<'a> {
    bytes: &'a [u8],
    group_bytes: usize,
    stride: usize,
    len: usize,
}

impl<'a> RowGroups<'a> {
    /// `len` groups of `group_bytes`, each `stride` after the one before.
    ///
    /// # Panics
    /// If they do not lie in `bytes`.
    pub(crate) fn new(bytes: &'a [u8], [group_bytes, stride, len]: [usize; 3]) -> Self {
        assert!(group_bytes <= stride && len * stride <= bytes.len(), "row groups");
        Self { bytes, group_bytes, stride, len }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of one.
    pub(crate) fn group_bytes(&self) -> usize {
        self.group_bytes
    }

    /// Bytes from one's beginning to the next one's.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Group `index`.
    #[inline(always)]
    pub(crate) fn group(&self, index: usize) -> &'a [u8] {
        &self.bytes[index * self.stride..][..self.group_bytes]
    }
}

/// The kernels of one instruction set. All sets give the same bits.
pub(crate) trait Kernels: Send + Sync {
    /// Quantises the rows of `x`, as many as the tile is wide, each scale times the row's factor.
    fn quantise(&self, x: &[&[f32]], factors: &[f32], tile: TileMut<'_>);

    /// Rows of a tile of [`dot_dense`](Self::dot_dense).
    fn dense_columns(&self) -> usize;

    /// Lays rows side by side; see [`dense::interleave`](crate::dense::interleave).
    fn interleave(&self, rows: &[(&[f32], f32)], width: usize, tile: &mut [f32]);

    /// The products of row groups with rows of `x`; see [`dense::dot_dense`](crate::dense::dot_dense).
    fn dot_dense(&self, format: Dense, weights: RowGroups<'_>, x: &[f32], out: &mut [Lanes]);

    /// The same for pairs of bfloat16 from [`pack_pairs`](Self::pack_pairs); see [`pairs`](crate::pairs).
    fn dot_pairs(&self, weights: RowGroups<'_>, x: &[u32], out: &mut [Lanes]) {
        self.dot_pairs_in_lanes(weights, x, out);
    }

    /// Rows in pairs of bfloat16, in this set's own order; see [`pairs::pack`](crate::pairs::pack).
    fn pack_pairs(&self, operand: &Operand<'_>, out: &mut [u32]) {
        self.pack_in_order(operand, out);
    }

    /// [`dot_pairs`](Self::dot_pairs) as every set can do it, of pairs in their first order.
    fn dot_pairs_in_lanes(&self, weights: RowGroups<'_>, x: &[u32], out: &mut [Lanes]);

    /// [`pack_pairs`](Self::pack_pairs) as every set can do it.
    fn pack_in_order(&self, operand: &Operand<'_>, out: &mut [u32]);

    /// The same for quantised weights and rows; see [`quantised::dot_quantised`](crate::quantised::dot_quantised).
    fn dot_quantised(&self, kind: Kind, weights: RowGroups<'_>, x: (&Panel, Range<usize>), out: &mut [Lanes]);

    /// [`tensor::math::rms_norm`] on each `width`-long part of `x`.
    fn rms_norm(&self, x: &[f32], gain: Option<&[f32]>, width: usize, eps: f32, out: &mut [f32]);

    /// [`tensor::math::layer_norm`].
    fn layer_norm(&self, x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);

    /// [`tensor::math::rotate`] on each head of a row.
    fn rope(&self, pairing: Pairing, row: &mut [f32], cos: &[f32], sin: &[f32]);

    /// `silu(gate) · up`.
    fn swiglu(&self, gate: &[f32], up: &[f32], out: &mut [f32]);

    /// [`tensor::math::gelu`] of each value.
    fn gelu(&self, x: &[f32], out: &mut [f32]);

    /// Reads `bytes`; see [`roofs`](crate::roofs).
    fn read(&self, bytes: &[u8]);

    /// Multiplies eight-bit integers; returns the operations.
    fn multiply_int8(&self) -> usize;

    /// Multiplies f32; returns the operations.
    fn multiply_f32(&self) -> usize;

    /// Attention of a few query heads; see [`attention`](crate::attention).
    fn attend_queries(&self, queries: Queries<'_, '_>);

    /// [`tensor::adjoint::math::rms_norm`] on each `width`-long part of a row.
    fn rms_norm_adjoint(&self, x: &[f32], gain: Option<&[f32]>, shape: (usize, f32), dy: &[f32], out: [&mut [f32]; 2]);

    /// [`tensor::adjoint::math::layer_norm`].
    fn layer_norm_adjoint(&self, x: &[f32], gain: &[f32], eps: f32, dy: &[f32], out: [&mut [f32]; 2]);

    /// [`tensor::adjoint::math::swiglu`].
    fn swiglu_adjoint(&self, x: [&[f32]; 2], dy: &[f32], out: [&mut [f32]; 2]);

    /// [`tensor::adjoint::math::gelu`].
    fn gelu_adjoint(&self, x: &[f32], dy: &[f32], out: &mut [f32]);

    /// [`tensor::adjoint::math::add_columns`].
    fn add_columns(&self, rows: &[f32], shape: [usize; 2], scratch: &mut [f32], out: &mut [f32]);

    /// [`tensor::adjoint::math::dot`].
    fn dot(&self, a: &[f32], b: &[f32]) -> f32;

    /// [`tensor::adjoint::math::attention`].
    fn attention_adjoint(&self, x: &Heads<'_>, piece: &Piece, head: usize, out: &mut [f32]);

    /// [`tensor::adjoint::math::cross_entropy`].
    fn cross_entropy(&self, row: &mut [f32], target: usize, weight: f32) -> f64;

    /// [`tensor::adjoint::math::divergence`].
    fn divergence(&self, row: &mut [f32], teacher: &mut [f32], temperature: f32, weight: f32) -> f64;
}

/// Implements [`Kernels`] for an instruction set, compiled under the given attributes, with methods of the set's own.
macro_rules! compile_kernels {
    ($set:ty, $(#[$attribute:meta])* $(; $($own:tt)*)?) => {
        impl crate::kernels::Kernels for $set {
            $($($own)*)?
            compile_kernels! { @methods [$(#[$attribute])*]
                crate::shared::quantise(x: &[&[f32]], factors: &[f32], tile: crate::panel::TileMut<'_>);
                crate::shared::rms_norm(x: &[f32], gain: Option<&[f32]>, width: usize, eps: f32, out: &mut [f32]);
                crate::shared::layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);
                crate::shared::rope(pairing: tensor::Pairing, row: &mut [f32], cos: &[f32], sin: &[f32]);
                crate::shared::swiglu(gate: &[f32], up: &[f32], out: &mut [f32]);
                crate::shared::gelu(x: &[f32], out: &mut [f32]);
                crate::roofs::read::<$set>(bytes: &[u8]);
                crate::roofs::multiply_int8::<$set>() -> usize;
                crate::roofs::multiply_f32::<$set>() -> usize;
                crate::attention::attend_queries::<$set>(queries: crate::attention::Queries<'_, '_>);
                crate::adjoint::rms_norm_adjoint(
                    x: &[f32],
                    gain: Option<&[f32]>,
                    shape: (usize, f32),
                    dy: &[f32],
                    out: [&mut [f32]; 2]
                );
                crate::adjoint::layer_norm_adjoint(
                    x: &[f32],
                    gain: &[f32],
                    eps: f32,
                    dy: &[f32],
                    out: [&mut [f32]; 2]
                );
                crate::adjoint::swiglu_adjoint(x: [&[f32]; 2], dy: &[f32], out: [&mut [f32]; 2]);
                crate::adjoint::gelu_adjoint(x: &[f32], dy: &[f32], out: &mut [f32]);
                crate::adjoint::add_columns(rows: &[f32], shape: [usize; 2], scratch: &mut [f32], out: &mut [f32]);
                crate::adjoint::dot(a: &[f32], b: &[f32]) -> f32;
                crate::adjoint::attention_adjoint(
                    x: &tensor::adjoint::math::Heads<'_>,
                    piece: &tensor::adjoint::math::Piece,
                    head: usize,
                    out: &mut [f32]
                );
                crate::adjoint::cross_entropy(row: &mut [f32], target: usize, weight: f32) -> f64;
                crate::adjoint::divergence(row: &mut [f32], teacher: &mut [f32], temperature: f32, weight: f32) -> f64;
                crate::dense::dense_columns::<$set>() -> usize;
                crate::dense::interleave::<$set>(rows: &[(&[f32], f32)], width: usize, tile: &mut [f32]);
                crate::dense::dot_dense::<$set>(
                    format: crate::kernels::Dense,
                    weights: crate::kernels::RowGroups<'_>,
                    x: &[f32],
                    out: &mut [crate::kernels::Lanes]
                );
                crate::pairs::dot_pairs_in_lanes(
                    weights: crate::kernels::RowGroups<'_>,
                    x: &[u32],
                    out: &mut [crate::kernels::Lanes]
                );
                crate::pairs::pack_in_order(operand: &crate::pairs::Operand<'_>, out: &mut [u32]);
                crate::quantised::dot_quantised::<$set>(
                    kind: tensor::quant::Kind,
                    weights: crate::kernels::RowGroups<'_>,
                    x: (&crate::panel::Panel, std::ops::Range<usize>),
                    out: &mut [crate::kernels::Lanes]
                );
            }
        }
    };
    (@methods $attributes:tt
        $($krate:ident::$module:ident::$name:ident $(::<$simd:ty>)? ($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*
    ) => {
        $(compile_kernels! { @method $attributes $module $name [$(::<$simd>)?] ($($arg: $type),*) [$(-> $result)?] })*
    };
    (@method [$($attribute:tt)*] $module:ident $name:ident [$($simd:tt)*] ($($arg:ident: $type:ty),*) [$($result:tt)*]) => {
        fn $name(&self, $($arg: $type),*) $($result)* {
            $($attribute)*
            #[allow(unused_unsafe)] // some kernels are safe functions
            unsafe fn compiled($($arg: $type),*) $($result)* {
                // SAFETY: the attributes switch on the instructions that the kernel needs.
                unsafe { crate::$module::$name $($simd)* ($($arg),*) }
            }
            // SAFETY: `self` exists only where the attributes' instructions were detected.
            unsafe { compiled($($arg),*) }
        }
    };
}

pub(crate) use compile_kernels;
