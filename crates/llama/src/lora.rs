//! LoRA: what an adapter adds beside a layer's maps, y += scale · ((x · Aᵀ) · Bᵀ).
//!
//! The maps themselves stay as they are, in whatever format they are stored: nothing is merged, so quantised weights are
//! not rounded again and a layer without additions computes what it computed before, to the bit.

use std::collections::BTreeMap;
use std::ops::Range;

use formats::config::{Architecture, Ffn, LayerConfig, ModelConfig, TextConfig};
use formats::{Checkpoint, DType, Lora, Tensor};
use tensor::{Bytes, Device, Format, OpError, Orientation, Origin, Pairing, WeightSource};

use crate::export::stored_at;
use crate::load::weight_name;
use crate::names::{Inner, Names};
use crate::{LlamaError, Model};

/// A map of a layer that something can be added to. The feed-forward is the dense one, or the shared expert; the last two
/// are all routed experts' at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
    ExpertsGateUp,
    ExpertsDown,
}

const PLACES: [Place; 7] = [Place::Q, Place::K, Place::V, Place::O, Place::Gate, Place::Up, Place::Down];

/// Those of layers with experts only.
const ROUTED: [Place; 2] = [Place::ExpertsGateUp, Place::ExpertsDown];

/// What stands before a layer's number: text-only models, Llama 4 with a vision tower, and the same as newer libraries
/// nest it.
const PREFIXES: [&str; 3] = ["model.layers.", "language_model.model.layers.", "model.language_model.layers."];

/// What is added to one map, or to one of each routed expert.
pub(crate) struct LowRank<D: Device> {
    a: D::Matrix,
    b: D::Matrix,
    scale: f32,
}

/// What is added to the maps of one layer.
pub(crate) struct Additions<D: Device>(BTreeMap<Place, LowRank<D>>);

impl<D: Device> Default for Additions<D> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<D: Device> Additions<D> {
    /// Whether something is added at `place`.
    pub(crate) fn has(&self, place: Place) -> bool {
        self.0.contains_key(&place)
    }

    /// Takes `low_rank` for `place`, unless there is something already; whether it did.
    pub(crate) fn insert(&mut self, place: Place, low_rank: LowRank<D>) -> bool {
        !self.has(place) && self.0.insert(place, low_rank).is_none()
    }

    /// `onto`, which the map at `place` gave for `x`, with what is added there.
    pub(crate) fn add(&self, dev: &D, place: Place, onto: D::Tensor, x: &D::Tensor) -> Result<D::Tensor, OpError> {
        let Some(LowRank { a, b, scale }) = self.0.get(&place) else { return Ok(onto) };
        let inner = dev.linear(a, None, x)?;
        let n_rows = dev.shape(&inner)[0];
        dev.linear_onto(onto, b, None, &dev.scale_rows(&inner, &vec![*scale; n_rows])?)
    }

    /// The same for rows that went to experts.
    pub(crate) fn add_routed(
        &self,
        dev: &D,
        place: Place,
        onto: D::Tensor,
        x: &D::Tensor,
        routing: &D::Routing,
    ) -> Result<D::Tensor, OpError> {
        let Some(LowRank { a, b, scale }) = self.0.get(&place) else { return Ok(onto) };
        let inner = dev.experts(a, x, routing)?;
        let n_rows = dev.shape(&inner)[0];
        dev.add(&onto, &dev.experts(b, &dev.scale_rows(&inner, &vec![*scale; n_rows])?, routing)?)
    }

    /// Takes everything away.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Shows `see` both maps of every addition.
    pub(crate) fn visit(&self, see: &mut dyn FnMut(Place, &D::Matrix)) {
        for (place, LowRank { a, b, .. }) in &self.0 {
            see(*place, a);
            see(*place, b);
        }
    }
}

impl<D: Device> Model<D> {
    /// Adds `lora` beside the decoder's maps, for all that is computed from now on. `config` is the one that the model
    /// was loaded by.
    ///
    /// # Errors
    /// [`LlamaError::Lora`], which names the tensor, if it belongs to no map that can be adapted (the router, embeddings,
    /// the output map and the towers can not), to a layer that is not there, or has another shape than the map; what was
    /// added before it stays. [`LlamaError::Op`] if `dev` refuses it.
    pub fn adapt(&mut self, dev: &D, config: &ModelConfig, lora: &Lora) -> Result<(), LlamaError> {
        for (module, map) in &lora.maps {
            let wrong = |why| LlamaError::Lora { name: map.a.name.clone(), why };
            let (layer, place) = find(module, config).map_err(wrong)?;
            let [first, second] = sources(config, (layer, place), map)?;
            let low_rank = LowRank { a: dev.matrix(&[first])?, b: dev.matrix(&[second])?, scale: map.scale };
            if !self.decoder.adapt(layer, place, low_rank) {
                return Err(wrong("adapts a map that another tensor of the file adapts under another name".into()));
            }
        }
        Ok(())
    }

