//! Buffers that are used again, so that a step neither asks the system for memory nor touches new pages.

use std::ops::{Deref, DerefMut, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Buffers that nobody uses now. With those in use they take no more than the most that were ever in use together.
#[derive(Debug)]
pub(crate) struct Arena<B> {
    state: Mutex<State<B>>,
}

#[derive(Debug)]
struct State<B> {
    free: Vec<B>,
    /// Sizes of the free ones and of those in use together, and the most that the latter came to.
    n_free: usize,
    n_used: usize,
    most: usize,
}

impl<B> Default for Arena<B> {
    fn default() -> Self {
        Self { state: Mutex::new(State { free: Vec::new(), n_free: 0, n_used: 0, most: 0 }) }
    }
}

/// A buffer in use. It goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease<B: Buffer> {
    buffer: B,
    /// What it counts as.
    size: usize,
    arena: Arc<Arena<B>>,
}

impl<B: Buffer> Arena<B> {
    /// The sum of what `measure` says of every buffer that nobody uses.
    pub(crate) fn sum(&self, measure: impl Fn(&B) -> usize) -> usize {
        self.state().free.iter().map(measure).sum()
    }

    /// The smallest free buffer that has room for `len` and hardly more; else an empty one, which the taker lets grow,
    /// as long as no more memory is used than ever before; else the smallest that has room; else an empty one in place
    /// of the largest.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Lease<B> {
        let size = class(len);
        let mut state = self.state();
        let buffer = match state.smallest(len..=size.saturating_add(size / FITS)) {
            Some(buffer) => buffer,
            None if state.n_free + state.n_used + size <= state.most => B::default(),
            None => state.smallest(len..=usize::MAX).unwrap_or_else(|| {
                while state.n_free + state.n_used + size > state.most && state.take_largest().is_some() {}
                B::default()
            }),
        };
        let size = buffer.size().max(size);
        state.n_used += size;
        state.most = state.most.max(state.n_used);
        Lease { buffer, size, arena: Arc::clone(self) }
    }

    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer fits what it is larger than by no more than this part.
const FITS: usize = 4;
/// Sizes of buffers between two powers of two: steps that differ a little use the same ones.
const CLASSES: usize = 8;

/// The size that a buffer for `len` is made with.
pub(crate) fn class(len: usize) -> usize {
    let grain = (len.checked_next_power_of_two().unwrap_or(1) / (2 * CLASSES)).max(1);
    len.checked_next_multiple_of(grain).unwrap_or(len)
}

impl<B: Buffer> State<B> {
    /// Takes out the smallest free buffer of these sizes.
    fn smallest(&mut self, sizes: RangeInclusive<usize>) -> Option<B> {
        let free = self.free.iter().enumerate().filter(|(_, buffer)| sizes.contains(&buffer.size()));
        let at = free.min_by_key(|(_, buffer)| buffer.size()).map(|(at, _)| at)?;
        Some(self.remove(at))
    }

    fn take_largest(&mut self) -> Option<B> {
        let at = self.free.iter().enumerate().max_by_key(|(_, buffer)| buffer.size()).map(|(at, _)| at)?;
        Some(self.remove(at))
    }

    fn remove(&mut self, at: usize) -> B {
        let buffer = self.free.swap_remove(at);
        self.n_free -= buffer.size();
        buffer
    }
}

impl Arena<Vec<f32>> {
    /// `len` numbers or more, whatever they are: a taker writes before it reads.
    pub(crate) fn numbers(self: &Arc<Self>, len: usize) -> Lease<Vec<f32>> {
        let mut lease = self.take(len);
        if lease.len() < len {
            // A larger one in its place; the old contents are not worth copying.
            lease.buffer = vec![0.0; class(len)];
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
        let mut state = self.arena.state();
        state.n_used -= self.size;
        state.n_free += self.buffer.size();
        state.free.push(std::mem::take(&mut self.buffer));
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
        for len in [0, 1, 15, 16, 17, 1000, 4075, usize::MAX] {
            assert!(class(len) >= len && class(len) - len <= len / 8, "{len}: {}", class(len));
        }
        assert_eq!(class(4075), class(4096));
        assert!(arena.numbers(1000).len() >= 1000);
    }

    #[test]
    fn buffers_take_no_more_than_were_ever_in_use_together() {
        let arena = Arc::new(Arena::<Vec<f32>>::default());
        let all = |arena: &Arena<Vec<f32>>| arena.sum(Vec::len);
        drop([arena.numbers(1000), arena.numbers(500)]);
        assert_eq!(all(&arena), class(1000) + class(500));
        // One after another needs no more than the largest together.
        for len in [900, 700, 1, 1200, 1500, 30] {
            drop(arena.numbers(len));
            assert!(all(&arena) <= class(1500) + class(30), "{len}: {}", all(&arena));
        }
        drop([arena.numbers(1500), arena.numbers(10)]);
        assert_eq!(all(&arena), class(1500) + class(10));
    }
}
