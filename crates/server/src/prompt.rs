//! From a conversation to the pieces of a prompt.

use engine::media::audio::AudioFormat;
use engine::media::{Media, TileConfig, decode, grid, preprocess, size};
use serde_json::Value;
use tokenizer::{Ending, Message, Piece, ThinkingVariables, encode_segments, forget_thoughts};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::error::Error;
use crate::thinking::Thoughts;
use crate::{audio, image};

/// A conversation, its images and clips in the order of their places.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// What was said.
    pub messages: Vec<Message>,
    /// The images and clips that messages hold.
    pub media: Vec<Medium>,
    /// Tools that are described to the model, in OpenAI's form.
    pub tools: Vec<Value>,
    /// How much the answer may think.
    pub thoughts: Thoughts,
}

/// An image or a clip of a conversation.
#[derive(Debug, Clone)]
pub struct Medium {
    /// Where it stands in the request.
    pub field: String,
    /// What it is.
    pub kind: Kind,
}

/// What a medium is, and where its bytes are.
#[derive(Debug, Clone)]
pub enum Kind {
    /// An image, and how closely it is looked at.
    Image(Source, Detail),
    /// A clip, and the format that it is said to have.
    Clip(Source, Option<AudioFormat>),
    /// Either of them, prepared before, by who holds its memory.
    Ready(Media),
}

/// Where an image or a clip comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The request.
    Bytes(Vec<u8>),
    /// Elsewhere.
    Url(String),
}

/// How closely an image is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// As many tiles as it fills.
    #[default]
    High,
    /// One tile.
    Low,
}

/// A prompt, ready for a job.
#[derive(Debug)]
pub struct Prompt {
    /// The field that it came from.
    pub field: &'static str,
    /// Ids and places of images and clips.
    pub pieces: Vec<Piece>,
    /// These, ready for their towers.
    pub media: Vec<Media>,
    /// Positions, those of images and clips included.
    pub n_positions: usize,
    /// How much the answer to a conversation may think.
    pub thoughts: Option<Thoughts>,
    /// The memory that images and clips take, held until the job has ended.
    pub memory: Option<OwnedSemaphorePermit>,
}

impl Prompt {
    /// Ids alone.
    pub fn of_ids(field: &'static str, ids: Vec<u32>) -> Self {
        let n_positions = ids.len();
        Self { field, pieces: vec![Piece::Ids(ids)], media: Vec::new(), n_positions, thoughts: None, memory: None }
    }
}

impl Conversation {
    /// Writes the conversation as the model wants it. Images and clips are fetched, measured, decoded and prepared, text is
    /// encoded, all of it off the runtime.
    ///
    /// # Errors
    /// [`Error::Field`] naming the message, image or clip that can not be used.
    pub async fn prompt(self, field: &'static str, app: &App) -> Result<Prompt, Error> {
        let model = app.model();
        if model.format.is_none() {
            return Err(Error::unsupported(
                field,
                "can not be used: this model was not trained for conversations; use /v1/completions",
            ));
        }
        let (media, memory) = prepare(self.media, app).await?;
        let (app_, mut messages, tools, thoughts) = (app.clone(), self.messages, self.tools, self.thoughts.clone());
        let encode = move || -> Result<Vec<Piece>, Error> {
            let model = app_.model();
            let format = model.format.as_ref().ok_or_else(Error::internal)?;
            if !thoughts.are_kept {
                forget_thoughts(&mut messages);
            }
            let ask = &thoughts.ask;
            let variables = model
                .reasoning
                .as_ref()
                .map(|reasoning| ThinkingVariables { is_on: reasoning.thinks(ask), effort: ask.effort.as_deref() });
            let segments = format
                .render(&messages, Some(tools.as_slice()), Ending::Answer(variables))
                .map_err(|error| Error::field(field, format!("can not be written as a prompt: {error}")))?;
            let mut pieces = encode_segments(&model.tokenizer, &segments);
            if let Some(reasoning) = &model.reasoning {
                reasoning.open(ask, &mut pieces);
            }
            Ok(pieces)
        };
        let pieces = app.pool().run(encode).await??;
        let n_positions = model.handle.n_positions(&pieces, &media);
        Ok(Prompt { field, pieces, media, n_positions, thoughts: Some(self.thoughts), memory })
    }
}

/// What was fetched of a medium.
enum Fetched {
    Image(Vec<u8>, TileConfig),
    Clip(Vec<u8>, Option<AudioFormat>),
    Ready(Media),
}

