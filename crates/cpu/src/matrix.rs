//! Packed linear maps, wherever their bytes are.

use std::ops::Range;
use std::sync::Arc;

use tensor::quant::{ACTIVATION_LEN, Kind};
use tensor::{Bytes, Format, OpError, Orientation, WeightSource, packed};

use crate::aligned::{Aligned, LINE};
use crate::device::Precision;
use crate::experts::{Expert, Experts, Streamed};
use crate::kernels::{Dense, Kernels, ROWS, RowGroups};
use crate::numbers::Numbers;
use crate::pack::{Job, Stored};
use crate::packing;
use crate::pairs::{self, Operand};
use crate::pool::Pool;

const _: () = assert!(ROWS == packed::ROWS);

/// Bytes of rows that are read from a file at a time, on their way to being packed.
const PIECE: usize = 16 << 20;

/// A linear map, or one for each expert, packed in groups of `ROWS` output rows.
#[derive(Debug)]
pub struct Matrix {
    parts: Vec<Part>,
    shape: [usize; 3],
    /// Set if the matrices stay in their file until rows go through them.
    streamed: Option<Arc<Streamed>>,
}

/// Rows of one format.
#[derive(Debug)]
pub(crate) struct Part {
    groups: Groups,
    store: Store,
}

/// The row groups of one matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) layout: Layout,
    pub(crate) n_out: usize,
    pub(crate) first_out: usize,
    pub(crate) n_groups: usize,
    /// Bytes of a row group that are weights.
    pub(crate) group_bytes: usize,
    /// Bytes of all row groups, each at the start of a cache line.
    pub(crate) matrix_bytes: usize,
}

/// Where row groups are.
#[derive(Debug)]
pub(crate) enum Store {
    /// In memory of our own.
    Owned(Aligned),
    /// In a mapped file that holds them packed.
    Mapped(Bytes),
    /// In a slot of the cache of experts, from an offset on.
    Cached(Arc<Expert>, usize),
    /// In a file, until rows go through them.
    Away,
}

/// How a row group is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Dense(Dense),
    /// Pairs of bfloat16, whatever is stored; see [`pairs`].
    Pairs,
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
            Self::Pairs => n_in.checked_next_multiple_of(pairs::BLOCK)?.checked_mul(ROWS * Dense::BF16.bytes()),
            Self::Quantised(kind) => packing::group_bytes(kind, n_in),
        }
    }
}

impl Groups {
    /// Of one matrix of `source`, whose first output is number `first_out` of the map.
    ///
    /// # Errors
    /// [`OpError::Shape`] if a quantised row is no multiple of 32 long or the size overflows.
    pub(crate) fn of(source: &WeightSource, first_out: usize) -> Result<Self, OpError> {
        Self::in_layout(Layout::of(source.format()), source, first_out)
    }

    fn in_layout(layout: Layout, source: &WeightSource, first_out: usize) -> Result<Self, OpError> {
        let [n_matrices, n_out, n_in] = source.shape();
        if matches!(source.format(), Format::Block(_)) && !n_in.is_multiple_of(ACTIVATION_LEN) {
            return Err(OpError::shape("matrix", format!("{n_in} inputs are no multiple of {ACTIVATION_LEN}")));
        }
        let too_large = || OpError::shape("matrix", format!("[{n_matrices}, {n_out}, {n_in}] is too large to pack"));
        let n_groups = n_out.div_ceil(ROWS);
        let group_bytes = layout.group_bytes(n_in).ok_or_else(too_large)?;
        let stride = group_bytes.checked_next_multiple_of(LINE).ok_or_else(too_large)?;
        let matrix_bytes = stride.checked_mul(n_groups).ok_or_else(too_large)?;
        matrix_bytes.checked_mul(n_matrices).ok_or_else(too_large)?;
        Ok(Self { layout, n_out, first_out, n_groups, group_bytes, matrix_bytes })
    }

    /// Bytes from one row group to the next.
    pub(crate) fn stride(&self) -> usize {
        self.group_bytes.next_multiple_of(LINE)
    }
}

