//! The audio encoder and its projector: mel columns to rows of the decoder's width.
//!
//! Letters of shapes: C mel columns of a chunk, M mel bins, F encoder frames, T rows, D the decoder's width.

mod encoder;
mod projector;
mod quantised;
mod stream;

use std::collections::BTreeMap;

use formats::Tensor;
use formats::config::{Architecture, AudioPreprocessorConfig, ModelConfig, PaddingMode};
use tensor::Device;

use crate::load::Loader;
use crate::{LlamaError, Probe, Site};

pub use encoder::{AudioEncoder, sinusoids};
pub use quantised::quantise_audio;
pub use stream::AudioStream;

use projector::Projector;

/// Frames of chunks that are encoded together at most, where a single one does not have more.
const FRAMES_TOGETHER: usize = 2048;

/// Audio encoder and projector.
pub struct Audio<D: Device> {
    encoder: AudioEncoder<D>,
    projector: Projector<D>,
    mode: PaddingMode,
}

/// One chunk of a clip.
#[derive(Debug, Clone, Copy)]
pub struct AudioChunk<'a> {
    /// Mel columns, bin by bin: `[M, C]`.
    pub mel_mc: &'a [f32],
    /// Columns at the front that the clip reaches; from 1 to C.
    pub valid: usize,
}

/// Where the parts of a model lie in its files.
pub(crate) struct Prefixes {
    /// Before the encoder's names; the first that the files have.
    pub(crate) encoder: &'static [&'static str],
    pub(crate) projector: &'static [&'static str],
}

