//! What a step reads and computes, by the files' own shapes and formats.

use std::ops::AddAssign;

use formats::config::Ffn;
use formats::{Checkpoint, Tensor};
use tensor::Format;

use crate::LlamaError;
use crate::load::weight_name;
use crate::names::{Inner, Names, Outer};

/// Weights as a step sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Use {
    /// Bytes that are read once a step.
    pub bytes: usize,
    /// Multiply-adds for each row.
    pub products: usize,
    /// Of the multiply-adds those with quantised weights.
    pub quantised: usize,
}

/// The routed experts of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed {
    /// The layer.
    pub layer: usize,
    /// Experts.
    pub n_experts: usize,
    /// Experts that a row goes to.
    pub top_k: usize,
    /// One expert.
    pub one: Use,
}

/// What the decoder's weights cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// Weights that every row of a step goes through, without the output map.
    pub every_row: Use,
    /// The output map, for rows that want logits.
    pub output: Use,
    /// Routed experts, layer by layer.
    pub routed: Vec<Routed>,
}

impl AddAssign for Use {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.products += other.products;
        self.quantised += other.quantised;
    }
}

impl Use {
    fn of(tensor: &Tensor) -> Self {
        let products = tensor.shape.iter().product();
        let quantised = match tensor.dtype.format() {
            Some(Format::Block(_)) => products,
            _ => 0,
        };
        Self { bytes: tensor.bytes.len(), products, quantised }
    }

    /// One of `n` equal parts.
    fn part(self, n: usize) -> Self {
        Self { bytes: self.bytes / n, products: self.products / n, quantised: self.quantised / n }
    }
}

impl Footprint {
    /// Of the weights that `checkpoint` holds.
    ///
    /// # Errors
    /// [`LlamaError::Missing`] for a weight that the config asks for and the files lack.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, LlamaError> {
        let config = &checkpoint.config;
        let names = Names::of(config.architecture, checkpoint.is_gguf());
        let find = |name: &str| checkpoint.tensors.get(name).map(Use::of);
        let need = |name: String| find(&name).ok_or(LlamaError::Missing { name });
        let output = if config.tie_word_embeddings { Outer::Embeddings } else { Outer::Output };
        let mut this = Self { every_row: Use::default(), output: need(names.outer(output))?, routed: Vec::new() };
        for (i, layer) in config.text.layers.iter().enumerate() {
            let need = |weight| need(weight_name(names, i, weight));
            let mut every_row = vec![Inner::Q, Inner::K, Inner::V, Inner::O];
            match layer.ffn {
                Ffn::Dense { .. } => every_row.extend([Inner::Gate, Inner::Up, Inner::Down]),
                Ffn::Moe { n_experts, top_k, .. } => {
                    every_row.extend([Inner::Router, Inner::SharedGate, Inner::SharedUp, Inner::SharedDown]);
                    let mut all = need(Inner::ExpertsDown)?;
                    match find(&weight_name(names, i, Inner::ExpertsGateUp)) {
                        Some(fused) => all += fused,
                        None => {
                            all += need(Inner::ExpertsGate)?;
                            all += need(Inner::ExpertsUp)?;
                        }
                    }
                    this.routed.push(Routed { layer: i, n_experts, top_k, one: all.part(n_experts) });
                }
            }
            for weight in every_row {
                this.every_row += need(weight)?;
            }
        }
        Ok(this)
    }

    /// Bytes of weights that a step reads which gives `n_logits` rows' logits and goes to `n_chosen` experts, counted
    /// over all layers.
    pub fn step_bytes(&self, n_chosen: usize, n_logits: usize) -> usize {
        let one = self.routed.first().map_or(0, |routed| routed.one.bytes);
        self.every_row.bytes + n_chosen * one + if n_logits > 0 { self.output.bytes } else { 0 }
    }

    /// Multiply-adds with weights for `n_rows` rows, of which `n_logits` want logits: all, and those with quantised
    /// weights.
    pub fn products(&self, n_rows: usize, n_logits: usize) -> (usize, usize) {
        let mut row = self.every_row;
        for routed in &self.routed {
            for _ in 0..routed.top_k {
                row += routed.one;
            }
        }
        let count = |of: fn(&Use) -> usize| n_rows * of(&row) + n_logits * of(&self.output);
        (count(|row| row.products), count(|row| row.quantised))
    }
}
