//! A clip while it is being said.

use std::sync::Arc;

use super::sound::SoundChunk;
use super::{AudioError, ClipBuffer, ClipConfig, MelStream, Sound};
use crate::limits::Limits;

/// Hears a clip while it is being said, and knows what of it is certain.
///
/// However the samples are split, [`commit`](Self::commit) gives the [`Sound`] of all of them, and every piece that
/// [`begun`](Self::begun) gave is one of that. With features that are held against the clip's own maximum they are so only if
/// nothing louder comes: then it is another clip.
#[derive(Debug)]
pub struct Listener {
    config: ClipConfig,
    heard: Heard,
}

#[derive(Debug)]
enum Heard {
    /// Features do not depend on what comes: full chunks, and the columns of the one that is not.
    Columns {
        stream: MelStream,
        chunks: Vec<Arc<SoundChunk>>,
        columns: Vec<f32>,
    },
    Samples(ClipBuffer),
}

impl Listener {
    pub(super) fn new(config: ClipConfig, limits: &Limits) -> Self {
        let heard = match MelStream::new(Arc::clone(config.mel()), limits) {
            Ok(stream) => Heard::Columns { stream, chunks: Vec::new(), columns: Vec::new() },
            // There is no fixed maximum.
            Err(_) => Heard::Samples(ClipBuffer::new(limits)),
        };
        Self { config, heard }
    }

    /// Samples that came.
    pub fn n_samples(&self) -> usize {
        match &self.heard {
            Heard::Columns { stream, .. } => stream.n_samples(),
            Heard::Samples(buffer) => buffer.samples().len(),
        }
    }

    /// Takes the next samples at 16 kHz, all finite.
    ///
    /// # Errors
    /// [`AudioError::TooLong`]; then it stays as it was.
    pub fn push(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        match &mut self.heard {
            Heard::Samples(buffer) => buffer.push(samples),
            Heard::Columns { stream, chunks, columns } => {
                columns.extend(stream.push(samples)?.values);
                let chunk_frames = self.config.chunk_frames();
                while let Some(full) = first_chunk(columns, chunk_frames * self.config.mel().settings().n_mels) {
                    // Nothing is silent of a chunk that is full.
                    chunks.push(Arc::new(self.config.closed(full, chunk_frames, 0.0)));
                }
                Ok(())
            }
        }
    }

    /// Pieces that are certain.
    pub fn n_certain(&self) -> usize {
        self.config.n_certain(self.n_samples())
    }

    /// What is certain; `None` if nothing is.
    pub fn begun(&self) -> Option<Sound> {
        let n_samples = self.n_samples();
        match &self.heard {
            Heard::Columns { chunks, columns, .. } => {
                let open = self.config.open(columns).map(Arc::new);
                self.config.begun(chunks.iter().cloned().chain(open).collect(), n_samples)
            }
            Heard::Samples(buffer) => {
                let n_full = self.n_certain();
                let mut chunks = match n_full {
                    0 => Vec::new(),
                    _ => self.config.chunks(self.config.mel().features(buffer.samples())),
                };
                chunks.truncate(n_full);
                self.config.begun(chunks, n_samples)
            }
        }
    }

    /// Ends the clip.
    ///
    /// # Errors
    /// [`AudioError::Empty`] if no sample came.
    pub fn commit(self) -> Result<Sound, AudioError> {
        let n_samples = self.n_samples();
        match self.heard {
            Heard::Samples(mut buffer) => {
                let features = buffer.commit(self.config.mel())?;
                Ok(self.config.joined(self.config.chunks(features), n_samples))
            }
            Heard::Columns { mut stream, mut chunks, mut columns } => {
                let end = stream.commit()?;
                columns.extend(end.columns.values);
                let chunk_frames = self.config.chunk_frames();
                let mut n_left = end.n_valid - chunks.len() * chunk_frames;
                while n_left > 0 {
                    let n_valid = n_left.min(chunk_frames);
                    let full = first_chunk(&mut columns, chunk_frames * self.config.mel().settings().n_mels);
                    let own = full.unwrap_or_else(|| std::mem::take(&mut columns));
                    chunks.push(Arc::new(self.config.closed(own, n_valid, end.silence)));
                    n_left -= n_valid;
                }
                Ok(self.config.joined(chunks, n_samples))
            }
        }
    }
}

/// Takes the first `len` of `values` away, if there are so many.
fn first_chunk(values: &mut Vec<f32>, len: usize) -> Option<Vec<f32>> {
    if values.len() < len {
        return None;
    }
    let rest = values.split_off(len);
    Some(std::mem::replace(values, rest))
}
