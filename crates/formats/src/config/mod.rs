//! What a model is: `config.json` and GGUF metadata as typed numbers, with every layer described.
//!
//! Nothing is left to be computed later: which layer rotates, what it sees and how wide its feed-forward is stands in
//! [`TextConfig::layers`]. Defaults are those of the reference (transformers 5.23) and stand at the line that uses them.

mod audio;
mod defaults;
mod gguf;
mod hearing;
mod llama;
mod llama4;
mod parameters;
mod projector;
mod reasoning;
mod rope;
mod sidecar;
mod vision;

use std::num::NonZeroUsize;
use std::path::Path;

use crate::json::{self, Node, Section};
use crate::{FormatError, Gguf};

pub use audio::{AudioActivation, AudioConfig, AudioEncoderConfig, AudioPreset, AudioProjectorConfig, AudioTokens};
pub use gguf::{ATTN_SCALE_KEY, CHUNK_KEY, FLOOR_SCALE_KEY, LAYER_KINDS_KEY, QK_NORM_KEY};
pub use hearing::{AudioPreprocessorConfig, HOP, PadTo, PaddingMode, SAMPLE_RATE, WINDOW};
pub use parameters::Parameters;
pub(crate) use projector::hears_here;
pub use reasoning::ReasoningConfig;
pub use rope::{Rope, RopeScaling};
pub(crate) use sidecar::SIDECAR_LIMIT_BYTES;
pub use sidecar::{GenerationConfig, PreprocessorConfig};
pub use vision::VisionConfig;

/// Longest `config.json`.
pub(crate) const CONFIG_LIMIT_BYTES: usize = 16 << 20;

/// Most layers. The limits are far above every published model and keep products of them inside of 64 bits.
pub(crate) const LAYERS_LIMIT: usize = 1024;
/// Most entries of a vocabulary.
pub(crate) const VOCAB_LIMIT: usize = 1 << 24;
/// Widest residual stream.
pub(crate) const HIDDEN_LIMIT: usize = 1 << 17;
/// Widest feed-forward.
pub(crate) const FFN_LIMIT: usize = 1 << 20;
/// Most experts of a layer.
pub(crate) const EXPERTS_LIMIT: usize = 4096;
/// Most heads, and most components of one.
pub(crate) const HEADS_LIMIT: usize = 4096;
/// Longest context.
pub(crate) const POSITIONS_LIMIT: usize = 1 << 40;

/// The kinds of models that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 4 with a vision tower (`model_type` "llama4"): tensor names begin with `language_model.`.
    Llama4,
    /// Llama 4 for text only (`model_type` "llama4_text", and GGUF's `llama4`).
    Llama4Text,
    /// Dense models of the family (`model_type` "llama"): Llama 2 and 3, SmolLM2, …
    Llama,
    /// A dense model of the family that hears (`model_type` "voxtral" or "ultravox").
    LlamaAudio,
}

/// A model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which kind it is.
    pub architecture: Architecture,
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower and projector, if there are any.
    pub vision: Option<VisionConfig>,
    /// The tokens that stand for images; with a vision tower only.
    pub image_tokens: Option<ImageTokens>,
    /// The audio encoder and its projector, if there are any.
    pub audio: Option<AudioConfig>,
    /// Whether the output map is the embedding table.
    pub tie_word_embeddings: bool,
    /// The type that the weights were made for, as the config writes it: "bfloat16". The files' own types decide.
    pub dtype: Option<String>,
}

/// Token ids around and in place of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageTokens {
    /// Before an image.
    pub image_start: u32,
    /// After an image.
    pub image_end: u32,
    /// Where a row of image features goes.
    pub patch: u32,
}

/// A decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Rows of the embedding table, V.
    pub vocab_size: usize,
    /// Width of the residual stream, D.
    pub hidden_size: usize,
    /// Query heads, H; a multiple of `n_kv_heads`.
    pub n_heads: usize,
    /// Key and value heads, K.
    pub n_kv_heads: usize,
    /// Components of one head, C; even.
    pub head_len: usize,
    /// Positions that the model is declared for.
    pub max_positions: usize,
    /// Added to the mean square in every norm.
    pub rms_eps: f32,
    /// Whether q, k, v and o have biases.
    pub attention_bias: bool,
    /// Whether dense feed-forwards have biases.
    pub mlp_bias: bool,
    /// Frequencies of rotated layers.
    pub rope: Rope,
    /// How components pair up for rotation.
    pub pairing: tensor::Pairing,
    /// Scaling of queries by position on unrotated layers.
    pub temperature: Option<Temperature>,
    /// Whether rotated layers normalise each head of q and k.
    pub qk_norm: bool,
    /// The token at the beginning of a sequence.
    pub bos: Option<u32>,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// The token that fills up batches elsewhere; never needed here.
    pub pad: Option<u32>,
    /// The layers from first to last.
    pub layers: Vec<LayerConfig>,
}

