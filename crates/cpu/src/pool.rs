//! Persistent worker threads behind a spinning barrier.
//!
//! A step of a small model is a few hundred jobs of some microseconds, so waking a thread through the kernel for each
//! would cost more than the work. Workers spin for [`IDLE`] after a job and only then go to sleep. The caller works
//! too and waits only for workers that have joined its job, so on a busy machine a worker without a core costs nothing.

use std::any::Any;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cores;

/// How long a thread spins for the next job before it gives its core back.
const IDLE: Duration = Duration::from_micros(80);

/// Pieces that a thread's share is claimed in, so that a thread which the system delayed loses the rest to the others.
const PIECES: usize = 4;

/// The gate's lowest bits count the workers inside of the current job.
const ONE_INSIDE: usize = 1;
/// Set while no job may be joined.
const CLOSED: usize = 1 << 15;
/// The bits above count the jobs.
const EPOCH: usize = 1 << 16;
/// Far below what the gate can count.
const MAX_THREADS: usize = 1 << 10;

type Task<'a> = dyn Fn(Range<usize>) + Sync + 'a;

/// Worker threads that run one job at a time together with the caller.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose job runs.
    turn: Mutex<()>,
}

/// Keeps what one core writes off the lines that others spin on.
#[repr(align(128))]
struct Padded<T>(T);

/// What is left of one thread's share: from `next` to `end`.
struct Share {
    next: AtomicUsize,
    end: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    step: usize,
}

