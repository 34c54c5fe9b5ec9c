//! Learning from another model's probabilities.

use std::sync::Arc;

use formats::Checkpoint;
use llama::Model;
use tensor::{Adjoint, Device};

use crate::objective::{Passing, forward};
use crate::{Mark, Sequence, Tape, TrainError, Var};

/// How a model learns from another one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distillation {
    /// The divergence's share of the loss; the cross-entropy has the rest.
    pub share: f32,
    /// What both models' logits are divided by, τ. The divergence counts τ² times, so that its gradients stay as large
    /// (<https://arxiv.org/abs/1503.02531>).
    pub temperature: f32,
}

/// The model that is learnt from, which stays as it is.
pub struct Teacher<D: Adjoint> {
    tape: Tape<D>,
    model: Model<Tape<D>>,
    how: Distillation,
}

/// What a teacher says of some rows.
pub(crate) struct Lesson<'a, D: Adjoint> {
    teacher: &'a Teacher<D>,
    start: Mark,
    hidden: Var,
}

impl<D: Adjoint> Teacher<D> {
    /// The model of `checkpoint`, in whatever format its weights are.
    ///
    /// # Errors
    /// [`TrainError::Model`] if it does not load.
    pub fn new(dev: Arc<D>, checkpoint: &Checkpoint, how: Distillation) -> Result<Self, TrainError> {
        let tape = Tape::new(dev, |_| false);
        let model = Model::load(&tape, checkpoint, &mut |_| {})?;
        Ok(Self { tape, model, how })
    }

    /// How is learnt from it.
    pub(crate) fn how(&self) -> Distillation {
        self.how
    }

    /// Runs `sequences` through it, for what it says of the rows `wanted`.
    pub(crate) fn lesson(&self, sequences: &[Sequence], wanted: &[usize]) -> Result<Lesson<'_, D>, TrainError> {
        let start = self.tape.mark();
        let (x, _) = forward(&self.tape, &self.model, sequences, &mut Passing(start))?;
        let hidden = self.model.decoder.hidden(&self.tape, &x, wanted)?;
        Ok(Lesson { teacher: self, start, hidden })
    }
}

impl<D: Adjoint> Lesson<'_, D> {
    /// The logits of some of the rows.
    pub(crate) fn logits(&self, rows: &[usize]) -> Result<D::Tensor, TrainError> {
        let Teacher { tape, model, .. } = self.teacher;
        let mark = tape.mark();
        let logits = model.decoder.logits(tape, &tape.rows(&self.hidden, rows)?)?;
        let value = tape.value(&logits)?;
        tape.discard(mark);
        Ok(value)
    }
}

impl<D: Adjoint> Drop for Lesson<'_, D> {
    fn drop(&mut self) {
        self.teacher.tape.discard(self.start);
    }
}
