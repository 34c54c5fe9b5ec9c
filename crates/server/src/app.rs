//! What all requests share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::media::TileConfig;
use engine::media::audio::ClipConfig;
use engine::sampling::SamplingParams;
use engine::service::Handle;
use engine::thinking::Reasoning;
use serde::de::DeserializeOwned;
use tokenizer::{ChatFormat, Tokenizer};
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedSemaphorePermit, watch};

use crate::background::Background;
use crate::clock::Clock;
use crate::constraint::Compilers;
use crate::error::Error;
use crate::fetch::Fetcher;
use crate::keys::{Caller, Keys};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::store::{Kind, Listed, PageOf, Store};

/// The model that is served, and what requests to it need.
#[derive(Debug)]
pub struct Model {
    /// Its name on the wire.
    pub id: String,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// Seconds since 1970 of its files.
    pub created: u64,
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// How it wants conversations; `None` if it was not trained for them.
    pub format: Option<ChatFormat>,
    /// Tokens that end an answer.
    pub end_tokens: Vec<u32>,
    /// What it knows of thinking; `None` if it was not trained to.
    pub reasoning: Option<Reasoning>,
    /// How images become tiles; `None` if it takes none.
    pub tiles: Option<TileConfig>,
    /// How clips of audio become features; `None` if it takes none.
    pub clips: Option<ClipConfig>,
    /// How tokens are chosen where a request does not say.
    pub sampling: SamplingParams,
    /// The engine's thread.
    pub handle: Handle,
}

/// How the server behaves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Who may ask.
    pub keys: Keys,
    /// All bounds.
    pub limits: Limits,
    /// Names of models that are not served: whether they are answered or refused.
    pub names: Names,
    /// Whether images are fetched from URLs that requests name.
    pub fetch: Fetch,
    /// Whether the chat page is served.
    pub page: Page,
    /// What thoughts are called in chats.
    pub reasoning_field: ReasoningField,
    /// The time of day.
    pub clock: Clock,
}

/// What the field is called in which chats show thoughts. Clients know one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReasoningField {
    /// `reasoning_content` and `reasoning`, with the same text.
    #[default]
    Both,
    /// `reasoning`
    Reasoning,
    /// `reasoning_content`
    ReasoningContent,
}

impl ReasoningField {
    /// A text as `reasoning_content` and as `reasoning`.
    pub fn named(self, text: String) -> (Option<String>, Option<String>) {
        match self {
            Self::Both => (Some(text.clone()), Some(text)),
            Self::Reasoning => (None, Some(text)),
            Self::ReasoningContent => (Some(text), None),
        }
    }
}

/// What happens to requests that name another model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// The served model answers; the answer names it.
    #[default]
    Any,
    /// 404.
    Own,
}

/// Whether images are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fetch {
    /// Only images inside of requests are taken.
    #[default]
    Never,
    /// From public addresses.
    Public,
}

/// Whether the chat page is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Page {
    /// At `/`.
    #[default]
    Shown,
    /// 404.
    Hidden,
}

/// What all requests share. Clones are the same.
#[derive(Debug, Clone)]
pub struct App {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    model: Model,
    options: Options,
    metrics: Metrics,
    pool: Pool,
    store: Store,
    pace: Pace,
    compilers: Compilers,
    fetcher: Option<Arc<Fetcher>>,
    /// Rung when there is something to do for whoever works off batches.
    batches: Notify,
    /// Held by whoever changes a batch.
    batch_changes: AsyncMutex<()>,
    background: Background,
    started: Instant,
    phase: watch::Sender<Phase>,
    progress: Mutex<Progress>,
}

/// Whether requests are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// They are.
    Serving,
    /// No further ones; those that have begun may go on.
    Draining,
    /// Whatever is left ends with an error now.
    Ending,
}

/// The engine's steps as last seen, and since when they are the same although something waits.
#[derive(Debug)]
struct Progress {
    n_steps: u64,
    since: Instant,
}