/// What the parts are called, after the prefixes.
pub(crate) struct Names {
    pub(crate) convolutions: [&'static str; 2],
    pub(crate) positions: &'static str,
    pub(crate) norm: &'static str,
    pub(crate) layers: &'static str,
    /// ln1, q, k, v, o, ln2, fc1, fc2.
    pub(crate) inner: [&'static str; 8],
    /// The projector's maps.
    pub(crate) maps: [&'static str; 2],
    /// Its norms: before, between and after the maps.
    pub(crate) norms: [&'static str; 3],
}

pub(crate) const HUGGING_FACE: Names = Names {
    convolutions: ["conv1", "conv2"],
    positions: "embed_positions.weight",
    norm: "layer_norm",
    layers: "layers",
    inner: [
        "self_attn_layer_norm",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.out_proj",
        "final_layer_norm",
        "fc1",
        "fc2",
    ],
    maps: ["linear_1", "linear_2"],
    norms: ["ln_pre", "ln_mid", "ln_post"],
};

/// Those of llama.cpp's files; the last norm is ours.
pub(crate) const GGUF: Names = Names {
    convolutions: ["conv1d.1", "conv1d.2"],
    positions: "position_embd.weight",
    norm: "post_ln",
    layers: "blk",
    inner: ["ln1", "attn_q", "attn_k", "attn_v", "attn_out", "ln2", "ffn_up", "ffn_down"],
    maps: ["mlp.1", "mlp.2"],
    norms: ["norm_pre", "norm_mid", "norm_post"],
};

/// A projector file.
pub(crate) const PROJECTOR_FILE: Prefixes = Prefixes { encoder: &["a."], projector: &["mm.a."] };

impl Prefixes {
    /// Those of the model that `config` describes.
    pub(crate) fn of(config: &ModelConfig) -> &'static Self {
        match config.architecture {
            Architecture::LlamaAudio => &DENSE,
            _ => &LLAMA4,
        }
    }
}

impl Prefixes {
    /// The prefixes of encoder and projector: of each the first under which there is its first weight; the first of all if
    /// there is none.
    pub(crate) fn found(&self, names: &Names, has: &dyn Fn(&str) -> bool) -> [&'static str; 2] {
        let first = |prefixes: &[&'static str], name: &str| {
            let found = prefixes.iter().find(|prefix| has(&format!("{prefix}{name}.weight")));
            found.or(prefixes.first()).copied().unwrap_or_default()
        };
        [first(self.encoder, names.convolutions[0]), first(self.projector, names.maps[0])]
    }
}

/// Llama 4 with audio.
const LLAMA4: Prefixes = Prefixes { encoder: &["audio_tower."], projector: &["audio_projector."] };

/// Voxtral in both of its layouts, and Ultravox with an encoder of its own or Whisper's.
const DENSE: Prefixes = Prefixes {
    encoder: &["audio_tower.", "model.audio_tower.", "model.encoder.", "encoder."],
    projector: &["multi_modal_projector.", "model.multi_modal_projector."],
};

/// A lone Whisper encoder.
pub(crate) const WHISPER: Prefixes =
    Prefixes { encoder: &["model.encoder.", "encoder.", "audio_tower.", "model.audio_tower."], projector: &[] };

impl<D: Device> Audio<D> {
    /// Loads what of `tensors` hears in the model that `config` describes; `None` if nothing does.
    ///
    /// # Errors
    /// [`LlamaError::Missing`] or [`LlamaError::Weight`] where the tensors are not what the config describes.
    pub fn load(
        dev: &D,
        config: &ModelConfig,
        settings: &AudioPreprocessorConfig,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<Option<Self>, LlamaError> {
        let progress: &mut dyn FnMut(usize) = &mut |_| {};
        Self::load_from(&mut Loader::stored(dev, tensors, progress), config, settings.padding_mode)
    }

    pub(crate) fn load_from(
        loader: &mut Loader<'_, D>,
        config: &ModelConfig,
        mode: PaddingMode,
    ) -> Result<Option<Self>, LlamaError> {
        let Some(audio) = &config.audio else { return Ok(None) };
        let [encoder, projector] = PROJECTOR_FILE.found(&GGUF, &|name| loader.has(name));
        let is_gguf = loader.has(&format!("{encoder}{}.weight", GGUF.convolutions[0]));
        let (names, [encoder, projector]) = match is_gguf {
            true => (&GGUF, [encoder, projector]),
            false => (&HUGGING_FACE, Prefixes::of(config).found(&HUGGING_FACE, &|name| loader.has(name))),
        };
        Ok(Some(Self {
            encoder: AudioEncoder::load_from(loader, &audio.encoder, encoder, names)?,
            projector: Projector::load(loader, audio, config.text.hidden_size, (projector, names))?,
            mode,
        }))
    }

    /// The encoder.
    pub fn encoder(&self) -> &AudioEncoder<D> {
        &self.encoder
    }

    /// Encoder frames that are kept of a chunk with `valid` valid columns.
    pub fn frames(&self, valid: usize) -> usize {
        match self.mode {
            PaddingMode::Chunk => self.encoder.n_frames(),
            PaddingMode::Valid => valid.div_ceil(2),
        }
    }

    /// Rows that a chunk with `valid` valid columns becomes.
    pub fn rows(&self, valid: usize) -> usize {
        self.frames(valid).div_ceil(self.projector.stack())
    }

    /// Encodes the chunks of a clip, or of several, to `[T, D]`: the rows of the first, then of the second, and so on.
    ///
    /// Chunks do not see each other. Short ones are computed together, long ones one after another, which bounds the
    /// memory.
    ///
    /// # Errors
    /// [`LlamaError::Op`] if there is no chunk, or one has another size than the encoder takes.
    pub fn forward(
        &self,
        dev: &D,
        chunks: &[AudioChunk<'_>],
        probe: &mut impl Probe<D>,
    ) -> Result<D::Tensor, LlamaError> {
        let mut all: Option<D::Tensor> = None;
        let mut rest = chunks;
        while !rest.is_empty() {
            let ends = rest.iter().scan(0, |end, chunk| {
                *end += self.frames(chunk.valid);
                Some(*end)
            });
            let together = ends.take_while(|end| *end <= FRAMES_TOGETHER).count().max(1);
            let (now, later) = rest.split_at(together);
            rest = later;
            let lens: Vec<usize> = now.iter().map(|chunk| self.frames(chunk.valid)).collect();
            let now: Vec<_> = now.iter().copied().zip(lens.iter().copied()).collect();
            let frames = self.encoder.forward(dev, &now, probe)?;
            let rows = self.projector.forward(dev, frames, &lens)?;
            probe.see(dev, Site::AudioRows, &rows);
            all = Some(match all {
                Some(all) => dev.concat(&all, &rows)?,
                None => rows,
            });
        }
        all.ok_or_else(|| tensor::OpError::shape("audio", "no chunk").into())
    }

    /// The rows of encoder frames `[F, width]`, which are one chunk's.
    ///
    /// # Errors
    /// [`LlamaError::Op`] if they are not of the encoder's width, or there are none.
    pub fn project(&self, dev: &D, frames: D::Tensor) -> Result<D::Tensor, LlamaError> {
        let [n_frames, _] = dev.shape(&frames);
        Ok(self.projector.forward(dev, frames, &[n_frames])?)
    }
}
