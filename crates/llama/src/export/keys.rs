//! A config as the metadata of a GGUF file, checked by reading it back.

use std::path::Path;

use formats::config::{
    Architecture, Ffn, ModelConfig, PreprocessorConfig, Rope, RopeScaling, TextConfig, VisionConfig,
};
use formats::gguf::{Array, Container, Metadata, Value};
use formats::{DType, Gguf, Tensor};
use tensor::Bytes;

use super::ExportTensor;
use crate::LlamaError;

type Keys = Vec<(String, Value)>;

/// The keys of a decoder.
pub(super) fn decoder(config: &ModelConfig, name: &str) -> Result<Keys, LlamaError> {
    let text = &config.text;
    let architecture = match config.architecture {
        Architecture::Llama | Architecture::LlamaAudio => "llama",
        Architecture::Llama4 | Architecture::Llama4Text => "llama4",
    };
    let mut keys: Keys = vec![
        ("general.architecture".into(), Value::String(architecture.into())),
        ("general.type".into(), Value::String("model".into())),
        ("general.name".into(), Value::String(name.into())),
    ];
    let mut put = |key: &str, value: Value| keys.push((format!("{architecture}.{key}"), value));
    let count = |key: &str, n: usize| match u32::try_from(n) {
        Ok(n) => Ok(Value::U32(n)),
        Err(_) => Err(LlamaError::Unsupported(format!("{key} is {n}; GGUF files hold up to {}", u32::MAX))),
    };
    let dense = text.layers.iter().find_map(|layer| match layer.ffn {
        Ffn::Dense { width } => Some(width),
        Ffn::Moe { .. } => None,
    });
    let experts = text.layers.iter().find_map(|layer| match layer.ffn {
        Ffn::Moe { width, n_experts, top_k, .. } => Some([width, n_experts, top_k]),
        Ffn::Dense { .. } => None,
    });
    for (key, n) in [
        ("vocab_size", text.vocab_size),
        ("block_count", text.layers.len()),
        ("context_length", text.max_positions),
        ("embedding_length", text.hidden_size),
        // Readers ask for it even where no layer is dense.
        ("feed_forward_length", dense.or(experts.map(|[width, ..]| width)).unwrap_or(0)),
        ("attention.head_count", text.n_heads),
        ("attention.head_count_kv", text.n_kv_heads),
        ("attention.key_length", text.head_len),
        ("attention.value_length", text.head_len),
        ("rope.dimension_count", text.head_len),
    ] {
        put(key, count(key, n)?);
    }
    put("attention.layer_norm_rms_epsilon", Value::F32(text.rms_eps));
    put("rope.freq_base", Value::F32(text.rope.theta));
    if let RopeScaling::Linear { factor } = text.rope.scaling {
        put("rope.scaling.type", Value::String("linear".into()));
        put("rope.scaling.factor", Value::F32(factor));
    }
    if architecture == "llama4" {
        put("interleave_moe_layer_step", count("interleave_moe_layer_step", moe_step(text).unwrap_or(0))?);
        if text.layers.iter().all(|layer| layer.rotated && layer.chunk.is_none()) {
            put("attention.sliding_window", Value::U32(0));
        }
    }
    if let Some([width, n_experts, top_k]) = experts {
        put("expert_count", count("expert_count", n_experts)?);
        put("expert_used_count", count("expert_used_count", top_k)?);
        put("expert_feed_forward_length", count("expert_feed_forward_length", width)?);
    }
    Ok(keys)
}

/// The step with which layers have experts, if it is regular.
fn moe_step(text: &TextConfig) -> Option<usize> {
    let is_moe: Vec<bool> = text.layers.iter().map(|layer| matches!(layer.ffn, Ffn::Moe { .. })).collect();
    let regular = |step: usize| (1..).zip(&is_moe).all(|(nth, moe): (usize, _)| nth.is_multiple_of(step) == *moe);
    (1..=is_moe.len()).find(|step| regular(*step))
}

