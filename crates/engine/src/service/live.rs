//! A job while it is worked on: its prompt, its answers and what else was asked of it.

use std::time::Duration;

use llama::Input;
use tokenizer::Tokenizer;

use super::answer::{Answer, Recipe, alternatives};
use super::compute::{Seen, Wanted};
use super::outlet::Outlet;
use super::{Alternative, Event, Failure, Finish, Owner, Usage};
use crate::media::{Keys, Media};
use crate::sampling::LogProbs;
use crate::scheduler::{Fate, Piece};
use crate::sequence::Known;

/// A job that the engine's thread has taken up.
pub(super) struct Live<'a, T> {
    pub(super) outlet: Outlet,
    pub(super) owner: Owner,
    /// The prompt, one entry a position.
    pub(super) known: Vec<Known>,
    pub(super) media: Vec<Medium<T>>,
    pub(super) work: Work<'a>,
    pub(super) usage: Usage,
    pub(super) has_started: bool,
}

/// An image or a clip of a prompt.
pub(super) struct Medium<T> {
    pub(super) keys: Keys,
    /// What is encoded piece by piece; `None` when all of it is.
    pub(super) rest: Option<Media>,
    /// Tiles of the image or chunks of the clip that are encoded.
    pub(super) n_encoded: usize,
    /// Rows so far.
    pub(super) features: Option<T>,
}

/// What was asked for.
pub(super) enum Work<'a> {
    Generate { recipe: Box<Recipe>, n_samples: u32, answers: Vec<Answer<'a>>, prompt: Option<PromptScores> },
    Embed(Mean),
}

type Entry = Option<(Option<Alternative>, Vec<Alternative>)>;

/// Log-probabilities of a prompt's tokens, as far as they are known.
pub(super) struct PromptScores {
    pub(super) n_alternatives: usize,
    pub(super) entries: Vec<Entry>,
}

/// The mean of rows.
#[derive(Default)]
pub(super) struct Mean {
    sum: Vec<f64>,
    n_rows: usize,
}

/// What comes of one piece while its rows are looked at.
pub(super) struct Turn {
    pub(super) piece: Piece,
    /// Row of the step that its first position is.
    pub(super) first_row: usize,
    tokens: Vec<u32>,
    /// First tokens of the answers that just began.
    firsts: Vec<Option<u32>>,
    /// Why the job can not go on.
    broken: Option<Failure>,
    /// Later rows do not count: a guess before them was wrong, or the answer is over.
    is_closed: bool,
    is_ended: bool,
}

impl Turn {
    pub(super) fn new(piece: &Piece, first_row: usize) -> Self {
        let (tokens, firsts) = (Vec::new(), Vec::new());
        let piece = piece.clone();
        Self { piece, first_row, tokens, firsts, broken: None, is_closed: false, is_ended: false }
    }

