//! The adjoints on [`Cpu`]: products through the same kernels as forward, and rows on the pool's threads.
//!
//! `dy · W` and `dyᵀ · x` are [products](crate::product) whose operands are read the other way about, so there is one
//! kernel for all three, and one order of additions.

use tensor::adjoint::math::{self, Heads, Piece};
use tensor::{
    Adjoint, Attended, OpError, Orientation, PartGradient, Seen, Targets, WeightSource, adjoint::math as rows,
};

use crate::device::{GRAIN, check};
use crate::linear::Segment;
use crate::numbers::Numbers;
use crate::pool::Disjoint;
use crate::product::{Product, Strided, Write};
use crate::values::Values;
use crate::{Cpu, Routing, Tensor, Vector};

/// Columns that one thread adds up.
const SUMMED: usize = 64;

#[inline(always)]
pub(crate) fn rms_norm_adjoint(
    x: &[f32],
    gain: Option<&[f32]>,
    (width, eps): (usize, f32),
    dy: &[f32],
    [dx, normed]: [&mut [f32]; 2],
) {
    let out = dx.chunks_exact_mut(width).zip(normed.chunks_exact_mut(width));
    for ((x, dy), (dx, normed)) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(out) {
        rows::rms_norm(x, gain, eps, dy, [dx, normed]);
        // Times dy: what the gain's gradient sums.
        normed.iter_mut().zip(dy).for_each(|(normed, dy)| *normed *= dy);
    }
}

#[inline(always)]
pub(crate) fn layer_norm_adjoint(x: &[f32], gain: &[f32], eps: f32, dy: &[f32], [dx, normed]: [&mut [f32]; 2]) {
    rows::layer_norm(x, gain, eps, dy, [dx, &mut *normed]);
    normed.iter_mut().zip(dy).for_each(|(normed, dy)| *normed *= dy);
}

#[inline(always)]
pub(crate) fn swiglu_adjoint([gate, up]: [&[f32]; 2], dy: &[f32], out: [&mut [f32]; 2]) {
    rows::swiglu(gate, up, dy, out);
}

#[inline(always)]
pub(crate) fn gelu_adjoint(x: &[f32], dy: &[f32], out: &mut [f32]) {
    rows::gelu(x, dy, out);
}

#[inline(always)]
pub(crate) fn add_columns(rows: &[f32], shape: [usize; 2], scratch: &mut [f32], out: &mut [f32]) {
    math::add_columns(rows, shape, scratch, out);
}

#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    rows::dot(a, b)
}

#[inline(always)]
pub(crate) fn attention_adjoint(x: &Heads<'_>, piece: &Piece, head: usize, out: &mut [f32]) {
    rows::attention(x, piece, head, out);
}

#[inline(always)]
pub(crate) fn cross_entropy(row: &mut [f32], target: usize, weight: f32) -> f64 {
    rows::cross_entropy(row, target, weight)
}

#[inline(always)]
pub(crate) fn divergence(row: &mut [f32], teacher: &mut [f32], temperature: f32, weight: f32) -> f64 {
    rows::divergence(row, teacher, temperature, weight)
}

fn same_shape(op: &'static str, a: &Tensor, b: &Tensor) -> Result<(), OpError> {
    check(op, "the second width", b.width(), a.width())?;
    check(op, "the second number of rows", b.n_rows(), a.n_rows())
}

