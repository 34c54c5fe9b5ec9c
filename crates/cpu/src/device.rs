//! [`Cpu`]: checks shapes, then hands rows to kernels on the pool's threads.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use tensor::{Bytes, Choice, Device, KvFormat, OpError, Orientation, PAGE_LEN, Rotation, RowKeys, WeightSource};

use crate::arena::{Arena, Lease};
use crate::attention;
use crate::cores;
use crate::experts::{ExpertStats, Experts};
use crate::isa::{self, Isa};
use crate::kernels::{Kernels, TILE};
use crate::linear::{self, Epilogue, Input, Segment};
use crate::pairs::{self, Operand};
use crate::panel::Panel;
use crate::pool::{Disjoint, Pool};
use crate::product::Strided;
use crate::values::Values;
use crate::{Matrix, Pages, Routing, Table, Tensor, Vector, matrix};

/// Values of cheap elementwise work below which another thread is not worth its wake-up.
pub(crate) const GRAIN: usize = 1 << 13;

/// How to set a [`Cpu`] up. The default uses what the machine has.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuOptions {
    /// Threads, the caller's included; one for each physical core that the process may use if `None`.
    pub threads: Option<NonZeroUsize>,
    /// The richest instruction set to use. It lowers what was detected and never raises it.
    pub isa: Option<Isa>,
    /// What products are computed from.
    pub precision: Precision,
}

/// What products of unquantised weights, and of activations with activations, are computed from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// The numbers as they are: equal to [`tensor::Reference`] to the bit.
    #[default]
    F32,
    /// Numbers rounded to bfloat16, their products summed in f32: several times as fast where the processor has tiles
    /// for it. All instruction sets give the same bits, but where a sum is subnormal.
    Bf16,
}

/// The fast CPU device. Equal to [`tensor::Reference`] to the bit, but in [`Precision::Bf16`].
pub struct Cpu {
    pool: Pool,
    kernels: Box<dyn Kernels>,
    isa: Isa,
    precision: Precision,
    numbers: Arc<Arena<Vec<f32>>>,
    panels: Arc<Arena<Panel>>,
    /// Where experts go that stay in their files.
    experts: Option<Experts>,
    /// Widths of the rows that all go through a map with quantised weights.
    quantised_widths: RwLock<BTreeSet<usize>>,
}

impl Cpu {
    /// A device with its own threads, which live as long as it does.
    pub fn new(options: CpuOptions) -> Self {
        let available = || {
            let logical = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
            let physical = cores::physical().and_then(|cores| NonZeroUsize::new(cores.len()));
            physical.map_or(logical, |physical| physical.min(logical))
        };
        let (isa, kernels) = isa::choose(options.isa);
        let pool = Pool::new(options.threads.unwrap_or_else(available));
        let (numbers, panels) = (Arc::default(), Arc::default());
        let precision = options.precision;
        Self { pool, kernels, isa, precision, numbers, panels, experts: None, quantised_widths: RwLock::default() }
    }

    /// The device with a cache of experts: maps of several matrices that it is given from now on stay in their files,
    /// and what rows go through is read into at most `limit_bytes`, but room for one expert of each map at least. All
    /// other weights are copied to memory and locked there where the system allows it, so that files can be shortened
    /// or lost while the model is in use without more than an error.
    #[must_use]
    pub fn with_expert_cache(self, limit_bytes: usize) -> Self {
        Self { experts: Some(Experts::new(limit_bytes)), ..self }
    }

    /// What the cache of experts has done, if there is one.
    pub fn expert_stats(&self) -> Option<ExpertStats> {
        self.experts.as_ref().map(Experts::stats)
    }

    /// Matrix `matrix` of `source` as [`tensor::packed`] row groups, for a file that holds them.
    ///
    /// # Errors
    /// [`OpError::Index`] if there is no such matrix; [`OpError::Shape`] as in [`Device::matrix`].
    pub fn pack(&self, source: &WeightSource, matrix: usize) -> Result<Bytes, OpError> {
        matrix::pack(&self.pool, source, matrix)
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What products are computed from.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Threads in use, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.n_threads()
    }

