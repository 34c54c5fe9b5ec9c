//! Keys and values in pages, and attention over them.

use tensor::{OpError, PAGE_LEN, RowKeys};

use crate::kernels::{HeadGroup, Kernels};
use crate::pool::Pool;
use crate::values::Tensor;

/// Multiply-adds below which another thread is not worth its wake-up.
const GRAIN: usize = 1 << 14;

/// Keys and values of one layer: keys `[page][head][C][PAGE_LEN]`, values `[page][head][PAGE_LEN][C]`.
///
/// The memory comes zeroed from the operating system and is only taken when a page is first written.
#[derive(Debug)]
pub struct Pages {
    keys: Vec<f32>,
    values: Vec<f32>,
    n_pages: usize,
    n_heads: usize,
    head_len: usize,
}

impl Pages {
    pub(crate) fn new(n_pages: usize, n_heads: usize, head_len: usize) -> Result<Self, OpError> {
        let len = [n_heads, head_len, PAGE_LEN].iter().try_fold(n_pages, |len, n| len.checked_mul(*n));
        let len = len.filter(|len| *len <= isize::MAX as usize / size_of::<f32>());
        let len = len.ok_or_else(|| OpError::shape("pages", format!("{n_pages} pages overflow")))?;
        Ok(Self { keys: vec![0.0; len], values: vec![0.0; len], n_pages, n_heads, head_len })
    }

    pub(crate) fn n_pages(&self) -> usize {
        self.n_pages
    }

    pub(crate) fn n_heads(&self) -> usize {
        self.n_heads
    }

    /// Components of one head.
    pub(crate) fn head_len(&self) -> usize {
        self.head_len
    }

    /// Keys and values of one head in one page.
    #[inline(always)]
    pub(crate) fn page(&self, page: usize, head: usize) -> (&[f32], &[f32]) {
        let len = self.head_len * PAGE_LEN;
        let begin = (page * self.n_heads + head) * len;
        (&self.keys[begin..begin + len], &self.values[begin..begin + len])
    }

    /// Writes one row's keys and values, `[K·C]`, to a slot of a page that is there.
    pub(crate) fn write(&mut self, slot: usize, k: &[f32], v: &[f32]) {
        let (page, slot) = (slot / PAGE_LEN, slot % PAGE_LEN);
        let len = self.head_len * PAGE_LEN;
        let heads = k.chunks_exact(self.head_len).zip(v.chunks_exact(self.head_len));
        for (head, (k, v)) in heads.enumerate() {
            let begin = (page * self.n_heads + head) * len;
            for (key, k) in self.keys[begin + slot..begin + len].iter_mut().step_by(PAGE_LEN).zip(k) {
                *key = *k;
            }
            self.values[begin + slot * self.head_len..][..self.head_len].copy_from_slice(v);
        }
    }

    /// Attention of `q`, whose width is `group` query heads for each key head, over what `rows` may see.
    pub(crate) fn attend(
        &self,
        (pool, kernels): (&Pool, &dyn Kernels),
        q: &Tensor,
        group: usize,
        rows: &[RowKeys<'_>],
    ) -> Vec<f32> {
        let mut out = vec![0.0; q.values().len()];
        let len = group * self.head_len;
        let n_seen: usize = rows.iter().map(|row| row.end - row.begin).sum();
        let cost = (2 * len * n_seen).checked_div(rows.len()).unwrap_or(0).max(1);
        pool.chunks(&mut out, len, GRAIN.div_ceil(cost), |i, out| {
            let group = HeadGroup { pages: self, head: i % self.n_heads, row: &rows[i / self.n_heads] };
            kernels.attend(&q.values()[i * len..(i + 1) * len], group, out);
        });
        out
    }
}