/// Queries of unrotated layers are multiplied by 1 + scale · ln(1 + ⌊(position + 1) / floor_scale⌋).
#[derive(Debug, Clone, PartialEq)]
pub struct Temperature {
    /// Positions in one step of the logarithm.
    pub floor_scale: f32,
    /// Weight of the logarithm.
    pub scale: f32,
}

/// One decoder layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerConfig {
    /// Whether q and k are rotated.
    pub rotated: bool,
    /// Length of the chunks of absolute positions that the layer sees; `None` if it sees everything.
    pub chunk: Option<NonZeroUsize>,
    /// The feed-forward.
    pub ffn: Ffn,
}

/// The feed-forward of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ffn {
    /// One gated map.
    Dense {
        /// Its width, F.
        width: usize,
    },
    /// Routed experts and a shared one.
    Moe {
        /// Width of one routed expert, F.
        width: usize,
        /// Routed experts, E.
        n_experts: usize,
        /// Experts that a row goes to.
        top_k: usize,
        /// Width of the shared expert.
        shared_width: usize,
    },
}

/// Every key of `config.json` that is read, at whatever level.
const KEYS: [&str; 83] = [
    "model_type",
    "text_config",
    "vision_config",
    "boi_token_index",
    "eoi_token_index",
    "image_token_index",
    "tie_word_embeddings",
    "torch_dtype",
    "dtype",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "intermediate_size_mlp",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_local_experts",
    "num_experts_per_tok",
    "moe_layers",
    "interleave_moe_layer_step",
    "no_rope_layers",
    "no_rope_layer_interval",
    "layer_types",
    "attention_chunk_size",
    "use_qk_norm",
    "attn_temperature_tuning",
    "floor_scale",
    "attn_scale",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "max_position_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "attention_bias",
    "mlp_bias",
    "hidden_act",
    "rope_type",
    "type",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "chunked_attention",
    "full_attention",
    "sliding_attention",
    "num_channels",
    "image_size",
    "patch_size",
    "norm_eps",
    "pixel_shuffle_ratio",
    "projector_input_dim",
    "projector_output_dim",
    "vision_output_dim",
    "audio_config",
    "audio_projector_config",
    "boa_token_index",
    "audio_token_index",
    "eoa_token_index",
    "audio_token_id",
    "num_mel_bins",
    "d_model",
    "encoder_ffn_dim",
    "encoder_layers",
    "encoder_attention_heads",
    "max_source_positions",
    "activation_function",
    "scale_embedding",
    "attention_block",
    "stack_factor",
    "bias",
    "ln_pre",
    "ln_mid",
    "ln_post",
    "projector_hidden_act",
    "projector_ln_mid",
    "projector_act",
    "audio_latency_block_size",
    "sliding_window",
];

impl ModelConfig {
    /// Reads the `config.json` in `json`, of either generation of key names.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] for other kinds of models and for settings that are not implemented;
    /// [`FormatError::Corrupt`] for values that contradict each other or their key; [`FormatError::Missing`] for keys
    /// without a published default.
    pub fn parse(file: &Path, json: &[u8]) -> Result<Self, FormatError> {
        Self::parse_with(file, json, &[])
    }

    /// As [`parse`](Self::parse), with sections by key from files of their own in place of those in `json`.
    pub(crate) fn parse_with(file: &Path, json: &[u8], beside: &[(&str, Vec<u8>)]) -> Result<Self, FormatError> {
        let mut map = json::parse(file, json, &KEYS)?;
        for (key, json) in beside {
            map.insert((*key).into(), Node::Object(json::parse(file, json, &KEYS)?));
        }
        let top = Section::new(file, &map);
        let model_type = top.text("model_type")?.ok_or_else(|| top.missing("model_type"))?;
        let (architecture, text_section) = match model_type {
            "llama4" => {
                let text = top.section("text_config")?.ok_or_else(|| top.missing("text_config"))?;
                (Architecture::Llama4, text)
            }
            "llama4_text" => (Architecture::Llama4Text, top.clone()),
            "llama" => (Architecture::Llama, top.clone()),
            "voxtral" | "ultravox" => {
                let text = top.section("text_config")?.ok_or_else(|| top.missing("text_config"))?;
                check_dense(&text)?;
                (Architecture::LlamaAudio, text)
            }
            other => {
                let known = "\"llama4\", \"llama4_text\", \"llama\", \"voxtral\" and \"ultravox\" are";
                let why = format!("\"{other}\" is not supported; {known}");
                return Err(top.unsupported("model_type", why));
            }
        };
        let text = match architecture {
            Architecture::Llama | Architecture::LlamaAudio => llama::parse(&text_section)?,
            _ => llama4::parse(&text_section)?,
        };
        let vision = match architecture {
            Architecture::Llama4 => top.section("vision_config")?.map(|vision| vision::parse(&vision)).transpose()?,
            _ => None,
        };
        let image_tokens = vision.as_ref().map(|_| image_tokens(&top, text.vocab_size)).transpose()?;
        let audio = audio_of(&top, model_type, &text)?;
        check_ids(&top, image_tokens, audio.as_ref())?;
        let tie = match top.flag("tie_word_embeddings")? {
            Some(tie) => tie,
            None => text_section.flag("tie_word_embeddings")?.unwrap_or(defaults::TIE),
        };
        let mut dtype = None;
        for section in [&top, &text_section] {
            for key in ["dtype", "torch_dtype"] {
                dtype = dtype.or(section.text(key)?);
            }
        }
        let dtype = dtype.map(Into::into);
        Ok(Self { architecture, text, vision, image_tokens, audio, tie_word_embeddings: tie, dtype })
    }