    /// Bytes of the buffers that wait for their next use: between steps, all memory that steps have needed so far.
    pub fn work_bytes(&self) -> usize {
        self.numbers.sum(|buffer| 4 * buffer.len()) + self.panels.sum(Panel::size_bytes)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn kernels(&self) -> &dyn Kernels {
        &*self.kernels
    }

    fn engine(&self) -> (&Pool, &dyn Kernels) {
        (&self.pool, &*self.kernels)
    }

    /// Room for `len` numbers, whatever they are.
    pub(crate) fn values(&self, len: usize) -> Values {
        Values::new(&self.numbers, len)
    }

    pub(crate) fn copy(&self, values: &[f32]) -> Values {
        let mut copy = self.values(values.len());
        copy.copy_from_slice(values);
        copy
    }

    /// A tensor of `n_rows` rows of `width`, each written by `fill`, which gets its index.
    pub(crate) fn by_row(&self, n_rows: usize, width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Tensor {
        let mut out = self.values(n_rows * width);
        self.pool.chunks(&mut out, width, GRAIN / width.max(1), fill);
        Tensor::new(out, width)
    }

    fn bias<'a>(&self, op: &'static str, w: &Matrix, bias: Option<&'a Vector>) -> Result<Option<&'a [f32]>, OpError> {
        let n_out = w.shape()[1];
        check(op, "the bias's length", bias.map_or(n_out, |bias| bias.0.len()), n_out)?;
        Ok(bias.map(|bias| &*bias.0))
    }

    /// All rows of `x` through matrix 0 of `w`, into `out`.
    pub(crate) fn linear_into(
        &self,
        op: &'static str,
        w: &Matrix,
        x: &Tensor,
        epilogue: Epilogue<'_>,
        mut out: Values,
    ) -> Result<Tensor, OpError> {
        let [n_matrices, _, n_in] = w.shape();
        check(op, "the input's width", x.width(), n_in)?;
        if n_matrices == 0 || w.streamed().is_some() {
            return Err(OpError::shape(op, "the map holds no matrix, or experts alone"));
        }
        let segments = [Segment { matrix: 0, rows: 0..x.n_rows() }];
        let panel = w.is_quantised().then(|| x.panel(|| self.quantise(&segments, x.width(), |i| (x.row(i), 1.0))));
        // One row is a tile as it is.
        let has_tiles = w.is_dense() && (x.n_rows() > 1 || w.is_paired());
        let tiles = has_tiles.then(|| self.tiles(w, &segments, |i| (x.row(i), 1.0)));
        let tiles = tiles.as_deref().unwrap_or(x.values());
        linear::apply(self.engine(), w, Input { tiles, panel, segments: &segments }, epilogue, &mut out);
        let width = out.len().checked_div(x.n_rows()).unwrap_or(w.shape()[1]);
        Ok(Tensor::new(out, width))
    }

    /// Rows grouped by expert through the experts of `w`, into `out`, wherever the experts are.
    fn experts_into(&self, w: &Matrix, x: Input<'_>, epilogue: Epilogue<'_>, out: &mut [f32]) -> Result<(), OpError> {
        match (w.streamed(), &self.experts) {
            (None, _) => linear::apply(self.engine(), w, x, epilogue, out),
            (Some(map), Some(experts)) => experts.each(&self.pool, map, x.segments, |segment, expert| {
                let segments = [Segment { matrix: 0, rows: segment.rows.clone() }];
                linear::apply(self.engine(), expert, Input { segments: &segments, ..x }, epilogue, out);
            })?,
            (Some(_), None) => return Err(OpError::shape("experts", "another device keeps the experts of this map")),
        }
        Ok(())
    }

    /// The rows of `segments` as the unquantised weights of `w` read them: side by side in tiles, or in pairs. `row`
    /// gives a row and its factor.
    fn tiles<'a>(&self, w: &Matrix, segments: &[Segment], row: impl Fn(usize) -> (&'a [f32], f32) + Sync) -> Values {
        let [_, _, n_in] = w.shape();
        if w.is_paired() {
            let (n_rows, n_pairs) = (segments.last().map_or(0, |segment| segment.rows.end), pairs::n_pairs(n_in));
            let mut values = self.values((n_rows + pairs::BEHIND) * n_pairs);
            let rows: &mut [u32] = bytemuck::cast_slice_mut(&mut values[..n_rows * n_pairs]);
            self.pool.chunks(rows, n_pairs, GRAIN.div_ceil(n_in.max(1)), |i, out| {
                let (x, factor) = row(i);
                let matrix = Strided { values: x, row: 0, column: 1 };
                self.kernels.pack_pairs(&Operand { matrix, rows: 0..1, n_in, factor, is_group: false }, out);
            });
            return values;
        }
        let tiles: Vec<Segment> =
            segments.iter().flat_map(|segment| segment.split(self.kernels.dense_columns())).collect();
        let mut values = self.values(tiles.last().map_or(0, |tile| tile.rows.end) * n_in);
        let out = Disjoint::new(&mut values);
        self.pool.run(tiles.len(), GRAIN.div_ceil((n_in * self.kernels.dense_columns()).max(1)), &|range| {
            for Segment { rows, .. } in &tiles[range] {
                let x: Vec<(&[f32], f32)> = rows.clone().map(&row).collect();
                // SAFETY: tiles do not overlap, and `run` hands out each once.
                let tile = unsafe { out.part(rows.start * n_in..rows.end * n_in) };
                self.kernels.interleave(&x, x.len(), tile);
            }
        });
        values
    }

