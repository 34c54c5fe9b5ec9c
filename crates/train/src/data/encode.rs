//! From rows to what a step takes: tokens, what of them is learnt, pixels and log-mel columns.

use std::path::Path;

use engine::media::audio::{Clip, ClipConfig, Resampler};
use engine::media::{Extent, Media as Prepared, Rgb, Size, TileConfig, audio, decode, preprocess};
use engine::{Encoded as Laid, Known, Layout, Limits, content};
use llama::Input;
use serde::Deserialize;
use tokenizer::{ChatFormat, Ending, Message, Role, Segment, Tokenizer, encode_segments};

use super::row::{At, Conversation, Kind, Medium, Row};
use crate::{Chunk, Media, Sequence};

/// What a model takes beside text.
#[derive(Debug, Clone, Default)]
pub struct Senses {
    /// How images and clips lie among tokens.
    pub layout: Layout,
    /// How images become tiles.
    pub tiles: Option<TileConfig>,
    /// How clips become log-mel columns.
    pub clips: Option<ClipConfig>,
}

/// What opens and closes a model's thoughts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    /// Opens a block.
    pub start: Vec<u32>,
    /// Closes it.
    pub end: Vec<u32>,
}

/// Which turns of a conversation a model that thinks learns from one sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Turns {
    /// None: each is learnt behind the very prompt that a server would write.
    #[default]
    Apart,
    /// All of a conversation without thoughts, each behind an empty block. A server writes earlier turns without one, but
    /// what is asked of one picture is then learnt for one picture's price.
    Together,
}

/// What each token of an answer counts beside those of longer and shorter ones. The weights of each learnt turn, and of
/// each document, add up to what is said here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighting {
    /// To their number: all tokens count the same, and an answer of one word next to nothing beside a page.
    #[default]
    Token,
    /// To its square root.
    Square,
    /// To 1: all answers count the same.
    Sample,
}

impl Weighting {
    /// Scales the weights of each run of tokens that are learnt.
    fn apply(self, weights: &mut [f32]) {
        for run in weights.split_mut(|weight| *weight == 0.0) {
            let n = run.len() as f32;
            let scale = match self {
                Self::Token => 1.0,
                Self::Square => n.sqrt().recip(),
                Self::Sample => n.recip(),
            };
            run.iter_mut().for_each(|weight| *weight *= scale);
        }
    }
}

/// Turns rows into sequences.
///
/// A document is its beginning's token, its text, and its end's token, and all of it but the first is learnt. Of a
/// conversation the assistant's turns are learnt: what it thinks, with the markers around it, what it says, and the token
/// that ends the turn.
///
/// A model that thinks does not see the thoughts of earlier turns, so each of its turns is a sequence of its own, behind
/// the very prompt that a server would write, unless [`Turns`] says otherwise. Where a turn has no thoughts an
/// empty block stands before it, which is read and not learnt: it is the prompt's way to say that there shall be none. A
/// model without markers learns all turns from one sequence.
#[derive(Debug)]
pub struct Encoder {
    /// Text to tokens.
    pub tokenizer: Tokenizer,
    /// How conversations are written; without it there are documents only.
    pub format: Option<ChatFormat>,
    /// How thoughts are marked, if the model is to think. The same that [`format`](Self::format) writes.
    pub markers: Option<Markers>,
    /// What the model takes beside text.
    pub senses: Senses,
    /// Bounds on texts, images and clips.
    pub limits: Limits,
    /// Which turns are learnt from one sequence, if the model is to think.
    pub turns: Turns,
    /// What tokens of documents and of assistants' turns count. Those of pairs count the same.
    pub weighting: Weighting,
}

/// What must not be torn apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Unit {
    /// A sequence.
    One(Sequence),
    /// Two answers to one prompt.
    Pair {
        /// The better one.
        chosen: Sequence,
        /// The worse one.
        rejected: Sequence,
    },
}

