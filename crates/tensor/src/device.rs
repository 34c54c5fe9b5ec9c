//! The seam between the model and what computes it.

use std::sync::Arc;

use crate::{Bytes, Format, KvFormat, OpError, Orientation, packed};

/// Positions in a page of keys and values. Attention's blocks are pages, aligned to absolute position, so that the
/// order of additions does not depend on where a step began.
pub const PAGE_LEN: usize = 16;

/// Inputs of an unquantised linear map that are added in one chain of fused multiply-adds; the chains' sums are added
/// one after another. Shorter chains lose less to rounding than one along the whole input.
pub const DENSE_BLOCK: usize = 16;

/// A stored weight: `n_matrices` matrices of `n_out` outputs by `n_in` inputs, one after another in `bytes`. Or the
/// description of one, without its bytes: what a forecast is made from.
#[derive(Debug, Clone)]
pub struct WeightSource {
    /// `None` if it is only described.
    bytes: Option<Bytes>,
    format: Format,
    orientation: Orientation,
    n_matrices: usize,
    n_out: usize,
    n_in: usize,
    origin: Option<Arc<Origin>>,
}

/// Which tensor of a checkpoint a weight is, for those who change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The tensor's name.
    pub name: String,
    /// Where each output of the weight stands among the tensor's, where the order is another.
    pub outputs: Option<Vec<usize>>,
    /// The same for inputs.
    pub inputs: Option<Vec<usize>>,
}

impl WeightSource {
    /// Describes `bytes`. `n_matrices` is 1 for a plain linear map and the number of experts for theirs.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `bytes` is not exactly as long as the shape says, a row is no whole number of blocks, or
    /// a block format comes with [`Orientation::InOut`].
    pub fn new(bytes: Bytes, format: Format, orientation: Orientation, shape: [usize; 3]) -> Result<Self, OpError> {
        let this = Self::described(format, orientation, shape)?;
        if this.size_bytes() != bytes.len() {
            let what = format!("{shape:?} {} does not fill {} bytes", format.name(), bytes.len());
            return Err(OpError::shape("weight", what));
        }
        Ok(Self { bytes: Some(bytes), ..this })
    }

    /// A weight known by its shape alone. Devices that compute refuse it.
    ///
    /// # Errors
    /// [`OpError::Shape`] if a row is no whole number of blocks, the size overflows, or a block format comes with
    /// [`Orientation::InOut`].
    pub fn described(
        format: Format,
        orientation: Orientation,
        [n_matrices, n_out, n_in]: [usize; 3],
    ) -> Result<Self, OpError> {
        if orientation == Orientation::InOut && matches!(format, Format::Block(_)) {
            return Err(OpError::shape("weight", format!("{} can not be stored input-major", format.name())));
        }
        let this = Self { bytes: None, format, orientation, n_matrices, n_out, n_in, origin: None };
        match this.checked_size() {
            Some(_) => Ok(this),
            None => {
                let shape = format!("[{n_matrices}, {n_out}, {n_in}] {}", format.name());
                Err(OpError::shape("weight", format!("{shape} is no whole number of blocks, or too large")))
            }
        }
    }

    fn checked_size(&self) -> Option<usize> {
        let Self { format, n_out, n_in, .. } = *self;
        let matrix = match self.orientation {
            Orientation::OutIn => format.row_bytes(n_in)?.checked_mul(n_out)?,
            Orientation::InOut => format.row_bytes(n_out)?.checked_mul(n_in)?,
            Orientation::Packed => packed::matrix_bytes(format, n_out, n_in)?,
        };
        matrix.checked_mul(self.n_matrices)
    }

    /// Bytes that it takes as it is stored.
    pub fn size_bytes(&self) -> usize {
        // `described` has checked it.
        self.checked_size().unwrap_or(usize::MAX)
    }

    /// Refuses a weight that is only described.
    ///
    /// # Errors
    /// [`OpError::Shape`] of `op`.
    pub fn check_stored(&self, op: &'static str) -> Result<(), OpError> {
        self.stored(op).map(|_| ())
    }

