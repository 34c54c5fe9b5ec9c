//! From a submitted job to one that the scheduler knows.

use std::time::Duration;

use llama::Vision;
use tensor::Device;
use tokenizer::ImageIds;

use super::answer::Recipe;
use super::live::{Live, Mean, Picture, PromptScores, Work};
use super::outlet::Outlet;
use super::{Failure, Job, Task, Usage};
use crate::media::Tiles;
use crate::prompt::image_hash;
use crate::scheduler::{Mark, Request};
use crate::sequence::{EncodedImage, Known};

/// What a model says about prompts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Intake<'a> {
    pub(super) n_vocab: usize,
    pub(super) tile_rows: usize,
    pub(super) image_ids: Option<&'a ImageIds>,
}

impl Intake<'_> {
    /// Lays out the prompt of `job`. Its images are still to be encoded.
    ///
    /// # Errors
    /// [`Failure::Prompt`], sent already, if the model can not take it.
    pub(super) fn take<'t, T>(&self, job: Job, mut outlet: Outlet) -> Option<(Request, Live<'t, T>)> {
        let hashed =
            job.images.iter().map(|tiles| (EncodedImage { hash: image_hash(tiles), features: () }, tiles.grid));
        let hashed: Vec<_> = hashed.collect();
        let content = match crate::prompt::content(&job.pieces, &hashed, self.image_ids, self.tile_rows) {
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
            Known::Image { image, row } => Mark::Media {
                hash: hashed.get(image).map_or(0, |(image, _)| image.hash),
                row: u32::try_from(row).unwrap_or(u32::MAX),
            },
        };
        let prompt: Vec<Mark> = known.iter().map(mark).collect();
        let (n_samples, max_tokens) = match &job.task {
            Task::Generate { n_samples, stop, .. } => (*n_samples, stop.max_tokens),
            Task::Embed => (1, 0),
        };
        let usage = Usage { n_prompt: known.len(), ..Usage::default() };
        let request = Request {
            prompt,
            owner: job.owner,
            n_samples: n_samples.max(1),
            max_tokens,
            wants_every_row: job.prompt_logprobs.is_some() || matches!(job.task, Task::Embed),
            is_ready: job.images.is_empty(),
            deadline: job.deadline,
        };
        let work = work(job.task, job.prompt_logprobs);
        let picture =
            |((image, _), tiles): (&(EncodedImage<()>, _), Tiles)| Picture { hash: image.hash, tiles, features: None };
        let pictures = hashed.iter().zip(job.images).map(picture).collect();
        Some((request, Live { outlet, owner: job.owner, known, pictures, work, usage, has_started: false }))
    }
}

fn work<'t>(task: Task, prompt_logprobs: Option<usize>) -> Work<'t> {
    match task {
        Task::Generate { n_samples, sampling, constraint, stop, logprobs, thinking } => Work::Generate {
            recipe: Box::new(Recipe { sampling, constraint, stop, logprobs, thinking }),
            n_samples: n_samples.max(1),
            answers: Vec::new(),
            prompt: prompt_logprobs.map(PromptScores::new),
        },
        Task::Embed => Work::Embed(Mean::default()),
    }
}

/// Encodes the next tile of `picture`. Whether it was the last one.
///
/// # Errors
/// [`llama::LlamaError`] if the tiles are not of the tower's size.
pub(super) fn encode_tile<D: Device>(
    dev: &D,
    vision: &Vision<D>,
    picture: &mut Picture<D::Tensor>,
) -> Result<bool, llama::LlamaError> {
    crate::fault::point("encode");
    let n_values = 3 * vision.tile() * vision.tile();
    let rest = picture.tiles.pixels.split_off(n_values.min(picture.tiles.pixels.len()));
    let rows = vision.forward(dev, &std::mem::replace(&mut picture.tiles.pixels, rest), &mut ())?;
    picture.features = Some(match picture.features.take() {
        Some(before) => dev.concat(&before, &rows)?,
        None => rows,
    });
    Ok(picture.tiles.pixels.is_empty())
}

/// How long a thread without rows sleeps while receivers are slow or images wait.
pub(super) const NAP: Duration = Duration::from_millis(10);
