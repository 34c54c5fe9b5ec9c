//! Rows to learn from, and what becomes of them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use cpu::Cpu;
use llama::Input;
use serde_json::{Value, json};
use train::checkpoint::{Checkpoints, Disk};
use train::data::{
    Columns, DataError, Encoder, Feed, FeedSettings, Ingredient, Mixture, MixtureSettings, Rows, Source, Step, Unit,
    is_held_out,
};
use train::optim::{AdamW, Compute, Optimizer, Settings, Threads};
use train::schedule::{Schedule, Shape};
use train::{Memory, Objective, Plan, Preference, Run, Sequence, Stage, Trainer};

use super::{Finetune, Method, ScheduleName, Subject};
use crate::commands::train::forecast::kept_bytes;
use crate::commands::train::prepare::{WINDOW, measured};
use crate::failure::usage;
use crate::memory::size;
use crate::model;
use crate::output::{line, thousands};

/// Tokens of a sequence where nobody says.
const LENGTH: usize = 1024;

/// Rows of each file that are measured at most.
const MEASURED: usize = 64;

/// The data, and what it makes of a run.
pub struct Prepared {
    files: Vec<Count>,
    /// Tokens of a sequence at most.
    length: usize,
    n_steps: u64,
    stage: Stage,
}

/// What a file has to learn from.
struct Count {
    path: PathBuf,
    n_rows: u64,
    n_tokens: u64,
    n_learnt: u64,
    n_left_out: u64,
}

impl Prepared {
    /// Reads every row once, and opens the data.
    pub fn read(command: &Finetune, subject: &Subject) -> Result<Self> {
        let most = subject.checkpoint.config.text.max_positions;
        let length = command.steps.length.unwrap_or(LENGTH.min(most));
        if !(2..=most).contains(&length) {
            let message = format!("--length {length} is no length of a sequence for this model");
            return Err(usage(message, format!("give 2 to {most}")));
        }
        let encoder = model::encoder(&subject.checkpoint)?;
        let count = |path: &PathBuf| Count::of(path, command, (&encoder, length));
        let files = command.data.iter().map(count).collect::<Result<Vec<_>>>()?;
        let n_tokens: u64 = files.iter().map(|file| file.n_tokens).sum();
        let room = command.steps.batch.saturating_mul(length);
        let passes = (command.steps.epochs * n_tokens as f64 / room as f64).ceil();
        let n_steps = command.steps.steps.unwrap_or(passes.max(1.0) as u64);
        let stage = stage(command, &files, (length, n_steps), model::encoder(&subject.checkpoint)?)?;
        Ok(Self { files, length, n_steps, stage })
    }

    /// Says what will be done, and in how much memory.
    pub fn forecast(&self, command: &Finetune, subject: &Subject) -> Result<()> {
        for Count { path, n_rows, n_tokens, n_learnt, n_left_out } in &self.files {
            let left_out = match n_left_out {
                0 => String::new(),
                n => format!("; {} do not fit --length {}", thousands(*n), self.length),
            };
            line(&format!(
                "{}: {} rows, {} tokens, {} of them learnt{left_out}",
                path.display(),
                thousands(*n_rows),
                thousands(*n_tokens),
                thousands(*n_learnt)
            ))?;
        }
        let n_trained = subject.weights.n_values() as u64;
        let n_all: u64 = subject.checkpoint.tensors.values().map(|tensor| tensor.n_values() as u64).sum();
        let what = match subject.weights.lora() {
            Some(lora) => format!(
                "{} in an adapter of {} maps, beside {}",
                thousands(n_trained),
                lora.maps.len(),
                thousands(n_all)
            ),
            None => format!("all {}", thousands(n_trained)),
        };
        let room = command.steps.batch * self.length;
        line(&format!("parameters: {what}; {} steps of {} tokens", thousands(self.n_steps), thousands(room as u64)))?;
        // Trained numbers, the same packed for kernels, gradients and two moments, four bytes each.
        // Frozen weights as they are stored, and the same packed.
        let frozen = if subject.weights.lora().is_some() { 2 * subject.checkpoint.size_bytes() as u64 } else { 0 };
        let trained = 5 * 4 * n_trained;
        let cut = command.cut(self.length);
        let rows = command.steps.rows.min(command.steps.batch.saturating_mul(self.length)).max(cut);
        let kept = kept_bytes(&subject.checkpoint.config, rows, command.steps.recompute);
        line(&format!(
            "memory: about {}: {} for frozen weights, {} for what is trained, its gradients and moments, {} for what layers keep",
            size(frozen + trained + kept),
            size(frozen),
            size(trained),
            size(kept)
        ))?;
        Ok(())
    }

