//! What is seen of a run while it goes: a bar, and a line of metrics for each step.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use cpu::Cpu;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use train::checkpoint::Disk;
use train::optim::Outcome;
use train::{End, Event, Run};

use crate::interrupt::Watch;

/// Points of the small curve beside the bar.
const POINTS: usize = 24;

/// What a run does before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// Its first step.
    Step,
    /// It measures what is held out, unless it goes on from a checkpoint.
    Measure,
}

/// Runs to the end or to Ctrl-C.
pub fn follow(run: &mut Run<Cpu, Disk>, out: &Path, first: First) -> Result<End> {
    let watch = Watch::begin();
    let path = out.join("metrics.jsonl");
    let metrics = fs::OpenOptions::new().create(true).append(true).open(&path);
    let metrics = metrics.with_context(|| format!("opening {}", path.display()))?;
    let bar = ProgressBar::new(run.n_steps()).with_position(run.step());
    bar.set_style(ProgressStyle::with_template("{bar:20} {pos}/{len} {msg} {eta}")?);
    let mut shown = Shown { bar, metrics, failed: None, losses: Vec::new(), n_steps: run.n_steps() };
    if first == First::Measure && run.step() == 0 {
        run.evaluate(&mut |event| shown.hear(event))?;
    }
    let end = run.go(&|| watch.is_interrupted(), &mut |event| shown.hear(event));
    shown.bar.finish_and_clear();
    if let Some(error) = shown.failed {
        eprintln!("puna: warning: {}: {error}; some metrics are missing", path.display());
    }
    Ok(end?)
}

struct Shown {
    bar: ProgressBar,
    metrics: File,
    /// Why a line of metrics is missing.
    failed: Option<std::io::Error>,
    losses: Vec<f64>,
    n_steps: u64,
}

impl Shown {
    fn hear(&mut self, event: &Event<'_>) {
        if let Some(entry) = self.show(event)
            && let Err(error) = writeln!(self.metrics, "{entry}")
        {
            // A full disk loses metrics, not the run.
            self.failed.get_or_insert(error);
        }
    }

    /// A line above the bar, or on standard error where that is no terminal.
    fn say(&self, text: &str) {
        match std::io::stderr().is_terminal() {
            true => self.bar.println(text),
            false => eprintln!("{text}"),
        }
    }

    /// Shows `event`; gives its line of metrics, if it has one.
    fn show(&mut self, event: &Event<'_>) -> Option<Value> {
        match event {
            Event::Stage(name) => {
                self.say(&format!("stage {name}"));
                Some(json!({"stage": name}))
            }
            Event::Step { step, done, factor, tokens_per_s } => {
                let loss = done.losses.mean();
                self.losses.push(loss);
                let balances = done.losses.routers.iter().map(|router| router.balance);
                let balance = balances.clone().sum::<f64>() / balances.count().max(1) as f64;
                self.bar.set_position(*step);
                self.bar.set_message(format!(
                    "loss {loss:.3} {} lr {factor:.2} balance {balance:.2} {tokens_per_s:.0} tok/s",
                    sparkline(&self.losses)
                ));
                let norm = match done.outcome {
                    Outcome::Applied { norm } => Some(norm),
                    Outcome::Skipped { .. } => None,
                };
                let router = |router: &train::RouterLoss| json!({"layer": router.layer, "balance": router.balance, "sent": router.sent});
                let routers: Vec<_> = done.losses.routers.iter().map(router).collect();
                // Of a run without a teacher, 0.
                let divergence = done.losses.divergence / done.losses.weight;
                Some(
                    json!({"step": step, "loss": loss, "divergence": divergence, "lr_factor": factor, "norm": norm, "tok_per_s": tokens_per_s,
                    "tokens": done.losses.n_rows, "routers": routers}),
                )
            }
            Event::Evaluated { step, mean, by_source } => {
                let recent = self.losses.last().map(|loss| format!("loss {loss:.4}, "));
                let (recent, n_steps) = (recent.unwrap_or_default(), self.n_steps);
                self.say(&format!("step {step} of {n_steps}: {recent}held out {mean:.4} nats a token"));
                let by_source: serde_json::Map<String, Value> =
                    by_source.iter().map(|(name, loss)| ((*name).to_owned(), json!(loss))).collect();
                Some(json!({"step": step, "held_out": mean, "by_source": by_source}))
            }
            Event::Saved(step) => {
                self.say(&format!("step {step}: saved"));
                None
            }
            Event::NotSaved(step, error) => {
                self.say(&format!("step {step}: not saved: {error}; the run goes on"));
                None
            }
        }
    }
}

/// A curve of at most [`POINTS`] characters, the lowest and the highest value as its bottom and top.
fn sparkline(values: &[f64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let part = values.len().div_ceil(POINTS).max(1);
    let means: Vec<f64> = values.chunks(part).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    let (low, high) = means.iter().fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
    let level = |x: &f64| {
        let share = (x - low) / (high - low).max(f64::MIN_POSITIVE);
        // Not a number, as the loss of a step that failed may be, is the lowest.
        LEVELS[((share * 7.0).round() as usize).min(7)]
    };
    means.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_from_the_top_to_the_bottom() {
        let falling: Vec<f64> = (0..100).map(|i| f64::from(100 - i)).collect();
        let curve: Vec<char> = sparkline(&falling).chars().collect();
        assert_eq!((curve.len(), curve[0], curve[19]), (20, '█', '▁'));
        assert_eq!(sparkline(&[1.0]), "▁");
        assert_eq!(sparkline(&[f64::NAN, 2.0]).chars().count(), 2);
    }
}
