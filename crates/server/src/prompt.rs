//! From a conversation to the pieces of a prompt.

use engine::media::{TileConfig, Tiles, decode, grid, preprocess, size};
use serde_json::Value;
use tokenizer::{Ending, Message, Piece, ThinkingVariables, encode_segments, forget_thoughts};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::error::Error;
use crate::image;
use crate::thinking::Thoughts;

/// A conversation, its images in the order of their places.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// What was said.
    pub messages: Vec<Message>,
    /// The images that messages hold.
    pub images: Vec<Image>,
    /// Tools that are described to the model, in OpenAI's form.
    pub tools: Vec<Value>,
    /// How much the answer may think.
    pub thoughts: Thoughts,
}

/// An image of a conversation.
#[derive(Debug, Clone)]
pub struct Image {
    /// Where it stands in the request.
    pub field: String,
    /// What it is.
    pub source: Source,
    /// How closely it is looked at.
    pub detail: Detail,
}

/// Where an image comes from.
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
    /// Ids and places of images.
    pub pieces: Vec<Piece>,
    /// The images, tiled.
    pub images: Vec<Tiles>,
    /// Positions, those of images included.
    pub n_positions: usize,
    /// How much the answer to a conversation may think.
    pub thoughts: Option<Thoughts>,
    /// The memory that the tiles take, held until the job has ended.
    pub memory: Option<OwnedSemaphorePermit>,
}

impl Prompt {
    /// Ids alone.
    pub fn of_ids(field: &'static str, ids: Vec<u32>) -> Self {
        let n_positions = ids.len();
        Self { field, pieces: vec![Piece::Ids(ids)], images: Vec::new(), n_positions, thoughts: None, memory: None }
    }
}

impl Conversation {
    /// Writes the conversation as the model wants it. Images are fetched, measured, decoded and tiled, text is encoded, all
    /// of it off the runtime.
    ///
    /// # Errors
    /// [`Error::Field`] naming the message or image that can not be used.
    pub async fn prompt(self, field: &'static str, app: &App) -> Result<Prompt, Error> {
        let model = app.model();
        if model.format.is_none() {
            return Err(Error::unsupported(
                field,
                "can not be used: this model was not trained for conversations; use /v1/completions",
            ));
        }
        let (images, memory) = tile(self.images, app).await?;
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
        let n_positions = model.handle.n_positions(&pieces, &images);
        Ok(Prompt { field, pieces, images, n_positions, thoughts: Some(self.thoughts), memory })
    }
}

/// Fetches, decodes and tiles images, one after another.
async fn tile(images: Vec<Image>, app: &App) -> Result<(Vec<Tiles>, Option<OwnedSemaphorePermit>), Error> {
    let Some(first) = images.first() else { return Ok((Vec::new(), None)) };
    let Some(config) = &app.model().tiles else {
        return Err(Error::unsupported(&first.field, "is an image; this model does not take images"));
    };
    let limit = app.limits().engine.images_per_prompt;
    if let Some(image) = images.get(limit) {
        return Err(Error::field(&image.field, format!("is one image too many; the limit is {limit}")));
    }
    let mut sources = Vec::with_capacity(images.len());
    let mut size_bytes = 0;
    for image in images {
        let bytes = match image.source {
            Source::Bytes(bytes) => bytes,
            Source::Url(url) => image::fetch(url, &image.field, app).await?,
        };
        let config = config_for(config, image.detail, app);
        // Sizes before pixels: what all images will take is known before the first is decoded.
        let size = size(&bytes, &app.limits().engine)
            .map_err(|error| Error::field(&image.field, format!("can not be used: {error}")))?;
        let side = usize::try_from(config.settings().tile).unwrap_or(usize::MAX);
        size_bytes += grid(size, &config).n_tiles() * 3 * side * side * size_of::<f32>();
        sources.push((image.field, bytes, config));
    }
    let memory = app.pool().tiles(size_bytes).ok_or_else(|| Error::Busy {
        why: format!("the images need {size_bytes} bytes of memory, which other requests hold"),
        retry_after: app.pace().retry_after(),
    })?;
    let mut tiles = Vec::with_capacity(sources.len());
    for (field, bytes, config) in sources {
        let limits = app.limits().engine.clone();
        let decoded =
            app.pool().decode(move || decode(&bytes, &limits).map(|image| preprocess(&image, &config))).await?;
        tiles.push(decoded.map_err(|error| Error::field(field, format!("can not be used: {error}")))?);
    }
    Ok((tiles, Some(memory)))
}

fn config_for(config: &TileConfig, detail: Detail, app: &App) -> TileConfig {
    let mut settings = config.settings().clone();
    if detail == Detail::Low {
        settings.max_tiles = 1;
    }
    // The settings were checked before; one tile is never too many.
    TileConfig::parse(settings, &app.limits().engine).unwrap_or_else(|_| config.clone())
}
