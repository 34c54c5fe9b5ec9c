//! The ops forward: each is the inner device's, and a note of it.

use std::ops::Range;
use std::sync::Arc;

use tensor::{Adjoint, Choice, Device, KvFormat, OpError, PAGE_LEN, Rotation, RowKeys, WeightSource};

use super::op::Op;
use super::{Map, Pages, Routing, Table, Tape, Var, Vector};

impl<D: Adjoint> Device for Tape<D> {
    type Tensor = Var;
    type Matrix = Arc<Map<D>>;
    type Table = Arc<Table<D>>;
    type Vector = Arc<Vector<D>>;
    type Pages = Pages<D>;
    type Routing = Arc<Routing<D>>;

    fn matrix(&self, parts: &[WeightSource]) -> Result<Arc<Map<D>>, OpError> {
        let origins = parts.iter().map(|part| self.trained(part)).collect();
        Ok(Arc::new(Map { inner: self.dev.matrix(parts)?, parts: parts.to_vec(), origins }))
    }

    fn table(&self, source: &WeightSource) -> Result<Arc<Table<D>>, OpError> {
        let [_, n_rows, width] = source.shape();
        let origin = self.trained(source);
        Ok(Arc::new(Table { inner: self.dev.table(source)?, shape: [n_rows, width], origin }))
    }

    fn vector(&self, parts: &[WeightSource]) -> Result<Arc<Vector<D>>, OpError> {
        let inner = self.dev.vector(parts)?;
        let parts = parts.iter().map(|part| (part.shape()[2], self.trained(part))).collect();
        Ok(Arc::new(Vector { inner, parts }))
    }

    /// Keys and values as they are: formats that round have no gradient.
    fn pages(&self, n_pages: usize, n_heads: usize, head_len: usize, format: KvFormat) -> Result<Pages<D>, OpError> {
        if format != KvFormat::F32 {
            return Err(OpError::shape("pages", format!("{format:?} rounds what is stored; training needs F32")));
        }
        let inner = self.dev.pages(n_pages, n_heads, head_len, format)?;
        Ok(Pages { inner, head_len, stores: Vec::new(), held: vec![None; n_pages * PAGE_LEN] })
    }

    fn upload(&self, values: &[f32], width: usize) -> Result<Var, OpError> {
        Ok(self.record(Op::Upload, self.dev.upload(values, width)?))
    }

    /// Nothing, if `x` is not on the tape any more or was forgotten.
    fn download(&self, x: &Var) -> Vec<f32> {
        self.value(x).map(|x| self.dev.download(&x)).unwrap_or_default()
    }

    fn shape(&self, x: &Var) -> [usize; 2] {
        x.shape
    }

    fn reshape(&self, x: Var, width: usize) -> Result<Var, OpError> {
        let value = self.dev.reshape(self.value(&x)?, width)?;
        Ok(self.record(Op::Reshape { x, width }, value))
    }

    fn columns(&self, x: &Var, range: Range<usize>) -> Result<Var, OpError> {
        let value = self.dev.columns(&self.value(x)?, range.clone())?;
        Ok(self.record(Op::Columns { x: *x, range }, value))
    }

    fn rows(&self, x: &Var, rows: &[usize]) -> Result<Var, OpError> {
        let value = self.dev.rows(&self.value(x)?, rows)?;
        Ok(self.record(Op::Rows { x: *x, rows: rows.into() }, value))
    }

    fn concat(&self, a: &Var, b: &Var) -> Result<Var, OpError> {
        let value = self.dev.concat(&self.value(a)?, &self.value(b)?)?;
        Ok(self.record(Op::Concat([*a, *b]), value))
    }

    fn embed(&self, table: &Arc<Table<D>>, ids: &[u32]) -> Result<Var, OpError> {
        let value = self.dev.embed(&table.inner, ids)?;
        Ok(self.record(Op::Embed { table: Arc::clone(table), ids: ids.into() }, value))
    }

