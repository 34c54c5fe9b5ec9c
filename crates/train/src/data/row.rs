//! What a row of data is, whatever it came from.

use std::path::PathBuf;

use engine::media::audio::AudioFormat;
use generators::{Image, Sample, Sound};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizer::{Message, Part, Role};

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A text to go on with.
    Document(String),
    /// A conversation to answer in.
    Conversation(Conversation),
    /// Two ways to go on with a conversation.
    Preference {
        /// The better one.
        chosen: Conversation,
        /// The worse one.
        rejected: Conversation,
    },
}

/// A conversation and what it shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conversation {
    /// All turns.
    pub messages: Vec<Message>,
    /// Functions that are described to the model, in OpenAI's form.
    pub tools: Vec<Value>,
    /// Its images and clips, in the order of their places.
    pub media: Vec<Medium>,
    /// Messages at the front from which nothing is learnt.
    pub n_given: usize,
}

/// An image or a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Medium {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub at: At,
    /// The field that it stands in, for errors.
    pub field: String,
}

/// What a medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An image, in as many tiles as it fills.
    Image,
    /// An image, in one tile.
    ImageInOneTile,
    /// A clip, and the format that it is said to have.
    Audio(Option<AudioFormat>),
}

/// Where the content of a medium is.
#[derive(Debug, Clone, PartialEq)]
pub enum At {
    /// In the row: a file's bytes.
    Bytes(Vec<u8>),
    /// In a file beside the row's own.
    Path(PathBuf),
    /// Made, not read.
    Pixels(Image),
    /// Made, not read.
    Samples(Sound),
}

impl Row {
    /// All of its text, the parts of conversations as lines: what is compared with benchmarks, counted and shown to a
    /// tokenizer's training.
    pub fn text(&self) -> String {
        match self {
            Self::Document(text) => text.clone(),
            Self::Conversation(conversation) => conversation.text(0),
            Self::Preference { chosen, rejected } => [chosen.text(0), rejected.text(rejected.n_given)].join("\n"),
        }
    }

    /// Identifies the content: equal rows have equal hashes, wherever they stand, in every version of this program.
    pub fn hash(&self) -> u64 {
        let mut hasher = Hasher(Sha256::new());
        match self {
            Self::Document(text) => hasher.add("document", text.as_bytes()),
            Self::Conversation(conversation) => hasher.conversation(conversation),
            Self::Preference { chosen, rejected } => {
                hasher.conversation(chosen);
                hasher.add("rejected", &[]);
                hasher.conversation(rejected);
            }
        }
        let digest: [u8; 32] = hasher.0.finalize().into();
        digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Its images and clips.
    pub fn media(&self) -> impl Iterator<Item = &Medium> {
        let [first, second] = match self {
            Self::Document(_) => [None, None],
            Self::Conversation(conversation) => [Some(conversation), None],
            Self::Preference { chosen, rejected } => [Some(chosen), Some(rejected)],
        };
        first.into_iter().chain(second).flat_map(|conversation| &conversation.media)
    }
}

impl Conversation {
    fn text(&self, first: usize) -> String {
        let texts = self.messages.iter().skip(first).flat_map(|message| {
            let said = message.content.iter().filter_map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Image | Part::Audio | Part::Json(_) => None,
            });
            message.reasoning.as_deref().into_iter().chain(said)
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

impl From<Sample> for Row {
    fn from(sample: Sample) -> Self {
        let mut conversation = Conversation::default();
        for (i, turn) in sample.turns.into_iter().enumerate() {
            let role = match turn.role {
                generators::Role::System => Role::System,
                generators::Role::User => Role::User,
                generators::Role::Assistant => Role::Assistant,
            };
            let mut content = Vec::new();
            for part in turn.content {
                let (part, medium) = match part {
                    generators::Part::Text(text) => (Part::Text(text), None),
                    generators::Part::Image(image) => (Part::Image, Some((Kind::Image, At::Pixels(image)))),
                    generators::Part::Sound(sound) => (Part::Audio, Some((Kind::Audio(None), At::Samples(sound)))),
                };
                content.push(part);
                let field = format!("turn {i}");
                conversation.media.extend(medium.map(|(kind, at)| Medium { kind, at, field }));
            }
            conversation.messages.push(Message { reasoning: turn.thinking, ..Message::new(role, content) });
        }
        Self::Conversation(conversation)
    }
}

/// Every field with its name and length before it, so that no two contents run together alike.
struct Hasher(Sha256);

impl Hasher {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.update(name.as_bytes());
        self.0.update([0]);
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn conversation(&mut self, conversation: &Conversation) {
        for message in &conversation.messages {
            let role = match message.role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
                Role::Tool => "tool",
            };
            self.add(role, &[]);
            for part in &message.content {
                match part {
                    Part::Text(text) => self.add("text", text.as_bytes()),
                    Part::Json(value) => self.add("json", value.to_string().as_bytes()),
                    Part::Image => self.add("image", &[]),
                    Part::Audio => self.add("audio", &[]),
                }
            }
            if let Some(thoughts) = &message.reasoning {
                self.add("thoughts", thoughts.as_bytes());
            }
            for call in &message.tool_calls {
                self.add("call", call.name.as_bytes());
                self.add("arguments", call.arguments.to_string().as_bytes());
            }
        }
        for tool in &conversation.tools {
            self.add("tool", tool.to_string().as_bytes());
        }
        for medium in &conversation.media {
            match &medium.at {
                At::Bytes(bytes) => self.add("bytes", bytes),
                At::Path(path) => self.add("path", path.to_string_lossy().as_bytes()),
                At::Pixels(image) => self.add(&format!("pixels {}", image.width), &image.rgb),
                At::Samples(sound) => {
                    let bytes: Vec<u8> = sound.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                    self.add(&format!("samples {}", sound.rate_hz), &bytes);
                }
            }
        }
    }
}
