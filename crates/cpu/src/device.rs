//! [`Cpu`]: checks shapes, then hands rows to kernels on the pool's threads.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use tensor::{Choice, Device, OpError, Orientation, PAGE_LEN, Rotation, RowKeys, WeightSource};

use crate::isa::{self, Isa};
use crate::kernels::Kernels;
use crate::linear::{Linear, Segment};
use crate::pool::Pool;
use crate::{Matrix, Pages, Routing, Table, Tensor, Vector};

/// Values of cheap elementwise work below which another thread is not worth its wake-up.
const GRAIN: usize = 1 << 13;

/// How to set a [`Cpu`] up. The default uses what the machine has.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuOptions {
    /// Threads, the caller's included; as many as the process may use if `None`.
    pub threads: Option<NonZeroUsize>,
    /// The richest instruction set to use. It lowers what was detected and never raises it.
    pub isa: Option<Isa>,
}

/// The fast CPU device. Equal to [`tensor::Reference`] to the bit.
pub struct Cpu {
    pool: Pool,
    kernels: Box<dyn Kernels>,
    isa: Isa,
    linear: Linear,
}

impl Cpu {
    /// A device with its own threads, which live as long as it does.
    pub fn new(options: CpuOptions) -> Self {
        let available = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (isa, kernels) = isa::choose(options.isa);
        Self { pool: Pool::new(options.threads.unwrap_or_else(available)), kernels, isa, linear: Linear::new() }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads in use, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.n_threads()
    }

    fn engine(&self) -> (&Pool, &dyn Kernels) {
        (&self.pool, &*self.kernels)
    }

    /// A tensor of `n_rows` rows of `width`, each written by `fill`, which gets its index.
    fn by_row(&self, n_rows: usize, width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Tensor {
        let mut out = vec![0.0; n_rows * width];
        self.pool.chunks(&mut out, width, GRAIN / width.max(1), fill);
        Tensor::new(out, width)
    }
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cpu({:?}, {} threads)", self.isa, self.threads())
    }
}

fn check(op: &'static str, what: &str, got: usize, want: usize) -> Result<(), OpError> {
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
        Matrix::pack(&self.pool, parts)
    }

    fn table(&self, source: &WeightSource) -> Result<Table, OpError> {
        check("table", "the number of matrices", source.shape()[0], 1)?;
        if source.orientation() == Orientation::InOut {
            return Err(OpError::shape("table", "it is stored input-major"));
        }
        Ok(Table(source.clone()))
    }

    fn vector(&self, values: &[f32]) -> Vector {
        Vector(Arc::from(values))
    }

    fn pages(&self, n_pages: usize, n_heads: usize, head_len: usize) -> Result<Pages, OpError> {
        Pages::new(n_pages, n_heads, head_len)
    }

    fn upload(&self, values: &[f32], width: usize) -> Result<Tensor, OpError> {
        self.reshape(Tensor::new(values.to_vec(), width), width)
    }

    fn download(&self, x: &Tensor) -> Vec<f32> {
        x.values().to_vec()
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
        Ok(Tensor::new([a.values(), b.values()].concat(), a.width()))
    }

    fn embed(&self, table: &Table, ids: &[u32]) -> Result<Tensor, OpError> {
        let Table(source) = table;
        let width = source.shape()[2];
        let mut values = vec![0.0; ids.len() * width];
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
        let [n_matrices, n_out, n_in] = w.shape();
        check("linear", "the input's width", x.width(), n_in)?;
        check("linear", "the bias's length", bias.map_or(n_out, |bias| bias.0.len()), n_out)?;
        let segments = [Segment { matrix: 0, rows: 0..x.n_rows() }];
        if n_matrices == 0 {
            return Err(OpError::shape("linear", "the map holds no matrix"));
        }
        let values = self.linear.apply(self.engine(), w, bias.map(|bias| &*bias.0), x.values(), &segments);
        Ok(Tensor::new(values, n_out))
    }

    fn rms_norm(&self, x: &Tensor, gain: Option<&Vector>, width: usize, eps: f32) -> Result<Tensor, OpError> {
        if width == 0 || !x.width().is_multiple_of(width) {
            return Err(OpError::shape("rms_norm", format!("{width} does not divide a row of {}", x.width())));
        }
        check("rms_norm", "the gain's length", gain.map_or(width, |gain| gain.0.len()), width)?;
        let gain = gain.map(|gain| &*gain.0);
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
        for ((k, v), slot) in k.rows().zip(v.rows()).zip(slots) {
            pages.write(*slot, k, v);
        }
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
        Ok(Tensor::new(pages.attend(self.engine(), q, group, rows), q.width()))
    }

    fn route(&self, logits: &Tensor, top_k: usize) -> Result<Routing, OpError> {
        if top_k == 0 || top_k > logits.width() {
            return Err(OpError::shape("route", format!("{top_k} of {} experts", logits.width())));
        }
        Ok(Routing::new(logits, top_k))
    }

    fn choices(&self, routing: &Routing) -> Vec<Choice> {
        routing.choices.clone()
    }

    fn send(&self, x: &Tensor, routing: &Routing) -> Result<Tensor, OpError> {
        check("send", "the number of rows", x.n_rows() * routing.top_k, routing.choices.len())?;
        Ok(self.by_row(routing.order.len(), x.width(), |i, out| {
            let choice = routing.order[i];
            scale(x.row(choice / routing.top_k), routing.choices[choice].score, out);
        }))
    }

    fn experts(&self, w: &Matrix, x: &Tensor, routing: &Routing) -> Result<Tensor, OpError> {
        let [n_matrices, n_out, n_in] = w.shape();
        check("experts", "the input's width", x.width(), n_in)?;
        check("experts", "the number of experts", n_matrices, routing.n_experts)?;
        check("experts", "the number of rows", x.n_rows(), routing.order.len())?;
        let values = self.linear.apply(self.engine(), w, None, x.values(), &routing.segments);
        Ok(Tensor::new(values, n_out))
    }

    fn combine(&self, onto: &Tensor, y: &Tensor, routing: &Routing) -> Result<Tensor, OpError> {
        check("combine", "the width", y.width(), onto.width())?;
        check("combine", "the number of sent rows", y.n_rows(), routing.order.len())?;
        check("combine", "the number of rows", onto.n_rows() * routing.top_k, routing.choices.len())?;
        Ok(self.by_row(onto.n_rows(), onto.width(), |i, out| {
            out.copy_from_slice(onto.row(i));
            // A row's choices lie lower expert first.
            for sent in &routing.place[i * routing.top_k..(i + 1) * routing.top_k] {
                for (sum, y) in out.iter_mut().zip(y.row(*sent)) {
                    *sum += y;
                }
            }
        }))
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor, OpError> {
        if !gate_up.width().is_multiple_of(2) || gate_up.width() == 0 {
            return Err(OpError::shape("swiglu", format!("a row of {} has no halves", gate_up.width())));
        }
        let fill = |i: usize, out: &mut [f32]| self.kernels.swiglu(gate_up.row(i), out);
        Ok(self.by_row(gate_up.n_rows(), gate_up.width() / 2, fill))
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
