//! The slow obvious device: about ten lines an op. What it computes is the definition.

use std::ops::Range;
use std::sync::Arc;

use crate::device::{Choice, DENSE_BLOCK, Device, PAGE_LEN, Rotation, RowKeys, WeightSource};
use crate::quant::{ACTIVATION_LEN, Activation};
use crate::{Format, KvFormat, OpError, Orientation, math};

/// The device that defines every result. One thread, no packing, weights read where they lie.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference;

/// Activations: f32 `[rows, width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    values: Arc<Vec<f32>>,
    width: usize,
}

impl Tensor {
    pub(crate) fn new(values: Vec<f32>, width: usize) -> Self {
        Self { values: Arc::new(values), width }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width.max(1))
    }
}

/// Keys and values of one layer: `[page][head][component][slot]` and `[page][head][slot][component]`.
#[derive(Debug)]
pub struct Pages {
    keys: Vec<f32>,
    values: Vec<f32>,
    n_pages: usize,
    n_heads: usize,
    head_len: usize,
    format: KvFormat,
}

/// Which rows go to which experts.
#[derive(Debug, Clone)]
pub struct Routing {
    /// `[T, top_k]`, lower expert first.
    pub(crate) choices: Vec<Choice>,
    top_k: usize,
    n_experts: usize,
    /// Indices into `choices`, ordered by expert, then by row.
    pub(crate) order: Vec<usize>,
}

pub(crate) fn check(op: &'static str, what: &str, got: usize, want: usize) -> Result<(), OpError> {
    if got == want { Ok(()) } else { Err(OpError::shape(op, format!("{what} is {got}, not {want}"))) }
}

/// One output of a linear map: the row `out` of matrix `matrix` of `source` times `x`.
fn dot(source: &WeightSource, matrix: usize, out: usize, x: &[f32], scratch: &mut [f32]) -> Result<f32, OpError> {
    source.decode_row(matrix, out, scratch)?;
    let blocks = scratch.chunks(DENSE_BLOCK).zip(x.chunks(DENSE_BLOCK));
    let sums = blocks.map(|(w, x)| w.iter().zip(x).fold(0.0f32, |acc, (w, x)| w.mul_add(*x, acc)));
    Ok(sums.fold(0.0, |total, sum| total + sum))
}

/// The same for a quantised row: an exact integer sum a group, then one fused multiply-add (two with offsets).
fn dot_quantised(kind: crate::quant::Kind, row: &[u8], x: &Activation) -> f32 {
    let (len, group) = (x.q.len(), kind.group());
    let (mut q, mut scale, mut offset) = (vec![0i8; len], vec![0.0f32; len / group], vec![0.0f32; len / group]);
    kind.integers(row, &mut q, &mut scale, &mut offset);
    let mut acc = 0.0f32;
    for (g, (w, x_q)) in q.chunks_exact(group).zip(x.q.chunks_exact(group)).enumerate() {
        let x_scale = x.scale[g * group / ACTIVATION_LEN];
        let products: i32 = w.iter().zip(x_q).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
        acc = (products as f32).mul_add(scale[g] * x_scale, acc);
        if kind.has_offsets() {
            let sum: i32 = x_q.iter().map(|&x| i32::from(x)).sum();
            acc = offset[g].mul_add(x_scale * sum as f32, acc);
        }
    }
    acc
}

/// Applies matrix `matrix` of every part to one row times `factor`.
fn apply(parts: &[WeightSource], matrix: usize, x: &[f32], factor: f32, out: &mut Vec<f32>) -> Result<(), OpError> {
    let mut scratch = vec![0.0f32; x.len()];
    let quantised = parts.iter().any(|p| matches!(p.format(), Format::Block(_))).then(|| {
        let mut quantised = Activation::quantise(x);
        quantised.scale.iter_mut().for_each(|scale| *scale *= factor);
        quantised
    });
    let x: Vec<f32> = x.iter().map(|x| x * factor).collect();
    for part in parts {
        for row in 0..part.shape()[1] {
            let value = match (part.format(), part.row(matrix, row), &quantised) {
                (Format::Block(kind), Some(raw), Some(x)) => dot_quantised(kind, raw, x),
                _ => dot(part, matrix, row, &x, &mut scratch)?,
            };
            out.push(value);
        }
    }
    Ok(())
}

impl Routing {
    pub(crate) fn n_experts(&self) -> usize {
        self.n_experts
    }
}

impl Device for Reference {
    type Tensor = Tensor;
    type Matrix = Vec<WeightSource>;
    type Table = WeightSource;
    type Vector = Vec<f32>;
    type Pages = Pages;
    type Routing = Routing;

