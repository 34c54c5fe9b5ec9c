//! Which page belongs to whom. Pages are integers; their contents live in the device's cache.

use llama::PageRun;
use tensor::PAGE_LEN;

use crate::EngineError;

/// The free pages of one kind of layer.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Vec<u32>,
    n_pages: usize,
}

impl Pool {
    pub(crate) fn new(n_pages: u32) -> Self {
        Self { free: (0..n_pages).rev().collect(), n_pages: n_pages as usize }
    }

    pub(crate) fn n_free(&self) -> usize {
        self.free.len()
    }
}

/// The pages of one sequence in one pool, oldest first. Not freed by dropping: the pool must get them back through
/// [`truncate`](Self::truncate) or [`retire_before`](Self::retire_before).
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    pages: Vec<u32>,
    /// Position of the first slot of `pages[0]`.
    first_position: usize,
}

impl PageTable {
    pub(crate) fn run(&self) -> PageRun<'_> {
        PageRun { pages: &self.pages, first_position: self.first_position }
    }

    /// Takes pages from `pool` until positions before `end` have a slot.
    pub(crate) fn grow(&mut self, pool: &mut Pool, end: usize) -> Result<(), EngineError> {
        while self.first_position + self.pages.len() * PAGE_LEN < end {
            let page = pool.free.pop().ok_or(EngineError::Full { limit_tokens: pool.n_pages * PAGE_LEN })?;
            self.pages.push(page);
        }
        Ok(())
    }

    /// Gives back pages that hold only positions before `begin`.
    pub(crate) fn retire_before(&mut self, pool: &mut Pool, begin: usize) {
        let n_old = (begin.saturating_sub(self.first_position) / PAGE_LEN).min(self.pages.len());
        pool.free.extend(self.pages.drain(..n_old));
        self.first_position += n_old * PAGE_LEN;
    }

    /// Gives back pages that hold only positions from `end` on; an emptied table starts again at `end`.
    pub(crate) fn truncate(&mut self, pool: &mut Pool, end: usize) {
        let n_kept = end.saturating_sub(self.first_position).div_ceil(PAGE_LEN).min(self.pages.len());
        pool.free.extend(self.pages.drain(n_kept..));
        if self.pages.is_empty() {
            self.first_position = end / PAGE_LEN * PAGE_LEN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_free_or_in_one_table() {
        let mut pool = Pool::new(10);
        let mut table = PageTable::default();
        table.grow(&mut pool, 100).expect("seven pages");
        assert_eq!((pool.n_free(), table.pages.len()), (3, 7));
        table.retire_before(&mut pool, 47);
        assert_eq!((pool.n_free(), table.first_position), (5, 32));
        assert_eq!(table.run().slot(31), None);
        assert!(table.run().slot(32).is_some());
        table.truncate(&mut pool, 65);
        assert_eq!((pool.n_free(), table.pages.len()), (7, 3));
        table.truncate(&mut pool, 0);
        assert_eq!((pool.n_free(), table.first_position), (10, 0));
        assert!(matches!(table.grow(&mut pool, 161), Err(EngineError::Full { limit_tokens: 160 })));
        table.truncate(&mut pool, 0);
        let mut free = pool.free.clone();
        free.sort_unstable();
        assert_eq!(free, (0..10).collect::<Vec<_>>());
    }
}
