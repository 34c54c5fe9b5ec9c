//! Optimisers: from gradients to new weights, in any number of threads with the same bits.
//!
//! An [`Optimizer`] keeps what it remembers of a parameter under the parameter's name: moments, the f32 master of bf16
//! weights, a moving average. A step whose gradients are not all finite is skipped and counted.

mod accumulate;
mod adamw;
mod muon;
mod norm;
mod piece;
mod product;
mod rules;
mod state;
mod threads;

pub use accumulate::Accumulator;
pub use adamw::AdamW;
pub use muon::{Muon, Scale};
pub use norm::global_norm;
pub use product::{Product, Right, plain_product};
pub use rules::{Group, Matrices, Side};
pub use state::StateTensor;
pub use threads::Threads;

use std::collections::BTreeMap;

use half::bf16;
use serde::{Deserialize, Serialize};

use adamw::AdamWStep;
use muon::MuonStep;
use piece::{PIECE_LEN, Piece};
use state::State;

/// What an optimiser is set to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// For all that Muon does not take.
    pub adamw: AdamW,
    /// For matrices inside of layers. `None` leaves those to AdamW too.
    pub muon: Option<Muon>,
    /// Longer gradients, all taken together, are shortened to this norm.
    pub norm_limit: Option<f64>,
    /// Share of the old average that is kept each step, where a moving average of the weights is wanted.
    pub average_decay: Option<f64>,
}

/// Who computes, and how; bits depend on the product alone.
pub struct Compute {
    /// Threads, each with a range of elements or with one of Muon's matrices at a time.
    pub threads: Threads,
    /// Muon's products, several of them at a time.
    pub product: Box<Product>,
}

impl Compute {
    /// Plain products in `threads` threads.
    pub fn plain(threads: Threads) -> Self {
        Self { threads, product: Box::new(plain_product) }
    }
}

/// A trained tensor and its gradient in one step.
#[derive(Debug)]
pub struct Parameter<'a> {
    /// Its name in the checkpoint, which decides its [`Group`].
    pub name: &'a str,
    /// Outermost axis first.
    pub shape: &'a [usize],
    /// Its values, row by row.
    pub weights: Weights<'a>,
    /// As long as the weights.
    pub gradient: &'a [f32],
}

/// Values to be updated.
#[derive(Debug)]
pub enum Weights<'a> {
    /// In place.
    F32(&'a mut [f32]),
    /// Through f32 masters that the optimiser keeps, begun with these: a step is smaller than the distance between two
    /// neighbours of this format.
    Bf16(&'a mut [bf16]),
}

impl Weights<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }
}

/// Steps so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// That changed weights.
    pub applied: u64,
    /// That were skipped.
    pub skipped: u64,
    /// That were skipped since the last one that was applied.
    pub skipped_in_a_row: u64,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// Weights were updated.
    Applied {
        /// Of all gradients, before they were shortened.
        norm: f64,
    },
    /// A gradient was not finite, and nothing was changed.
    Skipped {
        /// Skipped steps without an applied one between.
        in_a_row: u64,
    },
}