    /// All stored bytes, to be shared or read past a mapping.
    ///
    /// # Errors
    /// [`OpError::Shape`] of `op` if the weight is only described.
    pub fn stored(&self, op: &'static str) -> Result<&Bytes, OpError> {
        self.bytes.as_ref().ok_or_else(|| OpError::shape(op, "the weight is only described, it has no numbers"))
    }

    /// An f32 matrix `[n_out, n_in]` from values in memory.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `values` has another length.
    pub fn from_f32(values: &[f32], n_out: usize, n_in: usize) -> Result<Self, OpError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(bytes.into(), Format::F32, Orientation::OutIn, [1, n_out, n_in])
    }

    /// `len` zeros, for a part of a vector that no file has.
    pub fn zeros(len: usize) -> Self {
        let bytes = Some(vec![0; 4 * len].into());
        let (format, orientation) = (Format::F32, Orientation::OutIn);
        Self { bytes, format, orientation, n_matrices: 1, n_out: 1, n_in: len, origin: None }
    }

    /// The same weight, known as the tensor `name`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let origin = Origin { name: name.into(), outputs: None, inputs: None };
        Self { origin: Some(Arc::new(origin)), ..self }
    }

    /// The same weight, which comes from `origin`.
    #[must_use]
    pub fn with_origin(self, origin: Origin) -> Self {
        Self { origin: Some(Arc::new(origin)), ..self }
    }

    /// The tensor that this is, if it is known.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }

    /// All numbers of a vector: output 0 of matrix 0.
    ///
    /// # Errors
    /// Those of [`decode_row`](Self::decode_row).
    pub fn vector(&self) -> Result<Vec<f32>, OpError> {
        let mut values = vec![0.0; self.n_in];
        self.decode_row(0, 0, &mut values)?;
        Ok(values)
    }

    /// The format of the stored numbers.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Which axis runs along a stored row.
    pub fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// Matrices, outputs of each, inputs of each.
    pub fn shape(&self) -> [usize; 3] {
        [self.n_matrices, self.n_out, self.n_in]
    }

    /// All stored bytes; none if the weight is only described.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }

    /// Where the bytes of matrix `matrix` lie; `None` out of range.
    pub fn matrix_range(&self, matrix: usize) -> Option<std::ops::Range<usize>> {
        // All matrices are equally long.
        let len = self.size_bytes().checked_div(self.n_matrices)?;
        (matrix < self.n_matrices).then(|| matrix * len..(matrix + 1) * len)
    }

    /// The stored bytes of one output's row; `None` out of range, where a row's bytes do not lie together or where the
    /// weight is only described.
    pub fn row(&self, matrix: usize, out: usize) -> Option<&[u8]> {
        if matrix >= self.n_matrices || out >= self.n_out || self.orientation != Orientation::OutIn {
            return None;
        }
        let row_bytes = self.format.row_bytes(self.n_in)?;
        let begin = (matrix * self.n_out + out) * row_bytes;
        self.bytes().get(begin..begin + row_bytes)
    }

    /// Decodes the weights of one output over all inputs into `out_row`.
    ///
    /// # Errors
    /// [`OpError::Index`] if there is no such matrix or output; [`OpError::Shape`] if `out_row` is not `n_in` long or
    /// the weights are [`Orientation::Packed`].
    pub fn decode_row(&self, matrix: usize, out: usize, out_row: &mut [f32]) -> Result<(), OpError> {
        if matrix >= self.n_matrices {
            return Err(OpError::Index { op: "weight", index: matrix, len: self.n_matrices });
        }
        if out >= self.n_out {
            return Err(OpError::Index { op: "weight", index: out, len: self.n_out });
        }
        if out_row.len() != self.n_in {
            return Err(OpError::shape("weight", format!("a row has {} values, not {}", self.n_in, out_row.len())));
        }
        self.check_stored("weight")?;
        if let Some(raw) = self.row(matrix, out) {
            self.format.decode(raw, out_row);
            return Ok(());
        }
        if self.orientation == Orientation::Packed {
            return Err(packed::refusal("weight"));
        }
        let width = self.format.block_bytes();
        for (input, value) in out_row.iter_mut().enumerate() {
            let at = ((matrix * self.n_in + input) * self.n_out + out) * width;
            self.format.decode(&self.bytes()[at..at + width], std::slice::from_mut(value));
        }
        Ok(())
    }
}

