//! The engine's thread: receives jobs, runs steps, sends events, sleeps when there is nothing to do.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use llama::{AudioStream, Input, LlamaError, Row};
use tensor::Device;
use tokenizer::Tokenizer;
use tokio::sync::mpsc;

use super::compute::{Core, Wanted};
use super::handle::Reporter;
use super::intake::{Intake, NAP};
use super::live::{Live, Turn};
use super::outlet::Outlet;
use super::rows::Rows;
use super::towers::encode_next;
use super::{Event, Failure, Options, Stats, Stopped, Submitted, Usage};
use crate::fault;
use crate::scheduler::{Fate, JobId, Scheduler, Step};

/// Steps that may fail one after another before the thread gives up.
const FAILURES: u32 = 2;

/// Everything that the engine's thread owns.
pub(super) struct Worker<'a, D: Device> {
    core: Core<D>,
    tokenizer: &'a Tokenizer,
    options: Options,
    scheduler: Scheduler,
    live: BTreeMap<JobId, Live<'a, D::Tensor>>,
    /// Jobs that are over but whose receivers have not made room for the end.
    closing: Vec<Outlet>,
    kept: Rows<D::Tensor, AudioStream<D>>,
    jobs: mpsc::UnboundedReceiver<Submitted>,
    reporter: Reporter,
    stats: Stats,
    began: Instant,
    /// When draining began.
    drained: Option<Duration>,
    n_failures: u32,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<'a, D: Device> Worker<'a, D> {
    pub(super) fn new(
        core: Core<D>,
        tokenizer: &'a Tokenizer,
        options: Options,
        scheduler: Scheduler,
        (jobs, reporter): (mpsc::UnboundedReceiver<Submitted>, Reporter),
    ) -> Self {
        Self {
            core,
            tokenizer,
            kept: Rows::new(options.media_bytes),
            options,
            scheduler,
            live: BTreeMap::new(),
            closing: Vec::new(),
            jobs,
            reporter,
            stats: Stats::default(),
            began: Instant::now(),
            drained: None,
            n_failures: 0,
        }
    }

    /// Works until there is nothing left to do and nobody who could ask for more.
    pub(super) fn run(mut self) -> Result<(), Stopped> {
        fault::install(self.options.faults.clone());
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let result = self.work(&mut Context::from_waker(&waker));
        let failure = if result.is_err() { Failure::Internal } else { Failure::ShuttingDown };
        self.reporter.refuse();
        self.jobs.close();
        while let Ok(submitted) = self.jobs.try_recv() {
            Outlet::new(submitted).1.fail(Failure::ShuttingDown);
        }
        self.fail_all(&failure);
        self.publish();
        result
    }

    fn work(&mut self, context: &mut Context<'_>) -> Result<(), Stopped> {
        loop {
            let is_open = self.receive(context);
            self.look_after_receivers();
            self.drain();
            if (!is_open || self.drained.is_some()) && self.live.is_empty() && self.closing.is_empty() {
                return Ok(());
            }
            let has_moved = self.encode() | self.step()?;
            self.publish();
            if !has_moved {
                match self.live.is_empty() && self.closing.is_empty() {
                    true => thread::park(),
                    false => thread::park_timeout(NAP),
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes up all jobs that have come. Whether more can come.
    fn receive(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            match self.jobs.poll_recv(context) {
                Poll::Ready(Some(submitted)) => self.take(submitted),
                Poll::Ready(None) => return false,
                Poll::Pending => return true,
            }
        }
    }

    fn take(&mut self, submitted: Submitted) {
        let now = self.now();
        let waited = submitted.at.elapsed();
        let (job, mut outlet) = Outlet::new(submitted);
        if self.reporter.is_draining() {
            self.stats.n_ended[2] += 1;
            return outlet.fail(Failure::ShuttingDown);
        }
        let about = self.reporter.about();
        let intake = Intake { n_vocab: about.n_vocab, layout: &about.layout };
        let Some((request, live)) = intake.take(job, outlet) else {
            self.stats.n_ended[2] += 1;
            return;
        };
        let id = self.scheduler.submit(request, now.saturating_sub(waited));
        self.live.insert(id, live);
    }

    /// Cancels jobs that nobody waits for any more; lets those go on whose receivers made room, and pauses the others.
    fn look_after_receivers(&mut self) {
        let now = self.now();
        let left: Vec<JobId> = self.live.iter().filter(|(_, live)| live.outlet.is_left()).map(|(id, _)| *id).collect();
        left.into_iter().for_each(|id| self.fail(id, Failure::Cancelled));
        for (id, live) in &mut self.live {
            if live.outlet.is_full() {
                let has_moved = live.outlet.flush(now);
                if !live.outlet.is_full() {
                    self.scheduler.unblock(*id);
                } else if has_moved {
                    self.scheduler.block(*id, now);
                }
            }
        }
        for outlet in &mut self.closing {
            outlet.flush(now);
            if outlet.is_left() {
                outlet.fail(Failure::Cancelled);
            } else if now.saturating_sub(outlet.since()) > self.options.longest_block {
                outlet.fail(Failure::Stalled);
            }
        }
        self.closing.retain(|outlet| !outlet.is_over());
    }

    /// Ends what has to end because the service does.
    fn drain(&mut self) {
        if self.drained.is_none() && self.reporter.is_draining() {
            self.drained = Some(self.now());
            let ids = self.live.keys().copied();
            let waiting: Vec<JobId> = ids.filter(|id| !self.scheduler.has_started(*id)).collect();
            waiting.into_iter().for_each(|id| self.fail(id, Failure::ShuttingDown));
        }
        let is_late = self.drained.is_some_and(|then| self.now().saturating_sub(then) > self.options.drain);
        if is_late || self.reporter.is_stopped() {
            self.fail_all(&Failure::ShuttingDown);
        }
    }

    fn fail_all(&mut self, failure: &Failure) {
        let ids: Vec<JobId> = self.live.keys().copied().collect();
        ids.into_iter().for_each(|id| self.fail(id, failure.clone()));
        self.closing.drain(..).for_each(|mut outlet| outlet.fail(failure.clone()));
    }

    /// The one way in which a job ends without a result.
    fn fail(&mut self, id: JobId, failure: Failure) {
        self.scheduler.cancel(id);
        if let Some(mut live) = self.live.remove(&id) {
            self.stats.n_ended[if failure == Failure::Cancelled { 1 } else { 2 }] += 1;
            live.outlet.fail(failure);
        }
    }

    /// Encodes one tile or chunk of the oldest job that waits for its images and clips. Whether there was one.
    fn encode(&mut self) -> bool {
        let is_waiting = |live: &Live<'_, D::Tensor>| live.media.iter().any(|medium| medium.rest.is_some());
        let Some((id, live)) = self.live.iter_mut().find(|(_, live)| is_waiting(live)) else { return false };
        let (id, owner) = (*id, live.owner);
        let Some(medium) = live.media.iter_mut().find(|medium| medium.rest.is_some()) else { return false };
        let (core, kept) = (&self.core, &mut self.kept);
        match catch_unwind(AssertUnwindSafe(|| encode_next(core, kept, owner, medium))) {
            Ok(Ok(n_frames)) => self.stats.n_frames += n_frames as u64,
            Ok(Err(error)) => {
                self.fail(id, Failure::Prompt(error.to_string()));
                return true;
            }
            Err(_) => {
                self.stats.n_panics += 1;
                self.fail(id, Failure::Internal);
                return true;
            }
        }
        if self.live.get(&id).is_some_and(|live| !is_waiting(live)) {
            self.scheduler.ready(id);
        }
        true
    }

    /// Plans a step, computes it and takes in what came of it. Whether anything happened.
    fn step(&mut self) -> Result<bool, Stopped> {
        let now = self.now();
        let step = self.scheduler.plan(now);
        self.stats.n_preempted += step.preempted.len() as u64;
        for (id, failure) in &step.ended {
            self.fail(*id, failure.clone());
        }
        for (sequence, n_cached) in &step.started {
            let Some(live) = self.live.get_mut(&sequence.job) else { continue };
            if !live.has_started {
                live.has_started = true;
                live.usage.n_cached = *n_cached;
                live.usage.n_stored = self.scheduler.n_kept(live.usage.n_prompt).saturating_sub(*n_cached);
                self.stats.n_positions[1] += *n_cached as u64;
            }
            let Usage { n_prompt, n_stored, .. } = live.usage;
            live.outlet.send(Event::Started { n_prompt, n_cached: *n_cached, n_stored }, now);
        }
        if step.pieces.is_empty() {
            return Ok(!step.ended.is_empty());
        }
        self.stats.n_steps += 1;
        match catch_unwind(AssertUnwindSafe(|| self.compute(&step, now))) {
            Ok(Ok(turns)) => {
                self.n_failures = 0;
                self.finish(&step, turns, now);
            }
            Ok(Err(error)) => self.abandon(&step, &error.to_string())?,
            Err(panic) => {
                self.stats.n_panics += 1;
                self.abandon(&step, panic_text(&*panic))?;
            }
        }
        Ok(true)
    }

    /// Runs the rows of `step` and lets every answer choose. One turn a piece.
    fn compute(&mut self, step: &Step, now: Duration) -> Result<Vec<Turn>, LlamaError> {
        fault::point("step.begin");
        let (mut rows, mut wanted, mut features) = (Vec::new(), Vec::new(), Vec::new());
        let (mut turns, mut turn_of_row) = (Vec::with_capacity(step.pieces.len()), Vec::new());
        for piece in &step.pieces {
            let turn = Turn::new(piece, rows.len());
            let (global, chunked) = self.scheduler.pages(piece.sequence);
            let live = self.live.get(&piece.sequence.job);
            let first_feature = features.len();
            if let Some(live) = live.filter(|live| live.has_media(piece)) {
                features.extend(live.media.iter().filter_map(|medium| medium.features.clone()));
            }
            for position in piece.begin..piece.end + piece.draft.len() {
                let what = live.map_or(Wanted::Nothing, |live| live.wanted(piece, position));
                let input = live.and_then(|live| live.input(piece, position, first_feature));
                // What is not there is no token: the model refuses the row.
                let input = input.unwrap_or(Input::Token(u32::MAX));
                rows.push(Row { input, position, global, chunked, wants_logits: what == Wanted::Logits });
                wanted.push(what);
                turn_of_row.push(turns.len());
            }
            turns.push(turn);
        }
        let features: Vec<&D::Tensor> = features.iter().collect();
        let (live, tokenizer) = (&mut self.live, self.tokenizer);
        self.core.run((&rows, &wanted), &features, &mut |row, seen| {
            let Some(turn) = turn_of_row.get(row).and_then(|turn| turns.get_mut(*turn)) else { return };
            let position = turn.piece.begin + row - turn.first_row;
            if let Some(live) = live.get_mut(&turn.piece.sequence.job) {
                live.see(turn, position, seen, (tokenizer, now));
            }
        })?;
        for turn in &mut turns {
            if let Some(live) = self.live.get_mut(&turn.piece.sequence.job) {
                live.end_prompt(turn, self.tokenizer, now);
            }
        }
        fault::point("step.end");
        Ok(turns)
    }

    /// Tells the scheduler what came of a step, and ends the jobs that are over.
    fn finish(&mut self, step: &Step, turns: Vec<Turn>, now: Duration) {
        let (mut over, mut broken) = (BTreeSet::new(), BTreeMap::new());
        for turn in &turns {
            let id = turn.piece.sequence.job;
            let Some(live) = self.live.get_mut(&id) else { continue };
            live.count(turn);
            let n_prompt = turn.piece.end.min(live.known.len()).saturating_sub(turn.piece.begin);
            self.stats.n_positions[0] += n_prompt as u64;
            self.stats.n_positions[2] += turn.n_chosen() as u64;
            if let Some(failure) = turn.broken() {
                broken.insert(id, failure.clone());
            } else if live.is_done(turn.is_ended()) {
                over.insert(id);
            }
            if live.outlet.is_full() {
                self.scheduler.block(id, now);
            }
        }
        let fates: Vec<Fate> = turns.into_iter().map(Turn::into_fate).collect();
        self.scheduler.apply(step, fates);
        broken.into_iter().for_each(|(id, failure)| self.fail(id, failure));
        for id in over {
            self.scheduler.cancel(id);
            let Some(mut live) = self.live.remove(&id) else { continue };
            self.stats.n_ended[0] += 1;
            live.outlet.finish(Event::Finished(live.usage));
            if !live.outlet.is_over() {
                self.closing.push(live.outlet);
            }
        }
    }

    /// Ends the jobs of a step of which nobody knows what it did.
    fn abandon(&mut self, step: &Step, why: &str) -> Result<(), Stopped> {
        self.scheduler.abandon(step);
        for piece in &step.pieces {
            self.fail(piece.sequence.job, Failure::Internal);
        }
        self.n_failures += 1;
        self.scheduler.audit().map_err(|why| Stopped { why })?;
        match self.n_failures < FAILURES {
            true => Ok(()),
            false => Err(Stopped { why: why.to_owned() }),
        }
    }

    fn publish(&mut self) {
        let census = self.scheduler.census();
        self.stats.n_waiting = census.n_waiting;
        self.stats.n_running = census.n_running;
        self.stats.n_pages = census.global;
        self.reporter.publish(self.stats);
    }
}

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}
