//! Training as a device: [`Tape`] records the operations that a model runs on another device, and runs their adjoints.
//!
//! The model's code is the one that serves: it computes on a tape as on any device, with the same bits. Which weights are
//! trained is asked by the names of their tensors; everything that only frozen weights and inputs lead to has no
//! gradient and costs none.

mod device;
mod op;
mod rewind;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tensor::{Adjoint, OpError, Origin, WeightSource};

use op::Op;

/// A device that remembers what it did on another one.
pub struct Tape<D: Adjoint> {
    dev: Arc<D>,
    is_trained: Box<dyn Fn(&str) -> bool + Send + Sync>,
    state: Mutex<State<D>>,
}

/// The result of an op on a [`Tape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Var {
    id: usize,
    shape: [usize; 2],
}

/// A linear map, packed for the steps forward, with its parts as they are stored for those backward.
pub struct Map<D: Adjoint> {
    inner: D::Matrix,
    parts: Vec<WeightSource>,
    /// The tensor of each part that is trained.
    origins: Vec<Option<Origin>>,
}

/// A table, with the tensor that it is.
pub struct Table<D: Adjoint> {
    inner: D::Table,
    /// Rows and width, and the tensor if it is trained.
    shape: [usize; 2],
    origin: Option<Origin>,
}

/// A parameter vector, with the tensors that it is made of.
pub struct Vector<D: Adjoint> {
    inner: D::Vector,
    /// Each part's length, and its tensor if it is trained.
    parts: Vec<(usize, Option<Origin>)>,
}

/// Pages that know which results they hold.
pub struct Pages<D: Adjoint> {
    inner: D::Pages,
    head_len: usize,
    /// The keys and values of every time that something was stored.
    stores: Vec<[Var; 2]>,
    /// Which of these, and which of its rows, each slot holds.
    held: Vec<Option<(usize, usize)>>,
}

/// Where the rows of a result were sent, and the logits that decided it.
pub struct Routing<D: Adjoint> {
    inner: D::Routing,
    logits: Var,
    /// The scores of the sent rows, and for each the row and the expert that it was made of.
    scores: Vec<f32>,
    sent: Vec<(usize, usize)>,
}

struct Node<D: Adjoint> {
    op: Op<D>,
    /// `None` where it was dropped, to be computed again.
    value: Option<D::Tensor>,
    /// Whether a trained weight had a part in it.
    has_gradient: bool,
}

struct State<D: Adjoint> {
    nodes: Vec<Node<D>>,
    /// Gradients of results, as far as they are known.
    seeds: BTreeMap<usize, D::Tensor>,
    gradients: BTreeMap<String, Vec<f32>>,
    /// Ranges of nodes whose values were dropped.
    dropped: Vec<Range<usize>>,
}

/// A place on a tape: everything recorded before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(usize);

impl<D: Adjoint> Tape<D> {
    /// An empty tape on `dev`. `is_trained` says which tensors, by name, get gradients.
    pub fn new(dev: Arc<D>, is_trained: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let state =
            State { nodes: Vec::new(), seeds: BTreeMap::new(), gradients: BTreeMap::new(), dropped: Vec::new() };
        Self { dev, is_trained: Box::new(is_trained), state: Mutex::new(state) }
    }

    /// The device that computes.
    pub fn inner(&self) -> &D {
        &self.dev
    }

    /// The end of what is recorded.
    pub fn mark(&self) -> Mark {
        Mark(self.state().nodes.len())
    }

    /// Drops the results since `from`, but for `kept` and those of attention, to be computed again on the way back: a
    /// layer's memory for the time of a second run through it.
    pub fn forget(&self, from: Mark, kept: &Var) {
        let mut state = self.state();
        let range = from.0..state.nodes.len();
        for (id, node) in state.nodes[range.clone()].iter_mut().enumerate() {
            if from.0 + id != kept.id && node.op.can_repeat() {
                node.value = None;
            }
        }
        state.dropped.push(range);
    }

    /// Takes everything since `from` off the tape, and nothing goes back: what was only to be looked at.
    pub fn discard(&self, from: Mark) {
        let mut state = self.state();
        state.nodes.truncate(from.0);
        state.seeds.retain(|id, _| *id < from.0);
        state.dropped.retain(|range| range.start < from.0);
    }

    /// The value of `x` on the inner device.
    ///
    /// # Errors
    /// [`OpError::Index`] if `x` is not on the tape any more, or was [forgotten](Self::forget).
    pub fn value(&self, x: &Var) -> Result<D::Tensor, OpError> {
        self.state().value(x)
    }

    /// Adds `gradient`, shaped like it, to the gradient of `x`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the shapes differ.
    pub fn seed(&self, x: &Var, gradient: D::Tensor) -> Result<(), OpError> {
        if self.dev.shape(&gradient) != x.shape {
            let what = format!("a gradient of {:?} for a result of {:?}", self.dev.shape(&gradient), x.shape);
            return Err(OpError::shape("seed", what));
        }
        self.state().add_seed(&*self.dev, x.id, gradient)
    }

    /// Gradients of what was trained, by tensor, in the shape and order in which each is stored; those that nothing led
    /// to are missing. The next ones start from nothing.
    pub fn take_gradients(&self) -> BTreeMap<String, Vec<f32>> {
        std::mem::take(&mut self.state().gradients)
    }

    /// Gradients so far, for `change`: to scale them or to keep their memory.
    pub fn with_gradients<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<f32>>) -> T) -> T {
        change(&mut self.state().gradients)
    }

    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trained(&self, source: &WeightSource) -> Option<Origin> {
        source.origin().filter(|origin| (self.is_trained)(&origin.name)).cloned()
    }

    /// Records a result.
    fn record(&self, op: Op<D>, value: D::Tensor) -> Var {
        let mut state = self.state();
        let shape = self.dev.shape(&value);
        let has_gradient = op.is_trained() || op.inputs().iter().any(|x| state.nodes[x.id].has_gradient);
        let id = state.nodes.len();
        state.nodes.push(Node { op, value: Some(value), has_gradient });
        Var { id, shape }
    }
}

impl<D: Adjoint> State<D> {
    fn value(&self, x: &Var) -> Result<D::Tensor, OpError> {
        let node = self.nodes.get(x.id);
        let value = node.and_then(|node| node.value.clone());
        value.ok_or(OpError::Index { op: "tape", index: x.id, len: self.nodes.len() })
    }

    fn add_seed(&mut self, dev: &D, id: usize, gradient: D::Tensor) -> Result<(), OpError> {
        let sum = match self.seeds.remove(&id) {
            Some(earlier) => dev.add(&earlier, &gradient)?,
            None => gradient,
        };
        self.seeds.insert(id, sum);
        Ok(())
    }
}

impl<D: Adjoint> std::fmt::Debug for Tape<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tape({} results)", self.state().nodes.len())
    }
}