/// How the components of a head pair up for rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Components 2m and 2m + 1: Llama 4, Meta's files, GGUF files of Llama models.
    Interleaved,
    /// Components m and m + C/2: Hugging Face checkpoints of dense Llama models.
    Halves,
}

/// The angles of one step's rows, ready for [`Device::rope`]: `[T, C/2]` cosines and sines.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    /// How components pair up.
    pub pairing: Pairing,
    /// Pairs in a head, C/2.
    pub n_pairs: usize,
    /// Cosines, `[T, n_pairs]`.
    pub cos: Vec<f32>,
    /// Sines, `[T, n_pairs]`.
    pub sin: Vec<f32>,
}

impl Rotation {
    /// The angles of these rows `n` times over.
    #[must_use]
    pub fn repeated(&self, n: usize) -> Self {
        Self { cos: self.cos.repeat(n), sin: self.sin.repeat(n), ..*self }
    }
}

/// What one row of a step attends to: positions `begin..end` of the sequence whose pages are `pages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowKeys<'a> {
    /// Page ids; the first holds positions from `first_position` on.
    pub pages: &'a [u32],
    /// Absolute position of the first slot of `pages[0]`; a multiple of [`PAGE_LEN`].
    pub first_position: usize,
    /// First visible position.
    pub begin: usize,
    /// One past the last visible position; more than `begin`.
    pub end: usize,
}

impl RowKeys<'_> {
    /// Checks that the visible positions lie in the given pages and those in a pool of `n_pages`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the row sees nothing or more than its pages hold, [`OpError::Index`] for a page that is
    /// not there.
    pub fn check(&self, n_pages: usize) -> Result<(), OpError> {
        let held = self.first_position..self.first_position.saturating_add(self.pages.len() * PAGE_LEN);
        if self.begin >= self.end || self.begin < held.start || self.end > held.end {
            let (begin, end) = (self.begin, self.end);
            return Err(OpError::shape("attention", format!("a row sees {begin}..{end} of the stored {held:?}")));
        }
        match self.pages.iter().find(|page| **page as usize >= n_pages) {
            Some(page) => Err(OpError::Index { op: "attention", index: *page as usize, len: n_pages }),
            None => Ok(()),
        }
    }

    /// The pages that hold visible positions, in order, with the slots to read in each.
    pub fn visible(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let (begin, end) = (self.begin - self.first_position, self.end - self.first_position);
        (begin / PAGE_LEN..end.div_ceil(PAGE_LEN)).map(move |i| {
            let first = begin.saturating_sub(i * PAGE_LEN);
            let last = (end - i * PAGE_LEN).min(PAGE_LEN);
            (self.pages[i] as usize, first..last)
        })
    }
}

/// Where the router sends one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The expert.
    pub expert: u32,
    /// The sigmoid of its router logit, which multiplies the expert's input.
    pub score: f32,
}

/// The operations that models are written in, at the grain that a kernel author wants to fuse.
///
/// Every op takes handles and returns a new one, so a device can be a tape, a graph or another machine. Shapes that
/// do not fit are an [`OpError`]; numbers never are: a NaN flows through to the row's end. On the CPU devices each
/// row's result is a function of that row alone, the same to the bit in any company; [`Reference`](crate::Reference)
/// defines it.
pub trait Device: Send + Sync {
    /// Activations: f32 `[rows, width]`.
    type Tensor: Clone + Send;
    /// Linear maps, packed the way the device wants them: `[n_matrices, n_out, n_in]`.
    type Matrix: Send + Sync;
    /// A table whose rows are looked up: `[n_rows, width]`.
    type Table: Send + Sync;
    /// A parameter vector: gains, biases.
    type Vector: Send + Sync;
    /// Keys and values of one layer, in pages of [`PAGE_LEN`] positions.
    type Pages: Send;
    /// Which rows go to which experts.
    type Routing: Send + Sync;