struct Shared {
    /// Which job it is, whether it may be joined, and how many workers are inside.
    gate: Padded<AtomicUsize>,
    job: UnsafeCell<Option<Job>>,
    shares: Vec<Padded<Share>>,
    asleep: Vec<Padded<AtomicBool>>,
    stop: AtomicBool,
    /// The first panic of the current job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is the only field that is not `Sync`, and its pointer the only one not `Send`. It is written by the
// holder of `turn` while the gate is closed with nobody inside, and read by workers while they are inside. The task
// behind the pointer is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `n_threads`, the caller's included, at most [`MAX_THREADS`]. Where the system refuses a thread the pool
    /// is smaller.
    pub(crate) fn new(n_threads: NonZeroUsize) -> Self {
        let n_threads = n_threads.get().min(MAX_THREADS);
        let shared = Arc::new(Shared {
            gate: Padded(AtomicUsize::new(CLOSED)),
            job: UnsafeCell::new(None),
            shares: (0..n_threads)
                .map(|_| Padded(Share { next: AtomicUsize::new(0), end: AtomicUsize::new(0) }))
                .collect(),
            asleep: (0..n_threads).map(|_| Padded(AtomicBool::new(false))).collect(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        // Only where every core has one thread: fewer threads of several programs must not gather on the same cores. The
        // caller's thread is not ours to move; the system leaves it the core that is left.
        let cores = cores::physical().filter(|cores| cores.len() == n_threads).unwrap_or_default();
        let workers = (1..n_threads).map_while(|index| {
            let (shared, core) = (Arc::clone(&shared), cores.get(index).copied());
            let work = move || {
                core.into_iter().for_each(cores::stay_on);
                shared.work(index);
            };
            thread::Builder::new().name(format!("cpu-{index}")).spawn(work).ok()
        });
        let workers = workers.collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// Threads, the caller's included.
    pub(crate) fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` with ranges that together cover `0..n`, each index once, on all threads, and returns when all is
    /// done. A range is at least `grain` long where the thread's share allows; less than two grains run on the caller.
    ///
    /// `task` must not call `run` of the same pool.
    ///
    /// # Panics
    /// With the first panic of `task`, after every thread has left it.
    pub(crate) fn run(&self, n: usize, grain: usize, task: &Task<'_>) {
        if n == 0 {
            return;
        }
        if self.workers.is_empty() || n < grain.saturating_mul(2) || n == 1 {
            return task(0..n);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // Split over the threads there are; the shares of threads that did not start stay empty.
        let n_threads = self.n_threads();
        for (i, Padded(share)) in shared.shares[..n_threads].iter().enumerate() {
            share.next.store(n * i / n_threads, Ordering::Relaxed);
            share.end.store(n * (i + 1) / n_threads, Ordering::Relaxed);
        }
        // SAFETY: only the lifetime changes. The task is used inside of the gate only, and this function neither returns
        // nor unwinds before the gate is closed with nobody inside.
        let task = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) };
        let job = Job { task, step: (n / (n_threads * PIECES)).max(grain).max(1) };
        // SAFETY: `turn` is held, the gate is closed and nobody is inside, so nobody else touches the cell.
        unsafe { *shared.job.get() = Some(job) };
        self.open();
        shared.take_part(0, job);
        shared.gate.0.fetch_or(CLOSED, Ordering::Relaxed);
        wait(|| shared.gate.0.load(Ordering::Acquire).is_multiple_of(CLOSED), thread::yield_now);
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Calls `task` with every `len`-long piece of `items` (the last may be shorter) and its index, on all threads.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub(crate) fn chunks<T: Send>(
        &self,
        items: &mut [T],
        len: usize,
        grain: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let (n_items, len) = (items.len(), len.max(1));
        let items = Disjoint::new(items);
        self.run(n_items.div_ceil(len), grain, &|range| {
            for i in range {
                // SAFETY: `run` hands out each index once, and different indices are different pieces.
                let piece = unsafe { items.part(i * len..((i + 1) * len).min(n_items)) };
                task(i, piece);
            }
        });
    }

    /// Opens the gate for the next job and wakes who sleeps.
    fn open(&self) {
        let Padded(gate) = &self.shared.gate;
        let next = (gate.load(Ordering::Relaxed) / EPOCH).wrapping_add(1).wrapping_mul(EPOCH);
        // Sequentially consistent, as is the sleeper's store and its second look at the gate: one of the two sides
        // sees the other, so no wake-up is lost.
        gate.store(next, Ordering::SeqCst);
        for (worker, Padded(asleep)) in self.workers.iter().zip(&self.shared.asleep[1..]) {
            if asleep.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.open();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of its tasks, so there is nothing to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let (Padded(asleep), Padded(gate)) = (&self.asleep[index], &self.gate);
        let mut seen = 0;
        loop {
            let is_open = || {
                let now = gate.load(Ordering::SeqCst);
                now & CLOSED == 0 && now / EPOCH != seen
            };
            wait(is_open, || {
                asleep.store(true, Ordering::SeqCst);
                if !is_open() {
                    thread::park();
                }
                asleep.store(false, Ordering::Relaxed);
            });
            // Read before `stop`: the gate that was opened to stop is never entered.
            let epoch = gate.load(Ordering::Acquire) / EPOCH;
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if self.enter(epoch) {
                // SAFETY: this thread is inside of the gate.
                if let Some(job) = unsafe { *self.job.get() } {
                    self.take_part(index, job);
                }
                gate.fetch_sub(ONE_INSIDE, Ordering::Release);
            }
            seen = epoch;
        }
    }

    /// Joins job `epoch` if it is still open.
    fn enter(&self, epoch: usize) -> bool {
        let join = |now: usize| (now / EPOCH == epoch && now & CLOSED == 0).then_some(now + ONE_INSIDE);
        self.gate.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, join).is_ok()
    }

    /// Works off the own share, then what is left of the others'.
    fn take_part(&self, index: usize, job: Job) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: `run` keeps the task alive while a thread, its own included, is at work on it.
            let task = unsafe { &*job.task };
            for i in 0..self.shares.len() {
                let Padded(share) = &self.shares[(index + i) % self.shares.len()];
                let end = share.end.load(Ordering::Relaxed);
                loop {
                    let begin = share.next.fetch_add(job.step, Ordering::Relaxed);
                    if begin >= end {
                        break;
                    }
                    task(begin..(begin + job.step).min(end));
                }
            }
        }));
        if let Err(panic) = result {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }
}

/// Spins until `done`; after [`IDLE`] calls `rest` between looks.
fn wait(done: impl Fn() -> bool, rest: impl Fn()) {
    let mut began = None;
    loop {
        for _ in 0..64 {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        if began.get_or_insert_with(Instant::now).elapsed() > IDLE {
            rest();
        }
    }
}

/// A slice whose parts are written by several threads at once.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out `&mut` to parts that do not overlap, which is sound to send where `T` is `Send`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The part `range`.
    ///
    /// # Safety
    /// No two parts that are alive at the same time may overlap.
    ///
    /// # Panics
    /// If the range does not lie in the slice.
    #[allow(clippy::mut_from_ref)] // that is its purpose; see Safety
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds by the assertion, exclusive by this function's contract and the borrow held by `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(n_threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(n_threads).unwrap())
    }

    #[test]
    fn every_index_runs_exactly_once() {
        for n_threads in [1, 2, 3, 7] {
            let pool = pool(n_threads);
            assert_eq!(pool.n_threads(), n_threads);
            for n in [0, 1, 2, 3, 5, 16, 97, 1000] {
                for grain in [0, 1, 7, 1000] {
                    let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(n, grain, &|range| {
                        for i in range {
                            counts[i].fetch_add(1, Ordering::Relaxed);
                        }
                    });
                    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{n_threads} {n} {grain}");
                }
            }
        }
    }

    #[test]
    fn a_hundred_thousand_tiny_jobs_finish() {
        let pool = pool(3);
        let total = AtomicUsize::new(0);
        for _ in 0..100_000 {
            pool.run(3, 1, &|range| {
                total.fetch_add(range.len(), Ordering::Relaxed);
            });
        }
        assert_eq!(total.load(Ordering::Relaxed), 300_000);
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_goes_on() {
        let pool = pool(3);
        for culprit in 0..60 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(60, 1, &|range| assert!(!range.contains(&culprit), "index {culprit}"));
            }));
            let panic = result.unwrap_err();
            assert_eq!(panic.downcast_ref::<String>(), Some(&format!("index {culprit}")));
            let total = AtomicUsize::new(0);
            pool.run(60, 1, &|range| {
                total.fetch_add(range.len(), Ordering::Relaxed);
            });
            assert_eq!(total.load(Ordering::Relaxed), 60);
        }
    }

    #[test]
    fn sleeping_workers_wake_for_a_job_and_for_the_end() {
        let pool = pool(3);
        for _ in 0..20 {
            let asleep = || pool.shared.asleep[1..].iter().all(|a| a.0.load(Ordering::SeqCst));
            while !asleep() {
                thread::yield_now();
            }
            let total = AtomicUsize::new(0);
            pool.run(100, 1, &|range| {
                total.fetch_add(range.len(), Ordering::Relaxed);
            });
            assert_eq!(total.load(Ordering::Relaxed), 100);
        }
        drop(pool);
    }

    #[test]
    fn several_callers_take_turns() {
        let pool = pool(2);
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        pool.run(8, 1, &|range| {
                            total.fetch_add(range.len(), Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 3 * 2000 * 8);
    }

    #[test]
    fn pieces_cover_a_slice() {
        let mut items = vec![0usize; 103];
        pool(3).chunks(&mut items, 10, 1, |i, piece| piece.fill(i + 1));
        assert!(items.iter().enumerate().all(|(at, item)| *item == at / 10 + 1));
    }
}
