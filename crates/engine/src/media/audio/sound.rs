//! From a decoded clip to what a prompt holds of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZero;
use std::sync::Arc;

use llama::{AudioConfig, AudioPreprocessorConfig};

use super::mel::REACH;
use super::{AudioCost, AudioShape, Clip, Features, HOP, Listener, LogMel, MelError, MelSettings};
use crate::limits::Limits;
use crate::media::Keys;

/// How clips become features, and how many rows these become. Clones are the same.
#[derive(Debug, Clone)]
pub struct ClipConfig {
    mel: Arc<LogMel>,
    shape: AudioShape,
}

/// A clip, ready for the audio tower. Clones share the features.
///
/// It is known piece by piece: by the blocks of an encoder whose frames do not see later ones, or else by its chunks.
#[derive(Debug, Clone)]
pub struct Sound {
    chunks: Vec<Arc<SoundChunk>>,
    n_samples: usize,
    n_rows: usize,
    /// Rows of every piece but the last.
    piece_rows: usize,
    /// Whether more of it may come: then only whole pieces count.
    is_open: bool,
}

/// What the audio tower takes of one chunk of a clip.
#[derive(Debug)]
pub struct SoundChunk {
    /// `[_, M]`: those that its frames read, column by column.
    columns: Vec<f32>,
    n_valid: usize,
    n_frames: usize,
    /// Identify its pieces, each by all that the tower sees of it and those before it.
    keys: Vec<u64>,
    is_open: bool,
}

impl ClipConfig {
    /// How a model takes clips whose preprocessor is `own` and whose encoder and projector are `audio`.
    ///
    /// # Errors
    /// As [`LogMel::parse`].
    pub fn of(own: &AudioPreprocessorConfig, audio: &AudioConfig, limits: &Limits) -> Result<Self, MelError> {
        let settings = MelSettings {
            n_mels: own.n_mels,
            chunk_frames: own.chunk_columns,
            log_mel_max: own.log_mel_max,
            pad_to: own.pad_to,
        };
        let encoder = &audio.encoder;
        let values = encoder.n_layers.saturating_mul(encoder.n_frames).saturating_mul(2 * encoder.hidden_size);
        let fits = values.saturating_mul(size_of::<f32>()) <= limits.audio_state_bytes;
        // A chunk of none is refused below, and a projector joins one frame at least.
        let count = |n: usize| NonZero::new(n as u64).unwrap_or(NonZero::<u64>::MIN);
        let shape = AudioShape {
            chunk_frames: count(own.chunk_columns),
            stack: count(audio.projector.stack),
            padding: own.padding_mode,
            block: encoder.block.filter(|_| fits).map(|block| count(block.get())),
        };
        Self::parse(settings, shape, limits)
    }

    /// How a model with these settings takes clips. Blocks are nothing to features that are held against the clip's own
    /// maximum: any of them may still change.
    ///
    /// # Errors
    /// As [`LogMel::parse`].
    pub fn parse(settings: MelSettings, shape: AudioShape, limits: &Limits) -> Result<Self, MelError> {
        let block = shape.block.filter(|_| settings.log_mel_max.is_some());
        Ok(Self { mel: Arc::new(LogMel::parse(settings, limits)?), shape: AudioShape { block, ..shape } })
    }

    /// What makes features.
    pub fn mel(&self) -> &Arc<LogMel> {
        &self.mel
    }

    /// What a clip of `n_samples` at 16 kHz costs.
    pub fn cost(&self, n_samples: u64) -> AudioCost {
        self.shape.clip(n_samples)
    }

    /// Bytes that the features of a clip of `n_samples` take.
    pub fn feature_bytes(&self, n_samples: u64) -> usize {
        // Two columns a frame, and one more that the last frame reads.
        let frames = usize::try_from(self.cost(n_samples).encoder_frames).unwrap_or(usize::MAX);
        let columns = frames.saturating_mul(2).saturating_add(1);
        columns.saturating_mul(self.mel.settings().n_mels).saturating_mul(size_of::<f32>())
    }

    /// Features of a clip.
    pub fn sound(&self, clip: &Clip) -> Sound {
        self.joined(self.chunks(self.mel.features(clip.samples())), clip.samples().len())
    }

    /// Hears a clip while it is being said.
    pub fn listen(&self, limits: &Limits) -> Listener {
        Listener::new(self.clone(), limits)
    }

    /// The chunks of a whole clip.
    pub(super) fn chunks(&self, features: Features) -> Vec<Arc<SoundChunk>> {
        let (n_valid, silence) = (features.n_valid(), features.silence());
        let chunk_frames = self.chunk_frames();
        let chunks = features.into_columns().into_iter().enumerate().map(|(i, columns)| {
            let n_valid = chunk_frames.min(n_valid - i * chunk_frames);
            Arc::new(self.closed(columns, n_valid, silence))
        });
        chunks.collect()
    }

    /// Pieces of a clip of `n_samples` that more samples do not change: all of whose frames' columns are complete.
    pub fn n_certain(&self, n_samples: usize) -> usize {
        let n_columns = complete_columns(n_samples);
        let n_full = n_columns / self.chunk_frames();
        n_full * (self.chunk_frames() / 2 / self.block()) + self.certain_blocks(n_columns % self.chunk_frames())
    }

