//! The engine as a service: jobs go down, events come back.
//!
//! One thread owns the model, pages and sequences: [`spawn`]. Everybody else holds a [`Handle`]:
//! [`submit`](Handle::submit) admits a [`Job`] or refuses it at once, and its [`Events`] tell what becomes of it.
//! Dropping them cancels the job.

mod answer;
mod compute;
mod handle;
mod intake;
mod job;
mod live;
mod options;
mod outlet;
mod rows;
mod towers;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use tensor::{Device, PAGE_LEN};

use crate::scheduler::{Capacity, Scheduler};
use crate::{CachePlan, EngineError};
use compute::Core;
use worker::Worker;

pub(crate) use answer::{Answer, Recipe};
pub use handle::{About, Admission, Events, Handle, Stats, SubmitError, Submitted};
pub use job::{Alternative, Channel, Event, Failure, Finish, Job, Owner, Stop, Task, Token, Usage};
pub use options::{Options, Parts};

/// Why the engine's thread ended before it was told to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the engine stopped: {why}")]
pub struct Stopped {
    /// What went wrong last.
    pub why: String,
}

/// Pages that a service with `options` takes.
///
/// # Errors
/// As [`CachePlan::for_sequences`].
pub fn cache_plan<D: Device>(model: &llama::Model<D>, options: &Options) -> Result<CachePlan, EngineError> {
    // Chunked layers keep what a sequence sees before a step and what the step adds, never less than a page.
    let rows = options.prompt_rows.max(PAGE_LEN);
    CachePlan::for_sequences(model, options.context, options.parallel.max(1), options.kv, rows)
}

/// Starts the engine's thread. It ends when all handles are gone or after [`Handle::drain`], in both cases when no job
/// is left; or with an error when it can not go on, which fails all jobs.
///
/// # Errors
/// [`EngineError`] if the pages can not be had; [`EngineError::Thread`] if the system refuses the thread.
pub fn spawn<D: Device + 'static>(
    parts: Parts<D>,
    options: Options,
) -> Result<(Handle, JoinHandle<Result<(), Stopped>>), EngineError> {
    let layout = parts.layout();
    let Parts { dev, model, tokenizer, .. } = parts;
    let plan = cache_plan(&model, &options)?;
    let cache = model.decoder.cache(&dev, plan.n_global as usize, plan.n_chunked as usize, options.kv)?;
    let scheduler = Scheduler::new(Capacity {
        n_global: plan.n_global,
        n_chunked: plan.n_chunked,
        chunk: model.decoder.chunk(),
        n_running: options.running.max(1),
        prompt_rows: options.prompt_rows.max(1),
        draft_rows: options.draft_rows,
        prefixes: options.prefixes,
        longest_wait: options.longest_wait,
        longest_block: options.longest_block,
    });
    let about = About {
        context: options.context,
        capacity: scheduler.longest(),
        n_vocab: model.decoder.vocab_size(),
        width: model.decoder.width(),
        layout,
    };
    let (handle, jobs) = Handle::new(about, options.admission);
    let reporter = handle.reporter();
    let core = Core { dev, model, cache };
    let run = move || {
        let worker = Worker::new(core, &tokenizer, options, scheduler, (jobs, reporter));
        worker.run()
    };
    // The worker catches what a step throws; anything else is a mistake in its own accounts.
    let guarded = move || {
        let result = catch_unwind(AssertUnwindSafe(run));
        result.unwrap_or_else(|_| Err(Stopped { why: "a panic outside of a step".into() }))
    };
    let thread = std::thread::Builder::new().name("engine".into()).spawn(guarded).map_err(EngineError::Thread)?;
    handle.attach(thread.thread().clone());
    Ok((handle, thread))
}
