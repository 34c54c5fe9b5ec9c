//! The jobs of one request: submitted as places come free, their events in one stream.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use engine::service::{Channel, Event, Events, Failure, Job, SubmitError, Usage};
use futures_util::future::select_all;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::app::{App, Phase};
use crate::error::Error;
use crate::prompt::Prompt;

/// The jobs of one request. Dropping it cancels them.
#[derive(Debug)]
pub struct Work {
    app: App,
    waiting: VecDeque<(usize, Job)>,
    running: Vec<Running>,
    phases: watch::Receiver<Phase>,
    /// Whose turn it is to be looked at first.
    turn: usize,
    /// Whether thoughts are left out of events.
    hides_thoughts: bool,
    /// Memory of images, until all is done.
    memory: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct Running {
    job: usize,
    events: Events,
    submitted: Instant,
    is_started: bool,
    has_token: bool,
}

/// What came next.
#[derive(Debug)]
pub enum Next {
    /// An event of the job of this number.
    Event(usize, Event),
    /// Nothing for as long as was waited.
    Quiet,
    /// All jobs have ended.
    Done,
}

impl Work {
    /// Submits the job of answering `prompt`, and holds the memory of its images.
    ///
    /// # Errors
    /// What refuses it.
    pub fn answer(app: &App, job: Job, prompt: Prompt) -> Result<Self, Error> {
        let mut work = Self::begin(app, vec![job])?;
        work.memory = prompt.memory;
        work.hides_thoughts = prompt.thoughts.is_some_and(|thoughts| thoughts.are_hidden);
        Ok(work)
    }

    /// Submits as many of `jobs` as are admitted now; the others follow when places come free.
    ///
    /// # Errors
    /// What refuses the first of them.
    pub fn begin(app: &App, jobs: Vec<Job>) -> Result<Self, Error> {
        let waiting = jobs.into_iter().enumerate().collect();
        let phases = app.phases();
        let (app, running) = (app.clone(), Vec::new());
        let mut work = Self { app, waiting, running, phases, turn: 0, hides_thoughts: false, memory: None };
        work.submit()?;
        Ok(work)
    }

    fn submit(&mut self) -> Result<(), Error> {
        let handle = &self.app.model().handle;
        while let Some((number, job)) = self.waiting.pop_front() {
            match handle.submit(job.clone()) {
                Ok(events) => self.running.push(Running {
                    job: number,
                    events,
                    submitted: Instant::now(),
                    is_started: false,
                    has_token: false,
                }),
                Err(SubmitError::Busy { .. } | SubmitError::KeyBusy { .. }) if !self.running.is_empty() => {
                    self.waiting.push_front((number, job));
                    break;
                }
                Err(error) => {
                    let error = Error::from(error);
                    return Err(match error {
                        Error::Busy { why, .. } => Error::Busy { why, retry_after: self.app.pace().retry_after() },
                        error => error,
                    });
                }
            }
        }
        Ok(())
    }

    /// The next event of any job, or [`Next::Quiet`] after `wait`.
    ///
    /// # Errors
    /// Whatever ends the request; all jobs are cancelled then.
    pub async fn next(&mut self, wait: Duration) -> Result<Next, Error> {
        if self.running.is_empty() {
            return Ok(Next::Done);
        }
        let queue_time = self.app.limits().queue_time;
        let oldest = self.running.iter().filter(|running| !running.is_started).map(|r| r.submitted).min();
        let patience = oldest.map(|at| queue_time.saturating_sub(at.elapsed()));
        let waits = patience.map_or(wait, |patience| patience.min(wait));
        let received = tokio::select! {
            biased;
            () = ended(&mut self.phases, oldest.is_some()) => return Err(self.fail(Error::ShuttingDown)),
            received = tokio::time::timeout(waits, receive(&mut self.running, &mut self.turn)) => received,
        };
        let Ok((index, event)) = received else {
            let is_late = patience.is_some_and(|patience| patience <= wait);
            return if is_late { Err(self.fail(Error::QueueTime)) } else { Ok(Next::Quiet) };
        };
        let Some(running) = self.running.get_mut(index) else { return Err(self.fail(Error::internal())) };
        let number = running.job;
        match event {
            // The engine's thread is gone without a last word.
            None => Err(self.fail(Error::internal())),
            Some(Event::Failed(failure)) => Err(self.fail(failed(failure))),
            Some(mut event) => {
                running.is_started = true;
                if matches!(event, Event::Token { .. }) && !running.has_token {
                    running.has_token = true;
                    self.app.metrics().first_token(running.submitted.elapsed());
                }
                if let Event::Finished(usage) = &event {
                    self.app.metrics().used(usage);
                    self.app.pace().ended();
                    self.running.swap_remove(index);
                    if let Err(error) = self.submit() {
                        return Err(self.fail(error));
                    }
                }
                if self.hides_thoughts {
                    hide_thoughts(&mut event);
                }
                Ok(Next::Event(number, event))
            }
        }
    }

    /// Hands every event to `take`, with its job's number, until all jobs have ended.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn each(mut self, mut take: impl FnMut(usize, Event)) -> Result<(), Error> {
        let wait = self.app.limits().comment_time;
        loop {
            match self.next(wait).await? {
                Next::Event(job, event) => take(job, event),
                Next::Quiet => {}
                Next::Done => return Ok(()),
            }
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        self.running.clear();
        self.waiting.clear();
        self.app.pace().ended();
        error
    }
}

/// Waits until the server ends, or, for a request that has not begun, until it takes no further ones.
async fn ended(phases: &mut watch::Receiver<Phase>, is_waiting: bool) {
    let ends = |phase: &Phase| match phase {
        Phase::Serving => false,
        Phase::Draining => is_waiting,
        Phase::Ending => true,
    };
    if phases.wait_for(ends).await.is_err() {
        // The app is there as long as its requests are; without it nothing ends.
        std::future::pending::<()>().await;
    }
}

fn hide_thoughts(event: &mut Event) {
    match event {
        Event::Token { token, .. } if token.channel == Channel::Reasoning => token.text.clear(),
        Event::SampleFinished { tail, channel: Channel::Reasoning, .. } => tail.clear(),
        _ => {}
    }
}

fn failed(failure: Failure) -> Error {
    tracing::warn!(why = %failure, "a job failed");
    Error::from(failure)
}

/// The next event of any, beginning with another one each time: none waits for ever behind a fast one.
async fn receive(running: &mut [Running], turn: &mut usize) -> (usize, Option<Event>) {
    if let [only] = running {
        return (0, only.events.next().await);
    }
    let len = running.len();
    let first = *turn % len.max(1);
    *turn = turn.wrapping_add(1);
    let (behind, front) = running.split_at_mut(first);
    let futures = front.iter_mut().chain(behind).map(|running| Box::pin(running.events.next()));
    let (event, index, _) = select_all(futures).await;
    ((first + index) % len, event)
}

/// Adds counts of several jobs.
pub fn add(total: &mut Usage, usage: &Usage) {
    total.n_prompt += usage.n_prompt;
    total.n_audio += usage.n_audio;
    total.n_cached += usage.n_cached;
    total.n_stored += usage.n_stored;
    total.n_completion += usage.n_completion;
    total.n_reasoning += usage.n_reasoning;
}