impl App {
    /// An app that serves `model`, with what is stored in `store`.
    pub fn new(model: Model, options: Options, store: Store) -> Self {
        let pool = Pool::new(&options.limits);
        let metrics = Metrics::new(&model.id);
        let pace = Pace::default();
        let n_vocab = model.handle.about().n_vocab;
        let compilers = Compilers::new(&model.tokenizer, n_vocab, &model.end_tokens, &options.limits);
        let (phase, _) = watch::channel(Phase::Serving);
        let started = Instant::now();
        let progress = Mutex::new(Progress { n_steps: 0, since: started });
        let fetcher = match options.fetch {
            Fetch::Never => None,
            Fetch::Public => Some(Arc::new(Fetcher::system(&options.limits))),
        };
        let (batches, batch_changes) = (Notify::new(), AsyncMutex::new(()));
        let inner = Inner {
            model,
            options,
            metrics,
            pool,
            store,
            pace,
            compilers,
            fetcher,
            batches,
            batch_changes,
            background: Background::default(),
            started,
            phase,
            progress,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes memory for an image or a clip that `what` needs, until the permit is dropped.
    ///
    /// # Errors
    /// [`Error::Busy`] if other requests hold it.
    pub fn media_memory(&self, size_bytes: usize, what: &str) -> Result<OwnedSemaphorePermit, Error> {
        self.pool().media(size_bytes).ok_or_else(|| Error::Busy {
            why: format!("{what} {size_bytes} bytes of memory, which other requests hold"),
            retry_after: self.pace().retry_after(),
        })
    }

    /// Seconds since 1970.
    pub fn now(&self) -> u64 {
        self.inner.options.clock.now()
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.inner.model
    }

    /// What thoughts are called in chats.
    pub fn reasoning_field(&self) -> ReasoningField {
        self.inner.options.reasoning_field
    }

    /// All bounds.
    pub fn limits(&self) -> &Limits {
        &self.inner.options.limits
    }

    /// How the server behaves.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Counters.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Threads for work that takes long.
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// What is kept between requests.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// A stored document; `None` if it is not there.
    ///
    /// # Errors
    /// [`Error::Internal`] if the store can not be read.
    pub async fn stored<T>(&self, kind: Kind, caller: Caller, id: String) -> Result<Option<T>, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let app = self.clone();
        Ok(self.pool().run(move || app.store().get(kind, caller, &id)).await??)
    }

    /// A page of stored documents; `None` if it is to begin after one that is not there.
    ///
    /// # Errors
    /// As [`stored`](Self::stored).
    pub async fn listed<T>(&self, kind: Kind, caller: Caller, page: PageOf) -> Result<Option<Listed<T>>, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let app = self.clone();
        Ok(self.pool().run(move || app.store().list(kind, caller, &page)).await??)
    }

    /// Takes a stored document away; says whether it was there.
    ///
    /// # Errors
    /// [`Error::Internal`] if the store can not be written.
    pub async fn unstore(&self, kind: Kind, caller: Caller, id: String) -> Result<bool, Error> {
        let app = self.clone();
        Ok(self.pool().run(move || app.store().delete(kind, caller, &id)).await??)
    }

    /// What fetches images; `None` if nothing may.
    pub fn fetcher(&self) -> Option<&Arc<Fetcher>> {
        self.inner.fetcher.as_ref()
    }

    /// What turns languages into constraints.
    pub fn compilers(&self) -> &Compilers {
        &self.inner.compilers
    }

    /// How fast requests end.
    pub fn pace(&self) -> &Pace {
        &self.inner.pace
    }

    /// Rung when there is something to do for whoever works off batches.
    pub fn batches(&self) -> &Notify {
        &self.inner.batches
    }

    /// Held by whoever changes a batch.
    pub fn batch_changes(&self) -> &AsyncMutex<()> {
        &self.inner.batch_changes
    }

    /// Responses that are made in the background.
    pub fn background(&self) -> &Background {
        &self.inner.background
    }

    /// Whether requests are taken.
    pub fn phase(&self) -> Phase {
        *self.inner.phase.borrow()
    }

    /// Changes whether requests are taken.
    pub fn set_phase(&self, phase: Phase) {
        self.inner.phase.send_replace(phase);
    }

    /// Tells of changes of the phase.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.inner.phase.subscribe()
    }

    /// For how long something has waited without a step, as far as this was asked regularly.
    pub fn progress(&self) -> Duration {
        let (stats, _) = self.model().handle.stats();
        let mut progress = self.inner.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if self.model().handle.n_jobs() == 0 || stats.n_steps != progress.n_steps {
            *progress = Progress { n_steps: stats.n_steps, since: Instant::now() };
        }
        progress.since.elapsed()
    }

    /// Since the app was made.
    pub fn uptime(&self) -> Duration {
        self.inner.started.elapsed()
    }
}

/// How fast requests end, which says when a place will be free, and how fast tokens come.
#[derive(Debug, Default)]
pub struct Pace {
    /// When the last request ended, and the mean time between two ends.
    state: Mutex<Option<(Instant, Duration)>>,
    /// When tokens were last counted, and how many there were then.
    tokens: Mutex<Option<(Instant, u64)>>,
}

impl Pace {
    /// A request has ended.
    pub fn ended(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        *state = Some(match *state {
            None => (now, Duration::from_secs(1)),
            // Of the last eight or so: a quiet night must not count for ever.
            Some((last, mean)) => (now, (mean * 7 + now.duration_since(last).min(Duration::from_secs(60))) / 8),
        });
    }

    /// Tokens a second since this was last asked, where `n_tokens` is the number so far.
    pub fn tokens_per_second(&self, n_tokens: u64) -> f64 {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let rate = match *tokens {
            Some((at, before)) => {
                n_tokens.saturating_sub(before) as f64 / now.duration_since(at).as_secs_f64().max(1e-3)
            }
            None => 0.0,
        };
        *tokens = Some((now, n_tokens));
        rate
    }

    /// When to try again: after two ends, at least a second, at most a minute.
    pub fn retry_after(&self) -> Duration {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mean = state.map_or(Duration::from_secs(1), |(_, mean)| mean);
        (mean * 2).clamp(Duration::from_secs(1), Duration::from_secs(60))
    }
}
