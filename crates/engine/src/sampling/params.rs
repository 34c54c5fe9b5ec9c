//! What a request may ask of the sampler.

use super::SamplingError;
use crate::limits::Limits;

/// How to choose the next token. The default changes nothing: the model's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the scores; 0 takes the largest score.
    pub temperature: f32,
    /// Keeps that many of the largest scores; 0 keeps all.
    pub top_k: u32,
    /// Keeps the likeliest tokens that together have this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this many times as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies other scores of tokens in prompt and output; 1 does nothing.
    pub repetition_penalty: f32,
    /// Taken from a score once for each time the token stands in the output; 0 does nothing.
    pub frequency_penalty: f32,
    /// Taken from the score of each token that stands in the output; 0 does nothing.
    pub presence_penalty: f32,
    /// Added to the scores of these token ids; an id that comes twice gets both.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes the draws repeatable.
    pub seed: u64,
    /// Which of several answers to one prompt this is; each has its own noise.
    pub sample: u32,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            sample: 0,
        }
    }
}

impl SamplingParams {
    /// Never chooses these tokens from now on. For who has checked the parameters: no request may ask for this.
    pub(crate) fn forbid(&mut self, ids: impl IntoIterator<Item = u32>) {
        self.logit_bias.extend(ids.into_iter().map(|id| (id, f32::NEG_INFINITY)));
    }

    /// Checks every field against `limits`.
    ///
    /// # Errors
    /// [`SamplingError`] naming the first field that is out of bounds, and its bounds.
    pub fn validate(&self, limits: &Limits) -> Result<(), SamplingError> {
        SamplingError::check("temperature", self.temperature, limits.temperature)?;
        SamplingError::check_whole("top_k", self.top_k, limits.top_k)?;
        SamplingError::check("top_p", self.top_p, limits.top_p)?;
        SamplingError::check("min_p", self.min_p, limits.min_p)?;
        SamplingError::check("repetition_penalty", self.repetition_penalty, limits.repetition_penalty)?;
        SamplingError::check("frequency_penalty", self.frequency_penalty, limits.penalty)?;
        SamplingError::check("presence_penalty", self.presence_penalty, limits.penalty)?;
        let n_biases = self.logit_bias.len();
        SamplingError::check_count("logit_bias", "entries", n_biases, limits.logit_bias_entries)?;
        self.logit_bias.iter().try_for_each(|(_, bias)| SamplingError::check("logit_bias", *bias, limits.logit_bias))
    }

    /// Checks the ids that these parameters name against a vocabulary whose last id is `last_id`.
    ///
    /// # Errors
    /// [`SamplingError`] for `logit_bias` if it names a token that the model does not have.
    pub fn validate_ids(&self, last_id: u32) -> Result<(), SamplingError> {
        self.logit_bias.iter().try_for_each(|(id, _)| SamplingError::check_whole("logit_bias token id", *id, last_id))
    }
}
