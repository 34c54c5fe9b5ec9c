//! Linear maps: which thread computes which outputs of which rows.

use std::cell::RefCell;
use std::ops::Range;

use crate::kernels::{Kernels, Lanes, ROWS};
use crate::matrix::{Layout, Matrix, Part};
use crate::pairs;
use crate::panel::Panel;
use crate::pool::{Disjoint, Pool};
use crate::quantised::{FEW, GROUPS};

/// Rows that go through a strip of weights together. Their eight-bit form stays in the second-level cache.
const BLOCK: usize = 64;
/// The same for matrices with unquantised weights: some of their inputs, all sums and some row groups' weights of these
/// inputs share that cache. A multiple of all widths of tiles.
pub(crate) const DENSE_ROWS: usize = 240;
/// About as many bytes of weights make a strip, which stays in the second-level cache while all rows go through it: so
/// no weight is read from memory twice.
const STRIP_BYTES: usize = 1 << 18;
/// Row groups times rows that a kernel computes at once.
const RUN: usize = 128;
/// The same with [`DENSE_ROWS`] rows.
const DENSE_RUN: usize = 4 * DENSE_ROWS;
/// Multiply-adds below which another thread is not worth its wake-up.
const GRAIN: usize = 1 << 15;

thread_local! {
    /// Room for products and, with [`Epilogue::Swiglu`], for those that they are multiplied by. Kept, since zeroing it
    /// takes as long as the products of a row.
    static ROOM: RefCell<Vec<Lanes>> = const { RefCell::new(Vec::new()) };
}

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
    /// `[T, n_in]` in tiles as [`Segment::split`] makes them, side by side, for maps with unquantised weights; for those
    /// in pairs of bfloat16, rows of pairs and room behind them.
    pub(crate) tiles: &'a [f32],
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
    let n_rows = x.segments.iter().map(|segment| segment.rows.len()).min().unwrap_or(0);
    let unit = if w.is_dense() || n_rows <= FEW { 1 } else { GROUPS };
    // Four bits an input: the usual format of weights that are not in the cache anyway.
    let strip = (STRIP_BYTES / (unit * n_in * ROWS / 2).max(1)).max(1);
    let (strip, rows) = if w.is_dense() { (strip.max(DENSE_RUN / DENSE_ROWS), DENSE_ROWS) } else { (strip, BLOCK) };
    let cost = (n_rows * n_in * ROWS * n_out).checked_div(width).unwrap_or(0).max(1);
    let grain = GRAIN.div_ceil(cost * unit);
    let has_long_blocks = w.is_dense() && x.segments.iter().any(|segment| segment.rows.len() > BLOCK);
    let run = if has_long_blocks { DENSE_RUN } else { RUN };
    pool.run(x.segments.len() * n_groups.div_ceil(unit), grain, &|range| {
        ROOM.with_borrow_mut(|room| {
            if room.len() < 2 * run {
                room.resize(2 * run, [0.0; ROWS]);
            }
            let (products, ups) = room[..2 * run].split_at_mut(run);
            job.strips(range, (n_groups, unit), (strip, rows), [products, ups]);
        });
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
    /// Computes the outputs of `range`, which counts units of `unit` row groups, those of one segment after those of
    /// another: strips of `strip` units, through each of which go blocks of `rows` rows.
    fn strips(
        &self,
        range: Range<usize>,
        (n_groups, unit): (usize, usize),
        (strip, rows): (usize, usize),
        [products, ups]: [&mut [Lanes]; 2],
    ) {
        let n_units = n_groups.div_ceil(unit);
        let mut at = range.start;
        while at < range.end {
            let (segment, first) = (&self.x.segments[at / n_units], at % n_units);
            let n = strip.min(range.end - at).min(n_units - first);
            let end = n_groups.min((first + n) * unit);
            for block in segment.split(rows) {
                let mut group = first * unit;
                while group < end {
                    group += self.run(&block, group..end, [products, ups]);
                }
            }
            at += n;
        }
    }

    /// Computes one block's outputs of a run of row groups, counted over all parts, that begins at `groups`; returns
    /// how many.
    fn run(&self, block: &Segment, groups: Range<usize>, [products, ups]: [&mut [Lanes]; 2]) -> usize {
        let n_rows = block.rows.len();
        if let Epilogue::Swiglu { bias } = self.epilogue {
            let half = self.width / ROWS;
            let n_gates = self.products(block, groups.clone(), products);
            let n_ups = self.products(block, half + groups.start..half + groups.start + n_gates, ups);
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
        let n = self.products(block, groups, products);
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
    fn products(&self, block: &Segment, groups: Range<usize>, out: &mut [Lanes]) -> usize {
        let (part, first) = self.locate(groups.start);
        let n_rows = block.rows.len();
        let n = groups.len().min(part.n_groups() - first).min(out.len() / n_rows);
        let weights = part.weights(block.matrix, first..first + n);
        let out = &mut out[..n * n_rows];
        match (part.layout(), self.x.panel) {
            (Layout::Quantised(kind), Some(panel)) => {
                self.kernels.dot_quantised(kind, weights, (panel, block.rows.clone()), out);
            }
            (Layout::Dense(format), _) => {
                let n_in = self.w.shape()[2];
                let x = &self.x.tiles[block.rows.start * n_in..block.rows.end * n_in];
                self.kernels.dot_dense(format, weights, x, out);
            }
            (Layout::Pairs, _) => {
                let x = &self.x.tiles[block.rows.start * pairs::n_pairs(self.w.shape()[2])..];
                self.kernels.dot_pairs(weights, bytemuck::cast_slice(x), out);
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
            // Almost always all of a group's rows, which is a few instructions where the compiler knows it.
            match <&mut Lanes>::try_from(&mut *out) {
                Ok(out) => write(out, lanes, onto),
                Err(_) => write(out, lanes, onto),
            }
        }
    }
}

/// Writes as many of `values` as `out` has, or adds them to what is there.
#[inline(always)]
fn write(out: &mut [f32], values: &Lanes, onto: bool) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = if onto { *out + value } else { *value };
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
