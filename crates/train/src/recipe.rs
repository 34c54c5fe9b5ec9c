//! What a run is made of: `recipes/*.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::TrainError;
use crate::data::{Turns, Weighting};
use crate::optim::{AdamW, Muon, Scale, Settings};
use crate::schedule::{Schedule, Shape};
use crate::shape::{HEAD_LEN, ModelShape, Towers};

/// A recipe. Paths are relative to its file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Decides the first weights and the order of the data.
    #[serde(default)]
    pub seed: u64,
    /// What is trained.
    pub model: ModelRecipe,
    /// What it is trained on.
    #[serde(default)]
    pub data: DataRecipe,
    /// Whose probabilities it learns from as well.
    pub teacher: Option<TeacherRecipe>,
    /// How its weights are changed.
    #[serde(default)]
    pub optimizer: OptimizerRecipe,
    /// What comes after what; one stage with the sources of `[data]` if there is none.
    #[serde(default, rename = "stage")]
    pub stages: Vec<StageRecipe>,
    /// How long, and what is written meanwhile.
    pub run: RunRecipe,
}

/// Where the model comes from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// Parameters of a new model, all of them: `25M`. Its shape follows; see [`ModelShape::of_size`].
    pub size: Option<String>,
    /// Or the `config.json` of a new model.
    pub config: Option<PathBuf>,
    /// Or a model whose weights are the first ones.
    pub from: Option<PathBuf>,
    /// A GGUF file of a model of this size or config, whose weights are the first ones.
    pub weights: Option<PathBuf>,
    /// The tokenizer: a `tokenizer.json`, a rank file, or a model that has one; that of `from` if absent.
    pub tokenizer: Option<PathBuf>,
    /// Whether a model of `size` takes images.
    #[serde(default)]
    pub images: bool,
    /// Whether a model of `size` takes audio.
    #[serde(default)]
    pub audio: bool,
    /// Whether a new model is one that thinks before it answers where it is told to.
    #[serde(default)]
    pub thinking: bool,
    /// A dial of `size` of its own: width of the residual stream.
    pub width: Option<usize>,
    /// The same: layers.
    pub layers: Option<usize>,
    /// The same: experts of a layer.
    pub experts: Option<usize>,
    /// The same: width of an expert.
    pub ffn: Option<usize>,
}

/// Another model that is learnt from. It has the same tokens.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherRecipe {
    /// A Hugging Face folder or a GGUF file.
    pub model: PathBuf,
    /// The divergence's share of the loss.
    #[serde(default = "default_share")]
    pub share: f32,
    /// What both models' logits are divided by.
    #[serde(default = "default_temperature")]
    pub temperature: f32,
}

fn default_share() -> f32 {
    0.5
}

fn default_temperature() -> f32 {
    1.0
}

/// What is learnt from, and how it is cut.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Where rows come from, if no stage says otherwise.
    #[serde(default, rename = "source")]
    pub sources: Vec<SourceRecipe>,
    /// Tokens of a sequence at most.
    #[serde(default = "default_length")]
    pub length: usize,
    /// The share of files' rows that is only measured.
    #[serde(default = "default_held_out")]
    pub held_out: f64,
    /// Which turns of a conversation are learnt from one sequence, if the model is to think.
    #[serde(default)]
    pub turns: Turns,
    /// What tokens of long and of short answers count.
    #[serde(default)]
    pub weighting: Weighting,
    /// A folder of outline fonts that pictures are printed in, beside the two that are always there.
    pub fonts: Option<PathBuf>,
    /// A folder of pictures that are called what they show.
    pub icons: Option<PathBuf>,
    /// Files of prose that the generator `passages` asks about; without one there is no such generator.
    #[serde(default)]
    pub prose: Vec<PathBuf>,
}

/// A file or a generator.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecipe {
    /// A file of rows: text, JSONL or Parquet.
    pub file: Option<PathBuf>,
    /// Or a generator by its name, or a group of them.
    pub generator: Option<String>,
    /// How often it comes beside the others. A group's members share it.
    #[serde(default = "default_weight")]
    pub weight: f64,
}

/// A part of a run with sources of its own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRecipe {
    /// What it is called.
    pub name: String,
    /// Its steps.
    pub steps: u64,
    /// What its learning rates are multiplied by.
    #[serde(default = "default_weight")]
    pub lr: f64,
    /// Beginnings of the names of the tensors that are trained; all if empty.
    #[serde(default)]
    pub train: Vec<String>,
    /// Where its rows come from; those of `[data]` if empty.
    #[serde(default, rename = "source")]
    pub sources: Vec<SourceRecipe>,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            length: default_length(),
            held_out: default_held_out(),
            turns: Turns::default(),
            weighting: Weighting::default(),
            fonts: None,
            icons: None,
            prose: Vec::new(),
        }
    }
}

