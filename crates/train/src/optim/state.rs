//! What an optimiser remembers of a parameter, and its names in a checkpoint.

use std::collections::BTreeMap;

use super::piece::Piece;
use super::rules::Group;
use super::{OptimError, Parameter, Settings, Weights};

/// A tensor that an optimiser keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct StateTensor<'a> {
    /// What it is, a dot, and its parameter's name.
    pub name: String,
    /// Its parameter's.
    pub shape: &'a [usize],
    /// Its values.
    pub values: &'a [f32],
}

/// What a tensor is, as its name in a checkpoint begins.
type Kind = &'static str;

const FIRST: Kind = "first_moment";
const SECOND: Kind = "second_moment";
const MOMENTUM: Kind = "momentum";
const MASTER: Kind = "master";
const AVERAGE: Kind = "average";
const KINDS: [Kind; 5] = [FIRST, SECOND, MOMENTUM, MASTER, AVERAGE];

/// What has to be remembered of `parameter`.
fn kinds(settings: &Settings, parameter: &Parameter<'_>) -> Vec<Kind> {
    let is_muons = matches!(Group::of(parameter.name, parameter.shape), Group::Matrices(_));
    let moments: &[Kind] = if is_muons && settings.muon.is_some() { &[MOMENTUM] } else { &[FIRST, SECOND] };
    let master = matches!(parameter.weights, Weights::Bf16(_)).then_some(MASTER);
    let average = settings.average_decay.map(|_| AVERAGE);
    moments.iter().copied().chain(master).chain(average).collect()
}

/// What is remembered of one parameter: tensors of its shape.
#[derive(Debug)]
pub(crate) struct State {
    shape: Vec<usize>,
    tensors: BTreeMap<Kind, Vec<f32>>,
}

impl State {
    /// The state of a parameter that was not updated yet.
    pub(crate) fn new(settings: &Settings, parameter: &Parameter<'_>) -> Self {
        let begin = |kind| match (kind, &parameter.weights) {
            (FIRST | SECOND | MOMENTUM, weights) => vec![0.0; weights.len()],
            (_, Weights::F32(values)) => values.to_vec(),
            (_, Weights::Bf16(values)) => values.iter().map(|value| value.to_f32()).collect(),
        };
        let tensors = kinds(settings, parameter).into_iter().map(|kind| (kind, begin(kind))).collect();
        Self { shape: parameter.shape.to_vec(), tensors }
    }

    /// Whether this is what has to be remembered of `parameter`.
    pub(crate) fn check(&self, settings: &Settings, parameter: &Parameter<'_>) -> Result<(), OptimError> {
        let refuse = |why| Err(OptimError::State { name: parameter.name.into(), why });
        if self.shape != parameter.shape {
            return refuse(format!("its state has shape {:?}, the parameter {:?}", self.shape, parameter.shape));
        }
        let wanted = kinds(settings, parameter);
        if self.tensors.len() != wanted.len() || wanted.iter().any(|kind| !self.tensors.contains_key(kind)) {
            let kept: Vec<Kind> = self.tensors.keys().copied().collect();
            return refuse(format!("its state has {kept:?}, the settings ask for {wanted:?}"));
        }
        Ok(())
    }

    /// All of the parameter, as one piece.
    pub(crate) fn piece<'a>(&'a mut self, weights: Weights<'a>, gradient: &'a [f32]) -> Piece<'a> {
        let mut tensors: BTreeMap<Kind, &mut [f32]> =
            self.tensors.iter_mut().map(|(kind, values)| (*kind, values.as_mut_slice())).collect();
        let mut take = |kind| tensors.remove(kind);
        let (values, rounded) = match weights {
            Weights::F32(values) => (values, None),
            Weights::Bf16(rounded) => (take(MASTER).unwrap_or_default(), Some(rounded)),
        };
        let first = take(FIRST).or_else(|| take(MOMENTUM)).unwrap_or_default();
        let second = take(SECOND).unwrap_or_default();
        Piece { values, rounded, average: take(AVERAGE), gradient, moments: [first, second] }
    }

    /// Everything but the average.
    pub(crate) fn tensors<'a>(&'a self, name: &'a str) -> impl Iterator<Item = StateTensor<'a>> {
        self.named(name).filter(|(kind, _)| *kind != AVERAGE).map(|(_, tensor)| tensor)
    }

    /// The average, if one is kept.
    pub(crate) fn average<'a>(&'a self, name: &'a str) -> Option<StateTensor<'a>> {
        self.named(name).find(|(kind, _)| *kind == AVERAGE).map(|(_, tensor)| tensor)
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (Kind, StateTensor<'a>)> {
        self.tensors.iter().map(move |(kind, values)| {
            (*kind, StateTensor { name: format!("{kind}.{name}"), shape: &self.shape, values })
        })
    }
}

/// States by parameter, from their tensors.
pub(crate) fn restore(
    tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>,
) -> Result<BTreeMap<String, State>, OptimError> {
    let mut states: BTreeMap<String, State> = BTreeMap::new();
    for (stored, shape, values) in tensors {
        let refuse = |why: &str| OptimError::State { name: stored.clone(), why: why.into() };
        let (kind, name) = stored.split_once('.').ok_or_else(|| refuse("is no optimiser's tensor"))?;
        let kind = KINDS.into_iter().find(|known| *known == kind);
        let kind = kind.ok_or_else(|| refuse("is no optimiser's tensor"))?;
        let len = shape.iter().try_fold(1usize, |n, axis| n.checked_mul(*axis));
        if len != Some(values.len()) {
            return Err(refuse("its values do not fill its shape"));
        }
        let state =
            states.entry(name.into()).or_insert_with(|| State { shape: shape.clone(), tensors: BTreeMap::new() });
        if state.shape != shape {
            return Err(refuse("its shape is not that of its parameter's other tensors"));
        }
        if state.tensors.insert(kind, values).is_some() {
            return Err(refuse("stands there twice"));
        }
    }
    Ok(states)
}