impl Matrix {
    /// Packs the rows of `sources`, one under the other, on all threads of `pool`, or takes them as they are if they are
    /// packed. With a cache of experts, experts stay where they are, and everything else is read, not mapped.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the sources disagree, a quantised row is no multiple of 32 long or the size overflows;
    /// [`OpError::Read`].
    pub(crate) fn new(
        (pool, kernels): (&Pool, &dyn Kernels),
        experts: Option<&Experts>,
        precision: Precision,
        sources: &[WeightSource],
    ) -> Result<Self, OpError> {
        let [n_matrices, _, n_in] = sources.first().map_or([0; 3], WeightSource::shape);
        let rounds = |source: &WeightSource| {
            !matches!(source.format(), Format::Block(_)) && source.orientation() != Orientation::Packed
        };
        let in_pairs = precision == Precision::Bf16 && experts.is_none() && sources.iter().all(rounds);
        let (mut groups, mut n_out) = (Vec::with_capacity(sources.len()), 0);
        for source in sources {
            let [part_matrices, part_out, part_in] = source.shape();
            if [part_matrices, part_in] != [n_matrices, n_in] {
                let what = format!("{part_matrices} of {part_in} inputs under {n_matrices} of {n_in}");
                return Err(OpError::shape("matrix", what));
            }
            let layout = if in_pairs { Layout::Pairs } else { Layout::of(source.format()) };
            groups.push(Groups::in_layout(layout, source, n_out)?);
            n_out += part_out;
        }
        let shape = [n_matrices, n_out, n_in];
        if let Some(experts) = experts.filter(|_| n_matrices > 1) {
            let parts = groups.iter().map(|groups| Part { groups: *groups, store: Store::Away }).collect();
            let streamed = experts.register(sources.iter().cloned().zip(groups).collect())?;
            return Ok(Self { parts, shape, streamed: Some(streamed) });
        }
        let store = |source, groups: &Groups| match experts {
            Some(experts) => Ok(Store::Owned(experts.locked(read(pool, source, groups)?))),
            None if in_pairs => in_bf16((pool, kernels), source, groups),
            None => in_memory(pool, source, groups),
        };
        let parts = sources.iter().zip(groups);
        let parts = parts.map(|(source, groups)| Ok(Part { groups, store: store(source, &groups)? }));
        Ok(Self { parts: parts.collect::<Result<_, OpError>>()?, shape, streamed: None })
    }

    /// One matrix of which every part is in `expert`.
    pub(crate) fn of_expert(parts: impl Iterator<Item = (Groups, usize)>, n_in: usize, expert: &Arc<Expert>) -> Self {
        let part = |(groups, begin)| Part { groups, store: Store::Cached(Arc::clone(expert), begin) };
        let parts: Vec<Part> = parts.map(part).collect();
        let n_out = parts.iter().map(|part| part.groups.n_out).sum();
        Self { parts, shape: [1, n_out, n_in], streamed: None }
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

    /// Where the matrices come from, if they stay in their file until rows go through them.
    pub(crate) fn streamed(&self) -> Option<&Arc<Streamed>> {
        self.streamed.as_ref()
    }

    /// Whether some rows multiply eight-bit activations.
    pub(crate) fn is_quantised(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.groups.layout, Layout::Quantised(_)))
    }

    /// Whether some rows multiply activations as they are.
    pub(crate) fn is_dense(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part.groups.layout, Layout::Quantised(_)))
    }

    /// Whether all rows multiply pairs of bfloat16.
    pub(crate) fn is_paired(&self) -> bool {
        self.parts.iter().all(|part| matches!(part.groups.layout, Layout::Pairs))
    }

    /// Bytes that the packed weights take, in memory of our own or mapped.
    pub fn size_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes().len()).sum()
    }
}

/// The row groups of all matrices of `source` in pairs.
fn in_bf16((pool, kernels): (&Pool, &dyn Kernels), source: &WeightSource, groups: &Groups) -> Result<Store, OpError> {
    let [n_matrices, n_out, n_in] = source.shape();
    let bytes = source.stored("matrix")?;
    let mut out = room(groups.matrix_bytes * n_matrices)?;
    for (matrix, out) in out.chunks_exact_mut(groups.matrix_bytes.max(1)).enumerate() {
        let numbers = Numbers::of(source, matrix)?;
        pool.chunks(bytemuck::cast_slice_mut(out), groups.stride() / size_of::<u32>(), 1, |group, out: &mut [u32]| {
            let rows = group * ROWS..n_out.min((group + 1) * ROWS);
            let matrix = numbers.straight();
            kernels.pack_pairs(&Operand { matrix, rows, n_in, factor: 1.0, is_group: true }, out);
        });
        // The pairs take their place.
        if let Some(stored) = source.matrix_range(matrix).and_then(|range| bytes.slice(range)) {
            stored.release();
        }
    }
    Ok(Store::Owned(out))
}

/// The row groups of all matrices of `source`, mapped if the file has them.
fn in_memory(pool: &Pool, source: &WeightSource, groups: &Groups) -> Result<Store, OpError> {
    let bytes = source.stored("matrix")?;
    // Files are mapped at a page and hold packed weights at multiples of a line. What is not a file's is copied.
    if source.orientation() == Orientation::Packed && bytes.as_ptr().addr().is_multiple_of(LINE) {
        return Ok(Store::Mapped(bytes.clone()));
    }
    let [n_matrices, n_out, n_in] = source.shape();
    let mut out = room(groups.matrix_bytes * n_matrices)?;
    for matrix in 0..n_matrices {
        let stored = source.matrix_range(matrix).and_then(|range| bytes.slice(range));
        let stored = stored.ok_or(OpError::Index { op: "matrix", index: matrix, len: n_matrices })?;
        let shape = [1, n_out, n_in];
        let job = Stored { bytes: &stored, format: source.format(), orientation: source.orientation(), shape };
        let out = &mut out[matrix * groups.matrix_bytes..][..groups.matrix_bytes];
        Job { stored: job, groups }.run(pool, out);
        // The packed copy takes their place.
        stored.release();
    }
    Ok(Store::Owned(out))
}

