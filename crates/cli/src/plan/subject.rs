//! What is forecast: a model that is here, or the config of one that is not.

use std::path::Path;

use anyhow::Result;
use cpu::{Outline, OutlinedMatrix, Weights};
use formats::{Checkpoint, Lora, ModelConfig};
use llama::{Footprint, Model, Use};
use tensor::Format;

use super::recipe::{RECIPES, Recipe};
use crate::failure::usage;
use crate::model;

/// The published configs that are built in.
const PUBLISHED: [(&str, &str); 2] =
    [("scout", include_str!("published/scout.json")), ("maverick", include_str!("published/maverick.json"))];

/// A model as the loader lays it out, without its numbers.
pub struct Subject {
    /// What the user called it, with its quantisation.
    pub name: String,
    /// What the model is.
    pub config: ModelConfig,
    /// Its layout.
    pub model: Model<Outline>,
    /// The device that it is laid out on.
    pub dev: Outline,
    /// What weights take.
    pub weights: Weights,
    /// What a step reads, in packed bytes.
    pub footprint: Footprint,
    /// Bytes of its tensors in its files.
    pub disk_bytes: usize,
    /// Bytes of a single file's metadata, which stays mapped.
    pub header_bytes: usize,
}

/// How much of a config is forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// The decoder alone.
    Text,
    /// With the vision tower, if there is one.
    All,
}

/// A model reference: a path, or a built-in name.
pub enum Reference {
    /// A model with its numbers.
    Stored(Box<Checkpoint>),
    /// A config and the quantisation that stood behind its name.
    Config(Box<ModelConfig>, Option<Recipe>),
}

impl Reference {
    /// Finds `text`: `scout`, `scout:q4`, a model's path, or a config's, also with `:q4`.
    ///
    /// # Errors
    /// Exit code 2 for names that mean nothing, 5 for files that are none of a model.
    pub fn find(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("hf:") {
            let message = format!("\"hf:{rest}\" is not on this machine, and plan does not download");
            return Err(usage(message, "fetch its config.json and name that file; scout and maverick are built in"));
        }
        let (name, recipe) = match text.rsplit_once(':') {
            Some((name, quant)) if !Path::new(text).exists() => (name, Some(recipe(quant)?)),
            _ => (text, None),
        };
        if let Some((_, json)) = PUBLISHED.iter().find(|(known, _)| *known == name.to_lowercase())
            && !Path::new(name).exists()
        {
            let config = ModelConfig::parse(Path::new(name), json.as_bytes())?;
            return Ok(Self::Config(Box::new(config), recipe));
        }
        if !model::is_built_in(Path::new(name)) && !Path::new(name).exists() {
            let hint = "name a GGUF file, a Hugging Face folder or its config.json, or one of nano, scout and maverick";
            return Err(usage(format!("\"{name}\" is neither a file nor a built-in model"), hint));
        }
        let checkpoint = model::open_checkpoint(Path::new(name), None)?;
        Ok(match recipe.is_some() || checkpoint.tensors.is_empty() {
            true => Self::Config(Box::new(checkpoint.config), recipe),
            false => Self::Stored(Box::new(checkpoint)),
        })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Self::Stored(checkpoint) => &checkpoint.config,
            Self::Config(config, _) => config,
        }
    }
}

/// The recipe that `--quant` names.
///
/// # Errors
/// Exit code 2 with the names there are.
pub fn recipe(name: &str) -> Result<Recipe> {
    Recipe::find(name).ok_or_else(|| {
        let names: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
        usage(format!("\"{name}\" is no quantisation"), format!("one of {}", names.join(", ")))
    })
}

impl Subject {
    /// The model of `checkpoint` as its files are, with `lora` beside it.
    ///
    /// # Errors
    /// Those of loading it.
    pub fn stored(name: &str, checkpoint: &Checkpoint, lora: Option<&Lora>) -> Result<Self> {
        let dev = Outline::new();
        let mut model = Model::load(&dev, checkpoint, &mut |_| {})?;
        model::adapt(&mut model, &dev, checkpoint, lora)?;
        let mut this = Self::new(name.to_owned(), checkpoint.config.clone(), model, dev, Some(checkpoint.size_bytes()));
        if let Ok(about) = checkpoint.path.metadata()
            && about.is_file()
        {
            let file_bytes = usize::try_from(about.len()).unwrap_or(usize::MAX);
            this.header_bytes = file_bytes.saturating_sub(checkpoint.size_bytes());
        }
        Ok(this)
    }

    /// The model of `config` in the formats of `recipe`.
    ///
    /// # Errors
    /// If a shape fits no format.
    pub fn described(name: &str, config: &ModelConfig, parts: Parts, recipe: Recipe) -> Result<Self> {
        let format_of = |name: &str, shape: [usize; 3]| recipe.format(config, name, shape[2]);
        Self::with_formats(format!("{name}:{}", recipe.name), config, parts, &format_of)
    }

    /// The model of `config` with the format that `format_of` gives for each GGUF name and shape.
    ///
    /// # Errors
    /// As [`described`](Self::described).
    pub fn with_formats(
        name: String,
        config: &ModelConfig,
        parts: Parts,
        format_of: &dyn Fn(&str, [usize; 3]) -> Format,
    ) -> Result<Self> {
        let mut config = config.clone();
        if parts == Parts::Text {
            config.vision = None;
        }
        let dev = Outline::new();
        let model = Model::describe(&dev, &config, format_of)?;
        Ok(Self::new(name, config, model, dev, None))
    }

    fn new(name: String, config: ModelConfig, model: Model<Outline>, dev: Outline, disk: Option<usize>) -> Self {
        let weights = dev.weights();
        let footprint = Footprint::of(&model.decoder, &measure);
        // A tied table is the output map's own tensor.
        let tables = if config.tie_word_embeddings { 0 } else { weights.tables };
        let disk_bytes = disk.unwrap_or(weights.stored + tables + weights.vectors);
        Self { name, config, model, dev, weights, footprint, disk_bytes, header_bytes: 0 }
    }

    /// Bytes of all routed experts, packed.
    pub fn expert_bytes(&self) -> usize {
        self.footprint.expert_bytes()
    }

    /// Packed maps that are no experts, and vectors.
    pub fn fixed_bytes(&self) -> usize {
        self.weights.packed - self.expert_bytes() + self.weights.vectors
    }
}

fn measure(matrix: &OutlinedMatrix) -> (Use, usize) {
    let [n_matrices, n_out, n_in] = matrix.shape();
    let products = n_matrices * n_out * n_in;
    (Use { bytes: matrix.size_bytes(), products, quantised: matrix.n_quantised() }, n_matrices)
}
