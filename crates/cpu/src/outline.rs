//! [`Cpu`](crate::Cpu) without numbers: what the same calls take in memory and in work.
//!
//! A forecast runs the loader and the model over this device. Weights are as large as they would be packed, buffers
//! pass through the very [`Arena`] that a step's do, in the same order, and every op is written down with what it reads
//! and multiplies. Nothing is computed, so a model far larger than memory takes milliseconds.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tensor::{Choice, Device, Format, KvFormat, OpError, PAGE_LEN, Rotation, RowKeys, WeightSource};

use crate::Matrix;
use crate::arena::{Arena, Buffer, Lease, class};
use crate::kernels::ROWS;
use crate::packing::BLOCK;

/// The device. One value for each forecast: its memory and its log grow with every call.
#[derive(Debug, Default)]
pub struct Outline {
    numbers: Arc<Arena<Room>>,
    panels: Arc<Arena<Room>>,
    held: Arc<Held>,
    host: AtomicUsize,
    log: Mutex<Vec<Op>>,
    weights: Mutex<Weights>,
    /// As in [`Cpu`](crate::Cpu).
    quantised_widths: Mutex<BTreeSet<usize>>,
}

/// What was made of weights so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weights {
    /// Bytes of packed maps.
    pub packed: usize,
    /// Bytes of the same maps in their files.
    pub stored: usize,
    /// Bytes of lookup tables, which stay in their files.
    pub tables: usize,
    /// Bytes of parameter vectors.
    pub vectors: usize,
}

/// What an op reads and computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// A linear map, or the experts of one.
    Linear(Map),
    /// Attention.
    Attention {
        /// Multiply-adds.
        products: f64,
        /// Rows that attend.
        n_rows: usize,
        /// Bytes of keys and values that are read at least once.
        bytes: f64,
    },
    /// Everything else.
    Values {
        /// Numbers written.
        n: usize,
    },
}

/// Rows through linear maps of one shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Map {
    /// How the weights are stored.
    pub format: Format,
    /// Outputs of one matrix.
    pub n_out: usize,
    /// Inputs of one matrix.
    pub n_in: usize,
    /// Matrices that are read: 1, or the experts that somebody goes to, as an expectation over uniform routing.
    pub n_matrices: f64,
    /// Whether they are experts, which may not be in memory.
    pub routed: bool,
    /// Rows that go through, over all matrices.
    pub n_rows: usize,
    /// Packed bytes of the matrices that are read.
    pub bytes: f64,
}

/// Bytes of all buffers, used or waiting.
#[derive(Debug, Default)]
struct Held {
    now: AtomicUsize,
    peak: AtomicUsize,
}

/// A buffer's size.
#[derive(Debug, Default)]
struct Room {
    /// In values.
    len: usize,
    bytes: usize,
    held: Option<Arc<Held>>,
}

impl Buffer for Room {
    fn size(&self) -> usize {
        self.len
    }
}

