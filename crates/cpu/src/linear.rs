//! Linear maps: which thread computes which outputs of which rows.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::column::Column;
use crate::kernels::{Kernels, Lanes, ROWS};
use crate::matrix::{Layout, Matrix};
use crate::pool::{Disjoint, Pool};

/// Rows that one pass over the weights serves. Their eight-bit form stays in the second-level cache.
const BLOCK: usize = 64;

/// Multiply-adds below which another thread is not worth its wake-up.
const GRAIN: usize = 1 << 15;

/// Consecutive rows that go through one matrix.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) matrix: usize,
    pub(crate) rows: Range<usize>,
}

/// What linear maps run on.
pub(crate) struct Linear {
    /// Eight-bit rows, kept for their allocations.
    columns: Mutex<Vec<Column>>,
}

impl Linear {
    pub(crate) fn new() -> Self {
        Self { columns: Mutex::new(Vec::new()) }
    }

    /// Sends the rows of `x` through the matrices that `segments` name and adds `bias`: `[T, n_in]` to `[T, n_out]`.
    pub(crate) fn apply(
        &self,
        (pool, kernels): (&Pool, &dyn Kernels),
        w: &Matrix,
        bias: Option<&[f32]>,
        x: &[f32],
        segments: &[Segment],
    ) -> Vec<f32> {
        let [_, n_out, n_in] = w.shape();
        let n_rows = x.len().checked_div(n_in).unwrap_or(0);
        let mut columns = std::mem::take(&mut *self.columns.lock().unwrap_or_else(PoisonError::into_inner));
        if w.is_quantised() {
            quantise(pool, kernels, x, n_in, n_rows, &mut columns);
        }
        let mut out = vec![0.0; n_rows * n_out];
        let job = Job { kernels, w, bias, x, columns: &columns, out: Disjoint::new(&mut out) };
        job.run(pool, &blocks(segments));
        *self.columns.lock().unwrap_or_else(PoisonError::into_inner) = columns;
        out
    }
}

/// Brings the rows of `x` to eight bits in `columns`.
fn quantise(pool: &Pool, kernels: &dyn Kernels, x: &[f32], n_in: usize, n_rows: usize, columns: &mut Vec<Column>) {
    if columns.len() < n_rows {
        columns.resize_with(n_rows, Column::default);
    }
    pool.chunks(&mut columns[..n_rows], 1, (GRAIN / 8).div_ceil(n_in.max(1)), |i, column| {
        for column in column {
            column.resize(n_in);
            kernels.quantise(&x[i * n_in..(i + 1) * n_in], column);
        }
    });
}

/// Splits segments into blocks of at most [`BLOCK`] rows.
fn blocks(segments: &[Segment]) -> Vec<Segment> {
    let split = |segment: &Segment| {
        let Segment { matrix, rows } = segment.clone();
        rows.clone().step_by(BLOCK).map(move |begin| Segment { matrix, rows: begin..(begin + BLOCK).min(rows.end) })
    };
    segments.iter().flat_map(split).collect()
}

struct Job<'a> {
    kernels: &'a dyn Kernels,
    w: &'a Matrix,
    bias: Option<&'a [f32]>,
    x: &'a [f32],
    columns: &'a [Column],
    out: Disjoint<'a, f32>,
}

impl Job<'_> {
    /// Goes through all row groups for the first block, then for the second, and so on.
    fn run(&self, pool: &Pool, blocks: &[Segment]) {
        let n_groups: usize = self.w.parts().iter().map(|part| part.n_groups()).sum();
        let n_rows = blocks.first().map_or(0, |block| block.rows.len());
        let cost = (n_rows * self.w.shape()[2] * ROWS).max(1);
        pool.run(blocks.len() * n_groups, GRAIN.div_ceil(cost), &|range| {
            for i in range {
                self.group(&blocks[i / n_groups], i % n_groups);
            }
        });
    }

    /// Computes the outputs of row group `index`, counted over all parts, for one block.
    fn group(&self, block: &Segment, index: usize) {
        let mut group = index;
        for part in self.w.parts() {
            if group >= part.n_groups() {
                group -= part.n_groups();
                continue;
            }
            let mut acc = [[0.0f32; ROWS]; BLOCK];
            let acc = &mut acc[..block.rows.len()];
            let weights = part.weights(block.matrix, group);
            match part.layout() {
                Layout::Dense(format) => {
                    let n_in = self.w.shape()[2];
                    let x = &self.x[block.rows.start * n_in..block.rows.end * n_in];
                    self.kernels.dot_dense(format, weights, x, acc);
                }
                Layout::Quantised(layout) => {
                    self.kernels.dot_quantised(layout, weights, &self.columns[block.rows.clone()], acc);
                }
            }
            return self.write(block.rows.clone(), part.outputs(group), acc);
        }
    }

    fn write(&self, rows: Range<usize>, outputs: Range<usize>, acc: &[Lanes]) {
        let n_out = self.w.shape()[1];
        for (row, lanes) in rows.zip(acc) {
            // SAFETY: a row group's outputs of a row are written by the one task that has this group and block, and
            // groups and blocks do not overlap.
            let out = unsafe { self.out.part(row * n_out + outputs.start..row * n_out + outputs.end) };
            match self.bias {
                Some(bias) => {
                    for ((out, value), bias) in out.iter_mut().zip(lanes).zip(&bias[outputs.clone()]) {
                        *out = value + bias;
                    }
                }
                None => out.copy_from_slice(&lanes[..out.len()]),
            }
        }
    }
}
