//! Products of two matrices of activations, as training needs them: forwards, and backwards for either operand.
//!
//! Both operands are packed as the kernel of [`dense`](crate::dense) or of [`pairs`] reads them, the one as a linear
//! map's weights, the other as its rows; whatever their strides are, the kernel is the same.
//!
//! Letters: M rows of the result, N its columns, K what is summed over.

use std::cell::RefCell;
use std::ops::Range;

use tensor::OpError;

use crate::Cpu;
use crate::aligned::LINE;
use crate::device::Precision;
use crate::kernels::{Dense, Kernels, Lanes, ROWS, RowGroups};
use crate::linear::DENSE_ROWS;
use crate::pairs::{self, Operand};
use crate::pool::{Disjoint, Pool};

/// Row groups that a unit of work multiplies with up to [`DENSE_ROWS`] rows.
const GROUPS: usize = 4;
/// Rows that are packed together where a row's neighbours lie beside it: a few lines of memory. A multiple of [`ROWS`].
const TOGETHER: usize = 4 * ROWS;
/// Multiply-adds below which another thread is not worth its wake-up.
const GRAIN: usize = 1 << 15;
/// Units that a thread has at least, where there is enough to share out.
const UNITS: usize = 4;

/// A matrix whose rows and columns lie anywhere: element (i, c) is `values[i · row + c · column]`.
///
/// `[rows, columns]` row by row has `row: columns, column: 1`; its transpose is the same with the two exchanged.
#[derive(Debug, Clone, Copy)]
pub struct Strided<'a> {
    /// The numbers.
    pub values: &'a [f32],
    /// How far a row's beginning is from the one before.
    pub row: usize,
    /// How far two neighbours in a row are apart.
    pub column: usize,
}

/// What becomes of what stands where a result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// The result takes its place.
    Set,
    /// The result is added to it.
    Add,
}

/// One product of [`Cpu::products`].
#[derive(Debug)]
pub struct Product<'a> {
    /// `[M, N]`, row by row.
    pub out: &'a mut [f32],
    /// M, N and K.
    pub shape: [usize; 3],
    /// `[M, K]`.
    pub a: Strided<'a>,
    /// `[N, K]`.
    pub b: Strided<'a>,
    /// What becomes of what is in `out`.
    pub write: Write,
}

impl Cpu {
    /// `out[i][j]` is set to, or has added to it, the sum over c of `a[i, c] · b[j, c]`.
    ///
    /// `shape` is M, N and K: `out` is `[M, N]` row by row, `a` `[M, K]`, `b` `[N, K]`. The sum has the order of
    /// additions of [`Device::linear`](tensor::Device::linear): chains of 16 fused multiply-adds from 0, and the chains'
    /// sums one after another from 0; in [`Precision::Bf16`], that of `pairs`. Only then is it added. Bits depend
    /// neither on strides nor on threads.
    ///
    /// Rows `x [T, K]` through weights `w [N, K]`: `a` is x, `b` is w. Its gradients, from `g [T, N]`: for x, `a` is g and
    /// `b` the transpose of w; for w, `a` is the transpose of g and `b` that of x.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `out` is not M times N long or an operand's last element lies outside of its values.
    pub fn product(
        &self,
        out: &mut [f32],
        shape: [usize; 3],
        a: Strided<'_>,
        b: Strided<'_>,
        write: Write,
    ) -> Result<(), OpError> {
        self.products(&mut [Product { out, shape, a, b, write }])
    }

