//! A service over a toy that can be spoken to.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cpu::{Cpu, CpuOptions};
use engine::sampling::SamplingParams;
use engine::service::{Event, Events, Handle, Job, Options, Owner, Parts, Stop, Stopped, Task, Usage, spawn};
use formats::NewTensor;
use tensor::KvFormat;
use tokenizer::{Piece, SpecialTokens, Tokenizer};

use crate::{Toy, speaking};

/// Positions of a sequence.
pub const CONTEXT: usize = 256;

/// A running service.
pub struct Served {
    /// The way to it.
    pub handle: Handle,
    /// Its thread.
    pub thread: JoinHandle<Result<(), Stopped>>,
}

/// The folder of a toy that can be spoken to, written once a process.
///
/// # Errors
/// If it can not be written.
pub fn folder() -> Result<PathBuf> {
    static FOLDER: std::sync::OnceLock<Option<tempfile::TempDir>> = std::sync::OnceLock::new();
    let written = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().ok()?;
        speaking::write(folder.path()).ok()?;
        Some(folder)
    });
    Ok(written.as_ref().context("a toy that can be spoken to")?.path().to_owned())
}

/// Writes the toy into `folder` with an embedding of token `id` that is not a number.
///
/// # Errors
/// If a file can not be read or written.
pub fn write_broken(to: &Path, id: usize) -> Result<()> {
    const TABLE: &str = "language_model.model.embed_tokens.weight";
    let from = folder()?;
    for entry in std::fs::read_dir(&from)? {
        let path = entry?.path();
        std::fs::copy(&path, to.join(path.file_name().context("a file")?))?;
    }
    let file = from.join("model.safetensors");
    let tensors = formats::safetensors::parse(&file, &formats::map_file(&file)?)?;
    let table = tensors.iter().find(|tensor| tensor.name == TABLE).context("the embeddings")?;
    let mut bytes = table.bytes.to_vec();
    bytes[4 * id * table.shape[1]..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let shapes: Vec<Vec<usize>> = tensors.iter().map(|tensor| tensor.shape.to_vec()).collect();
    let stored: Vec<NewTensor<'_>> = tensors
        .iter()
        .zip(&shapes)
        .map(|(tensor, shape)| {
            let bytes = if tensor.name == TABLE { bytes.as_slice() } else { &tensor.bytes[..] };
            NewTensor { name: &tensor.name, dtype: tensor.dtype, shape, bytes }
        })
        .collect();
    formats::safetensors::write(&to.join("model.safetensors"), &stored)?;
    Ok(())
}

/// The toy's tokenizer.
///
/// # Errors
/// If it can not be read.
pub fn tokenizer() -> Result<Tokenizer> {
    let ranks = std::fs::read(folder()?.join("tokenizer.model"))?;
    Ok(Tokenizer::from_ranks("tokenizer.model", &ranks, SpecialTokens::llama4())?)
}

/// The toy on a device of `n_threads`.
///
/// # Errors
/// If it does not load.
pub fn parts(n_threads: usize) -> Result<Parts<Cpu>> {
    let options = CpuOptions { threads: NonZeroUsize::new(n_threads), ..Default::default() };
    let Toy { dev, model, .. } = Toy::load(Cpu::new(options), &folder()?)?;
    let tokenizer = tokenizer()?;
    let image_ids = tokenizer::ImageIds::of(&tokenizer);
    Ok(Parts { dev, model, tokenizer: Arc::new(tokenizer), image_ids, audio_ids: None })
}

/// Options for `parallel` sequences of [`CONTEXT`], admitting whatever comes.
pub fn options(parallel: usize) -> Options {
    let mut options = Options::new(CONTEXT, KvFormat::Q8, parallel);
    options.admission.jobs = usize::MAX;
    options.admission.positions = usize::MAX;
    options.admission.jobs_per_key = usize::MAX;
    options
}

impl Served {
    /// Starts it.
    ///
    /// # Errors
    /// If the toy does not load.
    pub fn start(n_threads: usize, options: Options) -> Result<Self> {
        let (handle, thread) = spawn(parts(n_threads)?, options)?;
        Ok(Self { handle, thread })
    }

    /// Waits until the engine's thread has written down something that `is_so`.
    ///
    /// # Errors
    /// If that takes a minute.
    pub fn until(&self, is_so: impl Fn(&engine::service::Stats) -> bool) -> Result<()> {
        for _ in 0..60_000 {
            if is_so(&self.handle.stats().0) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("still not so: {:?}", self.handle.stats().0)
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it ended by itself.
    pub fn end(self) -> Result<()> {
        drop(self.handle);
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(_) => bail!("the engine's thread panicked"),
        }
    }
}

/// A prompt of `n` ids that depends on `seed`.
pub fn prompt(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7 + seed * 13 + i * i * (seed + 1)) % 120 + 3) as u32).collect()
}

/// A job that continues `ids` by `max_tokens` at temperature 0.
pub fn job(ids: Vec<u32>, max_tokens: usize) -> Job {
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let stop = Stop { max_tokens, ..Stop::default() };
    let task = Task::Generate { n_samples: 1, sampling, constraint: None, stop, logprobs: Some(3), thinking: None };
    Job {
        pieces: vec![Piece::Ids(ids)],
        media: Vec::new(),
        task,
        prompt_logprobs: None,
        owner: Owner { key: 0, salt: 0 },
        deadline: Duration::from_secs(600),
    }
}

/// Ids and the bits of their log-probabilities.
pub type Tokens = Vec<(u32, u32)>;

/// What came of a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Answer by answer.
    pub answers: Vec<Tokens>,
    /// The text of each.
    pub texts: Vec<String>,
    /// The event that said how the job ended.
    pub last: Vec<Event>,
    /// Other events.
    pub others: Vec<Event>,
}

impl Outcome {
    /// Receives all events.
    pub fn of(mut events: Events) -> Self {
        let mut outcome = Self::default();
        while let Some(event) = events.wait() {
            outcome.add(event);
        }
        outcome
    }

    /// Takes one event in.
    pub fn add(&mut self, event: Event) {
        let at = |this: &mut Self, sample: u32| {
            let i = sample as usize;
            this.answers.resize(this.answers.len().max(i + 1), Vec::new());
            this.texts.resize(this.texts.len().max(i + 1), String::new());
            i
        };
        match event {
            Event::Token { sample, token } => {
                let i = at(self, sample);
                self.answers[i].push((token.id, token.logprob.to_bits()));
                self.texts[i].push_str(&token.text);
            }
            Event::SampleFinished { sample, ref tail, .. } => {
                let i = at(self, sample);
                self.texts[i].push_str(tail);
                self.others.push(event);
            }
            Event::Finished(_) | Event::Failed(_) => self.last.push(event),
            other => self.others.push(other),
        }
    }

    /// What it took.
    ///
    /// # Errors
    /// If it did not end well.
    pub fn usage(&self) -> Result<Usage> {
        match self.last.as_slice() {
            [Event::Finished(usage)] => Ok(*usage),
            other => bail!("the job ended with {other:?}"),
        }
    }
}
