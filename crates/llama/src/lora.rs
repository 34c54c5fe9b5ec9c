//! LoRA: what an adapter adds beside a layer's maps, y += scale · ((x · Aᵀ) · Bᵀ).
//!
//! The maps themselves stay as they are, in whatever format they are stored: nothing is merged, so quantised weights are
//! not rounded again and a layer without additions computes what it computed before, to the bit.

use std::collections::BTreeMap;

use formats::config::{Architecture, Ffn, LayerConfig, ModelConfig, TextConfig};
use formats::{Checkpoint, DType, Lora, Tensor};
use tensor::{Bytes, Device, Format, OpError, Orientation, Origin, Pairing, WeightSource};

use crate::export::stored_at;
use crate::load::weight_name;
use crate::names::{Inner, Names};
use crate::{LlamaError, Model};

/// A map of a layer that something can be added to. The feed-forward is the dense one, or the shared expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

const PLACES: [Place; 7] = [Place::Q, Place::K, Place::V, Place::O, Place::Gate, Place::Up, Place::Down];

/// What stands before a layer's number: text-only models, Llama 4 with a vision tower, and the same as newer libraries
/// nest it.
const PREFIXES: [&str; 3] = ["model.layers.", "language_model.model.layers.", "model.language_model.layers."];

/// What is added to one map.
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

    /// Takes everything away.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Shows `see` both maps of every addition.
    pub(crate) fn visit(&self, see: &mut dyn FnMut(&D::Matrix)) {
        for LowRank { a, b, .. } in self.0.values() {
            see(a);
            see(b);
        }
    }
}

