//! Encoded images and clips, kept for prompts that hold them again.

use std::collections::HashMap;

use super::Owner;

/// Their rows by owner and [key](crate::media::Media::keys), and what goes on from there if more may come; the least recently
/// used go first.
pub(super) struct Rows<T, S> {
    by_key: HashMap<(Owner, u64), Kept<T, S>>,
    bytes: usize,
    most_bytes: usize,
    clock: u64,
}

struct Kept<T, S> {
    rows: T,
    stream: Option<S>,
    bytes: usize,
    used: u64,
}

impl<T: Clone, S> Rows<T, S> {
    /// Room for `most_bytes`.
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { by_key: HashMap::new(), bytes: 0, most_bytes, clock: 0 }
    }

    /// What was kept of an image or a clip.
    pub(super) fn find(&mut self, key: (Owner, u64)) -> Option<T> {
        self.clock += 1;
        let kept = self.by_key.get_mut(&key)?;
        kept.used = self.clock;
        Some(kept.rows.clone())
    }

    /// Takes what was kept away to go on from there: what comes of it is kept in its place.
    pub(super) fn take(&mut self, key: (Owner, u64)) -> Option<(T, S)> {
        self.by_key.get(&key)?.stream.as_ref()?;
        let kept = self.by_key.remove(&key)?;
        self.bytes -= kept.bytes;
        Some((kept.rows, kept.stream?))
    }

    /// Keeps rows, and what goes on from there, of `bytes` together, unless they are larger than all the room.
    pub(super) fn keep(&mut self, key: (Owner, u64), (rows, stream): (T, Option<S>), bytes: usize) {
        if bytes > self.most_bytes || self.by_key.contains_key(&key) {
            return;
        }
        while self.bytes + bytes > self.most_bytes {
            let oldest = self.by_key.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key);
            let Some(gone) = oldest.and_then(|key| self.by_key.remove(&key)) else { break };
            self.bytes -= gone.bytes;
        }
        self.clock += 1;
        self.bytes += bytes;
        self.by_key.insert(key, Kept { rows, stream, bytes, used: self.clock });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_and_owners_are_apart() {
        let owner = |key| Owner { key, salt: 0 };
        let mut kept = Rows::<_, ()>::new(10);
        kept.keep((owner(1), 7), ("a", None), 4);
        kept.keep((owner(1), 8), ("b", None), 4);
        assert_eq!((kept.find((owner(1), 7)), kept.find((owner(2), 7))), (Some("a"), None));
        kept.keep((owner(1), 9), ("c", None), 4);
        assert_eq!((kept.find((owner(1), 8)), kept.bytes), (None, 8));
        kept.keep((owner(1), 10), ("too large", None), 11);
        assert_eq!((kept.find((owner(1), 10)), kept.find((owner(1), 9))), (None, Some("c")));
    }

    #[test]
    fn what_goes_on_is_taken_away_once() {
        let owner = Owner { key: 1, salt: 0 };
        let mut kept = Rows::new(10);
        kept.keep((owner, 7), ("whole", None), 4);
        kept.keep((owner, 8), ("begun", Some("stream")), 6);
        assert_eq!((kept.take((owner, 7)), kept.find((owner, 7))), (None, Some("whole")));
        assert_eq!((kept.find((owner, 8)), kept.bytes), (Some("begun"), 10));
        assert_eq!((kept.take((owner, 8)), kept.bytes), (Some(("begun", "stream")), 4));
        assert_eq!((kept.take((owner, 8)), kept.find((owner, 8))), (None, None));
    }
}
