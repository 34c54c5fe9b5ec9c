//! Counting parameters without weights.

use super::{AudioConfig, AudioEncoderConfig, Ffn, ModelConfig, TextConfig, VisionConfig};

/// Numbers that a model consists of, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// All parts.
    pub total: u64,
    /// The decoder: embeddings, layers with all experts, output.
    pub text: u64,
    /// Of the decoder: the routed experts of all layers.
    pub routed_experts: u64,
    /// Of the decoder: what one token uses, the embedding table included.
    pub active: u64,
    /// The vision tower with its adapter.
    pub vision_tower: u64,
    /// The map from the adapter to the decoder.
    pub projector: u64,
    /// The audio encoder.
    pub audio_encoder: u64,
    /// The maps from the audio encoder to the decoder.
    pub audio_projector: u64,
}

impl ModelConfig {
    /// Counts the parameters that the config describes.
    pub fn parameters(&self) -> Parameters {
        let (text, routed_experts, active_routed) = decoder(&self.text, self.tie_word_embeddings);
        let vision_tower = self.vision.as_ref().map_or(0, tower);
        let projector = self.vision.as_ref().map_or(0, |v| wide(v.vision_output_dim) * wide(self.text.hidden_size));
        let audio_encoder = self.audio.as_ref().map_or(0, |audio| hearing(&audio.encoder));
        let audio_projector = self.audio.as_ref().map_or(0, |audio| audio_maps(audio, self.text.hidden_size));
        Parameters {
            total: text + vision_tower + projector + audio_encoder + audio_projector,
            text,
            routed_experts,
            active: text - routed_experts + active_routed,
            vision_tower,
            projector,
            audio_encoder,
            audio_projector,
        }
    }
}

/// Sums and products below can not overflow: the limits in [`super`] keep the largest, all experts of all layers, below
/// 2^62.
fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// A linear map.
fn map(n_in: usize, n_out: usize, bias: bool) -> u64 {
    wide(n_out) * (wide(n_in) + u64::from(bias))
}

/// All, those of routed experts, and those of the routed experts that one token uses.
fn decoder(text: &TextConfig, tied: bool) -> (u64, u64, u64) {
    let width = text.hidden_size;
    let (q_width, kv_width) = (text.n_heads * text.head_len, text.n_kv_heads * text.head_len);
    let bias = text.attention_bias;
    let attention = map(width, q_width, bias) + 2 * map(width, kv_width, bias) + map(q_width, width, bias);
    let gated = |ffn: usize, bias| 2 * map(width, ffn, bias) + map(ffn, width, bias);
    let table = wide(text.vocab_size) * wide(width);
    let mut all = table + if tied { 0 } else { table } + wide(width);
    let (mut routed, mut active_routed) = (0, 0);
    for layer in &text.layers {
        all += attention + 2 * wide(width);
        match layer.ffn {
            Ffn::Dense { width: ffn } => all += gated(ffn, text.mlp_bias),
            Ffn::Moe { width: ffn, n_experts, top_k, shared_width } => {
                let expert = gated(ffn, false);
                routed += expert * wide(n_experts);
                active_routed += expert * wide(top_k);
                all += expert * wide(n_experts) + gated(shared_width, false) + map(width, n_experts, false);
            }
        }
    }
    (all, routed, active_routed)
}

fn tower(vision: &VisionConfig) -> u64 {
    let width = vision.hidden_size;
    let patch = vision.n_channels * vision.patch_size * vision.patch_size;
    let norm = 2 * wide(width);
    let positions = wide(vision.grid()) * wide(vision.grid()) + 1;
    // Class token, positions, patches, the norms before and after.
    let around = wide(width) + positions * wide(width) + map(patch, width, false) + 2 * norm;
    let ffn = map(width, vision.intermediate_size, true) + map(vision.intermediate_size, width, true);
    let layer = 4 * map(width, width, true) + ffn + 2 * norm;
    let adapter = map(vision.intermediate_size, vision.projector_input_dim, false)
        + map(vision.projector_output_dim, vision.projector_output_dim, false);
    around + wide(vision.n_layers) * layer + adapter
}

fn hearing(encoder: &AudioEncoderConfig) -> u64 {
    let width = encoder.hidden_size;
    let norm = 2 * wide(width);
    let stem = map(3 * encoder.n_mels, width, true) + map(3 * width, width, true);
    let ffn = map(width, encoder.intermediate_size, true) + map(encoder.intermediate_size, width, true);
    let layer = 3 * map(width, width, true) + map(width, width, false) + ffn + 2 * norm;
    stem + map(width, encoder.n_frames, false) + wide(encoder.n_layers) * layer + norm
}

fn audio_maps(audio: &AudioConfig, text_width: usize) -> u64 {
    let projector = &audio.projector;
    let stacked = projector.stack * audio.encoder.hidden_size;
    let norms =
        [(projector.ln_pre, stacked), (projector.ln_mid, projector.inner_size()), (projector.ln_post, text_width)];
    map(stacked, projector.hidden_size, projector.bias)
        + map(projector.inner_size(), text_width, projector.bias)
        + norms.iter().filter(|(there, _)| *there).map(|(_, width)| wide(*width)).sum::<u64>()
}
