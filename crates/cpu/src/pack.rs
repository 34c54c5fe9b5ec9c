//! From stored rows to packed row groups.

use tensor::quant::Kind;
use tensor::{Format, Orientation};

use crate::kernels::ROWS;
use crate::matrix::Groups;
use crate::packing;
use crate::pool::Pool;

/// Row groups that are packed together from an input-major matrix, so that each visit to a stored row reads some cache
/// lines whole.
const SWEEP: usize = 8;

/// Weights as they are stored: as [`WeightSource`], in borrowed bytes.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) format: Format,
    pub(crate) orientation: Orientation,
    /// Matrices, outputs of each, inputs of each.
    pub(crate) shape: [usize; 3],
}

impl<'a> Stored<'a> {
    /// The bytes of one output's row, where rows are stored one after another.
    fn row(&self, matrix: usize, out: usize) -> &'a [u8] {
        let [_, n_out, n_in] = self.shape;
        let len = self.format.row_bytes(n_in).unwrap_or(0);
        self.bytes.get((matrix * n_out + out) * len..).and_then(|rest| rest.get(..len)).unwrap_or(&[])
    }
}

/// One weight on its way into row groups.
pub(crate) struct Job<'a> {
    pub(crate) stored: Stored<'a>,
    /// Of one matrix.
    pub(crate) groups: &'a Groups,
}

impl Job<'_> {
    /// The matrix and the first output of row group `index`, and how many outputs the group has.
    fn place(&self, index: usize) -> (usize, usize, usize) {
        let first = index % self.groups.n_groups * ROWS;
        (index / self.groups.n_groups, first, (self.stored.shape[1] - first).min(ROWS))
    }

    /// Packs every row group into its place in `out`, whatever that holds.
    pub(crate) fn run(&self, pool: &Pool, out: &mut [u8]) {
        match (self.stored.orientation, self.stored.format) {
            (Orientation::Packed, _) => {
                pool.chunks(out, self.groups.stride(), 1, |index, group| {
                    group.copy_from_slice(&self.stored.bytes[index * group.len()..][..group.len()]);
                });
            }
            (_, Format::F32) => self.dense::<4>(pool, out),
            (_, Format::F16 | Format::BF16) => self.dense::<2>(pool, out),
            (_, Format::Block(kind)) => self.quantised(pool, kind, out),
        }
    }

    /// Packs unquantised weights.
    fn dense<const BYTES: usize>(&self, pool: &Pool, out: &mut [u8]) {
        let stride = self.groups.stride();
        if self.stored.orientation == Orientation::OutIn {
            pool.chunks(out, stride, 1, |index, group| {
                let (matrix, first, n_rows) = self.place(index);
                let mut rows: [&[[u8; BYTES]]; ROWS] = [&[]; ROWS];
                for (i, row) in rows.iter_mut().take(n_rows).enumerate() {
                    *row = self.stored.row(matrix, first + i).as_chunks().0;
                }
                group.fill(0);
                let inputs = group[..self.groups.group_bytes].as_chunks_mut::<BYTES>().0.as_chunks_mut::<ROWS>().0;
                for (k, lanes) in inputs.iter_mut().enumerate() {
                    for (lane, row) in lanes.iter_mut().zip(&rows[..n_rows]) {
                        *lane = row[k];
                    }
                }
            });
            return;
        }
        pool.chunks(out, stride * SWEEP, 1, |sweep, groups| {
            let [_, n_out, n_in] = self.stored.shape;
            let stored = self.stored.bytes.as_chunks::<BYTES>().0;
            groups.fill(0);
            for k in 0..n_in {
                for (i, group) in groups.chunks_exact_mut(stride).enumerate() {
                    let (matrix, first, n_rows) = self.place(sweep * SWEEP + i);
                    let lanes = &mut group.as_chunks_mut::<BYTES>().0[k * ROWS..][..n_rows];
                    lanes.copy_from_slice(&stored[(matrix * n_in + k) * n_out + first..][..n_rows]);
                }
            }
        });
    }

    /// Packs quantised weights.
    fn quantised(&self, pool: &Pool, kind: Kind, out: &mut [u8]) {
        pool.chunks(out, self.groups.stride(), 1, |index, group| {
            let (matrix, first, n_rows) = self.place(index);
            group.fill(0);
            for row in 0..n_rows {
                packing::put_row(
                    kind,
                    self.stored.row(matrix, first + row),
                    row,
                    &mut group[..self.groups.group_bytes],
                );
            }
        });
    }
}
