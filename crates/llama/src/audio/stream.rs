//! Encoding a clip while it arrives.

use tensor::{Device, OpError};

use super::Audio;
use super::encoder::{Columns, FrameCache};
use crate::{LlamaError, Probe, Site};

/// A clip of which columns are still to come: the keys and values of the current chunk's blocks, and the columns that
/// the next block reads.
///
/// Rows come as soon as the frames of a block can be computed; an encoder without blocks gives a chunk's rows at once.
/// Blocks are whole numbers of rows, so no frame waits for its row. All rows together are to the bit those that
/// [`Audio::forward`] gives for the whole clip, however it was split.
pub struct AudioStream<D: Device> {
    cache: FrameCache<D>,
    /// Columns of the chunk from `first` on, column by column.
    columns: Vec<f32>,
    first: usize,
    /// Frames of the chunk that were encoded.
    n_frames: usize,
    /// Chunks that were finished.
    n_chunks: usize,
}

impl<D: Device> Audio<D> {
    /// The beginning of a clip.
    ///
    /// # Errors
    /// [`LlamaError::Op`] if the size of its state overflows.
    pub fn stream(&self, dev: &D) -> Result<AudioStream<D>, LlamaError> {
        let cache = self.encoder.stream_cache(dev)?;
        Ok(AudioStream { cache, columns: Vec::new(), first: 0, n_frames: 0, n_chunks: 0 })
    }
}

impl<D: Device> AudioStream<D> {
    /// Columns that came so far.
    pub fn n_columns(&self, audio: &Audio<D>) -> usize {
        self.n_chunks * audio.encoder.chunk_columns() + self.in_chunk(audio)
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
            self.encode_blocks(dev, audio, &mut rows, probe)?;
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
        let mut rest = rest.to_vec();
        rest.resize(n_wanted.saturating_sub(n_before) * n_mels, 0.0);
        let mut rows = self.push(dev, audio, &rest, probe)?;
        if self.n_chunks * chunk == last_chunk && self.n_frames < n_kept {
            self.encode(dev, audio, n_kept, &mut rows, probe)?;
        }
        Ok(rows)
    }

    /// Columns of the current chunk that came so far.
    fn in_chunk(&self, audio: &Audio<D>) -> usize {
        self.first + self.columns.len() / audio.encoder.n_mels()
    }

    /// Encodes every block whose columns are there; at a chunk's end the next one begins.
    fn encode_blocks(
        &mut self,
        dev: &D,
        audio: &Audio<D>,
        rows: &mut Option<D::Tensor>,
        probe: &mut impl Probe<D>,
    ) -> Result<(), LlamaError> {
        let (n_frames, chunk) = (audio.encoder.n_frames(), audio.encoder.chunk_columns());
        while self.n_frames < n_frames {
            let end = self.n_frames + audio.encoder.block();
            // The last frame reads one column more, which the chunk's last frame does not have.
            if self.in_chunk(audio) < chunk.min(2 * end + 1) {
                return Ok(());
            }
            self.encode(dev, audio, end, rows, probe)?;
        }
        *self = Self { n_chunks: self.n_chunks + 1, ..audio.stream(dev)? };
        Ok(())
    }

    /// Encodes the chunk's frames up to `end` and appends their rows.
    fn encode(
        &mut self,
        dev: &D,
        audio: &Audio<D>,
        end: usize,
        rows: &mut Option<D::Tensor>,
        probe: &mut impl Probe<D>,
    ) -> Result<(), LlamaError> {
        let columns = Columns { first: self.first, values: &self.columns };
        let frames = audio.encoder.encode(dev, &mut self.cache, &columns, self.n_frames..end, probe)?;
        let new = audio.projector.forward(dev, frames)?;
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