impl Room {
    fn new(len: usize, bytes: usize, held: &Arc<Held>) -> Self {
        let now = held.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        held.peak.fetch_max(now, Ordering::Relaxed);
        Self { len, bytes, held: Some(Arc::clone(held)) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.now.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// Activations' shape, and their place in memory.
#[derive(Debug, Clone)]
pub struct OutlinedTensor {
    room: Arc<Lease<Room>>,
    n_rows: usize,
    width: usize,
    panel: Arc<OnceLock<Lease<Room>>>,
}

/// What a packed map takes.
#[derive(Debug, Clone)]
pub struct OutlinedMatrix {
    shape: [usize; 3],
    parts: Vec<OutlinedPart>,
    size_bytes: usize,
    stored_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct OutlinedPart {
    format: Format,
    first_out: usize,
    n_out: usize,
    size_bytes: usize,
}

impl OutlinedMatrix {
    /// Bytes that the packed weights take: [`Matrix::size_bytes`].
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Bytes that they take in their file.
    pub fn stored_bytes(&self) -> usize {
        self.stored_bytes
    }

    /// Matrices, outputs of each, inputs of each.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The formats of its rows, in their order.
    pub fn formats(&self) -> impl Iterator<Item = Format> {
        self.parts.iter().map(|part| part.format)
    }

    /// Weights in quantised formats, of all matrices.
    pub fn n_quantised(&self) -> usize {
        let [n_matrices, _, n_in] = self.shape;
        self.parts.iter().filter(|part| is_quantised(part.format)).map(|part| n_matrices * part.n_out * n_in).sum()
    }

    /// Whether [`Cpu`](crate::Cpu) writes gate and up of SwiGLU in one go; see `linear::pairs_up`.
    fn pairs_up(&self) -> bool {
        let half = self.shape[1] / 2;
        half.is_multiple_of(ROWS) && self.parts.iter().all(|part| part.first_out.is_multiple_of(ROWS))
    }

    fn has_quantised(&self) -> bool {
        self.parts.iter().any(|part| is_quantised(part.format))
    }

    fn has_dense(&self) -> bool {
        self.parts.iter().any(|part| !is_quantised(part.format))
    }
}

fn is_quantised(format: Format) -> bool {
    matches!(format, Format::Block(_))
}

/// A table, which stays in its file.
#[derive(Debug, Clone, Copy)]
pub struct OutlinedTable {
    width: usize,
    n_rows: usize,
}

/// Keys and values of one layer.
#[derive(Debug, Clone, Copy)]
pub struct OutlinedPages {
    n_pages: usize,
    n_heads: usize,
    head_len: usize,
    format: KvFormat,
}

/// Rows spread evenly over experts.
#[derive(Debug, Clone, Copy)]
pub struct OutlinedRouting {
    n_rows: usize,
    top_k: usize,
    n_experts: usize,
}

impl OutlinedRouting {
    fn n_sent(&self) -> usize {
        self.n_rows * self.top_k
    }

    /// Experts that at least one row goes to, as an expectation over uniform routing.
    fn n_read(&self) -> f64 {
        let n = self.n_experts as f64;
        n * (1.0 - (1.0 - self.top_k as f64 / n).powf(self.n_rows as f64))
    }
}

impl Outline {
    /// A device that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of all buffers of steps so far, used or waiting: what [`Cpu::work_bytes`](crate::Cpu::work_bytes) says.
    pub fn work_bytes(&self) -> usize {
        self.held.now.load(Ordering::Relaxed)
    }

    /// The most bytes that buffers took at a time, and what was copied out of them for the caller.
    pub fn peak_bytes(&self) -> usize {
        self.held.peak.load(Ordering::Relaxed) + self.host.load(Ordering::Relaxed)
    }

    /// All weights that were made.
    pub fn weights(&self) -> Weights {
        *self.made()
    }

    fn made(&self) -> MutexGuard<'_, Weights> {
        self.weights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ops since the last call.
    pub fn take_log(&self) -> Vec<Op> {
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write_down(&self, op: Op) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }

    /// Room for rows, as `Cpu::values` takes it.
    fn room(&self, n_rows: usize, width: usize) -> OutlinedTensor {
        let len = n_rows.saturating_mul(width);
        let mut lease = self.numbers.take(len);
        if lease.len < len {
            *lease = Room::default();
            let len = class(len);
            *lease = Room::new(len, len.saturating_mul(4), &self.held);
        }
        OutlinedTensor { room: Arc::new(lease), n_rows, width, panel: Arc::default() }
    }

    fn values(&self, n_rows: usize, width: usize) -> OutlinedTensor {
        self.write_down(Op::Values { n: n_rows * width });
        self.room(n_rows, width)
    }

    /// Rows in eight bits: integers, a scale a block, and two sums for each block and for each of its halves.
    fn panel(&self, n_rows: usize, n_in: usize) -> Lease<Room> {
        let len = n_rows * n_in;
        let mut lease = self.panels.take(len);
        if lease.len < len {
            *lease = Room::default();
            *lease = Room::new(len, len + len / BLOCK * (4 + 8 + 2 * 8), &self.held);
        }
        lease
    }

    fn linear_parts(&self, w: &OutlinedMatrix, n_rows: usize, n_matrices: f64, routed: bool) {
        let [all, _, n_in] = w.shape;
        for part in &w.parts {
            let bytes = part.size_bytes as f64 / all.max(1) as f64 * n_matrices;
            let OutlinedPart { format, n_out, .. } = *part;
            self.write_down(Op::Linear(Map { format, n_out, n_in, n_matrices, routed, n_rows, bytes }));
        }
    }

    /// Rows through matrix 0, into what was made for them.
    fn linear_into(&self, op: &'static str, w: &OutlinedMatrix, x: &OutlinedTensor) -> Result<(), OpError> {
        check(op, "the input's width", x.width, w.shape[2])?;
        if w.has_quantised() {
            x.panel.get_or_init(|| self.panel(x.n_rows, x.width));
        }
        let _tiles = (w.has_dense() && x.n_rows > 1).then(|| self.values(x.n_rows, x.width));
        self.linear_parts(w, x.n_rows, 1.0, false);
        Ok(())
    }

    /// `onto`, or a copy of it if somebody else holds it too.
    fn own(&self, onto: OutlinedTensor) -> OutlinedTensor {
        let OutlinedTensor { room, n_rows, width, panel } = onto;
        match Arc::try_unwrap(room) {
            Ok(room) => OutlinedTensor { room: Arc::new(room), n_rows, width, panel: Arc::default() },
            Err(room) => {
                let copy = self.room(n_rows, width);
                drop((room, panel));
                copy
            }
        }
    }
}

fn check(op: &'static str, what: &str, got: usize, want: usize) -> Result<(), OpError> {
    if got == want { Ok(()) } else { Err(OpError::shape(op, format!("{what} is {got}, not {want}"))) }
}

impl Device for Outline {
    type Tensor = OutlinedTensor;
    type Matrix = OutlinedMatrix;
    type Table = OutlinedTable;
    type Vector = usize;
    type Pages = OutlinedPages;
    type Routing = OutlinedRouting;

    fn matrix(&self, parts: &[WeightSource]) -> Result<OutlinedMatrix, OpError> {
        let [n_matrices, _, n_in] = parts.first().map_or([0; 3], WeightSource::shape);
        let mut matrix =
            OutlinedMatrix { shape: [n_matrices, 0, n_in], parts: Vec::new(), size_bytes: 0, stored_bytes: 0 };
        for part in parts {
            let [part_matrices, n_out, part_in] = part.shape();
            check("matrix", "the number of matrices", part_matrices, n_matrices)?;
            check("matrix", "the number of inputs", part_in, n_in)?;
            let size_bytes = Matrix::packed_bytes(part)?;
            matrix.parts.push(OutlinedPart { format: part.format(), first_out: matrix.shape[1], n_out, size_bytes });
            matrix.shape[1] += n_out;
            matrix.size_bytes += size_bytes;
            matrix.stored_bytes += part.size_bytes();
        }
        if matrix.has_quantised() && n_matrices == 1 {
            self.quantised_widths.lock().unwrap_or_else(PoisonError::into_inner).insert(n_in);
        }
        let mut made = self.made();
        made.packed += matrix.size_bytes;
        made.stored += matrix.stored_bytes;
        Ok(matrix)
    }

    fn table(&self, source: &WeightSource) -> Result<OutlinedTable, OpError> {
        let [n_matrices, n_rows, width] = source.shape();
        check("table", "the number of matrices", n_matrices, 1)?;
        self.made().tables += source.size_bytes();
        Ok(OutlinedTable { width, n_rows })
    }

    fn vector(&self, parts: &[WeightSource]) -> Result<usize, OpError> {
        let len = parts.iter().map(|part| part.shape()[2]).sum::<usize>();
        self.made().vectors += size_of::<f32>() * len;
        Ok(len)
    }

    fn pages(
        &self,
        n_pages: usize,
        n_heads: usize,
        head_len: usize,
        format: KvFormat,
    ) -> Result<OutlinedPages, OpError> {
        Ok(OutlinedPages { n_pages, n_heads, head_len, format })
    }

    fn upload(&self, values: &[f32], width: usize) -> Result<OutlinedTensor, OpError> {
        if width == 0 || !values.len().is_multiple_of(width) {
            return Err(OpError::shape("upload", format!("{} values are no rows of {width}", values.len())));
        }
        Ok(self.values(values.len() / width, width))
    }

    /// Zeros. The caller's copy counts as memory.
    fn download(&self, x: &OutlinedTensor) -> Vec<f32> {
        self.host.fetch_max(4 * x.n_rows * x.width, Ordering::Relaxed);
        vec![0.0; x.n_rows * x.width]
    }

    fn shape(&self, x: &OutlinedTensor) -> [usize; 2] {
        [x.n_rows, x.width]
    }

    fn reshape(&self, x: OutlinedTensor, width: usize) -> Result<OutlinedTensor, OpError> {
        let len = x.n_rows * x.width;
        if width == 0 || !len.is_multiple_of(width) {
            return Err(OpError::shape("reshape", format!("{len} values are no rows of {width}")));
        }
        Ok(if width == x.width { x } else { OutlinedTensor { n_rows: len / width, width, panel: Arc::default(), ..x } })
    }

    fn columns(&self, x: &OutlinedTensor, range: Range<usize>) -> Result<OutlinedTensor, OpError> {
        if range.start >= range.end || range.end > x.width {
            return Err(OpError::shape("columns", format!("{range:?} of a row of {}", x.width)));
        }
        Ok(self.values(x.n_rows, range.len()))
    }

    fn rows(&self, x: &OutlinedTensor, rows: &[usize]) -> Result<OutlinedTensor, OpError> {
        match rows.iter().find(|row| **row >= x.n_rows) {
            Some(&index) => Err(OpError::Index { op: "rows", index, len: x.n_rows }),
            None => Ok(self.values(rows.len(), x.width)),
        }
    }

    fn concat(&self, a: &OutlinedTensor, b: &OutlinedTensor) -> Result<OutlinedTensor, OpError> {
        check("concat", "the second width", b.width, a.width)?;
        Ok(self.values(a.n_rows + b.n_rows, a.width))
    }

    fn embed(&self, table: &OutlinedTable, ids: &[u32]) -> Result<OutlinedTensor, OpError> {
        match ids.iter().find(|id| **id as usize >= table.n_rows) {
            Some(id) => Err(OpError::Index { op: "embed", index: *id as usize, len: table.n_rows }),
            None => Ok(self.values(ids.len(), table.width)),
        }
    }

    fn add(&self, a: &OutlinedTensor, b: &OutlinedTensor) -> Result<OutlinedTensor, OpError> {
        check("add", "the second width", b.width, a.width)?;
        check("add", "the second number of rows", b.n_rows, a.n_rows)?;
        Ok(self.values(a.n_rows, a.width))
    }

    fn scale_rows(&self, x: &OutlinedTensor, factors: &[f32]) -> Result<OutlinedTensor, OpError> {
        check("scale_rows", "the number of factors", factors.len(), x.n_rows)?;
        Ok(self.values(x.n_rows, x.width))
    }

    fn linear(&self, w: &OutlinedMatrix, _: Option<&usize>, x: &OutlinedTensor) -> Result<OutlinedTensor, OpError> {
        let out = self.room(x.n_rows, w.shape[1]);
        self.linear_into("linear", w, x)?;
        Ok(out)
    }

    fn linear_onto(
        &self,
        onto: OutlinedTensor,
        w: &OutlinedMatrix,
        _: Option<&usize>,
        x: &OutlinedTensor,
    ) -> Result<OutlinedTensor, OpError> {
        check("linear_onto", "the width", onto.width, w.shape[1])?;
        check("linear_onto", "the number of rows", onto.n_rows, x.n_rows)?;
        let out = self.own(onto);
        self.linear_into("linear_onto", w, x)?;
        Ok(out)
    }

    fn linear_swiglu(
        &self,
        w: &OutlinedMatrix,
        bias: Option<&usize>,
        x: &OutlinedTensor,
    ) -> Result<OutlinedTensor, OpError> {
        if !w.pairs_up() {
            return self.swiglu(&self.linear(w, bias, x)?);
        }
        let out = self.room(x.n_rows, w.shape[1] / 2);
        self.linear_into("linear_swiglu", w, x)?;
        Ok(out)
    }

    fn rms_norm(&self, x: &OutlinedTensor, _: Option<&usize>, width: usize, _: f32) -> Result<OutlinedTensor, OpError> {
        if width == 0 || !x.width.is_multiple_of(width) {
            return Err(OpError::shape("rms_norm", format!("{width} does not divide a row of {}", x.width)));
        }
        let normed = self.values(x.n_rows, x.width);
        let widths = self.quantised_widths.lock().unwrap_or_else(PoisonError::into_inner);
        if width == x.width && widths.contains(&width) {
            normed.panel.get_or_init(|| self.panel(x.n_rows, x.width));
        }
        Ok(normed)
    }

    fn layer_norm(&self, x: &OutlinedTensor, _: &usize, _: &usize, _: f32) -> Result<OutlinedTensor, OpError> {
        Ok(self.values(x.n_rows, x.width))
    }

    fn rope(&self, x: &OutlinedTensor, rotation: &Rotation) -> Result<OutlinedTensor, OpError> {
        check("rope", "the number of cosines", rotation.cos.len(), x.n_rows * rotation.n_pairs)?;
        Ok(self.values(x.n_rows, x.width))
    }

    fn store(
        &self,
        pages: &mut OutlinedPages,
        k: &OutlinedTensor,
        v: &OutlinedTensor,
        slots: &[usize],
    ) -> Result<(), OpError> {
        check("store", "the width", k.width, pages.n_heads * pages.head_len)?;
        check("store", "the number of rows", k.n_rows, slots.len())?;
        if let Some(slot) = slots.iter().find(|slot| **slot / PAGE_LEN >= pages.n_pages) {
            return Err(OpError::Index { op: "store", index: slot / PAGE_LEN, len: pages.n_pages });
        }
        self.write_down(Op::Values { n: k.n_rows * k.width + v.n_rows * v.width });
        Ok(())
    }

    fn attention(
        &self,
        q: &OutlinedTensor,
        pages: &OutlinedPages,
        rows: &[RowKeys<'_>],
    ) -> Result<OutlinedTensor, OpError> {
        check("attention", "the number of rows", rows.len(), q.n_rows)?;
        let seen: f64 = rows.iter().map(|row| (row.end - row.begin) as f64).sum();
        let position = (2 * pages.n_heads * pages.format.bytes(pages.head_len)) as f64;
        let mut positions = 0;
        for run in rows.chunk_by(|a, b| std::ptr::eq(a.pages, b.pages)) {
            let begin = run.iter().map(|row| row.begin).min().unwrap_or(0);
            positions += run.iter().map(|row| row.end).max().unwrap_or(0) - begin;
        }
        self.write_down(Op::Attention {
            // Scores and weighted values: two for each component.
            products: 2.0 * seen * q.width as f64,
            n_rows: rows.len(),
            bytes: positions as f64 * position,
        });
        Ok(self.room(q.n_rows, q.width))
    }

    fn route(&self, logits: &OutlinedTensor, top_k: usize) -> Result<OutlinedRouting, OpError> {
        if top_k == 0 || top_k > logits.width {
            return Err(OpError::shape("route", format!("{top_k} of {} experts", logits.width)));
        }
        Ok(OutlinedRouting { n_rows: logits.n_rows, top_k, n_experts: logits.width })
    }

    fn choices(&self, routing: &OutlinedRouting) -> Vec<Choice> {
        let expert = |i: usize| u32::try_from(i % routing.n_experts).unwrap_or(0);
        (0..routing.n_sent()).map(|i| Choice { expert: expert(i), score: 0.5 }).collect()
    }

    fn experts_swiglu(
        &self,
        w: &OutlinedMatrix,
        x: &OutlinedTensor,
        routing: &OutlinedRouting,
    ) -> Result<OutlinedTensor, OpError> {
        let [n_matrices, n_out, n_in] = w.shape;
        check("experts_swiglu", "the input's width", x.width, n_in)?;
        check("experts_swiglu", "the number of experts", n_matrices, routing.n_experts)?;
        let n_sent = routing.n_sent();
        let _panel = w.has_quantised().then(|| self.panel(n_sent, n_in));
        let _tiles = w.has_dense().then(|| self.values(n_sent, n_in));
        self.linear_parts(w, n_sent, routing.n_read(), true);
        if w.pairs_up() {
            return Ok(self.room(n_sent, n_out / 2));
        }
        let out = self.room(n_sent, n_out);
        self.swiglu(&out)
    }

    fn experts(
        &self,
        w: &OutlinedMatrix,
        x: &OutlinedTensor,
        routing: &OutlinedRouting,
    ) -> Result<OutlinedTensor, OpError> {
        let [n_matrices, n_out, n_in] = w.shape;
        check("experts", "the input's width", x.width, n_in)?;
        check("experts", "the number of experts", n_matrices, routing.n_experts)?;
        check("experts", "the number of rows", x.n_rows, routing.n_sent())?;
        let _panel = w.has_quantised().then(|| self.panel(x.n_rows, n_in));
        let _tiles = w.has_dense().then(|| self.values(x.n_rows, n_in));
        let out = self.room(x.n_rows, n_out);
        self.linear_parts(w, x.n_rows, routing.n_read(), true);
        Ok(out)
    }

    fn combine(
        &self,
        onto: OutlinedTensor,
        shared: &OutlinedTensor,
        y: &OutlinedTensor,
        routing: &OutlinedRouting,
    ) -> Result<OutlinedTensor, OpError> {
        check("combine", "the width", y.width, shared.width)?;
        check("combine", "the number of sent rows", y.n_rows, routing.n_sent())?;
        let out = self.own(onto);
        self.write_down(Op::Values { n: out.n_rows * out.width });
        Ok(out)
    }

    fn swiglu(&self, gate_up: &OutlinedTensor) -> Result<OutlinedTensor, OpError> {
        if !gate_up.width.is_multiple_of(2) || gate_up.width == 0 {
            return Err(OpError::shape("swiglu", format!("a row of {} has no halves", gate_up.width)));
        }
        Ok(self.values(gate_up.n_rows, gate_up.width / 2))
    }

    fn gelu(&self, x: &OutlinedTensor) -> OutlinedTensor {
        self.values(x.n_rows, x.width)
    }
}
