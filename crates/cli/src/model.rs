//! Opening what `-m` names: files, tokenizer, chat format, weights on a device.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use cpu::{Cpu, CpuOptions, Isa, Precision};
use engine::media::audio::ClipConfig;
use engine::media::{TileConfig, TileSettings};
use engine::thinking::{Markers, Reasoning};
use engine::{Layout, Limits};
use formats::checkpoint::REASONING_KEY;
use formats::config::{Architecture, AudioPreset};
use formats::gguf::{Array, Metadata, Value};
use formats::{Checkpoint, FormatError, Kind, Lora, PreprocessorConfig, Tensor};
use llama::Model;
use tensor::quant::Kind as Quantisation;
use tensor::{Device, Format, KvFormat};
use tokenizer::{AudioIds, ChatFormat, ChatTemplate, GgufVocabulary, ImageIds, Llama4Chat, SpecialTokens, Tokenizer};

use crate::built_in;
use crate::failure::{no_lora, usage};
use crate::memory::size;
use crate::output::byte_bar;

/// Positions of a conversation where neither the user nor the model says less.
const DEFAULT_CONTEXT: usize = 32768;

/// Which device computes, and how.
#[derive(clap::Args, Debug, Clone)]
pub struct DeviceArguments {
    /// Threads; all cores if absent
    #[arg(long, env = "PUNA_THREADS", help_heading = "Device")]
    threads: Option<NonZeroUsize>,
    /// Instruction set, at most what the machine has; the best if absent
    #[arg(long, env = "PUNA_ISA", value_parser = isa_parser(), help_heading = "Device", hide = true)]
    isa: Option<Isa>,
}

/// Knows the instruction sets of the target that this program was compiled for.
fn isa_parser() -> impl TypedValueParser<Value = Isa> {
    PossibleValuesParser::new(Isa::ALL.iter().map(|isa| isa.name()))
        .try_map(|name| Isa::parse(&name).ok_or("is no instruction set"))
}

impl DeviceArguments {
    /// How many threads work.
    pub fn threads(&self) -> NonZeroUsize {
        self.threads.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    }

    /// The CPU device.
    pub fn open(&self) -> Cpu {
        self.open_with(Precision::F32)
    }

    /// The CPU device that computes products from numbers of that precision.
    pub fn open_with(&self, precision: impl Into<Precision>) -> Cpu {
        Cpu::new(CpuOptions { threads: self.threads, isa: self.isa, precision: precision.into() })
    }

    /// The same without threads of its own, so that many of the caller's can use it at a time.
    pub fn alone(&self, precision: Precision) -> Cpu {
        Cpu::new(CpuOptions { threads: Some(NonZeroUsize::MIN), isa: self.isa, precision })
    }
}

/// From what products are computed.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct PrecisionArgument {
    /// What products of unquantised weights are computed from; bf16 is faster on processors with instructions for it
    #[arg(
        long,
        value_name = "FORMAT",
        env = "PUNA_PRECISION",
        value_parser = precision_parser(),
        default_value = "f32",
        help_heading = "Device"
    )]
    precision: Precision,
}

impl From<PrecisionArgument> for Precision {
    fn from(argument: PrecisionArgument) -> Self {
        argument.precision
    }
}

fn precision_parser() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(["f32", "bf16"]).map(|name| match name.as_str() {
        "bf16" => Precision::Bf16,
        _ => Precision::F32,
    })
}

/// How much is remembered, and how.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct CacheArguments {
    /// Tokens of prompt and answer together; by default what the model allows, at most 32768
    #[arg(long, value_name = "TOKENS")]
    pub ctx: Option<usize>,
    /// How keys and values are stored; by default f16, and q8 for contexts above 32768
    #[arg(long, value_name = "FORMAT")]
    kv: Option<KvName>,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy)]
enum KvName {
    F32,
    F16,
    Q8,
}