/// The row groups of `source`, which holds one matrix at most, from reads of its file.
fn read(pool: &Pool, source: &WeightSource, groups: &Groups) -> Result<Aligned, OpError> {
    let [n_matrices, n_out, n_in] = source.shape();
    let mut out = room(groups.matrix_bytes * n_matrices)?;
    let stored = source.stored("matrix")?;
    let len = stored.len();
    // Whole row groups at a time; a matrix whose rows do not lie together goes as one piece.
    let (n_groups, group_len) = match source.orientation() {
        Orientation::OutIn => (groups.n_groups, len.checked_div(n_out).unwrap_or(0) * ROWS),
        Orientation::Packed => (groups.n_groups, groups.stride()),
        Orientation::InOut => (1, len),
    };
    let step = (PIECE / group_len.max(1)).clamp(1, n_groups.max(1));
    let mut buffer = room(Bytes::room(len.min(step * group_len)))?;
    for first in (0..n_groups).step_by(step) {
        let range = first * group_len..len.min((first + step) * group_len);
        let at = stored.read(range.clone(), &mut buffer)?;
        let bytes = &buffer[at..at + range.len()];
        let (begin, end) = match source.orientation() {
            Orientation::InOut => (0, n_out),
            _ => (first * ROWS, n_out.min((first + step) * ROWS)),
        };
        let shape = [1, end - begin, n_in];
        let stored = Stored { bytes, format: source.format(), orientation: source.orientation(), shape };
        let piece = Groups { n_out: end - begin, n_groups: (end - begin).div_ceil(ROWS), ..*groups };
        let stride = groups.stride();
        Job { stored, groups: &piece }.run(pool, &mut out[begin / ROWS * stride..end.div_ceil(ROWS) * stride]);
    }
    Ok(out)
}

fn room(len: usize) -> Result<Aligned, OpError> {
    Aligned::zeroed(len).ok_or_else(|| OpError::shape("matrix", format!("no {len} bytes of memory can be had")))
}

/// Matrix `matrix` of `source` as packed row groups.
///
/// # Errors
/// [`OpError::Index`] if there is no such matrix, [`OpError::Shape`] as in [`Groups::of`].
pub(crate) fn pack(pool: &Pool, source: &WeightSource, matrix: usize) -> Result<Bytes, OpError> {
    let [n_matrices, n_out, n_in] = source.shape();
    let groups = Groups::of(source, 0)?;
    let range = source.matrix_range(matrix).ok_or(OpError::Index { op: "pack", index: matrix, len: n_matrices })?;
    let (format, orientation) = (source.format(), source.orientation());
    let stored = Stored { bytes: &source.bytes()[range], format, orientation, shape: [1, n_out, n_in] };
    let mut out = room(groups.matrix_bytes)?;
    Job { stored, groups: &groups }.run(pool, &mut out);
    Ok(Bytes::new(out))
}

impl Part {
    pub(crate) fn layout(&self) -> Layout {
        self.groups.layout
    }

    /// Row groups of one matrix.
    pub(crate) fn n_groups(&self) -> usize {
        self.groups.n_groups
    }

    /// Outputs of one matrix.
    pub(crate) fn n_out(&self) -> usize {
        self.groups.n_out
    }

    /// The first output of the whole map that row group 0 computes.
    pub(crate) fn first_out(&self) -> usize {
        self.groups.first_out
    }

    fn bytes(&self) -> &[u8] {
        match &self.store {
            Store::Owned(bytes) => bytes,
            Store::Mapped(bytes) => bytes,
            Store::Cached(expert, begin) => &expert.bytes()[*begin..],
            Store::Away => &[],
        }
    }

    /// Row groups `groups` of matrix `matrix`.
    pub(crate) fn weights(&self, matrix: usize, groups: Range<usize>) -> RowGroups<'_> {
        let Groups { n_groups, group_bytes, .. } = self.groups;
        let stride = self.groups.stride();
        let bytes = &self.bytes()[(matrix * n_groups + groups.start) * stride..];
        RowGroups::new(bytes, [group_bytes, stride, groups.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_give_packed_weights_the_bytes_that_kernels_read() {
        let blocks = Kind::ALL.iter().map(|kind| Format::Block(*kind));
        let mut n_formats = 0;
        for format in [Format::F32, Format::F16, Format::BF16].into_iter().chain(blocks) {
            for n_in in [256, 512] {
                assert_eq!(
                    Layout::of(format).group_bytes(n_in),
                    packed::group_bytes(format, n_in),
                    "{}",
                    format.name()
                );
            }
            n_formats += 1;
        }
        assert_eq!(n_formats, 3 + Kind::ALL.len());
    }
}
