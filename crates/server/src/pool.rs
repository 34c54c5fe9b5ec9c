//! Threads for work that takes long: tokenising, rendering, decoding images, the database.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;
use crate::limits::Limits;

/// Work of one kind that runs at a time.
const THREADS: usize = 4;

/// A bounded number of threads, and memory for images.
#[derive(Debug, Clone)]
pub struct Pool {
    threads: Arc<Semaphore>,
    /// One image is decoded at a time, in all: it may take all the memory that decoding may take.
    decoder: Arc<Semaphore>,
    fetches: Arc<Semaphore>,
    /// KiB of tiles and features.
    media: Arc<Semaphore>,
}

impl Pool {
    /// A pool for these limits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(THREADS)),
            decoder: Arc::new(Semaphore::new(1)),
            fetches: Arc::new(Semaphore::new(limits.fetches)),
            media: Arc::new(Semaphore::new(limits.media_bytes >> 10)),
        }
    }

    /// Runs `work` on a thread that may wait. What panics there fails the request alone.
    ///
    /// # Errors
    /// [`Error::Internal`] if it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        on(&self.threads, work).await
    }

    /// As [`run`](Self::run), one at a time: for what takes as much memory as an image may take.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn decode<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        on(&self.decoder, work).await
    }

    /// As [`run`](Self::run), for what waits for other machines.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn fetch<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        on(&self.fetches, work).await
    }

    /// Takes memory for the images and clips of a request, until the permit is dropped; `None` if there is not as much.
    pub fn media(&self, size_bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(self.media_units(size_bytes)).ok()?;
        Arc::clone(&self.media).try_acquire_many_owned(kib).ok()
    }

    /// Permits that so many bytes of [`media`](Self::media) are.
    pub fn media_units(&self, size_bytes: usize) -> usize {
        size_bytes.div_ceil(1 << 10)
    }
}

async fn on<T: Send + 'static>(places: &Arc<Semaphore>, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let place = Arc::clone(places).acquire_owned().await.map_err(|_| Error::ShuttingDown)?;
    let task = tokio::task::spawn_blocking(move || {
        // Also if the request is gone by now: the place is taken until the work is done.
        let _place = place;
        work()
    });
    task.await.map_err(|_| Error::internal())
}