impl CacheArguments {
    /// Positions, for a model that has `most`.
    ///
    /// # Errors
    /// Exit code 2 for none or more than the model has.
    pub fn context(self, most: usize) -> Result<usize> {
        match self.ctx {
            Some(context) if context > most => {
                let message = format!("--ctx {context} is more than the {most} positions of this model");
                Err(usage(message, format!("give at most --ctx {most}")))
            }
            Some(0) => Err(usage("--ctx 0 has no room for a prompt", "give at least --ctx 1")),
            Some(context) => Ok(context),
            None => Ok(most.min(DEFAULT_CONTEXT)),
        }
    }

    /// How keys and values of `context` positions are stored.
    pub fn kv(self, context: usize) -> KvFormat {
        match self.kv {
            Some(KvName::F32) => KvFormat::F32,
            Some(KvName::F16) => KvFormat::F16,
            Some(KvName::Q8) => KvFormat::Q8,
            None if context > DEFAULT_CONTEXT => KvFormat::Q8,
            None => KvFormat::F16,
        }
    }
}

/// Opens the checkpoint at `path` for its weights.
///
/// # Errors
/// Exit code 2 for a config alone.
pub fn open_weights(path: &Path) -> Result<Checkpoint> {
    let checkpoint = open_checkpoint(path, None)?;
    if checkpoint.tensors.is_empty() {
        let message = format!("{} holds no weights, a config alone", path.display());
        return Err(usage(message, "name a GGUF file, or the folder that has the .safetensors files"));
    }
    Ok(checkpoint)
}

/// Opens the checkpoint at `path`, with the towers from `mmproj` if given. The path [`built_in::NAME`] is the model that
/// this program carries along, whatever else is called so: `./nano` is a folder.
pub fn open_checkpoint(path: &Path, mmproj: Option<&Path>) -> Result<Checkpoint> {
    if is_built_in(path) {
        return match mmproj {
            None => built_in::open(),
            Some(_) => Err(usage(
                format!("--mmproj does not go with {}, which has its own towers", built_in::NAME),
                "leave it out, or name another model with -m",
            )),
        };
    }
    Ok(match mmproj {
        Some(mmproj) => Checkpoint::open_with_projector(path, mmproj)?,
        None => Checkpoint::open(path)?,
    })
}

/// Whether `path` names the model that this program carries along.
pub fn is_built_in(path: &Path) -> bool {
    path == Path::new(built_in::NAME)
}

/// `--audio-weights`.
#[derive(clap::Args, Debug, Clone, Copy, Default)]
pub struct AudioArguments {
    /// How the linear maps of the audio encoder are held; by default as they are stored. q8_0 takes a quarter of f32's
    /// memory and is faster
    #[arg(long, value_name = "FORMAT")]
    audio_weights: Option<AudioWeights>,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy)]
enum AudioWeights {
    Stored,
    #[value(name = "q8_0")]
    Q8_0,
}

impl AudioArguments {
    /// `checkpoint` with the audio encoder's weights as they are asked for.
    ///
    /// # Errors
    /// If the encoder's rows are no whole blocks.
    pub fn apply(self, mut checkpoint: Checkpoint) -> Result<Checkpoint> {
        if let Some(AudioWeights::Q8_0) = self.audio_weights {
            let q8_0 = Format::Block(Quantisation::Q8_0);
            llama::quantise_audio(&mut checkpoint.tensors, &checkpoint.config, q8_0)?;
            if let Some(projector) = &mut checkpoint.projector {
                let named = std::mem::take(&mut projector.tensors).into_iter().map(|t| (t.name.clone(), t));
                let mut tensors: BTreeMap<String, Tensor> = named.collect();
                llama::quantise_audio(&mut tensors, &checkpoint.config, q8_0)?;
                projector.tensors = tensors.into_values().collect();
            }
        }
        Ok(checkpoint)
    }
}

/// `--lora`.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct LoraArguments {
    /// A LoRA adapter to use with the model: the folder that PEFT saved
    #[arg(long, value_name = "FOLDER")]
    lora: Option<PathBuf>,
}

impl LoraArguments {
    /// Whether an adapter is named.
    pub fn is_given(&self) -> bool {
        self.lora.is_some()
    }

