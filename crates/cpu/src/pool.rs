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
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cores;

/// How long a thread spins for the next job before it gives its core back.
const IDLE: Duration = Duration::from_micros(80);

/// Pieces that a thread's share is claimed in, so that a thread which the system delayed loses the rest to the others.
const PIECES: usize = 4;

/// More than any machine of this kind has.
const MAX_THREADS: usize = 1 << 10;

type Task<'a> = dyn Fn(Range<usize>) + Sync + 'a;

/// Worker threads that run one job at a time together with the caller.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose job runs: how many jobs each thread has taken part in.
    turn: Mutex<Vec<usize>>,
}

/// Keeps what one core writes off the lines that others spin on.
#[repr(align(128))]
struct Padded<T>(T);

/// Nothing to do, or not any more.
const IDLE_SLOT: u8 = 0;
/// A job that its thread may take.
const POSTED: u8 = 1;
/// The thread is at work on the job.
const TAKEN: u8 = 2;
/// The thread is to end.
const STOP: u8 = 3;

/// Where a thread gets its job. On one line of the cache, since each line that goes from one core to another costs as
/// much as a small job.
struct Slot {
    state: AtomicU8,
    /// What is left of the thread's share: from `next` to `end`.
    next: AtomicUsize,
    end: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
}

#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    step: usize,
}

struct Shared {
    /// One for each thread; the caller's first.
    slots: Vec<Padded<Slot>>,
    /// Jobs that each thread has taken part in to their end.
    done: Vec<Padded<AtomicUsize>>,
    asleep: Vec<Padded<AtomicBool>>,
    /// The first panic of the current job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: a slot's `job` is the only field that is not `Sync`, and its pointer the only one not `Send`. It is written by
// the holder of `turn` while the slot is idle, and read by the slot's thread while it is taken. The task behind the
// pointer is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `n_threads`, the caller's included, at most [`MAX_THREADS`]. Where the system refuses a thread the pool
    /// is smaller.
    pub(crate) fn new(n_threads: NonZeroUsize) -> Self {
        let n_threads = n_threads.get().min(MAX_THREADS);
        let slot = || Slot {
            state: AtomicU8::new(IDLE_SLOT),
            next: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
        };
        let shared = Arc::new(Shared {
            slots: (0..n_threads).map(|_| Padded(slot())).collect(),
            done: (0..n_threads).map(|_| Padded(AtomicUsize::new(0))).collect(),
            asleep: (0..n_threads).map(|_| Padded(AtomicBool::new(false))).collect(),
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
        Self { shared, workers, turn: Mutex::new(vec![0; n_threads]) }
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
        let mut taken = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The task is used by whoever took a slot, and this function neither returns
        // nor unwinds before they all are done.
        let task = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) };
        // Split over the threads there are; the shares of threads that did not start stay empty.
        let n_threads = self.n_threads();
        let job = Job { task, step: (n / (n_threads * PIECES)).max(grain).max(1) };
        let slots = &shared.slots[..n_threads];
        for (i, Padded(slot)) in slots.iter().enumerate() {
            slot.next.store(n * i / n_threads, Ordering::Relaxed);
            slot.end.store(n * (i + 1) / n_threads, Ordering::Relaxed);
        }
        for (index, Padded(slot)) in slots.iter().enumerate().skip(1) {
            // SAFETY: `turn` is held and the slot is idle, so nobody else touches the cell.
            unsafe { *slot.job.get() = Some(job) };
            self.tell(index, POSTED);
        }
        shared.take_part(0, job);
        for (i, Padded(slot)) in slots.iter().enumerate().skip(1) {
            // Who has not begun by now has nothing left to do.
            let not_begun =
                slot.state.compare_exchange(POSTED, IDLE_SLOT, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if !not_begun {
                taken[i] = taken[i].wrapping_add(1);
                wait(|| shared.done[i].0.load(Ordering::Acquire) == taken[i], thread::yield_now);
            }
        }
        drop(taken);
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

    /// Changes the state of a worker's slot, and wakes it if it sleeps.
    fn tell(&self, index: usize, state: u8) {
        // Sequentially consistent, as is the sleeper's store and its second look at the slot: one of the two sides sees
        // the other, so no wake-up is lost.
        self.shared.slots[index].0.state.store(state, Ordering::SeqCst);
        if self.shared.asleep[index].0.load(Ordering::SeqCst) {
            self.workers[index - 1].thread().unpark();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        (1..self.n_threads()).for_each(|index| self.tell(index, STOP));
        for worker in self.workers.drain(..) {
            // A worker catches every panic of its tasks, so there is nothing to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let (Padded(asleep), Padded(slot)) = (&self.asleep[index], &self.slots[index]);
        loop {
            let is_told = || slot.state.load(Ordering::SeqCst) != IDLE_SLOT;
            wait(is_told, || {
                asleep.store(true, Ordering::SeqCst);
                if !is_told() {
                    thread::park();
                }
                asleep.store(false, Ordering::Relaxed);
            });
            // The caller may have taken the job back.
            match slot.state.compare_exchange(POSTED, TAKEN, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {}
                Err(STOP) => return,
                Err(_) => continue,
            }
            // SAFETY: this thread has taken the slot.
            if let Some(job) = unsafe { *slot.job.get() } {
                self.take_part(index, job);
            }
            slot.state.store(IDLE_SLOT, Ordering::Relaxed);
            self.done[index].0.fetch_add(1, Ordering::Release);
        }
    }

    /// Works off the own share, then what is left of the others'.
    fn take_part(&self, index: usize, job: Job) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: `run` keeps the task alive while a thread, its own included, is at work on it.
            let task = unsafe { &*job.task };
            let (before, from) = self.slots.split_at(index);
            for Padded(slot) in from.iter().chain(before) {
                let end = slot.end.load(Ordering::Relaxed);
                // Looked at first: claiming would take the line from whoever works on it.
                while slot.next.load(Ordering::Relaxed) < end {
                    let begin = slot.next.fetch_add(job.step, Ordering::Relaxed);
                    if begin < end {
                        task(begin..(begin + job.step).min(end));
                    }
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
