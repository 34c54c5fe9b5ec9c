//! The adjoints' definition.

use crate::adjoint::{Adjoint, Attended, PartGradient, Seen, Targets, math};
use crate::reference::{Reference, Routing, Tensor, check};
use crate::{DENSE_BLOCK, OpError, Orientation, WeightSource};

/// Σ a·b over pairs, in the order of [`Device::linear`](crate::Device::linear).
fn chain(pairs: impl Iterator<Item = (f32, f32)>) -> f32 {
    let (mut total, mut sum) = (0.0f32, 0.0f32);
    for (i, (a, b)) in pairs.enumerate() {
        if i % DENSE_BLOCK == 0 && i > 0 {
            total += sum;
            sum = 0.0;
        }
        sum = a.mul_add(b, sum);
    }
    total + sum
}

/// One row of `dy` through matrix `matrix` of `parts`, backwards.
fn back(parts: &[WeightSource], matrix: usize, dy: &[f32]) -> Result<Vec<f32>, OpError> {
    let n_in = parts.first().map_or(0, |part| part.shape()[2]);
    let n_out = parts.iter().map(|part| part.shape()[1]).sum();
    check("linear_adjoint", "the gradient's width", dy.len(), n_out)?;
    let mut dx: Option<Vec<f32>> = None;
    let mut first = 0;
    for part in parts {
        let n_out = part.shape()[1];
        let mut rows = vec![vec![0.0; n_in]; n_out];
        for (out, row) in rows.iter_mut().enumerate() {
            part.decode_row(matrix, out, row)?;
        }
        let dy = &dy[first..first + n_out];
        let sums = (0..n_in).map(|i| chain(dy.iter().zip(&rows).map(|(dy, row)| (*dy, row[i]))));
        dx = Some(match dx {
            None => sums.collect(),
            Some(dx) => dx.iter().zip(sums).map(|(dx, sum)| dx + sum).collect(),
        });
        first += n_out;
    }
    Ok(dx.unwrap_or_default())
}

/// Adds the products of the rows `rows` to matrix `matrix` of `part`.
fn add_products(x: &Tensor, dy: &Tensor, rows: &[usize], matrix: usize, part: &mut PartGradient<'_>) {
    let (n_in, n_out) = (x.width(), part.outputs.len());
    for out in 0..n_out {
        for input in 0..n_in {
            let pairs = rows
                .iter()
                .map(|row| (dy.values()[row * dy.width() + part.outputs.start + out], x.values()[row * n_in + input]));
            let at = match part.orientation {
                Orientation::InOut => input * n_out + out,
                _ => out * n_in + input,
            };
            part.values[matrix * n_in * n_out + at] += chain(pairs);
        }
    }
}

/// Checks the operands of a weight's gradient.
fn check_gradient(x: &Tensor, dy: &Tensor, part: &PartGradient<'_>, n_matrices: usize) -> Result<(), OpError> {
    check("linear_gradient", "the gradient's number of rows", dy.n_rows(), x.n_rows())?;
    check("linear_gradient", "the last output", part.outputs.end.max(dy.width()), dy.width())?;
    check("linear_gradient", "the part's length", part.values.len(), n_matrices * x.width() * part.outputs.len())
}

fn same_shape(op: &'static str, a: &Tensor, b: &Tensor) -> Result<(), OpError> {
    check(op, "the second width", b.width(), a.width())?;
    check(op, "the second number of rows", b.n_rows(), a.n_rows())
}

