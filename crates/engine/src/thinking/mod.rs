//! Thinking blocks: where an answer's thoughts begin and end, and how long they may be.

mod block;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokenizer::Piece;

pub(crate) use block::{Block, Mode, Role};

/// Tokens that an answer keeps for itself at most, whatever its thoughts may take.
const RESERVE: usize = 512;

/// How a model marks its thoughts, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    /// Opens a block; not empty.
    pub start: Vec<u32>,
    /// Closes it; not empty.
    pub end: Vec<u32>,
    /// Each of these closes a block too, and belongs to the answer.
    pub implicit_end: Vec<u32>,
    /// Written before `end` when a budget runs out.
    pub budget_message: Vec<u32>,
    /// Written instead of an `end` that comes too early; none if empty.
    pub extend_message: Vec<u32>,
    /// Tokens that end an answer inside a block too.
    pub end_tokens: Vec<u32>,
}

/// What the answers of a job may think.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thinking {
    /// The model's markers.
    pub markers: Arc<Markers>,
    /// Tokens that are sampled in blocks at most, all blocks of an answer together. With 0 a block is closed as soon
    /// as it is open.
    pub budget: usize,
    /// Before so many tokens a closing marker is replaced by the message that extends a block.
    pub min_tokens: usize,
    /// How often that may happen in one answer.
    pub max_extensions: usize,
}

/// What a model knows of thinking, and what it does where a request does not say.
#[derive(Debug, Clone)]
pub struct Reasoning {
    /// How it marks thoughts.
    pub markers: Arc<Markers>,
    /// Whether it thinks where nobody says.
    pub is_on: bool,
    /// Whether prompts end with the opening marker; else the model writes it.
    pub prefill_start: bool,
    /// Tokens that each effort allows, by its name; `None` for no limit.
    pub efforts: BTreeMap<String, Option<usize>>,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whether to think; `None` for what the model does by itself.
    pub is_on: Option<bool>,
    /// Tokens of thoughts at most; `None` for no limit of its own.
    pub budget: Option<usize>,
    /// As [`Thinking::min_tokens`].
    pub min_tokens: usize,
    /// As [`Thinking::max_extensions`].
    pub max_extensions: usize,
    /// The effort's name, for templates that know it.
    pub effort: Option<String>,
}

impl Default for Ask {
    fn default() -> Self {
        Self { is_on: None, budget: None, min_tokens: 0, max_extensions: 1, effort: None }
    }
}

impl Ask {
    /// Not to think.
    pub fn off() -> Self {
        Self { is_on: Some(false), ..Self::default() }
    }
}

impl Reasoning {
    /// The tokens that an effort of this name allows, `None` for no limit.
    ///
    /// # Errors
    /// The names of those that the model knows, the smallest first, if it is not one of them.
    pub fn effort(&self, name: &str) -> Result<Option<usize>, String> {
        self.efforts.get(name).copied().ok_or_else(|| {
            let mut known: Vec<(usize, &str)> =
                self.efforts.iter().map(|(name, budget)| (budget.unwrap_or(usize::MAX), name.as_str())).collect();
            known.sort_unstable();
            known.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(", ")
        })
    }

    /// Whether a request that asks for this thinks.
    pub fn thinks(&self, ask: &Ask) -> bool {
        ask.is_on.unwrap_or(self.is_on)
    }

    /// Puts after a prompt that ends where an answer begins what a thinking answer, or one that is not to think, begins
    /// with. A template may have written it already.
    ///
    /// A model that is not to think gets an empty block, unless it does not think by itself: such a one has not seen empty
    /// blocks.
    pub fn open(&self, ask: &Ask, prompt: &mut Vec<Piece>) {
        let known = match prompt.last() {
            Some(Piece::Ids(ids)) => ids.as_slice(),
            Some(Piece::Media(_)) | None => &[],
        };
        let opening = self.opening(ask, known);
        match prompt.last_mut() {
            Some(Piece::Ids(ids)) => ids.extend(opening),
            _ => prompt.push(Piece::Ids(opening)),
        }
    }

    fn opening(&self, ask: &Ask, prompt: &[u32]) -> Vec<u32> {
        let Markers { start, end, .. } = &*self.markers;
        let is_open = self.markers.open_in(prompt).is_some();
        match self.thinks(ask) {
            true if self.prefill_start && !is_open && !prompt.ends_with(end) => start.clone(),
            true => Vec::new(),
            false if is_open => end.clone(),
            false if self.is_on && !prompt.ends_with(end) => [start.as_slice(), end].concat(),
            false => Vec::new(),
        }
    }

