//! What a tape remembers of an op: enough to run it again and to run its adjoint.

use std::ops::Range;
use std::sync::Arc;

use tensor::{Adjoint, OpError, Rotation};

use super::{Map, Routing, State, Table, Var, Vector};

pub(super) enum Op<D: Adjoint> {
    /// From outside: no input, no gradient.
    Upload,
    Reshape {
        x: Var,
        width: usize,
    },
    Columns {
        x: Var,
        range: Range<usize>,
    },
    Rows {
        x: Var,
        rows: Arc<[usize]>,
    },
    Concat([Var; 2]),
    Embed {
        table: Arc<Table<D>>,
        ids: Arc<[u32]>,
    },
    Add([Var; 2]),
    ScaleRows {
        x: Var,
        factors: Arc<[f32]>,
    },
    Linear {
        w: Arc<Map<D>>,
        bias: Option<Arc<Vector<D>>>,
        x: Var,
        onto: Option<Var>,
    },
    RmsNorm {
        x: Var,
        gain: Option<Arc<Vector<D>>>,
        width: usize,
        eps: f32,
    },
    LayerNorm {
        x: Var,
        gain: Arc<Vector<D>>,
        bias: Arc<Vector<D>>,
        eps: f32,
    },
    Rope {
        x: Var,
        rotation: Arc<Rotation>,
    },
    Attention {
        q: Var,
        k: Var,
        v: Var,
        seen: Arc<[Range<usize>]>,
        head_len: usize,
    },
    /// The sent rows times their scores.
    Scores {
        x: Var,
        routing: Arc<Routing<D>>,
    },
    Experts {
        w: Arc<Map<D>>,
        x: Var,
        routing: Arc<Routing<D>>,
    },
    Combine {
        onto: Var,
        shared: Var,
        y: Var,
        routing: Arc<Routing<D>>,
    },
    Swiglu(Var),
    Gelu(Var),
}

impl<D: Adjoint> Op<D> {
    /// The results that it was computed from.
    pub(super) fn inputs(&self) -> Vec<Var> {
        match self {
            Self::Upload | Self::Embed { .. } => Vec::new(),
            Self::Swiglu(x) | Self::Gelu(x) => vec![*x],
            Self::Reshape { x, .. } | Self::Columns { x, .. } | Self::Rows { x, .. } | Self::ScaleRows { x, .. } => {
                vec![*x]
            }
            Self::RmsNorm { x, .. } | Self::LayerNorm { x, .. } | Self::Rope { x, .. } => vec![*x],
            Self::Concat(both) | Self::Add(both) => both.to_vec(),
            Self::Linear { x, onto, .. } => [*x].into_iter().chain(*onto).collect(),
            Self::Attention { q, k, v, .. } => vec![*q, *k, *v],
            Self::Scores { x, routing } => vec![*x, routing.logits],
            Self::Experts { x, .. } => vec![*x],
            Self::Combine { onto, shared, y, .. } => vec![*onto, *shared, *y],
        }
    }

    /// Whether a trained weight has a part in it.
    pub(super) fn is_trained(&self) -> bool {
        match self {
            Self::Embed { table, .. } => table.origin.is_some(),
            Self::Linear { w, bias, .. } => w.is_trained() || bias.as_ref().is_some_and(|vector| vector.is_trained()),
            Self::Experts { w, .. } => w.is_trained(),
            Self::RmsNorm { gain, .. } => gain.as_ref().is_some_and(|vector| vector.is_trained()),
            Self::LayerNorm { gain, bias, .. } => gain.is_trained() || bias.is_trained(),
            _ => false,
        }
    }

    /// Whether [`repeat`](Self::repeat) can run it again. What was uploaded is not kept elsewhere; attention would need
    /// its pages as they were.
    pub(super) fn can_repeat(&self) -> bool {
        !matches!(self, Self::Upload | Self::Attention { .. })
    }

    /// Runs it again on the values in `state`.
    pub(super) fn repeat(&self, dev: &D, state: &State<D>) -> Result<D::Tensor, OpError> {
        let value = |x: &Var| state.value(x);
        match self {
            Self::Upload | Self::Attention { .. } => Err(OpError::shape("repeat", "this op can not run again")),
            Self::Reshape { x, width } => dev.reshape(value(x)?, *width),
            Self::Columns { x, range } => dev.columns(&value(x)?, range.clone()),
            Self::Rows { x, rows } => dev.rows(&value(x)?, rows),
            Self::Concat([a, b]) => dev.concat(&value(a)?, &value(b)?),
            Self::Embed { table, ids } => dev.embed(&table.inner, ids),
            Self::Add([a, b]) => dev.add(&value(a)?, &value(b)?),
            Self::ScaleRows { x, factors } => dev.scale_rows(&value(x)?, factors),
            Self::Linear { w, bias, x, onto } => {
                let bias = bias.as_ref().map(|bias| &bias.inner);
                match onto {
                    None => dev.linear(&w.inner, bias, &value(x)?),
                    Some(onto) => dev.linear_onto(value(onto)?, &w.inner, bias, &value(x)?),
                }
            }
            Self::RmsNorm { x, gain, width, eps } => {
                dev.rms_norm(&value(x)?, gain.as_ref().map(|gain| &gain.inner), *width, *eps)
            }
            Self::LayerNorm { x, gain, bias, eps } => dev.layer_norm(&value(x)?, &gain.inner, &bias.inner, *eps),
            Self::Rope { x, rotation } => dev.rope(&value(x)?, rotation),
            Self::Scores { x, routing } => dev.scale_rows(&value(x)?, &routing.scores),
            Self::Experts { w, x, routing } => dev.experts(&w.inner, &value(x)?, &routing.inner),
            Self::Combine { onto, shared, y, routing } => {
                dev.combine(value(onto)?, &value(shared)?, &value(y)?, &routing.inner)
            }
            Self::Swiglu(x) => dev.swiglu(&value(x)?),
            Self::Gelu(x) => Ok(dev.gelu(&value(x)?)),
        }
    }
}
