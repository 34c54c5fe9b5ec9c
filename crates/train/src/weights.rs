//! A model's weights in memory of our own, to be changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use formats::{Checkpoint, DType, Lora, LowRank, Tensor, half_name};
use llama::{Blank, blanks, sinusoids};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tensor::{Bytes, Format, math};

use crate::TrainError;
use crate::optim;

/// Standard deviation of fresh embeddings.
const EMBEDDING: f32 = 0.1;

/// Standard deviation of one output of a fresh map for inputs of 1.
const GAIN: f32 = 0.5;

/// What is trained, in f32: all tensors of a model, or those of an adapter beside a model that stays as it is stored.
#[derive(Debug, Clone)]
pub struct Weights {
    /// The model's config and neighbours. Its own tensors are looked at only beside an adapter.
    template: Checkpoint,
    tensors: BTreeMap<String, Weight>,
    /// Of an adapter, each map's rank and scale by its module.
    scales: Option<BTreeMap<String, (usize, f32)>>,
}

#[derive(Debug, Clone)]
struct Weight {
    shape: Vec<usize>,
    values: Arc<Vec<f32>>,
}

impl Weight {
    /// The tensor `name`, without a copy.
    fn tensor(&self, name: &str) -> Tensor {
        let (shape, bytes) = (self.shape.clone(), Bytes::new(Shared(Arc::clone(&self.values))));
        Tensor { name: name.into(), dtype: DType::Weight(Format::F32), shape, bytes }
    }
}

/// The numbers of `tensors` in f32.
fn decoded<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Result<BTreeMap<String, Weight>, TrainError> {
    let decode = |tensor: &Tensor| {
        let DType::Weight(format) = tensor.dtype else {
            let why = format!("is stored as {}, which can not be trained", tensor.dtype.name());
            return Err(TrainError::Weights { name: tensor.name.clone(), why });
        };
        let mut values = vec![0.0; tensor.n_values()];
        format.decode(&tensor.bytes, &mut values);
        Ok((tensor.name.clone(), Weight { shape: tensor.shape.clone(), values: Arc::new(values) }))
    };
    tensors.map(decode).collect()
}