    /// The adapter, if one is named.
    ///
    /// # Errors
    /// Exit code 5 for one that can not be read.
    pub fn open(&self) -> Result<Option<Lora>> {
        self.lora.as_deref().map(|path| Lora::open(path).map_err(|error| no_lora(&error))).transpose()
    }
}

/// An adapter in a line.
pub fn describe_lora(lora: &Lora) -> String {
    let (lowest, highest) = lora.ranks();
    let ranks = if lowest == highest { format!("rank {lowest}") } else { format!("ranks {lowest} to {highest}") };
    format!("{} ({} maps, {ranks}, {})", lora.path.display(), lora.maps.len(), size(lora.size_bytes() as u64))
}

/// Loads all weights and adds `lora` beside them.
pub fn load_with<D: Device>(dev: &D, checkpoint: &Checkpoint, lora: Option<&Lora>) -> Result<Model<D>> {
    let mut model = load(dev, checkpoint)?;
    adapt(&mut model, dev, checkpoint, lora)?;
    Ok(model)
}

/// Adds `lora` beside the weights of `checkpoint`.
///
/// # Errors
/// Exit code 2 for an adapter of another model.
pub fn adapt<D: Device>(model: &mut Model<D>, dev: &D, checkpoint: &Checkpoint, lora: Option<&Lora>) -> Result<()> {
    let Some(lora) = lora else { return Ok(()) };
    let added = model.adapt(dev, &checkpoint.config, lora);
    added.with_context(|| format!("--lora {} does not fit {}", lora.path.display(), checkpoint.path.display()))
}

/// Loads all weights, with a progress bar.
pub fn load<D: Device>(dev: &D, checkpoint: &Checkpoint) -> Result<Model<D>> {
    let bar = byte_bar("loading", Model::<D>::stored_bytes(checkpoint));
    let model = Model::load(dev, checkpoint, &mut |n_bytes| bar.inc(n_bytes as u64))
        .with_context(|| format!("{}", checkpoint.path.display()))?;
    bar.finish_and_clear();
    Ok(model)
}

/// The tokenizer that `path` names, a model's, a tokenizer file's own or that of a folder without a model, with the chat format that goes with it.
pub fn open_tokenizer(path: &Path) -> Result<(Tokenizer, Option<ChatFormat>)> {
    // A folder of a tokenizer alone, as `puna data tokenizer` writes it.
    let lone = path.join("tokenizer.json");
    let path = if lone.is_file() && !path.join("config.json").is_file() { &lone } else { path };
    let tokenizer = match path.extension().and_then(|extension| extension.to_str()) {
        Some("model") => from_ranks(path)?,
        Some("json") => {
            let config = path.with_file_name("tokenizer_config.json");
            from_json(path, config.is_file().then_some(config.as_path()))?
        }
        _ => {
            let checkpoint = open_checkpoint(path, None)?;
            let tokenizer = tokenizer_of(&checkpoint)?;
            let format = chat_format(&checkpoint, &tokenizer)?;
            return Ok((tokenizer, format));
        }
    };
    let format = Llama4Chat::new(&tokenizer).ok().map(ChatFormat::Llama4);
    Ok((tokenizer, format))
}

fn from_ranks(path: &Path) -> Result<Tokenizer> {
    let bytes = formats::map_file(path)?;
    Ok(Tokenizer::from_ranks(&path.display().to_string(), &bytes, SpecialTokens::llama4())?)
}

fn from_json(path: &Path, config: Option<&Path>) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::from_json(&path.display().to_string(), &formats::map_file(path)?)?;
    match config {
        Some(config) => Ok(tokenizer.with_config(&config.display().to_string(), &formats::map_file(config)?)?),
        None => Ok(tokenizer),
    }
}

/// The tokenizer of a checkpoint.
pub fn tokenizer_of(checkpoint: &Checkpoint) -> Result<Tokenizer> {
    let files = &checkpoint.tokenizer;
    match (&checkpoint.kind, &files.tokenizer_json, &files.tokenizer_model) {
        (Kind::Gguf(metadata), _, _) => Ok(Tokenizer::from_gguf(gguf_vocabulary(metadata)?)?),
        (_, Some(json), _) => from_json(json, files.tokenizer_config.as_deref()),
        (_, None, Some(ranks)) => from_ranks(ranks),
        (_, None, None) => Err(usage(
            format!("{} has no tokenizer", checkpoint.path.display()),
            "put tokenizer.json or tokenizer.model beside the weights",
        )),
    }
}

