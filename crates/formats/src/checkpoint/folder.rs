//! Files of a checkpoint's folder, found without leaving it.

use std::path::{Path, PathBuf};

use super::TokenizerFiles;
use crate::config::{
    AudioConfig, AudioPreprocessorConfig, AudioPreset, GenerationConfig, PreprocessorConfig, ReasoningConfig,
    SIDECAR_LIMIT_BYTES,
};
use crate::{FormatError, json};

/// Most entries of a folder that are looked at.
const ENTRIES_LIMIT: usize = 10_000;

/// A folder, and the real places that its files may lie in.
pub(crate) struct Folder {
    path: PathBuf,
    allowed: Vec<PathBuf>,
}

impl Folder {
    /// The folder `path`. Its files may be links into it; in the layout of the Hugging Face cache
    /// (`snapshots/<revision>` beside `blobs`) also into those `blobs`.
    pub(crate) fn open(path: &Path) -> Result<Self, FormatError> {
        let real = path.canonicalize().map_err(|e| FormatError::io(path, e))?;
        let mut allowed = vec![real.clone()];
        let snapshots = real.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"));
        allowed.extend(snapshots.and_then(Path::parent).map(|repository| repository.join("blobs")));
        Ok(Self { path: path.into(), allowed })
    }

    /// The folder that the file `path` is in.
    pub(super) fn of(path: &Path) -> Result<Self, FormatError> {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => Self::open(parent),
            _ => Self::open(Path::new(".")),
        }
    }

    pub(crate) fn missing(&self, name: &str) -> FormatError {
        FormatError::missing(&self.path, name)
    }

    /// The path of the file `name`, if there is one.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] if it is a link to another place, or to nothing.
    pub(crate) fn find(&self, name: &str) -> Result<Option<PathBuf>, FormatError> {
        let path = self.path.join(name);
        if std::fs::symlink_metadata(&path).is_err() {
            return Ok(None);
        }
        let real = path.canonicalize().map_err(|e| FormatError::io(&path, e))?;
        if !self.allowed.iter().any(|allowed| real.starts_with(allowed)) {
            let why = format!("{name} is a link to {}, outside of the folder", real.display());
            return Err(FormatError::corrupt(&self.path, name, why));
        }
        Ok(Some(path))
    }

    /// The names of the folder's `.gguf` files in order.
    fn gguf_names(&self) -> Result<Vec<String>, FormatError> {
        let io = |e| FormatError::io(&self.path, e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(io)?.take(ENTRIES_LIMIT) {
            let name = entry.map_err(io)?.file_name();
            names.extend(name.to_str().filter(|name| name.ends_with(".gguf")).map(String::from));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The GGUF model of a folder without `config.json`: its only one, or the first part of its only split one.
    pub(super) fn only_gguf(&self) -> Result<Option<PathBuf>, FormatError> {
        if self.find("config.json")?.is_some() {
            return Ok(None);
        }
        let mut names = self.gguf_names()?;
        names.retain(|name| !is_projector(name) && super::split::part(name).is_none_or(|part| part.nth == 1));
        match names.as_slice() {
            [] => Ok(None),
            [name] => self.find(name),
            [first, second, ..] => {
                let why = format!("is one of several models ({first}, {second}, …); name one of them");
                Err(FormatError::unsupported(&self.path, first, why))
            }
        }
    }

    /// The first projector file by name.
    pub(super) fn projector(&self) -> Result<Option<PathBuf>, FormatError> {
        let names = self.gguf_names()?;
        let name = names.iter().find(|name| is_projector(name));
        name.map_or(Ok(None), |name| self.find(name))
    }

    pub(super) fn generation(&self) -> Result<GenerationConfig, FormatError> {
        match self.find("generation_config.json")? {
            None => Ok(GenerationConfig::default()),
            Some(file) => GenerationConfig::parse(&file, &json::read(&file, SIDECAR_LIMIT_BYTES)?),
        }
    }

    pub(super) fn reasoning(&self) -> Result<Option<ReasoningConfig>, FormatError> {
        let Some(file) = self.find("reasoning_config.json")? else { return Ok(None) };
        ReasoningConfig::parse(&file, &json::read(&file, SIDECAR_LIMIT_BYTES)?).map(Some)
    }

    /// Both kinds of processor files: the newer one has all settings, the older one those of images.
    pub(super) fn preprocessor(&self) -> Result<Option<PreprocessorConfig>, FormatError> {
        let parse = |name| match self.find(name)? {
            None => Ok(None),
            Some(file) => PreprocessorConfig::parse(&file, &json::read(&file, SIDECAR_LIMIT_BYTES)?).map(Some),
        };
        let images = parse("preprocessor_config.json")?;
        let all = parse("processor_config.json")?;
        Ok(match (images, all) {
            (Some(images), Some(all)) => Some(PreprocessorConfig {
                patch_size: all.patch_size,
                pixel_shuffle_ratio: all.pixel_shuffle_ratio,
                ..images
            }),
            (images, all) => images.or(all),
        })
    }

    /// How samples become mel columns for `audio`: a file of its own, or the one that Whisper and Voxtral have under the
    /// name that others use for images, or the one of all processors; without any, the preset's, of which Ultravox's
    /// processor changes what it says.
    pub(super) fn hearing(&self, audio: &AudioConfig) -> Result<AudioPreprocessorConfig, FormatError> {
        const PROCESSOR: &str = "processor_config.json";
        let read = |name| match self.find(name)? {
            None => Ok(None),
            Some(file) => json::read(&file, SIDECAR_LIMIT_BYTES).map(|json| Some((file, json))),
        };
        let mut settings = AudioPreprocessorConfig::of(audio);
        if let (AudioPreset::Ultravox04 | AudioPreset::Ultravox05, Some((file, json))) =
            (audio.preset, read(PROCESSOR)?)
        {
            settings = settings.with_processor(&file, &json, audio)?;
        }
        for name in ["audio_preprocessor_config.json", "preprocessor_config.json", PROCESSOR] {
            if let Some((file, json)) = read(name)?
                && let Some(own) = AudioPreprocessorConfig::parse(&file, &json, settings)?
            {
                return Ok(own);
            }
        }
        Ok(settings)
    }

    pub(super) fn tokenizer_files(&self) -> Result<TokenizerFiles, FormatError> {
        Ok(TokenizerFiles {
            tokenizer_json: self.find("tokenizer.json")?,
            tokenizer_model: self.find("tokenizer.model")?,
            tokenizer_config: self.find("tokenizer_config.json")?,
            special_tokens_map: self.find("special_tokens_map.json")?,
            chat_template: self.find("chat_template.jinja")?,
        })
    }
}

fn is_projector(name: &str) -> bool {
    name.contains("mmproj")
}
