//! From a checkpoint's checked descriptions to weights on a device.

use std::cell::RefCell;
use std::collections::BTreeMap;

use formats::config::{AudioPreprocessorConfig, Ffn, LayerConfig, ModelConfig, TextConfig};
use formats::{Checkpoint, DType, Tensor};
use tensor::{Device, Format, Orientation, Origin, WeightSource};

use crate::LlamaError;
use crate::audio::Audio;
use crate::blank::Blank;
use crate::decoder::{Decoder, FeedForward, Layer, LayerWeights};
use crate::lora::Additions;
use crate::names::{Inner, Names, Outer};
use crate::vision::Vision;

/// A loaded model: the decoder and, where the checkpoint has them, the vision tower and the audio encoder.
pub struct Model<D: Device> {
    /// The text model.
    pub decoder: Decoder<D>,
    /// The vision tower and projector.
    pub vision: Option<Vision<D>>,
    /// The audio encoder and its projector.
    pub audio: Option<Audio<D>>,
}

impl<D: Device> Model<D> {
    /// Loads all weights of `checkpoint` to `dev`. `progress` is told the bytes of every weight as it is done.
    ///
    /// # Errors
    /// [`LlamaError::Missing`] or [`LlamaError::Weight`] where the files do not hold what the config describes.
    pub fn load(dev: &D, checkpoint: &Checkpoint, progress: &mut dyn FnMut(usize)) -> Result<Self, LlamaError> {
        let config = &checkpoint.config;
        let names = Names::of_files(config.architecture, checkpoint);
        let mut loader = Loader { dev, tensors: Tensors::Stored(&checkpoint.tensors), progress };
        let decoder = loader.decoder(config, names)?;
        // Towers of GGUF models lie in a file of their own.
        let beside = checkpoint.projector.as_ref().map(|projector| {
            projector.tensors.iter().map(|t| (t.name.clone(), t.clone())).collect::<BTreeMap<String, Tensor>>()
        });
        let is_gguf = beside.is_some();
        let mut loader = Loader::stored(dev, beside.as_ref().unwrap_or(&checkpoint.tensors), progress);
        let vision = config.vision.as_ref();
        let vision = vision.map(|vision| Vision::load(&mut loader, vision, config.text.hidden_size, is_gguf));
        let vision = vision.transpose()?;
        let audio = match checkpoint.audio_preprocessor {
            Some(settings) => Audio::load_from(&mut loader, config, settings.padding_mode)?,
            None => None,
        };
        Ok(Self { decoder, vision, audio })
    }

    /// The same walk over a model of which there is a config only: `dev` gets descriptions of the weights under their
    /// GGUF names, each in the format that `format_of` gives for its name and its shape (matrices, outputs, inputs).
    ///
    /// # Errors
    /// [`LlamaError::Op`] if `dev` refuses a description, or a format does not fit a shape.
    pub fn describe(
        dev: &D,
        config: &ModelConfig,
        format_of: &dyn Fn(&str, [usize; 3]) -> Format,
    ) -> Result<Self, LlamaError> {
        let mut loader = Loader { dev, tensors: Tensors::Described(format_of), progress: &mut |_| {} };
        let decoder = loader.decoder(config, Names::Gguf)?;
        let vision = config.vision.as_ref();
        let vision = vision.map(|vision| Vision::load(&mut loader, vision, config.text.hidden_size, true));
        let vision = vision.transpose()?;
        let audio = match &config.audio {
            Some(audio) => {
                let mode = AudioPreprocessorConfig::of(audio).padding_mode;
                Audio::load_from(&mut loader, config, mode)?
            }
            None => None,
        };
        Ok(Self { decoder, vision, audio })
    }

    /// All tensors of a model of this config, in the order of loading, as a Hugging Face folder stores them.
    pub(crate) fn blanks(dev: &D, config: &ModelConfig) -> Result<Vec<Blank>, LlamaError> {
        let seen = RefCell::new(Vec::new());
        let mut loader = Loader { dev, tensors: Tensors::Blank(&seen), progress: &mut |_| {} };
        loader.decoder(config, Names::of(config.architecture, false))?;
        if let Some(vision) = &config.vision {
            Vision::load(&mut loader, vision, config.text.hidden_size, false)?;
        }
        if let Some(audio) = &config.audio {
            Audio::load_from(&mut loader, config, AudioPreprocessorConfig::of(audio).padding_mode)?;
        }
        Ok(seen.into_inner())
    }

    /// The bytes that [`load`](Self::load) reports in all, up to the small vectors: the stored size of all weights.
    pub fn stored_bytes(checkpoint: &Checkpoint) -> usize {
        let projector = checkpoint.projector.iter().flat_map(|p| &p.tensors);
        let weights = checkpoint.tensors.values().chain(projector);
        weights.filter(|t| t.dtype.format().is_some()).map(|t| t.bytes.len()).sum()
    }
}

