//! What happens when something goes wrong: receivers that leave, panics, broken numbers, the end of the service.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use engine::scheduler::Prefixes;
use engine::service::{Event, Events, Failure, Options, SubmitError};
use it::serving::{Outcome, Served, job, options, parts, prompt};

/// Holds the engine's thread at the beginning of every step until the test lets it go on.
struct Lockstep {
    begun: Receiver<()>,
    go: SyncSender<()>,
}

impl Lockstep {
    fn install(options: &mut Options) -> Self {
        let (begin, begun) = sync_channel(0);
        let (go, gone) = sync_channel(0);
        let ends = Mutex::new((begin, gone));
        options.faults = Some(Arc::new(move |point| {
            if point == "step.begin" {
                let Ok(ends) = ends.lock() else { return };
                // When the test is over nobody holds the thread any more.
                if ends.0.send(()).is_ok() {
                    let _ = ends.1.recv();
                }
            }
        }));
        Self { begun, go }
    }

    /// Waits for the beginning of a step.
    fn wait(&self) -> Result<()> {
        self.begun.recv_timeout(Duration::from_secs(60)).context("no step begins")
    }

    /// Lets `n` steps pass; the engine's thread then stands at the beginning of another one.
    fn pass(&self, n: usize) -> Result<()> {
        for _ in 0..n {
            self.go.send(())?;
            self.wait()?;
        }
        Ok(())
    }
}

/// Row C1, the engine's side: receivers leave while queued, in the middle of a prompt, at the first token, in the
/// middle of an answer and while blocked, beside a stream that goes on. Pages in use are counted by what that stream
/// alone needs. Mutation: `look_after_receivers` that asks only blocked jobs.
#[test]
fn a_thousand_receivers_leave_and_no_page_stays() -> Result<()> {
    const POINTS: [&str; 5] = ["queued", "mid-prompt", "first token", "mid-answer", "blocked"];
    let (n_prompt, n_tokens) = (20, 230);
    let plain = Served::start(1, options(1))?;
    let want = Outcome::of(plain.handle.submit(job(prompt(1, n_prompt), n_tokens))?);
    plain.end()?;
    let (mut counts, mut n_streams) = ([0; 5], 0);
    let mut options = options(3);
    (options.running, options.prompt_rows, options.draft_rows) = (2, 32, 0);
    options.prefixes = Prefixes::Dropped;
    options.admission.channel_events = 4;
    let lockstep = Lockstep::install(&mut options);
    let served = Served::start(1, options)?;
    while counts.iter().sum::<usize>() < 1000 {
        let mut stream = served.handle.submit(job(prompt(1, n_prompt), n_tokens))?;
        let mut got = Outcome::default();
        lockstep.wait()?;
        let first_step = served.handle.stats().0.n_steps + 1;
        // Every step from the first on, the stream has one position more.
        let of_stream = |n_steps: u64| (n_prompt as u64 + n_steps - first_step).div_ceil(16) as usize;
        let mut step = |n: usize, got: &mut Outcome| -> Result<()> {
            for _ in 0..n {
                lockstep.pass(1)?;
                while let Some(event) = stream.try_next() {
                    got.add(event);
                }
            }
            Ok(())
        };
        step(2, &mut got)?;
        while served.handle.stats().0.n_steps + 30 < first_step + n_tokens as u64 {
            let point = counts.iter().sum::<usize>() % 5;
            let leaving = leave_at(&served, point, &mut |n| step(n, &mut got))?;
            let in_use = served.handle.stats().0.n_pages[0];
            ensure!(in_use > of_stream(served.handle.stats().0.n_steps), "{} holds no page", POINTS[point]);
            drop(leaving);
            step(2, &mut got)?;
            let stats = served.handle.stats().0;
            assert_eq!(stats.n_pages[0], of_stream(stats.n_steps), "{}: {stats:?}", POINTS[point]);
            counts[point] += 1;
        }
        lockstep.go.send(())?;
        while got.last.is_empty() {
            // A step that begins is let go at once; between jobs none does.
            if lockstep.begun.recv_timeout(Duration::from_millis(5)).is_ok() {
                lockstep.go.send(())?;
            }
            while let Some(event) = stream.try_next() {
                got.add(event);
            }
        }
        assert_eq!((&got.answers, &got.texts), (&want.answers, &want.texts));
        n_streams += 1;
    }
    println!("{counts:?} receivers left at {POINTS:?} beside {n_streams} streams, 0 pages lost");
    drop(lockstep);
    served.end()
}

