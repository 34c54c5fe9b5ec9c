//! The side of the service that others hold.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use tokenizer::Piece;
use tokio::sync::mpsc;

use super::job::{Event, Job, Owner, Task};
use crate::media::Media;
use crate::prompt::Layout;

/// What is known of the model that jobs need to know.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// Positions that one sequence may have.
    pub context: usize,
    /// Positions that the pages hold together.
    pub capacity: usize,
    /// Tokens of the vocabulary.
    pub n_vocab: usize,
    /// Length of an embedding.
    pub width: usize,
    /// How images and clips lie in prompts, as far as the model takes them.
    pub layout: Layout,
}

/// How much may be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Jobs that wait or run.
    pub jobs: usize,
    /// Positions that these may come to need in all.
    pub positions: usize,
    /// Jobs of one key.
    pub jobs_per_key: usize,
    /// Events that a job's channel holds before its sequence pauses.
    pub channel_events: usize,
}

/// Counters of the service, as of the last step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// Steps so far.
    pub n_steps: u64,
    /// Jobs that have not begun.
    pub n_waiting: usize,
    /// Sequences that are being computed.
    pub n_running: usize,
    /// Jobs that ended well, were cancelled by their receivers, and failed.
    pub n_ended: [u64; 3],
    /// Sequences that had to give their pages back and begin again.
    pub n_preempted: u64,
    /// Prompt positions computed, prompt positions found in the prefix cache, tokens chosen.
    pub n_positions: [u64; 3],
    /// Pages in use by sequences, pages kept by the prefix cache alone, all pages; of layers that see everything.
    pub n_pages: [usize; 3],
    /// Frames of clips that the audio encoder computed; of rows that were kept there are none.
    pub n_frames: u64,
    /// Panics caught.
    pub n_panics: u64,
}

/// Why a job was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too much waits or runs.
    #[error("the server is busy: {waiting} requests are waiting or running")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// The key has as many jobs as it may.
    #[error("this key has {limit} requests waiting or running already")]
    KeyBusy {
        /// As many.
        limit: usize,
    },
    /// Prompt and answer do not fit into the context.
    #[error("the prompt has {prompt} tokens and the answer may have {answer}; the context holds {context}")]
    TooLong {
        /// Positions of the prompt.
        prompt: usize,
        /// Tokens of the answer.
        answer: usize,
        /// Positions of the context.
        context: usize,
    },
    /// The service takes nothing more.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// A way to the engine's thread. Clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    jobs: mpsc::UnboundedSender<Submitted>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    about: About,
    admission: Admission,
    is_draining: AtomicBool,
    is_stopped: AtomicBool,
    /// The engine's thread, to be woken up for what does not come as a job.
    thread: OnceLock<Thread>,
    n_jobs: AtomicUsize,
    n_positions: AtomicUsize,
    n_jobs_by_key: Mutex<BTreeMap<u64, usize>>,
    stats: Mutex<(Stats, Instant)>,
}

/// A job on its way to the engine's thread.
#[derive(Debug)]
pub struct Submitted {
    /// The job.
    pub job: Job,
    /// Where its events go.
    pub events: mpsc::Sender<Event>,
    /// When it was submitted.
    pub at: Instant,
    /// Gives the job's place back when it is dropped, which must be after the final event.
    pub place: Place,
}

/// A job's place among those admitted.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    owner: Owner,
    n_positions: usize,
}

/// The events of one job. Dropping it cancels the job.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
}

impl Handle {
    /// A handle, and the end that the engine's thread receives jobs at.
    pub fn new(about: About, admission: Admission) -> (Self, mpsc::UnboundedReceiver<Submitted>) {
        let (jobs, receiver) = mpsc::unbounded_channel();
        let shared = Shared {
            about,
            admission,
            is_draining: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            thread: OnceLock::new(),
            n_jobs: AtomicUsize::new(0),
            n_positions: AtomicUsize::new(0),
            n_jobs_by_key: Mutex::default(),
            stats: Mutex::new((Stats::default(), Instant::now())),
        };
        (Self { jobs, shared: Arc::new(shared) }, receiver)
    }

    /// What is known of the model.
    pub fn about(&self) -> &About {
        &self.shared.about
    }

    /// Positions that a prompt of `pieces` with `media` comes to.
    pub fn n_positions(&self, pieces: &[Piece], media: &[Media]) -> usize {
        self.shared.about.layout.n_positions(pieces, media)
    }

    /// Jobs that wait or run.
    pub fn n_jobs(&self) -> usize {
        self.shared.n_jobs.load(Ordering::Acquire)
    }