    fn add(&self, a: &Var, b: &Var) -> Result<Var, OpError> {
        let value = self.dev.add(&self.value(a)?, &self.value(b)?)?;
        Ok(self.record(Op::Add([*a, *b]), value))
    }

    fn scale_rows(&self, x: &Var, factors: &[f32]) -> Result<Var, OpError> {
        let value = self.dev.scale_rows(&self.value(x)?, factors)?;
        Ok(self.record(Op::ScaleRows { x: *x, factors: factors.into() }, value))
    }

    fn linear(&self, w: &Arc<Map<D>>, bias: Option<&Arc<Vector<D>>>, x: &Var) -> Result<Var, OpError> {
        let value = self.dev.linear(&w.inner, bias.map(|bias| &bias.inner), &self.value(x)?)?;
        Ok(self.record(Op::Linear { w: Arc::clone(w), bias: bias.cloned(), x: *x, onto: None }, value))
    }

    fn linear_onto(&self, onto: Var, w: &Arc<Map<D>>, bias: Option<&Arc<Vector<D>>>, x: &Var) -> Result<Var, OpError> {
        let bias_inner = bias.map(|bias| &bias.inner);
        let value = self.dev.linear_onto(self.value(&onto)?, &w.inner, bias_inner, &self.value(x)?)?;
        Ok(self.record(Op::Linear { w: Arc::clone(w), bias: bias.cloned(), x: *x, onto: Some(onto) }, value))
    }

    fn rms_norm(&self, x: &Var, gain: Option<&Arc<Vector<D>>>, width: usize, eps: f32) -> Result<Var, OpError> {
        let value = self.dev.rms_norm(&self.value(x)?, gain.map(|gain| &gain.inner), width, eps)?;
        Ok(self.record(Op::RmsNorm { x: *x, gain: gain.cloned(), width, eps }, value))
    }

    fn layer_norm(&self, x: &Var, gain: &Arc<Vector<D>>, bias: &Arc<Vector<D>>, eps: f32) -> Result<Var, OpError> {
        let value = self.dev.layer_norm(&self.value(x)?, &gain.inner, &bias.inner, eps)?;
        Ok(self.record(Op::LayerNorm { x: *x, gain: Arc::clone(gain), bias: Arc::clone(bias), eps }, value))
    }

    fn rope(&self, x: &Var, rotation: &Rotation) -> Result<Var, OpError> {
        let value = self.dev.rope(&self.value(x)?, rotation)?;
        Ok(self.record(Op::Rope { x: *x, rotation: Arc::new(rotation.clone()) }, value))
    }

    fn store(&self, pages: &mut Pages<D>, k: &Var, v: &Var, slots: &[usize]) -> Result<(), OpError> {
        self.dev.store(&mut pages.inner, &self.value(k)?, &self.value(v)?, slots)?;
        let store = pages.stores.len();
        pages.stores.push([*k, *v]);
        for (row, slot) in slots.iter().enumerate() {
            // The inner device has checked that the slot is there.
            if let Some(held) = pages.held.get_mut(*slot) {
                *held = Some((store, row));
            }
        }
        Ok(())
    }

