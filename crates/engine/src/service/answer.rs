//! One answer while it is made: its sampler, its text and what ends it.

use std::collections::VecDeque;

use tokenizer::{Specials, TokenStream, Tokenizer};

use super::{Alternative, Channel, Event, Failure, Finish, Stop, Token};
use crate::constraint::Constraint;
use crate::sampling::{LogProbs, Sampler, SamplingParams, StopMatcher};
use crate::thinking::{Block, Mode, Role, Thinking};

/// How every answer of a job is made.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) sampling: SamplingParams,
    pub(crate) constraint: Option<Constraint>,
    pub(crate) stop: Stop,
    pub(crate) logprobs: Option<usize>,
    pub(crate) thinking: Option<Box<Thinking>>,
}

/// The state of one answer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    sample: u32,
    sampler: Sampler,
    /// Asked before a token of the answer's content is chosen, told when it is certain to be one.
    constraint: Option<Constraint>,
    tokenizer: &'a Tokenizer,
    stream: TokenStream<'a>,
    stop: StopMatcher,
    /// Where thoughts begin and end, if the model thinks.
    block: Option<Block>,
    /// Tokens of which it is not yet certain what they are.
    undecided: VecDeque<Token>,
    /// What the text that came last is.
    channel: Channel,
    /// Content that a block came after before it could be shown.
    carried: String,
    n_reasoning: usize,
    has_turned: bool,
    /// Tokens chosen so far.
    ids: Vec<u32>,
    is_over: bool,
}

impl<'a> Answer<'a> {
    /// Answer `sample` before its first token.
    pub(crate) fn new(recipe: &Recipe, sample: u32, prompt_ids: &[u32], tokenizer: &'a Tokenizer) -> Self {
        let sampling = SamplingParams { sample, ..recipe.sampling.clone() };
        let is_bound = recipe.constraint.is_some();
        let block = recipe.thinking.clone().map(|thinking| Block::new(*thinking, prompt_ids, is_bound));
        let is_inside = block.as_ref().is_some_and(|block| block.mode() == Mode::Reasoning);
        Self {
            sample,
            sampler: Sampler::new(sampling, prompt_ids),
            constraint: recipe.constraint.clone(),
            tokenizer,
            stream: TokenStream::new(tokenizer, Specials::Skip),
            stop: StopMatcher::checked(recipe.stop.texts.clone()),
            block,
            undecided: VecDeque::new(),
            channel: if is_inside { Channel::Reasoning } else { Channel::Content },
            carried: String::new(),
            n_reasoning: 0,
            has_turned: false,
            ids: Vec::new(),
            is_over: false,
        }
    }

    /// Tokens chosen so far.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Of those, tokens of thinking blocks.
    pub(crate) fn n_reasoning(&self) -> usize {
        self.n_reasoning
    }

    /// Whether nothing more comes.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether the token that came last began or ended a block, or the writing of a message.
    pub(super) fn has_turned(&self) -> bool {
        self.has_turned
    }

    /// Chooses the token at `position` from `logits`, and tells `send` of it and of the answer's end.
    ///
    /// # Errors
    /// [`Failure::Numerical`] and [`Failure::Constraint`]; nothing was sent then.
    pub(crate) fn choose(
        &mut self,
        recipe: &Recipe,
        logits: &[f32],
        position: usize,
        send: &mut dyn FnMut(Event),
    ) -> Result<u32, Failure> {
        crate::fault::point("sample");
        let (id, is_forced) = match self.block.as_ref().and_then(Block::forced) {
            Some(id) => (id, true),
            None => {
                let sampled = self.sample(logits, position as u64)?;
                let extended = self.block.as_mut().and_then(|block| block.extended(sampled));
                extended.map_or((sampled, false), |id| (id, true))
            }
        };
        let (logprob, alternatives) = match recipe.logprobs {
            Some(n) => {
                let log_probs = LogProbs::new(logits)?;
                (log_probs.of(id as usize), alternatives(&log_probs, n))
            }
            None => (0.0, Vec::new()),
        };
        let may_end = self.block.as_ref().is_none_or(|block| block.may_end(id));
        if recipe.stop.tokens.contains(&id) && may_end && !is_forced {
            self.ids.push(id);
            self.n_reasoning += usize::from(self.is_thinking());
            self.finish(Finish::EndToken(id), send);
            return Ok(id);
        }
        let roles = self.roles(id);
        let token = Token { id, text: String::new(), logprob, alternatives, channel: self.channel, is_forced };
        self.undecided.push_back(token);
        self.accept(&roles)?;
        self.ids.push(id);
        self.show(&roles, send);
        if let Some(stop) = self.stop.stopped_by() {
            self.finish(Finish::StopText(stop.to_owned()), send);
        } else if self.constraint.as_ref().is_some_and(Constraint::is_complete) {
            self.finish(Finish::Complete, send);
        } else if self.ids.len() >= recipe.stop.max_tokens {
            self.finish(Finish::Length, send);
        }
        Ok(id)
    }