    /// Takes away all that was added.
    pub fn unadapt(&mut self) {
        self.decoder.unadapt();
    }
}

/// A map of the decoder that something can be added to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adaptable {
    /// The path of its module in a Hugging Face model, such as `model.layers.0.self_attn.q_proj`; of routed experts, that of
    /// the parameter, such as `model.layers.0.feed_forward.experts.down_proj`.
    pub module: String,
    /// Numbers that come out.
    pub n_out: usize,
    /// Numbers that go in.
    pub n_in: usize,
    /// Experts, each of which has a map of its own, where they are routed to.
    pub n_experts: Option<usize>,
}

/// All maps of a model of this config that [`Model::adapt`] can add to, layer by layer: those of attention, of dense
/// feed-forwards, of shared and of routed experts.
pub fn adaptable(config: &ModelConfig) -> Vec<Adaptable> {
    let (text, names) = (&config.text, Names::of(config.architecture, false));
    let of_layer = |(i, layer): (usize, &LayerConfig)| {
        let n_experts = match layer.ffn {
            Ffn::Moe { n_experts, .. } => Some(n_experts),
            Ffn::Dense { .. } => None,
        };
        let plain = PLACES.iter().map(|place| (*place, None));
        let routed = ROUTED.iter().filter_map(|place| Some((*place, Some(n_experts?))));
        let map = |(place, n_experts)| {
            let [n_out, n_in] = shape(text, layer, place);
            Adaptable { module: names.inner(i, weight(place, layer)), n_out, n_in, n_experts }
        };
        plain.chain(routed).map(map).collect::<Vec<_>>()
    };
    text.layers.iter().enumerate().flat_map(of_layer).collect()
}

/// The weights of `checkpoint` that `lora` adapts, with what it adds: W + scale · B · A, in f32, under their own names.
///
/// # Errors
/// As [`Model::adapt`]; [`LlamaError::Missing`] or [`LlamaError::Weight`] if the checkpoint does not hold a weight, or not
/// as plain numbers.
pub fn merged(checkpoint: &Checkpoint, lora: &Lora) -> Result<Vec<Tensor>, LlamaError> {
    let mut all = Vec::new();
    for (module, map) in &lora.maps {
        let wrong = |why| LlamaError::Lora { name: map.a.name.clone(), why };
        let (layer, place) = find(module, &checkpoint.config).map_err(wrong)?;
        let halves = sources(&checkpoint.config, (layer, place), map)?;
        for (name, outputs) in stored(checkpoint, (layer, place), halves[1].shape()[1]) {
            all.push(with_product(checkpoint, &name, (&halves, outputs), (place, map.scale))?);
        }
    }
    Ok(all)
}

/// The tensors that hold a map of `n_out` outputs, and which of them each holds.
fn stored(checkpoint: &Checkpoint, (layer, place): (usize, Place), n_out: usize) -> Vec<(String, Range<usize>)> {
    let config = &checkpoint.config;
    let names = Names::of_files(config.architecture, checkpoint);
    let name = |weight| weight_name(names, layer, weight);
    let whole = name(weight(place, &config.text.layers[layer]));
    if place == Place::ExpertsGateUp && !checkpoint.tensors.contains_key(&whole) {
        return vec![(name(Inner::ExpertsGate), 0..n_out / 2), (name(Inner::ExpertsUp), n_out / 2..n_out)];
    }
    vec![(whole, 0..n_out)]
}

