//! A config as the metadata of a GGUF file, checked by reading it back.

use std::path::Path;

use formats::config::{
    ATTN_SCALE_KEY, Architecture, AudioActivation, AudioConfig, AudioPreprocessorConfig, CHUNK_KEY, FLOOR_SCALE_KEY,
    Ffn, ImageTokens, LAYER_KINDS_KEY, ModelConfig, PreprocessorConfig, QK_NORM_KEY, Rope, RopeScaling, TextConfig,
    VisionConfig,
};
use formats::gguf::{Array, Container, Metadata, Value};
use formats::{Checkpoint, DType, Gguf, Tensor};
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

/// Our own keys of what the architecture's have no place for, where it is not what readers assume: `keys` so far and
/// `tensors` are what would be read.
pub(super) fn own(config: &ModelConfig, keys: &Keys, tensors: &[ExportTensor]) -> Keys {
    let Ok(assumed) = ModelConfig::from_gguf(&described(keys, tensors)) else { return Keys::new() };
    let (want, got) = (&config.text, &assumed.text);
    let mut own = Keys::new();
    if !matches!(config.architecture, Architecture::Llama4 | Architecture::Llama4Text) {
        return own;
    }
    let mut put = |key: &str, value: Value| own.push((key.to_owned(), value));
    if want.temperature != got.temperature {
        let (floor_scale, scale) = want.temperature.as_ref().map_or((None, 0.0), |t| (Some(t.floor_scale), t.scale));
        put(ATTN_SCALE_KEY, Value::F32(scale));
        floor_scale.into_iter().for_each(|floor_scale| put(FLOOR_SCALE_KEY, Value::F32(floor_scale)));
    }
    if want.qk_norm != got.qk_norm {
        put(QK_NORM_KEY, Value::Bool(want.qk_norm));
    }
    let chunks = |text: &TextConfig| text.layers.iter().find_map(|layer| layer.chunk);
    if let Some(chunk) = chunks(want).filter(|chunk| chunks(got) != Some(*chunk)) {
        // One that does not fit is found when the keys are read back.
        put(CHUNK_KEY, Value::U32(u32::try_from(chunk.get()).unwrap_or(u32::MAX)));
    }
    let kinds = |text: &TextConfig| -> Vec<i32> {
        text.layers.iter().map(|layer| i32::from(layer.rotated) + 2 * i32::from(layer.chunk.is_some())).collect()
    };
    if kinds(want) != kinds(got) {
        put(LAYER_KINDS_KEY, Value::Array(Array::of_i32(&kinds(want))));
    }
    own
}

/// The keys of the towers and their projectors.
pub(super) fn projector(checkpoint: &Checkpoint, name: &str) -> Result<Keys, LlamaError> {
    let config = &checkpoint.config;
    let text = |text: &str| Value::String(text.into());
    let mut keys: Keys = vec![
        ("general.architecture".into(), text("clip")),
        ("general.type".into(), text("mmproj")),
        ("general.name".into(), text(name)),
        ("clip.has_vision_encoder".into(), Value::Bool(config.vision.is_some())),
        ("clip.has_audio_encoder".into(), Value::Bool(config.audio.is_some())),
        ("clip.use_gelu".into(), Value::Bool(true)),
    ];
    // Readers look for the common key first.
    let [of_vision, of_audio] = match (&config.vision, &config.audio) {
        (Some(_), Some(_)) => ["clip.vision.projector_type", "clip.audio.projector_type"],
        _ => ["clip.projector_type"; 2],
    };
    if let Some(vision) = &config.vision {
        keys.push((of_vision.into(), text("llama4")));
        keys.extend(self::vision(vision, config.image_tokens, checkpoint.preprocessor.as_ref())?);
    }
    if let (Some(audio), Some(sounds)) = (&config.audio, &checkpoint.audio_preprocessor) {
        keys.push((of_audio.into(), text(audio.preset.projector_type())));
        keys.extend(self::audio(audio, sounds, config.text.hidden_size)?);
    }
    Ok(keys)
}

/// Counts under their keys.
fn counts(prefix: &str, counts: &[(&str, usize)]) -> Result<Keys, LlamaError> {
    let count = |(key, n): &(&str, usize)| {
        let n = u32::try_from(*n).map_err(|_| LlamaError::Unsupported(format!("{key} is {n}, too large")))?;
        Ok((format!("{prefix}{key}"), Value::U32(n)))
    };
    counts.iter().map(count).collect()
}

