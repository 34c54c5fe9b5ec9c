//! A recipe and everything that it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use cpu::{Cpu, Precision, Strided, Write};
use formats::config::ModelConfig;
use formats::{Checkpoint, ReasoningConfig};
use tempfile::TempDir;
use tokenizer::Tokenizer;
use train::checkpoint::{Checkpoints, Disk};
use train::data::{
    Encoder, Feed, FeedSettings, Ingredient, Makers, Mixture, MixtureSettings, Source, Step, held_out, sentences,
};
use train::optim::{Compute, Optimizer, Right, Threads, plain_product};
use train::recipe::{self, Recipe, SourceRecipe, StageRecipe, TeacherRecipe};
use train::shape::NamedTokens;
use train::{Distillation, Memory, Objective, Plan, Run, Stage, Teacher, Trained, Trainer, Weights};

use crate::failure::usage;
use crate::model::{self, DeviceArguments};

/// Files beside the weights that a model takes over from the one that it was begun with.
const FILES: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "reasoning_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "audio_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// Positions of a chunk of a new model: the longest worked traces fit. What crosses a chunk's end goes through the one layer
/// in four that sees everything, which a small model hardly learns.
const CHUNK: usize = 1024;

/// Steps that are packed together.
pub const WINDOW: usize = 8;

/// Sequences of each source that are measured.
const MEASURED: usize = 16;

/// All that a run begins with.
pub struct Prepared {
    pub recipe: Recipe,
    pub weights: Weights,
    /// Where the recipe lies: its paths begin there.
    folder: PathBuf,
    /// All files of the model but its weights.
    skeleton: TempDir,
    /// The same, read.
    template: Checkpoint,
}

impl Prepared {
    /// Reads the recipe `path`, and the model that it begins with.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let recipe = Recipe::parse(path, &text)?;
        let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        let skeleton = tempfile::tempdir().context("making a temporary folder")?;
        let source = &recipe.model;
        let copy = |from: &Path| copy_files(from, skeleton.path());
        let from = source.from.as_ref().map(|from| folder.join(from));
        let from = from.map(|path| anyhow::Ok((model::open_checkpoint(&path, None)?, path))).transpose()?;
        if let Some((checkpoint, path)) = &from {
            if checkpoint.is_gguf() {
                let message = format!("{} is a GGUF file", path.display());
                return Err(usage(message, "name it under [model] weights, and its shape with size or config"));
            }
            copy(path)?;
        } else if let Some(config) = &source.config {
            let config = folder.join(config);
            copy(config.parent().unwrap_or(Path::new(".")))?;
            write(skeleton.path(), "config.json", &fs::read(&config).with_context(|| reading(&config))?)?;
        }
        if let Some(tokenizer) = &source.tokenizer {
            let named = folder.join(tokenizer);
            // A file's neighbours belong to it.
            copy_tokenizer(if named.is_dir() { &named } else { named.parent().unwrap_or(Path::new(".")) }, &skeleton)?;
            if source.size.is_some() {
                new_model(&recipe, path, &model::open_tokenizer(&named)?.0, skeleton.path())?;
            }
        }
        let template = Checkpoint::open(&skeleton.path().join("config.json"))?;
        let mut weights = match from {
            Some((checkpoint, _)) => Weights::of(checkpoint)?,
            None => Weights::fresh(template.clone(), recipe.seed)?,
        };
        if let Some(file) = &source.weights {
            let file = folder.join(file);
            let restored = llama::export::restored(&weights.checkpoint(), &model::open_checkpoint(&file, None)?);
            for (name, values) in restored.with_context(|| format!("{}", file.display()))? {
                weights.set(&name, values)?;
            }
        }
        Ok(Self { recipe, weights, folder, skeleton, template })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.template.config
    }

    /// Opens the data and begins; gives the model's files too.
    pub fn start(self, device: &DeviceArguments, checkpoints: Checkpoints<Disk>) -> Result<(TempDir, Run<Cpu, Disk>)> {
        let recipe = &self.recipe;
        let data = self.data()?;
        let stages = (0..).zip(recipe.stages()).map(|(number, stage)| data.stage(number, &stage));
        let stages = stages.collect::<Result<Vec<Stage>>>()?;
        let precision = match recipe.run.precision {
            recipe::Precision::F32 => Precision::F32,
            recipe::Precision::Bf16 => Precision::Bf16,
        };
        let dev = Arc::new(device.open_with(precision));
        let optimizer = Optimizer::new(recipe.settings(), compute(device, precision));
        let memory = if recipe.run.recompute { Memory::Recompute } else { Memory::KeepAll };
        let objective = Objective {
            balance: recipe.optimizer.balance,
            router_z: recipe.optimizer.router_z,
            memory,
            ..Objective::default()
        };
        let all: Trained = Arc::new(|_: &str| true);
        let schedule =
            (recipe.schedule(), Plan { save_every: recipe.run.save_every, evaluate_every: recipe.run.evaluate_every });
        let teacher = recipe.teacher.as_ref().map(|teacher| self.teacher(&dev, teacher)).transpose()?;
        let trainer = Trainer::new(dev, (self.weights, all), optimizer, (objective, recipe.run.rows));
        let trainer = teacher.into_iter().fold(trainer, Trainer::taught_by);
        Ok((self.skeleton, Run::new(trainer, stages, schedule, checkpoints)))
    }

    /// The model that is learnt from.
    fn teacher(&self, dev: &Arc<Cpu>, recipe: &TeacherRecipe) -> Result<Teacher<Cpu>> {
        let checkpoint = model::open_weights(&self.folder.join(&recipe.model))?;
        let (theirs, ours) = (checkpoint.config.text.vocab_size, self.config().text.vocab_size);
        if theirs != ours {
            let message = format!("{} has {theirs} tokens, the model {ours}", recipe.model.display());
            return Err(usage(message, "a teacher speaks of the same tokens: give both one tokenizer"));
        }
        let how = Distillation { share: recipe.share, temperature: recipe.temperature };
        Ok(Teacher::new(Arc::clone(dev), &checkpoint, how)?)
    }

    fn data(&self) -> Result<Data<'_>> {
        let beside = |path: &PathBuf| self.folder.join(path);
        let settings = &self.recipe.data;
        let makers = Makers {
            fonts: settings.fonts.as_ref().map(beside),
            icons: settings.icons.as_ref().map(beside),
            prose: Arc::new(sentences(&settings.prose.iter().map(beside).collect::<Vec<_>>())?),
            ..Makers::default()
        };
        Ok(Data { recipe: &self.recipe, folder: &self.folder, template: &self.template, makers })
    }
}

