//! Steps: sequences in, changed weights out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use formats::{DType, Tensor};
use llama::Model;
use tensor::Adjoint;

use crate::optim::{Counters, Optimizer, Outcome};
use crate::preference::{Preference, log_probabilities};
use crate::{Losses, Objective, Sequence, Tape, Teacher, TrainError, Weights, data, evaluate};

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
    /// How pairs are learnt from, and the whole model that they are measured against; beside an adapter, that is the
    /// model without it.
    preference: Option<(Preference, Option<Weights>)>,
    /// Who else is learnt from.
    teacher: Option<Teacher<D>>,
    /// The model that an adapter is beside, between steps.
    kept: Option<Loaded<D>>,
}

/// A model on a tape.
struct Loaded<D: Adjoint> {
    tape: Tape<D>,
    model: Model<Tape<D>>,
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
        Self { dev, weights, optimizer, objective, trained, rows, preference: None, teacher: None, kept: None }
    }

    /// Learns from pairs of answers too, measured against the weights as they are now.
    #[must_use]
    pub fn preferring(mut self, preference: Preference) -> Self {
        let reference = self.weights.lora().is_none().then(|| self.weights.clone());
        self.preference = Some((preference, reference));
        self
    }

    /// Learns from what `teacher` says too.
    #[must_use]
    pub fn taught_by(self, teacher: Teacher<D>) -> Self {
        Self { teacher: Some(teacher), ..self }
    }

    /// One step on what `step` has: sequences, or pairs of answers.
    ///
    /// # Errors
    /// [`TrainError::Sequence`] for pairs where nobody has said [how](Self::preferring) to learn from them, and for both
    /// together; else as [`step`](Self::step).
    pub fn learn(&mut self, step: &data::Step, factor: f64) -> Result<Step, TrainError> {
        self.check(step)?;
        match step.pairs.is_empty() {
            true => self.step(&step.sequences, factor),
            false => {
                let (losses, gradients) = self.pair_gradients(&step.pairs)?;
                let outcome = self.optimizer.step(factor, self.weights.parameters(&gradients))?;
                Ok(Step { losses, outcome })
            }
        }
    }

    /// What `step` loses, from which nothing is learnt, with the weights of [`result`](Self::result).
    ///
    /// # Errors
    /// As [`learn`](Self::learn).
    pub fn measure(&mut self, step: &data::Step) -> Result<Losses, TrainError> {
        self.check(step)?;
        let Some((preference, _)) = self.preference.as_ref().filter(|_| !step.pairs.is_empty()) else {
            return self.evaluate(&step.sequences);
        };
        let preference = *preference;
        let sequences: Vec<Sequence> = step.pairs.iter().flatten().cloned().collect();
        let references = self.references(&sequences)?;
        let loaded = self.load(&self.result()?)?;
        let now = self.log_probabilities(&loaded, &sequences)?;
        self.keep(loaded);
        Ok(preference.measure(&now, &references))
    }

    fn check(&self, step: &data::Step) -> Result<(), TrainError> {
        let wrong = |why: &str| Err(TrainError::Sequence { why: why.into() });
        match (&self.preference, step.sequences.is_empty(), step.pairs.is_empty()) {
            (None, _, false) => wrong("it is a preference pair, which this way of training has no loss for"),
            (Some(_), false, _) => wrong("it is no preference pair, and from pairs alone is learnt here"),
            _ => Ok(()),
        }
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

    fn gradients(&mut self, sequences: &[Sequence]) -> Result<(Losses, BTreeMap<String, Vec<f32>>), TrainError> {
        let loaded = self.load(&self.weights.clone())?;
        let total = sequences.iter().map(Sequence::weight).sum::<f64>();
        let n_rows: usize = sequences.iter().map(Sequence::len).sum();
        let mut losses = Losses::default();
        for piece in pieces(sequences, Sequence::len, self.rows) {
            let share = piece.iter().map(Sequence::len).sum::<usize>() as f32 / n_rows.max(1) as f32;
            let on = (&loaded.tape, &loaded.model);
            losses.merge(&self.objective.accumulate_from(self.teacher.as_ref(), on, piece, (total, share))?);
        }
        let gradients = loaded.tape.take_gradients();
        self.keep(loaded);
        Ok((losses, gradients))
    }

    fn pair_gradients(&mut self, pairs: &[[Sequence; 2]]) -> Result<(Losses, BTreeMap<String, Vec<f32>>), TrainError> {
        let Some((preference, _)) = self.preference else { return Ok(Default::default()) };
        let sequences: Vec<Sequence> = pairs.iter().flatten().cloned().collect();
        let references = self.references(&sequences)?;
        let loaded = self.load(&self.weights.clone())?;
        let (mut losses, mut rest) = (Losses::default(), references.as_slice());
        let len = |pair: &[Sequence; 2]| pair.iter().map(Sequence::len).sum();
        for piece in pieces(pairs, len, self.rows) {
            let (of_piece, after) = rest.split_at((2 * piece.len()).min(rest.len()));
            rest = after;
            let on = (&loaded.tape, &loaded.model);
            losses.merge(&preference.accumulate(on, &self.objective, piece, of_piece, pairs.len())?);
        }
        let gradients = loaded.tape.take_gradients();
        self.keep(loaded);
        Ok((losses, gradients))
    }

    /// Log-probabilities of the model that answers are measured against.
    fn references(&mut self, sequences: &[Sequence]) -> Result<Vec<f64>, TrainError> {
        let loaded = match &self.preference {
            Some((_, Some(reference))) => self.whole(reference)?,
            _ => self.bare()?,
        };
        let references = self.log_probabilities(&loaded, sequences)?;
        self.keep(loaded);
        Ok(references)
    }

    fn log_probabilities(&self, on: &Loaded<D>, sequences: &[Sequence]) -> Result<Vec<f64>, TrainError> {
        let mut all = Vec::with_capacity(sequences.len());
        for piece in pieces(sequences, Sequence::len, self.rows) {
            all.extend(log_probabilities(&on.tape, &on.model, piece, self.objective.logit_rows)?);
        }
        Ok(all)
    }

    /// From now on trains those tensors that `trained` names.
    pub fn train_only(&mut self, trained: Trained) {
        self.trained = trained;
        // Its tape has asked already which tensors are trained.
        self.kept = None;
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
    pub fn evaluate(&mut self, sequences: &[Sequence]) -> Result<Losses, TrainError> {
        let loaded = self.load(&self.result()?)?;
        let mut losses = Losses::default();
        for piece in pieces(sequences, Sequence::len, self.rows) {
            losses.merge(&evaluate(&loaded.tape, &loaded.model, piece, self.objective.logit_rows)?);
        }
        self.keep(loaded);
        Ok(losses)
    }

    /// The model that has `weights`: all of them, or an adapter's beside its own.
    fn load(&mut self, weights: &Weights) -> Result<Loaded<D>, TrainError> {
        let Some(lora) = weights.lora() else { return self.whole(weights) };
        let mut loaded = self.bare()?;
        loaded.model.adapt(&loaded.tape, &weights.base().config, &lora)?;
        Ok(loaded)
    }

    fn whole(&self, weights: &Weights) -> Result<Loaded<D>, TrainError> {
        let trained = Arc::clone(&self.trained);
        let tape = Tape::new(Arc::clone(&self.dev), move |name| trained(name));
        let model = Model::load(&tape, &weights.checkpoint(), &mut |_| {})?;
        Ok(Loaded { tape, model })
    }

    /// The model that an adapter is beside, without it. It is loaded once.
    fn bare(&mut self) -> Result<Loaded<D>, TrainError> {
        if let Some(kept) = self.kept.take() {
            return Ok(kept);
        }
        let trained = Arc::clone(&self.trained);
        let names: BTreeSet<String> = self.weights.tensors().map(|(name, _, _)| name.to_owned()).collect();
        let tape = Tape::new(Arc::clone(&self.dev), move |name| names.contains(name) && trained(name));
        let model = Model::load(&tape, self.weights.base(), &mut |_| {})?;
        Ok(Loaded { tape, model })
    }

    /// Keeps a model for the next step, without what was beside it: the step changes that in place.
    fn keep(&mut self, mut loaded: Loaded<D>) {
        if self.weights.lora().is_some() {
            loaded.model.unadapt();
            self.kept = Some(loaded);
        }
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

/// Runs of `all` that go through the model together, of at most `rows` rows but one at least.
fn pieces<T>(mut all: &[T], len: impl Fn(&T) -> usize, rows: usize) -> Vec<&[T]> {
    let mut pieces = Vec::new();
    while !all.is_empty() {
        let ends = all.iter().scan(0, |end, one| {
            *end += len(one);
            Some(*end)
        });
        let n = ends.take_while(|end| *end <= rows).count().max(1);
        let (piece, rest) = all.split_at(n);
        pieces.push(piece);
        all = rest;
    }
    pieces
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
