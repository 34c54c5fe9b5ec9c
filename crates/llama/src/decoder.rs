//! The decoder: embeddings, layers, logits.

use std::num::NonZeroUsize;

use formats::config::{LayerConfig, Temperature, TextConfig};
use tensor::{Device, KvFormat, OpError, Rotation, RowKeys, math};

use crate::lora::{Additions, LowRank, Place};
use crate::rotary::Frequencies;
use crate::{Batch, Input, LlamaError, Probe, Site};

/// The text model's weights and what of its config a step needs.
pub struct Decoder<D: Device> {
    n_heads: usize,
    n_kv_heads: usize,
    head_len: usize,
    eps: f32,
    qk_norm: bool,
    temperature: Option<Temperature>,
    chunk: Option<NonZeroUsize>,
    vocab_size: usize,
    width: usize,
    frequencies: Frequencies,
    embeddings: D::Table,
    layers: Vec<Layer<D>>,
    norm: D::Vector,
    output: D::Matrix,
}

/// Which rows go through a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// All of them.
    EveryRow,
    /// Those that want logits.
    Output,
    /// Each row through `top_k` of the experts of one layer.
    Routed {
        /// The layer.
        layer: usize,
        /// Experts that a row goes to.
        top_k: usize,
    },
}

pub(crate) struct Layer<D: Device> {
    pub(crate) config: LayerConfig,
    pub(crate) weights: LayerWeights<D>,
    /// What an adapter adds beside the weights.
    pub(crate) lora: Additions<D>,
}

pub(crate) struct LayerWeights<D: Device> {
    pub(crate) attention_norm: D::Vector,
    /// Rows of q, then k, then v.
    pub(crate) qkv: D::Matrix,
    pub(crate) qkv_bias: Option<D::Vector>,
    pub(crate) o: D::Matrix,
    pub(crate) o_bias: Option<D::Vector>,
    pub(crate) ffn_norm: D::Vector,
    pub(crate) ffn: FeedForward<D>,
}

pub(crate) enum FeedForward<D: Device> {
    Dense(Dense<D>),
    Moe { router: D::Matrix, top_k: usize, shared: Dense<D>, gate_up: D::Matrix, down: D::Matrix },
}

pub(crate) struct Dense<D: Device> {
    /// Rows of gate, then up.
    pub(crate) gate_up: D::Matrix,
    pub(crate) gate_up_bias: Option<D::Vector>,
    pub(crate) down: D::Matrix,
    pub(crate) down_bias: Option<D::Vector>,
}

/// Keys and values of all layers.
pub struct Cache<D: Device> {
    layers: Vec<D::Pages>,
}

/// What of a step's rows all layers share.
struct Step<'a> {
    /// Angles by absolute position.
    rotation: Rotation,
    /// Angles by position within the chunk: the same function on layers that see one chunk, and exact there however
    /// far the sequence goes.
    chunk_rotation: Option<Rotation>,
    /// One factor a row for the queries of unrotated layers.
    temperature: Option<Vec<f32>>,
    global: Reach<'a>,
    chunked: Reach<'a>,
}

/// Where rows are stored and what they see, in one kind of layer.
struct Reach<'a> {
    slots: Vec<usize>,
    keys: Vec<RowKeys<'a>>,
}

impl<D: Device> Decoder<D> {
    pub(crate) fn new(
        text: &TextConfig,
        divisors: &[f32],
        embeddings: D::Table,
        layers: Vec<Layer<D>>,
        norm: D::Vector,
        output: D::Matrix,
    ) -> Self {
        Self {
            n_heads: text.n_heads,
            n_kv_heads: text.n_kv_heads,
            head_len: text.head_len,
            eps: text.rms_eps,
            qk_norm: text.qk_norm,
            temperature: text.temperature.clone(),
            chunk: text.layers.iter().find_map(|layer| layer.chunk),
            vocab_size: text.vocab_size,
            width: text.hidden_size,
            frequencies: Frequencies::new(&text.rope, text.pairing, text.head_len, divisors),
            embeddings,
            layers,
            norm,
            output,
        }
    }

    /// The length of the chunks that most layers see, if there are any.
    pub fn chunk(&self) -> Option<NonZeroUsize> {
        self.chunk
    }