/// The optimiser's work on threads of its own. A device without threads makes Muon's products, which are too small to
/// be shared out, for each of them.
fn compute(device: &DeviceArguments, precision: Precision) -> Compute {
    let threads = Threads::new(device.threads());
    let dev = device.alone(precision);
    let product = move |a: &[f32], b: Right<'_>, k: usize, out: &mut [f32]| {
        let left = Strided { values: a, row: k, column: 1 };
        let right = match b {
            Right::Plain(b) => Strided { values: b, row: 1, column: b.len() / k },
            Right::Turned(b) => Strided { values: b, row: k, column: 1 },
        };
        let shape = [a.len() / k, right.values.len() / k, k];
        // Shapes that the device refuses, none of which Muon has, are the plain product's.
        if dev.product(out, shape, left, right, Write::Set).is_err() {
            plain_product(a, b, k, out);
        }
    };
    Compute { threads, product: Box::new(product) }
}

/// What stages are made of.
struct Data<'a> {
    recipe: &'a Recipe,
    folder: &'a Path,
    template: &'a Checkpoint,
    makers: Makers,
}

impl Data<'_> {
    /// Stage `number` of the recipe.
    fn stage(&self, number: u64, stage: &StageRecipe) -> Result<Stage> {
        let (data, seed) = (&self.recipe.data, self.recipe.seed.wrapping_add(number));
        let settings = MixtureSettings { seed, held_out: data.held_out, ..MixtureSettings::default() };
        let mut ingredients = Vec::new();
        for source in &stage.sources {
            let sources = self.open(source)?;
            let weight = source.weight / sources.len().max(1) as f64;
            ingredients.extend(sources.into_iter().map(|source| Ingredient { source, weight }));
        }
        let mixture = Mixture::new(ingredients, settings)?;
        let settings = FeedSettings { rows: self.recipe.run.tokens, cut: data.length, window: WINDOW };
        let encoder = Encoder { turns: data.turns, weighting: data.weighting, ..model::encoder(self.template)? };
        let again = stage.sources.iter().map(|source| self.open(source)).collect::<Result<Vec<_>>>()?;
        let sources = again.into_iter().flatten();
        let measured = measured(sources, (seed, data.held_out), &encoder, (data.length, MEASURED))?;
        let begins = stage.train.clone();
        Ok(Stage {
            name: stage.name.clone(),
            steps: stage.steps,
            factor: stage.lr,
            trained: Arc::new(move |name| {
                begins.is_empty() || begins.iter().any(|begin| name.starts_with(begin.as_str()))
            }),
            feed: Feed::new(mixture, encoder, settings)?,
            held_out: measured,
        })
    }

    fn open(&self, source: &SourceRecipe) -> Result<Vec<Source>> {
        if let Some(file) = &source.file {
            let path = self.folder.join(file);
            return match path.is_file() {
                true => Ok(vec![Source::File(path)]),
                false => Err(usage(format!("{} is not there", path.display()), "name a file of rows in the recipe")),
            };
        }
        let name = source.generator.as_deref().unwrap_or_default();
        Ok(self.makers.named(name)?.into_iter().map(Source::Generator).collect())
    }
}

