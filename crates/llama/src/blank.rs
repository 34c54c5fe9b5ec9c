//! The tensors of a model that does not exist yet.

use formats::config::ModelConfig;
use tensor::{Orientation, Reference};

use crate::{LlamaError, Model};

/// A tensor to be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blank {
    /// Its name in a Hugging Face folder.
    pub name: String,
    /// Its axes there.
    pub shape: Vec<usize>,
    /// Numbers that one output is a sum over; 1 for vectors.
    pub n_in: usize,
}

impl Blank {
    pub(crate) fn new(name: &str, orientation: Orientation, [n_matrices, n_out, n_in]: [usize; 3]) -> Self {
        let matrix = match orientation {
            Orientation::InOut => [n_in, n_out],
            _ => [n_out, n_in],
        };
        let shape = match (n_matrices, n_out) {
            (1, 1) => vec![n_in],
            (1, _) => matrix.to_vec(),
            _ => [&[n_matrices], &matrix[..]].concat(),
        };
        Self { name: name.into(), n_in: if shape.len() == 1 { 1 } else { n_in }, shape }
    }
}

/// All tensors of a model of this config, each once, in the order in which it is loaded: names and shapes of the Hugging
/// Face folder that holds such a model.
///
/// # Errors
/// [`LlamaError::Op`] if the config's sizes overflow.
pub fn blanks(config: &ModelConfig) -> Result<Vec<Blank>, LlamaError> {
    let mut all = Model::blanks(&Reference, config)?;
    // A tied output map is the embedding table.
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|blank| seen.insert(blank.name.clone()));
    Ok(all)
}