    /// Width of the residual stream, D.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens that logits are for.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Adds `low_rank` beside the map at `place` of layer `layer`; whether there was room for it: the layer is there and
    /// nothing was added at this place before.
    pub(crate) fn adapt(&mut self, layer: usize, place: Place, low_rank: LowRank<D>) -> bool {
        self.layers.get_mut(layer).is_some_and(|layer| layer.lora.insert(place, low_rank))
    }

    /// Takes away all that was added beside maps.
    pub(crate) fn unadapt(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.lora.clear());
    }

    /// Shows `see` every map that rows go through, in the order of a step, and who goes through it.
    pub fn visit(&self, see: &mut dyn FnMut(Passage, &D::Matrix)) {
        for (i, layer) in self.layers.iter().enumerate() {
            let weights = &layer.weights;
            see(Passage::EveryRow, &weights.qkv);
            see(Passage::EveryRow, &weights.o);
            let (FeedForward::Dense(dense) | FeedForward::Moe { shared: dense, .. }) = &weights.ffn;
            if let FeedForward::Moe { router, top_k, gate_up, down, .. } = &weights.ffn {
                see(Passage::EveryRow, router);
                for matrix in [gate_up, down] {
                    see(Passage::Routed { layer: i, top_k: *top_k }, matrix);
                }
            }
            see(Passage::EveryRow, &dense.gate_up);
            see(Passage::EveryRow, &dense.down);
            layer.lora.visit(&mut |place, matrix| match (&weights.ffn, place) {
                (FeedForward::Moe { top_k, .. }, Place::ExpertsGateUp | Place::ExpertsDown) => {
                    see(Passage::Routed { layer: i, top_k: *top_k }, matrix);
                }
                _ => see(Passage::EveryRow, matrix),
            });
        }
        see(Passage::Output, &self.output);
    }

    /// Zeroed pages: `n_global` for each layer that sees everything, `n_chunked` for each that sees a chunk.
    ///
    /// # Errors
    /// [`LlamaError::Op`] if the size overflows.
    pub fn cache(&self, dev: &D, n_global: usize, n_chunked: usize, format: KvFormat) -> Result<Cache<D>, LlamaError> {
        let pages = |layer: &Layer<D>| {
            let n_pages = if layer.config.chunk.is_some() { n_chunked } else { n_global };
            dev.pages(n_pages, self.n_kv_heads, self.head_len, format)
        };
        Ok(Cache { layers: self.layers.iter().map(pages).collect::<Result<_, _>>()? })
    }

    /// Bytes of keys and values that one page holds in all layers of its kind: (global, chunked).
    pub fn page_bytes(&self, format: KvFormat) -> (usize, usize) {
        let layer = 2 * tensor::PAGE_LEN * self.n_kv_heads * format.bytes(self.head_len);
        let n_chunked = self.layers.iter().filter(|layer| layer.config.chunk.is_some()).count();
        ((self.layers.len() - n_chunked) * layer, n_chunked * layer)
    }

    /// Computes the rows of `batch`, stores their keys and values in `cache`, and returns the logits `[_, V]` of the
    /// rows that want them, in their order; `None` if none does.
    ///
    /// # Errors
    /// [`LlamaError::Op`] if a row's token, position, pages or feature is not there.
    pub fn forward(
        &self,
        dev: &D,
        cache: &mut Cache<D>,
        batch: &Batch<'_, D::Tensor>,
        probe: &mut impl Probe<D>,
    ) -> Result<Option<D::Tensor>, LlamaError> {
        let x = self.layers(dev, cache, batch, probe)?;
        let wanted: Vec<usize> = (0..batch.rows.len()).filter(|i| batch.rows[*i].wants_logits).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let x = self.hidden(dev, &x, &wanted)?;
        probe.see(dev, Site::FinalNorm, &x);
        let logits = self.logits(dev, &x)?;
        probe.see(dev, Site::Logits, &logits);
        Ok(Some(logits))
    }

    /// The first part of [`forward`](Self::forward): stores the rows' keys and values and returns the residual stream
    /// after the last layer, `[T, D]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn layers(
        &self,
        dev: &D,
        cache: &mut Cache<D>,
        batch: &Batch<'_, D::Tensor>,
        probe: &mut impl Probe<D>,
    ) -> Result<D::Tensor, LlamaError> {
        let step = self.step(batch)?;
        let mut x = embed(dev, &self.embeddings, batch)?;
        probe.see(dev, Site::Embeds, &x);
        for (i, (layer, pages)) in self.layers.iter().zip(&mut cache.layers).enumerate() {
            let Layer { weights, lora, .. } = layer;
            let mixed = self.attention(dev, layer, pages, &step, &x)?;
            if probe.looks() {
                let alone = dev.linear(&weights.o, weights.o_bias.as_ref(), &mixed)?;
                probe.see(dev, Site::Attention(i), &lora.add(dev, Place::O, alone, &mixed)?);
            }
            x = dev.linear_onto(x, &weights.o, weights.o_bias.as_ref(), &mixed)?;
            x = lora.add(dev, Place::O, x, &mixed)?;
            let normed = dev.rms_norm(&x, Some(&weights.ffn_norm), dev.shape(&x)[1], self.eps)?;
            let inner = weights.ffn.inner(dev, lora, &normed, &mut |logits| probe.see(dev, Site::Router(i), logits))?;
            if probe.looks() {
                let nothing = dev.scale_rows(&x, &vec![0.0; batch.rows.len()])?;
                probe.see(dev, Site::FeedForward(i), &weights.ffn.outer(dev, lora, nothing, &inner)?);
            }
            x = weights.ffn.outer(dev, lora, x, &inner)?;
            probe.see(dev, Site::Layer(i), &x);
        }
        Ok(x)
    }

    /// The final hidden states of the rows `wanted` of what [`layers`](Self::layers) returned: after the last norm,
    /// `[_, D]`.
    ///
    /// # Errors
    /// [`LlamaError::Op`] for a row that is not there.
    pub fn hidden(&self, dev: &D, x: &D::Tensor, wanted: &[usize]) -> Result<D::Tensor, LlamaError> {
        let x = dev.rows(x, wanted)?;
        Ok(dev.rms_norm(&x, Some(&self.norm), dev.shape(&x)[1], self.eps)?)
    }

    /// Logits of final [hidden](Self::hidden) states, `[_, V]`.
    ///
    /// # Errors
    /// [`LlamaError::Op`] if they are not of the model's width.
    pub fn logits(&self, dev: &D, hidden: &D::Tensor) -> Result<D::Tensor, LlamaError> {
        Ok(dev.linear(&self.output, None, hidden)?)
    }

    /// Stores the rows' keys and values and returns what their heads gather, `[T, H·C]`.
    fn attention(
        &self,
        dev: &D,
        layer: &Layer<D>,
        pages: &mut D::Pages,
        step: &Step<'_>,
        x: &D::Tensor,
    ) -> Result<D::Tensor, OpError> {
        let weights = &layer.weights;
        let normed = dev.rms_norm(x, Some(&weights.attention_norm), dev.shape(x)[1], self.eps)?;
        let qkv = dev.linear(&weights.qkv, weights.qkv_bias.as_ref(), &normed)?;
        let (q_width, kv_width) = (self.n_heads * self.head_len, self.n_kv_heads * self.head_len);
        let mut q = dev.columns(&qkv, 0..q_width)?;
        let mut k = dev.columns(&qkv, q_width..q_width + kv_width)?;
        let mut v = dev.columns(&qkv, q_width + kv_width..q_width + 2 * kv_width)?;
        q = layer.lora.add(dev, Place::Q, q, &normed)?;
        k = layer.lora.add(dev, Place::K, k, &normed)?;
        v = layer.lora.add(dev, Place::V, v, &normed)?;
        let chunked = layer.config.chunk.is_some();
        if layer.config.rotated {
            let rotation = step.chunk_rotation.as_ref().filter(|_| chunked).unwrap_or(&step.rotation);
            q = dev.rope(&q, rotation)?;
            k = dev.rope(&k, rotation)?;
            // Rotation first, then the gain-free norm of each head.
            if self.qk_norm {
                q = dev.rms_norm(&q, None, self.head_len, self.eps)?;
                k = dev.rms_norm(&k, None, self.head_len, self.eps)?;
            }
        } else if let Some(factors) = &step.temperature {
            q = dev.scale_rows(&q, factors)?;
        }
        let reach = if chunked { &step.chunked } else { &step.global };
        dev.store(pages, &k, &v, &reach.slots)?;
        dev.attention(&q, pages, &reach.keys)
    }

    fn step<'a>(&self, batch: &Batch<'a, D::Tensor>) -> Result<Step<'a>, OpError> {
        let positions = || batch.rows.iter().map(|row| row.position);
        let temperature = self.temperature.as_ref().map(|t| positions().map(|p| query_factor(t, p)).collect());
        let runs = batch.rows.iter().map(|row| (row.position, row.global, 0));
        let global = match self.layers.iter().any(|layer| layer.config.chunk.is_none()) {
            true => Reach::new(runs)?,
            false => Reach { slots: Vec::new(), keys: Vec::new() },
        };
        let chunked = match self.chunk {
            Some(chunk) => {
                let begin = |position: usize| position - position % chunk;
                Reach::new(batch.rows.iter().map(|row| (row.position, row.chunked, begin(row.position))))?
            }
            None => Reach { slots: Vec::new(), keys: Vec::new() },
        };
        Ok(Step {
            rotation: self.frequencies.rotation(positions()),
            chunk_rotation: self.chunk.map(|chunk| self.frequencies.rotation(positions().map(|p| p % chunk))),
            temperature,
            global,
            chunked,
        })
    }
}