/// The tensor `name`, which holds some outputs of a map, with what is added to them.
fn with_product(
    checkpoint: &Checkpoint,
    name: &str,
    (halves, outputs): (&[WeightSource; 2], Range<usize>),
    (place, scale): (Place, f32),
) -> Result<Tensor, LlamaError> {
    let tensor = checkpoint.tensors.get(name).ok_or_else(|| LlamaError::Missing { name: name.into() })?;
    let DType::Weight(format) = tensor.dtype else {
        let why = format!("is stored as {}; an adapter is merged into plain numbers", tensor.dtype.name());
        return Err(LlamaError::Weight { name: name.into(), why });
    };
    let [n_experts, _, n_in] = halves[0].shape();
    let of_expert = outputs.len() * n_in;
    if tensor.n_values() != n_experts * of_expert {
        let wanted = [n_experts, outputs.len(), n_in];
        let why = format!("has the shape {:?}; the config asks for {wanted:?}", tensor.shape);
        return Err(LlamaError::Weight { name: name.into(), why });
    }
    // Published folders have experts input by output.
    let is_turned = ROUTED.contains(&place) && !checkpoint.is_gguf();
    let mut values = vec![0.0; n_experts * of_expert];
    format.decode(&tensor.bytes, &mut values);
    for (expert, values) in values.chunks_exact_mut(of_expert.max(1)).enumerate() {
        add_product(values, halves, (expert, outputs.clone(), is_turned), scale)?;
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let dtype = DType::Weight(Format::F32);
    Ok(Tensor { name: name.into(), dtype, shape: tensor.shape.clone(), bytes: bytes.into() })
}

/// Adds scale times the product of the halves to `values`, some outputs of one expert, or of the one map that there is.
/// Each sum is of f32 products in f64, and is rounded once.
fn add_product(
    values: &mut [f32],
    [first, second]: &[WeightSource; 2],
    (expert, outputs, is_turned): (usize, Range<usize>, bool),
    scale: f32,
) -> Result<(), OpError> {
    let [_, rank, n_in] = first.shape();
    let mut inner = vec![0.0f32; rank * n_in];
    for (row, out) in inner.chunks_exact_mut(n_in.max(1)).enumerate() {
        first.decode_row(expert, row, out)?;
    }
    let (n_out, begin) = (outputs.len(), outputs.start);
    let (mut factors, mut sums) = (vec![0.0f32; rank], vec![0.0f64; n_in]);
    for output in outputs {
        second.decode_row(expert, output, &mut factors)?;
        sums.fill(0.0);
        for (factor, inner) in factors.iter().zip(inner.chunks_exact(n_in.max(1))) {
            sums.iter_mut().zip(inner).for_each(|(sum, x)| *sum += f64::from(*factor) * f64::from(*x));
        }
        for (i, sum) in sums.iter().enumerate() {
            let at = if is_turned { i * n_out + output - begin } else { (output - begin) * n_in + i };
            values[at] = (f64::from(values[at]) + f64::from(scale) * sum) as f32;
        }
    }
    Ok(())
}

/// The layer and the map that the module of an adapter is.
fn find(module: &str, config: &ModelConfig) -> Result<(usize, Place), String> {
    let rest = PREFIXES.iter().find_map(|prefix| module.strip_prefix(prefix));
    let parts = rest.and_then(|rest| rest.split_once('.'));
    let Some((layer, name)) = parts.and_then(|(number, name)| Some((number.parse::<usize>().ok()?, name))) else {
        let why = "adapts no map of the decoder's layers, and only those are supported; train with target_modules that \
                   leave the rest out";
        return Err(why.into());
    };
    let Some(layer_config) = config.text.layers.get(layer) else {
        let n_layers = config.text.layers.len();
        return Err(format!("is for layer {layer}; the model has {n_layers} layers, counted from 0"));
    };
    let names = Names::of(config.architecture, false);
    let routed: &[Place] = if matches!(layer_config.ffn, Ffn::Moe { .. }) { &ROUTED } else { &[] };
    let places = || PLACES.iter().chain(routed);
    let known: Vec<String> = places()
        .map(|place| {
            let whole = names.inner(layer, weight(*place, layer_config));
            whole.split_once(&format!(".{layer}.")).map_or_else(String::new, |(_, name)| name.to_owned())
        })
        .collect();
    if let Some((place, _)) = places().zip(&known).find(|(_, known)| *known == name) {
        return Ok((layer, *place));
    }
    Err(format!("adapts none of the maps of layer {layer} that can be: {}", known.join(", ")))
}

/// The weight at `place` in a layer of that kind.
fn weight(place: Place, layer: &LayerConfig) -> Inner {
    let is_moe = matches!(layer.ffn, Ffn::Moe { .. });
    match (place, is_moe) {
        (Place::Q, _) => Inner::Q,
        (Place::K, _) => Inner::K,
        (Place::V, _) => Inner::V,
        (Place::O, _) => Inner::O,
        (Place::Gate, false) => Inner::Gate,
        (Place::Up, false) => Inner::Up,
        (Place::Down, false) => Inner::Down,
        (Place::Gate, true) => Inner::SharedGate,
        (Place::Up, true) => Inner::SharedUp,
        (Place::Down, true) => Inner::SharedDown,
        (Place::ExpertsGateUp, _) => Inner::ExpertsGateUp,
        (Place::ExpertsDown, _) => Inner::ExpertsDown,
    }
}

/// Outputs and inputs of the map at `place`.
fn shape(text: &TextConfig, layer: &LayerConfig, place: Place) -> [usize; 2] {
    let width = text.hidden_size;
    let (Ffn::Dense { width: ffn } | Ffn::Moe { shared_width: ffn, .. }) = layer.ffn;
    match place {
        Place::Q => [text.n_heads * text.head_len, width],
        Place::K | Place::V => [text.n_kv_heads * text.head_len, width],
        Place::O => [width, text.n_heads * text.head_len],
        Place::Gate | Place::Up => [ffn, width],
        Place::Down => [width, ffn],
        Place::ExpertsGateUp => [2 * expert_width(layer), width],
        Place::ExpertsDown => [width, expert_width(layer)],
    }
}

/// Width of a routed expert; 0 where there is none.
fn expert_width(layer: &LayerConfig) -> usize {
    match layer.ffn {
        Ffn::Moe { width, .. } => width,
        Ffn::Dense { .. } => 0,
    }
}

/// The map that rows go through first, and the second one, of what `map` adds at `place`; of each expert where they are
/// routed to. Those two halves lie the other way about: [`formats::LowRank`].
fn sources(
    config: &ModelConfig,
    (layer, place): (usize, Place),
    map: &formats::LowRank,
) -> Result<[WeightSource; 2], LlamaError> {
    let text = &config.text;
    let formats::LowRank { rank, a, b, .. } = map;
    let [n_out, n_in] = shape(text, &text.layers[layer], place);
    if let (Ffn::Moe { n_experts, .. }, true) = (&text.layers[layer].ffn, ROUTED.contains(&place)) {
        let half = |half: &Tensor, orientation, [n_out, n_in]: [usize; 2], n_columns| {
            let format = check(half, [n_experts * rank, n_columns])?;
            let source = WeightSource::new(half.bytes.clone(), format, orientation, [*n_experts, n_out, n_in])?;
            Ok::<_, LlamaError>(source.named(&half.name))
        };
        let first = half(b, Orientation::OutIn, [*rank, n_in], n_in)?;
        return Ok([first, half(a, Orientation::InOut, [n_out, *rank], n_out)?]);
    }
    let first = source(a, a.bytes.clone(), [*rank, n_in])?.named(&a.name);
    check(b, [n_out, *rank])?;
    let second = match place {
        Place::Q | Place::K if is_reordered(config) => in_pairs(b, [n_out, *rank], text.head_len / 2)?,
        _ => source(b, b.bytes.clone(), [n_out, *rank])?.named(&b.name),
    };
    Ok([first, second])
}

/// Whether the rows of q and k lie otherwise in the model's files than where the adapter was trained. Adapters come from
/// Hugging Face's layout, in which dense models of the family turn component m with m + C/2; who writes such a model as
/// GGUF puts the two side by side. Llama 4's components lie side by side everywhere.
fn is_reordered(config: &ModelConfig) -> bool {
    config.architecture == Architecture::Llama && config.text.pairing == Pairing::Interleaved
}

/// The rows of `b` in (pair, member) order.
fn in_pairs(b: &Tensor, [n_out, rank]: [usize; 2], half: usize) -> Result<WeightSource, LlamaError> {
    // The shape was checked: whole heads of rows of equal length.
    let row_bytes = b.bytes.len() / n_out.max(1);
    let outputs: Vec<usize> = (0..n_out).map(|row| stored_at(row, half)).collect();
    let rows = outputs.iter().map(|row| &b.bytes[row * row_bytes..(row + 1) * row_bytes]);
    let bytes = rows.flatten().copied().collect::<Vec<u8>>().into();
    let origin = Origin { name: b.name.clone(), outputs: Some(outputs), inputs: None };
    Ok(source(b, bytes, [n_out, rank])?.with_origin(origin))
}

/// The rows of half an adapter, whose numbers are `bytes`.
fn source(half: &Tensor, bytes: Bytes, [n_out, n_in]: [usize; 2]) -> Result<WeightSource, LlamaError> {
    let format = check(half, [n_out, n_in])?;
    Ok(WeightSource::new(bytes, format, Orientation::OutIn, [1, n_out, n_in])?)
}

/// The format of half an adapter of the shape `wanted`.
fn check(half: &Tensor, wanted: [usize; 2]) -> Result<tensor::Format, LlamaError> {
    let wrong = |why: String| LlamaError::Lora { name: half.name.clone(), why };
    if half.shape != wanted {
        return Err(wrong(format!("has the shape {:?}; the model asks for {wanted:?}", half.shape)));
    }
    match half.dtype {
        DType::Weight(format) => Ok(format),
        other => Err(wrong(format!("is stored as {}, not as numbers that a weight can be", other.name()))),
    }
}
