//! A loaded model with the conversation it holds.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result};
use cpu::{Cpu, ExpertStats};
use engine::media::{Grid, TileConfig, decode, preprocess};
use engine::thinking::{Ask, Reasoning};
use engine::{Content, EncodedImage, Engine, Event, Finished, Known, Limits, Request, Sequence};
use formats::{GenerationConfig, Lora};
use tensor::Device;
use tokenizer::{
    ChatFormat, Ending, ImageIds, Message, Part, Piece, Role, ThinkingVariables, Tokenizer, encode_segments,
};

use crate::experts::{ExpertArguments, warn_unlocked};
use crate::failure::usage;
use crate::model::{self, CacheArguments, LoraArguments};
use crate::plan::Demand;

/// A model, its tokenizer and a conversation.
pub struct Chat<D: Device> {
    name: String,
    /// Bytes of the model's files.
    disk_bytes: usize,
    engine: Engine<D>,
    tokenizer: Tokenizer,
    format: Option<ChatFormat>,
    generation: GenerationConfig,
    end_tokens: Vec<u32>,
    /// What the model knows of thinking.
    reasoning: Option<Reasoning>,
    /// How much answers may think; `None` where the prompt is no conversation.
    ask: Option<Ask>,
    image_ids: Option<ImageIds>,
    tiles: Option<TileConfig>,
    messages: Vec<Message>,
    images: Vec<(EncodedImage<D::Tensor>, Grid)>,
    sequence: Sequence<D::Tensor>,
}

/// What a model is made of.
pub struct Files<'a> {
    /// The model.
    pub model: &'a Path,
    /// The vision tower, if it does not lie beside it.
    pub mmproj: Option<&'a Path>,
    /// The adapter beside its weights.
    pub lora: &'a LoraArguments,
}

impl Chat<Cpu> {
    /// Loads `files` onto `dev`, with the room that `cache` asks for and experts where `experts` says.
    pub fn open(
        Files { model: path, mmproj, lora }: Files<'_>,
        dev: Cpu,
        (cache, experts): (CacheArguments, ExpertArguments),
    ) -> Result<Self> {
        let checkpoint = model::open_checkpoint(path, mmproj)?;
        if checkpoint.tensors.is_empty() {
            let message = format!("{} holds no weights, a config alone", path.display());
            return Err(usage(message, "`puna inspect` shows a config; to run, name the folder or the GGUF file"));
        }
        let lora = lora.open()?;
        let tokenizer = model::tokenizer_of(&checkpoint)?;
        let format = model::chat_format(&checkpoint, &tokenizer)?;
        let text = &checkpoint.config.text;
        let context = cache.context(text.max_positions)?;
        let kv = cache.kv(context);
        let end_tokens = model::end_tokens(&checkpoint, &tokenizer);
        let reasoning = model::reasoning(&checkpoint, &tokenizer);
        let (image_ids, tiles) = model::image_settings(&checkpoint, &tokenizer)?.unzip();
        let placement = experts.place_demand(&Demand::of_many((&checkpoint, lora.as_ref()), context, 1, kv)?)?;
        let dev = placement.apply(dev);
        let loaded = model::load_with(&dev, &checkpoint, lora.as_ref())?;
        warn_unlocked(dev.expert_stats());
        Ok(Self {
            name: name(path, lora.as_ref()),
            disk_bytes: checkpoint.size_bytes(),
            engine: Engine::with_step_rows(dev, loaded, context, kv, placement.step_rows)?,
            tokenizer,
            format,
            generation: checkpoint.generation.clone(),
            end_tokens,
            reasoning,
            ask: Some(Ask::default()),
            image_ids,
            tiles,
            messages: Vec::new(),
            images: Vec::new(),
            sequence: Sequence::default(),
        })
    }

    /// What the cache of experts has done, if there is one.
    pub fn expert_stats(&self) -> Option<ExpertStats> {
        self.engine.device().expert_stats()
    }
}

/// The names of the files or folders of a model and its adapter.
fn name(model: &Path, lora: Option<&Lora>) -> String {
    let of = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    lora.map_or_else(|| of(model), |lora| format!("{} with {}", of(model), of(&lora.path)))
}

impl<D: Device> Chat<D> {
    /// The model's file or folder name, and its adapter's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of its files' tensors.
    pub fn disk_bytes(&self) -> usize {
        self.disk_bytes
    }

    /// The device.
    pub fn device(&self) -> &D {
        self.engine.device()
    }

    /// What the model's makers recommend for sampling.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// Tokens that end an answer.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// From now on answers think as much as `level` says: `on`, `off`, an effort that the model knows, or a number of
    /// tokens.
    pub fn think(&mut self, level: &str) -> Result<()> {
        let Some(reasoning) = &self.reasoning else {
            if level == "off" {
                return Ok(());
            }
            let message = format!("--think={level}: this model was not trained to think");
            return Err(usage(message, "leave --think out, or use a model that thinks"));
        };
        let budget = match (level, level.parse()) {
            ("off" | "none", _) => {
                self.ask = Some(Ask::off());
                return Ok(());
            }
            ("on", _) => None,
            (_, Ok(tokens)) => Some(tokens),
            (_, Err(_)) => reasoning.effort(level).map_err(|known| {
                let hint = format!("on, off, a number of tokens, or what this model knows: {known}");
                usage(format!("--think={level}: no such effort"), &hint)
            })?,
        };
        let effort = reasoning.efforts.contains_key(level).then(|| level.to_owned());
        self.ask = Some(Ask { is_on: Some(true), budget, effort, ..Ask::default() });
        Ok(())
    }

