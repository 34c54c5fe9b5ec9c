//! Steps: rows of sequences through the model.

use llama::{Batch, Cache, Input, Model, Probe, Row};
use tensor::{Device, KvFormat, PAGE_LEN};

use crate::EngineError;
use crate::pages::Pool;
use crate::sequence::{Content, Known, Sequence};

/// Rows of one step, unless [`Engine::with_step_rows`] says otherwise. Long prompts go through in pieces of this many
/// rows, which bounds the memory of a step.
pub const STEP_ROWS: usize = 256;

/// A model with room for keys and values.
pub struct Engine<D: Device> {
    dev: D,
    model: Model<D>,
    cache: Cache<D>,
    global: Pool,
    chunked: Pool,
    context: usize,
    kv: KvFormat,
    step_rows: usize,
}

/// Memory that an engine's keys and values take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePlan {
    /// Pages of layers that see everything.
    pub n_global: u32,
    /// Pages of layers that see one chunk.
    pub n_chunked: u32,
    /// Bytes of both.
    pub bytes: usize,
}

impl CachePlan {
    /// For sequences of `context` positions in all.
    ///
    /// # Errors
    /// [`EngineError::Prompt`] if that many pages can not be counted.
    pub fn new<D: Device>(model: &Model<D>, context: usize, kv: KvFormat) -> Result<Self, EngineError> {
        Self::for_sequences(model, context, 1, kv, STEP_ROWS)
    }

    /// For `n_sequences` of `context` positions each, at the same time, and steps of up to `step_rows` rows. Layers that
    /// see one chunk keep a chunk of each.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_sequences<D: Device>(
        model: &Model<D>,
        context: usize,
        n_sequences: usize,
        kv: KvFormat,
        step_rows: usize,
    ) -> Result<Self, EngineError> {
        let too_many = || EngineError::Prompt(format!("a context of {context} tokens is too long to plan for"));
        let pages = |n: usize| n.checked_mul(n_sequences).and_then(|n| u32::try_from(n).ok());
        let n_global = pages(context.div_ceil(PAGE_LEN)).ok_or_else(too_many)?;
        let n_chunked = match model.decoder.chunk() {
            // One chunk, the rows of a step that crosses its border, and two torn pages.
            Some(chunk) => {
                let positions = chunk.get().saturating_add(step_rows);
                pages(positions.div_ceil(PAGE_LEN) + 2).map_or(n_global, |n| n.min(n_global))
            }
            None => 0,
        };
        let (global, chunked) = model.decoder.page_bytes(kv);
        let bytes = (n_global as usize).checked_mul(global).zip((n_chunked as usize).checked_mul(chunked));
        let bytes = bytes.and_then(|(global, chunked)| global.checked_add(chunked)).ok_or_else(too_many)?;
        Ok(Self { n_global, n_chunked, bytes })
    }
}

impl<D: Device> Engine<D> {
    /// An engine for sequences of `context` positions in all, whose keys and values are stored as `kv`.
    ///
    /// # Errors
    /// [`EngineError::Model`] if the pages' size overflows.
    pub fn new(dev: D, model: Model<D>, context: usize, kv: KvFormat) -> Result<Self, EngineError> {
        Self::with_step_rows(dev, model, context, kv, STEP_ROWS)
    }

