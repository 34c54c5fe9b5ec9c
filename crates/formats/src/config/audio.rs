//! The audio encoder and its projector: `audio_config`, `audio_projector_config` and the tokens of a clip.

use std::num::NonZeroUsize;

use super::{FFN_LIMIT, HEADS_LIMIT, HIDDEN_LIMIT, LAYERS_LIMIT, check_token, defaults};
use crate::FormatError;
use crate::json::Section;

/// Most mel bins; published encoders have 80 or 128.
pub(super) const MELS_LIMIT: usize = 1024;

/// Most encoder frames of one chunk; published encoders have 1500, for 30 seconds.
pub(super) const FRAMES_LIMIT: usize = 1 << 16;

/// Most frames that one row joins.
pub(super) const STACK_LIMIT: usize = 64;

/// A family of audio models; it decides what a checkpoint leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioPreset {
    /// Llama 4 with an audio encoder: four frames a row, GELU, a start and an end token.
    Llama4Audio,
    /// Voxtral: whole chunks with their silence, a start token that its tokenizer knows, no end.
    Voxtral,
    /// Ultravox up to 0.4: eight frames a row, SwiGLU, a norm before and one after; no markers.
    Ultravox04,
    /// Ultravox from 0.5 on: the last norm stands between the two maps.
    Ultravox05,
}

impl AudioPreset {
    /// What it is called: `llama4-audio`, `voxtral`, `ultravox-0.4`, `ultravox-0.5+`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama4Audio => "llama4-audio",
            Self::Voxtral => "voxtral",
            Self::Ultravox04 => "ultravox-0.4",
            Self::Ultravox05 => "ultravox-0.5+",
        }
    }
}

/// An audio encoder with its projector.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AudioConfig {
    /// The family that the checkpoint belongs to.
    pub preset: AudioPreset,
    /// The encoder.
    pub encoder: AudioEncoderConfig,
    /// From encoder frames to rows of the decoder's width.
    pub projector: AudioProjectorConfig,
    /// The tokens around and in place of a clip.
    pub tokens: AudioTokens,
}

/// A Whisper-type encoder. A chunk of [`chunk_columns`](Self::chunk_columns) mel columns becomes `n_frames` frames.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AudioEncoderConfig {
    /// Mel bins of a column, M.
    pub n_mels: usize,
    /// Width of the encoder; a multiple of `n_heads`.
    pub hidden_size: usize,
    /// Width of each layer's feed-forward.
    pub intermediate_size: usize,
    /// Layers.
    pub n_layers: usize,
    /// Heads of queries, keys and values.
    pub n_heads: usize,
    /// Frames of one chunk, `max_source_positions`.
    pub n_frames: usize,
    /// Frames of a block: a frame sees its own block and those before it. `None` if it sees the whole chunk. Divides
    /// `n_frames` and is a multiple of the projector's `stack`.
    pub block: Option<NonZeroUsize>,
}

impl AudioEncoderConfig {
    /// Mel columns of one chunk, C: two a frame.
    pub fn chunk_columns(&self) -> usize {
        2 * self.n_frames
    }
}

/// The activation between the projector's two maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioActivation {
    /// The exact GELU.
    Gelu,
    /// `silu(second half) · first half`.
    SwiGlu,
}

/// Frame stacking and the two maps after it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AudioProjectorConfig {
    /// Frames that one row joins.
    pub stack: usize,
    /// Outputs of the first map; even for SwiGLU.
    pub hidden_size: usize,
    /// What stands between the maps.
    pub activation: AudioActivation,
    /// Whether the maps have biases.
    pub bias: bool,
    /// Whether stacked frames are normalised.
    pub ln_pre: bool,
    /// Whether the second map's input is normalised.
    pub ln_mid: bool,
    /// Whether the second map's output is normalised.
    pub ln_post: bool,
    /// Added to the mean square in the norms.
    pub norm_eps: f32,
}

impl AudioProjectorConfig {
    /// GELU between two maps, nothing normalised, no biases.
    fn plain(stack: usize, hidden_size: usize) -> Self {
        Self {
            stack,
            hidden_size,
            activation: AudioActivation::Gelu,
            bias: false,
            ln_pre: false,
            ln_mid: false,
            ln_post: false,
            norm_eps: 1e-6,
        }
    }

    /// Inputs of the second map.
    pub fn inner_size(&self) -> usize {
        match self.activation {
            AudioActivation::Gelu => self.hidden_size,
            AudioActivation::SwiGlu => self.hidden_size / 2,
        }
    }
}

/// Token ids around and in place of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioTokens {
    /// Before a clip. Voxtral's config does not have it: there it is `[BEGIN_AUDIO]` of the tokenizer.
    pub start: Option<u32>,
    /// Where a row of audio goes.
    pub audio: u32,
    /// After a clip.
    pub end: Option<u32>,
}

impl AudioTokens {
    /// The ids that are there: no answer may contain one.
    pub fn ids(self) -> impl Iterator<Item = u32> {
        self.start.into_iter().chain([self.audio]).chain(self.end)
    }
}

