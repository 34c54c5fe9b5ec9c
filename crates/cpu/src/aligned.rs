//! Zeroed bytes on a cache-line boundary.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes of a cache line, and the alignment of [`Aligned`].
pub(crate) const LINE: usize = align_of::<Line>();

#[repr(align(64))]
struct Line;

/// Bytes that begin on a cache line. They come zeroed from the operating system, so untouched pages cost nothing and
/// the thread that packs a weight is the first to touch it.
pub(crate) struct Aligned {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes are owned and reached only through `&self` and `&mut self`, as with a `Box<[u8]>`.
unsafe impl Send for Aligned {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// `len` zeros; `None` if no allocation can be that large.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len, LINE).ok()?;
        if len == 0 {
            return Some(Self { start: NonNull::<Line>::dangling().cast(), len });
        }
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Some(Self { start, len }),
            None => handle_alloc_error(layout),
        }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `len` initialised bytes owned by self, or dangles for `len` 0.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        if let Ok(layout) = Layout::from_size_align(self.len, LINE) {
            // SAFETY: allocated in `zeroed` with this very layout.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

impl std::fmt::Debug for Aligned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Aligned({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_begin_on_a_line_and_are_zero() {
        for len in [0, 1, 63, 64, 65, 1 << 20] {
            let mut bytes = Aligned::zeroed(len).unwrap();
            assert_eq!((bytes.len(), bytes.as_ptr() as usize % LINE), (len, 0));
            assert!(bytes.iter().all(|b| *b == 0));
            bytes.fill(7);
            assert_eq!(bytes.iter().map(|b| usize::from(*b)).sum::<usize>(), 7 * len);
        }
        assert!(Aligned::zeroed(usize::MAX).is_none());
    }
}