    /// The chunks of a clip of which more may come; `None` if there is none.
    pub(super) fn begun(&self, chunks: Vec<Arc<SoundChunk>>, n_samples: usize) -> Option<Sound> {
        (!chunks.is_empty()).then(|| Sound { is_open: true, ..self.joined(chunks, n_samples) })
    }

    /// The chunks of a clip together.
    pub(super) fn joined(&self, chunks: Vec<Arc<SoundChunk>>, n_samples: usize) -> Sound {
        let stack = self.stack();
        let n_rows = chunks.iter().map(|chunk| chunk.n_frames.div_ceil(stack)).sum();
        Sound { chunks, n_samples, n_rows, piece_rows: self.block().div_ceil(stack), is_open: false }
    }

    /// A chunk that the clip fills, or ends in after `n_valid` columns.
    pub(super) fn closed(&self, mut columns: Vec<f32>, n_valid: usize, silence: f32) -> SoundChunk {
        let n_frames = self.shape.chunk(n_valid as u64).encoder_frames as usize;
        let settings = self.mel.settings();
        columns.resize(self.n_read(n_frames) * settings.n_mels, settings.absent(silence));
        let keys = self.keys(&columns, n_frames);
        SoundChunk { columns, n_valid, n_frames, keys, is_open: false }
    }

    /// What is certain of a chunk that has these columns and may get more; `None` if that is nothing.
    pub(super) fn open(&self, columns: &[f32]) -> Option<SoundChunk> {
        let n_mels = self.mel.settings().n_mels;
        let n_frames = self.certain_blocks(columns.len() / n_mels) * self.block();
        let columns = columns.get(..self.n_read(n_frames) * n_mels).filter(|_| n_frames > 0)?.to_vec();
        let keys = self.keys(&columns, n_frames);
        Some(SoundChunk { n_valid: columns.len() / n_mels, columns, n_frames, keys, is_open: true })
    }

    pub(super) fn chunk_frames(&self) -> usize {
        self.mel.settings().chunk_frames
    }

    fn stack(&self) -> usize {
        usize::try_from(self.shape.stack.get()).unwrap_or(usize::MAX)
    }

    /// Frames of a piece.
    fn block(&self) -> usize {
        let whole = self.chunk_frames() / 2;
        self.shape.block.and_then(|block| usize::try_from(block.get()).ok()).unwrap_or(whole).clamp(1, whole)
    }

    /// Blocks whose frames read nothing but the first `n_columns` of a chunk that has more.
    fn certain_blocks(&self, n_columns: usize) -> usize {
        n_columns.saturating_sub(1) / 2 / self.block()
    }

    /// Columns that the first `n_frames` of a chunk read.
    fn n_read(&self, n_frames: usize) -> usize {
        self.chunk_frames().min(2 * n_frames + 1)
    }

    /// Identify the pieces of a chunk by the features of each and of those before it, and by all that decides what becomes
    /// of them.
    fn keys(&self, columns: &[f32], n_frames: usize) -> Vec<u64> {
        let mut hasher = DefaultHasher::new();
        format!("{:?}", self.shape).hash(&mut hasher);
        let (n_mels, mut begin) = (self.mel.settings().n_mels, 0);
        let ends = (0..n_frames).step_by(self.block()).map(|first| n_frames.min(first + self.block()));
        let key = |end: usize| {
            let read = columns.get(begin..self.n_read(end) * n_mels).unwrap_or(&[]);
            begin = self.n_read(end) * n_mels;
            read.iter().for_each(|value| value.to_bits().hash(&mut hasher));
            end.hash(&mut hasher);
            hasher.finish()
        };
        ends.map(key).collect()
    }
}

/// Columns all of whose samples are there: the window of column t ends before 160 t + 200; that of column 0 is mirrored and
/// needs one sample more.
pub(super) fn complete_columns(n_samples: usize) -> usize {
    if n_samples > REACH { (n_samples - REACH) / HOP + 1 } else { 0 }
}

impl Sound {
    /// Its chunks, in order.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = &SoundChunk> {
        self.chunks.iter().map(|chunk| &**chunk)
    }

    /// Rows that the tower makes of it.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Whether more of it may come.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Identifies its pieces: their rows are the same, whatever comes behind them.
    pub fn keys(&self) -> Keys {
        Keys::new(self.chunks.iter().flat_map(|chunk| chunk.keys.iter().copied()).collect(), self.piece_rows)
    }

    /// Samples at 16 kHz.
    pub fn n_samples(&self) -> usize {
        self.n_samples
    }
}

impl SoundChunk {
    /// Columns that its frames read, `[_, M]`.
    pub fn columns(&self) -> &[f32] {
        &self.columns
    }

    /// Columns that the clip reaches.
    pub fn n_valid(&self) -> usize {
        self.n_valid
    }

    /// Frames that become rows.
    pub fn n_frames(&self) -> usize {
        self.n_frames
    }

    /// Identifies each of its pieces together with those before it.
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// Whether more of the chunk may come.
    pub fn is_open(&self) -> bool {
        self.is_open
    }
}