fn default_weight() -> f64 {
    1.0
}

fn default_length() -> usize {
    256
}

fn default_held_out() -> f64 {
    0.01
}

/// The optimiser's numbers, those of small models if absent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerRecipe {
    /// AdamW's learning rate at its peak.
    pub lr: f64,
    /// Decay of AdamW's moments.
    pub betas: [f64; 2],
    /// Weight decay.
    pub weight_decay: f64,
    /// Muon's learning rate for the matrices inside of layers; without it AdamW takes them too.
    pub muon_lr: Option<f64>,
    /// Longer gradients are shortened to this norm.
    pub clip: f64,
    /// Steps in which the learning rate rises.
    pub warm_up: u64,
    /// Share of the steps in which it falls to a tenth, at the end.
    pub decay: f64,
    /// The share of the old average that each step keeps, for a model that is a moving average of the weights.
    pub average: Option<f64>,
    /// The factor of the loss that keeps experts equally busy.
    pub balance: f32,
    /// The factor of the loss that keeps router logits small.
    pub router_z: f32,
}

impl Default for OptimizerRecipe {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: [0.9, 0.95],
            weight_decay: 0.1,
            muon_lr: None,
            clip: 1.0,
            warm_up: 100,
            decay: 0.2,
            average: None,
            balance: 0.01,
            router_z: 0.001,
        }
    }
}

/// How long a run is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecipe {
    /// Steps in all, where stages do not say.
    pub steps: Option<u64>,
    /// Tokens of a step.
    #[serde(default = "default_tokens")]
    pub tokens: usize,
    /// Rows that go through the model together; a step of more is computed in pieces.
    #[serde(default = "default_rows")]
    pub rows: usize,
    /// Whether layers are computed a second time on the way back, for a fraction of the memory.
    #[serde(default)]
    pub recompute: bool,
    /// What products are computed from. Weights, gradients and the optimiser's memory are f32 either way.
    #[serde(default)]
    pub precision: Precision,
    /// Steps between checkpoints.
    #[serde(default = "default_every")]
    pub save_every: u64,
    /// Steps between measurements of what is held out.
    #[serde(default = "default_every")]
    pub evaluate_every: u64,
}

/// What products of matrices are computed from; their sums are f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The numbers as they are.
    #[default]
    F32,
    /// The numbers rounded to bfloat16: faster where the processor has instructions for it.
    Bf16,
}

fn default_tokens() -> usize {
    4096
}

fn default_rows() -> usize {
    4096
}

fn default_every() -> u64 {
    200
}

