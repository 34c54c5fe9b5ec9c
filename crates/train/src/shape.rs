//! One dial: from a number of parameters to the shape of a model.

use serde_json::{Value, json};

/// Width of a head.
pub const HEAD_LEN: usize = 64;

/// Steps in which an expert's width is chosen.
const FFN_STEP: usize = 32;

/// Pixels along one side of a tile, and of a patch.
const TILE: [usize; 2] = [112, 14];

/// Tiles of a picture at most: what is wide or high, such as a printed line, gets several.
const TILES: usize = 3;

/// Seconds of a chunk of sound, and what an encoder makes of one.
const CHUNK_S: usize = 4;
const CHUNK_FRAMES: usize = 50 * CHUNK_S;

/// Bins of a column of sound.
const N_MELS: usize = 80;

/// Frames of sound that become one row.
const STACK: usize = 4;

/// Layers of a tower.
const TOWER_LAYERS: usize = 4;

/// What a model takes beside text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Towers {
    /// Images, in tiles of 112 pixels a side that become 16 rows.
    pub images: bool,
    /// Audio, in chunks of four seconds that become 50 rows.
    pub audio: bool,
}

/// The shape of a model with mixture-of-experts layers throughout, as Scout has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub width: usize,
    /// Layers.
    pub n_layers: usize,
    /// Routed experts of a layer, one of which a token goes to; a shared one stands beside them.
    pub n_experts: usize,
    /// Width of an expert.
    pub ffn: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// What it takes beside text.
    pub towers: Towers,
}

/// Tokens that a config names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedTokens {
    /// Begins a text.
    pub bos: u32,
    /// Ends a text.
    pub eos: u32,
    /// Begins an image, stands for a row of it, and ends it.
    pub image: [u32; 3],
    /// The same of a clip.
    pub audio: [u32; 3],
}

impl ModelShape {
    /// The widest model of the family of at most `n` parameters: 8 experts twice as wide as the residual stream, and a
    /// layer for each 43 of its width (6 at 256), at least 4. Where that leaves more than a fifth of `n`, the next width
    /// with the widest experts that fit, if they are as wide as the residual stream. `None` if not even the narrowest
    /// one, 64, fits.
    pub fn of_size(n: u64, vocab_size: usize, towers: Towers) -> Option<Self> {
        let of_width = |width: usize| {
            let n_layers = (width as f64 / 43.0).round().max(4.0) as usize;
            Self { width, n_layers, n_experts: 8, ffn: 2 * width, vocab_size, towers }
        };
        let fits = |shape: &Self| shape.n_parameters() <= n;
        let full = (1..).map(|i| of_width(i * HEAD_LEN)).take_while(fits).last();
        let wider = of_width(full.map_or(0, |shape| shape.width) + HEAD_LEN);
        let ffns = (wider.width..wider.ffn).step_by(FFN_STEP);
        let leaner = ffns.map(|ffn| Self { ffn, ..wider }).take_while(fits).last();
        match full {
            Some(full) if full.n_parameters() * 5 >= n * 4 => Some(full),
            full => leaner.or(full),
        }
    }

    /// Query heads, and heads of keys and values.
    pub fn heads(&self) -> [usize; 2] {
        let n = (self.width / HEAD_LEN).max(1);
        [n, if n.is_multiple_of(2) { n / 2 } else { n }]
    }

    /// Width of a tower.
    fn tower_width(&self) -> usize {
        (self.width / 2).next_multiple_of(HEAD_LEN)
    }

    /// Parameters in all.
    pub fn n_parameters(&self) -> u64 {
        let Self { width, n_layers, n_experts, ffn, vocab_size, towers } = *self;
        let [n_heads, n_kv_heads] = self.heads();
        let attention = width * HEAD_LEN * 2 * (n_heads + n_kv_heads);
        let experts = (n_experts + 1) * 3 * width * ffn + n_experts * width;
        let text = n_layers * (attention + experts + 2 * width) + width + 2 * width * vocab_size;
        let tower = self.tower_width();
        // Four maps of attention and two of four times the width, their biases, two norms.
        let layers = TOWER_LAYERS * (12 * tower * tower + 13 * tower);
        let [side, patch] = TILE;
        let positions = (side / patch).pow(2) + 1;
        let images = layers + tower * (3 * patch * patch + positions + 1 + 4) + 4 * tower * width + 2 * width * width;
        let convolutions = 3 * tower * (N_MELS + tower) + 2 * tower;
        // The map of keys has no bias.
        let audio = layers - TOWER_LAYERS * tower
            + convolutions
            + (CHUNK_FRAMES + 2) * tower
            + STACK * tower * width
            + width * width;
        (text + usize::from(towers.images) * images + usize::from(towers.audio) * audio) as u64
    }

