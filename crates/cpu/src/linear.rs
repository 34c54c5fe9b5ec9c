//! Linear maps: which thread computes which outputs of which rows.

use std::ops::Range;

use crate::kernels::{Kernels, Lanes, ROWS, TILE};
use crate::matrix::{Layout, Matrix, Part};
use crate::panel::Panel;
use crate::pool::{Disjoint, Pool};

/// Rows that go through a strip of weights together. Their eight-bit form stays in the second-level cache.
const BLOCK: usize = 64;
/// About as many bytes of weights make a strip, which stays in the second-level cache while all rows go through it: so
/// no weight is read from memory twice.
const STRIP_BYTES: usize = 1 << 17;
/// Row groups times rows that a kernel computes at once.
const RUN: usize = 64;
/// Multiply-adds below which another thread is not worth its wake-up.
const GRAIN: usize = 1 << 15;

/// Consecutive rows that go through one matrix.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) matrix: usize,
    pub(crate) rows: Range<usize>,
}

impl Segment {
    /// Parts of at most `len` rows.
    pub(crate) fn split(&self, len: usize) -> impl Iterator<Item = Segment> {
        let Self { matrix, rows } = self.clone();
        rows.clone().step_by(len).map(move |begin| Self { matrix, rows: begin..(begin + len).min(rows.end) })
    }
}

/// The rows that go through a map.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    /// `[T, n_in]`.
    pub(crate) values: &'a [f32],
    /// The same in eight bits, in tiles as [`Segment::split`] makes them, for maps with quantised weights.
    pub(crate) panel: Option<&'a Panel>,
    pub(crate) segments: &'a [Segment],
}

/// What happens to products before they are written.
#[derive(Clone, Copy)]
pub(crate) enum Epilogue<'a> {
    /// Adds a bias, if there is one, and then what is there already.
    Add { bias: Option<&'a [f32]>, onto: bool },
    /// `silu(gate + bias) · (up + bias)`, where the first half of the outputs is the gate.
    Swiglu { bias: Option<&'a [f32]> },
}

/// Sends `x` through the matrices that its segments name, into `out`.
pub(crate) fn apply(
    (pool, kernels): (&Pool, &dyn Kernels),
    w: &Matrix,
    x: Input<'_>,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let [_, n_out, n_in] = w.shape();
    let width = match epilogue {
        Epilogue::Add { .. } => n_out,
        Epilogue::Swiglu { .. } => n_out / 2,
    };
    let job = Job { kernels, w, x, epilogue, width, out: Disjoint::new(out) };
    let n_groups = match epilogue {
        Epilogue::Add { .. } => w.parts().iter().map(Part::n_groups).sum(),
        Epilogue::Swiglu { .. } => width.div_ceil(ROWS),
    };
    // Four bits an input: the usual format of weights that are not in the cache anyway.
    let strip = (STRIP_BYTES / (n_in * ROWS / 2).max(1)).max(1);
    let n_rows = x.segments.iter().map(|segment| segment.rows.len()).min().unwrap_or(0);
    let cost = (n_rows * n_in * ROWS * n_out).checked_div(width).unwrap_or(0).max(1);
    pool.run(x.segments.len() * n_groups, GRAIN.div_ceil(cost), &|range| {
        let mut at = range.start;
        while at < range.end {
            let (segment, first) = (&x.segments[at / n_groups], at % n_groups);
            let end = n_groups.min(first + strip.min(range.end - at));
            for block in segment.split(BLOCK) {
                let mut group = first;
                while group < end {
                    group += job.run(&block, group..end);
                }
            }
            at += end - first;
        }
    });
}

/// Whether [`Epilogue::Swiglu`] can be used: the gate's and the up projection's row groups must pair up.
pub(crate) fn pairs_up(w: &Matrix) -> bool {
    let half = w.shape()[1] / 2;
    half.is_multiple_of(ROWS) && w.parts().iter().all(|part| part.first_out().is_multiple_of(ROWS))
}

struct Job<'a> {
    kernels: &'a dyn Kernels,
    w: &'a Matrix,
    x: Input<'a>,
    epilogue: Epilogue<'a>,
    /// Values of an output row.
    width: usize,
    out: Disjoint<'a, f32>,
}