    /// Who learns.
    fn trainer(command: &Finetune, subject: &Subject) -> Trainer<Cpu> {
        let steps = &command.steps;
        let lr = steps.lr.unwrap_or(match command.method {
            Method::Lora | Method::Qlora => 2e-4,
            Method::Dpo => 5e-5,
            Method::Full => 1e-5,
        });
        let adamw = AdamW { lr, betas: [0.9, 0.999], eps: 1e-8, weight_decay: steps.weight_decay };
        let settings = Settings { adamw, muon: None, norm_limit: Some(steps.clip), average_decay: None };
        let optimizer = Optimizer::new(settings, Compute::plain(Threads::new(command.device.threads())));
        // Routers are frozen beside an adapter; where they are trained, they are kept healthy.
        let memory = if steps.recompute { Memory::Recompute } else { Memory::KeepAll };
        let objective = match command.method {
            Method::Full => Objective { memory, ..Objective::default() },
            _ => Objective { memory, balance: 0.0, router_z: 0.0, ..Objective::default() },
        };
        let weights = (subject.weights.clone(), Arc::new(|_: &str| true) as train::Trained);
        let trainer = Trainer::new(
            Arc::new(command.device.open_with(steps.precision)),
            weights,
            optimizer,
            (objective, steps.rows),
        );
        match command.method {
            Method::Dpo => trainer.preferring(Preference { beta: command.adapter.beta }),
            _ => trainer,
        }
    }

    /// The run, from its beginning.
    pub fn run(self, command: &Finetune, subject: &Subject, checkpoints: Checkpoints<Disk>) -> Run<Cpu, Disk> {
        let steps = &command.steps;
        let warm_up = steps.warm_up.unwrap_or(self.n_steps.div_ceil(100) * 3).min(self.n_steps);
        let then = match steps.schedule {
            ScheduleName::Constant => Shape::Constant,
            ScheduleName::Cosine => Shape::Cosine { steps: self.n_steps, floor: 0.0 },
        };
        let plan = Plan { save_every: steps.save_every, evaluate_every: steps.evaluate_every };
        let trainer = Self::trainer(command, subject);
        Run::new(trainer, vec![self.stage], (Schedule { warm_up, then }, plan), checkpoints)
    }

    /// Writes what is held out and what each step will learn from to `file`.
    pub fn write_steps(&self, command: &Finetune, subject: &Subject, file: &Path) -> Result<()> {
        let writing = || format!("writing {}", file.display());
        let mut out = std::io::BufWriter::new(std::fs::File::create(file).with_context(writing)?);
        for (name, step) in &self.stage.held_out {
            writeln!(out, "{}", shown("held_out", &json!(name), step)).with_context(writing)?;
        }
        let mut feed = feed(command, &self.files, self.length, model::encoder(&subject.checkpoint)?)?;
        for number in 1..=self.n_steps {
            writeln!(out, "{}", shown("step", &json!(number), &feed.next_step()?)).with_context(writing)?;
        }
        out.flush().with_context(writing)
    }
}

/// A step as JSON, with `key` for what it is.
fn shown(key: &str, value: &Value, step: &Step) -> Value {
    json!({key: value, "pairs": all(step.pairs.iter().flatten()), "sequences": all(&step.sequences)})
}

