//! A checkpoint: a model's config, its tensors and the files around them, from whatever form it comes in.

mod beside;
pub(crate) mod folder;
mod index;
mod split;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tensor::Bytes;

use crate::config::{
    self, AudioEncoderConfig, AudioPreprocessorConfig, CONFIG_LIMIT_BYTES, GenerationConfig, ModelConfig,
    PreprocessorConfig, ReasoningConfig,
};
use crate::gguf::Metadata;
use crate::{FormatError, Gguf, Tensor, json, map_file, safetensors};

use folder::Folder;

/// The metadata of a GGUF file in which [`ReasoningConfig`] stands, as JSON text.
pub const REASONING_KEY: &str = "puna.reasoning_config";

/// A model on disk: described and checked, its weights mapped.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// What was opened.
    pub path: PathBuf,
    /// The form that it came in.
    pub kind: Kind,
    /// All tensors by name; none if only a config was opened. A projector's are in [`projector`](Self::projector).
    pub tensors: BTreeMap<String, Tensor>,
    /// What the model is. With a projector, its tower is part of it.
    pub config: ModelConfig,
    /// How the makers suggest to sample; empty for GGUF.
    pub generation: GenerationConfig,
    /// How the model marks its thoughts; `None` for one that was not trained to think.
    pub reasoning: Option<ReasoningConfig>,
    /// How images become tiles, if the checkpoint says.
    pub preprocessor: Option<PreprocessorConfig>,
    /// How samples become mel columns; there is one exactly if the model hears.
    pub audio_preprocessor: Option<AudioPreprocessorConfig>,
    /// The vision tower, the audio encoder and their projectors, of a GGUF model.
    pub projector: Option<Gguf>,
    /// The tokenizer's files; GGUF files carry their tokenizer in their metadata.
    pub tokenizer: TokenizerFiles,
}

/// An audio encoder on disk: a Whisper or Voxtral folder, or any that has one.
#[derive(Debug, Clone)]
pub struct EncoderSource {
    /// What the encoder is.
    pub config: AudioEncoderConfig,
    /// All tensors of the folder by name, the encoder's among them.
    pub tensors: BTreeMap<String, Tensor>,
}

impl EncoderSource {
    /// Opens the folder `path`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; [`FormatError::Unsupported`] for a model that does not hear.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let folder = Folder::open(path)?;
        let file = folder.find("config.json")?.ok_or_else(|| folder.missing("config.json"))?;
        let json = json::read(&file, CONFIG_LIMIT_BYTES)?;
        let config = match ModelConfig::parse_whisper(&file, &json) {
            Ok(encoder) => encoder,
            Err(FormatError::Unsupported { field, .. }) if field == "model_type" => {
                let audio = ModelConfig::parse(&file, &json)?.audio;
                let none = || FormatError::unsupported(&file, "audio_config", "is not there: this model does not hear");
                audio.ok_or_else(none)?.encoder
            }
            Err(other) => return Err(other),
        };
        Ok(Self { config, tensors: tensors_of(path, &folder)? })
    }
}

/// The form of a checkpoint.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A Hugging Face folder, or a part of one.
    HuggingFace,
    /// A GGUF or packed file, with its metadata.
    Gguf(Metadata),
}

/// Paths of tokenizer files that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer_json: Option<PathBuf>,
    /// `tokenizer.model`.
    pub tokenizer_model: Option<PathBuf>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<PathBuf>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<PathBuf>,
    /// `chat_template.jinja`.
    pub chat_template: Option<PathBuf>,
}

