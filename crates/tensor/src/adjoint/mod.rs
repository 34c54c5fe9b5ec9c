//! What a device needs to be trained on: the adjoint of every operation.
//!
//! Letters as in [`Device`]; `dy` is the gradient of the loss with respect to an op's result, and what an adjoint returns
//! is the gradient with respect to its input. Sums over outputs or rows have the order of [`Device::linear`]: chains of
//! [`DENSE_BLOCK`](crate::DENSE_BLOCK) products from 0, and the chains' sums one after another from 0. So gradients too are the same
//! to the bit on every CPU device and for any number of threads.

pub mod math;
mod reference;

use std::ops::Range;

use crate::{Device, OpError, Orientation, WeightSource};

/// Where the gradient of one part of a linear map is added up, as the part is stored.
#[derive(Debug)]
pub struct PartGradient<'a> {
    /// `[n_matrices, n_out, n_in]`, or `[n_matrices, n_in, n_out]` if input-major.
    pub values: &'a mut [f32],
    /// Which of the two.
    pub orientation: Orientation,
    /// Outputs of the whole map that the part's are.
    pub outputs: Range<usize>,
}

/// Rows of keys that a row of queries sees, and the heads' shape.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// For each row of queries the rows of keys and values, of the same tensor, that it attends to; never empty.
    pub rows: &'a [Range<usize>],
    /// Components of one head, C.
    pub head_len: usize,
}

/// Queries, keys and values of an attention, `[T, H·C]`, `[_, K·C]` twice.
#[derive(Debug)]
pub struct Attended<'a, T> {
    /// Queries.
    pub q: &'a T,
    /// Keys.
    pub k: &'a T,
    /// Values.
    pub v: &'a T,
}

/// A target for the rows of logits: a token for each row, and what the row counts.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// The right token of each row.
    pub tokens: &'a [u32],
    /// The factor of each row's loss; 0 leaves it out.
    pub weights: &'a [f32],
}

/// The adjoints of a device's operations.
pub trait Adjoint: Device {
    /// `dy · W` through matrix 0 of the map whose rows are `parts`, one under the other: the parts' sums are added one
    /// after another. Quantised weights count as what they decode to.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the widths disagree or the parts hold no numbers.
    fn linear_adjoint(&self, parts: &[WeightSource], dy: &Self::Tensor) -> Result<Self::Tensor, OpError>;

    /// The same for rows grouped by expert, each through its expert's matrix.
    ///
    /// # Errors
    /// As [`linear_adjoint`](Self::linear_adjoint).
    fn experts_adjoint(
        &self,
        parts: &[WeightSource],
        dy: &Self::Tensor,
        routing: &Self::Routing,
    ) -> Result<Self::Tensor, OpError>;

    /// Adds `dyᵀ · x`, of the part's outputs, to `part`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the sizes disagree.
    fn linear_gradient(&self, x: &Self::Tensor, dy: &Self::Tensor, part: PartGradient<'_>) -> Result<(), OpError>;

    /// The same for rows grouped by expert: each expert's matrix gets the products of its rows.
    ///
    /// # Errors
    /// As [`linear_gradient`](Self::linear_gradient).
    fn experts_gradient(
        &self,
        x: &Self::Tensor,
        dy: &Self::Tensor,
        routing: &Self::Routing,
        part: PartGradient<'_>,
    ) -> Result<(), OpError>;

    /// The sums of the columns of `dy`: a bias's gradient.
    fn column_sums(&self, dy: &Self::Tensor) -> Vec<f32>;

    /// Σ of `a · b` over each row, in the order of [`sum`](crate::math::sum).
    ///
    /// # Errors
    /// [`OpError::Shape`] if the shapes differ.
    fn row_dots(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Vec<f32>, OpError>;

    /// `onto`, or zeros if there is none, of `width` columns, with `dy` added to those from `first` on.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the shapes disagree.
    fn columns_adjoint(
        &self,
        onto: Option<Self::Tensor>,
        width: usize,
        first: usize,
        dy: &Self::Tensor,
    ) -> Result<Self::Tensor, OpError>;

    /// Zeros of `n_rows` rows, to which row i of `dy` is added at `rows[i]`, one after another.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the counts disagree; [`OpError::Index`] for a row that is not there.
    fn rows_adjoint(&self, n_rows: usize, rows: &[usize], dy: &Self::Tensor) -> Result<Self::Tensor, OpError>;

    /// Of [`rms_norm`](Device::rms_norm): the gradients of `x` and, if there is a gain, of the gain.
    ///
    /// # Errors
    /// [`OpError::Shape`] as in the op, or if `dy` is not shaped like `x`.
    fn rms_norm_adjoint(
        &self,
        x: &Self::Tensor,
        gain: Option<&Self::Vector>,
        shape: (usize, f32),
        dy: &Self::Tensor,
    ) -> Result<(Self::Tensor, Option<Vec<f32>>), OpError>;

    /// Of [`layer_norm`](Device::layer_norm): the gradients of `x` and of the gain. The bias's are
    /// [`column_sums`](Self::column_sums).
    ///
    /// # Errors
    /// [`OpError::Shape`] as in the op, or if `dy` is not shaped like `x`.
    fn layer_norm_adjoint(
        &self,
        x: &Self::Tensor,
        gain: &Self::Vector,
        eps: f32,
        dy: &Self::Tensor,
    ) -> Result<(Self::Tensor, Vec<f32>), OpError>;

    /// Of [`swiglu`](Device::swiglu).
    ///
    /// # Errors
    /// [`OpError::Shape`] if `dy` is not half as wide as `gate_up`.
    fn swiglu_adjoint(&self, gate_up: &Self::Tensor, dy: &Self::Tensor) -> Result<Self::Tensor, OpError>;

    /// Of [`gelu`](Device::gelu).
    ///
    /// # Errors
    /// [`OpError::Shape`] if the shapes differ.
    fn gelu_adjoint(&self, x: &Self::Tensor, dy: &Self::Tensor) -> Result<Self::Tensor, OpError>;

    /// Of attention: the gradients of queries, keys and values. The weights are computed again from scores in f32.
    ///
    /// # Errors
    /// [`OpError::Shape`] if widths or counts disagree or a row sees nothing or what is not there.
    fn attention_adjoint(
        &self,
        x: Attended<'_, Self::Tensor>,
        seen: Seen<'_>,
        dy: &Self::Tensor,
    ) -> Result<[Self::Tensor; 3], OpError>;

    /// The cross-entropy of each row of `logits`, in nats, unweighted (0 where a row has no weight); and the gradient of
    /// their weighted sum.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the counts disagree; [`OpError::Index`] for a token that is not there.
    fn cross_entropy(&self, logits: &Self::Tensor, targets: Targets<'_>) -> Result<(Vec<f64>, Self::Tensor), OpError>;

    /// The divergence of `logits` from `teacher`, KL(softmax(teacher / τ) ‖ softmax(logits / τ)) of each row in nats,
    /// unweighted, and the gradient of their weighted sum.
    ///
    /// # Errors
    /// [`OpError::Shape`] if shapes or counts disagree.
    fn divergence(
        &self,
        logits: &Self::Tensor,
        teacher: &Self::Tensor,
        temperature: f32,
        weights: &[f32],
    ) -> Result<(Vec<f64>, Self::Tensor), OpError>;
}
