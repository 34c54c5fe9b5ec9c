//! The state of one sequence's choices, and the choice itself.

use std::collections::BTreeMap;

use super::filter::Filter;
use super::scores::{Scores, walk, weight};
use super::{LogProbs, SampleError, SamplingParams, noise};

/// Chooses the tokens of one sequence. A copy goes on from the same state, as a forked sequence must.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    filter: Filter,
    /// The tokens whose score is not the model's own.
    touched_by_id: BTreeMap<u32, Touched>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Touched {
    bias: f32,
    /// Stands in the prompt or in the output.
    seen: bool,
    /// How often it stands in the output.
    n_output: u32,
}

/// A token that was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// The token.
    pub id: u32,
    /// The logarithm of its probability under the scores as given, before bias, penalties, temperature and filters.
    pub logprob: f32,
}

impl Sampler {
    /// The state before the first output token. `params` should have been [validated](SamplingParams::validate);
    /// `prompt_ids` are the tokens of the prompt.
    pub fn new(params: SamplingParams, prompt_ids: &[u32]) -> Self {
        let mut touched_by_id: BTreeMap<u32, Touched> = BTreeMap::new();
        for (id, bias) in &params.logit_bias {
            touched_by_id.entry(*id).or_default().bias += bias;
        }
        if params.repetition_penalty != 1.0 {
            for id in prompt_ids {
                touched_by_id.entry(*id).or_default().seen = true;
            }
        }
        let filter = Filter {
            top_k: usize::try_from(params.top_k).ok().filter(|k| *k > 0),
            top_p: Some(f64::from(params.top_p)).filter(|p| *p < 1.0),
            min_p: Some(params.min_p).filter(|p| *p > 0.0),
        };
        Self { params, filter, touched_by_id }
    }

    /// Chooses the token at `position` (counted from the start of the sequence) from `logits`, one score a token of
    /// the vocabulary, and remembers it for the penalties. A score of −∞ rules a token out.
    ///
    /// # Errors
    /// [`SampleError::Numerical`]; the state is then unchanged.
    pub fn sample(&mut self, logits: &[f32], position: u64) -> Result<Sampled, SampleError> {
        let log_probs = LogProbs::new(logits)?;
        let id = self.choose(logits, position)?;
        Ok(Sampled { id, logprob: log_probs.of(id as usize) })
    }

    /// [`sample`](Self::sample) without the log-probability, which takes a pass over all scores.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn choose(&mut self, logits: &[f32], position: u64) -> Result<u32, SampleError> {
        // A score that a bias or a penalty would hide is broken all the same.
        Scores::new(logits, &[]).largest().ok_or(SampleError::Numerical)?;
        let id = u32::try_from(self.index(logits, position)?).map_err(|_| SampleError::Numerical)?;
        self.remember(id);
        Ok(id)
    }

    fn index(&self, logits: &[f32], position: u64) -> Result<usize, SampleError> {
        let changed = self.changed(logits);
        let scores = Scores::new(logits, &changed);
        let largest = scores.largest().ok_or(SampleError::Numerical)?;
        let temperature = self.params.temperature;
        if temperature == 0.0 {
            return Ok(largest.id);
        }
        let u = noise::uniform(self.params.seed, self.params.sample, position);
        if self.filter.keeps_all() {
            return Ok(scores.draw(largest, temperature, u));
        }
        let kept = self.filter.keep(&scores, largest.score, temperature);
        let weigh = || kept.iter().map(|candidate| f64::from(weight(candidate.score, largest.score, temperature)));
        let at = walk(weigh(), u * weigh().sum::<f64>());
        Ok(at.and_then(|at| kept.get(at)).map_or(largest.id, |candidate| candidate.id))
    }

    /// The scores that bias and penalties change, by ascending id.
    fn changed(&self, logits: &[f32]) -> Vec<(usize, f32)> {
        let score = |(id, touched): (&u32, &Touched)| {
            let id = usize::try_from(*id).ok()?;
            Some((id, touched.score(*logits.get(id)?, &self.params)))
        };
        self.touched_by_id.iter().filter_map(score).collect()
    }

    fn remember(&mut self, id: u32) {
        let params = &self.params;
        if params.repetition_penalty == 1.0 && params.frequency_penalty == 0.0 && params.presence_penalty == 0.0 {
            return;
        }
        let touched = self.touched_by_id.entry(id).or_default();
        touched.seen = true;
        touched.n_output = touched.n_output.saturating_add(1);
    }
}

impl Touched {
    /// The score after bias and penalties.
    fn score(&self, logit: f32, params: &SamplingParams) -> f32 {
        let mut score = logit + self.bias;
        if self.seen {
            let penalty = params.repetition_penalty;
            score = if score > 0.0 { score / penalty } else { score * penalty };
        }
        if self.n_output > 0 {
            score -= params.frequency_penalty * self.n_output as f32 + params.presence_penalty;
        }
        score
    }
}