/// Brings a job to a point; its receivers, to be dropped there.
fn leave_at(served: &Served, point: usize, step: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<Events>> {
    // Submitted while a step is held: the next one has it.
    let mut leaving = vec![served.handle.submit(job(prompt(2, if point == 1 { 100 } else { 10 }), 60))?];
    match point {
        0 => {
            // The only other place is taken by the one before it.
            leaving.push(served.handle.submit(job(prompt(3, 10), 60))?);
            step(2)?;
            ensure!(served.handle.stats().0.n_waiting == 1, "one is queued: {:?}", served.handle.stats().0);
        }
        1 => step(2)?,
        2 => {
            step(2)?;
            let first = std::iter::from_fn(|| leaving[0].try_next()).any(|event| matches!(event, Event::Token { .. }));
            ensure!(first, "the first token has come");
        }
        3 => {
            for _ in 0..8 {
                step(1)?;
                while leaving[0].try_next().is_some() {}
            }
        }
        _ => {
            step(9)?;
            let n_tokens = served.handle.stats().0.n_positions[2];
            step(1)?;
            // The stream chose one, the blocked job none.
            ensure!(served.handle.stats().0.n_positions[2] == n_tokens + 1, "it is blocked");
        }
    }
    Ok(leaving)
}

/// Row F1: a panic at a random point of a random step ends that step's jobs and nothing else. Mutation: a counter
/// of failures that a good step does not set back.
#[test]
fn five_hundred_panics_end_their_steps_jobs_and_nothing_else() -> Result<()> {
    const POINTS: [&str; 4] = ["step.begin", "prefill.after_store", "sample", "step.end"];
    let plain = Served::start(1, options(4))?;
    let lot = |i: usize| job(prompt(i % 7, 10 + i % 7 * 7), 3 + i % 5);
    let want = (0..35).map(|i| Ok(Outcome::of(plain.handle.submit(lot(i))?).answers)).collect::<Result<Vec<_>>>()?;
    plain.end()?;
    // The point, and how often it is passed before it breaks.
    let armed: Arc<Mutex<Option<(&str, usize)>>> = Arc::default();
    let mut options = options(4);
    let trigger = Arc::clone(&armed);
    options.prompt_rows = 16;
    options.faults = Some(Arc::new(move |point| {
        let mut armed = trigger.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((at, n)) = armed.as_mut().filter(|(at, _)| *at == point) {
            match n.checked_sub(1) {
                Some(left) => *n = left,
                None => {
                    let at = *at;
                    *armed = None;
                    drop(armed);
                    std::panic::panic_any(format!("injected at {at}"));
                }
            }
        }
    }));
    std::panic::set_hook(Box::new(|_| {}));
    let served = Served::start(1, options)?;
    let (mut n_injected, mut n_failed, mut n_survived) = (0, 0, 0);
    for round in 0..500usize {
        *armed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((POINTS[round % 4], (round / 4) % 4));
        let events: Vec<Events> =
            (0..3).map(|i| Ok(served.handle.submit(lot(round + i * 3))?)).collect::<Result<_>>()?;
        for (i, events) in events.into_iter().enumerate() {
            let outcome = Outcome::of(events);
            match outcome.last.as_slice() {
                [Event::Failed(Failure::Internal)] => n_failed += 1,
                [Event::Finished(_)] => {
                    assert_eq!(outcome.answers, want[(round + i * 3) % 35], "round {round}");
                    n_survived += 1;
                }
                other => anyhow::bail!("round {round}: {other:?}"),
            }
        }
        let unused = armed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        n_injected += usize::from(unused.is_none());
        let next = Outcome::of(served.handle.submit(lot(round))?);
        assert_eq!(next.answers, want[round % 35], "round {round}: the next request");
        served.until(|_| served.handle.n_jobs() == 0)?;
        served.until(|stats| stats.n_pages[0] == 0 && stats.n_running == 0)?;
    }
    let stats = served.handle.stats().0;
    println!("{n_injected} panics, {n_failed} jobs failed, {n_survived} finished with the right bits");
    assert_eq!((n_injected, stats.n_panics), (500, 500));
    assert!(n_failed >= 500);
    // Two in a row end the thread; every job has its last event all the same.
    let twice: Vec<Events> = (0..5).map(|i| Ok(served.handle.submit(lot(i))?)).collect::<Result<_>>()?;
    twice.into_iter().map(Outcome::of).try_for_each(|outcome| outcome.usage().map(drop))?;
    served.end()
}

#[test]
fn two_panics_in_a_row_end_the_thread_and_every_job() -> Result<()> {
    std::panic::set_hook(Box::new(|_| {}));
    let mut options = options(2);
    options.running = 1;
    // No step breaks before every job is there: what comes after the second is refused, not failed.
    let gate = Arc::new(Mutex::new(()));
    let waits = Arc::clone(&gate);
    options.faults = Some(Arc::new(move |point| {
        if point == "prefill.after_store" {
            drop(waits.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            std::panic::panic_any("injected");
        }
    }));
    let served = Served::start(1, options)?;
    let closed = gate.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let events: Vec<Events> = (0..6).map(|i| Ok(served.handle.submit(job(prompt(i, 9), 5))?)).collect::<Result<_>>()?;
    drop(closed);
    for events in events {
        let last = Outcome::of(events).last;
        assert!(matches!(last.as_slice(), [Event::Failed(Failure::Internal | Failure::ShuttingDown)]), "{last:?}");
    }
    assert_eq!(served.handle.submit(job(prompt(1, 9), 5)).map(drop), Err(SubmitError::ShuttingDown));
    let error = served.end().err().context("an error")?;
    assert!(error.to_string().contains("injected"), "{error}");
    Ok(())
}

/// Row C3: the end of the service comes at a random step, so that jobs finish and are cancelled in the same one; each has
/// exactly one last event. Mutation: `fail` that drops the job without failing its outlet, which then says `Internal`.
#[test]
fn whatever_ends_a_job_it_has_one_last_event() -> Result<()> {
    let (mut n_finished, mut n_ended) = (0, 0);
    for seed in 0..250usize {
        let mut options = options(2);
        options.admission.channel_events = 2 + seed % 9;
        let stop: Arc<Mutex<Option<(usize, engine::service::Handle)>>> = Arc::default();
        let trigger = Arc::clone(&stop);
        options.faults = Some(Arc::new(move |point| {
            let mut stop = trigger.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some((n, handle)) = stop.as_mut().filter(|_| point == "step.end") {
                match n.checked_sub(1) {
                    Some(left) => *n = left,
                    None => {
                        if seed % 2 == 0 {
                            handle.stop()
                        } else {
                            handle.drain()
                        }
                        *stop = None;
                    }
                }
            }
        }));
        let served = Served::start(1, options)?;
        *stop.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((seed % 7, served.handle.clone()));
        let events: Vec<_> =
            (0..5).map(|i| served.handle.submit(job(prompt(seed + i, 9), 1 + (seed + i * 5) % 9))).collect();
        for events in events {
            let Ok(events) = events else { continue };
            let outcome = Outcome::of(events);
            match outcome.last.as_slice() {
                [Event::Finished(_)] => n_finished += 1,
                [Event::Failed(Failure::ShuttingDown)] => n_ended += 1,
                other => anyhow::bail!("seed {seed}: {other:?}"),
            }
        }
        drop(stop.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        served.end()?;
    }
    println!("{n_finished} jobs finished, {n_ended} were ended, each with one last event");
    assert!(n_finished > 50 && n_ended > 50);
    Ok(())
}

/// Row F2: the embedding of one token is not a number. Whoever has it fails; the others keep their bits; what it
/// touched is not kept. Mutation: `Core::run` that does not look at the rows.
#[test]
fn broken_numbers_fail_their_row_alone_and_are_not_kept() -> Result<()> {
    const BROKEN: u32 = 200;
    let broken_parts = || -> Result<_> {
        let folder = tempfile::tempdir()?;
        it::serving::write_broken(folder.path(), BROKEN as usize)?;
        let mut parts = parts(1)?;
        parts.model = it::Toy::load(cpu::Cpu::new(cpu::CpuOptions::default()), folder.path())?.model;
        Ok(parts)
    };
    let plain = Served::start(1, options(4))?;
    let want = (0..10).map(|i| Ok(Outcome::of(plain.handle.submit(job(prompt(i, 30), 8))?).answers));
    let want = want.collect::<Result<Vec<_>>>()?;
    plain.end()?;
    let mut n_broken = 0;
    for prompt_rows in [7, 64] {
        let mut options = options(4);
        options.prompt_rows = prompt_rows;
        let (handle, thread) = engine::service::spawn(broken_parts()?, options)?;
        let served = Served { handle, thread };
        for i in 0..50usize {
            let mut ids = prompt(500 + i, 60);
            ids[i] = BROKEN;
            let healthy = served.handle.submit(job(prompt(i % 10, 30), 8))?;
            let broken = served.handle.submit(job(ids.clone(), 8))?;
            assert_eq!(Outcome::of(healthy).answers, want[i % 10], "{i}");
            assert_eq!(Outcome::of(broken).last, [Event::Failed(Failure::Numerical)], "{i}");
            // Only pages before the broken one may be found.
            let again = Outcome::of(served.handle.submit(job(ids, 1))?);
            assert_eq!(again.last, [Event::Failed(Failure::Numerical)], "{i}");
            let started = again.others.iter().find_map(|event| match event {
                Event::Started { n_cached, .. } => Some(*n_cached),
                _ => None,
            });
            assert!(started.is_some_and(|n| n <= i / 16 * 16), "{i}: {started:?}");
            n_broken += 2;
        }
        served.until(|stats| stats.n_pages[0] == 0)?;
        served.end()?;
    }
    println!("{n_broken} broken prompts failed alone");
    assert!(n_broken >= 100);
    Ok(())
}

/// A receiver that takes nothing loses its job after the longest block, and nobody else anything. Mutation: `block`
/// called again at every step, so that its time never ends.
#[test]
fn who_reads_nothing_is_cancelled_and_nobody_waits_for_it() -> Result<()> {
    let mut options = options(2);
    options.admission.channel_events = 3;
    options.longest_block = Duration::from_millis(200);
    let served = Served::start(1, options)?;
    for i in 0..20 {
        let stalled = served.handle.submit(job(prompt(i, 9), 100))?;
        let other = Outcome::of(served.handle.submit(job(prompt(i + 1, 9), 100))?);
        assert_eq!(other.usage()?.n_completion, 100);
        let n_failed = served.handle.stats().0.n_ended[2];
        served.until(|stats| stats.n_ended[2] > n_failed || stats.n_running == 0)?;
        assert_eq!(Outcome::of(stalled).last, [Event::Failed(Failure::Stalled)]);
    }
    served.until(|stats| stats.n_pages[0] == 0)?;
    served.end()
}