impl Unit {
    /// Positions.
    pub fn n_rows(&self) -> usize {
        match self {
            Self::One(sequence) => sequence.len(),
            Self::Pair { chosen, rejected } => chosen.len() + rejected.len(),
        }
    }
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Encoded {
    /// Sequences of at most as many positions as were allowed.
    pub units: Vec<Unit>,
    /// Positions that were left out, because they do not fit: the ends of conversations, and pairs as a whole.
    pub n_left_out: usize,
}

/// Segments, and which of them are learnt.
struct Marked {
    segments: Vec<Segment>,
    learnt: Vec<std::ops::Range<usize>>,
}

impl Encoder {
    /// One for text alone and a model that does not think, with the limits and weights of default.
    pub fn new(tokenizer: Tokenizer, format: Option<ChatFormat>) -> Self {
        Self {
            tokenizer,
            format,
            markers: None,
            senses: Senses::default(),
            limits: Limits::default(),
            turns: Turns::default(),
            weighting: Weighting::default(),
        }
    }

    /// Encodes a row into sequences of at most `cut` positions. Documents are cut into pieces of that; of a conversation
    /// the front stays as far as it goes; a pair that is longer is left out.
    ///
    /// # Errors
    /// The field that can not be used, and why.
    pub fn encode(&self, row: &Row, cut: usize) -> Result<Encoded, String> {
        let mut encoded = self.encode_evenly(row, cut)?;
        for unit in &mut encoded.units {
            if let Unit::One(sequence) = unit {
                self.weighting.apply(&mut sequence.weights);
            }
        }
        Ok(encoded)
    }

    /// [`encode`](Self::encode) with weights of 1.
    fn encode_evenly(&self, row: &Row, cut: usize) -> Result<Encoded, String> {
        let mut encoded = Encoded::default();
        match row {
            Row::Document(text) => {
                let ids: Vec<u32> = self
                    .tokenizer
                    .bos()
                    .into_iter()
                    .chain(self.tokenizer.encode(text))
                    .chain(self.tokenizer.eos())
                    .collect();
                let whole = Sequence::text(&ids);
                let pieces = (0..whole.len()).step_by(cut.max(1));
                encoded.units.extend(pieces.map(|begin| Unit::One(slice(&whole, begin, begin + cut))));
            }
            Row::Conversation(conversation) => {
                let media = self.prepare(conversation)?;
                for marked in self.turns(conversation)? {
                    let whole = self.sequence(&marked?, &media)?;
                    encoded.n_left_out += whole.len().saturating_sub(cut);
                    let is_too_long = whole.len() > cut;
                    let kept = if is_too_long { slice(&whole, 0, cut) } else { whole };
                    let is_learnt = kept.weight() > 0.0;
                    encoded.units.extend(is_learnt.then_some(Unit::One(kept)));
                    if is_too_long && !is_learnt {
                        // Those of later turns are longer still.
                        break;
                    }
                }
            }
            Row::Preference { chosen, rejected } => {
                let pair = Unit::Pair { chosen: self.way(chosen)?, rejected: self.way(rejected)? };
                match pair.n_rows() {
                    n if n > cut => encoded.n_left_out = n,
                    _ => encoded.units.push(pair),
                }
            }
        }
        Ok(encoded)
    }

    /// One of a pair: its turns as they stand, the thoughts before the last question forgotten.
    fn way(&self, conversation: &Conversation) -> Result<Sequence, String> {
        let media = self.prepare(conversation)?;
        let mut turns = conversation.messages.clone();
        let n_given = conversation.n_given.min(turns.len());
        self.write_thoughts(&mut turns, n_given);
        let given = self.render(&turns[..n_given], conversation, Ending::Answer(None))?;
        let mut segments = self.render(&turns, conversation, Ending::Message)?;
        let learnt = self.learnt(&given, &mut segments)?;
        self.sequence(&Marked { segments, learnt: vec![learnt] }, &media)
    }