    /// Every one of `products` as [`product`](Self::product) does it, all of them shared out over the threads together:
    /// for many that are too small to be shared out one by one, such as experts with the rows that came to each.
    ///
    /// # Errors
    /// As [`product`](Self::product), before anything is written.
    pub fn products(&self, products: &mut [Product<'_>]) -> Result<(), OpError> {
        products.iter().try_for_each(Product::check)?;
        let mut len = 0;
        let layout = Layout::new(self);
        let jobs: Vec<Job<'_>> = products.iter_mut().map(|product| Job::new(product, layout, &mut len)).collect();
        len += layout.behind(&jobs);
        let mut packed = self.values(len + LINE / size_of::<f32>());
        let begin = packed.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
        let packed = &mut packed[begin..begin + len];
        let pieces: Vec<Piece<'_, '_>> = jobs.iter().flat_map(Job::pieces).collect();
        let to = Disjoint::new(packed);
        balanced(self.pool(), &pieces, Piece::cost, |piece| {
            // SAFETY: pieces do not overlap, and each is packed once.
            piece.pack(self.kernels(), unsafe { to.part(piece.begin()..piece.begin() + piece.cost()) });
        });
        let cost: usize = jobs.iter().map(|job| job.shape.iter().product::<usize>()).sum();
        let most = cost / (UNITS * self.threads());
        let units: Vec<Unit<'_, '_>> = jobs.iter().flat_map(|job| job.units(most)).collect();
        balanced(self.pool(), &units, Unit::cost, |unit| unit.run(self.kernels(), packed));
        Ok(())
    }
}

impl Product<'_> {
    fn check(&self) -> Result<(), OpError> {
        let [m, n, k] = self.shape;
        let too_large = || OpError::shape("product", format!("[{m}, {n}, {k}] is too large"));
        let groups = n.checked_next_multiple_of(ROWS).and_then(|n| n.checked_mul(k));
        groups.and_then(|_| m.checked_mul(k)?.checked_mul(n)).ok_or_else(too_large)?;
        if Some(self.out.len()) != m.checked_mul(n) {
            return Err(OpError::shape("product", format!("the result has {} numbers, not {m} · {n}", self.out.len())));
        }
        self.a.check("a", m, k)?;
        self.b.check("b", n, k)
    }
}

impl Strided<'_> {
    fn check(&self, name: &str, n_rows: usize, n_columns: usize) -> Result<(), OpError> {
        let (Some(row), Some(column)) = (n_rows.checked_sub(1), n_columns.checked_sub(1)) else { return Ok(()) };
        let last = row.checked_mul(self.row).zip(column.checked_mul(self.column)).and_then(|(a, b)| a.checked_add(b));
        if last.is_some_and(|last| last < self.values.len()) {
            return Ok(());
        }
        let Self { values, row, column } = self;
        let what =
            format!("{name} is [{n_rows}, {n_columns}] in steps of {row} and {column}: more than {}", values.len());
        Err(OpError::shape("product", what))
    }

    /// Lays `rows` side by side: element 0 of each, then element 1 of each, as many elements as `out`, which is `width`
    /// for each, has room for. Where there are fewer rows than `width`, zeros follow.
    fn pack(&self, kernels: &dyn Kernels, rows: Range<usize>, width: usize, out: &mut [f32]) {
        let Self { values, row, column } = *self;
        if column == 1 {
            let mut x = [(&[][..], 1.0); ROWS];
            let k = out.len() / width;
            x.iter_mut().zip(rows.clone()).for_each(|(x, i)| x.0 = &values[i * row..][..k]);
            return kernels.interleave(&x[..rows.len()], width, out);
        }
        if row == 1 && rows.len() == width {
            return match width {
                16 => copy_across::<16>(&values[rows.start..], column, out),
                12 => copy_across::<12>(&values[rows.start..], column, out),
                4 => copy_across::<4>(&values[rows.start..], column, out),
                _ => self.gather(rows, width, out),
            };
        }
        self.gather(rows, width, out);
    }

    /// [`pack`](Self::pack) for strides of any kind.
    fn gather(&self, rows: Range<usize>, width: usize, out: &mut [f32]) {
        let Self { values, row, column } = *self;
        for (c, out) in out.chunks_exact_mut(width).enumerate() {
            out.fill(0.0);
            out.iter_mut().zip(rows.clone()).for_each(|(out, i)| *out = values[i * row + c * column]);
        }
    }
}

/// The first `W` of `values`, then as many from `stride` on, and so on.
fn copy_across<const W: usize>(values: &[f32], stride: usize, out: &mut [f32]) {
    for (c, out) in out.as_chunks_mut::<W>().0.iter_mut().enumerate() {
        // A length that the compiler knows is a few instructions instead of a call.
        if let Some(values) = values[c * stride..].first_chunk() {
            *out = *values;
        }
    }
}

/// How operands are packed.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// In tiles of so many rows.
    Tiles(usize),
    /// In pairs of bfloat16, each in a number's place.
    Pairs,
}

