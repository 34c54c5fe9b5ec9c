//! The way back: adjoints of what was recorded, last first.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use tensor::{Adjoint, Attended, OpError, Orientation, Origin, PartGradient, Rotation, Seen, WeightSource};

use super::op::Op;
use super::{Map, Mark, State, Tape, Var, Vector};

impl<D: Adjoint> Tape<D> {
    /// Runs the adjoints of everything since `mark`, last first, from the [seeds](Self::seed) on, and takes it off the
    /// tape. Gradients of what was before it stay as seeds there; those of weights are added up.
    ///
    /// # Errors
    /// [`OpError`] if an adjoint refuses, which means that the tape was misused.
    pub fn rewind(&self, mark: Mark) -> Result<(), OpError> {
        let mut state = self.state();
        while state.nodes.len() > mark.0 {
            let id = state.nodes.len() - 1;
            if state.dropped.last().is_some_and(|range| range.contains(&id)) {
                state.restore(&*self.dev)?;
            }
            let Some(node) = state.nodes.pop() else { break };
            if let Some(dy) = state.seeds.remove(&id)
                && node.has_gradient
            {
                let mut back = Back { dev: &*self.dev, state: &mut *state };
                back.run(&node.op, dy)?;
            }
        }
        Ok(())
    }
}

impl<D: Adjoint> State<D> {
    /// Computes the values of the last dropped range again.
    fn restore(&mut self, dev: &D) -> Result<(), OpError> {
        for id in self.dropped.pop().unwrap_or_default() {
            if self.nodes.get(id).is_some_and(|node| node.value.is_none()) {
                let value = self.nodes[id].op.repeat(dev, self)?;
                self.nodes[id].value = Some(value);
            }
        }
        Ok(())
    }
}

struct Back<'a, D: Adjoint> {
    dev: &'a D,
    state: &'a mut State<D>,
}