    /// What is learnt from a conversation, sequence by sequence.
    fn turns<'a>(
        &'a self,
        conversation: &'a Conversation,
    ) -> Result<Box<dyn Iterator<Item = Result<Marked, String>> + 'a>, String> {
        let messages = &conversation.messages;
        let size_bytes: usize = messages.iter().map(message_bytes).sum();
        if size_bytes > self.limits.prompt_bytes {
            let limit = self.limits.prompt_bytes;
            return Err(format!("messages: have {size_bytes} bytes of text; the limit is {limit}; cut them"));
        }
        let is_turn = |i: &usize| messages.get(*i).is_some_and(|message| message.role == Role::Assistant);
        let turns = (conversation.n_given..messages.len()).filter(is_turn);
        let thinks = |message: &Message| message.reasoning.as_ref().is_some_and(|thoughts| !thoughts.is_empty());
        let is_apart = self.markers.is_some() && (self.turns == Turns::Apart || messages.iter().any(thinks));
        // A template of another model may write earlier turns differently, or run them together with its own text.
        if is_apart || matches!(self.format, Some(ChatFormat::Template(_))) {
            return Ok(Box::new(turns.map(move |turn| {
                let mut known = messages[..=turn].to_vec();
                self.write_thoughts(&mut known, turn);
                self.turn(&known, conversation)
            })));
        }
        let mut messages = messages.clone();
        if self.markers.is_some() {
            let turns = messages.iter_mut().filter(|message| message.role == Role::Assistant);
            turns.for_each(|message| message.reasoning = Some(String::new()));
        }
        let segments = self.render(&messages, conversation, Ending::Message)?;
        let mut learnt = Vec::new();
        for turn in turns {
            learnt.extend(self.turn(&messages[..=turn], conversation)?.learnt);
        }
        Ok(Box::new(std::iter::once(Ok(Marked { segments, learnt }))))
    }

    /// A conversation whose last turn is learnt.
    fn turn(&self, messages: &[Message], conversation: &Conversation) -> Result<Marked, String> {
        let before = &messages[..messages.len().saturating_sub(1)];
        let prompt = self.render(before, conversation, Ending::Answer(None))?;
        let mut segments = self.render(messages, conversation, Ending::Message)?;
        let learnt = self.learnt(&prompt, &mut segments)?;
        Ok(Marked { segments, learnt: vec![learnt] })
    }

    /// The segments behind `prompt`, without the empty block that says not to think.
    ///
    /// Where text of the prompt runs on into the answer it is parted there, as it is when a model answers.
    fn learnt(&self, prompt: &[Segment], whole: &mut Vec<Segment>) -> Result<std::ops::Range<usize>, String> {
        if let Some((Segment::Text(last), before)) = prompt.split_last()
            && let Some(Segment::Text(text)) = whole.get(before.len())
            && let Some(answer) = text.strip_prefix(last.as_str()).filter(|answer| !answer.is_empty())
        {
            let parts = [Segment::Text(last.clone()), Segment::Text(answer.to_owned())];
            whole.splice(before.len()..prompt.len(), parts);
        }
        // What some templates write between turns is not the answer's.
        if let [.., Segment::Control(_), Segment::Text(text)] = whole.as_slice()
            && text.trim().is_empty()
        {
            whole.pop();
        }
        let turn = whole.strip_prefix(prompt);
        let turn = turn.ok_or("messages: this model's template does not write answers behind their prompts")?;
        let empty: Vec<Segment> = match &self.markers {
            Some(Markers { start, end }) => start.iter().chain(end).map(|id| Segment::Control(*id)).collect(),
            None => Vec::new(),
        };
        let n_empty = if turn.starts_with(&empty) { empty.len() } else { 0 };
        Ok(prompt.len() + n_empty..whole.len())
    }

    /// Leaves thoughts where a server leaves them, and gives an empty block to the turn `last` if it has none.
    fn write_thoughts(&self, messages: &mut [Message], last: usize) {
        if self.markers.is_none() {
            return;
        }
        let question = messages.iter().rposition(|message| message.role == Role::User).unwrap_or(0);
        for (i, message) in messages.iter_mut().enumerate() {
            let is_assistant = message.role == Role::Assistant;
            message.reasoning = message.reasoning.take().filter(|thoughts| i >= question && !thoughts.is_empty());
            if i == last && is_assistant && message.reasoning.is_none() {
                message.reasoning = Some(String::new());
            }
        }
    }

    fn render(
        &self,
        messages: &[Message],
        conversation: &Conversation,
        ending: Ending<'_>,
    ) -> Result<Vec<Segment>, String> {
        let format = self.format.as_ref().ok_or("messages: this model has no chat format; give it documents")?;
        let tools = Some(conversation.tools.as_slice());
        format.render(messages, tools, ending).map_err(|error| format!("messages: {error}"))
    }

    fn sequence(&self, marked: &Marked, media: &[(Prepared, Media)]) -> Result<Sequence, String> {
        let laid: Vec<(Laid<()>, Extent)> =
            media.iter().map(|(medium, _)| (Laid { keys: medium.keys(), features: () }, medium.extent())).collect();
        let (mut known, mut is_learnt) = (Vec::new(), Vec::new());
        for (i, segment) in marked.segments.iter().enumerate() {
            let pieces = encode_segments(&self.tokenizer, std::slice::from_ref(segment));
            let laid = content(&pieces, &laid, &self.senses.layout).map_err(|error| error.to_string())?;
            known.extend(laid.known);
            is_learnt.resize(known.len(), marked.learnt.iter().any(|range| range.contains(&i)));
        }
        let n = known.len().saturating_sub(1);
        let input = |known: &Known| match *known {
            Known::Token(id) => Input::Token(id),
            Known::Media { media, row } => Input::Feature { features: media, row },
        };
        let target = |known: &Known| match *known {
            Known::Token(id) => id,
            Known::Media { .. } => 0,
        };
        let whole = Sequence {
            inputs: known.iter().take(n).map(input).collect(),
            targets: known.iter().skip(1).map(target).collect(),
            weights: is_learnt.iter().skip(1).map(|is_learnt| if *is_learnt { 1.0 } else { 0.0 }).collect(),
            media: media.iter().map(|(_, medium)| medium.clone()).collect(),
        };
        Ok(slice(&whole, 0, n))
    }

    /// Decodes what a conversation shows.
    fn prepare(&self, conversation: &Conversation) -> Result<Vec<(Prepared, Media)>, String> {
        let of_kind = |is_audio: bool| {
            let media = conversation.media.iter();
            media.filter(move |medium| matches!(medium.kind, Kind::Audio(_)) == is_audio).count()
        };
        for (got, limit, what) in [
            (of_kind(false), self.limits.images_per_prompt, "images"),
            (of_kind(true), self.limits.audios_per_prompt, "clips"),
        ] {
            if got > limit {
                return Err(format!("messages: have {got} {what}; the limit is {limit}"));
            }
        }
        let prepare = |medium| {
            let prepared = self.medium(medium).map_err(|why| format!("{}: {why}", medium.field))?;
            let given = given(&prepared);
            Ok((prepared, given))
        };
        conversation.media.iter().map(prepare).collect()
    }

    fn medium(&self, medium: &Medium) -> Result<Prepared, String> {
        match medium.kind {
            Kind::Image | Kind::ImageInOneTile => {
                let config = self.senses.tiles.as_ref().ok_or("is an image; this model does not take images")?;
                let image = image(medium, &self.limits)?;
                let mut settings = config.settings().clone();
                if medium.kind == Kind::ImageInOneTile {
                    settings.max_tiles = 1;
                }
                let config = TileConfig::parse(settings, &self.limits).map_err(|error| error.to_string())?;
                Ok(Prepared::Image(preprocess(&image, &config).into()))
            }
            Kind::Audio(_) => {
                let config = self.senses.clips.as_ref().ok_or("is audio; this model does not take audio")?;
                Ok(Prepared::Audio(config.sound(&clip(medium, &self.limits)?)))
            }
        }
    }
}