impl Layout {
    fn new(cpu: &Cpu) -> Self {
        match cpu.precision() {
            Precision::F32 => Self::Tiles(cpu.kernels().dense_columns()),
            Precision::Bf16 => Self::Pairs,
        }
    }

    /// Numbers' places of a row of `k`.
    fn row(self, k: usize) -> usize {
        match self {
            Self::Tiles(_) => k,
            Self::Pairs => pairs::n_pairs(k),
        }
    }

    /// Rows that units begin at multiples of.
    fn columns(self) -> usize {
        match self {
            Self::Tiles(columns) => columns,
            Self::Pairs => ROWS,
        }
    }

    /// Rows of `operand` that are packed together, `least` or more: where neighbours lie side by side in memory, a line
    /// of it for each input brings several.
    fn together(self, operand: &Strided<'_>, least: usize) -> usize {
        match self {
            Self::Pairs if operand.row == 1 => least.max(TOGETHER),
            Self::Pairs | Self::Tiles(_) => least,
        }
    }

    /// Places behind the last operand that kernels may read.
    fn behind(self, jobs: &[Job<'_>]) -> usize {
        match self {
            Self::Tiles(_) => 0,
            Self::Pairs => pairs::BEHIND * jobs.iter().map(|job| job.row).max().unwrap_or(0),
        }
    }
}

/// A product and where its operands are packed.
struct Job<'a> {
    out: Disjoint<'a, f32>,
    shape: [usize; 3],
    a: Strided<'a>,
    b: Strided<'a>,
    write: Write,
    layout: Layout,
    /// Places of a row.
    row: usize,
    /// Where row groups of `b` begin; rows of `a` follow.
    begin: usize,
}

impl<'a> Job<'a> {
    /// Takes the room that it needs from `len` on.
    fn new(product: &'a mut Product<'_>, layout: Layout, len: &mut usize) -> Self {
        let Product { out, shape, a, b, write } = product;
        let begin = *len;
        let [m, n, k] = *shape;
        let row = layout.row(k);
        *len += (n.next_multiple_of(ROWS) * row + m * row).next_multiple_of(ROWS);
        Self { out: Disjoint::new(out), shape: *shape, a: *a, b: *b, write: *write, layout, row, begin }
    }

    /// Where rows of `a` begin.
    fn rows_begin(&self) -> usize {
        self.begin + self.shape[1].next_multiple_of(ROWS) * self.row
    }

    /// What is packed: row groups of `b`, and tiles of rows of `a`, of which the last may be narrower.
    fn pieces(&self) -> impl Iterator<Item = Piece<'_, 'a>> {
        let [m, n, _] = self.shape;
        let cut = |all: usize, width: usize| (0..all).step_by(width).map(move |i| i..(i + width).min(all));
        let groups = cut(n, self.layout.together(&self.b, ROWS));
        let groups = groups.map(|rows| Piece { job: self, is_group: true, rows });
        let tiles = cut(m, self.layout.together(&self.a, self.layout.columns()));
        let tiles = tiles.map(|rows| Piece { job: self, is_group: false, rows });
        groups.chain(tiles)
    }

    /// Parts of the result: [`GROUPS`] row groups by [`DENSE_ROWS`] rows, or fewer if they would cost more than `most`.
    fn units(&self, most: usize) -> impl Iterator<Item = Unit<'_, 'a>> {
        let [m, n, k] = self.shape;
        let columns = self.layout.columns();
        let n_groups = n.div_ceil(ROWS);
        let n_rows = (most / (GROUPS.min(n_groups) * ROWS * k).max(1)).clamp(columns, DENSE_ROWS) / columns * columns;
        (0..n_groups).step_by(GROUPS).flat_map(move |first| {
            (0..m).step_by(n_rows).map(move |row| Unit {
                job: self,
                groups: first..(first + GROUPS).min(n_groups),
                rows: row..(row + n_rows).min(m),
            })
        })
    }
}

/// Rows of an operand that are packed together.
struct Piece<'j, 'a> {
    job: &'j Job<'a>,
    /// Whether they are row groups of `b`, or else rows of `a`.
    is_group: bool,
    rows: Range<usize>,
}

impl Piece<'_, '_> {
    /// Rows that there is room for.
    fn width(&self) -> usize {
        if self.is_group { self.rows.len().next_multiple_of(ROWS) } else { self.rows.len() }
    }

