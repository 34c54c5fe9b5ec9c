//! What a step reads and computes, by the maps that were loaded.

use std::ops::AddAssign;

use tensor::Device;

use crate::{Decoder, Passage};

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// One of `n` equal parts.
    fn part(self, n: usize) -> Self {
        let n = n.max(1);
        Self { bytes: self.bytes / n, products: self.products / n, quantised: self.quantised / n }
    }
}

impl Footprint {
    /// Of the maps of `decoder`. `measure` says what a device's map costs, all of its matrices together, and how many
    /// there are.
    pub fn of<D: Device>(decoder: &Decoder<D>, measure: &dyn Fn(&D::Matrix) -> (Use, usize)) -> Self {
        let mut this = Self::default();
        decoder.visit(&mut |passage, matrix| {
            let (all, n_matrices) = measure(matrix);
            match passage {
                Passage::EveryRow => this.every_row += all,
                Passage::Output => this.output += all,
                Passage::Routed { layer, top_k } => {
                    let one = all.part(n_matrices);
                    match this.routed.last_mut() {
                        Some(last) if last.layer == layer => last.one += one,
                        _ => this.routed.push(Routed { layer, n_experts: n_matrices, top_k, one }),
                    }
                }
            }
        });
        this
    }

    /// Bytes of weights that a step reads which gives `n_logits` rows' logits and goes to `n_chosen` experts, counted
    /// over all layers.
    pub fn step_bytes(&self, n_chosen: usize, n_logits: usize) -> usize {
        let one = self.expert_bytes().checked_div(self.n_experts()).unwrap_or(0);
        self.every_row.bytes + n_chosen * one + if n_logits > 0 { self.output.bytes } else { 0 }
    }

    /// Experts of all layers.
    pub fn n_experts(&self) -> usize {
        self.routed.iter().map(|routed| routed.n_experts).sum()
    }

    /// Bytes of all experts of all layers.
    pub fn expert_bytes(&self) -> usize {
        self.routed.iter().map(|routed| routed.n_experts * routed.one.bytes).sum()
    }

    /// Bytes of the experts that one row goes to, in all layers.
    pub fn chosen_bytes(&self) -> usize {
        self.routed.iter().map(|routed| routed.top_k * routed.one.bytes).sum()
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