impl<D: Device> Model<D> {
    /// Adds `lora` beside the decoder's maps, for all that is computed from now on. `config` is the one that the model
    /// was loaded by.
    ///
    /// # Errors
    /// [`LlamaError::Lora`], which names the tensor, if it belongs to no map that can be adapted (routed experts, the
    /// router, embeddings, the output map and the vision tower can not), to a layer that is not there, or has another
    /// shape than the map; what was added before it stays. [`LlamaError::Op`] if `dev` refuses it.
    pub fn adapt(&mut self, dev: &D, config: &ModelConfig, lora: &Lora) -> Result<(), LlamaError> {
        let text = &config.text;
        for (module, map) in &lora.maps {
            let wrong = |why| LlamaError::Lora { name: map.a.name.clone(), why };
            let (layer, place) = find(module, config).map_err(wrong)?;
            let [n_out, n_in] = shape(text, &text.layers[layer], place);
            let a = source(&map.a, map.a.bytes.clone(), [map.rank, n_in])?.named(&map.a.name);
            check(&map.b, [n_out, map.rank])?;
            let b = match place {
                Place::Q | Place::K if is_reordered(config) => in_pairs(&map.b, [n_out, map.rank], text.head_len / 2)?,
                _ => source(&map.b, map.b.bytes.clone(), [n_out, map.rank])?.named(&map.b.name),
            };
            let low_rank = LowRank { a: dev.matrix(&[a])?, b: dev.matrix(&[b])?, scale: map.scale };
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
    /// The path of its module in a Hugging Face model, such as `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// Numbers that come out.
    pub n_out: usize,
    /// Numbers that go in.
    pub n_in: usize,
}

/// All maps of a model of this config that [`Model::adapt`] can add to, layer by layer: those of attention, of dense
/// feed-forwards and of shared experts.
pub fn adaptable(config: &ModelConfig) -> Vec<Adaptable> {
    let (text, names) = (&config.text, Names::of(config.architecture, false));
    let of_layer = |(i, layer): (usize, &LayerConfig)| {
        PLACES.map(|place| {
            let [n_out, n_in] = shape(text, layer, place);
            Adaptable { module: names.inner(i, weight(place, layer)), n_out, n_in }
        })
    };
    text.layers.iter().enumerate().flat_map(of_layer).collect()
}

/// The weights of `checkpoint` that `lora` adapts, with what it adds: W + scale · B · A, in f32, under their own names.
///
/// # Errors
/// As [`Model::adapt`]; [`LlamaError::Missing`] or [`LlamaError::Weight`] if the checkpoint does not hold a weight, or not
/// as plain numbers.
pub fn merged(checkpoint: &Checkpoint, lora: &Lora) -> Result<Vec<Tensor>, LlamaError> {
    let (config, names) = (&checkpoint.config, Names::of_files(checkpoint.config.architecture, checkpoint));
    let merge = |(module, map): (&String, &formats::LowRank)| {
        let wrong = |why| LlamaError::Lora { name: map.a.name.clone(), why };
        let (layer, place) = find(module, config).map_err(wrong)?;
        let layer_config = &config.text.layers[layer];
        let [n_out, n_in] = shape(&config.text, layer_config, place);
        let a = source(&map.a, map.a.bytes.clone(), [map.rank, n_in])?;
        check(&map.b, [n_out, map.rank])?;
        let b = match place {
            Place::Q | Place::K if is_reordered(config) => {
                in_pairs(&map.b, [n_out, map.rank], config.text.head_len / 2)?
            }
            _ => source(&map.b, map.b.bytes.clone(), [n_out, map.rank])?,
        };
        let name = weight_name(names, layer, weight(place, layer_config));
        let tensor = checkpoint.tensors.get(&name).ok_or_else(|| LlamaError::Missing { name: name.clone() })?;
        let DType::Weight(format) = tensor.dtype else {
            let why = format!("is stored as {}; an adapter is merged into plain numbers", tensor.dtype.name());
            return Err(LlamaError::Weight { name, why });
        };
        if tensor.n_values() != n_out * n_in {
            let why = format!("has the shape {:?}; the config asks for {:?}", tensor.shape, [n_out, n_in]);
            return Err(LlamaError::Weight { name, why });
        }
        let mut values = vec![0.0; n_out * n_in];
        format.decode(&tensor.bytes, &mut values);
        add_product(&mut values, [&a, &b], map.scale)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let dtype = DType::Weight(Format::F32);
        Ok(Tensor { name, dtype, shape: tensor.shape.clone(), bytes: bytes.into() })
    };
    lora.maps.iter().map(merge).collect()
}

/// Adds scale · B · A to the rows of `values`. Each sum is of f32 products in f64, and is rounded once.
fn add_product(values: &mut [f32], [a, b]: [&WeightSource; 2], scale: f32) -> Result<(), OpError> {
    let [_, rank, n_in] = a.shape();
    let mut a_values = vec![0.0f32; rank * n_in];
    for (row, out) in a_values.chunks_exact_mut(n_in.max(1)).enumerate() {
        a.decode_row(0, row, out)?;
    }
    let (mut b_row, mut sums) = (vec![0.0f32; rank], vec![0.0f64; n_in]);
    for (row, values) in values.chunks_exact_mut(n_in.max(1)).enumerate() {
        b.decode_row(0, row, &mut b_row)?;
        sums.fill(0.0);
        for (b, a) in b_row.iter().zip(a_values.chunks_exact(n_in.max(1))) {
            sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += f64::from(*b) * f64::from(*a));
        }
        for (value, sum) in values.iter_mut().zip(&sums) {
            *value = (f64::from(*value) + f64::from(scale) * sum) as f32;
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
    let known = PLACES.map(|place| {
        let whole = names.inner(layer, weight(place, layer_config));
        whole.split_once(&format!(".{layer}.")).map_or_else(String::new, |(_, name)| name.to_owned())
    });
    if let Some((place, _)) = PLACES.iter().zip(&known).find(|(_, known)| *known == name) {
        return Ok((layer, *place));
    }
    if name.contains("experts") {
        let why = "adapts routed experts, which is not supported; train with target_modules that leave \
                   feed_forward.experts out";
        return Err(why.into());
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
    }
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