impl Job<'_> {
    /// Computes one block's outputs of a run of row groups, counted over all parts, that begins at `groups`; returns
    /// how many.
    fn run(&self, block: &Segment, groups: Range<usize>) -> usize {
        let n_rows = block.rows.len();
        let mut products = [[0.0f32; ROWS]; RUN];
        if let Epilogue::Swiglu { bias } = self.epilogue {
            let mut ups = [[0.0f32; ROWS]; RUN];
            let half = self.width / ROWS;
            let n_gates = self.products(block, groups.clone(), &mut products);
            let n_ups = self.products(block, half + groups.start..half + groups.start + n_gates, &mut ups);
            let n = n_gates.min(n_ups);
            for i in 0..n {
                let first = (groups.start + i) * ROWS;
                let range = i * n_rows..(i + 1) * n_rows;
                let (gates, ups) = (&mut products[range.clone()], &mut ups[range]);
                add_bias(bias, first, gates);
                add_bias(bias, self.width + first, ups);
                self.swiglu(block.rows.clone(), first, gates, ups);
            }
            return n;
        }
        let (part, first) = self.locate(groups.start);
        let n = self.products(block, groups, &mut products);
        for i in 0..n {
            let begin = (first + i) * ROWS;
            let outputs = part.first_out() + begin..part.first_out() + (begin + ROWS).min(part.n_out());
            self.add(block.rows.clone(), outputs, &mut products[i * n_rows..(i + 1) * n_rows]);
        }
        n
    }

    /// The part that holds row group `group`, and the group's index there.
    fn locate(&self, group: usize) -> (&Part, usize) {
        let mut group = group;
        let mut parts = self.w.parts().iter();
        loop {
            let part = parts.next().expect("a group's index is below the number of groups");
            if group < part.n_groups() {
                return (part, group);
            }
            group -= part.n_groups();
        }
    }

    /// The products of as many of `groups` as lie in one part and fit `out`, `[n][rows]`; returns how many.
    fn products(&self, block: &Segment, groups: Range<usize>, out: &mut [Lanes; RUN]) -> usize {
        let (part, first) = self.locate(groups.start);
        let n_rows = block.rows.len();
        // Several tiles take turns with one row group, which stays in the first cache.
        let most = if n_rows > TILE { 1 } else { RUN / n_rows };
        let n = groups.len().min(part.n_groups() - first).min(most);
        let weights = part.weights(block.matrix, first..first + n);
        let mut out = &mut out[..n * n_rows];
        match (part.layout(), self.x.panel) {
            (Layout::Quantised(kind), Some(panel)) => {
                for tile in block.split(TILE) {
                    let (now, later) = std::mem::take(&mut out).split_at_mut(n * tile.rows.len());
                    self.kernels.dot_quantised(kind, weights, panel.tile(tile.rows, kind.group() == 16), now);
                    out = later;
                }
            }
            (Layout::Dense(format), _) => {
                let n_in = self.w.shape()[2];
                let x = &self.x.values[block.rows.start * n_in..block.rows.end * n_in];
                self.kernels.dot_dense(format, weights, x, out);
            }
            // Whoever calls `apply` brings a panel for quantised weights.
            (Layout::Quantised(_), None) => assert!(self.x.panel.is_some(), "eight-bit rows for quantised weights"),
        }
        n
    }

    fn swiglu(&self, rows: Range<usize>, first: usize, gates: &[Lanes], ups: &[Lanes]) {
        for (row, (gate, up)) in rows.zip(gates.iter().zip(ups)) {
            // SAFETY: a row group's outputs of a row are written by the one task that has this group and block.
            let out = unsafe { self.out.part(row * self.width + first..row * self.width + first + ROWS) };
            self.kernels.swiglu(gate, up, out);
        }
    }

    fn add(&self, rows: Range<usize>, outputs: Range<usize>, products: &mut [Lanes]) {
        let Epilogue::Add { bias, onto } = self.epilogue else { return };
        add_bias(bias, outputs.start, products);
        for (row, lanes) in rows.zip(products) {
            // SAFETY: a row group's outputs of a row are written by the one task that has this group and block, and
            // groups and blocks do not overlap.
            let out = unsafe { self.out.part(row * self.width + outputs.start..row * self.width + outputs.end) };
            if onto {
                for (out, value) in out.iter_mut().zip(&*lanes) {
                    *out += value;
                }
            } else {
                out.copy_from_slice(&lanes[..out.len()]);
            }
        }
    }
}

/// Adds the bias of the outputs from `first` on.
fn add_bias(bias: Option<&[f32]>, first: usize, products: &mut [Lanes]) {
    if let Some(bias) = bias {
        for lanes in products {
            for (value, bias) in lanes.iter_mut().zip(&bias[first..]) {
                *value += bias;
            }
        }
    }
}
