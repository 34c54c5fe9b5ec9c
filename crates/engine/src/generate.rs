//! From a prompt to text: sampling, end tokens, stop strings, streaming.

use std::ops::ControlFlow;

use tensor::Device;
use tokenizer::{Specials, TokenStream, Tokenizer};

use crate::limits::Limits;
use crate::sampling::{Sampler, SamplingParams, StopMatcher};
use crate::sequence::{Content, Sequence};
use crate::{Engine, EngineError};

/// How to continue a prompt.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// How to choose tokens.
    pub sampling: SamplingParams,
    /// Texts that end the answer and do not belong to it.
    pub stop: Vec<String>,
    /// Tokens at most; what is left of the context if `None`.
    pub max_tokens: Option<usize>,
    /// Tokens that end the answer and do not belong to it.
    pub end_tokens: Vec<u32>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// The limit on tokens, or the end of the context.
    Length,
    /// The receiver asked to stop.
    Cancelled,
}

/// What happens while an answer is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'a> {
    /// Prompt positions computed so far, of how many.
    Prefill {
        /// Done.
        n_done: usize,
        /// In all.
        n_total: usize,
    },
    /// A token was chosen; `text` is what may be shown because of it, complete characters only, possibly none.
    Token {
        /// The token.
        id: u32,
        /// The logarithm of its probability before any sampling parameter.
        logprob: f32,
        /// Text that is now certain.
        text: &'a str,
    },
    /// Text that was held back until the end.
    Tail(&'a str),
}

/// How an answer ended and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Why.
    pub reason: FinishReason,
    /// Positions of the prompt.
    pub n_prompt: usize,
    /// Of those, positions that were already computed.
    pub n_cached: usize,
    /// Tokens chosen, the end token included.
    pub n_completion: usize,
}

impl<D: Device> Engine<D> {
    /// Continues `content` in `sequence`, telling `receive` of every event until it breaks off or the answer ends.
    ///
    /// # Errors
    /// [`EngineError::Sampling`], [`EngineError::Empty`] and [`EngineError::TooLong`] before any work;
    /// [`EngineError::Sample`] if the model's numbers break.
    pub fn generate(
        &mut self,
        sequence: &mut Sequence<D::Tensor>,
        content: Content<D::Tensor>,
        request: &Request,
        tokenizer: &Tokenizer,
        receive: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Finished, EngineError> {
        let limits = Limits::default();
        let n_vocab = u32::try_from(self.model().decoder.vocab_size()).unwrap_or(u32::MAX);
        request.sampling.validate(&limits)?;
        request.sampling.validate_ids(n_vocab.saturating_sub(1))?;
        let mut stop = StopMatcher::new(&request.stop, &limits)?;
        let prompt_ids: Vec<u32> = content.tokens().collect();
        let mut sampler = Sampler::new(request.sampling.clone(), &prompt_ids);
        self.set(sequence, content)?;
        let (n_prompt, n_cached) = (sequence.len(), sequence.n_computed());
        let room = self.context() - n_prompt + 1;
        let n_most = request.max_tokens.unwrap_or(room).min(room);
        let mut stream = TokenStream::new(tokenizer, Specials::Skip);
        let mut finished = Finished { reason: FinishReason::Length, n_prompt, n_cached, n_completion: 0 };
        let mut cancelled = ControlFlow::Continue(());
        let mut logits = self.prefill(sequence, &mut |n_done, n_total| {
            cancelled = receive(Event::Prefill { n_done, n_total });
        })?;
        while finished.n_completion < n_most && cancelled.is_continue() {
            let sampled = sampler.sample(&logits, sequence.len() as u64)?;
            finished.n_completion += 1;
            if request.end_tokens.contains(&sampled.id) {
                finished.reason = FinishReason::Stop;
                break;
            }
            let text = stop.push(&stream.push(sampled.id));
            cancelled = receive(Event::Token { id: sampled.id, logprob: sampled.logprob, text: &text });
            if stop.is_stopped() {
                finished.reason = FinishReason::Stop;
                return Ok(finished);
            }
            sequence.push(sampled.id);
            if finished.n_completion < n_most && cancelled.is_continue() {
                logits = self.prefill(sequence, &mut |_, _| {})?;
            }
        }
        if cancelled.is_break() {
            finished.reason = FinishReason::Cancelled;
        }
        let mut tail = stop.push(&stream.flush());
        tail.push_str(&stop.flush());
        if !tail.is_empty() {
            // The answer is over: a receiver that breaks off now changes nothing.
            let _ = receive(Event::Tail(&tail));
        }
        Ok(finished)
    }
}
