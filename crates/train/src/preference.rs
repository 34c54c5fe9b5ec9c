//! Direct preference optimisation: the better of two answers shall become likelier, measured against a reference.
//!
//! Source: Rafailov et al. 2023, <https://arxiv.org/abs/2305.18290>, equation 7.

use llama::Model;
use tensor::{Adjoint, Device, math};

use crate::objective::{Passing, Scored, Watch, forward, scored};
use crate::{Losses, Objective, Sequence, Tape, TrainError, Var};

/// How answers are preferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preference {
    /// How much moving away from the reference costs: β of the paper.
    pub beta: f32,
}

/// A sequence's summed log-probability, of what is learnt of it.
fn sums(n: usize, scored: &[Scored], entropies: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; n];
    for (scored, entropy) in scored.iter().zip(entropies) {
        sums[scored.sequence] -= f64::from(scored.weight) * entropy;
    }
    sums
}

/// The log-probability of what is learnt of each sequence, summed over its tokens, in nats.
///
/// # Errors
/// As [`Objective::accumulate`].
pub fn log_probabilities<D: Adjoint>(
    tape: &Tape<D>,
    model: &Model<Tape<D>>,
    sequences: &[Sequence],
    logit_rows: usize,
) -> Result<Vec<f64>, TrainError> {
    let start = tape.mark();
    let (x, _) = forward(tape, model, sequences, &mut Passing(start))?;
    let scored: Vec<Scored> = scored(sequences).collect();
    let wanted: Vec<usize> = scored.iter().map(|scored| scored.row).collect();
    let entropies = match wanted.is_empty() {
        true => Vec::new(),
        false => entropies(tape, model, &model.decoder.hidden(tape, &x, &wanted)?, &scored, logit_rows)?,
    };
    tape.discard(start);
    Ok(sums(sequences.len(), &scored, &entropies))
}

/// The cross-entropy of each row of `hidden`, from which nothing goes back.
fn entropies<D: Adjoint>(
    tape: &Tape<D>,
    model: &Model<Tape<D>>,
    hidden: &Var,
    scored: &[Scored],
    logit_rows: usize,
) -> Result<Vec<f64>, TrainError> {
    let mut all = Vec::with_capacity(scored.len());
    for piece in scored.chunks(logit_rows.max(1)) {
        let mark = tape.mark();
        let rows: Vec<usize> = (all.len()..all.len() + piece.len()).collect();
        let logits = model.decoder.logits(tape, &tape.rows(hidden, &rows)?)?;
        let weights = vec![1.0; piece.len()];
        all.extend(Scored::cross_entropy(tape, &logits, piece, &weights)?.0);
        tape.discard(mark);
    }
    Ok(all)
}