    /// As [`new`](Self::new), with prompts in pieces of `step_rows` rows, one at least. More rows take more memory, and
    /// less reading where experts stay in a file: a step reads each once.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_step_rows(
        dev: D,
        model: Model<D>,
        context: usize,
        kv: KvFormat,
        step_rows: usize,
    ) -> Result<Self, EngineError> {
        let step_rows = step_rows.max(1);
        let plan = CachePlan::for_sequences(&model, context, 1, kv, step_rows)?;
        let cache = model.decoder.cache(&dev, plan.n_global as usize, plan.n_chunked as usize, kv)?;
        let (global, chunked) = (Pool::new(plan.n_global), Pool::new(plan.n_chunked));
        Ok(Self { dev, model, cache, global, chunked, context, kv, step_rows })
    }

    /// Rows of a step of [`prefill`](Self::prefill).
    pub fn step_rows(&self) -> usize {
        self.step_rows
    }

    /// Positions that all sequences together may hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// How keys and values are stored.
    pub fn kv(&self) -> KvFormat {
        self.kv
    }

    /// Bytes of keys and values that a position takes in all layers together.
    pub fn position_bytes(&self) -> usize {
        let (global, chunked) = self.model.decoder.page_bytes(self.kv);
        (global + chunked) / PAGE_LEN
    }

    /// The model.
    pub fn model(&self) -> &Model<D> {
        &self.model
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.dev
    }

    /// Pages free in layers that see everything and in those that see a chunk.
    pub fn n_free_pages(&self) -> (usize, usize) {
        (self.global.n_free(), self.chunked.n_free())
    }

    /// Makes `sequence` hold `content`, keeping what was computed for the common beginning.
    ///
    /// # Errors
    /// [`EngineError::Empty`] or [`EngineError::TooLong`].
    pub fn set(&mut self, sequence: &mut Sequence<D::Tensor>, content: Content<D::Tensor>) -> Result<(), EngineError> {
        let got_tokens = content.known.len();
        if got_tokens == 0 {
            return Err(EngineError::Empty);
        }
        if got_tokens > self.context {
            return Err(EngineError::TooLong { limit_tokens: self.context, got_tokens });
        }
        let chunk = self.model.decoder.chunk().map(usize::from);
        sequence.replace(content, chunk, (&mut self.global, &mut self.chunked));
        Ok(())
    }

    /// Gives all pages of `sequence` back.
    pub fn release(&mut self, sequence: Sequence<D::Tensor>) {
        let Sequence { mut global, mut chunked, .. } = sequence;
        global.truncate(&mut self.global, 0);
        chunked.truncate(&mut self.chunked, 0);
    }

    /// Computes up to `n_rows` known positions of every sequence in one step. For each sequence, the logits after its
    /// last known position if the step reached it.
    ///
    /// # Errors
    /// [`EngineError::Full`] if no page is free, [`EngineError::Model`] if the model refuses a row. What was computed
    /// before stays.
    pub fn step(
        &mut self,
        sequences: &mut [&mut Sequence<D::Tensor>],
        n_rows: usize,
    ) -> Result<Vec<Option<Vec<f32>>>, EngineError> {
        self.step_seen(sequences, n_rows, &mut ())
    }

    /// [`step`](Self::step) with somebody who looks at the tensors.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_seen(
        &mut self,
        sequences: &mut [&mut Sequence<D::Tensor>],
        n_rows: usize,
        probe: &mut impl Probe<D>,
    ) -> Result<Vec<Option<Vec<f32>>>, EngineError> {
        let has_chunks = self.model.decoder.chunk().is_some();
        let mut ends = Vec::with_capacity(sequences.len());
        for sequence in sequences.iter_mut() {
            let end = sequence.len().min(sequence.n_computed + n_rows);
            sequence.global.grow(&mut self.global, end)?;
            if has_chunks {
                sequence.chunked.grow(&mut self.chunked, end)?;
            }
            ends.push(end);
        }
        let logits = self.compute(sequences, &ends, probe)?;
        let mut rows = logits.iter().flat_map(|x| (0..self.dev.shape(x)[0]).map(|row| self.dev.download_row(x, row)));
        let mut results = Vec::with_capacity(sequences.len());
        for (sequence, end) in sequences.iter_mut().zip(ends) {
            let is_last = end == sequence.len() && end > sequence.n_computed;
            results.push(if is_last { rows.next() } else { None });
            sequence.n_computed = end;
            if let Some(chunk) = self.model.decoder.chunk() {
                // The next row sees its chunk only.
                sequence.chunked.retire_before(&mut self.chunked, end - end % chunk);
            }
        }
        Ok(results)
    }

    fn compute(
        &mut self,
        sequences: &[&mut Sequence<D::Tensor>],
        ends: &[usize],
        probe: &mut impl Probe<D>,
    ) -> Result<Option<D::Tensor>, EngineError> {
        let mut rows = Vec::new();
        let mut features = Vec::new();
        for (sequence, &end) in sequences.iter().zip(ends) {
            let first_feature = features.len();
            features.extend(sequence.content.media.iter().map(|media| &media.features));
            for position in sequence.n_computed..end {
                rows.push(Row {
                    input: match sequence.content.known[position] {
                        Known::Token(id) => Input::Token(id),
                        Known::Media { media, row } => Input::Feature { features: first_feature + media, row },
                    },
                    position,
                    global: sequence.global.run(),
                    chunked: sequence.chunked.run(),
                    wants_logits: position + 1 == sequence.len(),
                });
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let batch = Batch { rows: &rows, features: &features };
        Ok(self.model.decoder.forward(&self.dev, &mut self.cache, &batch, probe)?)
    }

    /// Computes what is left of `sequence` and returns the logits after it.
    ///
    /// # Errors
    /// As [`step`](Self::step); [`EngineError::Empty`] if nothing is left.
    pub fn prefill(
        &mut self,
        sequence: &mut Sequence<D::Tensor>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<f32>, EngineError> {
        while sequence.n_computed < sequence.len() {
            let logits = self.step(&mut [&mut *sequence], self.step_rows)?.pop().flatten();
            progress(sequence.n_computed, sequence.len());
            if let Some(logits) = logits {
                return Ok(logits);
            }
        }
        Err(EngineError::Empty)
    }
}