impl<'a> Reach<'a> {
    /// From each row's position, pages and first visible position.
    fn new(rows: impl Iterator<Item = (usize, crate::PageRun<'a>, usize)>) -> Result<Self, OpError> {
        let mut this = Self { slots: Vec::new(), keys: Vec::new() };
        for (position, run, begin) in rows {
            let len = run.first_position + run.pages.len() * tensor::PAGE_LEN;
            let slot = run.slot(position).ok_or(OpError::Index { op: "store", index: position, len })?;
            this.slots.push(slot);
            this.keys.push(run.keys(begin, position + 1));
        }
        Ok(this)
    }
}

/// A feed-forward network between its two halves.
struct Inner<D: Device> {
    /// Of the network that all rows go through, `[T, F]`.
    shared: D::Tensor,
    /// Of the chosen experts, and who chose them.
    routed: Option<(D::Tensor, D::Routing)>,
}

impl<D: Device> FeedForward<D> {
    /// `silu(gate) · up` of normalised rows.
    fn inner(
        &self,
        dev: &D,
        lora: &Additions<D>,
        x: &D::Tensor,
        see_router: &mut dyn FnMut(&D::Tensor),
    ) -> Result<Inner<D>, OpError> {
        let dense = |dense: &Dense<D>| dense.inner(dev, lora, x);
        match self {
            Self::Dense(all) => Ok(Inner { shared: dense(all)?, routed: None }),
            Self::Moe { router, top_k, shared, gate_up, down } => {
                let logits = dev.linear(router, None, x)?;
                see_router(&logits);
                let routing = dev.route(&logits, *top_k)?;
                // Experts that have to be read are on their way while the shared one is computed.
                dev.expect(&routing, &[gate_up, down]);
                // The score multiplies the expert's input; the shared expert always runs, unscaled.
                let shared = dense(shared)?;
                let routed = match lora.has(Place::ExpertsGateUp) {
                    false => dev.experts_swiglu(gate_up, x, &routing)?,
                    true => {
                        let sent = dev.experts_input(x, &routing)?;
                        let both = dev.experts(gate_up, &sent, &routing)?;
                        dev.swiglu(&lora.add_routed(dev, Place::ExpertsGateUp, both, &sent, &routing)?)?
                    }
                };
                Ok(Inner { shared, routed: Some((routed, routing)) })
            }
        }
    }

