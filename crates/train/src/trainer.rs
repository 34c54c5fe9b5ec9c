//! Steps: sequences in, changed weights out.

use std::collections::BTreeMap;
use std::sync::Arc;

use formats::{DType, Tensor};
use llama::Model;
use tensor::Adjoint;

use crate::optim::{Counters, Optimizer, Outcome};
use crate::{Losses, Objective, Sequence, Tape, TrainError, Weights, evaluate};

/// Which tensors are trained, by name.
pub type Trained = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A model that learns.
pub struct Trainer<D: Adjoint> {
    dev: Arc<D>,
    weights: Weights,
    optimizer: Optimizer,
    objective: Objective,
    trained: Trained,
    /// Rows that go through the model together; a step of more is computed in pieces.
    rows: usize,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it lost, before the weights were changed.
    pub losses: Losses,
    /// Whether they were changed.
    pub outcome: Outcome,
}

impl<D: Adjoint> Trainer<D> {
    /// Trains those of `weights` that `trained` names on `dev`, at most `rows` rows at a time (but a sequence at least).
    pub fn new(
        dev: Arc<D>,
        (weights, trained): (Weights, Trained),
        optimizer: Optimizer,
        (objective, rows): (Objective, usize),
    ) -> Self {
        Self { dev, weights, optimizer, objective, trained, rows }
    }

    /// One step on `sequences`, with learning rates at `factor` of their peaks.
    ///
    /// # Errors
    /// [`TrainError`]; the weights are what they were.
    pub fn step(&mut self, sequences: &[Sequence], factor: f64) -> Result<Step, TrainError> {
        let (losses, gradients) = self.gradients(sequences)?;
        let outcome = self.optimizer.step(factor, self.weights.parameters(&gradients))?;
        Ok(Step { losses, outcome })
    }

    fn gradients(&self, sequences: &[Sequence]) -> Result<(Losses, BTreeMap<String, Vec<f32>>), TrainError> {
        let (tape, model) = self.load(&self.weights)?;
        let total = sequences.iter().map(Sequence::weight).sum::<f64>();
        let n_rows: usize = sequences.iter().map(Sequence::len).sum();
        let mut losses = Losses::default();
        for piece in self.pieces(sequences) {
            let share = piece.iter().map(Sequence::len).sum::<usize>() as f32 / n_rows.max(1) as f32;
            losses.merge(&self.objective.accumulate(&tape, &model, piece, (total, share))?);
        }
        Ok((losses, tape.take_gradients()))
    }

    /// From now on trains those tensors that `trained` names.
    pub fn train_only(&mut self, trained: Trained) {
        self.trained = trained;
    }

    /// What training came to: the moving averages of the weights where they are kept, else the weights.
    ///
    /// # Errors
    /// [`TrainError::Weights`] for an average of a tensor that there is not.
    pub fn result(&self) -> Result<Weights, TrainError> {
        let mut weights = self.weights.clone();
        for average in self.optimizer.averages() {
            let name = average.name.split_once('.').map_or(average.name.as_str(), |(_, name)| name);
            weights.set(name, average.values.to_vec())?;
        }
        Ok(weights)
    }

    /// The cross-entropy of `sequences`, from which nothing is learnt, with the weights of [`result`](Self::result).
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn evaluate(&self, sequences: &[Sequence]) -> Result<Losses, TrainError> {
        let (tape, model) = self.load(&self.result()?)?;
        let mut losses = Losses::default();
        for piece in self.pieces(sequences) {
            losses.merge(&evaluate(&tape, &model, piece, self.objective.logit_rows)?);
        }
        Ok(losses)
    }

    fn load(&self, weights: &Weights) -> Result<(Tape<D>, Model<Tape<D>>), TrainError> {
        let trained = Arc::clone(&self.trained);
        let tape = Tape::new(Arc::clone(&self.dev), move |name| trained(name));
        let model = Model::load(&tape, &weights.checkpoint(), &mut |_| {})?;
        Ok((tape, model))
    }

    /// Runs of sequences that go through the model together.
    fn pieces<'a>(&self, mut sequences: &'a [Sequence]) -> Vec<&'a [Sequence]> {
        let mut pieces = Vec::new();
        while !sequences.is_empty() {
            let ends = sequences.iter().scan(0, |end, sequence| {
                *end += sequence.len();
                Some(*end)
            });
            let n = ends.take_while(|end| *end <= self.rows).count().max(1);
            let (piece, rest) = sequences.split_at(n);
            pieces.push(piece);
            sequences = rest;
        }
        pieces
    }

    /// Goes on with other weights, and with what an optimiser remembered of its steps.
    ///
    /// # Errors
    /// [`TrainError::Weights`] for a tensor that the model does not have, or that it lacks; [`TrainError::Optim`].
    pub fn restore(
        &mut self,
        weights: Vec<Tensor>,
        counters: Counters,
        state: impl Iterator<Item = Tensor>,
    ) -> Result<(), TrainError> {
        let n_tensors = self.weights.tensors().count();
        if weights.len() != n_tensors {
            let why = format!("{} tensors were saved, the model has {n_tensors}", weights.len());
            return Err(TrainError::Weights { name: "the model".into(), why });
        }
        for tensor in weights {
            self.weights.set(&tensor.name, decoded(&tensor)?)?;
        }
        let state = state.map(|tensor| Ok((tensor.name.clone(), tensor.shape.clone(), decoded(&tensor)?)));
        self.optimizer.resume(counters, state.collect::<Result<Vec<_>, TrainError>>()?)?;
        Ok(())
    }

    /// The weights as they are.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What changes them.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }
}

/// The numbers of a saved tensor.
fn decoded(tensor: &Tensor) -> Result<Vec<f32>, TrainError> {
    let DType::Weight(format) = tensor.dtype else {
        let why = format!("is saved as {}", tensor.dtype.name());
        return Err(TrainError::Weights { name: tensor.name.clone(), why });
    };
    let mut values = vec![0.0; tensor.n_values()];
    format.decode(&tensor.bytes, &mut values);
    Ok(values)
}
