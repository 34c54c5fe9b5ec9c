//! A loaded model with the conversation it holds.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result};
use cpu::{Cpu, ExpertStats};
use engine::media::audio::{self, AudioError};
use engine::media::{Extent, decode, preprocess};
use engine::thinking::{Ask, Reasoning};
use engine::{Content, Encoded, Engine, Event, Finished, Known, Layout, Limits, Request, Sequence};
use formats::{GenerationConfig, Lora};
use tensor::Device;
use tokenizer::{ChatFormat, Ending, Message, Part, Piece, Role, ThinkingVariables, Tokenizer, encode_segments};

use crate::attachments::{Attachment, Kind};
use crate::experts::{ExpertArguments, warn_unlocked};
use crate::failure::usage;
use crate::model::{self, AudioArguments, CacheArguments, LoraArguments, Senses};
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
    senses: Senses,
    messages: Vec<Message>,
    /// Images and clips of all messages.
    media: Vec<(Encoded<D::Tensor>, Extent)>,
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
    /// How the audio encoder's weights are held.
    pub audio: AudioArguments,
}

impl Chat<Cpu> {
    /// Loads `files` onto `dev`, with the room that `cache` asks for and experts where `experts` says.
    pub fn open(
        Files { model: path, mmproj, lora, audio }: Files<'_>,
        dev: Cpu,
        (cache, experts): (CacheArguments, ExpertArguments),
    ) -> Result<Self> {
        let checkpoint = audio.apply(model::open_checkpoint(path, mmproj)?)?;
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
        let senses = Senses::of(&checkpoint, &tokenizer)?;
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
            senses,
            messages: Vec::new(),
            media: Vec::new(),
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

    /// How images and clips lie in prompts.
    pub fn layout(&self) -> Layout {
        self.senses.layout()
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
        self.media.clear();
    }

    /// Adds a user's message, what is attached first; before the first one the system message.
    pub fn user(&mut self, system: Option<&str>, text: &str, attached: &[Attachment]) -> Result<()> {
        if self.messages.is_empty()
            && let Some(system) = system
        {
            self.messages.push(Message::text(Role::System, system));
        }
        let mut content: Vec<Part> = Vec::with_capacity(attached.len() + 1);
        for file in attached {
            content.push(self.take(file)?);
        }
        content.push(Part::Text(text.to_owned()));
        self.messages.push(Message::new(Role::User, content));
        Ok(())
    }

    /// Adds the answer just given.
    pub fn assistant(&mut self, text: String) {
        self.messages.push(Message::text(Role::Assistant, text));
    }

    /// Takes back a message that could not be answered, with what was attached to it.
    pub fn forget_unanswered(&mut self) {
        if self.messages.last().is_some_and(|message| message.role == Role::User) {
            self.messages.pop();
        }
        let n_media = self.parts().filter(|part| part.is_media()).count();
        self.media.truncate(n_media);
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.messages.iter().flat_map(|message| &message.content)
    }

    /// Encodes a file. What stands for it in a message.
    fn take(&mut self, file: &Attachment) -> Result<Part> {
        let n_before = |extent: fn(&Extent) -> bool| self.media.iter().filter(|(_, one)| extent(one)).count();
        let (part, encoded) = match file.kind {
            Kind::Image => (Part::Image, self.see(file, n_before(|extent| matches!(extent, Extent::Image(_))))?),
            Kind::Audio => (Part::Audio, self.hear(file, n_before(|extent| matches!(extent, Extent::Audio { .. })))?),
        };
        self.media.push(encoded);
        Ok(part)
    }

    fn see(&self, file: &Attachment, n_before: usize) -> Result<(Encoded<D::Tensor>, Extent)> {
        let (Some(vision), Some(config)) = (&self.engine.model().vision, &self.senses.tiles) else {
            return Err(usage("this model does not take images", "use a model with a vision tower, or give --mmproj"));
        };
        let limits = Limits::default();
        if n_before >= limits.images_per_prompt {
            let message = format!("more than {} images in one conversation", limits.images_per_prompt);
            return Err(usage(message, "start again with fewer images"));
        }
        let tiles = preprocess(&decode(&file.bytes, &limits).map_err(engine::EngineError::from)?, config);
        let extent = Extent::Image(tiles.grid);
        Ok((engine::encode_image(self.engine.device(), vision, &tiles)?, extent))
    }

    fn hear(&self, file: &Attachment, n_before: usize) -> Result<(Encoded<D::Tensor>, Extent)> {
        let (Some(tower), Some(config)) = (&self.engine.model().audio, &self.senses.clips) else {
            return Err(usage(
                "this model does not take audio",
                "use a model with an audio tower; puna graft-audio makes one",
            ));
        };
        let (limits, name) = (Limits::default(), file.path.display());
        let refused = |error: &AudioError| usage(format!("--audio {name}: {error}"), "give another file");
        audio::check_count(n_before + 1, &limits).map_err(|error| refused(&error))?;
        let clip = audio::decode(&file.bytes, file.declared, &limits, &|| false).map_err(|error| refused(&error))?;
        let sound = config.sound(&clip);
        let extent = Extent::Audio { n_rows: sound.n_rows(), is_open: false };
        Ok((engine::encode_sound(self.engine.device(), tower, &sound)?, extent))
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

    /// `prompt` as plain text after the start token, what is attached first.
    pub fn raw(&mut self, prompt: &str, attached: &[Attachment]) -> Result<Content<D::Tensor>> {
        self.ask = None;
        for file in attached {
            self.take(file)?;
        }
        let mut ids: Vec<u32> = self.tokenizer.bos().filter(|_| self.tokenizer.add_bos()).into_iter().collect();
        ids.extend(self.tokenizer.encode(prompt));
        let media = (0..attached.len()).map(Piece::Media);
        let bos_len = usize::from(self.tokenizer.bos().is_some_and(|bos| ids.first() == Some(&bos)));
        let text = ids.split_off(bos_len);
        let pieces: Vec<Piece> =
            std::iter::once(Piece::Ids(ids)).chain(media).chain(std::iter::once(Piece::Ids(text))).collect();
        self.content(&pieces)
    }

    fn content(&self, pieces: &[Piece]) -> Result<Content<D::Tensor>> {
        Ok(engine::content(pieces, &self.media, &self.senses.layout())?)
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