impl Cpu {
    /// `dy` backwards through `parts`: the rows of each segment through its matrix.
    fn back(&self, parts: &[WeightSource], segments: &[Segment], dy: &Tensor) -> Result<Tensor, OpError> {
        let n_out: usize = parts.iter().map(|part| part.shape()[1]).sum();
        check("linear_adjoint", "the gradient's width", dy.width(), n_out)?;
        let n_in = parts.first().ok_or_else(|| OpError::shape("linear_adjoint", "a map without parts"))?.shape()[2];
        let mut dx = self.values(dy.n_rows() * n_in);
        let (mut first, mut write) = (0, Write::Set);
        for part in parts {
            let [_, n_out, inputs] = part.shape();
            check("linear_adjoint", "a part's inputs", inputs, n_in)?;
            let matrices = segments.iter().map(|segment| Numbers::of(part, segment.matrix));
            let matrices = matrices.collect::<Result<Vec<_>, _>>()?;
            let mut products = Vec::with_capacity(segments.len());
            let mut rest = &mut dx[..];
            for (Segment { rows, .. }, matrix) in segments.iter().zip(&matrices) {
                let (out, later) = rest.split_at_mut(rows.len() * n_in);
                rest = later;
                let values = &dy.values()[rows.start * dy.width() + first..];
                let a = Strided { values, row: dy.width(), column: 1 };
                products.push(Product { out, shape: [rows.len(), n_in, n_out], a, b: matrix.turned(), write });
            }
            self.products(&mut products)?;
            (first, write) = (first + n_out, Write::Add);
        }
        Ok(Tensor::new(dx, n_in))
    }

    /// Adds `dyᵀ · x` of each segment's rows to its matrix of a part.
    fn add_products(
        &self,
        x: &Tensor,
        dy: &Tensor,
        segments: &[Segment],
        part: PartGradient<'_>,
    ) -> Result<(), OpError> {
        let PartGradient { orientation, outputs, values, .. } = part;
        let (n_in, n_out) = (x.width(), outputs.len());
        let matrices = values.chunks_exact_mut((n_in * n_out).max(1)).enumerate();
        let products = matrices.filter_map(|(matrix, out)| {
            let rows = segments.iter().find(|segment| segment.matrix == matrix)?.rows.clone();
            let x = Strided { values: &x.values()[rows.start * n_in..], row: 1, column: n_in };
            let dy =
                Strided { values: &dy.values()[rows.start * dy.width() + outputs.start..], row: 1, column: dy.width() };
            let ([m, n], [a, b]) = match orientation {
                Orientation::InOut => ([n_in, n_out], [x, dy]),
                _ => ([n_out, n_in], [dy, x]),
            };
            (!rows.is_empty()).then_some(Product { out, shape: [m, n, rows.len()], a, b, write: Write::Add })
        });
        self.products(&mut products.collect::<Vec<_>>())
    }

    /// Two tensors of rows like those of `x`, `n` numbers each, written together.
    fn two_by_row(&self, x: &Tensor, fill: impl Fn(usize, [&mut [f32]; 2]) + Sync) -> (Tensor, Tensor) {
        let (n_rows, width) = (x.n_rows(), x.width());
        let mut both: [Values; 2] = [self.values(n_rows * width), self.values(n_rows * width)];
        let [first, second] = &mut both;
        let out = [Disjoint::new(first), Disjoint::new(second)];
        self.pool().run(n_rows, GRAIN.div_ceil(width.max(1)), &|range| {
            for row in range {
                // SAFETY: rows do not overlap, and `run` hands out each once.
                let out = [0, 1].map(|i: usize| unsafe { out[i].part(row * width..(row + 1) * width) });
                fill(row, out);
            }
        });
        let [first, second] = both;
        (Tensor::new(first, width), Tensor::new(second, width))
    }

    /// The sums of columns of `width`, of rows that may hold several such parts.
    fn sums(&self, x: &Tensor, width: usize) -> Vec<f32> {
        let mut sums = vec![0.0; width];
        self.pool().chunks(&mut sums, SUMMED, 1, |block, out| {
            let mut scratch = [0.0; SUMMED];
            self.kernels().add_columns(x.values(), [width, block * SUMMED], &mut scratch[..out.len()], out);
        });
        sums
    }

    /// Rows of `x`, each changed by `change`, which gives the row's loss.
    fn lose(&self, x: &Tensor, change: impl Fn(usize, &mut [f32]) -> f64 + Sync) -> (Vec<f64>, Tensor) {
        let (n_rows, width) = (x.n_rows(), x.width());
        let mut losses = vec![0.0; n_rows];
        let mut values = self.copy(x.values());
        let (loss_parts, rows) = (Disjoint::new(&mut losses), Disjoint::new(&mut values));
        self.pool().run(n_rows, GRAIN.div_ceil(width.max(1)), &|range| {
            for row in range {
                // SAFETY: rows do not overlap, and `run` hands out each once.
                let (loss, values) =
                    unsafe { (loss_parts.part(row..row + 1), rows.part(row * width..(row + 1) * width)) };
                loss[0] = change(row, values);
            }
        });
        (losses, Tensor::new(values, width))
    }
}