/// Why a step or a state is refused. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum OptimError {
    /// A parameter's lengths contradict each other.
    #[error("{name}: {weights} weights and {gradients} values of a gradient; its shape has {shape}")]
    Shape {
        /// The parameter.
        name: String,
        /// Its weights.
        weights: usize,
        /// Its gradient's values.
        gradients: usize,
        /// What the shape asks for.
        shape: usize,
    },
    /// Two parameters share a name.
    #[error("{name}: given twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// What was stored is not what the optimiser keeps.
    #[error("{name}: {why}")]
    State {
        /// The parameter or the stored tensor.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// Updates parameters and remembers what it needs from step to step.
pub struct Optimizer {
    settings: Settings,
    compute: Compute,
    counters: Counters,
    states: BTreeMap<String, State>,
}

impl Optimizer {
    /// An optimiser that has seen nothing.
    pub fn new(settings: Settings, compute: Compute) -> Self {
        Self { settings, compute, counters: Counters::default(), states: BTreeMap::new() }
    }

    /// One that goes on where another stood: with its counters, and its tensors by name.
    ///
    /// # Errors
    /// [`OptimError::State`] for a tensor that no optimiser keeps, or moments that do not belong together.
    pub fn restore(
        settings: Settings,
        compute: Compute,
        counters: Counters,
        tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>,
    ) -> Result<Self, OptimError> {
        Ok(Self { settings, compute, counters, states: state::restore(tensors)? })
    }

    /// Goes on where another stood, with the settings it has.
    ///
    /// # Errors
    /// As [`restore`](Self::restore); nothing was changed.
    pub fn resume(
        &mut self,
        counters: Counters,
        tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>,
    ) -> Result<(), OptimError> {
        self.states = state::restore(tensors)?;
        self.counters = counters;
        Ok(())
    }

    /// Steps so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What [`restore`](Self::restore) needs, but for the averages.
    pub fn state(&self) -> Vec<StateTensor<'_>> {
        self.states.iter().flat_map(|(name, state)| state.tensors(name)).collect()
    }

    /// The moving averages of the weights, under names that [`restore`](Self::restore) knows.
    pub fn averages(&self) -> Vec<StateTensor<'_>> {
        self.states.iter().filter_map(|(name, state)| state.average(name)).collect()
    }

    /// Updates all `parameters` by their gradients, with the learning rates at `factor` of their peaks. They may come in
    /// any order.
    ///
    /// A parameter that joins later begins with moments of zero but the count of all steps: its first steps are smaller.
    ///
    /// # Errors
    /// [`OptimError`]; nothing was changed.
    pub fn step(&mut self, factor: f64, mut parameters: Vec<Parameter<'_>>) -> Result<Outcome, OptimError> {
        parameters.sort_by_key(|parameter| parameter.name);
        self.check(&parameters)?;
        let gradients: Vec<&[f32]> = parameters.iter().map(|parameter| parameter.gradient).collect();
        let norm = global_norm(&gradients, self.compute.threads);
        if !norm.is_finite() {
            self.counters.skipped += 1;
            self.counters.skipped_in_a_row += 1;
            return Ok(Outcome::Skipped { in_a_row: self.counters.skipped_in_a_row });
        }
        // The addend is PyTorch's, so that its runs can be repeated.
        let clip = self.settings.norm_limit.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0)) as f32;
        self.counters.applied += 1;
        self.counters.skipped_in_a_row = 0;
        self.update(factor, clip, parameters);
        Ok(Outcome::Applied { norm })
    }

    /// Whether every parameter, in order of name, fits its shape and its state.
    fn check(&self, parameters: &[Parameter<'_>]) -> Result<(), OptimError> {
        for pair in parameters.windows(2) {
            if pair[0].name == pair[1].name {
                return Err(OptimError::Twice { name: pair[0].name.into() });
            }
        }
        for parameter in parameters {
            let Parameter { name, shape, weights, gradient } = parameter;
            let len = shape.iter().product();
            if weights.len() != len || gradient.len() != len {
                return Err(OptimError::Shape {
                    name: (*name).into(),
                    weights: weights.len(),
                    gradients: gradient.len(),
                    shape: len,
                });
            }
            if let Some(state) = self.states.get(*name) {
                state.check(&self.settings, parameter)?;
            }
        }
        Ok(())
    }

    /// Updates checked parameters, in order of name.
    fn update(&mut self, factor: f64, clip: f32, parameters: Vec<Parameter<'_>>) {
        let Settings { adamw, muon, average_decay, .. } = self.settings;
        for parameter in &parameters {
            if !self.states.contains_key(parameter.name) {
                self.states.insert(parameter.name.into(), State::new(&self.settings, parameter));
            }
        }
        let share = average_decay.map_or(0.0, |decay| 1.0 - decay) as f32;
        let (mut ranges, mut matrices) = (Vec::new(), Vec::new());
        let mut states = self.states.iter_mut();
        for parameter in parameters {
            // Both are in order of name, and every parameter has a state by now.
            let Some((_, state)) = states.find(|(name, _)| *name == parameter.name) else { continue };
            let group = Group::of(parameter.name, parameter.shape);
            let piece = state.piece(parameter.weights, parameter.gradient);
            match (group, muon) {
                (Group::Matrices(each), Some(muon)) => {
                    let step = muon.at(factor, clip, each, &self.compute.product);
                    let pieces = piece.split(each.rows * each.columns);
                    matrices.extend(pieces.into_iter().map(|piece| (step, piece)));
                }
                (group, _) => {
                    let decay = if group == Group::Undecayed { 0.0 } else { adamw.weight_decay };
                    let step = adamw.at(self.counters.applied, factor, decay, clip);
                    ranges.extend(piece.split(PIECE_LEN).into_iter().map(|piece| (step, piece)));
                }
            }
        }
        self.compute.threads.for_each(ranges, |(step, mut piece): (AdamWStep, Piece<'_>)| {
            step.apply(&mut piece);
            piece.finish(share);
        });
        self.compute.threads.for_each(matrices, |(step, mut piece): (MuonStep<'_>, Piece<'_>)| {
            step.apply(&mut piece);
            piece.finish(share);
        });
    }
}
