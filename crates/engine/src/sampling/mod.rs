//! From one row of scores to one token.
//!
//! The order of what a request can ask for, each step working on what the one before left over:
//! logit bias → repetition, then frequency and presence penalty → temperature → top-k → top-p → min-p → one draw.
//!
//! - Repetition penalty: a token of the prompt or the output has its score divided by the penalty if positive,
//!   multiplied otherwise (the rule of Hugging Face and vLLM).
//! - Frequency and presence penalty: a token of the output loses `frequency · count + presence` (OpenAI's rule).
//! - Top-k keeps the k largest scores, of equal ones those with the lower ids. Top-p keeps the fewest of the remaining
//!   tokens, likeliest first, whose share of the remaining probability reaches p. Min-p keeps tokens at least min-p
//!   times as likely as the likeliest.
//! - Temperature 0 takes the largest score, of equal ones the lowest id.
//!
//! The log-probability that is reported is that of the scores as the model gave them.
//!
//! The draw inverts the cumulative distribution over the kept tokens in the order of their ids with
//! [`noise::uniform`]`(seed, sample, position)`: it depends on nothing that runs at the same time.

mod error;
mod filter;
mod logprobs;
pub mod noise;
mod params;
mod sampler;
mod scores;
mod stop;

pub use error::{SampleError, SamplingError};
pub use logprobs::LogProbs;
pub use params::SamplingParams;
pub use sampler::{Sampled, Sampler};
pub use stop::StopMatcher;
