//! One answer by itself, without a service: the same sampling, stop texts and thoughts, one token after another.

use std::ops::ControlFlow;

use tensor::Device;
use tokenizer::Tokenizer;

use crate::limits::Limits;
use crate::sampling::{SamplingParams, StopMatcher};
use crate::sequence::{Content, Sequence};
use crate::service::{self, Answer, Channel, Finish, Recipe, Stop};
use crate::thinking::Thinking;
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
    /// Tokens that no answer may have.
    pub forbidden: Vec<u32>,
    /// How the model marks thoughts and how much it may think; `None` for one that does not think.
    pub thinking: Option<Box<Thinking>>,
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
        /// Where the text belongs.
        channel: Channel,
    },
    /// Text that was held back until the end.
    Tail {
        /// It.
        text: &'a str,
        /// Where it belongs.
        channel: Channel,
    },
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
    /// Of those, tokens of thinking blocks.
    pub n_reasoning: usize,
}

impl<D: Device> Engine<D> {
    /// Continues `content` in `sequence`, telling `receive` of every event until it breaks off or the answer ends.
    ///
    /// # Errors
    /// [`EngineError::Sampling`], [`EngineError::Empty`] and [`EngineError::TooLong`] before any work;
    /// [`EngineError::Failed`] if the model's numbers break.
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
        StopMatcher::new(&request.stop, &limits)?;
        let prompt_ids: Vec<u32> = content.tokens().collect();
        self.set(sequence, content)?;
        let (n_prompt, n_cached) = (sequence.len(), sequence.n_computed());
        let room = self.context() - n_prompt + 1;
        let recipe = request.recipe(request.max_tokens.unwrap_or(room).min(room));
        let mut answer = Answer::new(&recipe, request.sampling.sample, &prompt_ids, tokenizer);
        let mut told = Told { receive, flow: ControlFlow::Continue(()), finish: None };
        let mut logits = self.prefill(sequence, &mut |n_done, n_total| {
            told.tell(Event::Prefill { n_done, n_total });
        })?;
        if recipe.stop.max_tokens == 0 {
            answer.finish(Finish::Length, &mut |event| told.hear(event));
        }
        while !answer.is_over() && told.flow.is_continue() {
            let id = answer.choose(&recipe, &logits, sequence.len(), &mut |event| told.hear(event))?;
            if !answer.is_over() && told.flow.is_continue() {
                sequence.push(id);
                logits = self.prefill(sequence, &mut |_, _| {})?;
            }
        }
        let is_cancelled = told.flow.is_break();
        if !answer.is_over() {
            // The answer is over: a receiver that breaks off now changes nothing.
            answer.finish(Finish::Length, &mut |event| told.hear(event));
        }
        let reason = match told.finish {
            _ if is_cancelled => FinishReason::Cancelled,
            Some(Finish::Length) | None => FinishReason::Length,
            Some(Finish::EndToken(_) | Finish::StopText(_) | Finish::Complete) => FinishReason::Stop,
        };
        let (n_completion, n_reasoning) = (answer.ids().len(), answer.n_reasoning());
        Ok(Finished { reason, n_prompt, n_cached, n_completion, n_reasoning })
    }
}

impl Request {
    fn recipe(&self, max_tokens: usize) -> Recipe {
        let mut sampling = self.sampling.clone();
        sampling.forbid(self.forbidden.iter().copied());
        Recipe {
            sampling,
            constraint: None,
            stop: Stop { max_tokens, texts: self.stop.clone(), tokens: self.end_tokens.clone() },
            logprobs: Some(0),
            thinking: self.thinking.clone(),
        }
    }
}

/// A receiver, and what it said last.
struct Told<'a> {
    receive: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    flow: ControlFlow<()>,
    finish: Option<Finish>,
}

impl Told<'_> {
    fn tell(&mut self, event: Event<'_>) {
        self.flow = (self.receive)(event);
    }

    fn hear(&mut self, event: service::Event) {
        match event {
            service::Event::Token { token, .. } => {
                let (id, logprob, channel) = (token.id, token.logprob, token.channel);
                self.tell(Event::Token { id, logprob, text: &token.text, channel });
            }
            service::Event::SampleFinished { tail, channel, finish, .. } => {
                self.finish = Some(finish);
                if !tail.is_empty() {
                    self.tell(Event::Tail { text: &tail, channel });
                }
            }
            _ => {}
        }
    }
}