impl Adjoint for Cpu {
    fn linear_adjoint(&self, parts: &[WeightSource], dy: &Tensor) -> Result<Tensor, OpError> {
        self.back(parts, &[Segment { matrix: 0, rows: 0..dy.n_rows() }], dy)
    }

    fn experts_adjoint(&self, parts: &[WeightSource], dy: &Tensor, routing: &Routing) -> Result<Tensor, OpError> {
        check("experts_adjoint", "the number of rows", dy.n_rows(), routing.order.len())?;
        self.back(parts, &routing.segments, dy)
    }

    fn linear_gradient(&self, x: &Tensor, dy: &Tensor, part: PartGradient<'_>) -> Result<(), OpError> {
        check_gradient(x, dy, &part, 1)?;
        self.add_products(x, dy, &[Segment { matrix: 0, rows: 0..x.n_rows() }], part)
    }

    fn experts_gradient(
        &self,
        x: &Tensor,
        dy: &Tensor,
        routing: &Routing,
        part: PartGradient<'_>,
    ) -> Result<(), OpError> {
        check("experts_gradient", "the number of rows", x.n_rows(), routing.order.len())?;
        check_gradient(x, dy, &part, routing.n_experts)?;
        self.add_products(x, dy, &routing.segments, part)
    }

    fn column_sums(&self, dy: &Tensor) -> Vec<f32> {
        self.sums(dy, dy.width())
    }

    fn row_dots(&self, a: &Tensor, b: &Tensor) -> Result<Vec<f32>, OpError> {
        same_shape("row_dots", a, b)?;
        let mut dots = vec![0.0; a.n_rows()];
        self.pool().chunks(&mut dots, 1, GRAIN.div_ceil(a.width().max(1)), |row, out| {
            out[0] = self.kernels().dot(a.row(row), b.row(row));
        });
        Ok(dots)
    }

    fn columns_adjoint(
        &self,
        onto: Option<Tensor>,
        width: usize,
        first: usize,
        dy: &Tensor,
    ) -> Result<Tensor, OpError> {
        check("columns_adjoint", "the last column", width.max(first + dy.width()), width)?;
        let mut values = match onto {
            Some(onto) => {
                check("columns_adjoint", "the width", onto.width(), width)?;
                check("columns_adjoint", "the number of rows", onto.n_rows(), dy.n_rows())?;
                onto.into_values().unwrap_or_else(|shared| self.copy(shared.values()))
            }
            None => {
                let mut values = self.values(dy.n_rows() * width);
                self.pool().chunks(&mut values, GRAIN, 1, |_, out| out.fill(0.0));
                values
            }
        };
        self.pool().chunks(&mut values, width, GRAIN / width.max(1), |row, out| {
            out[first..].iter_mut().zip(dy.row(row)).for_each(|(out, dy)| *out += dy);
        });
        Ok(Tensor::new(values, width))
    }

    fn rows_adjoint(&self, n_rows: usize, rows: &[usize], dy: &Tensor) -> Result<Tensor, OpError> {
        check("rows_adjoint", "the number of rows", dy.n_rows(), rows.len())?;
        if let Some(&index) = rows.iter().find(|row| **row >= n_rows) {
            return Err(OpError::Index { op: "rows_adjoint", index, len: n_rows });
        }
        // The rows of `dy` that go to each row, in order.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|i| rows[*i]);
        let begin = |row: usize| order.partition_point(|i| rows[*i] < row);
        Ok(self.by_row(n_rows, dy.width(), |row, out| {
            out.fill(0.0);
            for from in order[begin(row)..].iter().take_while(|i| rows[**i] == row) {
                out.iter_mut().zip(dy.row(*from)).for_each(|(out, dy)| *out += dy);
            }
        }))
    }