    /// The rows of `segments` in eight bits. `row` gives a row and the factor of its scales.
    fn quantise<'a>(
        &self,
        segments: &[Segment],
        n_in: usize,
        row: impl Fn(usize) -> (&'a [f32], f32) + Sync,
    ) -> Lease<Panel> {
        let tiles: Vec<Segment> = segments.iter().flat_map(|segment| segment.split(TILE)).collect();
        let n_rows = tiles.last().map_or(0, |tile| tile.rows.end);
        let mut panel = self.panels.take(n_rows * n_in);
        panel.resize(n_rows, n_in);
        let out = panel.tiles_mut();
        self.pool.run(tiles.len(), GRAIN.div_ceil((n_in * TILE).max(1)), &|range| {
            for Segment { rows, .. } in &tiles[range] {
                let (mut x, mut factors) = ([&[][..]; TILE], [0.0; TILE]);
                for (i, sent) in rows.clone().enumerate() {
                    (x[i], factors[i]) = row(sent);
                }
                // SAFETY: tiles do not overlap, and `run` hands out each once.
                let tile = unsafe { out.tile(rows.clone()) };
                self.kernels.quantise(&x[..rows.len()], &factors[..rows.len()], tile);
            }
        });
        panel
    }

    /// Whole rows normalised, and in eight bits for the maps that read them: a row is rounded while it is in the cache.
    fn rms_norm_quantised(&self, x: &Tensor, gain: Option<&[f32]>, eps: f32) -> Tensor {
        let (n_rows, width) = (x.n_rows(), x.width());
        let mut values = self.values(n_rows * width);
        let mut panel = self.panels.take(n_rows * width);
        panel.resize(n_rows, width);
        let (out, tiles) = (Disjoint::new(&mut values), panel.tiles_mut());
        self.pool.run(n_rows.div_ceil(TILE), GRAIN.div_ceil(TILE * width), &|range| {
            for first in range.map(|tile| tile * TILE) {
                let rows = first..(first + TILE).min(n_rows);
                // SAFETY: tiles do not overlap, and `run` hands out each once.
                let (out, tile) = unsafe { (out.part(rows.start * width..rows.end * width), tiles.tile(rows.clone())) };
                let mut normed = [&[][..]; TILE];
                for ((i, out), normed) in rows.clone().zip(out.chunks_exact_mut(width)).zip(&mut normed) {
                    self.kernels.rms_norm(x.row(i), gain, width, eps, out);
                    *normed = out;
                }
                self.kernels.quantise(&normed[..rows.len()], &[1.0; TILE][..rows.len()], tile);
            }
        });
        Tensor::with_panel(values, width, panel)
    }
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cpu({:?}, {} threads)", self.isa, self.threads())
    }
}

