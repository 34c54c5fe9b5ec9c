//! A run: steps, measurements, checkpoints, until it is done or told to stop.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use tensor::Adjoint;

use crate::checkpoint::{CheckpointError, Checkpoints, Loaded, SavedTensor, Snapshot, Storage, Values};
use crate::data;
use crate::optim::{Counters, Outcome, StateTensor};
use crate::schedule::Schedule;
use crate::{Losses, Step, TrainError, Trained, Trainer};

/// A run.
pub struct Run<D: Adjoint, S> {
    trainer: Trainer<D>,
    stages: Vec<Stage>,
    schedule: Schedule,
    checkpoints: Checkpoints<S>,
    plan: Plan,
    /// Steps that are done.
    step: u64,
}

/// Steps of a run that learn the same from the same.
pub struct Stage {
    /// What it is called.
    pub name: String,
    /// How many steps it has.
    pub steps: u64,
    /// What its learning rates are multiplied by.
    pub factor: f64,
    /// Which tensors are trained.
    pub trained: Trained,
    /// What is learnt from.
    pub feed: data::Feed,
    /// What is only measured, by where it comes from.
    pub held_out: Vec<(String, data::Step)>,
}

/// What a run does now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Steps between measurements of what is held out.
    pub evaluate_every: u64,
}

/// What a run tells while it goes.
#[derive(Debug)]
pub enum Event<'a> {
    /// A stage begins.
    Stage(&'a str),
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
    /// What is held out was measured.
    Evaluated {
        /// After so many steps.
        step: u64,
        /// The mean cross-entropy in nats a token.
        mean: f64,
        /// The same by where it comes from.
        by_source: &'a [(&'a str, f64)],
    },
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
        stages: Vec<Stage>,
        (schedule, plan): (Schedule, Plan),
        checkpoints: Checkpoints<S>,
    ) -> Self {
        Self { trainer, stages, schedule, checkpoints, plan, step: 0 }
    }

    /// Goes on where `loaded` was saved.
    ///
    /// # Errors
    /// [`TrainError`] if it is of another model or other data, or not what a run saves.
    pub fn resume(&mut self, loaded: Loaded) -> Result<(), TrainError> {
        let wrong = |why: &str| TrainError::Resume { step: loaded.step, why: why.into() };
        let part = |name: &str| loaded.state.get(name).cloned().unwrap_or_default();
        let counters: Counters = serde_json::from_value(part("counters")).map_err(|e| wrong(&e.to_string()))?;
        self.step = loaded.step;
        if let Some(number) = self.stage_of(loaded.step)
            && part("stage").as_u64() == Some(number as u64)
        {
            let state = serde_json::from_value(part("feed")).map_err(|e| wrong(&e.to_string()))?;
            self.stages[number].feed.resume(&state)?;
        }
        let tensors = loaded.optimizer.into_iter().chain(loaded.averages);
        self.trainer.restore(loaded.weights, counters, tensors)
    }

    /// The number of the stage that `step`, counted from 0, belongs to; `None` behind the last.
    fn stage_of(&self, step: u64) -> Option<usize> {
        let mut end = 0;
        self.stages.iter().position(|stage| {
            end += stage.steps;
            step < end
        })
    }

    /// Steps in all.
    pub fn n_steps(&self) -> u64 {
        self.stages.iter().map(|stage| stage.steps).sum()
    }

    /// Steps until all are done, or `stop` says so, and a last checkpoint. `tell` hears of everything.
    ///
    /// # Errors
    /// [`TrainError`] if a step fails, or the last checkpoint can not be written.
    pub fn go(&mut self, stop: &dyn Fn() -> bool, tell: &mut dyn FnMut(&Event<'_>)) -> Result<End, TrainError> {
        let (mut saved, mut current) = (self.step, None);
        let n_steps = self.n_steps();
        while self.step < n_steps && !stop() {
            let Some(number) = self.stage_of(self.step) else { break };
            let stage = &mut self.stages[number];
            if current != Some(number) {
                tell(&Event::Stage(&stage.name));
                self.trainer.train_only(Arc::clone(&stage.trained));
                current = Some(number);
            }
            let factor = stage.factor * self.schedule.factor(self.step);
            let begin = Instant::now();
            let batch = stage.feed.next_step()?;
            let done = self.trainer.learn(&batch, factor)?;
            self.step += 1;
            let tokens_per_s = done.losses.n_rows as f64 / begin.elapsed().as_secs_f64();
            tell(&Event::Step { step: self.step, done: &done, factor, tokens_per_s });
            if let Outcome::Skipped { in_a_row } = done.outcome
                && in_a_row >= MOST_SKIPPED
            {
                return Err(TrainError::Diverged { step: self.step, in_a_row });
            }
            if self.step.is_multiple_of(self.plan.evaluate_every) || self.step == n_steps {
                self.evaluate(tell)?;
            }
            if self.step.is_multiple_of(self.plan.save_every) && self.step < n_steps {
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
        Ok(if self.step < n_steps { End::Stopped } else { End::Done })
    }

    /// Measures what is held out, as it is measured now and then on the way.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn evaluate(&mut self, tell: &mut dyn FnMut(&Event<'_>)) -> Result<(), TrainError> {
        // Behind a stage's last step, what that stage holds out.
        let step = self.step;
        let Some(number) = self.stage_of(step.saturating_sub(1)) else { return Ok(()) };
        let stage = &self.stages[number];
        let (mut all, mut by_source) = (Losses::default(), Vec::new());
        for (name, held_out) in &stage.held_out {
            let losses = self.trainer.measure(held_out)?;
            by_source.push((name.as_str(), losses.mean()));
            all.merge(&losses);
        }
        if all.weight > 0.0 {
            tell(&Event::Evaluated { step, mean: all.mean(), by_source: &by_source });
        }
        Ok(())
    }

    fn save(&self) -> Result<(), CheckpointError> {
        let stage = self.stage_of(self.step);
        let feed = stage.map(|number| self.stages[number].feed.state());
        let optimizer = self.trainer.optimizer();
        let weights: Vec<SavedTensor<'_>> = self
            .trainer
            .weights()
            .tensors()
            .map(|(name, shape, values)| SavedTensor { name, shape, values: Values::F32(values) })
            .collect();
        let (moments, averages) = (optimizer.state(), optimizer.averages());
        let state = json!({"counters": optimizer.counters(), "stage": stage, "feed": feed});
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