    /// The counters, and when the engine's thread last moved.
    pub fn stats(&self) -> (Stats, Instant) {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the counters down. For the engine's thread.
    pub fn publish(&self, stats: Stats) {
        self.shared.publish(stats);
    }

    /// Refuses all further jobs and ends those that have not begun. Those that have may go on for
    /// [`Options::drain`](super::Options::drain); then the engine's thread ends.
    pub fn drain(&self) {
        self.shared.is_draining.store(true, Ordering::Release);
        self.shared.wake();
    }

    /// Refuses all further jobs and ends all others now; the engine's thread ends after the step that it is in.
    pub fn stop(&self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        self.drain();
    }

    /// Whether further jobs are refused.
    pub fn is_draining(&self) -> bool {
        self.shared.is_draining.load(Ordering::Acquire)
    }

    /// Hands `job` to the engine's thread.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was begun then.
    pub fn submit(&self, job: Job) -> Result<Events, SubmitError> {
        let place = self.admit(&job)?;
        // One more for the last event, which must never find the channel full.
        let (events, receiver) = mpsc::channel(self.shared.admission.channel_events.max(1) + 1);
        let submitted = Submitted { job, events, at: Instant::now(), place };
        self.jobs.send(submitted).map_err(|_| SubmitError::ShuttingDown)?;
        Ok(Events { receiver })
    }

    /// What the engine's thread holds of this: not a way to submit, so that it ends when all others are gone.
    pub(super) fn reporter(&self) -> Reporter {
        Reporter { shared: Arc::clone(&self.shared) }
    }

    /// From now on [`drain`](Self::drain) wakes `thread` up.
    pub(super) fn attach(&self, thread: Thread) {
        // Set once, by who started it.
        let _ = self.shared.thread.set(thread);
    }

    fn admit(&self, job: &Job) -> Result<Place, SubmitError> {
        let shared = &self.shared;
        if self.is_draining() {
            return Err(SubmitError::ShuttingDown);
        }
        let prompt = self.n_positions(&job.pieces, &job.media);
        let (answer, n_samples) = match &job.task {
            Task::Generate { stop, n_samples, .. } => (stop.max_tokens, *n_samples as usize),
            Task::Embed => (0, 1),
        };
        let context = shared.about.context.min(shared.about.capacity);
        if prompt.checked_add(answer).is_none_or(|all| all > context) {
            return Err(SubmitError::TooLong { prompt, answer, context });
        }
        let n_positions = prompt + answer * n_samples;
        let mut by_key = shared.n_jobs_by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = shared.n_jobs.load(Ordering::Acquire);
        let positions = shared.n_positions.load(Ordering::Acquire);
        // One job alone is always admitted, however many samples it has.
        if waiting >= shared.admission.jobs
            || (waiting > 0 && positions.saturating_add(n_positions) > shared.admission.positions)
        {
            return Err(SubmitError::Busy { waiting });
        }
        let of_key = by_key.entry(job.owner.key).or_default();
        if *of_key >= shared.admission.jobs_per_key {
            return Err(SubmitError::KeyBusy { limit: shared.admission.jobs_per_key });
        }
        *of_key += 1;
        shared.n_jobs.fetch_add(1, Ordering::AcqRel);
        shared.n_positions.fetch_add(n_positions, Ordering::AcqRel);
        Ok(Place { shared: Arc::clone(shared), owner: job.owner, n_positions })
    }
}

impl Shared {
    fn publish(&self, stats: Stats) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = (stats, Instant::now());
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// The engine's thread's side of what handles share.
#[derive(Debug)]
pub(super) struct Reporter {
    shared: Arc<Shared>,
}

impl Reporter {
    pub(super) fn publish(&self, stats: Stats) {
        self.shared.publish(stats);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.shared.is_draining.load(Ordering::Acquire)
    }

    /// No further job is admitted from now on.
    pub(super) fn refuse(&self) {
        self.shared.is_draining.store(true, Ordering::Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.shared.is_stopped.load(Ordering::Acquire)
    }

    pub(super) fn about(&self) -> &About {
        &self.shared.about
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_key = self.shared.n_jobs_by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = by_key.get_mut(&self.owner.key) {
            *n -= 1;
            if *n == 0 {
                by_key.remove(&self.owner.key);
            }
        }
        self.shared.n_jobs.fetch_sub(1, Ordering::AcqRel);
        self.shared.n_positions.fetch_sub(self.n_positions, Ordering::AcqRel);
    }
}

impl Events {
    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }

    /// The next event if it has come.
    pub fn try_next(&mut self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// The next event, on a thread that may wait.
    pub fn wait(&mut self) -> Option<Event> {
        self.receiver.blocking_recv()
    }
}