impl<D: Adjoint> Back<'_, D> {
    fn run(&mut self, op: &Op<D>, dy: D::Tensor) -> Result<(), OpError> {
        match op {
            Op::Upload => Ok(()),
            Op::Reshape { x, .. } => self.give(x, |dev, _| dev.reshape(dy, x.shape[1])),
            Op::Columns { x, range } => self.columns(x, range, &dy),
            Op::Rows { x, rows } => self.give(x, |dev, _| dev.rows_adjoint(x.shape[0], rows, &dy)),
            Op::Concat([a, b]) => {
                let rows = |range: Range<usize>| range.collect::<Vec<_>>();
                let (first, second) = (rows(0..a.shape[0]), rows(a.shape[0]..a.shape[0] + b.shape[0]));
                self.give(a, |dev, _| dev.rows(&dy, &first))?;
                self.give(b, |dev, _| dev.rows(&dy, &second))
            }
            Op::Embed { table, ids } => match &table.origin {
                Some(origin) => self.embedded(origin, table.shape, ids, &dy),
                None => Ok(()),
            },
            Op::Add([a, b]) => {
                self.give(a, |_, _| Ok(dy.clone()))?;
                self.give(b, |_, _| Ok(dy))
            }
            Op::ScaleRows { x, factors } => self.give(x, |dev, _| dev.scale_rows(&dy, factors)),
            Op::Linear { w, bias, x, onto } => {
                self.linear(w, x, bias.as_ref(), &dy)?;
                self.give(x, |dev, _| dev.linear_adjoint(&w.parts, &dy))?;
                match onto {
                    Some(onto) => self.give(onto, |_, _| Ok(dy)),
                    None => Ok(()),
                }
            }
            Op::RmsNorm { x, gain, width, eps } => {
                let value = self.state.value(x)?;
                let inner = gain.as_ref().map(|gain| &gain.inner);
                let (dx, d_gain) = self.dev.rms_norm_adjoint(&value, inner, (*width, *eps), &dy)?;
                if let (Some(gain), Some(d_gain)) = (gain, d_gain) {
                    self.add_vector(gain, &d_gain);
                }
                self.give(x, |_, _| Ok(dx))
            }
            Op::LayerNorm { x, gain, bias, eps } => {
                let value = self.state.value(x)?;
                let (dx, d_gain) = self.dev.layer_norm_adjoint(&value, &gain.inner, *eps, &dy)?;
                self.add_vector(gain, &d_gain);
                if bias.is_trained() {
                    let sums = self.dev.column_sums(&dy);
                    self.add_vector(bias, &sums);
                }
                self.give(x, |_, _| Ok(dx))
            }
            Op::Rope { x, rotation } => {
                let back = Rotation { sin: rotation.sin.iter().map(|sin| -sin).collect(), ..Rotation::clone(rotation) };
                self.give(x, |dev, _| dev.rope(&dy, &back))
            }
            Op::Attention { q, k, v, seen, head_len } => {
                let [q_value, k_value, v_value] = [q, k, v].map(|x| self.state.value(x));
                let (q_value, k_value, v_value) = (q_value?, k_value?, v_value?);
                let attended = Attended { q: &q_value, k: &k_value, v: &v_value };
                let seen = Seen { rows: seen, head_len: *head_len };
                let gradients = self.dev.attention_adjoint(attended, seen, &dy)?;
                [q, k, v].into_iter().zip(gradients).try_for_each(|(x, dx)| self.give(x, |_, _| Ok(dx)))
            }
            Op::Scores { x, routing } => {
                let value = self.state.value(x)?;
                if self.state.nodes[routing.logits.id].has_gradient {
                    let along = self.dev.row_dots(&dy, &value)?;
                    let [n_rows, n_experts] = routing.logits.shape;
                    let mut d_logits = vec![0.0; n_rows * n_experts];
                    for (((row, expert), score), along) in routing.sent.iter().zip(&routing.scores).zip(along) {
                        d_logits[row * n_experts + expert] += along * score * (1.0 - score);
                    }
                    self.give(&routing.logits, |dev, _| dev.upload(&d_logits, n_experts))?;
                }
                self.give(x, |dev, _| dev.scale_rows(&dy, &routing.scores))
            }
            Op::Experts { w, x, routing } => {
                self.experts(w, x, &routing.inner, &dy)?;
                self.give(x, |dev, _| dev.experts_adjoint(&w.parts, &dy, &routing.inner))
            }
            Op::Combine { onto, shared, y, routing } => {
                let rows: Vec<usize> = routing.sent.iter().map(|(row, _)| *row).collect();
                self.give(y, |dev, _| dev.rows(&dy, &rows))?;
                self.give(shared, |_, _| Ok(dy.clone()))?;
                self.give(onto, |_, _| Ok(dy))
            }
            Op::Swiglu(x) => self.give(x, |dev, value| dev.swiglu_adjoint(&value()?, &dy)),
            Op::Gelu(x) => self.give(x, |dev, value| dev.gelu_adjoint(&value()?, &dy)),
        }
    }

    /// Adds to the gradient of `x` what `gradient` gives for it, if `x` has any.
    fn give(
        &mut self,
        x: &Var,
        gradient: impl FnOnce(&D, &dyn Fn() -> Result<D::Tensor, OpError>) -> Result<D::Tensor, OpError>,
    ) -> Result<(), OpError> {
        if !self.state.nodes[x.id].has_gradient {
            return Ok(());
        }
        let dx = gradient(self.dev, &|| self.state.value(x))?;
        self.state.add_seed(self.dev, x.id, dx)
    }

    /// Columns are added where they stand, so that the parts of a row make one gradient.
    fn columns(&mut self, x: &Var, range: &Range<usize>, dy: &D::Tensor) -> Result<(), OpError> {
        if !self.state.nodes[x.id].has_gradient {
            return Ok(());
        }
        let onto = self.state.seeds.remove(&x.id);
        let sum = self.dev.columns_adjoint(onto, x.shape[1], range.start, dy)?;
        self.state.seeds.insert(x.id, sum);
        Ok(())
    }

    fn embedded(
        &mut self,
        origin: &Origin,
        [n_rows, width]: [usize; 2],
        ids: &[u32],
        dy: &D::Tensor,
    ) -> Result<(), OpError> {
        let out = room(&mut self.state.gradients, origin, n_rows * width);
        let dy = self.dev.download(dy);
        for (id, dy) in ids.iter().zip(dy.chunks_exact(width)) {
            let at = *id as usize * width;
            out[at..at + width].iter_mut().zip(dy).for_each(|(out, dy)| *out += dy);
        }
        Ok(())
    }

    fn linear(
        &mut self,
        w: &Arc<Map<D>>,
        x: &Var,
        bias: Option<&Arc<Vector<D>>>,
        dy: &D::Tensor,
    ) -> Result<(), OpError> {
        if let Some(bias) = bias.filter(|bias| bias.is_trained()) {
            let sums = self.dev.column_sums(dy);
            self.add_vector(bias, &sums);
        }
        if !w.is_trained() {
            return Ok(());
        }
        let value = self.state.value(x)?;
        let dev = self.dev;
        self.each_part(w, |part| dev.linear_gradient(&value, dy, part))
    }

    fn experts(&mut self, w: &Arc<Map<D>>, x: &Var, routing: &D::Routing, dy: &D::Tensor) -> Result<(), OpError> {
        if !w.is_trained() {
            return Ok(());
        }
        let value = self.state.value(x)?;
        let dev = self.dev;
        self.each_part(w, |part| dev.experts_gradient(&value, dy, routing, part))
    }

    /// Lets `add` add to the gradient of every trained part of `w`.
    fn each_part(
        &mut self,
        w: &Map<D>,
        mut add: impl FnMut(PartGradient<'_>) -> Result<(), OpError>,
    ) -> Result<(), OpError> {
        let mut first = 0;
        for (part, origin) in w.parts.iter().zip(&w.origins) {
            let n_out = part.shape()[1];
            let outputs = first..first + n_out;
            first += n_out;
            let Some(origin) = origin else { continue };
            let len = part.shape().iter().product();
            let values = room(&mut self.state.gradients, origin, len);
            let orientation = part.orientation();
            if origin.outputs.is_none() && origin.inputs.is_none() {
                add(PartGradient { values, orientation, outputs })?;
                continue;
            }
            let mut turned = vec![0.0; len];
            add(PartGradient { values: &mut turned, orientation, outputs })?;
            add_in_place(part, origin, &turned, values);
        }
        Ok(())
    }

    fn add_vector(&mut self, vector: &Vector<D>, gradient: &[f32]) {
        let mut first = 0;
        for (len, origin) in &vector.parts {
            if let Some(origin) = origin {
                let out = room(&mut self.state.gradients, origin, *len);
                out.iter_mut().zip(&gradient[first..first + len]).for_each(|(out, dy)| *out += dy);
            }
            first += len;
        }
    }
}