pub(crate) fn check(op: &'static str, what: &str, got: usize, want: usize) -> Result<(), OpError> {
    if got == want { Ok(()) } else { Err(OpError::shape(op, format!("{what} is {got}, not {want}"))) }
}

impl Device for Cpu {
    type Tensor = Tensor;
    type Matrix = Matrix;
    type Table = Table;
    type Vector = Vector;
    type Pages = Pages;
    type Routing = Routing;

    fn matrix(&self, parts: &[WeightSource]) -> Result<Matrix, OpError> {
        parts.iter().try_for_each(|part| part.check_stored("matrix"))?;
        let matrix = Matrix::new(self.engine(), self.experts.as_ref(), self.precision, parts)?;
        if matrix.is_quantised() && matrix.shape()[0] == 1 {
            self.quantised_widths.write().unwrap_or_else(PoisonError::into_inner).insert(matrix.shape()[2]);
        }
        Ok(matrix)
    }

    fn table(&self, source: &WeightSource) -> Result<Table, OpError> {
        source.check_stored("table")?;
        check("table", "the number of matrices", source.shape()[0], 1)?;
        if source.orientation() != Orientation::OutIn {
            return Err(OpError::shape("table", "it is not stored row by row"));
        }
        match &self.experts {
            None => Ok(Table(source.clone())),
            Some(experts) => Ok(Table(experts.held(source)?)),
        }
    }

    fn vector(&self, parts: &[WeightSource]) -> Result<Vector, OpError> {
        let values = parts.iter().map(WeightSource::vector).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(Vector(values.into()))
    }

    fn pages(&self, n_pages: usize, n_heads: usize, head_len: usize, format: KvFormat) -> Result<Pages, OpError> {
        Pages::new(n_pages, n_heads, head_len, format)
    }

    fn upload(&self, values: &[f32], width: usize) -> Result<Tensor, OpError> {
        self.reshape(Tensor::new(self.copy(values), width), width)
    }

    fn download(&self, x: &Tensor) -> Vec<f32> {
        x.values().to_vec()
    }

    fn download_row(&self, x: &Tensor, row: usize) -> Vec<f32> {
        x.rows().nth(row).map(<[f32]>::to_vec).unwrap_or_default()
    }

    fn shape(&self, x: &Tensor) -> [usize; 2] {
        [x.n_rows(), x.width()]
    }

    fn reshape(&self, x: Tensor, width: usize) -> Result<Tensor, OpError> {
        let len = x.values().len();
        if width == 0 || !len.is_multiple_of(width) {
            return Err(OpError::shape("reshape", format!("{len} values are no rows of {width}")));
        }
        Ok(x.with_width(width))
    }

    fn columns(&self, x: &Tensor, range: Range<usize>) -> Result<Tensor, OpError> {
        if range.start >= range.end || range.end > x.width() {
            return Err(OpError::shape("columns", format!("{range:?} of a row of {}", x.width())));
        }
        let fill = |i: usize, out: &mut [f32]| out.copy_from_slice(&x.row(i)[range.clone()]);
        Ok(self.by_row(x.n_rows(), range.len(), fill))
    }

