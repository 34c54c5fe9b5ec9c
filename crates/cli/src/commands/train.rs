//! `puna train`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use cpu::Cpu;
use formats::{Checkpoint, DType, NewTensor};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tensor::Format;
use train::checkpoint::{Checkpoints, Disk, Fallback};
use train::optim::{Compute, Optimizer, Outcome, Threads};
use train::recipe::Recipe;
use train::{End, Event, Feed, Memory, Objective, Plan, Run, Trainer, Weights};

use crate::failure::usage;
use crate::interrupt::Watch;
use crate::memory::size;
use crate::model::{self, DeviceArguments};
use crate::output::{line, thousands};

/// What belongs to a tokenizer.
const TOKENIZER_FILES: [&str; 5] =
    ["tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

/// Positions of a chunk of a new model.
const CHUNK: usize = 256;

/// Train a model by a recipe
///
/// Writes to the folder OUT: checkpoints, `metrics.jsonl`, and at the end the model in `model/`, which every other command
/// takes. Ctrl-C saves and stops; `--resume` goes on from the newest checkpoint with the same bits as never stopping.
#[derive(clap::Args)]
pub struct Train {
    /// The recipe, a TOML file
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Where everything is written; by default `runs/` and the recipe's name
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on from the newest checkpoint in the folder
    #[arg(long)]
    resume: bool,
    /// With --resume: if the newest checkpoint is damaged, take an older one
    #[arg(long, requires = "resume")]
    allow_older: bool,
    /// Say what would be trained, in how much memory, and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

/// All that a run begins with.
struct Prepared {
    recipe: Recipe,
    weights: Weights,
    config: serde_json::Value,
    tokenizer: PathBuf,
    feed: Feed,
}

impl Train {
    pub fn run(self) -> Result<ExitCode> {
        let out = match &self.out {
            Some(out) => out.clone(),
            None => Path::new("runs").join(self.recipe.file_stem().context("the recipe has no name")?),
        };
        let prepared = self.prepare()?;
        self.forecast(&prepared)?;
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
        let checkpoints = Checkpoints::open(Disk, &out.join("checkpoints"))?;
        let fallback = if self.allow_older { Fallback::Older } else { Fallback::Refuse };
        let loaded = checkpoints.load(fallback)?;
        if loaded.is_some() && !self.resume {
            let message = format!("{} holds a run already", out.display());
            return Err(usage(message, "go on with --resume, or name another folder with --out"));
        }
        let mut run = self.start(&prepared, checkpoints);
        if let Some(loaded) = loaded {
            for refused in &loaded.refused {
                eprintln!("puna: warning: {refused}; an older checkpoint is used");
            }
            run.resume(loaded)?;
            line(&format!("going on after step {}", run.step()))?;
        }
        let end = follow(&mut run, &out, prepared.recipe.run.steps)?;
        if end == End::Stopped {
            line(&format!("stopped after step {}; go on with --resume", run.step()))?;
            return Ok(ExitCode::SUCCESS);
        }
        let folder = out.join("model");
        write_model(&folder, &prepared, run.trainer().weights())?;
        line(&format!("{}: the model; try `puna run -m {0} \"…\"`", folder.display()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Reads the recipe and everything that it names.
    fn prepare(&self) -> Result<Prepared> {
        let path = &self.recipe;
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let recipe = Recipe::parse(path, &text)?;
        let beside = |name: &Path| path.parent().unwrap_or(Path::new(".")).join(name);
        let source = &recipe.model;
        let named = source.tokenizer.as_ref().or(source.from.as_ref()).map(|name| beside(name));
        let named = named.context("the recipe names no tokenizer")?;
        // A file's neighbours belong to it.
        let folder = if named.is_dir() { named.clone() } else { named.parent().unwrap_or(Path::new(".")).into() };
        let (tokenizer, _) = model::open_tokenizer(&named)?;
        let (weights, config) = match (&source.from, &source.config) {
            (Some(from), _) => {
                let from = beside(from);
                let weights = Weights::of(model::open_checkpoint(&from, None)?)?;
                (weights, read_json(&from.join("config.json"))?)
            }
            (None, Some(config)) => (fresh(&beside(config), recipe.seed)?, read_json(&beside(config))?),
            (None, None) => {
                let shape = recipe.shape(path, tokenizer.vocab_size())?.context("the recipe has no size")?;
                let id = |id: Option<u32>| id.unwrap_or_default();
                let config = shape.config(CHUNK, [id(tokenizer.bos()), id(tokenizer.eos())]);
                let file = tempfile_beside(&config)?;
                let weights = fresh(&file, recipe.seed);
                fs::remove_file(&file)?;
                (weights?, config)
            }
        };
        let mut ids = Vec::new();
        for name in &recipe.data.text {
            let file = beside(name);
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            ids.extend(tokenizer.bos());
            ids.extend(tokenizer.encode(&text));
            ids.extend(tokenizer.eos());
        }
        let feed = Feed::new(ids, recipe.data.length, recipe.data.held_out, recipe.seed);
        if feed.is_empty() {
            let message = format!("{}: the texts are shorter than one sequence", path.display());
            return Err(usage(message, format!("give more text, or a [data] length below {}", recipe.data.length)));
        }
        Ok(Prepared { recipe, weights, config, tokenizer: folder, feed })
    }

    /// Says what will be done, and in how much memory.
    fn forecast(&self, prepared: &Prepared) -> Result<()> {
        let Prepared { recipe, weights, feed, .. } = prepared;
        let n = weights.n_values() as u64;
        let tokens = recipe.run.batch * recipe.data.length;
        let passes = recipe.run.steps as f64 * recipe.run.batch as f64 / feed.len() as f64;
        line(&format!(
            "{} parameters; {} steps of {} tokens, {:.1} passes over {} sequences",
            thousands(n),
            thousands(recipe.run.steps),
            thousands(tokens as u64),
            passes,
            thousands(feed.len() as u64)
        ))?;
        // Weights, the same packed for kernels, gradients and two moments, four bytes each.
        line(&format!("memory: {} for weights, gradients and moments, and what the layers keep", size(5 * 4 * n)))?;
        Ok(())
    }

    fn start(&self, prepared: &Prepared, checkpoints: Checkpoints<Disk>) -> Run<Cpu, Disk> {
        let recipe = &prepared.recipe;
        let dev = Arc::new(self.device.open());
        let optimizer = Optimizer::new(recipe.settings(), Compute::plain(Threads::new(self.device.threads())));
        let memory = if recipe.run.recompute { Memory::Recompute } else { Memory::KeepAll };
        let objective = Objective {
            balance: recipe.optimizer.balance,
            router_z: recipe.optimizer.router_z,
            memory,
            ..Objective::default()
        };
        let trained = (prepared.weights.clone(), Arc::new(|_: &str| true) as train::Trained);
        let trainer = Trainer::new(dev, trained, optimizer, (objective, recipe.run.rows));
        let plan = Plan {
            steps: recipe.run.steps,
            batch: recipe.run.batch,
            save_every: recipe.run.save_every,
            evaluate_every: recipe.run.evaluate_every,
        };
        Run::new(trainer, prepared.feed.clone(), (recipe.schedule(), plan), checkpoints)
    }
}

/// Runs to the end or to Ctrl-C, with a bar and a line of metrics for each step.
fn follow(run: &mut Run<Cpu, Disk>, out: &Path, steps: u64) -> Result<End> {
    let watch = Watch::begin();
    let path = out.join("metrics.jsonl");
    let metrics = fs::OpenOptions::new().create(true).append(true).open(&path);
    let mut metrics = metrics.with_context(|| format!("opening {}", path.display()))?;
    let bar = ProgressBar::new(steps).with_position(run.step());
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg} {eta}")?;
    bar.set_style(style);
    let mut failed = None;
    let end = run.go(&|| watch.is_interrupted(), &mut |event| {
        let entry = describe(event, &bar);
        if let Some(entry) = entry
            && let Err(error) = writeln!(metrics, "{entry}")
        {
            // A full disk loses metrics, not the run.
            failed.get_or_insert(error);
        }
    });
    bar.finish_and_clear();
    if let Some(error) = failed {
        eprintln!("puna: warning: {}: {error}; some metrics are missing", path.display());
    }
    Ok(end?)
}

/// Shows `event` on the bar; its line of metrics, if it has one.
fn describe(event: &Event<'_>, bar: &ProgressBar) -> Option<serde_json::Value> {
    match event {
        Event::Step { step, done, factor, tokens_per_s } => {
            let loss = done.losses.mean();
            bar.set_position(*step);
            bar.set_message(format!("loss {loss:.3}, {tokens_per_s:.0} tok/s"));
            let norm = match done.outcome {
                Outcome::Applied { norm } => Some(norm),
                Outcome::Skipped { .. } => None,
            };
            let routers: Vec<_> = done
                .losses
                .routers
                .iter()
                .map(|router| json!({"layer": router.layer, "balance": router.balance, "sent": router.sent}))
                .collect();
            Some(json!({"step": step, "loss": loss, "lr_factor": factor, "norm": norm, "tok_per_s": tokens_per_s,
                "routers": routers}))
        }
        Event::Evaluated(step, loss) => {
            bar.println(format!("step {step}: held out {loss:.4} nats a token"));
            Some(json!({"step": step, "held_out": loss}))
        }
        Event::Saved(step) => {
            bar.println(format!("step {step}: saved"));
            None
        }
        Event::NotSaved(step, error) => {
            bar.println(format!("step {step}: not saved: {error}; the run goes on"));
            None
        }
    }
}

fn read_json(path: &Path) -> Result<serde_json::Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

fn fresh(config: &Path, seed: u64) -> Result<Weights> {
    Ok(Weights::fresh(Checkpoint::open(config)?, seed)?)
}

/// A file that holds `config` for as long as it takes to read it.
fn tempfile_beside(config: &serde_json::Value) -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("puna-train-{}.json", std::process::id()));
    fs::write(&path, config.to_string()).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Writes the model as a Hugging Face folder.
fn write_model(folder: &Path, prepared: &Prepared, weights: &Weights) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let checkpoint = weights.checkpoint();
    let tensors: Vec<NewTensor<'_>> = checkpoint
        .tensors
        .values()
        .map(|t| NewTensor { name: &t.name, dtype: DType::Weight(Format::F32), shape: &t.shape, bytes: &t.bytes })
        .collect();
    formats::safetensors::write(&folder.join("model.safetensors"), &tensors)?;
    fs::write(folder.join("config.json"), format!("{:#}\n", prepared.config))?;
    for name in TOKENIZER_FILES {
        let from = prepared.tokenizer.join(name);
        if from.is_file() {
            fs::copy(&from, folder.join(name)).with_context(|| format!("copying {}", from.display()))?;
        }
    }
    Ok(())
}
