//! Which page belongs to whom. Pages are integers; their contents live in the device's cache.

use llama::PageRun;
use tensor::PAGE_LEN;

use crate::EngineError;

/// The pages of one kind of layer, counted by how many hold each.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Vec<u32>,
    n_holders: Vec<u32>,
    /// Whether the prefix cache is among a page's holders.
    is_kept: Vec<bool>,
    /// Pages that the prefix cache alone holds.
    n_kept_alone: usize,
}

impl Pool {
    pub(crate) fn new(n_pages: u32) -> Self {
        let n = n_pages as usize;
        Self { free: (0..n_pages).rev().collect(), n_holders: vec![0; n], is_kept: vec![false; n], n_kept_alone: 0 }
    }

    pub(crate) fn n_free(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn n_pages(&self) -> usize {
        self.n_holders.len()
    }

    /// Pages that nobody but the prefix cache holds.
    pub(crate) fn n_kept_alone(&self) -> usize {
        self.n_kept_alone
    }

    pub(crate) fn n_holders(&self, page: u32) -> u32 {
        self.n_holders[page as usize]
    }

    /// A free page, held once.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.n_holders[page as usize] = 1;
        Some(page)
    }

    /// One more holder of `page`.
    pub(crate) fn share(&mut self, page: u32) -> u32 {
        let i = page as usize;
        assert!(self.n_holders[i] > 0, "page {page} is shared by somebody who holds it");
        if self.is_kept[i] && self.n_holders[i] == 1 {
            self.n_kept_alone -= 1;
        }
        self.n_holders[i] += 1;
        page
    }

    /// One holder less of `page`, which is free after the last one.
    pub(crate) fn release(&mut self, page: u32) {
        let i = page as usize;
        assert!(self.n_holders[i] > 0, "page {page} is given back by somebody who holds it");
        self.n_holders[i] -= 1;
        match self.n_holders[i] {
            0 => self.free.push(page),
            1 if self.is_kept[i] => self.n_kept_alone += 1,
            _ => {}
        }
    }

    /// The prefix cache becomes one more holder of `page`.
    pub(crate) fn keep(&mut self, page: u32) -> u32 {
        self.share(page);
        self.is_kept[page as usize] = true;
        page
    }

    /// The prefix cache holds `page` no longer.
    pub(crate) fn forget(&mut self, page: u32) {
        let i = page as usize;
        if self.n_holders[i] == 1 {
            self.n_kept_alone -= 1;
        }
        self.is_kept[i] = false;
        self.release(page);
    }

    /// Whether the counts are those that `holders` (every page as often as somebody holds it) and `kept` (those of the
    /// prefix cache, which are among them) give.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn audit(&self, holders: &[u32], kept: &[u32]) -> Result<(), String> {
        let count = |of: &[u32]| {
            let mut n = vec![0u32; self.n_pages()];
            of.iter().for_each(|page| n[*page as usize] += 1);
            n
        };
        let (held, kept) = (count(holders), count(kept));
        let mut free = self.free.clone();
        free.sort_unstable();
        let want: Vec<u32> = (0u32..).zip(&held).filter(|(_, n)| **n == 0).map(|(page, _)| page).collect();
        if held != self.n_holders {
            return Err(format!("pages are held {held:?} times and counted {:?} times", self.n_holders));
        }
        if free != want {
            return Err(format!("pages {free:?} are free; nobody holds {want:?}"));
        }
        if kept.iter().zip(&self.is_kept).any(|(n, is_kept)| *n != u32::from(*is_kept)) {
            return Err("the prefix cache holds other pages than are marked as kept".into());
        }
        let n_alone = held.iter().zip(&kept).filter(|(held, kept)| **held == 1 && **kept == 1).count();
        match n_alone == self.n_kept_alone {
            true => Ok(()),
            false => Err(format!("{n_alone} pages are kept alone, {} are counted", self.n_kept_alone)),
        }
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
    /// `pages` from `first_position` on, which is a multiple of [`PAGE_LEN`]; each already held once more.
    pub(crate) fn holding(pages: Vec<u32>, first_position: usize) -> Self {
        Self { pages, first_position }
    }