impl Checkpoint {
    /// Opens `path`: a Hugging Face folder (one safetensors file, or shards with an index), a folder with one GGUF model,
    /// a GGUF or packed file (or any part of a split one), a safetensors file with `config.json` beside it, or a `.json` config
    /// alone.
    ///
    /// An Ultravox folder without an encoder or a text model takes them from folders beside it that are called like the
    /// repositories which its config names.
    ///
    /// A file with `mmproj` in its name beside a `llama4` GGUF is taken for its projector; of several, the first by
    /// name. Beside a `llama` GGUF it is taken if it has an audio encoder of a kind that is read.
    ///
    /// # Errors
    /// [`FormatError`] that names the file and what is wrong with it; [`FormatError::Missing`] for files that have to
    /// be there.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        Self::open_any(path, None)
    }

    /// As [`open`](Self::open), with the projector file to use.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`FormatError::Unsupported`] if the checkpoint is no GGUF model.
    pub fn open_with_projector(path: &Path, projector: &Path) -> Result<Self, FormatError> {
        Self::open_any(path, Some(projector))
    }

    /// Whether tensors have GGUF names and shapes.
    pub fn is_gguf(&self) -> bool {
        matches!(self.kind, Kind::Gguf(_))
    }

    /// Bytes of all tensors, a projector's included.
    pub fn size_bytes(&self) -> usize {
        let projector = self.projector.iter().flat_map(|projector| &projector.tensors);
        self.tensors.values().chain(projector).map(|tensor| tensor.bytes.len()).sum()
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`FormatError::Missing`].
    pub fn tensor(&self, name: &str) -> Result<&Tensor, FormatError> {
        self.tensors.get(name).ok_or_else(|| FormatError::missing(&self.path, name))
    }

    fn open_any(path: &Path, projector: Option<&Path>) -> Result<Self, FormatError> {
        let is_folder = std::fs::metadata(path).map_err(|e| FormatError::io(path, e))?.is_dir();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let gguf = match (is_folder, extension) {
            (true, _) => Folder::open(path)?.only_gguf()?,
            (false, Some("gguf" | "puna")) => Some(path.into()),
            (false, _) => None,
        };
        match (gguf, projector) {
            (Some(gguf), projector) => Self::open_gguf(path, &gguf, projector),
            (None, Some(projector)) => {
                Err(FormatError::unsupported(projector, "projector", "projector files go with GGUF models only"))
            }
            (None, None) if is_folder => Self::open_folder(path),
            (None, None) => Self::open_file(path, extension),
        }
    }

    fn open_folder(path: &Path) -> Result<Self, FormatError> {
        let folder = Folder::open(path)?;
        let config = folder.find("config.json")?.ok_or_else(|| FormatError::missing(path, "config.json"))?;
        let tensors = tensors_of(path, &folder)?;
        Self::around(path, &folder, &config, tensors)
    }

    fn open_file(path: &Path, extension: Option<&str>) -> Result<Self, FormatError> {
        let folder = Folder::of(path)?;
        match extension {
            Some("safetensors") => {
                let config = folder.find("config.json")?.ok_or_else(|| folder.missing("config.json"))?;
                let tensors = by_name(safetensors::parse(path, &map_file(path)?)?);
                Self::around(path, &folder, &config, tensors)
            }
            Some("json") => Self::around(path, &folder, path, BTreeMap::new()),
            _ => Err(FormatError::unsupported(
                path,
                "type of file",
                "neither a folder nor a .gguf, .puna, .safetensors or .json file",
            )),
        }
    }

    /// Reads `config` and the small files of `folder`.
    fn around(
        path: &Path,
        folder: &Folder,
        config: &Path,
        mut tensors: BTreeMap<String, Tensor>,
    ) -> Result<Self, FormatError> {
        let json = json::read(config, CONFIG_LIMIT_BYTES)?;
        let beside = if tensors.is_empty() { Vec::new() } else { beside::add(path, config, &json, &mut tensors)? };
        let config = ModelConfig::parse_with(config, &json, &beside)?;
        Ok(Self {
            path: path.into(),
            kind: Kind::HuggingFace,
            tensors,
            audio_preprocessor: config.audio.as_ref().map(|audio| folder.hearing(audio)).transpose()?,
            config,
            generation: folder.generation()?,
            reasoning: folder.reasoning()?,
            preprocessor: folder.preprocessor()?,
            projector: None,
            tokenizer: folder.tokenizer_files()?,
        })
    }

    fn open_gguf(path: &Path, file: &Path, projector: Option<&Path>) -> Result<Self, FormatError> {
        let gguf = split::open(file)?;
        let read = |file: &Path| Gguf::parse(file, &map_file(file)?);
        let projector = match projector {
            Some(projector) => Some(read(projector)?),
            None if gguf.metadata.find_str("general.architecture")? == Some("llama4") => {
                Folder::of(file)?.projector()?.as_deref().map(read).transpose()?
            }
            // Dense models' projectors are of many kinds; only those that hear are of use here.
            None => {
                let beside = Folder::of(file).and_then(|folder| folder.projector()).ok().flatten();
                beside.and_then(|beside| read(&beside).ok()).filter(config::hears_here)
            }
        };
        Self::of_gguf(path, gguf, projector)
    }

    /// A GGUF model that is in memory, as a program carries it along: `model`, and in `projector` its towers. Nothing is
    /// copied. `name` is what the model is called, and what errors name.
    ///
    /// Tensors lie at multiples of 32 bytes from the beginning of each file; the bytes themselves should begin at such an
    /// address.
    ///
    /// # Errors
    /// As [`open`](Self::open) of a GGUF file.
    pub fn built_in(name: &str, model: &'static [u8], projector: Option<&'static [u8]>) -> Result<Self, FormatError> {
        let path = Path::new(name);
        let gguf = Gguf::parse(path, &Bytes::new(model))?;
        let file = PathBuf::from(format!("mmproj-{name}"));
        let projector = projector.map(|bytes| Gguf::parse(&file, &Bytes::new(bytes))).transpose()?;
        Self::of_gguf(path, gguf, projector)
    }

    fn of_gguf(path: &Path, gguf: Gguf, projector: Option<Gguf>) -> Result<Self, FormatError> {
        let mut config = ModelConfig::from_gguf(&gguf)?;
        let (mut preprocessor, mut audio_preprocessor) = (None, None);
        if let Some(projector) = &projector {
            config = config.with_projector(&gguf, projector)?;
            let vision = config.vision.as_ref();
            preprocessor = vision.map(|vision| PreprocessorConfig::from_gguf(projector, vision)).transpose()?;
            let audio = config.audio.as_ref();
            audio_preprocessor = audio.map(|audio| AudioPreprocessorConfig::from_gguf(projector, audio)).transpose()?;
        }
        let reasoning = gguf.metadata.find_str(REASONING_KEY)?;
        let reasoning = reasoning.map(|json| ReasoningConfig::parse(gguf.metadata.file(), json.as_bytes()));
        Ok(Self {
            path: path.into(),
            reasoning: reasoning.transpose()?,
            kind: Kind::Gguf(gguf.metadata),
            tensors: by_name(gguf.tensors),
            config,
            generation: GenerationConfig::default(),
            preprocessor,
            audio_preprocessor,
            projector,
            tokenizer: TokenizerFiles::default(),
        })
    }
}

/// The tensors of the folder `path`: of one file, or of all that an index names.
fn tensors_of(path: &Path, folder: &Folder) -> Result<BTreeMap<String, Tensor>, FormatError> {
    match (folder.find("model.safetensors")?, folder.find(index::NAME)?) {
        (Some(file), _) => Ok(by_name(safetensors::parse(&file, &map_file(&file)?)?)),
        (None, Some(index)) => index::open(folder, &index),
        (None, None) => Err(FormatError::missing(path, &format!("model.safetensors or {}", index::NAME))),
    }
}

/// Names are unique within a file: its parser has checked that.
fn by_name(tensors: Vec<Tensor>) -> BTreeMap<String, Tensor> {
    let mut by_name = BTreeMap::new();
    for tensor in tensors {
        by_name.insert(tensor.name.clone(), tensor);
    }
    by_name
}
