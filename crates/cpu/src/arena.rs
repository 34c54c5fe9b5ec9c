//! Buffers that are used again, so that a step neither asks the system for memory nor touches new pages.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers that wait for their next use, at most.
const MOST: usize = 64;

/// A buffer that can wait in an [`Arena`].
pub(crate) trait Buffer: Default {
    /// How much it has room for.
    fn size(&self) -> usize;
}

impl Buffer for Vec<f32> {
    fn size(&self) -> usize {
        self.len()
    }
}

/// Buffers that nobody uses now.
#[derive(Debug)]
pub(crate) struct Arena<B> {
    free: Mutex<Vec<B>>,
}

impl<B> Default for Arena<B> {
    fn default() -> Self {
        Self { free: Mutex::default() }
    }
}

/// A buffer in use. It goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease<B: Buffer> {
    buffer: B,
    arena: Arc<Arena<B>>,
}

impl<B: Buffer> Arena<B> {
    /// The sum of what `measure` says of every buffer that nobody uses.
    pub(crate) fn sum(&self, measure: impl Fn(&B) -> usize) -> usize {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).iter().map(measure).sum()
    }

    /// The smallest free buffer that has room for `size`, else the largest, which the taker lets grow.
    pub(crate) fn take(self: &Arc<Self>, size: usize) -> Lease<B> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |buffer: &B| if buffer.size() >= size { (0, buffer.size()) } else { (1, usize::MAX - buffer.size()) };
        let best = free.iter().enumerate().min_by_key(|(_, buffer)| key(buffer)).map(|(i, _)| i);
        let buffer = best.map(|i| free.swap_remove(i)).unwrap_or_default();
        Lease { buffer, arena: Arc::clone(self) }
    }
}

impl Arena<Vec<f32>> {
    /// `len` numbers or more, whatever they are: a taker writes before it reads.
    pub(crate) fn numbers(self: &Arc<Self>, len: usize) -> Lease<Vec<f32>> {
        let mut lease = self.take(len);
        if lease.len() < len {
            // A larger one in its place; the old contents are not worth copying.
            lease.buffer = vec![0.0; len];
        }
        lease
    }
}

impl<B: Buffer> Deref for Lease<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.buffer
    }
}

impl<B: Buffer> DerefMut for Lease<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.buffer
    }
}

impl<B: Buffer> Drop for Lease<B> {
    fn drop(&mut self) {
        let mut free = self.arena.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < MOST {
            free.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_by_whom_it_fits_best() {
        let arena = Arc::new(Arena::<Vec<f32>>::default());
        let (small, large) = (arena.numbers(10), arena.numbers(100));
        let at = |lease: &Lease<Vec<f32>>| lease.as_ptr();
        let (small_at, large_at) = (at(&small), at(&large));
        drop((small, large));
        let (first, second) = (arena.numbers(7), arena.numbers(11));
        assert_eq!((at(&first), at(&second)), (small_at, large_at));
        assert!(arena.numbers(1000).len() >= 1000);
    }
}