    /// Reads the encoder of the Whisper config in `json`, whose decoder is not looked at.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); [`FormatError::Unsupported`] if it is no Whisper model's.
    pub fn parse_whisper(file: &Path, json: &[u8]) -> Result<AudioEncoderConfig, FormatError> {
        let map = json::parse(file, json, &KEYS)?;
        let top = Section::new(file, &map);
        match top.text("model_type")? {
            Some("whisper") => audio::whisper(&top),
            other => {
                let why = format!("is \"{}\"; \"whisper\" is a lone encoder's", other.unwrap_or_default());
                Err(top.unsupported("model_type", why))
            }
        }
    }

    /// Reads the metadata of a GGUF file of the architecture `llama4` or `llama`.
    ///
    /// What such files do not store is what every reader of them assumes: chunks of 8192, every fourth layer unrotated,
    /// query scaling 0.1 by 8192, a norm of q and k unless there are 128 experts, rope scaling as a tensor of divisors. Models
    /// in which that is otherwise say so under our own keys ([`CHUNK_KEY`] and those beside it).
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, FormatError> {
        gguf::parse(gguf)
    }

    /// The same model with what the file `projector` holds: a vision tower, an audio encoder, or both.
    ///
    /// # Errors
    /// As [`VisionConfig::from_gguf`] and [`AudioConfig::from_gguf`]; [`FormatError::Corrupt`] if the projector was made for
    /// another width.
    pub fn with_projector(mut self, gguf: &Gguf, projector: &Gguf) -> Result<Self, FormatError> {
        let (metadata, vocab_size) = (&gguf.metadata, self.text.vocab_size);
        let file = projector.metadata.file();
        let check_width = |name: &str| {
            let made_for = projector.tensor(name).and_then(|tensor| tensor.shape.first().copied());
            if made_for == Some(self.text.hidden_size) {
                return Ok(());
            }
            let why = format!("has {} outputs; the model is {} wide", made_for.unwrap_or(0), self.text.hidden_size);
            Err(FormatError::corrupt(file, name, why))
        };
        if projector::sees(projector)? {
            self.vision = Some(VisionConfig::from_gguf(projector)?);
            check_width("mm.model.fc.weight")?;
            self.image_tokens = Some(projector::image_tokens(projector, metadata, vocab_size)?);
        }
        if projector::hears(projector)? {
            let audio = AudioConfig::from_gguf(projector, metadata, vocab_size)?;
            check_width("mm.a.mlp.2.weight")?;
            let image = self.image_tokens;
            let images = image.iter().flat_map(|image| [image.image_start, image.image_end, image.patch]);
            if images.into_iter().any(|id| audio.tokens.ids().any(|audio| audio == id)) {
                let why = "or a token around it is also a token of images";
                return Err(FormatError::corrupt(file, "puna.audio.token_id", why));
            }
            self.audio = Some(audio);
            if self.architecture == Architecture::Llama {
                self.architecture = Architecture::LlamaAudio;
            }
        }
        Ok(self)
    }
}

/// Refuses the decoder of a model that hears if it is of another family.
fn check_dense(text: &Section<'_>) -> Result<(), FormatError> {
    match text.text("model_type")? {
        None | Some("llama") => {}
        Some("mistral") if text.given("sliding_window").is_none() => {}
        Some("mistral") => return Err(text.unsupported("sliding_window", "is set; null is supported")),
        Some(other) => {
            let why = format!("\"{other}\" is not supported here; \"llama\" and \"mistral\" are");
            return Err(text.unsupported("model_type", why));
        }
    }
    Ok(())
}

