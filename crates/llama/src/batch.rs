//! The rows of one step.

use tensor::{PAGE_LEN, RowKeys};

/// What stands at a row's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A token.
    Token(u32),
    /// Row `row` of the step's feature tensor `features`: a piece of an image.
    Feature {
        /// Index into [`Batch::features`].
        features: usize,
        /// Row of that tensor.
        row: usize,
    },
}

/// The pages of one sequence in one pool, oldest first.
#[derive(Debug, Clone, Copy, Default)]
pub struct PageRun<'a> {
    /// Page ids.
    pub pages: &'a [u32],
    /// Absolute position of the first slot of `pages[0]`, a multiple of [`PAGE_LEN`].
    pub first_position: usize,
}

impl<'a> PageRun<'a> {
    /// Where `position` is stored, if these pages hold it.
    pub fn slot(&self, position: usize) -> Option<usize> {
        let index = position.checked_sub(self.first_position)? / PAGE_LEN;
        self.pages.get(index).map(|page| *page as usize * PAGE_LEN + position % PAGE_LEN)
    }

    pub(crate) fn keys(&self, begin: usize, end: usize) -> RowKeys<'a> {
        RowKeys { pages: self.pages, first_position: self.first_position, begin, end }
    }
}

/// One position of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// What stands there.
    pub input: Input,
    /// Position from the sequence's first token, 0-based.
    pub position: usize,
    /// The sequence's pages in the layers that see everything.
    pub global: PageRun<'a>,
    /// Its pages in the layers that see the current chunk; unused by models without chunks.
    pub chunked: PageRun<'a>,
    /// Whether logits are wanted for this row.
    pub wants_logits: bool,
}

/// The rows of one step. A row sees those before it in the same sequence, whether they are in this step or stored.
#[derive(Debug)]
pub struct Batch<'a, T> {
    /// Rows; those of one sequence in order of position.
    pub rows: &'a [Row<'a>],
    /// Feature tensors that [`Input::Feature`] points into, `[_, D]`.
    pub features: &'a [&'a T],
}
