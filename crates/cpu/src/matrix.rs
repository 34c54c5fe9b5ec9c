//! Packed linear maps.

use std::ops::Range;

use tensor::quant::{ACTIVATION_LEN, Kind};
use tensor::{Format, OpError, WeightSource};

use crate::aligned::{Aligned, LINE};
use crate::kernels::{Dense, ROWS, RowGroups};
use crate::pool::Pool;
use crate::{pack, packing};

/// A linear map, or one for each expert, packed in groups of `ROWS` output rows.
#[derive(Debug)]
pub struct Matrix {
    parts: Vec<Part>,
    shape: [usize; 3],
}

/// Rows of one format.
#[derive(Debug)]
pub(crate) struct Part {
    layout: Layout,
    n_out: usize,
    first_out: usize,
    /// Row groups of one matrix.
    n_groups: usize,
    /// Bytes of a row group that are weights.
    group_bytes: usize,
    /// All row groups, each at the start of a cache line.
    bytes: Aligned,
}

/// How a row group is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Dense(Dense),
    Quantised(Kind),
}

impl Layout {
    fn of(format: Format) -> Self {
        match format {
            Format::F32 => Self::Dense(Dense::F32),
            Format::F16 => Self::Dense(Dense::F16),
            Format::BF16 => Self::Dense(Dense::BF16),
            Format::Block(kind) => Self::Quantised(kind),
        }
    }

    fn group_bytes(self, n_in: usize) -> Option<usize> {
        match self {
            Self::Dense(format) => n_in.checked_mul(ROWS * format.bytes()),
            Self::Quantised(kind) => packing::group_bytes(kind, n_in),
        }
    }
}

impl Matrix {
    /// Packs the rows of `sources`, one under the other, on all threads of `pool`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the sources disagree, a quantised row is no multiple of 32 long or the size overflows.
    pub(crate) fn pack(pool: &Pool, sources: &[WeightSource]) -> Result<Self, OpError> {
        let [n_matrices, _, n_in] = sources.first().map_or([0; 3], WeightSource::shape);
        let (mut parts, mut n_out) = (Vec::with_capacity(sources.len()), 0);
        for source in sources {
            let [part_matrices, part_out, part_in] = source.shape();
            if [part_matrices, part_in] != [n_matrices, n_in] {
                let what = format!("{part_matrices} of {part_in} inputs under {n_matrices} of {n_in}");
                return Err(OpError::shape("matrix", what));
            }
            parts.push(Part::pack(pool, source, n_out)?);
            n_out += part_out;
        }
        Ok(Self { parts, shape: [n_matrices, n_out, n_in] })
    }

    /// Bytes that `source` takes when it is packed, without packing it.
    ///
    /// # Errors
    /// Those of packing it.
    pub fn packed_bytes(source: &WeightSource) -> Result<usize, OpError> {
        let [n_matrices, n_out, n_in] = source.shape();
        if matches!(source.format(), Format::Block(_)) && !n_in.is_multiple_of(ACTIVATION_LEN) {
            return Err(OpError::shape("matrix", format!("{n_in} inputs are no multiple of {ACTIVATION_LEN}")));
        }
        let too_large = || OpError::shape("matrix", format!("[{n_matrices}, {n_out}, {n_in}] is too large to pack"));
        let group = Layout::of(source.format()).group_bytes(n_in).and_then(|b| b.checked_next_multiple_of(LINE));
        let matrix = group.and_then(|b| b.checked_mul(n_out.div_ceil(ROWS)));
        matrix.and_then(|b| b.checked_mul(n_matrices)).ok_or_else(too_large)
    }

    /// Matrices, outputs of each, inputs of each.
    pub(crate) fn shape(&self) -> [usize; 3] {
        self.shape
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether some rows multiply eight-bit activations.
    pub(crate) fn is_quantised(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.layout, Layout::Quantised(_)))
    }

    /// Whether some rows multiply activations as they are.
    pub(crate) fn is_dense(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.layout, Layout::Dense(_)))
    }

    /// Bytes that the packed weights take.
    pub fn size_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes.len()).sum()
    }
}

impl Part {
    fn pack(pool: &Pool, source: &WeightSource, first_out: usize) -> Result<Self, OpError> {
        let [_, _, n_in] = source.shape();
        if matches!(source.format(), Format::Block(_)) && !n_in.is_multiple_of(ACTIVATION_LEN) {
            return Err(OpError::shape("matrix", format!("{n_in} inputs are no multiple of {ACTIVATION_LEN}")));
        }
        let mut part = Self::empty(Layout::of(source.format()), source, first_out)?;
        part.fill(pool, source);
        Ok(part)
    }

    fn empty(layout: Layout, source: &WeightSource, first_out: usize) -> Result<Self, OpError> {
        let [n_matrices, n_out, n_in] = source.shape();
        let n_groups = n_out.div_ceil(ROWS);
        let too_large = || OpError::shape("matrix", format!("[{n_matrices}, {n_out}, {n_in}] is too large to pack"));
        let group_bytes = layout.group_bytes(n_in).ok_or_else(too_large)?;
        let len = group_bytes.checked_next_multiple_of(LINE).and_then(|b| b.checked_mul(n_groups));
        let len = len.and_then(|b| b.checked_mul(n_matrices)).ok_or_else(too_large)?;
        let bytes = Aligned::zeroed(len).ok_or_else(too_large)?;
        Ok(Self { layout, n_out, first_out, n_groups, group_bytes, bytes })
    }

    /// Packs every row group.
    fn fill(&mut self, pool: &Pool, source: &WeightSource) {
        let stride = self.stride();
        let job = pack::Job { source, n_groups: self.n_groups, group_bytes: self.group_bytes, stride };
        match self.layout {
            Layout::Dense(format) => job.dense(pool, format, &mut self.bytes),
            Layout::Quantised(kind) => job.quantised(pool, kind, &mut self.bytes),
        }
    }

    /// Bytes from one row group to the next.
    fn stride(&self) -> usize {
        self.group_bytes.next_multiple_of(LINE)
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Row groups of one matrix.
    pub(crate) fn n_groups(&self) -> usize {
        self.n_groups
    }

    /// Outputs of one matrix.
    pub(crate) fn n_out(&self) -> usize {
        self.n_out
    }

    /// The first output of the whole map that row group 0 computes.
    pub(crate) fn first_out(&self) -> usize {
        self.first_out
    }

    /// Row groups `groups` of matrix `matrix`.
    pub(crate) fn weights(&self, matrix: usize, groups: Range<usize>) -> RowGroups<'_> {
        let stride = self.stride();
        let bytes = &self.bytes[(matrix * self.n_groups + groups.start) * stride..];
        RowGroups::new(bytes, [self.group_bytes, stride, groups.len()])
    }
}
