//! `puna finetune`.

mod prepare;
mod subject;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use train::{End, Weights, lora};

use super::train::follow::{self, First};
use super::train::{ResumeArguments, go_on, report, write_model};
use crate::failure::usage;
use crate::model::{DeviceArguments, PrecisionArgument};
use crate::new_folder::NewFolder;
use crate::output::line;

use prepare::Prepared;
use subject::Subject;

/// Train a model further, or an adapter for it, on rows of one's own
///
/// DATA is JSONL or Parquet: a conversation a row in the API's message format, of which the assistant's turns are learnt, or
/// a text; for dpo, a pair of answers. Writes to the folder OUT: checkpoints, `metrics.jsonl`, and at the end `adapter/`,
/// which PEFT, `puna run --lora` and `puna serve --lora` take, or the model. Ctrl-C saves, writes what there is, and stops;
/// `--resume` goes on from the newest checkpoint with the same bits as never stopping.
#[derive(clap::Args)]
pub struct Finetune {
    /// The model: a Hugging Face folder or a GGUF file
    #[arg(short, long, env = "PUNA_MODEL")]
    model: PathBuf,
    /// Files of rows
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// What is trained, and by what
    #[arg(long, default_value = "lora")]
    method: Method,
    /// Where everything is written
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    adapter: AdapterArguments,
    #[command(flatten)]
    steps: StepArguments,
    /// The share of rows that is only measured
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    held_out: f64,
    /// Decides the adapter's first numbers, the order of rows, and which are held out
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    resume: ResumeArguments,
    /// Say what would be trained, in how much memory, and stop
    #[arg(long)]
    dry_run: bool,
    /// Write what is held out and what each step learns from, as tokens, one JSON object a line
    #[arg(long, value_name = "FILE")]
    write_steps: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArguments,
}

/// What is trained, and by what.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// An adapter beside weights that stay as they are
    Lora,
    /// The same beside quantised weights
    Qlora,
    /// All weights
    Full,
    /// An adapter, by pairs of answers of which one is preferred
    Dpo,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Qlora => "qlora",
            Self::Full => "full",
            Self::Dpo => "dpo",
        }
    }
}

/// What an adapter is like.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Adapter")]
pub struct AdapterArguments {
    /// The adapter's rank
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// What the adapter adds is multiplied by this over the rank; by default twice the rank
    #[arg(long)]
    alpha: Option<f64>,
    /// Modules that are adapted, or ends of their names; by default all maps of attention, dense feed-forwards and shared
    /// experts. Routed experts are adapted where they are named: experts.gate_up_proj, experts.down_proj
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    targets: Vec<String>,
    /// Go on with this adapter instead of a fresh one
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["rank", "alpha", "targets"])]
    adapter: Option<PathBuf>,
    /// For dpo: how much moving away from the model as it is costs
    #[arg(long, default_value_t = 0.1)]
    beta: f32,
}

/// How long, and in what steps.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Steps")]
pub struct StepArguments {
    /// Learning rate at its peak; by default 2e-4 for adapters, 5e-5 for dpo, 1e-5 for all weights
    #[arg(long)]
    lr: Option<f64>,
    /// Passes over the rows
    #[arg(long, default_value_t = 1.0, conflicts_with = "steps")]
    epochs: f64,
    /// Steps in all, whatever passes that makes
    #[arg(long)]
    steps: Option<u64>,
    /// Sequences of full length that a step has room for; shorter ones are packed, and see only themselves
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Tokens of a sequence at most; by default 1024, or what the model has
    #[arg(long)]
    length: Option<usize>,
    /// Steps in which the learning rate rises; by default 3 of 100
    #[arg(long, value_name = "STEPS")]
    warm_up: Option<u64>,
    /// What the learning rate does then
    #[arg(long, default_value = "cosine")]
    schedule: ScheduleName,
    /// The share of a weight, times the learning rate, that a step takes from it
    #[arg(long, default_value_t = 0.0)]
    weight_decay: f64,
    /// Longer gradients are shortened to this norm
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
    /// Tokens that go through the model together; a step of more is computed in pieces
    #[arg(long, value_name = "TOKENS", default_value_t = 4096)]
    rows: usize,
    /// Compute layers a second time on the way back, for a fraction of the memory
    #[arg(long)]
    recompute: bool,
    #[command(flatten)]
    precision: PrecisionArgument,
    /// Steps between checkpoints
    #[arg(long, value_name = "STEPS", default_value_t = 100)]
    save_every: u64,
    /// Steps between measurements of what is held out
    #[arg(long, value_name = "STEPS", default_value_t = 100)]
    evaluate_every: u64,
}

