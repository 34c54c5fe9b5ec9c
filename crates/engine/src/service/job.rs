//! What is asked of the engine's thread, and what it answers.

use std::time::Duration;

use tokenizer::Piece;

use crate::constraint::{Broken, Constraint};
use crate::media::Media;
use crate::sampling::{SampleError, SamplingParams};
use crate::thinking::Thinking;

/// One prompt and what to do with it. Checked before it is submitted: nothing below checks the same thing again.
#[derive(Debug, Clone)]
pub struct Job {
    /// The prompt: ids, and places of images and clips.
    pub pieces: Vec<Piece>,
    /// What pieces name, ready for its tower. Encoded on the engine's thread, once for equal ones.
    pub media: Vec<Media>,
    /// What to do.
    pub task: Task,
    /// The log-probability of every prompt token under those before it, with this many of the likeliest
    /// alternatives; not computed if `None`. A prompt that wants it is never taken from the prefix cache.
    pub prompt_logprobs: Option<usize>,
    /// Whose job it is.
    pub owner: Owner,
    /// From submission to the final event; then the job fails with [`Failure::Deadline`].
    pub deadline: Duration,
}

/// What to do with a prompt.
#[derive(Debug, Clone)]
pub enum Task {
    /// Continues the prompt `n_samples` times from one computation of it.
    Generate {
        /// How many answers; sample i draws as [`SamplingParams::sample`] = i.
        n_samples: u32,
        /// How to choose tokens.
        sampling: SamplingParams,
        /// What each answer may be; every sample begins with a copy of it.
        constraint: Option<Constraint>,
        /// What ends an answer.
        stop: Stop,
        /// This many of the likeliest alternatives with every token; not computed if `None`. `Some(0)` gives the
        /// chosen token's own log-probability only.
        logprobs: Option<usize>,
        /// How the model marks thoughts and how much it may think; `None` for one that does not think.
        thinking: Option<Box<Thinking>>,
    },
    /// The mean of the final hidden states (after the last norm) over all positions, of length 1.
    Embed,
}

/// What ends an answer.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Tokens of an answer at most; 0 computes the prompt only.
    pub max_tokens: usize,
    /// Texts that end it and do not belong to it.
    pub texts: Vec<String>,
    /// Tokens that end it and do not belong to its text.
    pub tokens: Vec<u32>,
}

/// Who shares what with whom. Jobs of one owner share computed prompts and a quota; jobs of different owners share
/// nothing that could be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// The key that the request came with, as a number; quotas count by it.
    pub key: u64,
    /// What else separates cached prompts: a salt that the request chose, as a number.
    pub salt: u64,
}

/// Which part of an answer a token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Thoughts.
    Reasoning,
    /// The answer.
    Content,
}

/// A token that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The token.
    pub id: u32,
    /// What may be shown because of it: complete characters that no stop text and no marker can still claim.
    pub text: String,
    /// The logarithm of its probability under the model's own distribution, before any sampling parameter; 0 if the job
    /// did not ask for it.
    pub logprob: f32,
    /// The likeliest tokens under the same distribution, likeliest first.
    pub alternatives: Vec<Alternative>,
    /// Where `text` belongs.
    pub channel: Channel,
    /// Not sampled but written by the engine.
    pub is_forced: bool,
}

/// A token that could have been chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alternative {
    /// The token.
    pub id: u32,
    /// As [`Token::logprob`].
    pub logprob: f32,
}

/// What becomes of a job. [`Finished`](Self::Finished) or [`Failed`](Self::Failed) is the last one, exactly once.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The first step took it up. May come again after a preemption; receivers take it as a sign of life.
    Started {
        /// Positions of the prompt.
        n_prompt: usize,
        /// Of those, positions that were already computed.
        n_cached: usize,
        /// As [`Usage::n_stored`].
        n_stored: usize,
    },
    /// One entry a prompt position: the token there (`None` for a piece of an image) with its log-probability, `None`
    /// for the first, and the likeliest alternatives.
    PromptLogprobs(Vec<Option<(Option<Alternative>, Vec<Alternative>)>>),
    /// A token of one answer.
    Token {
        /// Which.
        sample: u32,
        /// The token.
        token: Token,
    },
    /// One answer is over; its last text, which was held back until now, comes with it.
    SampleFinished {
        /// Which.
        sample: u32,
        /// Why.
        finish: Finish,
        /// Text that was held back.
        tail: String,
        /// Where the tail belongs.
        channel: Channel,
    },
    /// The embedding that was asked for.
    Embedding(Vec<f32>),
    /// All is done.
    Finished(Usage),
    /// It ended otherwise.
    Failed(Failure),
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it with this token.
    EndToken(u32),
    /// This stop text came.
    StopText(String),
    /// The constraint allows nothing more.
    Complete,
    /// As many tokens as were asked for, or the context is full.
    Length,
}

/// What a job took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Positions of the prompt.
    pub n_prompt: usize,
    /// Of those, positions of clips of audio and the tokens around them.
    pub n_audio: usize,
    /// Of those, positions that were already computed.
    pub n_cached: usize,
    /// Of the others, positions that the prefix cache holds afterwards: those of full pages.
    pub n_stored: usize,
    /// Tokens chosen in all samples together, end tokens included.
    pub n_completion: usize,
    /// Of those, tokens of thinking blocks.
    pub n_reasoning: usize,
}

/// How a job ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Its receiver left.
    #[error("the request was cancelled")]
    Cancelled,
    /// Its time ran out.
    #[error("the request took longer than its deadline")]
    Deadline,
    /// The receiver took no event for too long.
    #[error("the client did not read for too long")]
    Stalled,
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The model's numbers broke in this job's rows.
    #[error("the model's numbers broke for this request")]
    Numerical,
    /// The answer's constraint can not be followed any further.
    #[error("{0}")]
    Constraint(String),
    /// The model refused the prompt.
    #[error("{0}")]
    Prompt(String),
    /// A mistake of ours. The request may be tried again.
    #[error("internal error")]
    Internal,
}

impl From<SampleError> for Failure {
    fn from(error: SampleError) -> Self {
        match error {
            SampleError::Numerical => Self::Numerical,
        }
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Constraint(broken.to_string())
    }
}