    /// Starts the conversation again. What was computed stays, for the next one that begins alike.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.images.clear();
    }

    /// Adds a user's message, images first; before the first one the system message.
    pub fn user(&mut self, system: Option<&str>, text: &str, images: &[Vec<u8>]) -> Result<()> {
        if self.messages.is_empty()
            && let Some(system) = system
        {
            self.messages.push(Message::text(Role::System, system));
        }
        let mut content: Vec<Part> = Vec::with_capacity(images.len() + 1);
        for bytes in images {
            self.see(bytes)?;
            content.push(Part::Image);
        }
        content.push(Part::Text(text.to_owned()));
        self.messages.push(Message::new(Role::User, content));
        Ok(())
    }

    /// Adds the answer just given.
    pub fn assistant(&mut self, text: String) {
        self.messages.push(Message::text(Role::Assistant, text));
    }

    /// Takes back a message that could not be answered, with its images.
    pub fn forget_unanswered(&mut self) {
        if self.messages.last().is_some_and(|message| message.role == Role::User) {
            self.messages.pop();
        }
        let images = |message: &Message| message.content.iter().filter(|part| matches!(part, Part::Image)).count();
        self.images.truncate(self.messages.iter().map(images).sum());
    }

    fn see(&mut self, bytes: &[u8]) -> Result<()> {
        let (Some(vision), Some(config)) = (&self.engine.model().vision, &self.tiles) else {
            return Err(usage("this model does not take images", "use a model with a vision tower, or give --mmproj"));
        };
        let limits = Limits::default();
        if self.images.len() >= limits.images_per_prompt {
            let message = format!("more than {} images in one conversation", limits.images_per_prompt);
            return Err(usage(message, "start again with fewer images"));
        }
        let tiles = preprocess(&decode(bytes, &limits).map_err(engine::EngineError::from)?, config);
        let grid = tiles.grid;
        self.images.push((engine::encode_image(self.engine.device(), vision, &tiles)?, grid));
        Ok(())
    }

    /// The conversation so far as the content of a sequence, ready for an answer.
    pub fn render(&self) -> Result<Content<D::Tensor>> {
        let Some(format) = &self.format else {
            return Err(usage(
                "this model has no chat format: it was not trained for conversations",
                "continue a text instead: puna run --raw",
            ));
        };
        let (reasoning, ask) = (self.reasoning.as_ref(), self.ask.as_ref());
        let thinking = reasoning.zip(ask);
        let variables = thinking
            .map(|(reasoning, ask)| ThinkingVariables { is_on: reasoning.thinks(ask), effort: ask.effort.as_deref() });
        let segments = format.render(&self.messages, None, Ending::Answer(variables))?;
        let mut pieces = encode_segments(&self.tokenizer, &segments);
        if let Some((reasoning, ask)) = thinking {
            reasoning.open(ask, &mut pieces);
        }
        self.content(&pieces)
    }

    /// `prompt` as plain text after the start token, images first.
    pub fn raw(&mut self, prompt: &str, images: &[Vec<u8>]) -> Result<Content<D::Tensor>> {
        self.ask = None;
        for bytes in images {
            self.see(bytes)?;
        }
        let mut ids: Vec<u32> = self.tokenizer.bos().filter(|_| self.tokenizer.add_bos()).into_iter().collect();
        ids.extend(self.tokenizer.encode(prompt));
        let images = (0..images.len()).map(Piece::Image);
        let bos_len = usize::from(self.tokenizer.bos().is_some_and(|bos| ids.first() == Some(&bos)));
        let text = ids.split_off(bos_len);
        let pieces: Vec<Piece> =
            std::iter::once(Piece::Ids(ids)).chain(images).chain(std::iter::once(Piece::Ids(text))).collect();
        self.content(&pieces)
    }

    fn content(&self, pieces: &[Piece]) -> Result<Content<D::Tensor>> {
        let tokens_per_tile = self.tiles.as_ref().map_or(0, TileConfig::tokens_per_tile);
        Ok(engine::content(pieces, &self.images, self.image_ids.as_ref(), tokens_per_tile)?)
    }

    /// Answers `content`; see [`Engine::generate`].
    pub fn generate(
        &mut self,
        content: Content<D::Tensor>,
        request: &Request,
        receive: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Finished> {
        // A text that stands after the end of the context could not be computed anyway.
        let n_vocab = self.engine.model().decoder.vocab_size();
        let outside = |known: &Known| matches!(known, Known::Token(id) if *id as usize >= n_vocab);
        if content.known.iter().any(outside) {
            let message = format!("the tokenizer makes ids that the model's {n_vocab} embeddings do not have");
            return Err(anyhow::Error::msg(message)).context("the tokenizer does not belong to this model");
        }
        let room = self.engine.context().saturating_sub(content.known.len());
        let max_tokens = request.max_tokens.unwrap_or(room).min(room);
        let thinking = self.reasoning.as_ref().zip(self.ask.as_ref());
        let thinking = thinking.map(|(reasoning, ask)| Box::new(reasoning.thinking(ask, max_tokens, usize::MAX)));
        let request = Request { thinking, ..request.clone() };
        Ok(self.engine.generate(&mut self.sequence, content, &request, &self.tokenizer, receive)?)
    }
}
