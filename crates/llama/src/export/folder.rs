//! The tensors of a Hugging Face folder under GGUF's names, in GGUF's order.

use formats::config::{AudioConfig, Ffn, LayerConfig, TextConfig, VisionConfig};
use formats::{Checkpoint, DType, Tensor};
use tensor::{Bytes, Format, Pairing};

use super::rows::{ExportTensor, Order};
use super::{Facts, Recipe};
use crate::LlamaError;
use crate::audio::{self, Prefixes};
use crate::load::{bias_name, weight_name};
use crate::names::{Inner, Names, Outer};
use crate::rotary::Frequencies;
use crate::vision;

/// Collects tensors.
struct Collector<'a> {
    checkpoint: &'a Checkpoint,
    recipe: &'a Recipe,
    facts: Facts,
    tensors: Vec<ExportTensor>,
}

/// The decoder's tensors.
pub(super) fn decoder(checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Vec<ExportTensor>, LlamaError> {
    let config = &checkpoint.config;
    let text = &config.text;
    let names = Names::of_files(config.architecture, checkpoint);
    let mut all = Collector { checkpoint, recipe, facts: Facts::of(checkpoint), tensors: Vec::new() };
    let table = vec![text.vocab_size, text.hidden_size];
    all.outer(names, Outer::Embeddings, table.clone())?;
    all.outer(names, Outer::FinalNorm, vec![text.hidden_size])?;
    if !config.tie_word_embeddings {
        all.outer(names, Outer::Output, table)?;
    }
    if let Some(divisors) = Frequencies::divisors(&text.rope, text.head_len) {
        let bytes: Vec<u8> = divisors.iter().flat_map(|divisor| divisor.to_le_bytes()).collect();
        let name = String::from("rope_freqs.weight");
        let shape = vec![divisors.len()];
        let dtype = DType::Weight(Format::F32);
        let tensor = Tensor { name: name.clone(), dtype, shape: shape.clone(), bytes: Bytes::from(bytes) };
        all.tensors.push(ExportTensor::new(&tensor, name, shape, Order::Same, Format::F32)?);
    }
    for (index, layer) in text.layers.iter().enumerate() {
        all.layer(text, layer, &|weight| [names, Names::Gguf].map(|names| weight_name(names, index, weight)))?;
    }
    Ok(all.tensors)
}

/// A weight's name in the folder and in the file.
type InnerNames<'a> = &'a dyn Fn(Inner) -> [String; 2];

impl Collector<'_> {
    fn outer(&mut self, names: Names, weight: Outer, shape: Vec<usize>) -> Result<(), LlamaError> {
        self.add([names.outer(weight), Names::Gguf.outer(weight)], shape, Order::Same)
    }

    fn add(&mut self, [from, to]: [String; 2], shape: Vec<usize>, order: Order) -> Result<(), LlamaError> {
        let tensor = self.checkpoint.tensors.get(&from).ok_or(LlamaError::Missing { name: from })?;
        let format = self.recipe.format(&self.facts, &to, &shape);
        self.tensors.push(ExportTensor::new(tensor, to, shape, order, format)?);
        Ok(())
    }

    fn layer(&mut self, text: &TextConfig, layer: &LayerConfig, names: InnerNames<'_>) -> Result<(), LlamaError> {
        let width = text.hidden_size;
        let (q_width, kv_width) = (text.n_heads * text.head_len, text.n_kv_heads * text.head_len);
        let turned = match text.pairing {
            Pairing::Halves => Order::Pairs { half: text.head_len / 2 },
            Pairing::Interleaved => Order::Same,
        };
        self.add(names(Inner::AttentionNorm), vec![width], Order::Same)?;
        self.add(names(Inner::FfnNorm), vec![width], Order::Same)?;
        for (weight, n_out, n_in, order) in [
            (Inner::Q, q_width, width, turned),
            (Inner::K, kv_width, width, turned),
            (Inner::V, kv_width, width, Order::Same),
            (Inner::O, width, q_width, Order::Same),
        ] {
            self.linear(names(weight), [n_out, n_in], order, text.attention_bias)?;
        }
        match layer.ffn {
            Ffn::Dense { width: ffn } => {
                self.dense([Inner::Gate, Inner::Up, Inner::Down].map(names), [ffn, width], text.mlp_bias)
            }
            Ffn::Moe { width: ffn, n_experts, shared_width, .. } => {
                self.linear(names(Inner::Router), [n_experts, width], Order::Same, false)?;
                let shared = [Inner::SharedGate, Inner::SharedUp, Inner::SharedDown].map(names);
                self.dense(shared, [shared_width, width], text.mlp_bias)?;
                let [fused, _] = names(Inner::ExpertsGateUp);
                for (weight, first) in [(Inner::ExpertsGate, 0), (Inner::ExpertsUp, ffn)] {
                    let [_, to] = names(weight);
                    let order = Order::Columns { first, n_stored: 2 * ffn };
                    self.add([fused.clone(), to], vec![n_experts, ffn, width], order)?;
                }
                let order = Order::Columns { first: 0, n_stored: width };
                self.add(names(Inner::ExpertsDown), vec![n_experts, width, ffn], order)
            }
        }
    }

    /// A linear map and, if it has one, its bias.
    fn linear(
        &mut self,
        names: [String; 2],
        [n_out, n_in]: [usize; 2],
        order: Order,
        biased: bool,
    ) -> Result<(), LlamaError> {
        if biased {
            self.add([0, 1].map(|i| bias_name(&names[i])), vec![n_out], order)?;
        }
        self.add(names, vec![n_out, n_in], order)
    }

    fn dense(&mut self, names: [[String; 2]; 3], [ffn, width]: [usize; 2], biased: bool) -> Result<(), LlamaError> {
        let shapes = [[ffn, width], [ffn, width], [width, ffn]];
        names.into_iter().zip(shapes).try_for_each(|(names, shape)| self.linear(names, shape, Order::Same, biased))
    }
}

