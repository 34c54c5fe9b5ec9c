//! Which rows are computed next, and who holds which page: a value without clock, thread, tensor or channel.
//!
//! [`plan`](Scheduler::plan) says what the next step computes, [`apply`](Scheduler::apply) what came of it. A sequence
//! whose computed positions are behind its known ones gets rows; prompts, recomputing after preemption and decoding are
//! that same thing. Age decides: the oldest sequence that can go on gets a row in every step, whatever younger ones
//! have to give up for it, so everybody is the oldest some day.
//!
//! Pages are counted by holders. A page that somebody else holds too is never written: its positions are computed again
//! in a page of one's own, which gives the same bits and needs no copying.

mod apply;
mod draft;
mod plan;
mod prefix;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use llama::PageRun;
use tensor::PAGE_LEN;

use crate::pages::{PageTable, Pool};
use crate::service::{Failure, Owner};
use draft::Drafter;
use prefix::{NodeId, PrefixCache};

/// A job. Lower ones are older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// One answer of a job. Lower ones are older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId {
    /// Whose.
    pub job: JobId,
    /// Which answer.
    pub sample: u32,
}

/// What stands at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// A token.
    Token(u32),
    /// A row of an encoded image.
    Media {
        /// Of the image's pixels and shape.
        hash: u64,
        /// Which row.
        row: u32,
    },
}

/// What there is and how much of it a step may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Pages of layers that see everything.
    pub n_global: u32,
    /// Pages of layers that see one chunk.
    pub n_chunked: u32,
    /// Their chunk, if there are any.
    pub chunk: Option<NonZeroUsize>,
    /// Sequences that are computed at the same time.
    pub n_running: usize,
    /// Rows of prompts in one step, all prompts together; sequences that answer get theirs beside them.
    pub prompt_rows: usize,
    /// Rows that are guesses or answers, as long as there are guesses: with as many answers nobody guesses. 0 switches
    /// guessing off.
    pub draft_rows: usize,
    /// Whether computed prompts are kept for those that begin alike.
    pub prefixes: Prefixes,
    /// How long a job may wait for its first step.
    pub longest_wait: Duration,
    /// How long a job may be blocked without progress.
    pub longest_block: Duration,
}

/// What becomes of computed beginnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefixes {
    /// Kept as long as nobody needs the pages.
    Kept,
    /// Given back.
    Dropped,
}

/// What the scheduler has to know of a job.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt; not empty.
    pub prompt: Vec<Mark>,
    /// Whose kept prefixes it may use.
    pub owner: Owner,
    /// Answers; one at least.
    pub n_samples: u32,
    /// Tokens of each answer at most.
    pub max_tokens: usize,
    /// Whether something is wanted from every row of the prompt, so that none may come from the prefix cache.
    pub wants_every_row: bool,
    /// Whether it may begin; see [`Scheduler::ready`].
    pub is_ready: bool,
    /// From submission to its end.
    pub deadline: Duration,
}

#[derive(Debug)]
struct Job {
    prompt: Arc<[Mark]>,
    request: Request,
    submitted: Duration,
    has_started: bool,
    has_forked: bool,
    blocked_since: Option<Duration>,
}

#[derive(Debug, Default)]
struct Sequence {
    /// Tokens after the prompt.
    tail: Vec<u32>,
    is_running: bool,
    n_computed: usize,
    global: PageTable,
    chunked: PageTable,
    /// The last of its pages that the prefix cache knows, and how many it knows.
    entered: (Option<NodeId>, usize),
    drafter: Drafter,
}

/// What the next step computes.
#[derive(Debug, Default)]
pub struct Step {
    /// Rows, by sequence.
    pub pieces: Vec<Piece>,
    /// Sequences that begin or begin again, with as many positions that are computed already.
    pub started: Vec<(SequenceId, usize)>,
    /// Sequences that gave their pages back and wait.
    pub preempted: Vec<SequenceId>,
    /// Jobs that are over without a result; the scheduler has forgotten them.
    pub ended: Vec<(JobId, Failure)>,
}

/// Rows of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whose.
    pub sequence: SequenceId,
    /// First position.
    pub begin: usize,
    /// One past the last known position that is computed.
    pub end: usize,
    /// Whether that is the last known position, so that the next token can be chosen.
    pub is_last: bool,
    /// Tokens to compute as if they stood at `end` and after it.
    pub draft: Vec<u32>,
}

/// What came of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Its rows are computed and nothing was chosen.
    Computed,
    /// These tokens follow: of the draft as many as were right, then one more.
    Chosen(Vec<u32>),
    /// The prompt is computed and each answer begins with this token; an answer without one is over already.
    Forked(Vec<Option<u32>>),
    /// The answer is over after these tokens, which are as in [`Chosen`](Self::Chosen) or none.
    Ended(Vec<u32>),
    /// The rows' numbers broke. The whole job is over and nothing of it is kept.
    Broken,
}

/// How much there is of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Sequences that wait.
    pub n_waiting: usize,
    /// Sequences that run.
    pub n_running: usize,
    /// Pages of layers that see everything: held by sequences, kept by the prefix cache alone, all.
    pub global: [usize; 3],
    /// The same of the layers that see a chunk.
    pub chunked: [usize; 3],
}

/// The state of all jobs, sequences and pages.
#[derive(Debug)]
pub struct Scheduler {
    capacity: Capacity,
    global: Pool,
    chunked: Pool,
    prefixes: PrefixCache,
    jobs: BTreeMap<JobId, Job>,
    sequences: BTreeMap<SequenceId, Sequence>,
    next_job: u64,
}