/// What is held out of each of `sources` that holds out something, with its name: `n` sequences of at most `cut` positions.
///
/// # Errors
/// As [`held_out`].
pub fn measured(
    sources: impl Iterator<Item = Source>,
    (seed, share): (u64, f64),
    encoder: &Encoder,
    (cut, n): (usize, usize),
) -> Result<Vec<(String, Step)>> {
    let measured = sources.map(|source| {
        let name = source.name();
        Ok((name, held_out(source, (seed, share), encoder, cut, n)?))
    });
    Ok(measured.collect::<Result<Vec<_>>>()?.into_iter().filter(|(_, step)| !step.is_empty()).collect())
}

/// Writes the files of a model of the size that `recipe` asks for.
fn new_model(recipe: &Recipe, file: &Path, tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
    let Some(shape) = recipe.shape(file, tokenizer.vocab_size())? else { return Ok(()) };
    let ids = |needed: bool, names: [&str; 3]| -> Result<[u32; 3]> {
        let mut ids = [0; 3];
        for (id, name) in ids.iter_mut().zip(names).filter(|_| needed) {
            *id = tokenizer.control(name).ok_or_else(|| {
                usage(format!("the tokenizer has no token {name}"), "make one with `puna data tokenizer`")
            })?;
        }
        Ok(ids)
    };
    let tokens = NamedTokens {
        bos: tokenizer.bos().unwrap_or_default(),
        eos: tokenizer.eos().unwrap_or_default(),
        image: ids(shape.towers.images, ["<|image_start|>", "<|patch|>", "<|image_end|>"])?,
        audio: ids(shape.towers.audio, ["<|audio_start|>", "<|audio|>", "<|audio_end|>"])?,
    };
    let json = |value: &serde_json::Value| format!("{value:#}\n").into_bytes();
    write(folder, "config.json", &json(&shape.config(CHUNK, tokens)))?;
    for (name, value) in shape.preprocessors() {
        write(folder, name, &json(&value))?;
    }
    if recipe.model.thinking {
        // It thinks where it is told to: what a small model sees and hears it says at once.
        let config = ReasoningConfig { is_on: false, ..ReasoningConfig::default() };
        write(folder, "reasoning_config.json", config.to_json().as_bytes())?;
    }
    Ok(())
}

/// Copies those of [`FILES`] that are in `from`.
pub fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for name in FILES {
        let file = from.join(name);
        if file.is_file() {
            write(to, name, &fs::read(&file).with_context(|| reading(&file))?)?;
        }
    }
    Ok(())
}

/// Copies a tokenizer's files from `from`, in place of any that are there.
fn copy_tokenizer(from: &Path, skeleton: &TempDir) -> Result<()> {
    for name in FILES.into_iter().filter(|name| name.contains("token") || name.contains("template")) {
        let (file, copy) = (from.join(name), skeleton.path().join(name));
        match file.is_file() {
            true => write(skeleton.path(), name, &fs::read(&file).with_context(|| reading(&file))?)?,
            // One that was there belongs to another tokenizer.
            false if copy.is_file() => {
                fs::remove_file(&copy).with_context(|| format!("removing {}", copy.display()))?
            }
            false => {}
        }
    }
    Ok(())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn reading(path: &Path) -> String {
    format!("reading {}", path.display())
}
