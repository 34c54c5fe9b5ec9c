//! Where the router sends rows.

use tensor::{Choice, math};

use crate::linear::Segment;
use crate::values::Tensor;

/// Which rows go to which experts, and where each sent row lies.
#[derive(Debug, Clone)]
pub struct Routing {
    /// `[T, top_k]`, lower expert first.
    pub(crate) choices: Vec<Choice>,
    pub(crate) top_k: usize,
    pub(crate) n_experts: usize,
    /// Index into `choices` of each sent row: by expert, then by row.
    pub(crate) order: Vec<usize>,
    /// The sent row of each choice: the inverse of `order`.
    pub(crate) place: Vec<usize>,
    /// The sent rows of each expert that has some.
    pub(crate) segments: Vec<Segment>,
}

impl Routing {
    /// Chooses the `top_k` largest of each row of `logits`, `top_k` in 1 to E.
    pub(crate) fn new(logits: &Tensor, top_k: usize) -> Self {
        let choices: Vec<Choice> = logits.rows().flat_map(|row| math::choose(row, top_k)).collect();
        let mut order: Vec<usize> = (0..choices.len()).collect();
        order.sort_by_key(|&i| choices[i].expert);
        let mut place = vec![0; choices.len()];
        let mut segments: Vec<Segment> = Vec::new();
        for (sent, &choice) in order.iter().enumerate() {
            place[choice] = sent;
            let matrix = choices[choice].expert as usize;
            match segments.last_mut() {
                Some(last) if last.matrix == matrix => last.rows.end = sent + 1,
                _ => segments.push(Segment { matrix, rows: sent..sent + 1 }),
            }
        }
        Self { choices, top_k, n_experts: logits.width(), order, place, segments }
    }
}