    fn rows(&self, x: &Tensor, rows: &[usize]) -> Result<Tensor, OpError> {
        let len = x.n_rows();
        if let Some(&index) = rows.iter().find(|row| **row >= len) {
            return Err(OpError::Index { op: "rows", index, len });
        }
        Ok(self.by_row(rows.len(), x.width(), |i, out| out.copy_from_slice(x.row(rows[i]))))
    }

    fn concat(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
        check("concat", "the second width", b.width(), a.width())?;
        let mut values = self.values(a.values().len() + b.values().len());
        let (first, second) = values.split_at_mut(a.values().len());
        first.copy_from_slice(a.values());
        second.copy_from_slice(b.values());
        Ok(Tensor::new(values, a.width()))
    }

    fn embed(&self, table: &Table, ids: &[u32]) -> Result<Tensor, OpError> {
        let Table(source) = table;
        let width = source.shape()[2];
        let mut values = self.values(ids.len() * width);
        for (id, row) in ids.iter().zip(values.chunks_exact_mut(width.max(1))) {
            source.decode_row(0, *id as usize, row)?;
        }
        Ok(Tensor::new(values, width))
    }

    fn add(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
        check("add", "the second width", b.width(), a.width())?;
        check("add", "the second number of rows", b.n_rows(), a.n_rows())?;
        Ok(self.by_row(a.n_rows(), a.width(), |i, out| {
            for ((out, a), b) in out.iter_mut().zip(a.row(i)).zip(b.row(i)) {
                *out = a + b;
            }
        }))
    }

    fn scale_rows(&self, x: &Tensor, factors: &[f32]) -> Result<Tensor, OpError> {
        check("scale_rows", "the number of factors", factors.len(), x.n_rows())?;
        Ok(self.by_row(x.n_rows(), x.width(), |i, out| scale(x.row(i), factors[i], out)))
    }

    fn linear(&self, w: &Matrix, bias: Option<&Vector>, x: &Tensor) -> Result<Tensor, OpError> {
        let out = self.values(x.n_rows() * w.shape()[1]);
        self.linear_into("linear", w, x, Epilogue::Add { bias: self.bias("linear", w, bias)?, onto: false }, out)
    }

    fn linear_onto(&self, onto: Tensor, w: &Matrix, bias: Option<&Vector>, x: &Tensor) -> Result<Tensor, OpError> {
        check("linear_onto", "the width", onto.width(), w.shape()[1])?;
        check("linear_onto", "the number of rows", onto.n_rows(), x.n_rows())?;
        let epilogue = Epilogue::Add { bias: self.bias("linear_onto", w, bias)?, onto: true };
        let out = onto.into_values().unwrap_or_else(|shared| self.copy(shared.values()));
        self.linear_into("linear_onto", w, x, epilogue, out)
    }

    fn linear_swiglu(&self, w: &Matrix, bias: Option<&Vector>, x: &Tensor) -> Result<Tensor, OpError> {
        if !linear::pairs_up(w) {
            return self.swiglu(&self.linear(w, bias, x)?);
        }
        let out = self.values(x.n_rows() * w.shape()[1] / 2);
        self.linear_into("linear_swiglu", w, x, Epilogue::Swiglu { bias: self.bias("linear_swiglu", w, bias)? }, out)
    }

    fn rms_norm(&self, x: &Tensor, gain: Option<&Vector>, width: usize, eps: f32) -> Result<Tensor, OpError> {
        if width == 0 || !x.width().is_multiple_of(width) {
            return Err(OpError::shape("rms_norm", format!("{width} does not divide a row of {}", x.width())));
        }
        check("rms_norm", "the gain's length", gain.map_or(width, |gain| gain.0.len()), width)?;
        let gain = gain.map(|gain| &*gain.0);
        let is_quantised =
            |width| self.quantised_widths.read().unwrap_or_else(PoisonError::into_inner).contains(&width);
        if width == x.width() && is_quantised(width) {
            return Ok(self.rms_norm_quantised(x, gain, eps));
        }
        Ok(self.by_row(x.n_rows(), x.width(), |i, out| self.kernels.rms_norm(x.row(i), gain, width, eps, out)))
    }

