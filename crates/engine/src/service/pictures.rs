//! Encoded images, kept for prompts that show them again.

use std::collections::HashMap;

use super::Owner;

/// Images by owner and [hash](crate::prompt::image_hash); the least recently used go first.
pub(super) struct Pictures<T> {
    by_key: HashMap<(Owner, u64), Kept<T>>,
    bytes: usize,
    most_bytes: usize,
    clock: u64,
}

struct Kept<T> {
    features: T,
    bytes: usize,
    used: u64,
}

impl<T: Clone> Pictures<T> {
    /// Room for `most_bytes`.
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { by_key: HashMap::new(), bytes: 0, most_bytes, clock: 0 }
    }

    /// The rows of an image that was kept.
    pub(super) fn find(&mut self, key: (Owner, u64)) -> Option<T> {
        self.clock += 1;
        let kept = self.by_key.get_mut(&key)?;
        kept.used = self.clock;
        Some(kept.features.clone())
    }

    /// Keeps `features` of `bytes`, unless they are larger than all the room.
    pub(super) fn keep(&mut self, key: (Owner, u64), features: T, bytes: usize) {
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
        self.by_key.insert(key, Kept { features, bytes, used: self.clock });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_and_owners_are_apart() {
        let owner = |key| Owner { key, salt: 0 };
        let mut pictures = Pictures::new(10);
        pictures.keep((owner(1), 7), "a", 4);
        pictures.keep((owner(1), 8), "b", 4);
        assert_eq!((pictures.find((owner(1), 7)), pictures.find((owner(2), 7))), (Some("a"), None));
        pictures.keep((owner(1), 9), "c", 4);
        assert_eq!((pictures.find((owner(1), 8)), pictures.bytes), (None, 8));
        pictures.keep((owner(1), 10), "too large", 11);
        assert_eq!((pictures.find((owner(1), 10)), pictures.find((owner(1), 9))), (None, Some("c")));
    }
}