    /// What the scheduler is told.
    pub(super) fn into_fate(self) -> Fate {
        match () {
            () if self.broken.is_some() => Fate::Broken,
            () if self.is_ended => Fate::Ended(self.tokens),
            () if self.firsts.len() > 1 => Fate::Forked(self.firsts),
            () if self.tokens.is_empty() => Fate::Computed,
            () => Fate::Chosen(self.tokens),
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Why the job can not go on, if it can not.
    pub(super) fn broken(&self) -> Option<&Failure> {
        self.broken.as_ref()
    }

    /// Tokens chosen.
    pub(super) fn n_chosen(&self) -> usize {
        if self.firsts.is_empty() { self.tokens.len() } else { self.firsts.len() }
    }
}

impl<'a, T> Live<'a, T> {
    /// The answer of `sample`, if it has begun.
    fn answer(&self, sample: u32) -> Option<&Answer<'a>> {
        match &self.work {
            Work::Generate { answers, .. } => answers.get(sample as usize),
            Work::Embed(_) => None,
        }
    }

    /// Whether rows of images or clips are among those of `piece`.
    pub(super) fn has_media(&self, piece: &Piece) -> bool {
        let known = self.known.get(piece.begin..piece.end.min(self.known.len()));
        known.is_some_and(|known| known.iter().any(|known| matches!(known, Known::Media { .. })))
    }

    /// What stands at `position` of the sequence of `piece`, for the model; `first_feature` is where the job's media
    /// begin among the step's.
    pub(super) fn input(&self, piece: &Piece, position: usize, first_feature: usize) -> Option<Input> {
        if let Some(known) = self.known.get(position) {
            return Some(match *known {
                Known::Token(id) => Input::Token(id),
                Known::Media { media, row } => Input::Feature { features: first_feature + media, row },
            });
        }
        let guess = || piece.draft.get(position.checked_sub(piece.end)?);
        let at = position - self.known.len();
        let id = self.answer(piece.sequence.sample).and_then(|answer| answer.ids().get(at)).or_else(guess)?;
        Some(Input::Token(*id))
    }

    /// What is wanted of the row at `position`.
    pub(super) fn wanted(&self, piece: &Piece, position: usize) -> Wanted {
        let n_prompt = self.known.len();
        match &self.work {
            Work::Embed(mean) if position >= mean.n_rows => Wanted::Hidden,
            Work::Embed(_) => Wanted::Nothing,
            Work::Generate { prompt: Some(prompt), .. } if position + 1 < n_prompt => {
                if position + 1 >= prompt.entries.len() { Wanted::Logits } else { Wanted::Nothing }
            }
            Work::Generate { recipe, .. } if recipe.stop.max_tokens > 0 && piece.is_last => {
                if position + 1 >= piece.end { Wanted::Logits } else { Wanted::Nothing }
            }
            Work::Generate { .. } => Wanted::Nothing,
        }
    }

    /// Takes in what the row at `position` gave.
    pub(super) fn see(
        &mut self,
        turn: &mut Turn,
        position: usize,
        seen: Seen<'_>,
        (tokenizer, now): (&'a Tokenizer, Duration),
    ) {
        match (seen, &mut self.work) {
            // A guess that broke is no more than a wrong guess, unless it was right.
            (Seen::Broken, _) if position < turn.piece.end => turn.broken = Some(Failure::Numerical),
            (Seen::Broken, _) => {}
            (Seen::Hidden(row), Work::Embed(mean)) => mean.add(row),
            (Seen::Logits(logits), Work::Generate { prompt: Some(prompt), .. }) if position + 1 < self.known.len() => {
                if prompt.add(logits, self.known.get(position + 1)).is_none() {
                    turn.broken = Some(Failure::Numerical);
                }
            }
            (Seen::Logits(logits), Work::Generate { .. }) => self.choose(turn, position, logits, (tokenizer, now)),
            (Seen::Hidden(_), Work::Generate { .. }) | (Seen::Logits(_), Work::Embed(_)) => {}
        }
    }

    fn choose(
        &mut self,
        turn: &mut Turn,
        position: usize,
        logits: &[f32],
        (tokenizer, now): (&'a Tokenizer, Duration),
    ) {
        let Work::Generate { recipe, n_samples, answers, prompt } = &mut self.work else { return };
        if turn.is_closed || turn.broken.is_some() {
            return;
        }
        let outlet = &mut self.outlet;
        let send = &mut |event| outlet.send(event, now);
        if !answers.is_empty() {
            let Some(answer) = answers.get_mut(turn.piece.sequence.sample as usize) else { return };
            let id = match answer.choose(recipe, logits, position + 1, send) {
                Ok(id) => id,
                Err(failure) => return turn.broken = Some(failure),
            };
            turn.tokens.push(id);
            turn.is_ended = answer.is_over();
            let guess = turn.piece.draft.get(position + 1 - turn.piece.end);
            turn.is_closed = turn.is_ended || answer.has_turned() || guess != Some(&id);
            return;
        }
        let prompt_ids: Vec<u32> = self.known.iter().filter_map(token).collect();
        *answers = (0..*n_samples).map(|sample| Answer::new(recipe, sample, &prompt_ids, tokenizer)).collect();
        if let Some(prompt) = prompt.take() {
            send(Event::PromptLogprobs(prompt.entries));
        }
        for answer in answers.iter_mut() {
            let id = match answer.choose(recipe, logits, position + 1, send) {
                Ok(id) => id,
                Err(failure) => return turn.broken = Some(failure),
            };
            turn.firsts.push(Some(id).filter(|_| !answer.is_over()));
            turn.tokens = vec![id];
        }
        turn.is_ended = answers.iter().all(Answer::is_over) && answers.len() == 1;
    }

    /// Ends what ends with the prompt, after its last row.
    pub(super) fn end_prompt(&mut self, turn: &mut Turn, tokenizer: &'a Tokenizer, now: Duration) {
        if !turn.piece.is_last || turn.broken.is_some() {
            return;
        }
        let outlet = &mut self.outlet;
        match &mut self.work {
            Work::Embed(mean) => {
                outlet.send(Event::Embedding(mean.normalised()), now);
                turn.is_ended = true;
            }
            Work::Generate { recipe, n_samples, answers, prompt } if recipe.stop.max_tokens == 0 => {
                if let Some(prompt) = prompt.take() {
                    outlet.send(Event::PromptLogprobs(prompt.entries), now);
                }
                for sample in 0..*n_samples {
                    let mut answer = Answer::new(recipe, sample, &[], tokenizer);
                    answer.finish(Finish::Length, &mut |event| outlet.send(event, now));
                    answers.push(answer);
                }
                turn.is_ended = true;
            }
            Work::Generate { .. } => {}
        }
    }

    /// Counts what a turn chose.
    pub(super) fn count(&mut self, turn: &Turn) {
        let n = turn.n_chosen();
        self.usage.n_completion += n;
        if let Work::Generate { answers, .. } = &self.work {
            self.usage.n_reasoning = answers.iter().map(Answer::n_reasoning).sum();
        }
    }

    /// Whether everything asked for is sent.
    pub(super) fn is_done(&self, has_ended: bool) -> bool {
        match &self.work {
            Work::Embed(_) => has_ended,
            Work::Generate { answers, .. } => !answers.is_empty() && answers.iter().all(Answer::is_over),
        }
    }
}

/// The token at a position, if it is one.
pub(super) fn token(known: &Known) -> Option<u32> {
    match known {
        Known::Token(id) => Some(*id),
        Known::Media { .. } => None,
    }
}

impl PromptScores {
    pub(super) fn new(n_alternatives: usize) -> Self {
        Self { n_alternatives, entries: vec![None] }
    }

    /// The entry of the position after a row with these logits, where `known` stands; `None` if they are broken.
    fn add(&mut self, logits: &[f32], known: Option<&Known>) -> Option<()> {
        let log_probs = LogProbs::new(logits).ok()?;
        let chosen = known.and_then(token).map(|id| Alternative { id, logprob: log_probs.of(id as usize) });
        self.entries.push(Some((chosen, alternatives(&log_probs, self.n_alternatives))));
        Some(())
    }
}

impl Mean {
    fn add(&mut self, row: &[f32]) {
        self.sum.resize(row.len(), 0.0);
        self.sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        self.n_rows += 1;
    }

    /// The mean, of length 1; zeros if it has none.
    fn normalised(&self) -> Vec<f32> {
        let len = self.sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        let scale = if len > 0.0 { 1.0 / len } else { 0.0 };
        self.sum.iter().map(|value| (value * scale) as f32).collect()
    }
}