    /// Places that are written.
    fn cost(&self) -> usize {
        self.width() * self.job.row
    }

    /// Where they go.
    fn begin(&self) -> usize {
        let operand = if self.is_group { self.job.begin } else { self.job.rows_begin() };
        operand + self.rows.start * self.job.row
    }

    fn pack(&self, kernels: &dyn Kernels, out: &mut [f32]) {
        let Job { a, b, shape: [_, _, k], layout, .. } = self.job;
        let (matrix, rows) = (if self.is_group { b } else { a }, self.rows.clone());
        match layout {
            Layout::Tiles(_) => matrix.pack(kernels, rows, self.width(), out),
            Layout::Pairs => {
                let operand = Operand { matrix: *matrix, rows, n_in: *k, factor: 1.0, is_group: self.is_group };
                kernels.pack_pairs(&operand, bytemuck::cast_slice_mut(out));
            }
        }
    }
}

/// A part of a result.
struct Unit<'j, 'a> {
    job: &'j Job<'a>,
    groups: Range<usize>,
    rows: Range<usize>,
}

impl Unit<'_, '_> {
    /// Multiply-adds.
    fn cost(&self) -> usize {
        self.rows.len() * self.groups.len() * ROWS * self.job.shape[2].max(1)
    }

    fn run(&self, kernels: &dyn Kernels, packed: &[f32]) {
        let Job { out, shape: [_, n, _], write, begin, layout, row, .. } = self.job;
        let Range { start, end } = self.groups;
        let weights = bytes(&packed[begin + start * ROWS * row..begin + end * ROWS * row]);
        let group = ROWS * row * size_of::<f32>();
        let weights = RowGroups::new(weights, [group, group, end - start]);
        let x = &packed[self.job.rows_begin() + self.rows.start * row..];
        ROOM.with_borrow_mut(|room| {
            let sums = &mut room.0[..self.groups.len() * self.rows.len()];
            match layout {
                Layout::Tiles(_) => kernels.dot_dense(Dense::F32, weights, &x[..self.rows.len() * row], sums),
                Layout::Pairs => kernels.dot_pairs(weights, bytemuck::cast_slice(x), sums),
            }
            for (group, sums) in self.groups.clone().zip(sums.chunks_exact(self.rows.len())) {
                let outputs = group * ROWS..(group * ROWS + ROWS).min(*n);
                for (row, sums) in self.rows.clone().zip(sums) {
                    // SAFETY: units are different rows or different row groups of a result, and each runs once.
                    let out = unsafe { out.part(row * n + outputs.start..row * n + outputs.end) };
                    // Almost always all of a group's rows, which is a few instructions where the compiler knows it.
                    match (<&mut Lanes>::try_from(&mut *out), write) {
                        (Ok(out), Write::Set) => *out = *sums,
                        (Ok(out), Write::Add) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
                        (Err(_), Write::Set) => out.copy_from_slice(&sums[..out.len()]),
                        (Err(_), Write::Add) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
                    }
                }
            }
        });
    }
}

/// Sums of a unit. Vectors that lie across two cache lines would be added to at half the speed.
#[repr(align(64))]
struct Sums([Lanes; GROUPS * DENSE_ROWS]);

thread_local! {
    /// Room for the sums of a unit. Kept, since zeroing it takes a good part of the time of small products.
    static ROOM: RefCell<Box<Sums>> = RefCell::new(Box::new(Sums([[0.0; ROWS]; GROUPS * DENSE_ROWS])));
}

/// The bytes of `values`.
fn bytes(values: &[f32]) -> &[u8] {
    // SAFETY: every byte of a number is one of the slice's, and a byte needs no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Does `work` with every one of `items` on all threads, which get as much of what they cost together.
fn balanced<T: Sync>(pool: &Pool, items: &[T], cost: impl Fn(&T) -> usize, work: impl Fn(&T) + Sync) {
    let mut end = 0;
    let ends: Vec<usize> = items
        .iter()
        .map(|item| {
            end += cost(item);
            end
        })
        .collect();
    pool.run(end, GRAIN, &|range| {
        // Whoever has an item's last unit of cost does it.
        let first = ends.partition_point(|end| *end <= range.start);
        let last = ends.partition_point(|end| *end <= range.end);
        items[first..last].iter().for_each(&work);
    });
}
