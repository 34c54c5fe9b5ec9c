//! Zeroed bytes on a page boundary.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use tensor::READ_ALIGN;

/// Bytes of a cache line.
pub(crate) const LINE: usize = tensor::packed::LINE;

/// From this many bytes on, memory comes from the operating system page by page as it is touched. The allocator zeroes
/// what it aligns, and so would touch keys and values of positions that no sequence reaches.
const LARGE: usize = 1 << 17;

/// Bytes that begin on a page, and so on a cache line, and can be filled by direct I/O. Large ones come zeroed from the
/// operating system, so untouched pages cost nothing and the thread that packs a weight is the first to touch it.
pub(crate) struct Aligned {
    start: NonNull<u8>,
    len: usize,
    from: From,
}

/// Where the bytes came from, and go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Nowhere,
    Allocator,
    #[cfg(target_os = "linux")]
    System,
}

// SAFETY: the bytes are owned and reached only through `&self` and `&mut self`, as with a `Box<[u8]>`.
unsafe impl Send for Aligned {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// `len` zeros; `None` if no allocation can be that large.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len, READ_ALIGN).ok()?;
        if len == 0 {
            return Some(Self { start: NonNull::<Page>::dangling().cast(), len, from: From::Nowhere });
        }
        #[cfg(target_os = "linux")]
        if len >= LARGE {
            return match system::map(len) {
                Some(start) => Some(Self { start, len, from: From::System }),
                None => handle_alloc_error(layout),
            };
        }
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Some(Self { start, len, from: From::Allocator }),
            None => handle_alloc_error(layout),
        }
    }

    /// Keeps the bytes in memory, so that the system pages out something else. Whether it agreed: there is a limit for
    /// processes without privileges, and small pieces are not worth a page each.
    pub(crate) fn lock(&mut self) -> bool {
        match self.from {
            From::Nowhere | From::Allocator => true,
            #[cfg(target_os = "linux")]
            From::System => system::lock(self.start, self.len),
        }
    }
}

#[repr(align(4096))]
struct Page;

const _: () = assert!(align_of::<Page>() == READ_ALIGN && READ_ALIGN.is_multiple_of(LINE));

/// Memory straight from the operating system.
#[cfg(target_os = "linux")]
mod system {
    use std::ptr::{NonNull, null_mut};

    use rustix::mm::{MapFlags, ProtFlags, mlock, mmap_anonymous, munmap};

    pub(super) fn map(len: usize) -> Option<NonNull<u8>> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the system's choice touches no memory of ours.
        let start = unsafe { mmap_anonymous(null_mut(), len, prot, MapFlags::PRIVATE) };
        NonNull::new(start.ok()?.cast())
    }

    pub(super) fn lock(start: NonNull<u8>, len: usize) -> bool {
        // SAFETY: locking changes where pages are, not what they hold; the range is a mapping of `map`'s.
        unsafe { mlock(start.as_ptr().cast(), len) }.is_ok()
    }

    /// # Safety
    /// `start` and `len` are a mapping of `map`'s that nobody uses any more.
    pub(super) unsafe fn unmap(start: NonNull<u8>, len: usize) {
        // SAFETY: by this function's contract. It can only fail for a range that is no mapping.
        let _ = unsafe { munmap(start.as_ptr().cast(), len) };
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

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        match self.from {
            From::Nowhere => {}
            From::Allocator => {
                if let Ok(layout) = Layout::from_size_align(self.len, READ_ALIGN) {
                    // SAFETY: allocated in `zeroed` with this very layout.
                    unsafe { dealloc(self.start.as_ptr(), layout) };
                }
            }
            // SAFETY: mapped in `zeroed`, and self is the only user.
            #[cfg(target_os = "linux")]
            From::System => unsafe { system::unmap(self.start, self.len) },
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
    fn bytes_begin_on_a_page_and_are_zero() {
        for len in [0, 1, 63, 64, 65, LARGE - 1, LARGE, LARGE + 1, 1 << 20] {
            let mut bytes = Aligned::zeroed(len).unwrap();
            assert_eq!((bytes.len(), bytes.as_ptr() as usize % READ_ALIGN), (len, 0));
            assert!(bytes.iter().all(|b| *b == 0));
            bytes.fill(7);
            assert_eq!(bytes.iter().map(|b| usize::from(*b)).sum::<usize>(), 7 * len);
        }
        assert!(Aligned::zeroed(usize::MAX).is_none());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn untouched_pages_take_no_memory() {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let before = resident();
        let bytes = Aligned::zeroed(1 << 30).unwrap();
        assert!(resident() < before + (1 << 29), "{} before, {} now", before, resident());
        assert_eq!(bytes.len(), 1 << 30);
    }
}
