//! From a submitted job to one that the scheduler knows.

use std::time::Duration;

use super::answer::Recipe;
use super::live::{Live, Mean, Medium, PromptScores, Work};
use super::outlet::Outlet;
use super::{Failure, Job, Task, Usage};
use crate::media::Media;
use crate::prompt::Layout;
use crate::scheduler::{Mark, Request};
use crate::sequence::{Encoded, Known};

/// What a model says about prompts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Intake<'a> {
    pub(super) n_vocab: usize,
    pub(super) layout: &'a Layout,
}

impl Intake<'_> {
    /// Lays out the prompt of `job`. Its images and clips are still to be encoded.
    ///
    /// # Errors
    /// [`Failure::Prompt`], sent already, if the model can not take it.
    pub(super) fn take<'t, T>(&self, job: Job, mut outlet: Outlet) -> Option<(Request, Live<'t, T>)> {
        let keyed = job.media.iter().map(|media| (Encoded { keys: media.keys(), features: () }, media.extent()));
        let keyed: Vec<_> = keyed.collect();
        let content = match crate::prompt::content(&job.pieces, &keyed, self.layout) {
            Ok(content) => content,
            Err(error) => {
                outlet.fail(Failure::Prompt(error.to_string()));
                return None;
            }
        };
        let known = content.known;
        let outside = |known: &Known| matches!(known, Known::Token(id) if *id as usize >= self.n_vocab);
        if known.is_empty() || known.iter().any(outside) {
            let why = match known.is_empty() {
                true => "the prompt has no tokens".into(),
                false => format!("the prompt has a token outside of the model's {}", self.n_vocab),
            };
            outlet.fail(Failure::Prompt(why));
            return None;
        }
        let mark = |known: &Known| match *known {
            Known::Token(id) => Mark::Token(id),
            Known::Media { media, row } => Mark::Media {
                hash: keyed.get(media).map_or(0, |(media, _)| media.keys.of_row(row)),
                row: u32::try_from(row).unwrap_or(u32::MAX),
            },
        };
        let prompt: Vec<Mark> = known.iter().map(mark).collect();
        let (n_samples, max_tokens) = match &job.task {
            Task::Generate { n_samples, stop, .. } => (*n_samples, stop.max_tokens),
            Task::Embed => (1, 0),
        };
        let n_audio = self.layout.n_audio(&job.pieces, &job.media);
        let usage = Usage { n_prompt: known.len(), n_audio, ..Usage::default() };
        let request = Request {
            prompt,
            owner: job.owner,
            n_samples: n_samples.max(1),
            max_tokens,
            wants_every_row: job.prompt_logprobs.is_some() || matches!(job.task, Task::Embed),
            is_ready: job.media.is_empty(),
            deadline: job.deadline,
        };
        let work = work(job.task, job.prompt_logprobs, self.layout);
        let medium = |((encoded, _), media): (&(Encoded<()>, _), Media)| Medium {
            keys: encoded.keys.clone(),
            rest: Some(media),
            n_encoded: 0,
            features: None,
        };
        let media = keyed.iter().zip(job.media).map(medium).collect();
        Some((request, Live { outlet, owner: job.owner, known, media, work, usage, has_started: false }))
    }
}

fn work<'t>(task: Task, prompt_logprobs: Option<usize>, layout: &Layout) -> Work<'t> {
    match task {
        Task::Generate { n_samples, mut sampling, constraint, stop, logprobs, thinking } => {
            sampling.forbid(layout.unwritten());
            Work::Generate {
                recipe: Box::new(Recipe { sampling, constraint, stop, logprobs, thinking }),
                n_samples: n_samples.max(1),
                answers: Vec::new(),
                prompt: prompt_logprobs.map(PromptScores::new),
            }
        }
        Task::Embed => Work::Embed(Mean::default()),
    }
}

/// How long a thread without rows sleeps while receivers are slow or images and clips wait.
pub(super) const NAP: Duration = Duration::from_millis(10);