impl<D: Adjoint> Map<D> {
    pub(super) fn is_trained(&self) -> bool {
        self.origins.iter().any(Option::is_some)
    }
}

impl<D: Adjoint> Vector<D> {
    pub(super) fn is_trained(&self) -> bool {
        self.parts.iter().any(|(_, origin)| origin.is_some())
    }
}

/// The gradient of the tensor `origin`, zeros if there was none.
fn room<'a>(gradients: &'a mut BTreeMap<String, Vec<f32>>, origin: &Origin, len: usize) -> &'a mut Vec<f32> {
    match gradients.entry(origin.name.clone()) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(vec![0.0; len]),
    }
}

/// Adds the gradient of `part`, whose outputs or inputs stand in another order than its tensor's, to the tensor's.
fn add_in_place(part: &WeightSource, origin: &Origin, turned: &[f32], out: &mut [f32]) {
    let [_, n_out, n_in] = part.shape();
    debug_assert_eq!(part.orientation(), Orientation::OutIn);
    let place = |order: &Option<Vec<usize>>, i: usize| order.as_ref().map_or(i, |order| order[i]);
    for (i, value) in turned.iter().enumerate() {
        let (output, input) = (i / n_in % n_out, i % n_in);
        out[place(&origin.outputs, output) * n_in + place(&origin.inputs, input)] += value;
    }
}