/// The picture of a medium.
///
/// # Errors
/// Why it can not be used.
pub fn image(medium: &Medium, limits: &Limits) -> Result<Rgb, String> {
    let bytes = match &medium.at {
        At::Pixels(made) => {
            let side = |n: usize| u32::try_from(n).ok();
            let size = side(made.height).zip(side(made.width)).and_then(|(height, width)| Size::new(height, width));
            return size.and_then(|size| Rgb::new(size, made.rgb.clone())).ok_or("has no pixels of its size".into());
        }
        At::Samples(_) => return Err("is a sound, not an image".into()),
        At::Bytes(bytes) => bytes,
        At::Path(path) => &file(path, usize::try_from(limits.image_decoded_bytes).unwrap_or(usize::MAX))?,
    };
    decode(bytes, limits).map_err(|error| error.to_string())
}

/// The samples of a medium.
///
/// # Errors
/// Why it can not be used.
pub fn clip(medium: &Medium, limits: &Limits) -> Result<Clip, String> {
    let declared = if let Kind::Audio(declared) = medium.kind { declared } else { None };
    let bytes = match &medium.at {
        At::Samples(made) => {
            let mut resampler = Resampler::new(made.rate_hz).ok_or("has a rate that can not be converted")?;
            let mut samples = Vec::new();
            resampler.push(&made.samples.iter().map(|sample| f64::from(*sample)).collect::<Vec<_>>(), &mut samples);
            resampler.finish(&mut samples);
            return Clip::new(samples).ok_or("has no samples, or some that are no numbers".into());
        }
        At::Pixels(_) => return Err("is an image, not a sound".into()),
        At::Bytes(bytes) => bytes,
        At::Path(path) => &file(path, limits.audio_bytes)?,
    };
    audio::decode(bytes, declared, limits, &|| false).map_err(|error| error.to_string())
}

