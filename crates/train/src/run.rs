//! A run: steps, measurements, checkpoints, until it is done or told to stop.

use std::time::Instant;

use serde_json::json;
use tensor::Adjoint;

use crate::checkpoint::{CheckpointError, Checkpoints, Loaded, SavedTensor, Snapshot, Storage, Values};
use crate::optim::{Counters, Outcome, StateTensor};
use crate::schedule::Schedule;
use crate::{Feed, Step, TrainError, Trainer};

/// Sequences that a measurement of what is held out takes at most.
const MEASURED: usize = 64;

/// A run.
pub struct Run<D: Adjoint, S> {
    trainer: Trainer<D>,
    feed: Feed,
    schedule: Schedule,
    checkpoints: Checkpoints<S>,
    plan: Plan,
    /// Steps that are done.
    step: u64,
}

/// How long a run is, and what it does now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Steps in all.
    pub steps: u64,
    /// Sequences of a step.
    pub batch: usize,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Steps between measurements of what is held out.
    pub evaluate_every: u64,
}

/// What a run tells while it goes.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step is done.
    Step {
        /// Its number, from 1.
        step: u64,
        /// What it did.
        done: &'a Step,
        /// The learning rate's share of its peak.
        factor: f64,
        /// Tokens a second.
        tokens_per_s: f64,
    },
    /// What is held out was measured after so many steps: the mean cross-entropy in nats a token.
    Evaluated(u64, f64),
    /// A checkpoint was written after so many steps.
    Saved(u64),
    /// It could not be; the run goes on.
    NotSaved(u64, CheckpointError),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Done,
    /// It was told to stop.
    Stopped,
}

impl<D: Adjoint, S: Storage> Run<D, S> {
    /// A run from its beginning.
    pub fn new(
        trainer: Trainer<D>,
        feed: Feed,
        (schedule, plan): (Schedule, Plan),
        checkpoints: Checkpoints<S>,
    ) -> Self {
        Self { trainer, feed, schedule, checkpoints, plan, step: 0 }
    }

    /// Goes on where `loaded` was saved.
    ///
    /// # Errors
    /// [`TrainError`] if it is of another model or not what a run saves.
    pub fn resume(&mut self, loaded: Loaded) -> Result<(), TrainError> {
        let wrong = |why: &str| TrainError::Resume { step: loaded.step, why: why.into() };
        let counters = loaded.state.get("counters").cloned().unwrap_or_default();
        let counters: Counters = serde_json::from_value(counters).map_err(|e| wrong(&e.to_string()))?;
        if loaded.state.get("batch").and_then(serde_json::Value::as_u64) != Some(self.plan.batch as u64) {
            return Err(wrong("it was saved by a run with another batch"));
        }
        let tensors = loaded.optimizer.into_iter().chain(loaded.averages);
        self.trainer.restore(loaded.weights, counters, tensors)?;
        self.step = loaded.step;
        Ok(())
    }

    /// Steps until all are done, or `stop` says so, and a last checkpoint. `tell` hears of everything.
    ///
    /// # Errors
    /// [`TrainError`] if a step fails, or the last checkpoint can not be written.
    pub fn go(&mut self, stop: &dyn Fn() -> bool, tell: &mut dyn FnMut(&Event<'_>)) -> Result<End, TrainError> {
        let mut saved = self.step;
        while self.step < self.plan.steps && !stop() {
            let factor = self.schedule.factor(self.step);
            let first = self.step * self.plan.batch as u64;
            let batch: Vec<_> = (first..first + self.plan.batch as u64).map(|index| self.feed.at(index)).collect();
            let begin = Instant::now();
            let done = self.trainer.step(&batch, factor)?;
            self.step += 1;
            let tokens_per_s = done.losses.n_rows as f64 / begin.elapsed().as_secs_f64();
            tell(&Event::Step { step: self.step, done: &done, factor, tokens_per_s });
            if let Outcome::Skipped { in_a_row } = done.outcome
                && in_a_row >= MOST_SKIPPED
            {
                return Err(TrainError::Diverged { step: self.step, in_a_row });
            }
            if self.step.is_multiple_of(self.plan.evaluate_every) || self.step == self.plan.steps {
                self.evaluate(tell)?;
            }
            if self.step.is_multiple_of(self.plan.save_every) && self.step < self.plan.steps {
                match self.save() {
                    Ok(()) => {
                        saved = self.step;
                        tell(&Event::Saved(self.step));
                    }
                    Err(error) => tell(&Event::NotSaved(self.step, error)),
                }
            }
        }
        if saved != self.step {
            self.save()?;
            tell(&Event::Saved(self.step));
        }
        Ok(if self.step < self.plan.steps { End::Stopped } else { End::Done })
    }

    fn evaluate(&self, tell: &mut dyn FnMut(&Event<'_>)) -> Result<(), TrainError> {
        let held_out = self.feed.held_out(MEASURED);
        if !held_out.is_empty() {
            tell(&Event::Evaluated(self.step, self.trainer.evaluate(&held_out)?.mean()));
        }
        Ok(())
    }

    fn save(&self) -> Result<(), CheckpointError> {
        let optimizer = self.trainer.optimizer();
        let weights: Vec<SavedTensor<'_>> = self
            .trainer
            .weights()
            .tensors()
            .map(|(name, shape, values)| SavedTensor { name, shape, values: Values::F32(values) })
            .collect();
        let (moments, averages) = (optimizer.state(), optimizer.averages());
        let state = json!({"counters": optimizer.counters(), "batch": self.plan.batch});
        self.checkpoints.save(&Snapshot {
            step: self.step,
            weights: &weights,
            optimizer: &moments.iter().map(saved).collect::<Vec<_>>(),
            averages: &averages.iter().map(saved).collect::<Vec<_>>(),
            state: &state,
        })?;
        Ok(())
    }

    /// Steps that are done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// What is trained.
    pub fn trainer(&self) -> &Trainer<D> {
        &self.trainer
    }
}

/// Steps that may be skipped one after another before a run gives up: its weights will not become better by themselves.
const MOST_SKIPPED: u64 = 50;

fn saved<'a>(tensor: &'a StateTensor<'a>) -> SavedTensor<'a> {
    SavedTensor { name: &tensor.name, shape: tensor.shape, values: Values::F32(tensor.values) }
}