impl Adjoint for Reference {
    fn linear_adjoint(&self, parts: &[WeightSource], dy: &Tensor) -> Result<Tensor, OpError> {
        let rows = dy.rows().map(|dy| back(parts, 0, dy)).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::new(rows.concat(), parts.first().map_or(0, |part| part.shape()[2])))
    }

    fn experts_adjoint(&self, parts: &[WeightSource], dy: &Tensor, routing: &Routing) -> Result<Tensor, OpError> {
        check("experts_adjoint", "the number of rows", dy.n_rows(), routing.order.len())?;
        let experts = routing.order.iter().map(|&i| routing.choices[i].expert as usize);
        let rows = dy.rows().zip(experts).map(|(dy, expert)| back(parts, expert, dy));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::new(rows.concat(), parts.first().map_or(0, |part| part.shape()[2])))
    }

    fn linear_gradient(&self, x: &Tensor, dy: &Tensor, mut part: PartGradient<'_>) -> Result<(), OpError> {
        check_gradient(x, dy, &part, 1)?;
        add_products(x, dy, &(0..x.n_rows()).collect::<Vec<_>>(), 0, &mut part);
        Ok(())
    }

    fn experts_gradient(
        &self,
        x: &Tensor,
        dy: &Tensor,
        routing: &Routing,
        mut part: PartGradient<'_>,
    ) -> Result<(), OpError> {
        check("experts_gradient", "the number of rows", x.n_rows(), routing.order.len())?;
        check_gradient(x, dy, &part, routing.n_experts())?;
        for expert in 0..routing.n_experts() {
            let rows: Vec<usize> = (0..x.n_rows())
                .filter(|sent| routing.choices[routing.order[*sent]].expert as usize == expert)
                .collect();
            add_products(x, dy, &rows, expert, &mut part);
        }
        Ok(())
    }

    fn column_sums(&self, dy: &Tensor) -> Vec<f32> {
        let (mut sums, mut scratch) = (vec![0.0; dy.width()], vec![0.0; dy.width()]);
        math::add_columns(dy.values(), [dy.width(), 0], &mut scratch, &mut sums);
        sums
    }

    fn row_dots(&self, a: &Tensor, b: &Tensor) -> Result<Vec<f32>, OpError> {
        same_shape("row_dots", a, b)?;
        Ok(a.rows().zip(b.rows()).map(|(a, b)| math::dot(a, b)).collect())
    }

    fn columns_adjoint(
        &self,
        onto: Option<Tensor>,
        width: usize,
        first: usize,
        dy: &Tensor,
    ) -> Result<Tensor, OpError> {
        let onto = onto.unwrap_or_else(|| Tensor::new(vec![0.0; dy.n_rows() * width], width));
        check("columns_adjoint", "the width", onto.width(), width)?;
        check("columns_adjoint", "the number of rows", onto.n_rows(), dy.n_rows())?;
        check("columns_adjoint", "the last column", width.max(first + dy.width()), width)?;
        let mut values = onto.values().to_vec();
        for (out, dy) in values.chunks_exact_mut(width).zip(dy.rows()) {
            for (out, dy) in out[first..].iter_mut().zip(dy) {
                *out += dy;
            }
        }
        Ok(Tensor::new(values, width))
    }

    fn rows_adjoint(&self, n_rows: usize, rows: &[usize], dy: &Tensor) -> Result<Tensor, OpError> {
        check("rows_adjoint", "the number of rows", dy.n_rows(), rows.len())?;
        let width = dy.width();
        let mut values = vec![0.0; n_rows * width];
        for (&index, dy) in rows.iter().zip(dy.rows()) {
            let out = values.chunks_exact_mut(width).nth(index);
            let out = out.ok_or(OpError::Index { op: "rows_adjoint", index, len: n_rows })?;
            out.iter_mut().zip(dy).for_each(|(out, dy)| *out += dy);
        }
        Ok(Tensor::new(values, width))
    }

    fn rms_norm_adjoint(
        &self,
        x: &Tensor,
        gain: Option<&Vec<f32>>,
        (width, eps): (usize, f32),
        dy: &Tensor,
    ) -> Result<(Tensor, Option<Vec<f32>>), OpError> {
        same_shape("rms_norm_adjoint", x, dy)?;
        if width == 0 || !x.width().is_multiple_of(width) {
            return Err(OpError::shape("rms_norm_adjoint", format!("{width} does not divide a row of {}", x.width())));
        }
        check("rms_norm_adjoint", "the gain's length", gain.map_or(width, Vec::len), width)?;
        let (mut dx, mut normed) = (vec![0.0; x.values().len()], vec![0.0; x.values().len()]);
        let parts = x.values().chunks_exact(width).zip(dy.values().chunks_exact(width));
        for ((x, dy), at) in parts.zip((0..).step_by(width)) {
            let out = [&mut dx[at..at + width], &mut normed[at..at + width]];
            math::rms_norm(x, gain.map(Vec::as_slice), eps, dy, out);
        }
        normed.iter_mut().zip(dy.values()).for_each(|(normed, dy)| *normed *= dy);
        let d_gain = gain.is_some().then(|| self.column_sums(&Tensor::new(normed, width)));
        Ok((Tensor::new(dx, x.width()), d_gain))
    }

    fn layer_norm_adjoint(
        &self,
        x: &Tensor,
        gain: &Vec<f32>,
        eps: f32,
        dy: &Tensor,
    ) -> Result<(Tensor, Vec<f32>), OpError> {
        same_shape("layer_norm_adjoint", x, dy)?;
        check("layer_norm_adjoint", "the gain's length", gain.len(), x.width())?;
        let (mut dx, mut normed) = (vec![0.0; x.values().len()], vec![0.0; x.values().len()]);
        for ((x, dy), at) in x.rows().zip(dy.rows()).zip((0..).step_by(x.width())) {
            let out = [&mut dx[at..at + x.len()], &mut normed[at..at + x.len()]];
            math::layer_norm(x, gain, eps, dy, out);
        }
        normed.iter_mut().zip(dy.values()).for_each(|(normed, dy)| *normed *= dy);
        Ok((Tensor::new(dx, x.width()), self.column_sums(&Tensor::new(normed, x.width()))))
    }

    fn swiglu_adjoint(&self, gate_up: &Tensor, dy: &Tensor) -> Result<Tensor, OpError> {
        let width = dy.width();
        check("swiglu_adjoint", "the width", gate_up.width(), 2 * width)?;
        check("swiglu_adjoint", "the number of rows", gate_up.n_rows(), dy.n_rows())?;
        let mut values = vec![0.0; gate_up.values().len()];
        for ((x, dy), out) in gate_up.rows().zip(dy.rows()).zip(values.chunks_exact_mut(2 * width)) {
            let ((gate, up), (d_gate, d_up)) = (x.split_at(width), out.split_at_mut(width));
            math::swiglu(gate, up, dy, [d_gate, d_up]);
        }
        Ok(Tensor::new(values, 2 * width))
    }

    fn gelu_adjoint(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor, OpError> {
        same_shape("gelu_adjoint", x, dy)?;
        let mut values = vec![0.0; x.values().len()];
        math::gelu(x.values(), dy.values(), &mut values);
        Ok(Tensor::new(values, x.width()))
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
        let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![0.0; x.values().len()]);
        let (q_values, k_values, v_values) = (q.values(), k.values(), v.values());
        let (dy, seen) = (dy.values(), seen.rows);
        let heads = math::Heads { q: q_values, k: k_values, v: v_values, dy, n_heads, group, len, seen };
        for piece in &pieces {
            let mut out = vec![0.0; heads.gradient_len(piece)];
            for head in 0..n_heads {
                math::attention(&heads, piece, head, &mut out);
                let mut parts = out.chunks_exact(len);
                let (rows, keys) = piece;
                for (member, row) in (0..group).flat_map(|member| rows.clone().map(move |row| (member, row))) {
                    let at = row * q.width() + (head * group + member) * len;
                    dq[at..at + len].copy_from_slice(parts.next().unwrap_or_default());
                }
                for out in [&mut dk, &mut dv] {
                    for at in keys.clone().map(|key| key * k.width() + head * len) {
                        out[at..at + len].copy_from_slice(parts.next().unwrap_or_default());
                    }
                }
            }
        }
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
        let mut values = logits.values().to_vec();
        let rows = values.chunks_exact_mut(len.max(1)).zip(tokens).zip(weights);
        let losses = rows.map(|((row, token), weight)| {
            if *weight == 0.0 {
                row.fill(0.0);
                return 0.0;
            }
            math::cross_entropy(row, *token as usize, *weight)
        });
        Ok((losses.collect(), Tensor::new(values, len)))
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
        let (mut values, mut teacher) = (logits.values().to_vec(), teacher.values().to_vec());
        let len = logits.width().max(1);
        let rows = values.chunks_exact_mut(len).zip(teacher.chunks_exact_mut(len)).zip(weights);
        let losses = rows.map(|((row, teacher), weight)| math::divergence(row, teacher, temperature, *weight));
        Ok((losses.collect(), Tensor::new(values, logits.width())))
    }
}