    /// Adds the output to `onto`.
    fn outer(&self, dev: &D, lora: &Additions<D>, onto: D::Tensor, inner: &Inner<D>) -> Result<D::Tensor, OpError> {
        let (Self::Dense(dense) | Self::Moe { shared: dense, .. }) = self;
        match (self, &inner.routed) {
            (Self::Moe { down, .. }, Some((inner_routed, routing))) => {
                let shared = dev.linear(&dense.down, dense.down_bias.as_ref(), &inner.shared)?;
                let shared = lora.add(dev, Place::Down, shared, &inner.shared)?;
                let routed = dev.experts(down, inner_routed, routing)?;
                let routed = lora.add_routed(dev, Place::ExpertsDown, routed, inner_routed, routing)?;
                dev.combine(onto, &shared, &routed, routing)
            }
            _ => {
                let onto = dev.linear_onto(onto, &dense.down, dense.down_bias.as_ref(), &inner.shared)?;
                lora.add(dev, Place::Down, onto, &inner.shared)
            }
        }
    }
}

impl<D: Device> Dense<D> {
    /// `silu(gate) · up`.
    fn inner(&self, dev: &D, lora: &Additions<D>, x: &D::Tensor) -> Result<D::Tensor, OpError> {
        if !lora.has(Place::Gate) && !lora.has(Place::Up) {
            return dev.linear_swiglu(&self.gate_up, self.gate_up_bias.as_ref(), x);
        }
        let both = dev.linear(&self.gate_up, self.gate_up_bias.as_ref(), x)?;
        let [n_rows, width] = dev.shape(&both);
        let gate = lora.add(dev, Place::Gate, dev.columns(&both, 0..width / 2)?, x)?;
        let up = lora.add(dev, Place::Up, dev.columns(&both, width / 2..width)?, x)?;
        // No op lays two tensors side by side: each gate goes above its up, and the pair becomes one row.
        let pairs: Vec<usize> = (0..n_rows).flat_map(|row| [row, n_rows + row]).collect();
        let both = dev.rows(&dev.concat(&gate, &up)?, &pairs)?;
        dev.swiglu(&dev.reshape(both, width)?)
    }
}

/// 1 + scale · ln(1 + ⌊(position + 1) / floor_scale⌋), for queries of unrotated layers.
fn query_factor(temperature: &Temperature, position: usize) -> f32 {
    let steps = ((position + 1) as f64 / f64::from(temperature.floor_scale)).floor();
    (1.0 + f64::from(temperature.scale) * math::ln(1.0 + steps)) as f32
}

/// Token embeddings with the features of [`Input::Feature`] rows in their places, `[T, D]`.
fn embed<D: Device>(dev: &D, table: &D::Table, batch: &Batch<'_, D::Tensor>) -> Result<D::Tensor, OpError> {
    // Every feature row and the tokens in one stack, then one gather: rows of the batch name rows of the stack.
    let ids: Vec<u32> = batch
        .rows
        .iter()
        .filter_map(|row| match row.input {
            Input::Token(id) => Some(id),
            Input::Feature { .. } => None,
        })
        .collect();
    let mut stack = dev.embed(table, &ids)?;
    if ids.len() == batch.rows.len() {
        return Ok(stack);
    }
    let mut begins = Vec::with_capacity(batch.features.len());
    for features in batch.features {
        begins.push(dev.shape(&stack)[0]);
        stack = dev.concat(&stack, features)?;
    }
    let mut next_token = 0..ids.len();
    let row_of = |input: &Input| match *input {
        Input::Token(_) => Ok(next_token.next().unwrap_or_default()),
        Input::Feature { features, row } => {
            let n_rows = batch.features.get(features).map_or(0, |x| dev.shape(x)[0]);
            match begins.get(features) {
                Some(begin) if row < n_rows => Ok(begin + row),
                _ => Err(OpError::Index { op: "embed", index: row, len: n_rows }),
            }
        }
    };
    let rows = batch.rows.iter().map(|row| &row.input).map(row_of).collect::<Result<Vec<_>, _>>()?;
    dev.rows(&stack, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_factor_counts_positions_from_one() {
        let temperature = Temperature { floor_scale: 8192.0, scale: 0.1 };
        // Spec 2.6's table.
        for (position, want) in
            [(0, 1.0), (8190, 1.0), (8191, 1.0693), (16383, 1.1099), (131_071, 1.2833), (10_485_759, 1.7155)]
        {
            assert!((query_factor(&temperature, position) - want).abs() < 5e-5, "{position}");
        }
    }
}