/// The keys of a vision tower and its projector.
pub(super) fn projector(
    vision: &VisionConfig,
    images: Option<&PreprocessorConfig>,
    name: &str,
) -> Result<Keys, LlamaError> {
    let text = |text: &str| Value::String(text.into());
    let mut keys: Keys = vec![
        ("general.architecture".into(), text("clip")),
        ("general.type".into(), text("mmproj")),
        ("general.name".into(), text(name)),
        ("clip.has_vision_encoder".into(), Value::Bool(true)),
        ("clip.projector_type".into(), text("llama4")),
        ("clip.use_gelu".into(), Value::Bool(true)),
    ];
    for (key, n) in [
        ("image_size", vision.image_size),
        ("patch_size", vision.patch_size),
        ("embedding_length", vision.hidden_size),
        ("feed_forward_length", vision.intermediate_size),
        ("block_count", vision.n_layers),
        ("projection_dim", vision.projector_output_dim),
        ("attention.head_count", vision.n_heads),
        ("projector.scale_factor", vision.joined_patches()),
    ] {
        let n = u32::try_from(n).map_err(|_| LlamaError::Unsupported(format!("{key} is {n}, too large")))?;
        keys.push((format!("clip.vision.{key}"), Value::U32(n)));
    }
    let default = PreprocessorConfig::default();
    let images = images.unwrap_or(&default);
    keys.push(("clip.vision.attention.layer_norm_epsilon".into(), Value::F32(vision.norm_eps)));
    keys.push(("clip.vision.image_mean".into(), Value::Array(Array::of_f32(&images.mean))));
    keys.push(("clip.vision.image_std".into(), Value::Array(Array::of_f32(&images.std))));
    Ok(keys)
}

/// Refuses a model of which a GGUF file would tell another story: there are no keys for some settings, and what readers
/// assume instead has to be true.
pub(super) fn check_decoder(config: &ModelConfig, keys: &Keys, tensors: &[ExportTensor]) -> Result<(), LlamaError> {
    let got = ModelConfig::from_gguf(&described(keys, tensors));
    let got = got.map_err(|e| LlamaError::Unsupported(format!("a GGUF file can not hold this model: {e}")))?;
    let (want, got) = (&config.text, &got.text);
    let rope = match (&want.rope.scaling, &got.rope.scaling) {
        (RopeScaling::Llama3 { .. }, RopeScaling::Divisors) => {
            Rope { theta: want.rope.theta, scaling: RopeScaling::Divisors }
        }
        _ => want.rope.clone(),
    };
    same("max_position_embeddings", &want.max_positions, &got.max_positions)?;
    same("rotary position embedding", &rope, &got.rope)?;
    same("query scaling by position", &want.temperature, &got.temperature)?;
    same("use_qk_norm", &want.qk_norm, &got.qk_norm)?;
    same("rms_norm_eps", &want.rms_eps, &got.rms_eps)?;
    same("attention_bias", &want.attention_bias, &got.attention_bias)?;
    same("mlp_bias", &want.mlp_bias, &got.mlp_bias)?;
    let heads = |text: &TextConfig| [text.n_heads, text.n_kv_heads, text.head_len];
    same("heads", &heads(want), &heads(got))?;
    for (layer, (want, got)) in want.layers.iter().zip(&got.layers).enumerate() {
        same(&format!("layer {layer}"), want, got)?;
    }
    same("layers", &want.layers.len(), &got.layers.len())
}

/// As [`check_decoder`], for the vision tower.
pub(super) fn check_projector(vision: &VisionConfig, keys: &Keys, tensors: &[ExportTensor]) -> Result<(), LlamaError> {
    let got = VisionConfig::from_gguf(&described(keys, tensors));
    let got = got.map_err(|e| LlamaError::Unsupported(format!("a GGUF file can not hold this vision tower: {e}")))?;
    same("vision_config", vision, &got)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, want: &T, got: &T) -> Result<(), LlamaError> {
    if want == got {
        return Ok(());
    }
    let why = format!("{what} is {want:?}; GGUF files have no key for it, and their readers assume {got:?}");
    Err(LlamaError::Unsupported(why))
}

/// The file as a reader sees it, without the tensors' numbers.
fn described(keys: &Keys, tensors: &[ExportTensor]) -> Gguf {
    let tensor = |t: &ExportTensor| Tensor {
        name: t.name.clone(),
        dtype: DType::Weight(t.format),
        shape: t.shape.clone(),
        bytes: Bytes::from(Vec::new()),
    };
    Gguf {
        container: Container::Gguf,
        version: 3,
        metadata: Metadata::new(Path::new("metadata"), keys.iter().cloned()),
        tensors: tensors.iter().map(tensor).collect(),
    }
}
