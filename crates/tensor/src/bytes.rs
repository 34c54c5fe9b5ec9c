//! Shared, immutable bytes that keep their owner alive: usually a slice of a mapped file.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// What buffers that [`Bytes::read`] fills are aligned to: what direct I/O asks of any disk.
pub const READ_ALIGN: usize = 4096;

/// Who holds bytes that others share.
pub trait Owner: Send + Sync {
    /// All of them.
    fn bytes(&self) -> &[u8];

    /// Copies those of `range`, which lies inside, into `buffer` without looking at [`bytes`](Self::bytes), and returns
    /// where in `buffer` they begin. See [`Bytes::read`], which checks the lengths.
    ///
    /// # Errors
    /// [`ReadError`] if they are not there any more.
    fn read(&self, range: Range<usize>, buffer: &mut [u8]) -> Result<usize, ReadError>;

    /// Nobody will look at those of `range` soon; see [`Bytes::release`].
    fn release(&self, _range: Range<usize>) {}
}

/// Bytes that were there when a file was opened could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {why}")]
pub struct ReadError {
    /// The file.
    pub file: String,
    /// What went wrong, and where.
    pub why: String,
}

/// A range of bytes of some shared owner (a mapped file, a vector). Cloning copies two words and a count.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn Owner>,
    range: Range<usize>,
}

/// Bytes in memory.
struct Held<T>(T);

impl<T: AsRef<[u8]> + Send + Sync> Owner for Held<T> {
    fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }

    fn read(&self, range: Range<usize>, buffer: &mut [u8]) -> Result<usize, ReadError> {
        buffer[..range.len()].copy_from_slice(&self.bytes()[range]);
        Ok(0)
    }
}

impl Bytes {
    /// All bytes of `owner`, which has them in memory.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::of(Held(owner))
    }

    /// All bytes of `owner`.
    pub fn of(owner: impl Owner + 'static) -> Self {
        let len = owner.bytes().len();
        Self { owner: Arc::new(owner), range: 0..len }
    }

    /// The part `range` of these bytes, or `None` where it does not lie inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        let range = self.absolute(&range)?;
        Some(Self { owner: Arc::clone(&self.owner), range })
    }

    fn absolute(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let inside = range.start <= range.end && range.end <= self.len();
        inside.then(|| self.range.start + range.start..self.range.start + range.end)
    }

    /// Copies the part `range` into `buffer` and returns where in `buffer` it begins. A mapped file is read past its
    /// mapping and, where the file system allows it, past the system's cache, in whole blocks: so `buffer` begins at a
    /// multiple of [`READ_ALIGN`] and has room for [`room`](Self::room) bytes, and the part begins where it lies in its
    /// block.
    ///
    /// # Errors
    /// [`ReadError`], which names the file, if the bytes can not be read: a broken disk, or a file that was shortened.
    ///
    /// # Panics
    /// If `range` does not lie inside or `buffer` is too short.
    pub fn read(&self, range: Range<usize>, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let absolute = self.absolute(&range);
        assert!(absolute.is_some() && buffer.len() >= Self::room(range.len()), "{range:?} of {} bytes", self.len());
        self.owner.read(absolute.unwrap_or(0..0), buffer)
    }

    /// Says that these bytes will not be looked at soon. The pages of a mapped file leave this process's memory and stay
    /// in the system's cache; whoever looks at them after all finds them there.
    pub fn release(&self) {
        self.owner.release(self.range.clone());
    }

    /// How long a buffer has to be for [`read`](Self::read) of `len` bytes, whole blocks around them included.
    pub fn room(len: usize) -> usize {
        len.next_multiple_of(READ_ALIGN) + READ_ALIGN
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_a_slice_counts_from_the_inner_start() {
        let all = Bytes::from((0u8..10).collect::<Vec<_>>());
        let inner = all.slice(2..8).and_then(|s| s.slice(1..3));
        assert_eq!(inner.as_deref(), Some(&[3u8, 4][..]));
        assert!(all.slice(2..11).is_none());
        assert!(all.slice(0..4).and_then(|s| s.slice(3..5)).is_none());
        let mut buffer = vec![0; Bytes::room(2)];
        let at = inner.map(|inner| inner.read(0..2, &mut buffer));
        assert_eq!((at, &buffer[..2]), (Some(Ok(0)), &[3, 4][..]));
    }
}
