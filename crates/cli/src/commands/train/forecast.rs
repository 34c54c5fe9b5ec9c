//! What a run will take, said before it begins.

use std::time::Duration;

use anyhow::Result;
use formats::config::{Ffn, TextConfig};

use super::prepare::Prepared;
use crate::memory::size;
use crate::model::DeviceArguments;
use crate::output::{line, thousands};

/// The share of the f32 roof that steps of small models reach.
const SHARE: f64 = 0.25;

/// How long the roof is measured.
const BUDGET: Duration = Duration::from_millis(300);

/// Says what will be done, in how much memory and time.
pub fn say(prepared: &Prepared, device: &DeviceArguments) -> Result<()> {
    let recipe = &prepared.recipe;
    let steps = recipe.steps();
    let tokens = steps.saturating_mul(recipe.run.tokens as u64);
    line(&format!(
        "{} parameters, {} of them for each token; {} steps of {} tokens, {} in all",
        thousands(prepared.weights.n_values() as u64),
        thousands(active(prepared) as u64),
        thousands(steps),
        thousands(recipe.run.tokens as u64),
        thousands(tokens)
    ))?;
    let stages = recipe.stages();
    if stages.len() > 1 {
        let stages = stages.iter().map(|stage| format!("{} {}", stage.name, thousands(stage.steps)));
        line(&format!("stages: {}", stages.collect::<Vec<_>>().join(", ")))?;
    }
    line(&format!("memory: about {}", size(memory_bytes(prepared))))?;
    let roof = device.open().roofs(BUDGET).f32;
    // Six operations a parameter: a product forward, one for the inputs and one for the weights backward.
    let seconds = tokens as f64 * 6.0 * active(prepared) / (SHARE * roof);
    let time = match seconds {
        s if s < 90.0 => format!("{s:.0} seconds"),
        s if s < 5400.0 => format!("{:.0} minutes", s / 60.0),
        s => format!("{:.1} hours", s / 3600.0),
    };
    Ok(line(&format!("time: about {time} at {:.0} % of this machine's {:.0} GFLOP/s", 100.0 * SHARE, roof / 1e9))?)
}

/// Parameters that a token of text is multiplied with: of the experts, those that it goes to; of the embeddings, none.
fn active(prepared: &Prepared) -> f64 {
    let layers = &prepared.config().layers;
    let share = layers.iter().find_map(|layer| match layer.ffn {
        Ffn::Moe { n_experts, top_k, .. } => Some(top_k as f64 / n_experts as f64),
        Ffn::Dense { .. } => None,
    });
    let of = |(name, _, values): (&str, &[usize], &[f32])| {
        let is_tower =
            ["vision_model.", "audio_tower.", "audio_projector."].iter().any(|begin| name.starts_with(begin));
        let share = match name {
            _ if is_tower || name.contains("embed_tokens") => 0.0,
            _ if name.contains(".experts.") => share.unwrap_or(1.0),
            _ => 1.0,
        };
        share * values.len() as f64
    };
    prepared.weights.tensors().map(of).sum()
}

/// Weights, the same packed for kernels, gradients, two moments and an average, and what layers keep for the way back.
fn memory_bytes(prepared: &Prepared) -> u64 {
    let recipe = &prepared.recipe;
    let copies = if recipe.optimizer.average.is_some() { 6 } else { 5 };
    let TextConfig { hidden_size, n_heads, n_kv_heads, head_len, layers, vocab_size, .. } = prepared.config();
    let of_layer = |ffn: usize| 12 * hidden_size + 3 * (n_heads + 2 * n_kv_heads) * head_len + 6 * ffn;
    let kept: Vec<usize> = layers
        .iter()
        .map(|layer| match layer.ffn {
            Ffn::Moe { width, .. } | Ffn::Dense { width } => of_layer(width),
        })
        .collect();
    let a_row = match recipe.run.recompute {
        // What layers pass on, and one layer's at a time.
        true => kept.iter().max().copied().unwrap_or(0) + layers.len() * 3 * hidden_size,
        false => kept.iter().sum(),
    };
    let logits = 3 * train::Objective::default().logit_rows * vocab_size;
    4 * (copies * prepared.weights.n_values() + recipe.run.rows * a_row + logits) as u64
}