    /// Packs the rows of `parts`, one under the other, as one linear map. Parts share `n_in` and `n_matrices`, not
    /// necessarily a format.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the parts disagree, a quantised row is no multiple of 32 long, or a part is
    /// [`Orientation::Packed`] and the device has no kernels for it; [`OpError::Read`] if a device that reads weights
    /// from their files can not.
    fn matrix(&self, parts: &[WeightSource]) -> Result<Self::Matrix, OpError>;

    /// Keeps `source`, one matrix stored row by row, for [`embed`](Self::embed).
    ///
    /// # Errors
    /// [`OpError::Shape`] if it is not stored row by row or holds several matrices; [`OpError::Read`] as in
    /// [`matrix`](Self::matrix).
    fn table(&self, source: &WeightSource) -> Result<Self::Table, OpError>;

    /// A parameter vector: `parts`, each one output of one matrix, one after another.
    ///
    /// # Errors
    /// [`OpError::Shape`] if a part is something else; [`OpError::Read`] as in [`matrix`](Self::matrix).
    fn vector(&self, parts: &[WeightSource]) -> Result<Self::Vector, OpError>;

    /// Zeroed room for `n_pages` pages of `n_heads` key and value heads with `head_len` components each.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the size overflows.
    fn pages(&self, n_pages: usize, n_heads: usize, head_len: usize, format: KvFormat) -> Result<Self::Pages, OpError>;

    /// Activations from host memory.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `values` is no whole number of rows.
    fn upload(&self, values: &[f32], width: usize) -> Result<Self::Tensor, OpError>;

    /// Activations to host memory, row by row.
    fn download(&self, x: &Self::Tensor) -> Vec<f32>;

    /// One row of activations to host memory; nothing if there is no such row.
    fn download_row(&self, x: &Self::Tensor, row: usize) -> Vec<f32> {
        let [_, width] = self.shape(x);
        self.download(x).chunks_exact(width.max(1)).nth(row).map(<[f32]>::to_vec).unwrap_or_default()
    }

    /// Rows and width.
    fn shape(&self, x: &Self::Tensor) -> [usize; 2];

    /// The same values as `[_, width]`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `width` does not divide the number of values.
    fn reshape(&self, x: Self::Tensor, width: usize) -> Result<Self::Tensor, OpError>;

    /// Columns `range` of every row.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the range does not lie inside the row.
    fn columns(&self, x: &Self::Tensor, range: std::ops::Range<usize>) -> Result<Self::Tensor, OpError>;

    /// The rows `rows`, in that order; a row may be named more than once.
    ///
    /// # Errors
    /// [`OpError::Index`] for a row that is not there.
    fn rows(&self, x: &Self::Tensor, rows: &[usize]) -> Result<Self::Tensor, OpError>;