/// What the parts of a config say about the decoder that audio rows go to.
pub(super) struct Decoder {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
}

/// Reads the audio part of a `llama4` config; `None` without `audio_config`.
pub(super) fn llama4(top: &Section<'_>, decoder: &Decoder) -> Result<Option<AudioConfig>, FormatError> {
    let Some(section) = top.section("audio_config")? else { return Ok(None) };
    let projector = match top.section("audio_projector_config")? {
        None => AudioProjectorConfig::plain(4, decoder.hidden_size),
        Some(section) => projector(&section, decoder.hidden_size)?,
    };
    let tokens = AudioTokens {
        start: Some(token(top, "boa_token_index", Some(defaults::AUDIO_START), decoder)?),
        audio: token(top, "audio_token_index", Some(defaults::AUDIO), decoder)?,
        end: Some(token(top, "eoa_token_index", Some(defaults::AUDIO_END), decoder)?),
    };
    check_distinct(top, &tokens)?;
    let encoder = encoder(&section, projector.stack)?;
    Ok(Some(AudioConfig { preset: AudioPreset::Llama4Audio, encoder, projector, tokens }))
}

/// Reads the audio part of a `voxtral` config.
pub(super) fn voxtral(top: &Section<'_>, decoder: &Decoder) -> Result<AudioConfig, FormatError> {
    let section = top.section("audio_config")?.ok_or_else(|| top.missing("audio_config"))?;
    activation(top, "projector_hidden_act", "gelu")?;
    let shape = encoder(&section, 1)?;
    // The published config does not have it: the feed-forward's width is that of the joined frames.
    let stack = shape.intermediate_size / shape.hidden_size;
    if shape.hidden_size * stack != shape.intermediate_size || !(1..=STACK_LIMIT).contains(&stack) {
        let (inner, width) = (shape.intermediate_size, shape.hidden_size);
        let why = format!("is {inner}; it has to be 1 to {STACK_LIMIT} times the hidden_size {width}");
        return Err(section.corrupt("intermediate_size", why));
    }
    let audio = token(top, "audio_token_id", None, decoder)?;
    Ok(AudioConfig {
        preset: AudioPreset::Voxtral,
        encoder: AudioEncoderConfig { block: block(&section, "attention_block", shape.n_frames, stack)?, ..shape },
        projector: AudioProjectorConfig::plain(stack, decoder.hidden_size),
        tokens: AudioTokens { start: None, audio, end: None },
    })
}

/// Reads the audio part of an `ultravox` config whose encoder is described in `audio`.
pub(super) fn ultravox(top: &Section<'_>, audio: &Section<'_>, decoder: &Decoder) -> Result<AudioConfig, FormatError> {
    let ln_mid = top.flag("projector_ln_mid")?.unwrap_or(false);
    activation(top, "projector_act", "swiglu")?;
    let stack = top.size("stack_factor", 8, STACK_LIMIT)?;
    let hidden_size = top.size("hidden_size", 4096, FFN_LIMIT)?;
    check_even(top, hidden_size)?;
    let shape = encoder(audio, stack)?;
    let audio = match top.given("audio_token_index") {
        Some(_) => token(top, "audio_token_index", None, decoder)?,
        // Ultravox writes rows over the positions of the end-of-text token and needs no id of its own.
        None => top.token("audio_token_id")?.unwrap_or(0),
    };
    Ok(AudioConfig {
        preset: if ln_mid { AudioPreset::Ultravox05 } else { AudioPreset::Ultravox04 },
        encoder: AudioEncoderConfig {
            block: block(top, "audio_latency_block_size", shape.n_frames, stack)?.or(shape.block),
            ..shape
        },
        projector: AudioProjectorConfig {
            stack,
            hidden_size,
            activation: AudioActivation::SwiGlu,
            bias: false,
            ln_pre: true,
            ln_mid,
            ln_post: !ln_mid,
            norm_eps: 1e-6,
        },
        tokens: AudioTokens { start: None, audio, end: None },
    })
}

/// Reads the encoder of a Whisper config: a file of that kind describes nothing else that is read.
///
/// # Errors
/// As [`ModelConfig::parse`](super::ModelConfig::parse).
pub(super) fn whisper(top: &Section<'_>) -> Result<AudioEncoderConfig, FormatError> {
    encoder(top, 1)
}

