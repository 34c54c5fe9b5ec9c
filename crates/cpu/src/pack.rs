//! From stored rows to packed row groups.

use tensor::quant::Kind;
use tensor::{Orientation, WeightSource};

use crate::kernels::{Dense, ROWS};
use crate::packing;
use crate::pool::Pool;

/// Row groups that are packed together from an input-major matrix, so that each visit to a stored row reads some cache
/// lines whole.
const SWEEP: usize = 8;

/// One weight on its way into row groups.
pub(crate) struct Job<'a> {
    pub(crate) source: &'a WeightSource,
    /// Row groups of one matrix.
    pub(crate) n_groups: usize,
    /// Bytes of a row group.
    pub(crate) group_bytes: usize,
    /// Bytes from one row group to the next.
    pub(crate) stride: usize,
}

impl Job<'_> {
    /// The matrix and the first output of row group `index`, and how many outputs the group has.
    fn place(&self, index: usize) -> (usize, usize, usize) {
        let first = index % self.n_groups * ROWS;
        (index / self.n_groups, first, (self.source.shape()[1] - first).min(ROWS))
    }

    /// Packs unquantised weights.
    pub(crate) fn dense(&self, pool: &Pool, format: Dense, out: &mut [u8]) {
        match format {
            Dense::F32 => self.dense_of::<4>(pool, out),
            Dense::F16 | Dense::BF16 => self.dense_of::<2>(pool, out),
        }
    }

    fn dense_of<const BYTES: usize>(&self, pool: &Pool, out: &mut [u8]) {
        match self.source.orientation() {
            Orientation::OutIn => pool.chunks(out, self.stride, 1, |index, group| {
                let (matrix, first, n_rows) = self.place(index);
                let mut rows: [&[[u8; BYTES]]; ROWS] = [&[]; ROWS];
                for (i, row) in rows.iter_mut().take(n_rows).enumerate() {
                    *row = self.source.row(matrix, first + i).map_or(&[], |raw| raw.as_chunks().0);
                }
                let inputs = group[..self.group_bytes].as_chunks_mut::<BYTES>().0.as_chunks_mut::<ROWS>().0;
                for (k, lanes) in inputs.iter_mut().enumerate() {
                    for (lane, row) in lanes.iter_mut().zip(&rows[..n_rows]) {
                        *lane = row[k];
                    }
                }
            }),
            Orientation::InOut => pool.chunks(out, self.stride * SWEEP, 1, |sweep, groups| {
                let [_, n_out, n_in] = self.source.shape();
                let stored = self.source.bytes().as_chunks::<BYTES>().0;
                for k in 0..n_in {
                    for (i, group) in groups.chunks_exact_mut(self.stride).enumerate() {
                        let (matrix, first, n_rows) = self.place(sweep * SWEEP + i);
                        let lanes = &mut group.as_chunks_mut::<BYTES>().0[k * ROWS..][..n_rows];
                        lanes.copy_from_slice(&stored[(matrix * n_in + k) * n_out + first..][..n_rows]);
                    }
                }
            }),
        }
    }

    /// Packs quantised weights.
    pub(crate) fn quantised(&self, pool: &Pool, kind: Kind, out: &mut [u8]) {
        pool.chunks(out, self.stride, 1, |index, group| {
            let (matrix, first, n_rows) = self.place(index);
            for row in 0..n_rows {
                if let Some(stored) = self.source.row(matrix, first + row) {
                    packing::put_row(kind, stored, row, &mut group[..self.group_bytes]);
                }
            }
        });
    }
}