    /// Every row must see positions that were stored at once and lie one after another there: whole sequences in one
    /// step, as training has them.
    fn attention(&self, q: &Var, pages: &Pages<D>, rows: &[RowKeys<'_>]) -> Result<Var, OpError> {
        let value = self.dev.attention(&self.value(q)?, &pages.inner, rows)?;
        let (store, seen) = pages.seen(rows)?;
        let [k, v] = pages.stores[store];
        Ok(self.record(Op::Attention { q: *q, k, v, seen: seen.into(), head_len: pages.head_len }, value))
    }

    fn route(&self, logits: &Var, top_k: usize) -> Result<Arc<Routing<D>>, OpError> {
        let inner = self.dev.route(&self.value(logits)?, top_k)?;
        let choices = self.dev.choices(&inner);
        let mut order: Vec<usize> = (0..choices.len()).collect();
        // By expert, then by row: the order in which devices send rows.
        order.sort_by_key(|i| choices[*i].expert);
        let scores = order.iter().map(|i| choices[*i].score).collect();
        let sent = order.iter().map(|i| (i / top_k, choices[*i].expert as usize)).collect();
        Ok(Arc::new(Routing { inner, logits: *logits, scores, sent }))
    }

    fn expect(&self, routing: &Arc<Routing<D>>, maps: &[&Arc<Map<D>>]) {
        let maps: Vec<&D::Matrix> = maps.iter().map(|map| &map.inner).collect();
        self.dev.expect(&routing.inner, &maps);
    }

    fn choices(&self, routing: &Arc<Routing<D>>) -> Vec<Choice> {
        self.dev.choices(&routing.inner)
    }

    fn experts_input(&self, x: &Var, routing: &Arc<Routing<D>>) -> Result<Var, OpError> {
        let rows: Vec<usize> = routing.sent.iter().map(|(row, _)| *row).collect();
        let sent = self.rows(x, &rows)?;
        let scaled = self.dev.scale_rows(&self.value(&sent)?, &routing.scores)?;
        Ok(self.record(Op::Scores { x: sent, routing: Arc::clone(routing) }, scaled))
    }

    fn experts_swiglu(&self, w: &Arc<Map<D>>, x: &Var, routing: &Arc<Routing<D>>) -> Result<Var, OpError> {
        self.swiglu(&self.experts(w, &self.experts_input(x, routing)?, routing)?)
    }

    fn experts(&self, w: &Arc<Map<D>>, x: &Var, routing: &Arc<Routing<D>>) -> Result<Var, OpError> {
        let value = self.dev.experts(&w.inner, &self.value(x)?, &routing.inner)?;
        Ok(self.record(Op::Experts { w: Arc::clone(w), x: *x, routing: Arc::clone(routing) }, value))
    }

    fn combine(&self, onto: Var, shared: &Var, y: &Var, routing: &Arc<Routing<D>>) -> Result<Var, OpError> {
        let value = self.dev.combine(self.value(&onto)?, &self.value(shared)?, &self.value(y)?, &routing.inner)?;
        Ok(self.record(Op::Combine { onto, shared: *shared, y: *y, routing: Arc::clone(routing) }, value))
    }

    fn swiglu(&self, gate_up: &Var) -> Result<Var, OpError> {
        let value = self.dev.swiglu(&self.value(gate_up)?)?;
        Ok(self.record(Op::Swiglu(*gate_up), value))
    }

    /// Of what is not on the tape any more, nothing: one zero, without a gradient.
    fn gelu(&self, x: &Var) -> Var {
        let value = self.value(x).map(|x| self.dev.gelu(&x));
        match value.or_else(|_| self.dev.upload(&[0.0], 1)) {
            Ok(value) => self.record(Op::Gelu(*x), value),
            Err(_) => *x,
        }
    }
}

impl<D: Adjoint> Pages<D> {
    /// Which store all `rows` see, and which of its rows each sees.
    fn seen(&self, rows: &[RowKeys<'_>]) -> Result<(usize, Vec<Range<usize>>), OpError> {
        let wrong =
            || OpError::shape("attention", "a row sees what was not stored at once and in order, as training needs it");
        let mut seen = Vec::with_capacity(rows.len());
        let mut only: Option<usize> = None;
        for row in rows {
            let slots = row.visible().flat_map(|(page, slots)| slots.map(move |slot| page * PAGE_LEN + slot));
            let mut range: Option<Range<usize>> = None;
            for slot in slots {
                let (store, at) = self.held.get(slot).copied().flatten().ok_or_else(wrong)?;
                let range = range.get_or_insert(at..at);
                if range.end != at || *only.get_or_insert(store) != store {
                    return Err(wrong());
                }
                range.end = at + 1;
            }
            seen.push(range.ok_or_else(wrong)?);
        }
        Ok((only.ok_or_else(wrong)?, seen))
    }
}