/// The tokenizer's entries of a GGUF file, as they stand there.
fn gguf_vocabulary(metadata: &Metadata) -> Result<GgufVocabulary> {
    let strings = |key: &str| -> Result<Vec<String>, FormatError> {
        let array = metadata.find_array(key)?;
        Ok(array.and_then(|a| Some(a.strings()?.map(str::to_owned).collect())).unwrap_or_default())
    };
    let id = |name: &str| metadata.find_u32(&format!("tokenizer.ggml.{name}_token_id"));
    let types = metadata.find_array("tokenizer.ggml.token_type")?.and_then(|array| {
        // A type that does not fit is none that exists; the tokenizer refuses it.
        Some(array.integers()?.map(|value| i32::try_from(value).unwrap_or(i32::MAX)).collect())
    });
    let scores = metadata.find_array("tokenizer.ggml.scores")?.and_then(|array| Some(array.floats()?.collect()));
    let text = |key: &str| Ok::<_, FormatError>(metadata.find_str(key)?.map(str::to_owned));
    Ok(GgufVocabulary {
        file: metadata.file().display().to_string(),
        model: metadata.get_str("tokenizer.ggml.model")?.to_owned(),
        pre: text("tokenizer.ggml.pre")?,
        tokens: strings("tokenizer.ggml.tokens")?,
        token_types: types.unwrap_or_default(),
        scores: scores.unwrap_or_default(),
        merges: strings("tokenizer.ggml.merges")?,
        bos: id("bos")?,
        eos: id("eos")?,
        eot: id("eot")?,
        eom: id("eom")?,
        unknown: id("unknown")?,
        pad: id("padding")?,
        add_bos: metadata.find_bool("tokenizer.ggml.add_bos_token")?,
        add_space_prefix: metadata.find_bool("tokenizer.ggml.add_space_prefix")?,
        chat_template: text("tokenizer.chat_template")?,
    })
}

/// The tokenizer of a folder as the `tokenizer.*` entries of a GGUF file, and how the model marks its thoughts.
///
/// # Errors
/// If it has none, or one that such a file can not describe.
pub fn gguf_tokenizer(checkpoint: &Checkpoint) -> Result<Vec<(String, Value)>> {
    let tokenizer = tokenizer_of(checkpoint)?;
    let files = &checkpoint.tokenizer;
    let json = files.tokenizer_json.as_deref().map(formats::map_file).transpose()?;
    let path = files.tokenizer_json.as_ref().or(files.tokenizer_model.as_ref()).unwrap_or(&checkpoint.path);
    let n_tokens = checkpoint.config.text.vocab_size;
    let mut vocabulary = tokenizer.to_gguf(&path.display().to_string(), json.as_deref().unwrap_or(&[]), n_tokens)?;
    vocabulary.chat_template = chat_template(checkpoint, Some(&tokenizer))?;
    // What the configs call an end and the tokenizer does not takes a place that is left.
    for end in end_tokens(checkpoint, &tokenizer) {
        let ends = [&mut vocabulary.eos, &mut vocabulary.eot, &mut vocabulary.eom];
        if ends.iter().all(|known| **known != Some(end))
            && let Some(place) = ends.into_iter().find(|place| place.is_none())
        {
            *place = Some(end);
        }
    }
    let mut entries = gguf_entries(vocabulary);
    let reasoning = checkpoint.reasoning.as_ref();
    entries.extend(reasoning.map(|config| (REASONING_KEY.to_owned(), Value::String(config.to_json()))));
    Ok(entries)
}

