//! Shared, immutable bytes that keep their owner alive: usually a slice of a mapped file.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// A range of bytes of some shared owner (a mapped file, a vector). Cloning copies two words and a count.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Bytes {
    /// All bytes of `owner`.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let len = owner.as_ref().len();
        Self { owner: Arc::new(owner), range: 0..len }
    }

    /// The part `range` of these bytes, or `None` where it does not lie inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let begin = self.range.start + range.start;
        Some(Self { owner: Arc::clone(&self.owner), range: begin..begin + (range.end - range.start) })
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
        &(*self.owner).as_ref()[self.range.clone()]
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
    }
}
