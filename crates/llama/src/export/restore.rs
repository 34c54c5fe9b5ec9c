//! The way back: from an exported file to the tensors of the folder that it was made of.

use std::collections::BTreeMap;

use formats::{Checkpoint, DType, Tensor};
use tensor::Format;

use super::{Export, ExportTensor, Recipe};
use crate::LlamaError;

/// Whole numbers up to this one are exact in f32.
const EXACT: usize = 1 << 24;

/// All tensors of the folder `template`, in f32, with the values that the GGUF files `exported` have for them.
///
/// Where a value went is found out by exporting numbers instead of weights, so this is right for whatever order
/// [`Export`] writes. The values of `template` do not matter.
///
/// # Errors
/// [`LlamaError::Missing`] or [`LlamaError::Weight`] if the files are of another model; as [`Export::model`] for one that
/// has no such files.
pub fn restored(template: &Checkpoint, exported: &Checkpoint) -> Result<BTreeMap<String, Vec<f32>>, LlamaError> {
    let names: Vec<&str> = template.tensors.keys().map(String::as_str).collect();
    if let Some(tensor) = template.tensors.values().find(|tensor| tensor.n_values() > EXACT) {
        let why = format!("has more than {EXACT} values, too many to be found again");
        return Err(LlamaError::Weight { name: tensor.name.clone(), why });
    }
    // Below 0, as nothing is that is no weight, such as factors of frequencies.
    let owners = export(&numbered(template, |tensor, _| -1.0 - tensor as f32))?;
    let places = export(&numbered(template, |_, place| place as f32))?;
    let projector = exported.projector.iter().flat_map(|file| &file.tensors);
    let stored: BTreeMap<&str, &Tensor> =
        exported.tensors.values().chain(projector).map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let sizes = template.tensors.values().map(|tensor| vec![f32::NAN; tensor.n_values()]);
    let mut restored: Vec<Vec<f32>> = sizes.collect();
    for (owners, places) in owners.iter().zip(&places) {
        let name = || owners.name.clone();
        let tensor = stored.get(owners.name.as_str()).ok_or_else(|| LlamaError::Missing { name: name() })?;
        let DType::Weight(format) = tensor.dtype else {
            let why = format!("is stored as {}, which is no weight", tensor.dtype.name());
            return Err(LlamaError::Weight { name: name(), why });
        };
        if tensor.shape != owners.shape {
            let why = format!("is {:?} in the file and {:?} in the model", tensor.shape, owners.shape);
            return Err(LlamaError::Weight { name: name(), why });
        }
        let mut values = vec![0.0; tensor.n_values()];
        format.decode(&tensor.bytes, &mut values);
        for ((value, owner), place) in values.into_iter().zip(numbers(owners)).zip(numbers(places)) {
            if owner < 0.0
                && let Some(at) =
                    restored.get_mut((-1.0 - owner) as usize).and_then(|values| values.get_mut(place as usize))
            {
                *at = value;
            }
        }
    }
    let named = names.iter().zip(restored).map(|(name, values)| match values.iter().any(|value| value.is_nan()) {
        true => Err(LlamaError::Missing { name: (*name).to_owned() }),
        false => Ok(((*name).to_owned(), values)),
    });
    named.collect()
}

/// `template` with `number` of a tensor's and a value's place instead of each value.
fn numbered(template: &Checkpoint, number: impl Fn(usize, usize) -> f32) -> Checkpoint {
    let tensors = template.tensors.iter().enumerate().map(|(i, (name, tensor))| {
        let bytes: Vec<u8> = (0..tensor.n_values()).flat_map(|place| number(i, place).to_le_bytes()).collect();
        let (dtype, bytes) = (DType::Weight(Format::F32), bytes.into());
        (name.clone(), Tensor { dtype, bytes, ..tensor.clone() })
    });
    Checkpoint { tensors: tensors.collect(), ..template.clone() }
}

fn export(checkpoint: &Checkpoint) -> Result<Vec<ExportTensor>, LlamaError> {
    let recipe = Recipe::named("f32").ok_or_else(|| LlamaError::Unsupported("there is no recipe f32".into()))?;
    let mut tensors = Export::model(checkpoint, recipe, Vec::new())?.tensors;
    tensors.extend(Export::projector(checkpoint, recipe)?.into_iter().flat_map(|projector| projector.tensors));
    Ok(tensors)
}

/// The values of an exported tensor.
fn numbers(tensor: &ExportTensor) -> Vec<f32> {
    let bytes = tensor.encode(0..tensor.n_rows());
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