    fn layer_norm(&self, x: &Tensor, gain: &Vector, bias: &Vector, eps: f32) -> Result<Tensor, OpError> {
        check("layer_norm", "the gain's length", gain.0.len(), x.width())?;
        check("layer_norm", "the bias's length", bias.0.len(), x.width())?;
        let fill = |i: usize, out: &mut [f32]| self.kernels.layer_norm(x.row(i), &gain.0, &bias.0, eps, out);
        Ok(self.by_row(x.n_rows(), x.width(), fill))
    }

    fn rope(&self, x: &Tensor, rotation: &Rotation) -> Result<Tensor, OpError> {
        let Rotation { pairing, n_pairs, cos, sin } = rotation;
        let head_len = n_pairs.saturating_mul(2);
        if head_len == 0 || !x.width().is_multiple_of(head_len) {
            return Err(OpError::shape("rope", format!("heads of {head_len} do not divide a row of {}", x.width())));
        }
        check("rope", "the number of cosines", cos.len(), x.n_rows() * n_pairs)?;
        check("rope", "the number of sines", sin.len(), x.n_rows() * n_pairs)?;
        Ok(self.by_row(x.n_rows(), x.width(), |i, out| {
            let angles = i * n_pairs..(i + 1) * n_pairs;
            out.copy_from_slice(x.row(i));
            self.kernels.rope(*pairing, out, &cos[angles.clone()], &sin[angles]);
        }))
    }

    fn store(&self, pages: &mut Pages, k: &Tensor, v: &Tensor, slots: &[usize]) -> Result<(), OpError> {
        for x in [k, v] {
            check("store", "the width", x.width(), pages.n_heads() * pages.head_len())?;
            check("store", "the number of rows", x.n_rows(), slots.len())?;
        }
        let len = pages.n_pages();
        if let Some(slot) = slots.iter().find(|slot| **slot / PAGE_LEN >= len) {
            return Err(OpError::Index { op: "store", index: slot / PAGE_LEN, len });
        }
        pages.write(&self.pool, slots, k, v);
        Ok(())
    }