/// Where a loader finds weights.
#[derive(Clone, Copy)]
enum Tensors<'a> {
    Stored(&'a BTreeMap<String, Tensor>),
    /// Nowhere: the format of each by its name and shape.
    Described(&'a dyn Fn(&str, [usize; 3]) -> Format),
    /// Nowhere: zeros, and a note of each.
    Blank(&'a RefCell<Vec<Blank>>),
}

/// Finds, checks and packs weights by name.
pub(crate) struct Loader<'a, D: Device> {
    pub(crate) dev: &'a D,
    tensors: Tensors<'a>,
    progress: &'a mut dyn FnMut(usize),
}

impl<'a, D: Device> Loader<'a, D> {
    pub(crate) fn stored(
        dev: &'a D,
        tensors: &'a BTreeMap<String, Tensor>,
        progress: &'a mut dyn FnMut(usize),
    ) -> Self {
        Self { dev, tensors: Tensors::Stored(tensors), progress }
    }
}

impl<D: Device> Loader<'_, D> {
    pub(crate) fn has(&self, name: &str) -> bool {
        match self.tensors {
            Tensors::Stored(tensors) => tensors.contains_key(name),
            // What only some files have, a description does without.
            Tensors::Described(_) | Tensors::Blank(_) => false,
        }
    }

    /// The weight `name` as `shape` = matrices, outputs, inputs. Axes of length 1 in the file do not count, and the
    /// inputs may be spread over several axes (a convolution's kernel).
    pub(crate) fn source(
        &self,
        name: &str,
        orientation: Orientation,
        shape: [usize; 3],
    ) -> Result<WeightSource, LlamaError> {
        let wrong = |why: String| LlamaError::Weight { name: name.into(), why };
        let tensor = match self.tensors {
            Tensors::Stored(tensors) => tensors.get(name).ok_or_else(|| LlamaError::Missing { name: name.into() })?,
            Tensors::Described(format_of) => {
                let format = format_of(name, shape);
                return WeightSource::described(format, orientation, shape).map_err(|e| wrong(e.to_string()));
            }
            Tensors::Blank(seen) => {
                let [n_matrices, n_out, n_in] = shape;
                seen.borrow_mut().push(Blank::new(name, orientation, shape));
                let bytes = vec![0u8; 4 * n_matrices * n_out * n_in];
                return Ok(WeightSource::new(bytes.into(), Format::F32, orientation, shape)?);
            }
        };
        let (format, stored_as) = match tensor.dtype {
            DType::Weight(format) => (format, orientation),
            DType::Packed(format) => (format, Orientation::Packed),
            other => return Err(wrong(format!("is stored as {}, not as numbers that a weight can be", other.name()))),
        };
        let [n_matrices, n_out, n_in] = shape;
        let stored = match orientation {
            Orientation::OutIn | Orientation::Packed => [n_matrices, n_out, n_in],
            Orientation::InOut => [n_matrices, n_in, n_out],
        };
        if !same_axes(&tensor.shape, &stored) {
            return Err(wrong(format!("has the shape {:?}; the config asks for {stored:?}", tensor.shape)));
        }
        let source = WeightSource::new(tensor.bytes.clone(), format, stored_as, shape);
        Ok(source.map_err(|e| wrong(e.to_string()))?.named(name))
    }

    /// Packs `sources`, one under the other, and reports their bytes as done.
    pub(crate) fn matrix(&mut self, sources: &[WeightSource]) -> Result<D::Matrix, LlamaError> {
        let matrix = self.dev.matrix(sources)?;
        (self.progress)(sources.iter().map(WeightSource::size_bytes).sum());
        Ok(matrix)
    }

    /// One `[n_out, n_in]` linear map.
    pub(crate) fn linear(&mut self, name: &str, n_out: usize, n_in: usize) -> Result<D::Matrix, LlamaError> {
        let source = self.source(name, Orientation::OutIn, [1, n_out, n_in])?;
        self.matrix(&[source])
    }

    /// The kernel `name` of a convolution, `[n_out, n_in, n_taps]` in the file, as a linear map whose inputs stand tap by
    /// tap: `[n_out, n_taps · n_in]`.
    pub(crate) fn convolution(
        &mut self,
        name: &str,
        [n_out, n_in, n_taps]: [usize; 3],
    ) -> Result<D::Matrix, LlamaError> {
        let source = self.source(name, Orientation::OutIn, [1, n_out, n_in * n_taps])?;
        if let Tensors::Blank(seen) = self.tensors
            && let Some(blank) = seen.borrow_mut().last_mut()
        {
            blank.shape = vec![n_out, n_in, n_taps];
        }
        let (format, len) = (source.format(), source.format().block_bytes());
        if source.format().block_len() != 1 || source.orientation() != Orientation::OutIn {
            let why = format!("is stored as {}; convolutions are not quantised", format.name());
            return Err(LlamaError::Weight { name: name.into(), why });
        }
        if source.check_stored("convolution").is_err() {
            return self.matrix(&[source]);
        }
        let mut bytes = Vec::with_capacity(source.bytes().len());
        for row in source.bytes().chunks_exact(n_in * n_taps * len) {
            for tap in 0..n_taps {
                for input in 0..n_in {
                    let at = (input * n_taps + tap) * len;
                    bytes.extend_from_slice(&row[at..at + len]);
                }
            }
        }
        let turned = WeightSource::new(bytes.into(), format, Orientation::OutIn, [1, n_out, n_in * n_taps])?;
        let inputs = (0..n_taps).flat_map(|tap| (0..n_in).map(move |input| input * n_taps + tap));
        let origin = Origin { name: name.into(), outputs: None, inputs: Some(inputs.collect()) };
        self.matrix(&[turned.with_origin(origin)])
    }

    /// A lookup table of `n_rows` rows.
    pub(crate) fn table(&mut self, name: &str, n_rows: usize, width: usize) -> Result<D::Table, LlamaError> {
        let source = self.source(name, Orientation::OutIn, [1, n_rows, width])?;
        Ok(self.dev.table(&source)?)
    }

    /// The values of a parameter vector.
    pub(crate) fn values(&self, name: &str, len: usize) -> Result<Vec<f32>, LlamaError> {
        if matches!(self.tensors, Tensors::Described(_)) {
            return Ok(vec![0.0; len]);
        }
        Ok(self.part(name, len)?.vector()?)
    }

    /// A parameter vector as it is stored.
    pub(crate) fn part(&self, name: &str, len: usize) -> Result<WeightSource, LlamaError> {
        match self.tensors {
            // Devices keep vectors in f32.
            Tensors::Described(_) => Ok(WeightSource::described(Format::F32, Orientation::OutIn, [1, 1, len])?),
            Tensors::Stored(_) | Tensors::Blank(_) => self.source(name, Orientation::OutIn, [1, 1, len]),
        }
    }

    /// A parameter vector on the device.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<D::Vector, LlamaError> {
        Ok(self.dev.vector(&[self.part(name, len)?])?)
    }

    fn decoder(&mut self, config: &ModelConfig, names: Names) -> Result<Decoder<D>, LlamaError> {
        let text = &config.text;
        let embeddings = names.outer(Outer::Embeddings);
        let table = self.table(&embeddings, text.vocab_size, text.hidden_size)?;
        let mut layers = Vec::with_capacity(text.layers.len());
        for (i, layer) in text.layers.iter().enumerate() {
            let weights = self.layer(text, layer, &|weight| weight_name(names, i, weight), names == Names::Gguf)?;
            layers.push(Layer { config: layer.clone(), weights, lora: Additions::default() });
        }
        let norm = self.vector(&names.outer(Outer::FinalNorm), text.hidden_size)?;
        let output = if config.tie_word_embeddings { embeddings } else { names.outer(Outer::Output) };
        let output = self.linear(&output, text.vocab_size, text.hidden_size)?;
        let divisors = "rope_freqs.weight";
        let divisors = if self.has(divisors) { self.values(divisors, text.head_len / 2)? } else { Vec::new() };
        Ok(Decoder::new(text, &divisors, table, layers, norm, output))
    }

    fn layer(
        &mut self,
        text: &TextConfig,
        layer: &LayerConfig,
        name: &dyn Fn(Inner) -> String,
        is_gguf: bool,
    ) -> Result<LayerWeights<D>, LlamaError> {
        let width = text.hidden_size;
        let (q_width, kv_width) = (text.n_heads * text.head_len, text.n_kv_heads * text.head_len);
        let out_in = |n_out, n_in| (Orientation::OutIn, [1, n_out, n_in]);
        let qkv = [(Inner::Q, q_width), (Inner::K, kv_width), (Inner::V, kv_width)];
        let sources = qkv
            .iter()
            .map(|(weight, n_out)| {
                let (orientation, shape) = out_in(*n_out, width);
                self.source(&name(*weight), orientation, shape)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let qkv_bias = if text.attention_bias {
            let parts = qkv.iter().map(|(weight, len)| self.part(&bias_name(&name(*weight)), *len));
            Some(self.dev.vector(&parts.collect::<Result<Vec<_>, _>>()?)?)
        } else {
            None
        };
        let o_bias = match text.attention_bias {
            true => Some(self.vector(&bias_name(&name(Inner::O)), width)?),
            false => None,
        };
        Ok(LayerWeights {
            attention_norm: self.vector(&name(Inner::AttentionNorm), width)?,
            qkv: self.matrix(&sources)?,
            qkv_bias,
            o: self.linear(&name(Inner::O), width, q_width)?,
            o_bias,
            ffn_norm: self.vector(&name(Inner::FfnNorm), width)?,
            ffn: match layer.ffn {
                Ffn::Dense { width: ffn } => {
                    FeedForward::Dense(self.dense(text, [Inner::Gate, Inner::Up, Inner::Down].map(name), ffn)?)
                }
                Ffn::Moe { width: ffn, n_experts, top_k, shared_width } => {
                    let shared = [Inner::SharedGate, Inner::SharedUp, Inner::SharedDown].map(name);
                    FeedForward::Moe {
                        router: self.linear(&name(Inner::Router), n_experts, width)?,
                        top_k,
                        shared: self.dense(text, shared, shared_width)?,
                        gate_up: self.experts_gate_up(name, [n_experts, ffn, width], is_gguf)?,
                        down: {
                            let orientation = if is_gguf { Orientation::OutIn } else { Orientation::InOut };
                            let down = self.source(&name(Inner::ExpertsDown), orientation, [n_experts, width, ffn])?;
                            self.matrix(&[down])?
                        },
                    }
                }
            },
        })
    }

    fn dense(
        &mut self,
        text: &TextConfig,
        [gate, up, down]: [String; 3],
        ffn: usize,
    ) -> Result<crate::decoder::Dense<D>, LlamaError> {
        let width = text.hidden_size;
        let halves = [&gate, &up].map(|name| self.source(name, Orientation::OutIn, [1, ffn, width]));
        let [gate_source, up_source] = halves;
        let (gate_up_bias, down_bias) = if text.mlp_bias {
            let halves = [self.part(&bias_name(&gate), ffn)?, self.part(&bias_name(&up), ffn)?];
            (Some(self.dev.vector(&halves)?), Some(self.vector(&bias_name(&down), width)?))
        } else {
            (None, None)
        };
        Ok(crate::decoder::Dense {
            gate_up: self.matrix(&[gate_source?, up_source?])?,
            gate_up_bias,
            down: self.linear(&down, width, ffn)?,
            down_bias,
        })
    }

    /// Gate over up of every expert: one input-major tensor in Hugging Face files; two in GGUF, or one fused.
    fn experts_gate_up(
        &mut self,
        name: &dyn Fn(Inner) -> String,
        [n_experts, ffn, width]: [usize; 3],
        is_gguf: bool,
    ) -> Result<D::Matrix, LlamaError> {
        let fused = name(Inner::ExpertsGateUp);
        let orientation = if is_gguf { Orientation::OutIn } else { Orientation::InOut };
        if !is_gguf || self.has(&fused) {
            let source = self.source(&fused, orientation, [n_experts, 2 * ffn, width])?;
            return self.matrix(&[source]);
        }
        let halves = [Inner::ExpertsGate, Inner::ExpertsUp];
        let halves = halves.map(|weight| self.source(&name(weight), orientation, [n_experts, ffn, width]));
        let [gate, up] = halves;
        self.matrix(&[gate?, up?])
    }
}

/// The full name of a layer's weight. Hugging Face's fused experts are parameters, not modules: no suffix.
pub(crate) fn weight_name(names: Names, layer: usize, weight: Inner) -> String {
    let name = names.inner(layer, weight);
    match (names, weight) {
        (Names::HuggingFace { .. }, Inner::ExpertsGateUp | Inner::ExpertsDown) => name,
        _ => name + ".weight",
    }
}

/// The name of the bias that goes with the weight `weight`.
pub(crate) fn bias_name(weight: &str) -> String {
    format!("{}.bias", weight.trim_end_matches(".weight"))
}

/// Whether `shape` is `wanted` up to axes of length 1 and a split of the last axis.
fn same_axes(shape: &[usize], wanted: &[usize; 3]) -> bool {
    let squeeze = |axes: &[usize]| axes.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
    let (shape, wanted) = (squeeze(shape), squeeze(wanted));
    if shape == wanted {
        return true;
    }
    let Some((last, leading)) = wanted.split_last() else { return false };
    shape.len() > wanted.len()
        && shape.starts_with(leading)
        && shape[leading.len()..].iter().try_fold(1usize, |n, axis| n.checked_mul(*axis)) == Some(*last)
}
