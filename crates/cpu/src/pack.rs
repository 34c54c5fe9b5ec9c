//! From stored rows to packed row groups.

use std::sync::atomic::{AtomicBool, Ordering};

use tensor::quant::Kind;
use tensor::{Format, Orientation, WeightSource};

use crate::kernels::{Dense, Integers, Quantised, ROWS, Scales};
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

    /// Packs quantised weights; `false` if a scale or offset does not fit `layout` exactly.
    pub(crate) fn quantised(&self, pool: &Pool, layout: Quantised, out: &mut [u8]) -> bool {
        let Format::Block(kind) = self.source.format() else { return false };
        let exact = AtomicBool::new(true);
        pool.chunks(out, self.stride, 1, |index, group| {
            if !exact.load(Ordering::Relaxed) {
                return;
            }
            let (matrix, first, n_rows) = self.place(index);
            let n_in = self.source.shape()[2];
            let mut row = Row::new(n_in, kind);
            for lane in 0..n_rows {
                if let Some(raw) = self.source.row(matrix, first + lane) {
                    kind.integers(raw, &mut row.q, &mut row.scale, &mut row.offset);
                }
                if !row.put(layout, lane, &mut group[..self.group_bytes]) {
                    exact.store(false, Ordering::Relaxed);
                }
            }
        });
        exact.into_inner()
    }
}

/// One output's weights in integer form.
struct Row {
    q: Vec<i8>,
    scale: Vec<f32>,
    offset: Vec<f32>,
}

impl Row {
    fn new(n_in: usize, kind: Kind) -> Self {
        let n_groups = n_in / kind.group();
        Self { q: vec![0; n_in], scale: vec![0.0; n_groups], offset: vec![0.0; n_groups] }
    }

    /// Writes the row to lane `lane` of a row group; `false` if a scale or offset was rounded.
    fn put(&self, layout: Quantised, lane: usize, out: &mut [u8]) -> bool {
        let size = layout.scales.bytes();
        let mut exact = true;
        let groups = out.chunks_exact_mut(layout.group_bytes()).zip(self.q.chunks_exact(layout.group));
        for (((group, q), scale), offset) in groups.zip(&self.scale).zip(&self.offset) {
            let (head, body) = group.split_at_mut(layout.head_bytes());
            exact &= put_scale(layout.scales, *scale, &mut head[lane * size..][..size]);
            if layout.offsets {
                exact &= put_scale(layout.scales, *offset, &mut head[(ROWS + lane) * size..][..size]);
            }
            let pieces = body.as_chunks_mut::<4>().0.iter_mut().skip(lane).step_by(ROWS);
            match layout.integers {
                Integers::Bytes => {
                    for (piece, q) in pieces.zip(q.as_chunks::<4>().0) {
                        *piece = q.map(i8::cast_unsigned);
                    }
                }
                Integers::Nibbles { bias } => {
                    let nibble = |q: i8| ((i32::from(q) - bias) as u8) & 15;
                    for (piece, q) in pieces.zip(q.as_chunks::<8>().0) {
                        *piece = std::array::from_fn(|i| nibble(q[i]) | nibble(q[i + 4]) << 4);
                    }
                }
            }
        }
        exact
    }
}

/// Writes `value`; whether it reads back the same.
fn put_scale(scales: Scales, value: f32, out: &mut [u8]) -> bool {
    match scales {
        Scales::F16 => {
            let half = half::f16::from_f32(value);
            out.copy_from_slice(&half.to_le_bytes());
            half.to_f32().to_bits() == value.to_bits()
        }
        Scales::F32 => {
            out.copy_from_slice(&value.to_le_bytes());
            true
        }
    }
}