    fn attention(&self, q: &Tensor, pages: &Pages, rows: &[RowKeys<'_>]) -> Result<Tensor, OpError> {
        check("attention", "the number of rows", rows.len(), q.n_rows())?;
        let (n_heads, head_len) = (pages.n_heads(), pages.head_len());
        let group = (q.width() / head_len.max(1)).checked_div(n_heads).unwrap_or(0).max(1);
        check("attention", "the query's width", q.width(), group * n_heads * head_len)?;
        for row in rows {
            row.check(pages.n_pages())?;
        }
        let mut out = self.values(q.values().len());
        attention::attend(self.engine(), pages, q, group, rows, &mut out);
        Ok(Tensor::new(out, q.width()))
    }

    fn route(&self, logits: &Tensor, top_k: usize) -> Result<Routing, OpError> {
        if top_k == 0 || top_k > logits.width() {
            return Err(OpError::shape("route", format!("{top_k} of {} experts", logits.width())));
        }
        Ok(Routing::new(logits, top_k))
    }

    fn expect(&self, routing: &Routing, maps: &[&Matrix]) {
        if let Some(experts) = &self.experts {
            experts.expect(maps.iter().filter_map(|map| map.streamed()), &routing.segments);
        }
    }

    fn choices(&self, routing: &Routing) -> Vec<Choice> {
        routing.choices.clone()
    }

    fn experts_swiglu(&self, w: &Matrix, x: &Tensor, routing: &Routing) -> Result<Tensor, OpError> {
        let [n_matrices, n_out, n_in] = w.shape();
        check("experts_swiglu", "the input's width", x.width(), n_in)?;
        check("experts_swiglu", "the number of experts", n_matrices, routing.n_experts)?;
        check("experts_swiglu", "the number of rows", x.n_rows() * routing.top_k, routing.choices.len())?;
        let row = |sent: usize| {
            let choice = routing.order[sent];
            (x.row(choice / routing.top_k), routing.choices[choice].score)
        };
        let n_sent = routing.order.len();
        let panel = w.is_quantised().then(|| self.quantise(&routing.segments, n_in, row));
        let tiles = w.is_dense().then(|| self.tiles(w, &routing.segments, row));
        let input =
            Input { tiles: tiles.as_deref().unwrap_or_default(), panel: panel.as_deref(), segments: &routing.segments };
        if linear::pairs_up(w) {
            let mut out = self.values(n_sent * n_out / 2);
            self.experts_into(w, input, Epilogue::Swiglu { bias: None }, &mut out)?;
            return Ok(Tensor::new(out, n_out / 2));
        }
        let mut out = self.values(n_sent * n_out);
        self.experts_into(w, input, Epilogue::Add { bias: None, onto: false }, &mut out)?;
        self.swiglu(&Tensor::new(out, n_out))
    }

    fn experts(&self, w: &Matrix, x: &Tensor, routing: &Routing) -> Result<Tensor, OpError> {
        let [n_matrices, n_out, n_in] = w.shape();
        check("experts", "the input's width", x.width(), n_in)?;
        check("experts", "the number of experts", n_matrices, routing.n_experts)?;
        check("experts", "the number of rows", x.n_rows(), routing.order.len())?;
        let panel = w.is_quantised().then(|| self.quantise(&routing.segments, n_in, |sent| (x.row(sent), 1.0)));
        let tiles = w.is_dense().then(|| self.tiles(w, &routing.segments, |sent| (x.row(sent), 1.0)));
        let tiles = tiles.as_deref().unwrap_or_default();
        let input = Input { tiles, panel: panel.as_deref(), segments: &routing.segments };
        let mut out = self.values(x.n_rows() * n_out);
        self.experts_into(w, input, Epilogue::Add { bias: None, onto: false }, &mut out)?;
        Ok(Tensor::new(out, n_out))
    }

    fn combine(&self, onto: Tensor, shared: &Tensor, y: &Tensor, routing: &Routing) -> Result<Tensor, OpError> {
        let width = shared.width();
        check("combine", "the width", y.width(), width)?;
        check("combine", "the number of sent rows", y.n_rows(), routing.order.len())?;
        check("combine", "the number of rows", shared.n_rows() * routing.top_k, routing.choices.len())?;
        check("combine", "the residual's width", onto.width(), width)?;
        check("combine", "the residual's number of rows", onto.n_rows(), shared.n_rows())?;
        let mut values = onto.into_values().unwrap_or_else(|shared| self.copy(shared.values()));
        self.pool.chunks(&mut values, width, GRAIN / width.max(1), |i, out| {
            // A row's choices lie lower expert first.
            let sent = &routing.place[i * routing.top_k..(i + 1) * routing.top_k];
            let shared = shared.row(i);
            for (at, out) in out.iter_mut().enumerate() {
                *out += sent.iter().fold(shared[at], |sum, sent| sum + y.row(*sent)[at]);
            }
        });
        Ok(Tensor::new(values, width))
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor, OpError> {
        if !gate_up.width().is_multiple_of(2) || gate_up.width() == 0 {
            return Err(OpError::shape("swiglu", format!("a row of {} has no halves", gate_up.width())));
        }
        let width = gate_up.width() / 2;
        Ok(self.by_row(gate_up.n_rows(), width, |i, out| {
            let (gate, up) = gate_up.row(i).split_at(width);
            self.kernels.swiglu(gate, up, out);
        }))
    }

    fn gelu(&self, x: &Tensor) -> Tensor {
        self.by_row(x.n_rows(), x.width(), |i, out| self.kernels.gelu(x.row(i), out))
    }
}

/// `x · factor`.
fn scale(x: &[f32], factor: f32, out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = x * factor;
    }
}