/// Fetches, decodes and prepares images and clips, one after another. The permit holds the memory of those that were not ready.
///
/// # Errors
/// [`Error::Field`] naming the one that can not be used; [`Error::Busy`] where other requests hold the memory.
pub async fn prepare(media: Vec<Medium>, app: &App) -> Result<(Vec<Media>, Option<OwnedSemaphorePermit>), Error> {
    check_count(&media, app)?;
    let mut sources = Vec::with_capacity(media.len());
    let mut tile_bytes = 0;
    for Medium { field, kind } in media {
        let fetched = match kind {
            Kind::Ready(media) => Fetched::Ready(media),
            Kind::Clip(source, declared) => Fetched::Clip(fetch(source, &field, app).await?, declared),
            Kind::Image(source, detail) => {
                let bytes = fetch(source, &field, app).await?;
                // Sizes before pixels: what all images will take is known before the first is decoded.
                let config = tiling(detail, &field, app)?;
                let size = size(&bytes, &app.limits().engine)
                    .map_err(|error| Error::field(&field, format!("can not be used: {error}")))?;
                let side = usize::try_from(config.settings().tile).unwrap_or(usize::MAX);
                tile_bytes += grid(size, &config).n_tiles() * 3 * side * side * size_of::<f32>();
                Fetched::Image(bytes, config)
            }
        };
        sources.push((field, fetched));
    }
    let mut memory = app.media_memory(tile_bytes, "the images need")?;
    let mut media = Vec::with_capacity(sources.len());
    for (field, fetched) in sources {
        media.push(match fetched {
            Fetched::Ready(media) => media,
            Fetched::Image(bytes, config) => {
                let limits = app.limits().engine.clone();
                let decoded =
                    app.pool().decode(move || decode(&bytes, &limits).map(|image| preprocess(&image, &config))).await?;
                let tiles = decoded.map_err(|error| Error::field(field, format!("can not be used: {error}")))?;
                Media::Image(tiles.into())
            }
            Fetched::Clip(bytes, declared) => {
                let (sound, permit) = audio::sound(bytes, declared, &field, app).await?;
                memory.merge(permit);
                Media::Audio(sound)
            }
        });
    }
    let memory = (!media.is_empty()).then_some(memory);
    Ok((media, memory))
}

async fn fetch(source: Source, field: &str, app: &App) -> Result<Vec<u8>, Error> {
    match source {
        Source::Bytes(bytes) => Ok(bytes),
        Source::Url(url) => image::fetch(url, field, app).await,
    }
}

/// Refuses what the model does not take, and more images or clips than there may be, before any is fetched or decoded.
fn check_count(media: &[Medium], app: &App) -> Result<(), Error> {
    let limits = &app.limits().engine;
    let is_image = |medium: &&Medium| match &medium.kind {
        Kind::Image(..) | Kind::Ready(Media::Image(_)) => true,
        Kind::Clip(..) | Kind::Ready(Media::Audio(_)) => false,
    };
    let (images, clips): (Vec<_>, Vec<_>) = media.iter().partition(is_image);
    if let (Some(first), None) = (images.first(), &app.model().tiles) {
        return Err(Error::unsupported(&first.field, "is an image; this model does not take images"));
    }
    if let (Some(first), None) = (clips.first(), &app.model().clips) {
        return Err(audio::not_supported(&first.field));
    }
    if let Some(image) = images.get(limits.images_per_prompt) {
        let limit = limits.images_per_prompt;
        return Err(Error::field(&image.field, format!("is one image too many; the limit is {limit}")));
    }
    let surplus = clips.get(limits.audios_per_prompt).map(|clip| &clip.field);
    surplus.map_or(Ok(()), |field| {
        engine::media::audio::check_count(clips.len(), limits).map_err(|error| audio::refused(field, &error))
    })
}

/// How an image is cut that is looked at so closely.
fn tiling(detail: Detail, field: &str, app: &App) -> Result<TileConfig, Error> {
    let none = || Error::unsupported(field, "is an image; this model does not take images");
    app.model().tiles.as_ref().map(|config| config_for(config, detail, app)).ok_or_else(none)
}

fn config_for(config: &TileConfig, detail: Detail, app: &App) -> TileConfig {
    let mut settings = config.settings().clone();
    if detail == Detail::Low {
        settings.max_tiles = 1;
    }
    // The settings were checked before; one tile is never too many.
    TileConfig::parse(settings, &app.limits().engine).unwrap_or_else(|_| config.clone())
}