    fn rms_norm_adjoint(
        &self,
        x: &Tensor,
        gain: Option<&Vector>,
        (width, eps): (usize, f32),
        dy: &Tensor,
    ) -> Result<(Tensor, Option<Vec<f32>>), OpError> {
        same_shape("rms_norm_adjoint", x, dy)?;
        if width == 0 || !x.width().is_multiple_of(width) {
            return Err(OpError::shape("rms_norm_adjoint", format!("{width} does not divide a row of {}", x.width())));
        }
        check("rms_norm_adjoint", "the gain's length", gain.map_or(width, |gain| gain.0.len()), width)?;
        let values = gain.map(|gain| &*gain.0);
        let (dx, along) = self.two_by_row(x, |row, out| {
            self.kernels().rms_norm_adjoint(x.row(row), values, (width, eps), dy.row(row), out);
        });
        Ok((dx, gain.map(|_| self.sums(&along, width))))
    }

    fn layer_norm_adjoint(
        &self,
        x: &Tensor,
        gain: &Vector,
        eps: f32,
        dy: &Tensor,
    ) -> Result<(Tensor, Vec<f32>), OpError> {
        same_shape("layer_norm_adjoint", x, dy)?;
        check("layer_norm_adjoint", "the gain's length", gain.0.len(), x.width())?;
        let (dx, along) = self.two_by_row(x, |row, out| {
            self.kernels().layer_norm_adjoint(x.row(row), &gain.0, eps, dy.row(row), out);
        });
        Ok((dx, self.sums(&along, x.width())))
    }

    fn swiglu_adjoint(&self, gate_up: &Tensor, dy: &Tensor) -> Result<Tensor, OpError> {
        let width = dy.width();
        check("swiglu_adjoint", "the width", gate_up.width(), 2 * width)?;
        check("swiglu_adjoint", "the number of rows", gate_up.n_rows(), dy.n_rows())?;
        Ok(self.by_row(dy.n_rows(), 2 * width, |row, out| {
            let ((gate, up), (d_gate, d_up)) = (gate_up.row(row).split_at(width), out.split_at_mut(width));
            self.kernels().swiglu_adjoint([gate, up], dy.row(row), [d_gate, d_up]);
        }))
    }

