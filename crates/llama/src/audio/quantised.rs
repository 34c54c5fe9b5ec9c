//! An audio encoder whose linear maps are stored in fewer bits than its files have.

use std::collections::BTreeMap;

use formats::config::ModelConfig;
use formats::{DType, Tensor};
use tensor::{Bytes, Format};

use super::{GGUF, HUGGING_FACE, PROJECTOR_FILE, Prefixes};
use crate::LlamaError;

/// Stores the linear maps of the audio encoder of the model that `config` describes in `format`, and returns how many
/// these were: none if nothing hears, or all are quantised already.
///
/// Convolutions, positions, norms and the projector stay as they are. The maps are in memory of their own from then on,
/// until `tensors` is dropped.
///
/// # Errors
/// [`LlamaError::Weight`] if a map's rows are no whole blocks of `format`, before any map is changed.
pub fn quantise_audio(
    tensors: &mut BTreeMap<String, Tensor>,
    config: &ModelConfig,
    format: Format,
) -> Result<usize, LlamaError> {
    let Some(audio) = &config.audio else { return Ok(0) };
    let kinds = [(&PROJECTOR_FILE, &GGUF), (Prefixes::of(config), &HUGGING_FACE)];
    let mut places = kinds.iter().flat_map(|(at, names)| at.encoder.iter().map(move |prefix| (*prefix, *names)));
    let place =
        places.find(|(prefix, names)| tensors.contains_key(&format!("{prefix}{}.weight", names.convolutions[0])));
    let Some((prefix, names)) = place else { return Ok(0) };
    let [_, q, k, v, o, _, fc1, fc2] = names.inner;
    let names = (0..audio.encoder.n_layers)
        .flat_map(|layer| [q, k, v, o, fc1, fc2].map(|map| format!("{prefix}{}.{layer}.{map}.weight", names.layers)))
        .filter_map(|name| tensors.get_key_value(&name));
    let quantised = names.filter_map(|(name, stored)| Some((name.clone(), quantised(stored, format)?)));
    let quantised: Vec<(String, Tensor)> =
        quantised.map(|(name, tensor)| Ok((name, tensor?))).collect::<Result<_, LlamaError>>()?;
    let n_maps = quantised.len();
    tensors.extend(quantised);
    Ok(n_maps)
}

/// `tensor` in `format`; `None` if it is no matrix of unquantised numbers.
fn quantised(tensor: &Tensor, format: Format) -> Option<Result<Tensor, LlamaError>> {
    let (DType::Weight(stored), &[n_out, n_in]) = (tensor.dtype, tensor.shape.as_slice()) else { return None };
    if stored.block_len() != 1 {
        return None;
    }
    let Some(row_bytes) = format.row_bytes(n_in) else {
        let why = format!("has rows of {n_in}, which are no whole blocks of {}", format.name());
        return Some(Err(LlamaError::Weight { name: tensor.name.clone(), why }));
    };
    let mut bytes = vec![0; n_out * row_bytes];
    let mut row = vec![0.0; n_in];
    let rows = tensor.bytes.chunks_exact((n_in * stored.block_bytes()).max(1));
    for (stored_row, bytes) in rows.zip(bytes.chunks_exact_mut(row_bytes.max(1))) {
        stored.decode(stored_row, &mut row);
        format.encode(&row, bytes);
    }
    tensor.bytes.release();
    Some(Ok(Tensor { dtype: DType::Weight(format), bytes: Bytes::new(bytes), ..tensor.clone() }))
}