/// Reads an encoder; defaults of `VoxtralEncoderConfig` in transformers 5.23.
fn encoder(section: &Section<'_>, stack: usize) -> Result<AudioEncoderConfig, FormatError> {
    activation(section, "activation_function", "gelu")?;
    match section.text("model_type")? {
        None | Some("voxtral_encoder" | "whisper") => {}
        Some(other) => {
            let why = format!("\"{other}\" is not supported; \"voxtral_encoder\" and \"whisper\" are");
            return Err(section.unsupported("model_type", why));
        }
    }
    if section.flag("scale_embedding")? == Some(true) {
        return Err(section.unsupported("scale_embedding", "true is not supported; false is"));
    }
    let hidden_size = either(section, ["hidden_size", "d_model"], 1280, HIDDEN_LIMIT)?;
    let heads = ["num_attention_heads", "encoder_attention_heads"];
    let n_heads = either(section, heads, 20, HEADS_LIMIT)?;
    if !hidden_size.is_multiple_of(n_heads) {
        let why = format!("is {hidden_size}, no multiple of the {n_heads} heads");
        return Err(section.corrupt("hidden_size", why));
    }
    match section.count("num_key_value_heads")? {
        Some(n) if n != n_heads => {
            let why = format!("is {n}; it has to be the num_attention_heads {n_heads}");
            return Err(section.corrupt("num_key_value_heads", why));
        }
        _ => {}
    }
    let n_frames = section.size("max_source_positions", 1500, FRAMES_LIMIT)?;
    Ok(AudioEncoderConfig {
        n_mels: section.size("num_mel_bins", 128, MELS_LIMIT)?,
        hidden_size,
        intermediate_size: either(section, ["intermediate_size", "encoder_ffn_dim"], 5120, FFN_LIMIT)?,
        n_layers: either(section, ["num_hidden_layers", "encoder_layers"], 32, LAYERS_LIMIT)?,
        n_heads,
        n_frames,
        block: block(section, "attention_block", n_frames, stack)?,
    })
}

fn projector(section: &Section<'_>, text_width: usize) -> Result<AudioProjectorConfig, FormatError> {
    let activation = match section.text("hidden_act")? {
        None | Some("gelu") => AudioActivation::Gelu,
        Some("swiglu") => AudioActivation::SwiGlu,
        Some(other) => {
            let why = format!("\"{other}\" is not supported; \"gelu\" and \"swiglu\" are");
            return Err(section.unsupported("hidden_act", why));
        }
    };
    let hidden_size = section.size("hidden_size", text_width, FFN_LIMIT)?;
    if activation == AudioActivation::SwiGlu {
        check_even(section, hidden_size)?;
    }
    let flag = |key| Ok::<_, FormatError>(section.flag(key)?.unwrap_or(false));
    Ok(AudioProjectorConfig {
        stack: section.size("stack_factor", 4, STACK_LIMIT)?,
        hidden_size,
        activation,
        bias: flag("bias")?,
        ln_pre: flag("ln_pre")?,
        ln_mid: flag("ln_mid")?,
        ln_post: flag("ln_post")?,
        norm_eps: section.positive("norm_eps", 1e-6)?,
    })
}

fn check_even(section: &Section<'_>, hidden_size: usize) -> Result<(), FormatError> {
    match hidden_size.is_multiple_of(2) {
        true => Ok(()),
        false => Err(section.corrupt("hidden_size", format!("is {hidden_size}; with \"swiglu\" it has to be even"))),
    }
}

/// A size under the first of `keys` or under its older name; both have to agree.
fn either(section: &Section<'_>, keys: [&str; 2], default: usize, limit: usize) -> Result<usize, FormatError> {
    let [key, alias] = keys;
    match (section.count(key)?, section.count(alias)?) {
        (Some(a), Some(b)) if a != b => {
            Err(section.corrupt(alias, format!("is {b}; it has to be the {key} {a} of the same section")))
        }
        (None, Some(_)) => section.size(alias, default, limit),
        _ => section.size(key, default, limit),
    }
}

/// Length of a block of frames, if there are blocks.
fn block(section: &Section<'_>, key: &str, n_frames: usize, stack: usize) -> Result<Option<NonZeroUsize>, FormatError> {
    let Some(block) = section.count(key)? else { return Ok(None) };
    let Some(block) = NonZeroUsize::new(block) else {
        return Err(section.corrupt(key, "is 0; it has to be from 1 on, or null"));
    };
    if !n_frames.is_multiple_of(block.get()) {
        return Err(section.corrupt(key, format!("is {block}, no divisor of the max_source_positions {n_frames}")));
    }
    if !block.get().is_multiple_of(stack) {
        return Err(section.corrupt(key, format!("is {block}, no multiple of the stack_factor {stack}")));
    }
    Ok(Some(block))
}

/// Refuses an activation other than `wanted` under `key`.
fn activation(section: &Section<'_>, key: &str, wanted: &str) -> Result<(), FormatError> {
    match section.text(key)? {
        Some(other) if other != wanted => {
            Err(section.unsupported(key, format!("\"{other}\" is not supported; \"{wanted}\" is")))
        }
        _ => Ok(()),
    }
}

fn token(top: &Section<'_>, key: &str, default: Option<u32>, decoder: &Decoder) -> Result<u32, FormatError> {
    let id = top.token(key)?.or(default).ok_or_else(|| top.missing(key))?;
    check_token(id, decoder.vocab_size).map_err(|why| top.corrupt(key, why))?;
    Ok(id)
}

fn check_distinct(top: &Section<'_>, tokens: &AudioTokens) -> Result<(), FormatError> {
    let mut ids: Vec<u32> = tokens.ids().collect();
    ids.sort_unstable();
    match ids.array_windows().any(|[a, b]| a == b) {
        true => Err(top.corrupt("audio_token_index", "is not different from boa_token_index and eoa_token_index")),
        false => Ok(()),
    }
}