/// What the learning rate does after its rise.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum ScheduleName {
    /// It stays
    Constant,
    /// Half a wave of the cosine down to nothing
    Cosine,
}

impl Finetune {
    pub fn run(self) -> Result<ExitCode> {
        self.check()?;
        let subject = Subject::open(&self)?;
        let prepared = Prepared::read(&self, &subject)?;
        prepared.forecast(&self, &subject)?;
        if let Some(file) = &self.write_steps {
            prepared.write_steps(&self, &subject, file)?;
        }
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        let (checkpoints, loaded) = self.resume.open(&self.out)?;
        let mut run = prepared.run(&self, &subject, checkpoints);
        go_on(&mut run, loaded)?;
        let end = follow::follow(&mut run, &self.out, First::Measure)?;
        let title = format!("{}, {}", self.method.name(), self.model.display());
        report::write(&self.out.join("metrics.jsonl"), &self.out.join("report.html"), &title)?;
        let written = self.write(&subject, &run.trainer().result()?)?;
        if end == End::Stopped {
            line(&format!("stopped after step {}; go on with --resume", run.step()))?;
        }
        line(&written)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Refuses numbers that make no run.
    fn check(&self) -> Result<()> {
        let StepArguments { lr, epochs, batch, clip, rows, save_every, evaluate_every, weight_decay, .. } = self.steps;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let zero = [save_every, evaluate_every, self.steps.steps.unwrap_or(1)].contains(&0) || batch == 0 || rows == 0;
        for (is_wrong, what, way) in [
            (!(0.0..0.5).contains(&self.held_out), "--held-out is no share", "give 0 to below 0.5"),
            (!positive(epochs), "--epochs is no number of passes", "give a number above 0"),
            (lr.is_some_and(|lr| !positive(lr)), "--lr is no learning rate", "give a number above 0, such as 2e-4"),
            (!positive(clip), "--clip is no norm", "give a number above 0"),
            (!(0.0..1.0).contains(&weight_decay), "--weight-decay is no share", "give 0 to below 1"),
            (!positive(f64::from(self.adapter.beta)), "--beta is no factor", "give a number above 0, such as 0.1"),
            (zero, "a number of steps, sequences or tokens is 0", "give at least 1"),
        ] {
            if is_wrong {
                return Err(usage(what, way));
            }
        }
        Ok(())
    }

    /// Writes what was trained; says where.
    fn write(&self, subject: &Subject, weights: &Weights) -> Result<String> {
        let Some(lora) = weights.lora() else { return self.write_whole(subject, weights) };
        let folder = self.out.join("adapter");
        let new = NewFolder::create(&folder)?;
        let config = &subject.checkpoint.config;
        let base = fs::canonicalize(&self.model).unwrap_or_else(|_| self.model.clone());
        lora.write(new.partial(), &base.display().to_string(), &lora::targets(config, &lora))?;
        new.replace()?;
        let (model, folder) = (self.model.display(), folder.display());
        Ok(format!("{folder}: the adapter; try `puna run -m {model} --lora {folder} \"…\"`"))
    }

    fn write_whole(&self, subject: &Subject, weights: &Weights) -> Result<String> {
        let checkpoint = weights.checkpoint();
        let path = if checkpoint.is_gguf() {
            let path = self.out.join("model.gguf");
            super::export::write_gguf(&checkpoint, "f32", &path, &self.device)?;
            path
        } else {
            let path = self.out.join("model");
            let skeleton = subject.skeleton.as_ref().context("a folder's files were copied")?;
            write_model(&path, skeleton.path(), weights)?;
            path
        };
        Ok(format!("{}: the model; try `puna run -m {0} \"…\"`", path.display()))
    }
}