/// The tensors of the vision tower and its projector.
pub(super) fn vision(
    checkpoint: &Checkpoint,
    config: &VisionConfig,
    recipe: &Recipe,
) -> Result<Vec<ExportTensor>, LlamaError> {
    let (hf, gguf) = (&vision::HUGGING_FACE, &vision::GGUF);
    let (width, inner, joined) = (config.hidden_size, config.intermediate_size, config.joined_patches());
    let patch_len = config.n_channels * config.patch_size * config.patch_size;
    let named = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
    let part = |a: &str, b: &str, part: &str| [format!("{a}.{part}"), format!("{b}.{part}")];
    // Small, and read by kernels that want f32: everything but the matrices of layers and adapter.
    let mut small = vec![
        (named(hf.class, gguf.class), vec![width]),
        (named(hf.positions, gguf.positions), vec![config.grid() * config.grid() + 1, width]),
        (named(hf.patch, gguf.patch), vec![width, patch_len]),
    ];
    let adapter = [
        [config.projector_input_dim, width * joined * joined],
        [config.projector_output_dim, config.projector_input_dim],
    ];
    let mut matrices =
        vec![(named(hf.projector, gguf.projector), vec![checkpoint.config.text.hidden_size, config.vision_output_dim])];
    for i in 0..2 {
        matrices.push((named(hf.adapter[i], gguf.adapter[i]), adapter[i].to_vec()));
    }
    for kind in ["weight", "bias"] {
        small.push((part(hf.norm_before, gguf.norm_before, kind), vec![width]));
        small.push((part(hf.norm_after, gguf.norm_after, kind), vec![width]));
    }
    for layer in 0..config.n_layers {
        // ln1, q, k, v, o, ln2, fc1, fc2
        let shapes =
            [None, Some([width, width]), Some([width, width]), Some([width, width]), Some([width, width]), None]
                .into_iter()
                .chain([Some([inner, width]), Some([width, inner])]);
        for ((a, b), shape) in hf.inner.iter().zip(gguf.inner).zip(shapes) {
            let (a, b) = (format!("{}.{layer}.{a}", hf.layers), format!("{}.{layer}.{b}", gguf.layers));
            let n_out = shape.map_or(width, |[n_out, _]| n_out);
            small.push((part(&a, &b, "bias"), vec![n_out]));
            match shape {
                Some(shape) => matrices.push((part(&a, &b, "weight"), shape.to_vec())),
                None => small.push((part(&a, &b, "weight"), vec![width])),
            }
        }
    }
    towers(checkpoint, recipe, (small, matrices))
}

