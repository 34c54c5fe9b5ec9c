//! One answer, streamed as it is made.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use engine::service::Channel;
use engine::{Content, Event, Finished, Request};
use tensor::Device;

use crate::bench::Test;
use crate::chat::Chat;
use crate::interrupt;
use crate::output::{token_bar, write};
use crate::plan::learned::Figure;

/// An answer with what it took.
pub struct Answer {
    pub text: String,
    /// What was thought before it.
    pub reasoning: String,
    pub ids: Vec<u32>,
    pub finished: Finished,
    to_first_token: Duration,
    total: Duration,
}

impl Answer {
    /// Answers `content`, writing the text to standard output and thoughts to standard error as they come if `is_shown`.
    ///
    /// Ctrl-C ends the answer where it stands, with [`engine::FinishReason::Cancelled`].
    pub fn stream<D: Device>(
        chat: &mut Chat<D>,
        content: Content<D::Tensor>,
        request: &Request,
        is_shown: bool,
    ) -> Result<Self> {
        let (mut text, mut reasoning, mut ids) = (String::new(), String::new(), Vec::new());
        let mut thoughts = Thoughts::default();
        let (mut to_first_token, mut closed) = (None, None);
        let bar = token_bar("reading the prompt", content.known.len());
        let watch = interrupt::Watch::begin();
        let started = Instant::now();
        let finished = chat.generate(content, request, &mut |event| {
            let (piece, channel) = match event {
                Event::Prefill { n_done, .. } => {
                    bar.set_position(n_done as u64);
                    ("", Channel::Content)
                }
                Event::Token { id, text, channel, .. } => {
                    bar.finish_and_clear();
                    to_first_token.get_or_insert_with(|| started.elapsed());
                    ids.push(id);
                    (text, channel)
                }
                Event::Tail { text, channel } => (text, channel),
            };
            match channel {
                Channel::Content => text.push_str(piece),
                Channel::Reasoning => reasoning.push_str(piece),
            }
            if is_shown && !piece.is_empty() {
                closed = match channel {
                    Channel::Content => {
                        thoughts.end();
                        write(piece).err()
                    }
                    Channel::Reasoning => {
                        thoughts.show(piece);
                        None
                    }
                };
            }
            if closed.is_some() || watch.is_interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        bar.finish_and_clear();
        thoughts.end();
        let total = started.elapsed();
        match closed {
            Some(error) => Err(error.into()),
            None => Ok(Self { text, reasoning, ids, finished, to_first_token: to_first_token.unwrap_or(total), total }),
        }
    }

    /// What it took as tests of `puna bench`, for forecasts to learn from. A few tokens say nothing.
    pub fn figures(&self) -> Vec<Figure> {
        const LEAST: usize = 16;
        let Finished { n_prompt, n_cached, n_completion, .. } = self.finished;
        let decode_s = self.total.saturating_sub(self.to_first_token).as_secs_f64();
        let prefill = Test::Prefill { tokens: n_prompt - n_cached, depth: n_cached };
        let decode = Test::Decode { tokens: n_completion.saturating_sub(1), depth: n_prompt, batch: 1 };
        let figures = [(prefill, self.to_first_token.as_secs_f64()), (decode, decode_s)];
        let long = figures.into_iter().filter(|(test, _)| test.n_tokens() >= LEAST);
        long.map(|(test, seconds)| Figure { test, seconds }).collect()
    }

    /// One line of counts and speed.
    pub fn stats(&self) -> String {
        let n_new = self.finished.n_prompt - self.finished.n_cached;
        let (first, decode) =
            (self.to_first_token.as_secs_f64(), self.total.saturating_sub(self.to_first_token).as_secs_f64());
        let n = self.finished.n_completion;
        // The first token comes out of reading the prompt.
        format!(
            "{n_new} prompt tokens in {first:.2} s ({:.1}/s), {n} tokens in {decode:.2} s ({:.1}/s)",
            n_new as f64 / first.max(1e-9),
            n.saturating_sub(1) as f64 / decode.max(1e-9),
        )
    }
}

/// Thoughts on standard error, so that standard output is the answer alone. A terminal shows them dim.
#[derive(Default)]
struct Thoughts {
    is_open: bool,
}

impl Thoughts {
    fn show(&mut self, text: &str) {
        if !std::mem::replace(&mut self.is_open, true) && is_coloured() {
            eprint!("\x1b[2m");
        }
        eprint!("{text}");
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            eprintln!("{}", if is_coloured() { "\x1b[0m" } else { "" });
        }
    }
}

/// Whether standard error is a terminal that may have colours.
fn is_coloured() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
