//! What a run will take, said before it begins.

use std::time::Duration;

use anyhow::Result;
use formats::config::{Ffn, ModelConfig, TextConfig};

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
    let layers = &prepared.config().text.layers;
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
    let weights = 4 * copies * prepared.weights.n_values() as u64;
    weights + kept_bytes(prepared.config(), recipe.run.rows, recipe.run.recompute)
}

/// What a step of `rows` rows keeps for the way back: layers, which with `recompute` pass on their results and keep one
/// layer's at a time; the towers of a step whose rows are all of media; and some rows' logits.
pub fn kept_bytes(config: &ModelConfig, rows: usize, recompute: bool) -> u64 {
    let TextConfig { hidden_size, n_heads, n_kv_heads, head_len, layers, vocab_size, .. } = &config.text;
    let heads = (n_heads + 2 * n_kv_heads) * head_len;
    let of_layer = layers.iter().map(|layer| {
        // Gate, up and their product, forward and back.
        let inner = match layer.ffn {
            Ffn::Dense { width } => 6 * width,
            Ffn::Moe { width, top_k, shared_width, .. } => 3 * (shared_width + top_k * width) + 2 * top_k * hidden_size,
        };
        12 * hidden_size + 3 * heads + inner
    });
    let a_row = match recompute {
        true => of_layer.clone().max().unwrap_or(0) + layers.len() * 3 * hidden_size,
        false => of_layer.sum(),
    };
    let of_tower = |width: usize, inner: usize, n_layers: usize| n_layers * (21 * width + 3 * inner);
    let vision = config
        .vision
        .as_ref()
        .map(|it| it.joined_patches().pow(2) * of_tower(it.hidden_size, it.intermediate_size, it.n_layers));
    let audio = config.audio.as_ref().map(|it| {
        let encoder = &it.encoder;
        it.projector.stack * of_tower(encoder.hidden_size, encoder.intermediate_size, encoder.n_layers)
    });
    let a_row = a_row + vision.max(audio).unwrap_or(0);
    let logits = 3 * train::Objective::default().logit_rows.min(rows) * vocab_size;
    4 * (rows as u64 * a_row as u64 + logits as u64)
}
