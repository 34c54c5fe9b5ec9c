//! What a service is made of and how much it may take.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use llama::Model;
use tensor::{Device, KvFormat};
use tokenizer::{AudioIds, ImageIds, Tokenizer};

use super::Admission;
use crate::fault;
use crate::prompt::Layout;
use crate::scheduler::Prefixes;

/// A loaded model.
pub struct Parts<D: Device> {
    /// The device that it was loaded onto.
    pub dev: D,
    /// The model.
    pub model: Model<D>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The tokens around images, if it takes images.
    pub image_ids: Option<ImageIds>,
    /// The tokens around and in place of clips, if it takes audio.
    pub audio_ids: Option<AudioIds>,
}

impl<D: Device> Parts<D> {
    /// How images and clips lie in prompts.
    pub fn layout(&self) -> Layout {
        Layout {
            image: self.image_ids.zip(self.model.vision.as_ref().map(llama::Vision::tokens_per_tile)),
            audio: self.audio_ids.filter(|_| self.model.audio.is_some()),
        }
    }
}

/// How much a service may take.
#[derive(Clone)]
pub struct Options {
    /// Positions of one sequence at most.
    pub context: usize,
    /// How keys and values are stored.
    pub kv: KvFormat,
    /// Sequences of `context` positions that there are pages for.
    pub parallel: usize,
    /// Sequences that are computed at the same time at most; more than `parallel` if they are short.
    pub running: usize,
    /// Rows of prompts in one step.
    pub prompt_rows: usize,
    /// Rows of answers and guesses in one step, as long as there are guesses; 0 for no guesses.
    pub draft_rows: usize,
    /// Whether computed prompts are kept for those that begin alike.
    pub prefixes: Prefixes,
    /// Bytes of encoded images and clips that are kept.
    pub media_bytes: usize,
    /// How much is admitted.
    pub admission: Admission,
    /// How long a job may wait for its first step.
    pub longest_wait: Duration,
    /// How long a receiver may take nothing.
    pub longest_block: Duration,
    /// How long jobs may go on after [`Handle::drain`](super::Handle::drain).
    pub drain: Duration,
    /// What happens at the points where tests let something go wrong; in release builds nothing does.
    pub faults: Option<fault::Hook>,
}

impl Options {
    /// The defaults for `parallel` sequences of `context` positions.
    pub fn new(context: usize, kv: KvFormat, parallel: usize) -> Self {
        let parallel = parallel.max(1);
        let running = parallel.max(32);
        Self {
            context,
            kv,
            parallel,
            running,
            prompt_rows: crate::STEP_ROWS,
            draft_rows: 8,
            prefixes: Prefixes::Kept,
            media_bytes: 256 << 20,
            admission: Admission {
                jobs: 64 + running,
                positions: context.saturating_mul(parallel).saturating_mul(4),
                jobs_per_key: 16,
                channel_events: 64,
            },
            longest_wait: Duration::from_secs(60),
            longest_block: Duration::from_secs(30),
            drain: Duration::from_secs(30),
            faults: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("context", &self.context)
            .field("kv", &self.kv)
            .field("parallel", &self.parallel)
            .field("running", &self.running)
            .field("prompt_rows", &self.prompt_rows)
            .field("draft_rows", &self.draft_rows)
            .field("prefixes", &self.prefixes)
            .field("admission", &self.admission)
            .finish_non_exhaustive()
    }
}
