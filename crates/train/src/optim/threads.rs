//! Work split over threads.

use std::num::NonZeroUsize;
use std::sync::Mutex;

/// How many threads work at the same time. Nothing that is computed depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads(NonZeroUsize);

impl Threads {
    /// No thread beside the caller's.
    pub const ONE: Self = Self(NonZeroUsize::MIN);

    /// `n` of them, the caller's among them.
    pub fn new(n: NonZeroUsize) -> Self {
        Self(n)
    }

    /// Calls `work` with every item, each on the thread that is free first.
    pub(crate) fn for_each<T: Send>(self, items: Vec<T>, work: impl Fn(T) + Sync) {
        let n_helpers = self.0.get().min(items.len()).saturating_sub(1);
        let items = Mutex::new(items.into_iter());
        let next = || items.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
        let run = || {
            while let Some(item) = next() {
                work(item);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..n_helpers {
                scope.spawn(run);
            }
            run();
        });
    }
}