fn vision(
    vision: &VisionConfig,
    tokens: Option<ImageTokens>,
    images: Option<&PreprocessorConfig>,
) -> Result<Keys, LlamaError> {
    let mut keys = counts(
        "clip.vision.",
        &[
            ("image_size", vision.image_size),
            ("patch_size", vision.patch_size),
            ("embedding_length", vision.hidden_size),
            ("feed_forward_length", vision.intermediate_size),
            ("block_count", vision.n_layers),
            ("projection_dim", vision.projector_output_dim),
            ("attention.head_count", vision.n_heads),
            ("projector.scale_factor", vision.joined_patches()),
        ],
    )?;
    let default = PreprocessorConfig::default();
    let images = images.unwrap_or(&default);
    keys.push(("clip.vision.attention.layer_norm_epsilon".into(), Value::F32(vision.norm_eps)));
    keys.push(("clip.vision.image_mean".into(), Value::Array(Array::of_f32(&images.mean))));
    keys.push(("clip.vision.image_std".into(), Value::Array(Array::of_f32(&images.std))));
    keys.extend(counts("puna.image.", &[("max_tiles", images.max_tiles)])?);
    keys.push(("puna.image.resize_to_max_canvas".into(), Value::Bool(images.resize_to_max_canvas)));
    keys.push(("puna.image.rescale_factor".into(), Value::F32(images.rescale)));
    if let Some(ImageTokens { image_start, image_end, patch }) = tokens {
        for (key, id) in [("start_token_id", image_start), ("token_id", patch), ("end_token_id", image_end)] {
            keys.push((format!("puna.image.{key}"), Value::U32(id)));
        }
    }
    Ok(keys)
}

fn audio(audio: &AudioConfig, sounds: &AudioPreprocessorConfig, text_width: usize) -> Result<Keys, LlamaError> {
    let AudioConfig { preset, encoder, projector, tokens, .. } = audio;
    let mut keys = counts(
        "clip.audio.",
        &[
            ("num_mel_bins", encoder.n_mels),
            ("embedding_length", encoder.hidden_size),
            ("feed_forward_length", encoder.intermediate_size),
            ("block_count", encoder.n_layers),
            ("projection_dim", text_width),
            ("attention.head_count", encoder.n_heads),
            ("projector.stack_factor", projector.stack),
        ],
    )?;
    // What every encoder of the kind is computed with.
    keys.push(("clip.audio.attention.layer_norm_epsilon".into(), Value::F32(1e-5)));
    let mut put = |key: &str, value: Value| keys.push((format!("puna.audio.{key}"), value));
    let activation = match projector.activation {
        AudioActivation::Gelu => "gelu",
        AudioActivation::SwiGlu => "swiglu",
    };
    for (key, word) in [
        ("preset", preset.name()),
        ("pad_to", sounds.pad_to.name()),
        ("padding_mode", sounds.padding_mode.name()),
        ("projector.activation", activation),
    ] {
        put(key, Value::String(word.into()));
    }
    put("projector.norm_epsilon", Value::F32(projector.norm_eps));
    if let Some(log_mel_max) = sounds.log_mel_max {
        put("log_mel_max", Value::F32(log_mel_max));
    }
    if let Some(block) = encoder.block {
        // Divides the frames of a chunk.
        put("attention_block", Value::U32(u32::try_from(block.get()).unwrap_or(u32::MAX)));
    }
    for (key, id) in [("start_token_id", tokens.start), ("token_id", Some(tokens.audio)), ("end_token_id", tokens.end)]
    {
        id.into_iter().for_each(|id| put(key, Value::U32(id)));
    }
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

/// As [`check_decoder`], for the towers.
pub(super) fn check_projector(
    checkpoint: &Checkpoint,
    keys: &Keys,
    tensors: &[ExportTensor],
) -> Result<(), LlamaError> {
    let config = &checkpoint.config;
    let file = described(keys, tensors);
    let cannot = |what: &str, e| LlamaError::Unsupported(format!("a GGUF file can not hold this {what}: {e}"));
    if let Some(vision) = &config.vision {
        let got = VisionConfig::from_gguf(&file).map_err(|e| cannot("vision tower", e))?;
        same("vision_config", vision, &got)?;
        let got = PreprocessorConfig::from_gguf(&file, vision).map_err(|e| cannot("image preprocessor", e))?;
        // The tower decides what tiles and patches are.
        let own = checkpoint.preprocessor.clone().unwrap_or_default();
        let PreprocessorConfig { tile, patch_size, pixel_shuffle_ratio, .. } = got;
        same("preprocessor_config", &PreprocessorConfig { tile, patch_size, pixel_shuffle_ratio, ..own }, &got)?;
    }
    if let (Some(audio), Some(sounds)) = (&config.audio, &checkpoint.audio_preprocessor) {
        // All tokens stand in keys: no vocabulary is needed.
        let none = Metadata::new(Path::new("metadata"), []);
        let got = AudioConfig::from_gguf(&file, &none, config.text.vocab_size);
        same("audio_config", audio, &got.map_err(|e| cannot("audio encoder", e))?)?;
        let got = AudioPreprocessorConfig::from_gguf(&file, audio).map_err(|e| cannot("audio preprocessor", e))?;
        same("audio preprocessor", sounds, &got)?;
    }
    Ok(())
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