/// The bytes of a file, counted while they come.
fn file(path: &Path, limit_bytes: usize) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    let limit = limit_bytes as u64;
    std::fs::File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() > limit_bytes {
        true => Err(format!("{}: is longer than {limit_bytes} bytes", path.display())),
        false => Ok(bytes),
    }
}

/// As the towers take it.
fn given(prepared: &Prepared) -> Media {
    match prepared {
        Prepared::Image(tiles) => Media::Image(tiles.pixels.clone()),
        Prepared::Audio(sound) => Media::Sound(
            sound.chunks().map(|chunk| Chunk { columns: chunk.columns().to_vec(), valid: chunk.n_valid() }).collect(),
        ),
    }
}

fn message_bytes(message: &Message) -> usize {
    let text = |part: &tokenizer::Part| if let tokenizer::Part::Text(text) = part { text.len() } else { 0 };
    message.content.iter().map(text).sum::<usize>() + message.reasoning.as_ref().map_or(0, String::len)
}

/// The positions from `begin` to before `end`, with the media that they name.
fn slice(whole: &Sequence, begin: usize, end: usize) -> Sequence {
    let end = end.min(whole.len());
    let mut numbers: Vec<Option<usize>> = vec![None; whole.media.len()];
    let mut media = Vec::new();
    let inputs = whole.inputs[begin..end].iter().map(|input| match *input {
        Input::Feature { features, row } => {
            let number = *numbers[features].get_or_insert_with(|| {
                media.push(whole.media[features].clone());
                media.len() - 1
            });
            Input::Feature { features: number, row }
        }
        token => token,
    });
    let inputs = inputs.collect();
    Sequence { inputs, targets: whole.targets[begin..end].to_vec(), weights: whole.weights[begin..end].to_vec(), media }
}
