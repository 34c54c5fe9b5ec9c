//! Encoding a clip while it arrives.

use tensor::{Device, OpError};

use super::Audio;
use super::encoder::{FrameCache, Part};
use crate::{LlamaError, Probe, Site};

/// A clip of which columns are still to come: the keys and values of the current chunk's blocks, and the columns that
/// the next block reads.
///
/// Rows come as soon as the frames of a block can be computed; an encoder without blocks gives a chunk's rows at once.
/// Blocks are whole numbers of rows, so no frame waits for its row. All rows together are to the bit those that
/// [`Audio::forward`] gives for the whole clip, however it was split.
pub struct AudioStream<D: Device> {
    /// From the chunk's first frames on.
    cache: Option<FrameCache<D>>,
    /// Columns of the chunk from `first` on, column by column.
    columns: Vec<f32>,
    first: usize,
    /// Frames of the chunk that were encoded.
    n_frames: usize,
    /// Chunks that were finished.
    n_chunks: usize,
}

impl<D: Device> Default for AudioStream<D> {
    /// The beginning of a clip.
    fn default() -> Self {
        Self { cache: None, columns: Vec::new(), first: 0, n_frames: 0, n_chunks: 0 }
    }
}

impl<D: Device> AudioStream<D> {
    /// Columns that came so far.
    pub fn n_columns(&self, audio: &Audio<D>) -> usize {
        self.n_chunks * audio.encoder.chunk_columns() + self.in_chunk(audio)
    }

    /// Frames of the current chunk that were encoded.
    pub fn n_frames(&self) -> usize {
        self.n_frames
    }

    /// Bytes that it holds.
    pub fn size_bytes(&self, audio: &Audio<D>) -> usize {
        let cache = self.cache.as_ref().map_or(0, |cache| audio.encoder.cache_bytes(cache));
        cache.saturating_add(size_of_val(self.columns.as_slice()))
    }

    /// Takes the clip's next columns, `[_, M]`, one after another, and returns the rows `[_, D]` that they complete.
    ///
    /// # Errors
    /// [`LlamaError::Op`] if `columns` is no whole number of columns.
    pub fn push(
        &mut self,
        dev: &D,
        audio: &Audio<D>,
        columns: &[f32],
        probe: &mut impl Probe<D>,
    ) -> Result<Option<D::Tensor>, LlamaError> {
        let n_mels = audio.encoder.n_mels();
        if !columns.len().is_multiple_of(n_mels) {
            let what = format!("{} values are no columns of {n_mels}", columns.len());
            return Err(OpError::shape("audio", what).into());
        }
        let mut rows = None;
        let mut rest = columns;
        while !rest.is_empty() {
            let room = audio.encoder.chunk_columns() - self.in_chunk(audio);
            let (now, later) = rest.split_at(rest.len().min(room * n_mels));
            self.columns.extend_from_slice(now);
            rest = later;
            self.encode(dev, audio, self.n_complete(audio), &mut rows, probe)?;
            if self.n_frames == audio.encoder.n_frames() {
                *self = Self { n_chunks: self.n_chunks + 1, ..Self::default() };
            }
        }
        Ok(rows)
    }

    /// Ends the clip: `rest` are the columns that did not come yet, among them those after the clip's end that its last
    /// frames read (from the clip filled up with zeros); the clip has `n_valid` valid columns in all. What `rest` lacks
    /// counts as zero. Returns the last rows.
    ///
    /// # Errors
    /// [`LlamaError::Op`] if fewer than `n_valid` columns came, or more before this call, or there is none.
    pub fn commit(
        mut self,
        dev: &D,
        audio: &Audio<D>,
        rest: &[f32],
        n_valid: usize,
        probe: &mut impl Probe<D>,
    ) -> Result<Option<D::Tensor>, LlamaError> {
        let (n_mels, chunk) = (audio.encoder.n_mels(), audio.encoder.chunk_columns());
        let n_before = self.n_columns(audio);
        let n_given = n_before + rest.len() / n_mels;
        if n_valid == 0 || n_before > n_valid || n_given < n_valid {
            let what = format!("a clip of {n_valid} columns of which {n_before} came, and {n_given} with its end");
            return Err(OpError::shape("audio", what).into());
        }
        let last_chunk = (n_valid - 1) / chunk * chunk;
        let n_kept = audio.frames(n_valid - last_chunk);
        let n_wanted = last_chunk + chunk.min(2 * n_kept + 1);
        let (earlier, last) = rest.split_at(rest.len().min(last_chunk.saturating_sub(n_before) * n_mels));
        let mut rows = self.push(dev, audio, earlier, probe)?;
        // Of a clip that ended with its chunk nothing is left.
        if self.n_chunks * chunk == last_chunk {
            let n_missing = n_wanted - self.n_columns(audio);
            if self.cache.is_none() {
                self.cache = Some(audio.encoder.chunk_cache(dev)?);
            }
            self.columns.extend(last.iter().chain(std::iter::repeat(&0.0)).take(n_missing * n_mels));
            self.encode(dev, audio, n_kept, &mut rows, probe)?;
        }
        Ok(rows)
    }

    /// Columns of the current chunk that came so far.
    fn in_chunk(&self, audio: &Audio<D>) -> usize {
        self.first + self.columns.len() / audio.encoder.n_mels()
    }

    /// Frames of the blocks whose columns are there. A block's last frame reads one column more than it has, but for the
    /// last block of a chunk.
    fn n_complete(&self, audio: &Audio<D>) -> usize {
        let (n_frames, block, n_columns) = (audio.encoder.n_frames(), audio.encoder.block(), self.in_chunk(audio));
        if n_columns == 2 * n_frames { n_frames } else { n_columns.saturating_sub(1) / 2 / block * block }
    }

    /// Encodes the chunk's frames up to `end`, if there are such, and appends their rows.
    fn encode(
        &mut self,
        dev: &D,
        audio: &Audio<D>,
        end: usize,
        rows: &mut Option<D::Tensor>,
        probe: &mut impl Probe<D>,
    ) -> Result<(), LlamaError> {
        if end <= self.n_frames {
            return Ok(());
        }
        let part = Part { first: self.first, columns: &self.columns, frames: self.n_frames..end };
        let encoder = &audio.encoder;
        let cache = match &mut self.cache {
            Some(cache) => cache,
            none if end == encoder.n_frames() => none.insert(encoder.chunk_cache(dev)?),
            none => none.insert(encoder.stream_cache(dev)?),
        };
        let frames = encoder.encode(dev, cache, &[part], probe)?;
        let new = audio.projector.forward(dev, frames, &[end - self.n_frames])?;
        probe.see(dev, Site::AudioRows, &new);
        *rows = Some(match rows.take() {
            Some(rows) => dev.concat(&rows, &new)?,
            None => new,
        });
        // The next frame's first tap reads an output of the first convolution that reads two columns back.
        let first_kept = (2 * end).saturating_sub(2);
        let n_done = (first_kept - self.first) * audio.encoder.n_mels();
        self.columns.drain(..n_done.min(self.columns.len()));
        self.first = first_kept;
        self.n_frames = end;
        Ok(())
    }
}