/// A tensor's names in the folder and in the file, and its shape.
type Named = ([String; 2], Vec<usize>);

/// Those that stay f32, then the linear maps, in the formats of `recipe`.
fn towers(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    (small, matrices): (Vec<Named>, Vec<Named>),
) -> Result<Vec<ExportTensor>, LlamaError> {
    let add = |([from, to], shape): Named, is_matrix: bool| {
        let tensor = checkpoint.tensors.get(&from).ok_or(LlamaError::Missing { name: from })?;
        let format = match (is_matrix, tensor.dtype, shape.last()) {
            (true, DType::Weight(stored), Some(row_len)) => recipe.projector_format(stored, *row_len),
            _ => Format::F32,
        };
        ExportTensor::new(tensor, to, shape, Order::Same, format)
    };
    let small = small.into_iter().map(|tensor| add(tensor, false));
    small.chain(matrices.into_iter().map(|tensor| add(tensor, true))).collect()
}

/// The tensors of the audio encoder and its projector.
pub(super) fn audio(
    checkpoint: &Checkpoint,
    config: &AudioConfig,
    recipe: &Recipe,
) -> Result<Vec<ExportTensor>, LlamaError> {
    let (hf, gguf) = (&audio::HUGGING_FACE, &audio::GGUF);
    let has = |name: &str| checkpoint.tensors.contains_key(name);
    let [encoder, projector] = Prefixes::of(&checkpoint.config).found(hf, &has);
    let [to_encoder, to_projector] = audio::PROJECTOR_FILE.found(gguf, &|_| false);
    let (text, width) = (checkpoint.config.text.hidden_size, config.encoder.hidden_size);
    let part = |a: &str, b: &str, part: &str| [format!("{encoder}{a}{part}"), format!("{to_encoder}{b}{part}")];
    let mut small = vec![(part(hf.positions, gguf.positions, ""), vec![config.encoder.n_frames, width])];
    for kind in [".weight", ".bias"] {
        small.push((part(hf.norm, gguf.norm, kind), vec![width]));
    }
    for (i, n_in) in [config.encoder.n_mels, width].into_iter().enumerate() {
        let (a, b) = (hf.convolutions[i], gguf.convolutions[i]);
        small.push((part(a, b, ".weight"), vec![width, n_in, 3]));
        // Readers add it to columns, and want it as one.
        small.push((part(a, b, ".bias"), vec![width, 1]));
    }
    let mut matrices = Vec::new();
    let square = Some([width, width]);
    let inner = config.encoder.intermediate_size;
    for layer in 0..config.encoder.n_layers {
        let shapes = [None, square, square, square, square, None, Some([inner, width]), Some([width, inner])];
        for (i, shape) in shapes.into_iter().enumerate() {
            let (a, b) = (
                format!("{}.{layer}.{}", hf.layers, hf.inner[i]),
                format!("{}.{layer}.{}", gguf.layers, gguf.inner[i]),
            );
            match shape {
                Some(shape) => matrices.push((part(&a, &b, ".weight"), shape.to_vec())),
                None => small.push((part(&a, &b, ".weight"), vec![width])),
            }
            // Keys have no bias.
            if i != 2 {
                small.push((part(&a, &b, ".bias"), vec![shape.map_or(width, |[n_out, _]| n_out)]));
            }
        }
    }
    let shape = &config.projector;
    let part = |a: &str, b: &str, part: &str| [format!("{projector}{a}{part}"), format!("{to_projector}{b}{part}")];
    let (stacked, inner) = (shape.stack * width, shape.inner_size());
    let norms = [(shape.ln_pre, stacked), (shape.ln_mid, inner), (shape.ln_post, text)];
    for (i, (_, len)) in norms.into_iter().enumerate().filter(|(_, (there, _))| *there) {
        small.push((part(hf.norms[i], gguf.norms[i], ".weight"), vec![len]));
    }
    for (i, [n_out, n_in]) in [[shape.hidden_size, stacked], [text, inner]].into_iter().enumerate() {
        matrices.push((part(hf.maps[i], gguf.maps[i], ".weight"), vec![n_out, n_in]));
        if shape.bias {
            small.push((part(hf.maps[i], gguf.maps[i], ".bias"), vec![n_out]));
        }
    }
    towers(checkpoint, recipe, (small, matrices))
}