/// Sequences as JSON; rows of images and clips are null.
fn all<'a>(sequences: impl IntoIterator<Item = &'a Sequence>) -> Vec<Value> {
    let input = |input: &Input| match input {
        Input::Token(id) => Some(*id),
        Input::Feature { .. } => None,
    };
    let one = |sequence: &Sequence| {
        let inputs: Vec<Option<u32>> = sequence.inputs.iter().map(input).collect();
        json!({"inputs": inputs, "targets": sequence.targets, "weights": sequence.weights})
    };
    sequences.into_iter().map(one).collect()
}

impl Count {
    /// Reads and encodes every row of `path` that is not held out.
    fn of(path: &Path, command: &Finetune, (encoder, length): (&Encoder, usize)) -> Result<Self> {
        let mut count = Self { path: path.into(), n_rows: 0, n_tokens: 0, n_learnt: 0, n_left_out: 0 };
        for raw in Rows::open(path, Columns::OfSamples)? {
            let raw = raw?;
            let row = raw.parse()?;
            if is_held_out(row.hash(), command.held_out) {
                continue;
            }
            let wrong = |why: String| DataError::Row { place: raw.place.clone(), why };
            let cut = command.cut(length);
            let encoded = encoder.encode(&row, cut).map_err(wrong)?;
            count.n_rows += 1;
            count.n_left_out += encoded.n_left_out as u64;
            for unit in encoded.units {
                count.n_tokens += unit.n_rows() as u64;
                let sequences = match (unit, command.method) {
                    (Unit::One(sequence), Method::Lora | Method::Qlora | Method::Full) => vec![sequence],
                    (Unit::Pair { chosen, rejected }, Method::Dpo) => vec![chosen, rejected],
                    (Unit::One(_), Method::Dpo) => {
                        let message = format!("{}: is no pair of answers, and dpo learns from pairs alone", raw.place);
                        return Err(usage(message, "give rows with \"chosen\" and \"rejected\", or use --method lora"));
                    }
                    (Unit::Pair { .. }, _) => {
                        let message =
                            format!("{}: is a pair of answers, from which this method does not learn", raw.place);
                        return Err(usage(message, "use --method dpo, or give rows with \"messages\" or \"text\""));
                    }
                };
                count.n_learnt += sequences.iter().map(Sequence::weight).sum::<f64>() as u64;
            }
        }
        if count.n_learnt == 0 {
            let message = format!("{}: there is nothing in it to learn from", path.display());
            let way =
                format!("a row is learnt if an answer begins within --length {length} tokens, and it is not held out");
            return Err(usage(message, way));
        }
        Ok(count)
    }
}

impl Finetune {
    /// Tokens of a unit at most: a pair is two sequences.
    fn cut(&self, length: usize) -> usize {
        if self.method == Method::Dpo { 2 * length } else { length }
    }
}

/// An endless row of steps. Files are read as often as they have rows.
fn feed(command: &Finetune, files: &[Count], length: usize, encoder: Encoder) -> Result<Feed> {
    let settings = MixtureSettings { seed: command.seed, held_out: command.held_out, ..MixtureSettings::default() };
    let ingredient = |file: &Count| Ingredient { source: Source::File(file.path.clone()), weight: file.n_rows as f64 };
    let mixture = Mixture::new(files.iter().map(ingredient).collect(), settings)?;
    let cut = command.cut(length);
    let rows = command.steps.batch.saturating_mul(length).max(cut);
    Ok(Feed::new(mixture, encoder, FeedSettings { rows, cut, window: WINDOW })?)
}

/// All steps, and what is measured.
fn stage(command: &Finetune, files: &[Count], (length, steps): (usize, u64), encoder: Encoder) -> Result<Stage> {
    let sources = files.iter().map(|file| Source::File(file.path.clone()));
    let measured = measured(sources, (command.seed, command.held_out), &encoder, (command.cut(length), MEASURED))?;
    let feed = feed(command, files, length, encoder)?;
    Ok(Stage {
        name: command.method.name().into(),
        steps,
        factor: 1.0,
        trained: Arc::new(|_| true),
        feed,
        held_out: measured,
    })
}