    fn gelu_adjoint(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor, OpError> {
        same_shape("gelu_adjoint", x, dy)?;
        Ok(self.by_row(x.n_rows(), x.width(), |row, out| self.kernels().gelu_adjoint(x.row(row), dy.row(row), out)))
    }

    fn attention_adjoint(&self, x: Attended<'_, Tensor>, seen: Seen<'_>, dy: &Tensor) -> Result<[Tensor; 3], OpError> {
        let Attended { q, k, v } = x;
        same_shape("attention_adjoint", q, dy)?;
        same_shape("attention_adjoint", k, v)?;
        check("attention_adjoint", "the number of rows", seen.rows.len(), q.n_rows())?;
        let len = seen.head_len;
        let n_heads = k.width().checked_div(len).unwrap_or(0);
        let group = (q.width() / len.max(1)).checked_div(n_heads).unwrap_or(0);
        check("attention_adjoint", "the width of keys", k.width(), n_heads * len)?;
        check("attention_adjoint", "the width of queries", q.width(), group.max(1) * n_heads * len)?;
        let pieces = math::separate(seen.rows, k.n_rows())
            .ok_or_else(|| OpError::shape("attention_adjoint", "a row sees nothing, or keys that are not there"))?;
        let [q_values, k_values, v_values, dy] = [q, k, v, dy].map(Tensor::values);
        let heads = Heads { q: q_values, k: k_values, v: v_values, dy, n_heads, group, len, seen: seen.rows };
        // Each head of each piece writes a part of its own.
        let begins: Vec<usize> = std::iter::once(0)
            .chain(pieces.iter().scan(0, |end, piece| {
                *end += n_heads * heads.gradient_len(piece);
                Some(*end)
            }))
            .collect();
        let mut parts = self.values(begins.last().copied().unwrap_or(0));
        let out = Disjoint::new(&mut parts);
        self.pool().run(pieces.len() * n_heads, 1, &|range| {
            for (piece, head) in range.map(|i| (i / n_heads, i % n_heads)) {
                let n = heads.gradient_len(&pieces[piece]);
                let begin = begins[piece] + head * n;
                // SAFETY: heads and pieces do not overlap, and `run` hands out each pair once.
                let out = unsafe { out.part(begin..begin + n) };
                self.kernels().attention_adjoint(&heads, &pieces[piece], head, out);
            }
        });
        let mut gradients = [q, k, v].map(|x| self.values(x.values().len()));
        // Keys that nobody sees belong to no piece.
        gradients.iter_mut().for_each(|gradient| gradient.fill(0.0));
        for (piece, begin) in pieces.iter().zip(&begins) {
            let n = heads.gradient_len(piece);
            for head in 0..n_heads {
                let part = &parts[begin + head * n..begin + (head + 1) * n];
                put(&heads, piece, head, part, &mut gradients);
            }
        }
        let [dq, dk, dv] = gradients;
        Ok([Tensor::new(dq, q.width()), Tensor::new(dk, k.width()), Tensor::new(dv, v.width())])
    }

    fn cross_entropy(&self, logits: &Tensor, targets: Targets<'_>) -> Result<(Vec<f64>, Tensor), OpError> {
        let Targets { tokens, weights } = targets;
        check("cross_entropy", "the number of targets", tokens.len(), logits.n_rows())?;
        check("cross_entropy", "the number of weights", weights.len(), logits.n_rows())?;
        let len = logits.width();
        if let Some(token) = tokens.iter().find(|token| **token as usize >= len) {
            return Err(OpError::Index { op: "cross_entropy", index: *token as usize, len });
        }
        Ok(self.lose(logits, |row, values| {
            if weights[row] == 0.0 {
                values.fill(0.0);
                return 0.0;
            }
            self.kernels().cross_entropy(values, tokens[row] as usize, weights[row])
        }))
    }

    fn divergence(
        &self,
        logits: &Tensor,
        teacher: &Tensor,
        temperature: f32,
        weights: &[f32],
    ) -> Result<(Vec<f64>, Tensor), OpError> {
        same_shape("divergence", logits, teacher)?;
        check("divergence", "the number of weights", weights.len(), logits.n_rows())?;
        Ok(self.lose(logits, |row, values| {
            let mut teacher = teacher.row(row).to_vec();
            self.kernels().divergence(values, &mut teacher, temperature, weights[row])
        }))
    }
}

/// Checks the operands of a weight's gradient.
fn check_gradient(x: &Tensor, dy: &Tensor, part: &PartGradient<'_>, n_matrices: usize) -> Result<(), OpError> {
    check("linear_gradient", "the gradient's number of rows", dy.n_rows(), x.n_rows())?;
    check("linear_gradient", "the last output", part.outputs.end.max(dy.width()), dy.width())?;
    check("linear_gradient", "the part's length", part.values.len(), n_matrices * x.width() * part.outputs.len())
}

/// Writes what one head of keys gave in one piece to where it stands in the gradients of queries, keys and values.
fn put(heads: &Heads<'_>, (rows, keys): &Piece, head: usize, part: &[f32], [dq, dk, dv]: &mut [Values; 3]) {
    let Heads { n_heads, group, len, .. } = *heads;
    let mut parts = part.chunks_exact(len);
    for (member, row) in (0..group).flat_map(|member| rows.clone().map(move |row| (member, row))) {
        let at = (row * n_heads * group + head * group + member) * len;
        dq[at..at + len].copy_from_slice(parts.next().unwrap_or_default());
    }
    for out in [dk, dv] {
        for at in keys.clone().map(|key| (key * n_heads + head) * len) {
            out[at..at + len].copy_from_slice(parts.next().unwrap_or_default());
        }
    }
}