impl Preference {
    /// Runs `pairs`, the better answer first in each, forward and backward, and adds the gradients of
    /// Σ −ln σ(β · (margin − reference margin)) / `n_pairs` to those of `tape`; a margin is the difference of the two
    /// log-probabilities. `references` are those of the reference model.
    ///
    /// What is returned counts pairs: its entropy is the sum of their losses, its weight their number.
    ///
    /// # Errors
    /// As [`Objective::accumulate`].
    pub fn accumulate<D: Adjoint>(
        &self,
        (tape, model): (&Tape<D>, &Model<Tape<D>>),
        objective: &Objective,
        pairs: &[[Sequence; 2]],
        references: &[f64],
        n_pairs: usize,
    ) -> Result<Losses, TrainError> {
        let start = tape.mark();
        let sequences: Vec<Sequence> = pairs.iter().flatten().cloned().collect();
        let watch = &mut Watch::new(objective, model, start, pairs.len() as f32 / n_pairs.max(1) as f32);
        let (x, n_rows) = forward(tape, model, &sequences, watch)?;
        let mut losses = Losses { n_rows, ..Losses::default() };
        watch.seed(tape, &mut losses)?;
        let scored: Vec<Scored> = scored(&sequences).collect();
        let wanted: Vec<usize> = scored.iter().map(|scored| scored.row).collect();
        if !wanted.is_empty() {
            let hidden = model.decoder.hidden(tape, &x, &wanted)?;
            let entropies = entropies(tape, model, &hidden, &scored, objective.logit_rows)?;
            let now = sums(sequences.len(), &scored, &entropies);
            let factors = self.lose(&now, references, &mut losses);
            for (i, piece) in scored.chunks(objective.logit_rows.max(1)).enumerate() {
                let mark = tape.mark();
                let first = i * objective.logit_rows.max(1);
                let rows: Vec<usize> = (first..first + piece.len()).collect();
                let logits = model.decoder.logits(tape, &tape.rows(&hidden, &rows)?)?;
                let weight = |scored: &Scored| {
                    (f64::from(scored.weight) * factors[scored.sequence] / n_pairs.max(1) as f64) as f32
                };
                let weights: Vec<f32> = piece.iter().map(weight).collect();
                let (_, gradient) = Scored::cross_entropy(tape, &logits, piece, &weights)?;
                tape.seed(&logits, gradient)?;
                tape.rewind(mark)?;
            }
        }
        tape.rewind(start)?;
        Ok(losses)
    }

    /// The losses of pairs of log-probabilities, from which nothing is learnt.
    pub fn measure(&self, now: &[f64], references: &[f64]) -> Losses {
        let mut losses = Losses::default();
        self.lose(now, references, &mut losses);
        losses
    }

    /// Adds the losses of pairs; what the cross-entropies of each sequence are multiplied by in the gradient.
    fn lose(&self, now: &[f64], references: &[f64], losses: &mut Losses) -> Vec<f64> {
        let beta = f64::from(self.beta);
        let mut factors = Vec::with_capacity(now.len());
        for (now, reference) in now.as_chunks::<2>().0.iter().zip(references.as_chunks::<2>().0) {
            let z = beta * ((now[0] - reference[0]) - (now[1] - reference[1]));
            // −ln σ(z), and β · σ(−z), from the side that does not overflow.
            let small = f64::from(math::exp(-z.abs() as f32));
            losses.entropy += (-z).max(0.0) + math::ln(1.0 + small);
            losses.weight += 1.0;
            losses.preferred += u64::from(z > 0.0);
            let pull = beta * if z > 0.0 { small } else { 1.0 } / (1.0 + small);
            factors.extend([pull, -pull]);
        }
        factors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_their_slopes_are_those_of_the_formula() {
        let preference = Preference { beta: 0.5 };
        let references = [-3.0, -4.0];
        let loss = |chosen: f64, rejected: f64| preference.measure(&[chosen, rejected], &references).entropy;
        for [chosen, rejected] in [[-3.0, -4.0], [-1.0, -8.0], [-9.0, -2.0], [-2000.0, -1.0], [-1.0, -2000.0]] {
            let mut losses = Losses::default();
            let factors = preference.lose(&[chosen, rejected], &references, &mut losses);
            // The exponential is one of f32: 1e-7 / step in a slope; a step's own error is about step² / 6.
            let step = 1e-2;
            // Cross-entropies are negative log-probabilities.
            let slope = (loss(chosen - step, rejected) - loss(chosen + step, rejected)) / (2.0 * step);
            assert!(
                (factors[0] - slope).abs() < 1e-4 && factors[1] == -factors[0],
                "{chosen} {rejected}: {factors:?} {slope}"
            );
            assert!(losses.entropy.is_finite() && losses.weight == 1.0);
        }
        let even = preference.measure(&references, &references);
        assert!((even.mean() - std::f64::consts::LN_2).abs() < 1e-12 && even.preferred == 0);
        assert_eq!(preference.measure(&[-1.0, -8.0], &references).preferred, 1);
    }
}