impl Recipe {
    /// Reads the recipe `text` of `file`.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] for what is no recipe, or contradicts itself.
    pub fn parse(file: &Path, text: &str) -> Result<Self, TrainError> {
        let wrong = |why: String| TrainError::Recipe { file: file.into(), why };
        let recipe: Self = toml::from_str(text).map_err(|e| wrong(e.to_string().trim_end().to_owned()))?;
        recipe.check().map_err(|why| wrong(why.into()))?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), &'static str> {
        let ModelRecipe { size, config, from, tokenizer, .. } = &self.model;
        if usize::from(size.is_some()) + usize::from(config.is_some()) + usize::from(from.is_some()) != 1 {
            return Err("[model] needs exactly one of size, config and from");
        }
        if self.model.weights.is_some() && from.is_some() {
            return Err("[model] from has weights; leave the other out");
        }
        if tokenizer.is_none() && from.is_none() {
            return Err("[model] needs a tokenizer: a tokenizer.json, or a model that has one");
        }
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let OptimizerRecipe { lr, betas, weight_decay, clip, decay, average, .. } = &self.optimizer;
        if self.run.steps.is_some() != self.stages.is_empty() {
            return Err("either [run] has steps, or each [[stage]] has");
        }
        for stage in self.stages() {
            if stage.sources.is_empty() {
                return Err("there is nothing to learn from: name a [[data.source]]");
            }
            if stage.steps == 0 || !positive(stage.lr) {
                return Err("steps are at least 1, and a stage's lr, which multiplies the others, is above 0");
            }
            if stage.sources.iter().any(|source| source.file.is_some() == source.generator.is_some()) {
                return Err("each source is either a file or a generator");
            }
        }
        if !(2..=1 << 20).contains(&self.data.length) || !(0.0..0.5).contains(&self.data.held_out) {
            return Err("[data] length is 2 to 1048576 tokens, held_out 0 to 0.5");
        }
        if self.run.tokens < self.data.length {
            return Err("[run] tokens, those of a step, are at least [data] length");
        }
        if self.run.rows == 0 || self.run.save_every == 0 || self.run.evaluate_every == 0 {
            return Err("[run] rows, save_every and evaluate_every are at least 1");
        }
        if !positive(*lr) || !positive(*clip) || *weight_decay < 0.0 || !(0.0..=1.0).contains(decay) {
            return Err("[optimizer] lr and clip are above 0, weight_decay is not below it, decay is 0 to 1");
        }
        if let Some(TeacherRecipe { share, temperature, .. }) = &self.teacher
            && (!(0.0..=1.0).contains(share) || !positive(f64::from(*temperature)))
        {
            return Err("[teacher] share is 0 to 1, temperature above 0");
        }
        if betas.iter().chain(average).any(|beta| !(0.0..1.0).contains(beta)) {
            return Err("[optimizer] betas and average are 0 to 1, without 1");
        }
        Ok(())
    }

    /// What comes after what, each with its own sources.
    pub fn stages(&self) -> Vec<StageRecipe> {
        let sources = &self.data.sources;
        match (self.stages.as_slice(), self.run.steps) {
            ([], steps) => {
                let (steps, sources) = (steps.unwrap_or_default(), sources.clone());
                vec![StageRecipe { name: "all".into(), steps, lr: 1.0, train: Vec::new(), sources }]
            }
            (stages, _) => {
                let own = |stage: &StageRecipe| match stage.sources.is_empty() {
                    true => StageRecipe { sources: sources.clone(), ..stage.clone() },
                    false => stage.clone(),
                };
                stages.iter().map(own).collect()
            }
        }
    }

    /// Steps in all.
    pub fn steps(&self) -> u64 {
        self.stages().iter().map(|stage| stage.steps).sum()
    }

    /// The shape of the new model that `size` asks for, with `vocab_size` tokens; `None` if its config is given.
    ///
    /// # Errors
    /// [`TrainError::Recipe`], in the name of `file`, for a size that is none.
    pub fn shape(&self, file: &Path, vocab_size: usize) -> Result<Option<ModelShape>, TrainError> {
        let Some(size) = &self.model.size else { return Ok(None) };
        let wrong = |why: String| TrainError::Recipe { file: file.into(), why };
        let n =
            parse_count(size).ok_or_else(|| wrong(format!("size \"{size}\" is no number of parameters, like 25M")))?;
        let ModelRecipe { width, layers, experts, ffn, images, audio, .. } = self.model;
        let mut shape = ModelShape::of_size(n, vocab_size, Towers { images, audio })
            .ok_or_else(|| wrong(format!("a model of {size} has no room for {vocab_size} tokens")))?;
        shape.width = width.unwrap_or(shape.width);
        shape.n_layers = layers.unwrap_or(shape.n_layers);
        shape.n_experts = experts.unwrap_or(shape.n_experts);
        shape.ffn = ffn.unwrap_or(shape.ffn);
        let is_whole = shape.width.is_multiple_of(HEAD_LEN) && shape.ffn.is_multiple_of(32);
        if !is_whole || [shape.width, shape.n_layers, shape.n_experts, shape.ffn].contains(&0) {
            let why = "width is a multiple of 64, ffn of 32, layers and experts are at least 1";
            return Err(wrong(why.into()));
        }
        Ok(Some(shape))
    }

    /// The optimiser's settings.
    pub fn settings(&self) -> Settings {
        let OptimizerRecipe { lr, betas, weight_decay, muon_lr, clip, average, .. } = self.optimizer;
        let adamw = AdamW { lr, betas, eps: 1e-8, weight_decay };
        let muon = muon_lr.map(|lr| Muon { lr, momentum: 0.95, weight_decay, scale: Scale::AdamW });
        Settings { adamw, muon, norm_limit: Some(clip), average_decay: average }
    }

    /// The learning rate's way: a rise, a plateau, a fall.
    pub fn schedule(&self) -> Schedule {
        let steps = self.steps();
        // At most all of them: the share is at most 1.
        let decay = (steps as f64 * self.optimizer.decay).round() as u64;
        Schedule { warm_up: self.optimizer.warm_up.min(steps), then: Shape::StableDecay { steps, decay, floor: 0.1 } }
    }
}

/// `25M` as a number.
fn parse_count(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, factor) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 1e3),
        (at, 'm' | 'M') => (&text[..at], 1e6),
        (at, 'b' | 'B') => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    let n = digits.parse::<f64>().ok()? * factor;
    (n.is_finite() && (1.0..1e12).contains(&n)).then_some(n as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_a_letter() {
        for (text, want) in [("25M", Some(25_000_000)), ("1.5k", Some(1500)), ("300", Some(300)), ("1B", Some(1 << 30))]
        {
            let want = want.map(|n| if n == 1 << 30 { 1_000_000_000 } else { n });
            assert_eq!(parse_count(text), want, "{text}");
        }
        for text in ["", "M", "-3M", "NaN", "1e99", "25 apples"] {
            assert_eq!(parse_count(text), None, "{text}");
        }
    }
}