    fn is_thinking(&self) -> bool {
        self.block.as_ref().is_some_and(|block| block.mode() == Mode::Reasoning)
    }

    /// Samples a token: in a block any, else one that the constraint allows, or that opens a block.
    fn sample(&mut self, logits: &[f32], position: u64) -> Result<u32, Failure> {
        let Some(constraint) = &mut self.constraint else { return Ok(self.sampler.choose(logits, position)?) };
        crate::fault::point("constraint");
        let mut allowed = logits.to_vec();
        match &self.block {
            Some(block) if block.mode() == Mode::Reasoning => {
                // Such a token would be the answer's first, chosen before the constraint was asked.
                for id in block.implicit_end() {
                    allowed.get_mut(*id as usize).into_iter().for_each(|logit| *logit = f32::NEG_INFINITY);
                }
            }
            Some(block) if block.mode() == Mode::Undecided => {
                let mut ahead = constraint.clone();
                // A beginning of a marker that the constraint does not allow can only go on as a marker.
                match block.held().try_for_each(|id| ahead.accept(id)) {
                    Ok(()) => ahead.mask(&mut allowed)?,
                    Err(_) => allowed.fill(f32::NEG_INFINITY),
                }
                if let Some(id) = block.opening()
                    && let (Some(to), Some(from)) = (allowed.get_mut(id as usize), logits.get(id as usize))
                {
                    *to = *from;
                }
            }
            _ => constraint.mask(&mut allowed)?,
        }
        Ok(self.sampler.choose(&allowed, position)?)
    }

    /// What becomes certain because of a token.
    fn roles(&mut self, id: u32) -> Vec<Role> {
        let Some(block) = &mut self.block else { return vec![Role::Content] };
        let bytes = if self.tokenizer.is_control(id) { None } else { self.tokenizer.token_bytes(id) };
        let taken = block.take(id, bytes.unwrap_or_default());
        self.has_turned = taken.has_turned;
        taken.roles
    }

    /// Tells the constraint of content.
    fn accept(&mut self, roles: &[Role]) -> Result<(), Failure> {
        let Some(constraint) = &mut self.constraint else { return Ok(()) };
        let content = self.undecided.iter().zip(roles).filter(|(_, role)| **role == Role::Content);
        Ok(content.into_iter().try_for_each(|(token, _)| constraint.accept(token.id))?)
    }

    /// Sends the tokens that are certain now.
    fn show(&mut self, roles: &[Role], send: &mut dyn FnMut(Event)) {
        for role in roles {
            let Some(mut token) = self.undecided.pop_front() else { return };
            token.channel = match role {
                Role::Content | Role::Ignored => Channel::Content,
                Role::Thought | Role::Marker => Channel::Reasoning,
            };
            self.n_reasoning += usize::from(token.channel == Channel::Reasoning);
            if token.channel != self.channel {
                self.turn(token.channel);
            }
            token.text = match role {
                Role::Content => {
                    let text = self.stop.push(&self.stream.push(token.id));
                    std::mem::take(&mut self.carried) + &text
                }
                Role::Thought => self.stream.push(token.id),
                // A character that the block left incomplete.
                Role::Marker => self.stream.flush(),
                Role::Ignored => String::new(),
            };
            send(Event::Token { sample: self.sample, token });
        }
    }

    /// Text of another kind follows: what is left of a character is not part of it.
    fn turn(&mut self, channel: Channel) {
        let torn = self.stream.flush();
        if channel == Channel::Reasoning {
            self.carried.push_str(&self.stop.push(&torn));
            if !self.stop.is_stopped() {
                // No stop text goes on beyond a block.
                self.carried.push_str(&self.stop.flush());
            }
        }
        self.channel = channel;
    }

    /// Ends the answer, giving out what was held back.
    pub(crate) fn finish(&mut self, finish: Finish, send: &mut dyn FnMut(Event)) {
        let roles = self.block.as_mut().map(Block::finish).unwrap_or_default();
        self.show(&roles, send);
        let mut tail = std::mem::take(&mut self.carried);
        let rest = self.stream.flush();
        let mut channel = self.channel;
        if channel == Channel::Content {
            tail.push_str(&self.stop.push(&rest));
            if !self.stop.is_stopped() {
                tail.push_str(&self.stop.flush());
            }
        } else if tail.is_empty() {
            tail = rest;
        } else {
            channel = Channel::Content;
        }
        self.is_over = true;
        send(Event::SampleFinished { sample: self.sample, finish, tail, channel });
    }
}

/// The `n` likeliest tokens as events name them.
pub(super) fn alternatives(log_probs: &LogProbs<'_>, n: usize) -> Vec<Alternative> {
    let named = |(id, logprob)| Some(Alternative { id: u32::try_from(id).ok()?, logprob });
    log_probs.likeliest(n).into_iter().filter_map(named).collect()
}