    /// What an answer of at most `max_tokens` may think: what was asked, at most `ceiling`, and always so little that a
    /// quarter of the answer, or 512 tokens, are left for what is said, after whatever is written to end the thoughts.
    pub fn thinking(&self, ask: &Ask, max_tokens: usize, ceiling: usize) -> Thinking {
        let Markers { end, budget_message, extend_message, .. } = &*self.markers;
        let extensions = if ask.min_tokens > 0 { ask.max_extensions.saturating_mul(extend_message.len()) } else { 0 };
        let written = extensions.saturating_add(budget_message.len() + end.len());
        let room = (max_tokens - RESERVE.min(max_tokens / 4)).saturating_sub(written);
        let asked = if self.thinks(ask) { ask.budget.unwrap_or(usize::MAX) } else { 0 };
        Thinking {
            markers: Arc::clone(&self.markers),
            budget: asked.min(ceiling).min(room),
            min_tokens: ask.min_tokens,
            max_extensions: ask.max_extensions,
        }
    }
}

impl Markers {
    /// Tokens that a prompt has inside of a block that it leaves open; `None` if it leaves none open.
    ///
    /// Only the last turn counts, so that text before it that reads like a marker opens nothing.
    pub fn open_in(&self, prompt: &[u32]) -> Option<usize> {
        let Self { start, end, end_tokens, .. } = self;
        let turn = prompt.iter().rposition(|id| end_tokens.contains(id)).map_or(0, |at| at + 1);
        let turn = prompt.get(turn..).unwrap_or_default();
        for len in (1..=turn.len()).rev() {
            let before = turn.get(..len).unwrap_or_default();
            if before.ends_with(start) {
                return Some(turn.len() - len);
            }
            if before.ends_with(end) {
                return None;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasoning(is_on: bool, prefill_start: bool) -> Reasoning {
        let markers = Markers {
            start: vec![60, 61],
            end: vec![62],
            implicit_end: Vec::new(),
            budget_message: vec![1, 2, 3],
            extend_message: vec![4, 5],
            end_tokens: vec![9],
        };
        Reasoning { markers: Arc::new(markers), is_on, prefill_start, efforts: BTreeMap::new() }
    }

    #[test]
    fn a_prompt_gets_what_it_lacks() {
        let [asked, off, own] = [Some(true), Some(false), None].map(|is_on| Ask { is_on, ..Ask::default() });
        let check = |reasoning: &Reasoning, ask: &Ask, prompt: &[u32], expected: &[u32]| {
            let mut pieces = vec![Piece::Media(0), Piece::Ids(prompt.to_vec())];
            reasoning.open(ask, &mut pieces);
            assert_eq!(pieces, [Piece::Media(0), Piece::Ids([prompt, expected].concat())], "{ask:?}");
        };
        let (thinks, silent, writes_itself) = (reasoning(true, true), reasoning(false, true), reasoning(true, false));
        check(&thinks, &own, &[9, 8], &[60, 61]);
        check(&thinks, &off, &[9, 8], &[60, 61, 62]);
        check(&silent, &own, &[9, 8], &[]);
        check(&silent, &off, &[9, 8], &[]);
        check(&silent, &asked, &[9, 8], &[60, 61]);
        check(&writes_itself, &own, &[9, 8], &[]);
        // What a template has written already.
        check(&thinks, &own, &[9, 8, 60, 61], &[]);
        check(&thinks, &own, &[9, 60, 61, 62], &[]);
        check(&thinks, &off, &[9, 60, 61, 62], &[]);
        check(&thinks, &off, &[9, 8, 60, 61], &[62]);
        // What reads like a marker in an earlier turn.
        check(&thinks, &own, &[60, 61, 9, 8], &[60, 61]);
        let mut none = Vec::new();
        thinks.open(&own, &mut none);
        assert_eq!(none, [Piece::Ids(vec![60, 61])]);
    }

    #[test]
    fn an_answer_has_room_whatever_is_thought() {
        let reasoning = reasoning(true, true);
        let budget = |ask: Ask, max_tokens, ceiling| reasoning.thinking(&ask, max_tokens, ceiling).budget;
        for max_tokens in 0..6000 {
            let reserve = 512.min(max_tokens / 4);
            let all = budget(Ask::default(), max_tokens, usize::MAX);
            assert_eq!(all, (max_tokens - reserve).saturating_sub(4), "{max_tokens}");
            let extended = Ask { min_tokens: 1, max_extensions: 3, ..Ask::default() };
            assert_eq!(budget(extended, max_tokens, usize::MAX), (max_tokens - reserve).saturating_sub(10));
        }
        assert_eq!(budget(Ask { budget: Some(7), ..Ask::default() }, 100, 5), 5);
        assert_eq!(budget(Ask { budget: Some(7), ..Ask::default() }, 100, 8), 7);
        assert_eq!(budget(Ask::off(), 100, 8), 0);
    }
}
