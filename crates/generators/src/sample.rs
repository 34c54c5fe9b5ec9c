//! What a generator makes.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Source of every random choice of one sample.
pub type Draw = ChaCha8Rng;

/// Which of two disjoint endless rows of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// For training.
    Train,
    /// For measuring what was learnt. Where it makes a difference, contents (fonts, voices, word pairs) are held out
    /// too, not only seeds.
    HeldOut,
}

impl Split {
    /// Where what `key` names belongs: one in eight keys is held out. A task's key is what its question is about, not how
    /// it is worded, so that a held-out question was never trained on in other words.
    pub fn of(key: &str) -> Self {
        // FNV-1a, then a mixing of its bits, since the low ones of short keys follow their last letter
        let hash = key
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if mixed >> 61 == 0 { Self::HeldOut } else { Self::Train }
    }
}

/// Who says a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The operator.
    System,
    /// Who asks.
    User,
    /// The model: what training is for.
    Assistant,
}

/// Pixels, row by row: red, green, blue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `3 · width · height` bytes.
    pub rgb: Vec<u8>,
}

/// One channel of sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Samples a second.
    pub rate_hz: u32,
    /// Between −1 and 1.
    pub samples: Vec<f32>,
}

/// A piece of a turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text.
    Text(String),
    /// A picture.
    Image(Image),
    /// A sound.
    Sound(Sound),
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Who says it.
    pub role: Role,
    /// What, in order.
    pub content: Vec<Part>,
    /// The worked way to the answer, of an assistant's turn. `None` where the task does not call for any.
    pub thinking: Option<String>,
}

/// A conversation to learn from, which ends with an assistant's turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The [`name`](Generator::name) of what made it.
    pub task: &'static str,
    /// All turns.
    pub turns: Vec<Turn>,
}

/// An endless row of samples of one task.
pub trait Generator: Send + Sync {
    /// The task, one word in lower case (or several, joined by `_`).
    fn name(&self) -> &'static str;

    /// Makes a sample. Everything random comes from `draw`; `split` says which contents are allowed.
    fn sample(&self, split: Split, draw: &mut Draw) -> Sample;

    /// Whether `answer`, the final answer of a model without its thinking, answers the last question of `sample`.
    fn is_correct(&self, sample: &Sample, answer: &str) -> bool;

    /// The share of samples that a blind guess answers: 0 where answers are open.
    fn chance(&self) -> f64;

    /// The answers among which the last question of `sample` asks to choose. None where answers are open.
    fn choices(&self, _sample: &Sample) -> Vec<String> {
        Vec::new()
    }

    /// Sample `index` of `split`.
    fn at(&self, split: Split, index: u64) -> Sample {
        self.sample(split, &mut draw(self.name(), split, index))
    }
}

/// The random numbers of sample `index`: the task and the split choose a key, the index a stream of it, so that no two
/// samples share numbers.
fn draw(name: &str, split: Split, index: u64) -> Draw {
    let mut key = [0u8; 32];
    for (i, byte) in name.bytes().enumerate() {
        key[i % 31] = key[i % 31].rotate_left(3) ^ byte;
    }
    key[31] = match split {
        Split::Train => 0,
        Split::HeldOut => 1,
    };
    let mut draw = Draw::from_seed(key);
    draw.set_stream(index);
    draw
}

impl Sample {
    /// Text of the last question.
    pub fn question(&self) -> String {
        self.turns.iter().rev().find(|turn| turn.role == Role::User).map(Turn::to_text).unwrap_or_default()
    }

    /// Text of the answer that the sample teaches: its last turn.
    pub fn answer(&self) -> String {
        self.turns.last().map(Turn::to_text).unwrap_or_default()
    }
}

impl Turn {
    /// A turn of text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Part::Text(text.into())], thinking: None }
    }

    /// Its text, without its pictures and sounds.
    pub fn to_text(&self) -> String {
        let texts = self.content.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image(_) | Part::Sound(_) => None,
        });
        texts.collect()
    }

    /// The same with thinking before it.
    pub fn with_thinking(self, thinking: impl Into<String>) -> Self {
        Self { thinking: Some(thinking.into()), ..self }
    }
}