    /// `config.json` of the model: Llama 4's, with every peculiarity in proportion. One layer in four sees everything
    /// without rotation; the others see chunks of `chunk` positions.
    pub fn config(&self, chunk: usize, tokens: NamedTokens) -> Value {
        let Self { width, n_layers, n_experts, ffn, vocab_size, towers } = *self;
        let [n_heads, n_kv_heads] = self.heads();
        let text = json!({
            "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "vocab_size": vocab_size,
            "hidden_size": width, "intermediate_size": ffn, "intermediate_size_mlp": ffn,
            "num_hidden_layers": n_layers, "num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads,
            "head_dim": HEAD_LEN, "max_position_embeddings": 8 * chunk, "rms_norm_eps": 1e-5,
            "num_local_experts": n_experts, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1,
            "use_qk_norm": true, "attn_temperature_tuning": true, "floor_scale": 2 * chunk, "attn_scale": 0.1,
            "attention_chunk_size": chunk, "no_rope_layer_interval": 4, "tie_word_embeddings": false,
            "attention_bias": false, "hidden_act": "silu", "bos_token_id": tokens.bos, "eos_token_id": tokens.eos,
            "rope_theta": 10000.0, "rope_scaling": null, "torch_dtype": "float32",
        });
        if towers == Towers::default() {
            return text;
        }
        let mut config = json!({
            "architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4", "text_config": text,
            "torch_dtype": "float32",
        });
        let tower = self.tower_width();
        if towers.images {
            let [side, patch] = TILE;
            config["vision_config"] = json!({
                "model_type": "llama4_vision_model", "hidden_size": tower, "intermediate_size": 4 * tower,
                "num_hidden_layers": TOWER_LAYERS, "num_attention_heads": tower / HEAD_LEN, "image_size": side,
                "patch_size": patch, "num_channels": 3, "pixel_shuffle_ratio": 0.5, "projector_input_dim": width,
                "projector_output_dim": width, "vision_output_dim": width, "norm_eps": 1e-5, "rope_theta": 10000.0,
                "hidden_act": "gelu", "multi_modal_projector_bias": false,
                "vision_feature_select_strategy": "default",
            });
            let names = ["boi_token_index", "image_token_index", "eoi_token_index"];
            names.iter().zip(tokens.image).for_each(|(name, id)| config[*name] = id.into());
        }
        if towers.audio {
            config["audio_config"] = json!({
                "model_type": "voxtral_encoder", "num_mel_bins": N_MELS, "hidden_size": tower,
                "intermediate_size": 4 * tower, "num_hidden_layers": TOWER_LAYERS,
                "num_attention_heads": tower / HEAD_LEN, "max_source_positions": CHUNK_FRAMES,
                "activation_function": "gelu", "scale_embedding": false, "attention_block": null,
            });
            config["audio_projector_config"] = json!({
                "stack_factor": STACK, "hidden_size": width, "hidden_act": "gelu", "bias": false,
            });
            let names = ["boa_token_index", "audio_token_index", "eoa_token_index"];
            names.iter().zip(tokens.audio).for_each(|(name, id)| config[*name] = id.into());
        }
        config
    }

    /// The files beside `config.json` that say how media become what the towers take, by name.
    pub fn preprocessors(&self) -> Vec<(&'static str, Value)> {
        let mut files = Vec::new();
        if self.towers.images {
            let [side, _] = TILE;
            let size = json!({"height": side, "width": side});
            files.push((
                "preprocessor_config.json",
                json!({
                    "image_processor_type": "Llama4ImageProcessorFast", "processor_class": "Llama4Processor",
                    "size": size, "max_patches": TILES, "resize_to_max_canvas": false, "do_rescale": true,
                    "rescale_factor": 1.0 / 255.0, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5],
                    "image_std": [0.5, 0.5, 0.5],
                }),
            ));
        }
        if self.towers.audio {
            files.push((
                "audio_preprocessor_config.json",
                json!({
                    "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": N_MELS,
                    "sampling_rate": 16000, "n_fft": 400, "hop_length": 160, "chunk_length": CHUNK_S,
                    "padding_value": 0.0, "dither": 0.0, "log_mel_max": null, "pad_to": "chunk",
                    "padding_mode": "valid",
                }),
            ));
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dial_gives_the_reference_model() {
        let none = Towers::default();
        let shape = ModelShape::of_size(25_000_000, 4096, none);
        let want = ModelShape { width: 256, n_layers: 6, n_experts: 8, ffn: 512, vocab_size: 4096, towers: none };
        assert_eq!((shape, want.n_parameters()), (Some(want), 24_526_080));
        assert_eq!(ModelShape::of_size(1_000_000, 128_000, none), None);
    }

    #[test]
    fn the_dial_uses_most_of_what_it_is_given() {
        let all = Towers { images: true, audio: true };
        let mut largest = 0;
        for millions in [3u64, 4, 6, 10, 18, 25, 40, 70, 100, 400] {
            for towers in [Towers::default(), all] {
                let n = millions * 1_000_000;
                let Some(shape) = ModelShape::of_size(n, 1024, towers) else { continue };
                assert!(shape.n_parameters() <= n && shape.ffn.is_multiple_of(32), "{n}: {shape:?}");
                assert!(shape.n_parameters() * 2 > n, "{n}: {shape:?} of {}", shape.n_parameters());
                largest = largest.max(shape.width);
            }
        }
        assert!(largest > 600);
    }
}