    fn matrix(&self, parts: &[WeightSource]) -> Result<Self::Matrix, OpError> {
        let [n_matrices, _, n_in] = parts.first().map_or([0; 3], WeightSource::shape);
        for part in parts {
            part.check_stored("matrix")?;
            let [part_matrices, _, part_in] = part.shape();
            check("matrix", "the number of matrices", part_matrices, n_matrices)?;
            check("matrix", "the number of inputs", part_in, n_in)?;
            if part.orientation() == Orientation::Packed {
                return Err(crate::packed::refusal("matrix"));
            }
            if matches!(part.format(), Format::Block(_)) && part_in % ACTIVATION_LEN != 0 {
                return Err(OpError::shape("matrix", format!("{part_in} inputs are no multiple of {ACTIVATION_LEN}")));
            }
        }
        Ok(parts.to_vec())
    }

    fn table(&self, source: &WeightSource) -> Result<Self::Table, OpError> {
        source.check_stored("table")?;
        check("table", "the number of matrices", source.shape()[0], 1)?;
        if source.orientation() != Orientation::OutIn {
            return Err(OpError::shape("table", "it is not stored row by row"));
        }
        Ok(source.clone())
    }

    fn vector(&self, parts: &[WeightSource]) -> Result<Self::Vector, OpError> {
        Ok(parts.iter().map(WeightSource::vector).collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn pages(&self, n_pages: usize, n_heads: usize, head_len: usize, format: KvFormat) -> Result<Self::Pages, OpError> {
        let len = [n_heads, head_len, PAGE_LEN].iter().try_fold(n_pages, |len, n| len.checked_mul(*n));
        let len = len.ok_or_else(|| OpError::shape("pages", format!("{n_pages} pages overflow")))?;
        Ok(Pages { keys: vec![0.0; len], values: vec![0.0; len], n_pages, n_heads, head_len, format })
    }

    fn upload(&self, values: &[f32], width: usize) -> Result<Tensor, OpError> {
        self.reshape(Tensor::new(values.to_vec(), width), width)
    }

    fn download(&self, x: &Tensor) -> Vec<f32> {
        x.values.to_vec()
    }

    fn download_row(&self, x: &Tensor, row: usize) -> Vec<f32> {
        x.rows().nth(row).map(<[f32]>::to_vec).unwrap_or_default()
    }

    fn shape(&self, x: &Tensor) -> [usize; 2] {
        [x.n_rows(), x.width]
    }

    fn reshape(&self, x: Tensor, width: usize) -> Result<Tensor, OpError> {
        if width == 0 || !x.values.len().is_multiple_of(width) {
            return Err(OpError::shape("reshape", format!("{} values are no rows of {width}", x.values.len())));
        }
        Ok(Tensor { values: x.values, width })
    }

    fn columns(&self, x: &Tensor, range: Range<usize>) -> Result<Tensor, OpError> {
        if range.start >= range.end || range.end > x.width {
            return Err(OpError::shape("columns", format!("{range:?} of a row of {}", x.width)));
        }
        let values = x.rows().flat_map(|row| &row[range.clone()]).copied().collect();
        Ok(Tensor::new(values, range.len()))
    }

    fn rows(&self, x: &Tensor, rows: &[usize]) -> Result<Tensor, OpError> {
        let mut values = Vec::with_capacity(rows.len() * x.width);
        for &index in rows {
            let len = x.n_rows();
            let row = x.rows().nth(index).ok_or(OpError::Index { op: "rows", index, len })?;
            values.extend_from_slice(row);
        }
        Ok(Tensor::new(values, x.width))
    }

    fn concat(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
        check("concat", "the second width", b.width, a.width)?;
        Ok(Tensor::new([a.values.as_slice(), b.values.as_slice()].concat(), a.width))
    }

    fn embed(&self, table: &WeightSource, ids: &[u32]) -> Result<Tensor, OpError> {
        let width = table.shape()[2];
        let mut values = vec![0.0; ids.len() * width];
        for (id, row) in ids.iter().zip(values.chunks_exact_mut(width)) {
            table.decode_row(0, *id as usize, row)?;
        }
        Ok(Tensor::new(values, width))
    }

    fn add(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
        check("add", "the second width", b.width, a.width)?;
        check("add", "the second number of rows", b.n_rows(), a.n_rows())?;
        Ok(Tensor::new(a.values.iter().zip(b.values.iter()).map(|(a, b)| a + b).collect(), a.width))
    }

    fn scale_rows(&self, x: &Tensor, factors: &[f32]) -> Result<Tensor, OpError> {
        check("scale_rows", "the number of factors", factors.len(), x.n_rows())?;
        let scaled = x.rows().zip(factors).flat_map(|(row, factor)| row.iter().map(move |x| x * factor));
        Ok(Tensor::new(scaled.collect(), x.width))
    }

    fn linear(&self, w: &Self::Matrix, bias: Option<&Vec<f32>>, x: &Tensor) -> Result<Tensor, OpError> {
        let n_out = w.iter().map(|part| part.shape()[1]).sum();
        check("linear", "the input's width", x.width, w.first().map_or(0, |part| part.shape()[2]))?;
        check("linear", "the bias's length", bias.map_or(n_out, Vec::len), n_out)?;
        let mut values = Vec::with_capacity(x.n_rows() * n_out);
        for row in x.rows() {
            let begin = values.len();
            apply(w, 0, row, 1.0, &mut values)?;
            for (value, bias) in values[begin..].iter_mut().zip(bias.into_iter().flatten()) {
                *value += bias;
            }
        }
        Ok(Tensor::new(values, n_out))
    }

    fn rms_norm(&self, x: &Tensor, gain: Option<&Vec<f32>>, width: usize, eps: f32) -> Result<Tensor, OpError> {
        if width == 0 || !x.width.is_multiple_of(width) {
            return Err(OpError::shape("rms_norm", format!("{width} does not divide a row of {}", x.width)));
        }
        check("rms_norm", "the gain's length", gain.map_or(width, Vec::len), width)?;
        let mut values = vec![0.0; x.values.len()];
        for (x, out) in x.values.chunks_exact(width).zip(values.chunks_exact_mut(width)) {
            math::rms_norm(x, gain.map(Vec::as_slice), eps, out);
        }
        Ok(Tensor::new(values, x.width))
    }

    fn layer_norm(&self, x: &Tensor, gain: &Vec<f32>, bias: &Vec<f32>, eps: f32) -> Result<Tensor, OpError> {
        check("layer_norm", "the gain's length", gain.len(), x.width)?;
        check("layer_norm", "the bias's length", bias.len(), x.width)?;
        let mut values = vec![0.0; x.values.len()];
        for (x, out) in x.rows().zip(values.chunks_exact_mut(x.width)) {
            math::layer_norm(x, gain, bias, eps, out);
        }
        Ok(Tensor::new(values, x.width))
    }

    fn rope(&self, x: &Tensor, rotation: &Rotation) -> Result<Tensor, OpError> {
        let (n_pairs, head_len) = (rotation.n_pairs, 2 * rotation.n_pairs);
        if head_len == 0 || !x.width.is_multiple_of(head_len) {
            return Err(OpError::shape("rope", format!("heads of {head_len} do not divide a row of {}", x.width)));
        }
        check("rope", "the number of cosines", rotation.cos.len(), x.n_rows() * n_pairs)?;
        check("rope", "the number of sines", rotation.sin.len(), x.n_rows() * n_pairs)?;
        let mut values = x.values.to_vec();
        let angles = rotation.cos.chunks_exact(n_pairs).zip(rotation.sin.chunks_exact(n_pairs));
        for (row, (cos, sin)) in values.chunks_exact_mut(x.width).zip(angles) {
            for head in row.chunks_exact_mut(head_len) {
                math::rotate(rotation.pairing, head, cos, sin);
            }
        }
        Ok(Tensor::new(values, x.width))
    }

    fn store(&self, pages: &mut Pages, k: &Tensor, v: &Tensor, slots: &[usize]) -> Result<(), OpError> {
        for x in [k, v] {
            check("store", "the width", x.width, pages.n_heads * pages.head_len)?;
            check("store", "the number of rows", x.n_rows(), slots.len())?;
        }
        let head_len = pages.head_len;
        for ((k, v), &slot) in k.rows().zip(v.rows()).zip(slots) {
            let (page, slot_in_page) = (slot / PAGE_LEN, slot % PAGE_LEN);
            if page >= pages.n_pages {
                return Err(OpError::Index { op: "store", index: page, len: pages.n_pages });
            }
            let (mut k, mut v) = (k.to_vec(), v.to_vec());
            for head in k.chunks_exact_mut(head_len).chain(v.chunks_exact_mut(head_len)) {
                pages.format.round(head);
            }
            for (i, (k, v)) in k.into_iter().zip(v).enumerate() {
                let (head, component) = (i / head_len, i % head_len);
                let begin = (page * pages.n_heads + head) * head_len * PAGE_LEN;
                pages.keys[begin + component * PAGE_LEN + slot_in_page] = k;
                pages.values[begin + slot_in_page * head_len + component] = v;
            }
        }
        Ok(())
    }

    fn attention(&self, q: &Tensor, pages: &Pages, rows: &[RowKeys<'_>]) -> Result<Tensor, OpError> {
        check("attention", "the number of rows", rows.len(), q.n_rows())?;
        let head_len = pages.head_len;
        let group = (q.width / head_len.max(1)).checked_div(pages.n_heads).unwrap_or(0);
        check("attention", "the query's width", q.width, group.max(1) * pages.n_heads * head_len)?;
        let scale = 1.0 / (head_len as f32).sqrt();
        let mut values = vec![0.0; q.values.len()];
        for ((q, row), out) in q.rows().zip(rows).zip(values.chunks_exact_mut(q.width)) {
            row.check(pages.n_pages)?;
            for (head, (q, out)) in q.chunks_exact(head_len).zip(out.chunks_exact_mut(head_len)).enumerate() {
                let mut state = math::Softmax::new(out);
                for (page, slots) in row.visible() {
                    let begin = (page * pages.n_heads + head / group) * head_len * PAGE_LEN;
                    let range = begin..begin + head_len * PAGE_LEN;
                    math::attend_page(q, &pages.keys[range.clone()], &pages.values[range], slots, scale, &mut state);
                }
                state.finish();
            }
        }
        Ok(Tensor::new(values, q.width))
    }

    fn route(&self, logits: &Tensor, top_k: usize) -> Result<Routing, OpError> {
        if top_k == 0 || top_k > logits.width {
            return Err(OpError::shape("route", format!("{top_k} of {} experts", logits.width)));
        }
        let choices: Vec<Choice> = logits.rows().flat_map(|row| math::choose(row, top_k)).collect();
        let mut order: Vec<usize> = (0..choices.len()).collect();
        order.sort_by_key(|&i| choices[i].expert);
        Ok(Routing { choices, top_k, n_experts: logits.width, order })
    }

    fn choices(&self, routing: &Routing) -> Vec<Choice> {
        routing.choices.clone()
    }

    fn experts_swiglu(&self, w: &Self::Matrix, x: &Tensor, routing: &Routing) -> Result<Tensor, OpError> {
        let [n_matrices, _, n_in] = w.first().map_or([0; 3], WeightSource::shape);
        check("experts_swiglu", "the input's width", x.width, n_in)?;
        check("experts_swiglu", "the number of experts", n_matrices, routing.n_experts)?;
        check("experts_swiglu", "the number of rows", x.n_rows() * routing.top_k, routing.choices.len())?;
        let mut values = Vec::new();
        for &i in &routing.order {
            let row = i / routing.top_k * x.width;
            let Choice { expert, score } = routing.choices[i];
            apply(w, expert as usize, &x.values[row..row + x.width], score, &mut values)?;
        }
        self.swiglu(&Tensor::new(values, w.iter().map(|part| part.shape()[1]).sum()))
    }

    fn experts(&self, w: &Self::Matrix, x: &Tensor, routing: &Routing) -> Result<Tensor, OpError> {
        let [n_matrices, _, n_in] = w.first().map_or([0; 3], WeightSource::shape);
        check("experts", "the input's width", x.width, n_in)?;
        check("experts", "the number of experts", n_matrices, routing.n_experts)?;
        check("experts", "the number of rows", x.n_rows(), routing.order.len())?;
        let mut values = Vec::new();
        for (row, &i) in x.rows().zip(&routing.order) {
            apply(w, routing.choices[i].expert as usize, row, 1.0, &mut values)?;
        }
        Ok(Tensor::new(values, w.iter().map(|part| part.shape()[1]).sum()))
    }

    fn combine(&self, onto: Tensor, shared: &Tensor, y: &Tensor, routing: &Routing) -> Result<Tensor, OpError> {
        check("combine", "the width", y.width, shared.width)?;
        check("combine", "the number of sent rows", y.n_rows(), routing.order.len())?;
        check("combine", "the number of rows", shared.n_rows() * routing.top_k, routing.choices.len())?;
        let mut values = shared.values.to_vec();
        // `order` goes by expert, so each row's lower expert comes first.
        for (y, &i) in y.rows().zip(&routing.order) {
            let row = i / routing.top_k * shared.width;
            for (sum, y) in values[row..row + shared.width].iter_mut().zip(y) {
                *sum += y;
            }
        }
        self.add(&onto, &Tensor::new(values, shared.width))
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor, OpError> {
        if !gate_up.width.is_multiple_of(2) || gate_up.width == 0 {
            return Err(OpError::shape("swiglu", format!("a row of {} has no halves", gate_up.width)));
        }
        let width = gate_up.width / 2;
        let halves = gate_up.rows().map(|row| row.split_at(width));
        let values = halves.flat_map(|(gate, up)| gate.iter().zip(up).map(|(g, u)| math::silu(*g) * u)).collect();
        Ok(Tensor::new(values, width))
    }

    fn gelu(&self, x: &Tensor) -> Tensor {
        Tensor::new(x.values.iter().map(|x| math::gelu(*x)).collect(), x.width)
    }
}
