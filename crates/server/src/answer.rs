//! Answers as they are put together from events.

use engine::service::{Channel, Event, Finish, Token, Usage};
use tokenizer::Tokenizer;

use crate::tools::{Hearing, Piece};
use crate::wire::chat;
use crate::work;

/// One answer so far.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was said.
    pub content: String,
    /// What was thought.
    pub reasoning: String,
    /// What was called.
    pub calls: Vec<Call>,
    /// Every token, if their probabilities are wanted.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub finish: Option<Finish>,
    hearing: Hearing,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What its result refers to.
    pub id: String,
    /// The tool.
    pub name: String,
    /// JSON text.
    pub arguments: String,
}

/// All answers of a request: those to job 0, then those to job 1 and so on.
#[derive(Debug)]
pub struct Answers {
    /// Answers to each job.
    n: usize,
    /// All of them.
    pub list: Vec<Answer>,
    /// Counts of all jobs.
    pub usage: Usage,
    keeps: Keeps,
}

/// Whether tokens are kept beside the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Text alone.
    Text,
    /// Both.
    Tokens,
}

impl Answers {
    /// Room for `n` answers to each of `jobs` jobs, in which `hearing` hears calls.
    pub fn new(jobs: usize, n: u32, keeps: Keeps, hearing: &Hearing) -> Self {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        let list = vec![Answer::new(hearing.clone()); jobs.saturating_mul(n)];
        Self { n, list, usage: Usage::default(), keeps }
    }

    /// The number of an answer among all.
    pub fn index(&self, job: usize, sample: u32) -> usize {
        job * self.n + usize::try_from(sample).unwrap_or(usize::MAX)
    }

    /// Takes an event in; returns the pieces of what was said that are certain because of it.
    pub fn take(&mut self, job: usize, event: Event) -> Vec<Piece> {
        match event {
            Event::Token { sample, token } => {
                let (index, keeps) = (self.index(job, sample), self.keeps);
                let Some(answer) = self.list.get_mut(index) else { return Vec::new() };
                let pieces = answer.push(&token.text, token.channel);
                if keeps == Keeps::Tokens {
                    answer.tokens.push(token);
                }
                pieces
            }
            Event::SampleFinished { sample, finish, tail, channel } => {
                let index = self.index(job, sample);
                let Some(answer) = self.list.get_mut(index) else { return Vec::new() };
                let mut pieces = answer.push(&tail, channel);
                let held = answer.hearing.finish();
                answer.keep(&held);
                pieces.extend(held);
                answer.finish = Some(finish);
                pieces
            }
            Event::Finished(usage) => {
                work::add(&mut self.usage, &usage);
                Vec::new()
            }
            Event::Started { .. } | Event::PromptLogprobs(_) | Event::Embedding(_) | Event::Failed(_) => Vec::new(),
        }
    }
}

impl Answer {
    /// An answer that has not begun.
    pub fn new(hearing: Hearing) -> Self {
        Self {
            content: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
            tokens: Vec::new(),
            finish: None,
            hearing,
        }
    }

    fn push(&mut self, text: &str, channel: Channel) -> Vec<Piece> {
        match channel {
            Channel::Content => {
                let pieces = self.hearing.push(text);
                self.keep(&pieces);
                pieces
            }
            Channel::Reasoning => {
                self.reasoning.push_str(text);
                Vec::new()
            }
        }
    }

    fn keep(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.content.push_str(text),
                Piece::Call { id, name, .. } => {
                    self.calls.push(Call { id: id.clone(), name: name.clone(), arguments: String::new() });
                }
                Piece::Arguments { index, text } => {
                    if let Some(call) = self.calls.get_mut(*index) {
                        call.arguments.push_str(text);
                    }
                }
            }
        }
    }

    /// As OpenAI's interfaces call its end.
    pub fn finish_reason(&self) -> chat::FinishReason {
        match &self.finish {
            Some(Finish::Length) | None => chat::FinishReason::Length,
            Some(_) if !self.calls.is_empty() => chat::FinishReason::ToolCalls,
            Some(Finish::EndToken(_) | Finish::StopText(_) | Finish::Complete) => chat::FinishReason::Stop,
        }
    }
}

/// A token with its probability, as chats show it.
pub fn logprob(token: &Token, tokenizer: &Tokenizer) -> chat::TokenLogprob {
    let (text, bytes) = spelling(token.id, tokenizer);
    let alternatives = token.alternatives.iter().map(|alternative| {
        let (token, bytes) = spelling(alternative.id, tokenizer);
        chat::Alternative { token, logprob: finite(alternative.logprob), bytes }
    });
    chat::TokenLogprob {
        token: text,
        logprob: finite(token.logprob),
        bytes,
        top_logprobs: alternatives.collect(),
        channel: (token.channel == Channel::Reasoning).then_some("reasoning"),
        forced: token.is_forced.then_some(true),
    }
}

/// A token's text and bytes.
pub fn spelling(id: u32, tokenizer: &Tokenizer) -> (String, Vec<u8>) {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default().to_vec();
    (String::from_utf8_lossy(&bytes).into_owned(), bytes)
}

/// JSON has no infinity.
pub fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob.max(-9999.0) } else { -9999.0 }
}