impl Sequence {
    fn len(&self, job: &Job) -> usize {
        job.prompt.len() + self.tail.len()
    }
}

impl Job {
    fn can_run(&self) -> bool {
        self.request.is_ready && self.blocked_since.is_none()
    }

    /// Sequences that it will have in the end.
    fn n_slots(&self) -> usize {
        if self.has_forked { 1 } else { self.request.n_samples as usize }
    }

    /// What stands at `position` of the answer `tail`.
    fn mark(&self, tail: &[u32], position: usize) -> Option<Mark> {
        match position.checked_sub(self.prompt.len()) {
            None => self.prompt.get(position).copied(),
            Some(at) => tail.get(at).map(|id| Mark::Token(*id)),
        }
    }
}

impl Scheduler {
    /// Positions that the prefix cache keeps of a sequence of which `n_computed` are computed.
    pub fn n_kept(&self, n_computed: usize) -> usize {
        match self.capacity.prefixes {
            Prefixes::Kept => n_computed / PAGE_LEN * PAGE_LEN,
            Prefixes::Dropped => 0,
        }
    }

    /// An empty one.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            global: Pool::new(capacity.n_global),
            chunked: Pool::new(capacity.n_chunked),
            capacity,
            prefixes: PrefixCache::default(),
            jobs: BTreeMap::new(),
            sequences: BTreeMap::new(),
            next_job: 0,
        }
    }

    /// Positions that one sequence can have when nobody else runs.
    pub fn longest(&self) -> usize {
        let n_global = self.global.n_pages() * PAGE_LEN;
        match self.capacity.chunk {
            // A chunk that begins anywhere in a page.
            Some(chunk) if self.chunked.n_pages() < (chunk.get() + PAGE_LEN - 1).div_ceil(PAGE_LEN) => {
                n_global.min(self.chunked.n_pages() * PAGE_LEN)
            }
            _ => n_global,
        }
    }

    /// Takes a job up; it waits. Prompt and answer must be no longer than [`longest`](Self::longest).
    pub fn submit(&mut self, request: Request, now: Duration) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        let prompt = request.prompt.as_slice().into();
        let request = Request { prompt: Vec::new(), n_samples: request.n_samples.max(1), ..request };
        let job = Job { prompt, request, submitted: now, has_started: false, has_forked: false, blocked_since: None };
        self.jobs.insert(id, job);
        self.sequences.insert(SequenceId { job: id, sample: 0 }, Sequence::default());
        id
    }

    /// The job may begin.
    pub fn ready(&mut self, job: JobId) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.request.is_ready = true;
        }
    }

    /// The job gets no rows until [`unblock`](Self::unblock): nobody takes what it gives. Called again it starts the
    /// time of its longest block again.
    pub fn block(&mut self, job: JobId, now: Duration) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.blocked_since = Some(now);
        }
    }

    /// The job goes on.
    pub fn unblock(&mut self, job: JobId) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.blocked_since = None;
        }
    }

    /// Forgets a job and gives its pages back. Whether it was there.
    pub fn cancel(&mut self, job: JobId) -> bool {
        let (first, last) = (SequenceId { job, sample: 0 }, SequenceId { job, sample: u32::MAX });
        let ids: Vec<SequenceId> = self.sequences.range(first..=last).map(|(id, _)| *id).collect();
        for id in ids {
            self.give_back(id);
            self.sequences.remove(&id);
        }
        self.jobs.remove(&job).is_some()
    }

    /// Whether a job has been in a step.
    pub fn has_started(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|job| job.has_started)
    }

    /// Whether there is nothing to do and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The pages of a sequence: of layers that see everything and of those that see a chunk.
    pub fn pages(&self, sequence: SequenceId) -> (PageRun<'_>, PageRun<'_>) {
        self.sequences.get(&sequence).map(|s| (s.global.run(), s.chunked.run())).unwrap_or_default()
    }

    /// Counts.
    pub fn census(&self) -> Census {
        let n_running = self.sequences.values().filter(|sequence| sequence.is_running).count();
        let pages = |pool: &Pool| {
            let n_held = pool.n_pages() - pool.n_free() - pool.n_kept_alone();
            [n_held, pool.n_kept_alone(), pool.n_pages()]
        };
        let n_waiting = self.sequences.len() - n_running;
        Census { n_waiting, n_running, global: pages(&self.global), chunked: pages(&self.chunked) }
    }

    /// Counts every page's holders again.
    ///
    /// # Errors
    /// What does not agree.
    pub fn audit(&self) -> Result<(), String> {
        let (kept_global, kept_chunked) = self.prefixes.pages();
        let held = |of: fn(&Sequence) -> &PageTable, kept: &[u32]| {
            let mut held: Vec<u32> = self.sequences.values().flat_map(|s| of(s).pages().iter().copied()).collect();
            held.extend(kept);
            held
        };
        self.global.audit(&held(|s| &s.global, &kept_global), &kept_global)?;
        self.chunked.audit(&held(|s| &s.chunked, &kept_chunked), &kept_chunked)?;
        let is_idle = |s: &&Sequence| !s.is_running && (s.global.end() > 0 || !s.chunked.pages().is_empty());
        match self.sequences.values().find(is_idle) {
            Some(sequence) => Err(format!("a sequence that waits holds pages: {sequence:?}")),
            None => Ok(()),
        }
    }

    /// Gives all pages of a sequence back, which then waits.
    fn give_back(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        sequence.global.truncate(&mut self.global, 0);
        sequence.chunked.truncate(&mut self.chunked, 0);
        sequence.is_running = false;
        sequence.n_computed = 0;
        self.prefixes.touch(std::mem::take(&mut sequence.entered).0);
    }
}