/// The reverse of [`gguf_vocabulary`].
fn gguf_entries(vocabulary: GgufVocabulary) -> Vec<(String, Value)> {
    let strings = |list: &[String]| Value::Array(Array::of_strings(list.iter().map(String::as_str)));
    let mut entries = vec![
        ("ggml.model", Value::String(vocabulary.model)),
        ("ggml.tokens", strings(&vocabulary.tokens)),
        ("ggml.token_type", Value::Array(Array::of_i32(&vocabulary.token_types))),
    ];
    if !vocabulary.scores.is_empty() {
        entries.push(("ggml.scores", Value::Array(Array::of_f32(&vocabulary.scores))));
    }
    if !vocabulary.merges.is_empty() {
        entries.push(("ggml.merges", strings(&vocabulary.merges)));
    }
    for (key, text) in [("ggml.pre", vocabulary.pre), ("chat_template", vocabulary.chat_template)] {
        entries.extend(text.map(|text| (key, Value::String(text))));
    }
    for (key, id) in [
        ("ggml.bos_token_id", vocabulary.bos),
        ("ggml.eos_token_id", vocabulary.eos),
        ("ggml.eot_token_id", vocabulary.eot),
        ("ggml.eom_token_id", vocabulary.eom),
        ("ggml.unknown_token_id", vocabulary.unknown),
        ("ggml.padding_token_id", vocabulary.pad),
    ] {
        entries.extend(id.map(|id| (key, Value::U32(id))));
    }
    for (key, flag) in
        [("ggml.add_bos_token", vocabulary.add_bos), ("ggml.add_space_prefix", vocabulary.add_space_prefix)]
    {
        entries.extend(flag.map(|flag| (key, Value::Bool(flag))));
    }
    entries.into_iter().map(|(key, value)| (format!("tokenizer.{key}"), value)).collect()
}

/// The checkpoint's own chat template.
pub fn chat_template(checkpoint: &Checkpoint, tokenizer: Option<&Tokenizer>) -> Result<Option<String>> {
    if let Some(path) = &checkpoint.tokenizer.chat_template {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        return Ok(Some(text));
    }
    Ok(tokenizer.and_then(Tokenizer::chat_template).map(str::to_owned))
}