    pub(crate) fn run(&self) -> PageRun<'_> {
        PageRun { pages: &self.pages, first_position: self.first_position }
    }

    pub(crate) fn pages(&self) -> &[u32] {
        &self.pages
    }

    pub(crate) fn first_position(&self) -> usize {
        self.first_position
    }

    /// One past the last position that has a slot.
    pub(crate) fn end(&self) -> usize {
        self.first_position + self.pages.len() * PAGE_LEN
    }

    /// The page that holds `position`.
    pub(crate) fn page_at(&self, position: usize) -> Option<u32> {
        self.pages.get(position.checked_sub(self.first_position)? / PAGE_LEN).copied()
    }

    /// Puts `page`, already held once more, in the place of the page that holds `position`, which is given back.
    pub(crate) fn replace(&mut self, pool: &mut Pool, position: usize, page: u32) {
        if let Some(held) = self.pages.get_mut((position - self.first_position) / PAGE_LEN) {
            pool.release(std::mem::replace(held, page));
        }
    }

    /// The same pages, held once more each.
    pub(crate) fn shared(&self, pool: &mut Pool) -> Self {
        let pages = self.pages.iter().map(|page| pool.share(*page)).collect();
        Self { pages, first_position: self.first_position }
    }

    /// Pages that are missing until positions before `end` have a slot.
    pub(crate) fn n_missing(&self, end: usize) -> usize {
        end.saturating_sub(self.end()).div_ceil(PAGE_LEN)
    }

    /// Takes pages from `pool` until positions before `end` have a slot.
    ///
    /// # Errors
    /// [`EngineError::Full`]; what was taken until then stays.
    pub(crate) fn grow(&mut self, pool: &mut Pool, end: usize) -> Result<(), EngineError> {
        for _ in 0..self.n_missing(end) {
            let page = pool.take().ok_or(EngineError::Full { limit_tokens: pool.n_pages() * PAGE_LEN })?;
            self.pages.push(page);
        }
        Ok(())
    }

    /// Gives back pages that hold only positions before `begin`.
    pub(crate) fn retire_before(&mut self, pool: &mut Pool, begin: usize) {
        let n_old = (begin.saturating_sub(self.first_position) / PAGE_LEN).min(self.pages.len());
        self.pages.drain(..n_old).for_each(|page| pool.release(page));
        self.first_position += n_old * PAGE_LEN;
    }

    /// Gives back pages that hold only positions from `end` on; an emptied table starts again at `end`.
    pub(crate) fn truncate(&mut self, pool: &mut Pool, end: usize) {
        let n_kept = end.saturating_sub(self.first_position).div_ceil(PAGE_LEN).min(self.pages.len());
        self.pages.drain(n_kept..).for_each(|page| pool.release(page));
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
        assert_eq!(pool.audit(&[], &[]), Ok(()));
    }

    #[test]
    fn a_shared_page_is_free_after_its_last_holder() {
        let mut pool = Pool::new(3);
        let mut table = PageTable::default();
        table.grow(&mut pool, 40).expect("three pages");
        let mut other = table.shared(&mut pool);
        let kept = pool.keep(table.pages[0]);
        table.truncate(&mut pool, 0);
        assert_eq!((pool.n_free(), pool.n_kept_alone()), (0, 0));
        other.truncate(&mut pool, 0);
        assert_eq!((pool.n_free(), pool.n_kept_alone()), (2, 1));
        assert_eq!(pool.audit(&[kept], &[kept]), Ok(()));
        assert!(pool.audit(&[kept, kept], &[kept]).is_err() && pool.audit(&[], &[]).is_err());
        pool.forget(kept);
        assert_eq!((pool.n_free(), pool.n_kept_alone()), (3, 0));
    }
}