/// The audio part of a config of the kind `model_type`.
fn audio_of(top: &Section<'_>, model_type: &str, text: &TextConfig) -> Result<Option<AudioConfig>, FormatError> {
    let decoder = audio::Decoder { vocab_size: text.vocab_size, hidden_size: text.hidden_size };
    match model_type {
        "llama4" => audio::llama4(top, &decoder),
        "voxtral" => audio::voxtral(top, &decoder).map(Some),
        "ultravox" => {
            let section = top.section("audio_config")?.ok_or_else(|| top.missing("audio_config"))?;
            audio::ultravox(top, &section, &decoder).map(Some)
        }
        _ => Ok(None),
    }
}

/// Refuses a config in which audio and images go to the same positions.
fn check_ids(top: &Section<'_>, image: Option<ImageTokens>, audio: Option<&AudioConfig>) -> Result<(), FormatError> {
    let (Some(image), Some(audio)) = (image, audio) else { return Ok(()) };
    match audio.tokens.ids().any(|id| [image.image_start, image.image_end, image.patch].contains(&id)) {
        true => Err(top.corrupt("audio_token_index", "or a token around it is also a token of images")),
        false => Ok(()),
    }
}

fn image_tokens(top: &Section<'_>, vocab_size: usize) -> Result<ImageTokens, FormatError> {
    let id = |key, default| {
        let id = top.token(key)?.unwrap_or(default);
        check_token(id, vocab_size).map_err(|why| top.corrupt(key, why))?;
        Ok(id)
    };
    Ok(ImageTokens {
        image_start: id("boi_token_index", defaults::IMAGE_START)?,
        image_end: id("eoi_token_index", defaults::IMAGE_END)?,
        patch: id("image_token_index", defaults::PATCH)?,
    })
}

/// Why `id` can not be a token of that vocabulary.
fn check_token(id: u32, vocab_size: usize) -> Result<(), String> {
    match usize::try_from(id) {
        Ok(index) if index < vocab_size => Ok(()),
        _ => Err(format!("is {id}; the vocabulary has {vocab_size} entries")),
    }
}

/// Beginning, end and padding tokens.
struct SpecialTokens {
    bos: Option<u32>,
    eos: Vec<u32>,
    pad: Option<u32>,
}

/// Reads the special tokens; both families default to bos 1, eos 2 and no padding.
fn special_tokens(section: &Section<'_>, vocab_size: usize) -> Result<SpecialTokens, FormatError> {
    let bos = match section.node("bos_token_id") {
        None => Some(defaults::BOS),
        Some(_) => section.token("bos_token_id")?,
    };
    let eos = section.tokens("eos_token_id")?.unwrap_or_else(|| vec![defaults::EOS]);
    for (key, id) in bos.iter().map(|id| ("bos_token_id", *id)).chain(eos.iter().map(|id| ("eos_token_id", *id))) {
        check_token(id, vocab_size).map_err(|why| section.corrupt(key, why))?;
    }
    let pad = match section.node("pad_token_id") {
        // Converters of the first Llama wrote -1 for "none".
        Some(Node::Negative(-1)) => None,
        _ => section.token("pad_token_id")?,
    };
    Ok(SpecialTokens { bos, eos, pad })
}

/// Heads and their length; `head_dim` defaults to `head_len`, or to the width of the model divided by the heads.
struct Heads {
    n_heads: usize,
    n_kv_heads: usize,
    head_len: usize,
}

impl Heads {
    /// Checks that the counts fit each other. `fail` makes the error of the file at hand for a key.
    fn check(self, fail: impl Fn(&str, String) -> FormatError) -> Result<Self, FormatError> {
        let Self { n_heads, n_kv_heads, head_len } = self;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(fail("num_key_value_heads", format!("is {n_kv_heads}, no divisor of the {n_heads} heads")));
        }
        if !head_len.is_multiple_of(2) {
            return Err(fail("head_dim", format!("is {head_len}; it has to be even")));
        }
        Ok(self)
    }
}

/// The width of the model divided by its heads.
fn derived_head_len(hidden_size: usize, n_heads: usize) -> Result<usize, String> {
    if n_heads == 0 || !hidden_size.is_multiple_of(n_heads) || hidden_size < n_heads {
        return Err(format!("is {hidden_size}, no multiple of the {n_heads} heads, and the head length is not given"));
    }
    Ok(hidden_size / n_heads)
}

/// Refuses an activation other than `wanted`.
fn check_activation(section: &Section<'_>, wanted: &str) -> Result<(), FormatError> {
    match section.text("hidden_act")? {
        Some(other) if other != wanted => {
            Err(section.unsupported("hidden_act", format!("\"{other}\" is not supported; \"{wanted}\" is")))
        }
        _ => Ok(()),
    }
}