/// How the model wants conversations: Llama 4's format is code; another checkpoint's is its own template. `None` for
/// models that were not trained for conversations.
pub fn chat_format(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Option<ChatFormat>> {
    if matches!(checkpoint.config.architecture, Architecture::Llama4 | Architecture::Llama4Text)
        && let Ok(chat) = Llama4Chat::new(tokenizer)
    {
        return Ok(Some(ChatFormat::Llama4(match reasoning(checkpoint, tokenizer) {
            Some(reasoning) => chat.with_markers(reasoning.markers.start.clone(), reasoning.markers.end.clone()),
            None => chat,
        })));
    }
    Ok(match chat_template(checkpoint, Some(tokenizer))? {
        Some(template) => Some(ChatFormat::Template(Box::new(ChatTemplate::new(&template, tokenizer)?))),
        None => None,
    })
}

/// What the model knows of thinking; `None` for one that was not trained to.
pub fn reasoning(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Option<Reasoning> {
    let config = checkpoint.reasoning.as_ref()?;
    let ids = |text: &String| tokenizer.control(text).map_or_else(|| tokenizer.encode(text), |id| vec![id]);
    // What is no token of its own can not come as one.
    let one = |text: &String| <[u32; 1]>::try_from(ids(text)).ok().map(|[id]| id);
    let markers = Markers {
        start: ids(&config.start),
        end: ids(&config.end),
        implicit_end: config.implicit_end.iter().filter_map(one).collect(),
        budget_message: tokenizer.encode(&config.budget_message),
        extend_message: tokenizer.encode(&config.extend_message),
        end_tokens: end_tokens(checkpoint, tokenizer),
    };
    Some(Reasoning {
        markers: Arc::new(markers),
        is_on: config.is_on,
        prefill_start: config.prefill_start,
        efforts: config.efforts.clone(),
    })
}

/// What turns training data into what this model takes.
///
/// # Errors
/// As [`open_checkpoint`], [`tokenizer_of`], [`chat_format`] and [`Senses::of`].
pub fn encoder(checkpoint: &Checkpoint) -> Result<train::data::Encoder> {
    let tokenizer = tokenizer_of(checkpoint)?;
    let format = chat_format(checkpoint, &tokenizer)?;
    let markers = reasoning(checkpoint, &tokenizer)
        .filter(|_| matches!(format, Some(ChatFormat::Llama4(_))))
        .map(|known| train::data::Markers { start: known.markers.start.clone(), end: known.markers.end.clone() });
    let senses = Senses::of(checkpoint, &tokenizer)?;
    let senses = train::data::Senses { layout: senses.layout(), tiles: senses.tiles, clips: senses.clips };
    Ok(train::data::Encoder { markers, senses, ..train::data::Encoder::new(tokenizer, format) })
}

/// Tokens that end an answer: the config's, the generation config's and the tokenizer's own.
pub fn end_tokens(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Vec<u32> {
    let files = checkpoint.config.text.eos.iter().chain(&checkpoint.generation.eos).copied();
    let mut ids: Vec<u32> = files.chain(tokenizer.eos()).chain(tokenizer.eot()).chain(tokenizer.eom()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// What a model takes beside text: the tokens around it, and how it is prepared. Both are there, or neither is.
#[derive(Debug, Clone, Default)]
pub struct Senses {
    /// The tokens of an image's block.
    pub image_ids: Option<ImageIds>,
    /// How images become tiles.
    pub tiles: Option<TileConfig>,
    /// The tokens of a clip's block.
    pub audio_ids: Option<AudioIds>,
    /// How clips become features.
    pub clips: Option<ClipConfig>,
}

impl Senses {
    /// What `checkpoint` takes, as far as `tokenizer` has the tokens for it.
    pub fn of(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Self> {
        let images = tile_config(checkpoint)?.zip(ImageIds::of(tokenizer));
        let (tiles, image_ids) = images.unzip();
        let (clips, audio_ids) = clip_config(checkpoint)?.zip(audio_ids(checkpoint, Some(tokenizer))).unzip();
        Ok(Self { image_ids, tiles, audio_ids, clips })
    }

    /// How they lie in prompts.
    pub fn layout(&self) -> Layout {
        let tile_rows = self.tiles.as_ref().map(TileConfig::tokens_per_tile);
        Layout { image: self.image_ids.zip(tile_rows), audio: self.audio_ids }
    }
}

/// How images become tiles; `None` for a model without a vision tower.
///
/// Without a preprocessor config the published one's values hold, with the tower's own tile and patch.
pub fn tile_config(checkpoint: &Checkpoint) -> Result<Option<TileConfig>> {
    let Some(vision) = &checkpoint.config.vision else { return Ok(None) };
    let default = PreprocessorConfig::default();
    let own = checkpoint.preprocessor.as_ref().unwrap_or(&default);
    let settings = TileSettings {
        tile: u32::try_from(vision.image_size)?,
        patch: u32::try_from(vision.patch_size)?,
        max_tiles: u32::try_from(own.max_tiles)?,
        ratio: 1.0 / vision.joined_patches() as f32,
        resize_to_max_canvas: own.resize_to_max_canvas,
        mean: own.mean,
        std: own.std,
        rescale: own.rescale,
    };
    Ok(Some(TileConfig::parse(settings, &Limits::default()).map_err(engine::EngineError::from)?))
}

/// How clips become features; `None` for a model without an audio tower.
pub fn clip_config(checkpoint: &Checkpoint) -> Result<Option<ClipConfig>> {
    let (Some(audio), Some(own)) = (&checkpoint.config.audio, &checkpoint.audio_preprocessor) else { return Ok(None) };
    Ok(Some(ClipConfig::of(own, audio, &Limits::default())?))
}

/// The tokens of a clip's block: those of the config, and where it names none to begin with, the one that Voxtral's tokenizer
/// has for it, if there is a tokenizer.
pub fn audio_ids(checkpoint: &Checkpoint, tokenizer: Option<&Tokenizer>) -> Option<AudioIds> {
    let audio = checkpoint.config.audio.as_ref()?;
    let own = || tokenizer?.control("[BEGIN_AUDIO]").filter(|_| audio.preset == AudioPreset::Voxtral);
    Some(AudioIds { start: audio.tokens.start.or_else(own), audio: audio.tokens.audio, end: audio.tokens.end })
}