/// Values that a device reads as bytes.
struct Shared(Arc<Vec<f32>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Weights {
    /// Fresh weights for the model that `template` describes. The same seed gives the same bits everywhere.
    ///
    /// Norms are 1 and biases 0. Maps are normal with standard deviation 0.5 · inputs^−½; those whose outputs are added
    /// to the residual stream, times (2 · layers)^−½ (GPT-2). Embeddings have 0.1. An audio encoder's positions are
    /// Whisper's sinusoids.
    ///
    /// # Errors
    /// [`TrainError::Model`] if the config's sizes overflow.
    pub fn fresh(template: Checkpoint, seed: u64) -> Result<Self, TrainError> {
        let n_layers = template.config.text.layers.len();
        let blanks = blanks(&template.config)?;
        let fill = |(stream, blank): (u64, Blank)| {
            let weight = Weight { values: Arc::new(fresh(&blank, n_layers, (seed, stream))), shape: blank.shape };
            (blank.name, weight)
        };
        Ok(Self { template, tensors: (0..).zip(blanks).map(fill).collect(), scales: None })
    }

    /// The weights of `checkpoint`, in f32.
    ///
    /// # Errors
    /// [`TrainError::Weights`] for a tensor that is no plain weight, such as one of a packed file.
    pub fn of(checkpoint: Checkpoint) -> Result<Self, TrainError> {
        let tensors = decoded(checkpoint.tensors.values())?;
        Ok(Self { template: checkpoint, tensors, scales: None })
    }

    /// The numbers of `lora`, in f32, beside the weights of `base`, which stay in their files in whatever format they are.
    ///
    /// # Errors
    /// [`TrainError::Weights`] for a tensor of the model that no adjoint can be taken of: those of packed files.
    pub fn beside(base: Checkpoint, lora: &Lora) -> Result<Self, TrainError> {
        if let Some(packed) = base.tensors.values().find(|tensor| matches!(tensor.dtype, DType::Packed(_))) {
            let why = "is packed for one machine's kernels; train beside the GGUF file that it was made of";
            return Err(TrainError::Weights { name: packed.name.clone(), why: why.into() });
        }
        let tensors = decoded(lora.maps.values().flat_map(|map| [&map.a, &map.b]))?;
        let scales = lora.maps.iter().map(|(module, map)| (module.clone(), (map.rank, map.scale))).collect();
        Ok(Self { template: base, tensors, scales: Some(scales) })
    }

    /// The adapter as it is now, without a copy, as [`checkpoint`](Self::checkpoint); `None` if a whole model is trained.
    pub fn lora(&self) -> Option<Lora> {
        let half = |module: &str, half: char| {
            let name = half_name(module, half);
            self.tensors.get(&name).map(|weight| weight.tensor(&name))
        };
        let map = |(module, (rank, scale)): (&String, &(usize, f32))| {
            let (a, b) = half(module, 'A').zip(half(module, 'B'))?;
            Some((module.clone(), LowRank { rank: *rank, scale: *scale, a, b }))
        };
        let scales = self.scales.as_ref()?;
        Some(Lora { path: self.template.path.clone(), maps: scales.iter().filter_map(map).collect() })
    }

    /// The model beside which an adapter is trained.
    pub(crate) fn base(&self) -> &Checkpoint {
        &self.template
    }

    /// The model as it is now, without a copy: as long as it or what was loaded from it lives, the next
    /// [step](Self::parameters) copies what it changes.
    pub fn checkpoint(&self) -> Checkpoint {
        let tensor = |(name, weight): (&String, &Weight)| (name.clone(), weight.tensor(name));
        Checkpoint { tensors: self.tensors.iter().map(tensor).collect(), ..self.template.clone() }
    }

    /// Names, shapes and values of all tensors, in order of name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.tensors.iter().map(|(name, weight)| (name.as_str(), weight.shape.as_slice(), weight.values.as_slice()))
    }

    /// Replaces the values of the tensor `name`.
    ///
    /// # Errors
    /// [`TrainError::Weights`] if there is none of that name and length.
    pub fn set(&mut self, name: &str, values: Vec<f32>) -> Result<(), TrainError> {
        match self.tensors.get_mut(name) {
            Some(weight) if weight.values.len() == values.len() => {
                weight.values = Arc::new(values);
                Ok(())
            }
            _ => {
                let why = format!("is not of the model, or not {} values long", values.len());
                Err(TrainError::Weights { name: name.into(), why })
            }
        }
    }

    /// Numbers in all tensors.
    pub fn n_values(&self) -> usize {
        self.tensors.values().map(|weight| weight.values.len()).sum()
    }

    /// The tensors that have a gradient, for an optimiser to change.
    pub fn parameters<'a>(&'a mut self, gradients: &'a BTreeMap<String, Vec<f32>>) -> Vec<optim::Parameter<'a>> {
        let with_gradient = self.tensors.iter_mut().filter_map(|(name, weight)| {
            let gradient = gradients.get(name)?;
            let Weight { shape, values } = weight;
            let weights = optim::Weights::F32(Arc::make_mut(values).as_mut_slice());
            Some(optim::Parameter { name, shape, weights, gradient })
        });
        with_gradient.collect()
    }
}

/// The first values of `blank`.
fn fresh(blank: &Blank, n_layers: usize, (seed, stream): (u64, u64)) -> Vec<f32> {
    let n: usize = blank.shape.iter().product();
    let name = blank.name.as_str();
    if name.contains("embed_positions") {
        return sinusoids(blank.shape[0], blank.shape[1]);
    }
    let is_vector = blank.shape.len() == 1;
    if is_vector && !name.ends_with("class_embedding") {
        let value = if name.ends_with(".bias") { 0.0 } else { 1.0 };
        return vec![value; n];
    }
    let onto_residual = ["o_proj.", "out_proj.", "down_proj", "fc2."].iter().any(|part| name.contains(part));
    let residual = if onto_residual { (2.0 * n_layers.max(1) as f32).sqrt().recip() } else { 1.0 };
    // Patches are mapped like anything else.
    let deviation = match name.contains("embed") && !name.contains("patch_embedding") {
        true => EMBEDDING,
        false => residual * GAIN / (blank.n_in as f32).sqrt(),
    };
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    draw.set_stream(stream);
    normals(&mut draw, n).map(|x| x * deviation).collect()
}

/// `n` standard normal numbers (Box and Muller), by our own logarithm and sine.
fn normals(draw: &mut ChaCha8Rng, n: usize) -> impl Iterator<Item = f32> {
    let mut uniform = move || (f64::from(draw.next_u32()) + 0.5) / 4_294_967_296.0;
    let pairs = (0..n.div_ceil(2)).map(move |_| {
        let radius = (-2.0 * math::ln(uniform())).sqrt();
        let (sin, cos) = math::sin_cos(std::f64::consts::TAU * uniform());
        [radius as f32 * cos, radius as f32 * sin]
    });
    pairs.flatten().take(n)
}