    /// The rows of `a`, then those of `b`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the widths differ.
    fn concat(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor, OpError>;

    /// Rows `ids` of `table`.
    ///
    /// # Errors
    /// [`OpError::Index`] for an id outside of the table.
    fn embed(&self, table: &Self::Table, ids: &[u32]) -> Result<Self::Tensor, OpError>;

    /// `a + b`, elementwise.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the shapes differ.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor, OpError>;

    /// Multiplies each row by its factor.
    ///
    /// # Errors
    /// [`OpError::Shape`] if there is not one factor a row.
    fn scale_rows(&self, x: &Self::Tensor, factors: &[f32]) -> Result<Self::Tensor, OpError>;

    /// `x · wᵀ + bias`, `[T, n_in]` to `[T, n_out]`, through matrix 0 of `w`.
    ///
    /// Unquantised weights: each output adds the products of every [`DENSE_BLOCK`] inputs one after another with fused
    /// multiply-add, from 0, and the sums of the blocks one after another, from 0; then the bias. Quantised weights:
    /// the row goes to eight bits ([`Activation`](crate::quant::Activation)), each group gives an exact integer sum and
    /// one fused multiply-add (and one more where the format has offsets).
    ///
    /// # Errors
    /// [`OpError::Shape`] if the widths disagree.
    fn linear(&self, w: &Self::Matrix, bias: Option<&Self::Vector>, x: &Self::Tensor) -> Result<Self::Tensor, OpError>;

    /// `onto` plus [`linear`](Self::linear), for residual connections.
    ///
    /// # Errors
    /// Those of [`linear`](Self::linear) and [`add`](Self::add).
    fn linear_onto(
        &self,
        onto: Self::Tensor,
        w: &Self::Matrix,
        bias: Option<&Self::Vector>,
        x: &Self::Tensor,
    ) -> Result<Self::Tensor, OpError> {
        self.add(&onto, &self.linear(w, bias, x)?)
    }

    /// [`swiglu`](Self::swiglu) of [`linear`](Self::linear).
    ///
    /// # Errors
    /// Those of the two.
    fn linear_swiglu(
        &self,
        w: &Self::Matrix,
        bias: Option<&Self::Vector>,
        x: &Self::Tensor,
    ) -> Result<Self::Tensor, OpError> {
        self.swiglu(&self.linear(w, bias, x)?)
    }

    /// Normalises each `width`-long part of every row by its root mean square, then multiplies by `gain`.
    ///
    /// `x` is `[T, n·width]`; `gain`, if any, is `[width]`. `eps` is added to the mean square, inside the root. Sums
    /// in the order of [`sum_squares`](crate::math::sum_squares).
    ///
    /// # Errors
    /// [`OpError::Shape`] if `width` does not divide the row or is not the gain's.
    fn rms_norm(
        &self,
        x: &Self::Tensor,
        gain: Option<&Self::Vector>,
        width: usize,
        eps: f32,
    ) -> Result<Self::Tensor, OpError>;

    /// Subtracts the row's mean, divides by its standard deviation (`eps` added to the variance), multiplies by `gain`
    /// and adds `bias`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `gain` or `bias` is not as long as the row.
    fn layer_norm(
        &self,
        x: &Self::Tensor,
        gain: &Self::Vector,
        bias: &Self::Vector,
        eps: f32,
    ) -> Result<Self::Tensor, OpError>;

    /// Rotates every head of every row: a pair (a, b) becomes (a·cos − b·sin, a·sin + b·cos).
    ///
    /// # Errors
    /// [`OpError::Shape`] if a row is no whole number of heads or `rotation` has another number of rows.
    fn rope(&self, x: &Self::Tensor, rotation: &Rotation) -> Result<Self::Tensor, OpError>;

    /// Writes each row's keys and values, `[T, K·C]`, to its slot: `page · PAGE_LEN + position % PAGE_LEN`, rounded to
    /// the pages' format.
    ///
    /// # Errors
    /// [`OpError::Shape`] if widths or counts disagree, [`OpError::Index`] for a slot that is not there.
    fn store(
        &self,
        pages: &mut Self::Pages,
        k: &Self::Tensor,
        v: &Self::Tensor,
        slots: &[usize],
    ) -> Result<(), OpError>;

    /// Softmax attention of `q`, `[T, H·C]`, over the stored keys that each row may see; scores are divided by √C.
    /// Query head h reads key head h / (H / K).
    ///
    /// Online softmax over pages in order of position; see [`attend_page`](crate::math::attend_page) for the order of
    /// additions.
    ///
    /// # Errors
    /// [`OpError::Shape`] if widths or counts disagree or a row sees nothing, [`OpError::Index`] for a page that is
    /// not there.
    fn attention(&self, q: &Self::Tensor, pages: &Self::Pages, rows: &[RowKeys<'_>]) -> Result<Self::Tensor, OpError>;

    /// The `top_k` experts with the largest logits of each row, `[T, E]`; equal logits go to the lower expert.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `top_k` is 0 or more than E.
    fn route(&self, logits: &Self::Tensor, top_k: usize) -> Result<Self::Routing, OpError>;

    /// Says that `routing` is about to go through the experts of `maps`, in that order, with other work before or
    /// between: a device that reads experts from a file begins to. Changes no result.
    fn expect(&self, routing: &Self::Routing, maps: &[&Self::Matrix]) {
        let _ = (routing, maps);
    }

    /// The choices of each row, lower expert first: `[T, top_k]`.
    fn choices(&self, routing: &Self::Routing) -> Vec<Choice>;

    /// What experts are given: each row of `x`, `[T, D]`, times its score, for each of its experts, `[T·top_k, D]`,
    /// grouped by expert.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `routing` is not of as many rows.
    fn experts_input(&self, x: &Self::Tensor, routing: &Self::Routing) -> Result<Self::Tensor, OpError> {
        let (choices, n_rows) = (self.choices(routing), self.shape(x)[0]);
        let top_k = choices.len().checked_div(n_rows).unwrap_or(0);
        if top_k * n_rows != choices.len() {
            return Err(OpError::shape("experts_input", format!("{n_rows} rows, {} choices", choices.len())));
        }
        let mut sent: Vec<usize> = (0..choices.len()).collect();
        // Rows of an expert stay in their order.
        sent.sort_by_key(|i| choices[*i].expert);
        let rows: Vec<usize> = sent.iter().map(|i| i / top_k).collect();
        let scores: Vec<f32> = sent.iter().map(|i| choices[*i].score).collect();
        self.scale_rows(&self.rows(x, &rows)?, &scores)
    }

    /// Each row through the gate and up projections of each of its experts, and [`swiglu`](Self::swiglu): `x` is
    /// `[T, D]`, the result `[T·top_k, F]`, grouped by expert.
    ///
    /// The score multiplies the expert's input. For unquantised weights every input is multiplied; for quantised ones
    /// the row goes to eight bits once and its scales are multiplied, which a device can share between experts.
    ///
    /// # Errors
    /// [`OpError::Shape`] if widths, the number of experts or of rows disagree or the map's outputs are odd in number;
    /// [`OpError::Read`] if an expert that stays in its file can not be read.
    fn experts_swiglu(
        &self,
        w: &Self::Matrix,
        x: &Self::Tensor,
        routing: &Self::Routing,
    ) -> Result<Self::Tensor, OpError>;

    /// [`linear`](Self::linear) of rows grouped by expert, `[T·top_k, F]`, each through its expert's matrix.
    ///
    /// # Errors
    /// [`OpError::Shape`] if widths or the number of experts disagree; [`OpError::Read`] as in
    /// [`experts_swiglu`](Self::experts_swiglu).
    fn experts(&self, w: &Self::Matrix, x: &Self::Tensor, routing: &Self::Routing) -> Result<Self::Tensor, OpError>;

    /// `onto` plus what a feed-forward network with experts gives: the shared expert's rows `[T, D]`, and added to them
    /// first the outputs `y`, `[T·top_k, D]`, of each row's experts, lower expert first.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the shapes disagree.
    fn combine(
        &self,
        onto: Self::Tensor,
        shared: &Self::Tensor,
        y: &Self::Tensor,
        routing: &Self::Routing,
    ) -> Result<Self::Tensor, OpError>;

    /// `silu(gate) · up` of `[T, 2F]`, gate in the first half of each row: `[T, F]`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the width is odd.
    fn swiglu(&self, gate_up: &Self::Tensor) -> Result<Self::Tensor, OpError>;

    /// `x · Φ(x)`, the exact (error function) form.
    fn gelu(&self, x: &Self::Tensor) -> Self::Tensor;
}
