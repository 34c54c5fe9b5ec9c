//! Generators by their names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use generators::conversation::{self, Sentences};
use generators::pictures::{self, Fonts, Icons, Options};
use generators::speech::{self, Flite};
use generators::{Generator, lessons, sounds, tasks};

use super::source::{Columns, Rows};
use super::{DataError, Row};

/// What generators are made with.
#[derive(Debug, Clone, Default)]
pub struct Makers {
    /// A folder of outline fonts, beside the ones that are always there.
    pub fonts: Option<PathBuf>,
    /// A folder of pictures that are called what they show.
    pub icons: Option<PathBuf>,
    /// What conversations are about; see [`sentences`].
    pub prose: Arc<Sentences>,
    /// Pixels along one side of a picture; 0 for the usual.
    pub side: usize,
}

/// The groups that have a name, in the order in which they are listed.
const GROUPS: [&str; 6] = ["tasks", "conversation", "pictures", "sounds", "lessons", "speech"];

impl Makers {
    /// The generators of a group, or the one of that name.
    ///
    /// # Errors
    /// [`DataError::Settings`] for a name that there is not, with those that there are; for folders that can not be read,
    /// and for speech where no synthesiser is installed.
    pub fn named(&self, name: &str) -> Result<Vec<Box<dyn Generator>>, DataError> {
        if GROUPS.contains(&name) {
            return self.group(name);
        }
        let mut known = Vec::new();
        for group in GROUPS {
            // Where speech is not installed its names are not known.
            let all = if group == "speech" { self.group(group).unwrap_or_default() } else { self.group(group)? };
            for generator in all {
                if generator.name() == name {
                    return Ok(vec![generator]);
                }
                known.push(generator.name());
            }
        }
        let (groups, known) = (GROUPS.join(", "), known.join(", "));
        Err(DataError::Settings(format!("there is no generator {name:?}; groups are {groups}; of them: {known}")))
    }

    fn group(&self, name: &str) -> Result<Vec<Box<dyn Generator>>, DataError> {
        match name {
            "tasks" => Ok(tasks::all()),
            "conversation" => Ok(conversation::with(Arc::clone(&self.prose))),
            "pictures" => {
                let icons = self.icons.as_ref().map(|path| Icons::open(path).map_err(|e| unread(path, &e)));
                Ok(pictures::with(self.drawing()?, icons.transpose()?))
            }
            "sounds" => Ok(sounds::with(self.side())),
            "lessons" => Ok(lessons::with(self.drawing()?)),
            _ => {
                let flite = Flite::find().map_err(|why| DataError::Settings(format!("no speech: {why}")))?;
                Ok(speech::with(flite, self.side()))
            }
        }
    }

    fn side(&self) -> usize {
        if self.side == 0 { Options::default().side } else { self.side }
    }

    /// How pictures are drawn.
    fn drawing(&self) -> Result<Options, DataError> {
        let fonts = self.fonts.as_ref().map(|path| Fonts::open(path).map_err(|e| unread(path, &e))).transpose()?;
        Ok(Options { side: self.side(), fonts: fonts.unwrap_or_default() })
    }
}

fn unread(path: &Path, error: &std::io::Error) -> DataError {
    DataError::Settings(format!("{}: {error}", path.display()))
}

/// Sentences of prose that conversations are about, at most, so that they take some tens of megabytes.
const SENTENCES: usize = 200_000;

/// The sentences of `files` of prose, the first 200 000 or somewhat more.
///
/// # Errors
/// Those of [`Rows`]; [`DataError::Settings`] for files without a sentence.
pub fn sentences(files: &[PathBuf]) -> Result<Sentences, DataError> {
    let mut sentences = Sentences::default();
    for path in files {
        for raw in Rows::open(path, Columns::OfSamples)? {
            if let Row::Document(text) = raw?.parse()? {
                sentences.extend(Sentences::of(&text));
            }
            if sentences.len() >= SENTENCES {
                return Ok(sentences);
            }
        }
    }
    match (files.first(), sentences.is_empty()) {
        (Some(path), true) => {
            let why = "there is no sentence in it, from a capital to a full stop, that could be asked about";
            Err(DataError::Settings(format!("{}: {why}", path.display())))
        }
        _ => Ok(sentences),
    }
}
