//! Keys and values in pages.

use half::slice::HalfFloatSliceExt;
use tensor::kv::quantise_head;
use tensor::quant::ACTIVATION_LEN;
use tensor::{KvFormat, OpError, PAGE_LEN};

use crate::aligned::Aligned;
use crate::device::GRAIN;
use crate::pool::{Disjoint, Pool};
use crate::values::Tensor;

/// Keys and values of one layer.
///
/// Of each page and head: keys `[C][PAGE_LEN]`, so that a vector lane is a position, and values `[PAGE_LEN][C]`, so that
/// a lane is a component. In eight bits the scales follow: `[C / 32][PAGE_LEN]` and `[PAGE_LEN][C / 32]`, rounded up.
///
/// The memory comes zeroed from the operating system and is only taken when a page is first written.
#[derive(Debug)]
pub struct Pages {
    keys: Aligned,
    values: Aligned,
    n_pages: usize,
    n_heads: usize,
    head_len: usize,
    format: KvFormat,
}

impl Pages {
    pub(crate) fn new(n_pages: usize, n_heads: usize, head_len: usize, format: KvFormat) -> Result<Self, OpError> {
        let too_large = || OpError::shape("pages", format!("{n_pages} pages overflow"));
        let factors = [n_heads, PAGE_LEN, format.bytes(head_len)];
        let len = factors.iter().try_fold(n_pages, |len, n| len.checked_mul(*n)).ok_or_else(too_large)?;
        let room = || Aligned::zeroed(len).ok_or_else(too_large);
        Ok(Self { keys: room()?, values: room()?, n_pages, n_heads, head_len, format })
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

    pub(crate) fn format(&self) -> KvFormat {
        self.format
    }

    /// Bytes of one head's keys, or values, in one page.
    fn head_bytes(&self) -> usize {
        PAGE_LEN * self.format.bytes(self.head_len)
    }

    /// Keys and values of one head in one page.
    #[inline(always)]
    pub(crate) fn page(&self, page: usize, head: usize) -> (&[u8], &[u8]) {
        let len = self.head_bytes();
        let begin = (page * self.n_heads + head) * len;
        (&self.keys[begin..begin + len], &self.values[begin..begin + len])
    }

    /// Writes rows of keys and values, `[K·C]` each, to slots of pages that are there, head by head on all threads.
    pub(crate) fn write(&mut self, pool: &Pool, slots: &[usize], k: &Tensor, v: &Tensor) {
        let (len, head_len, n_heads, format) = (self.head_bytes(), self.head_len, self.n_heads, self.format);
        let (keys, values) = (Disjoint::new(&mut self.keys), Disjoint::new(&mut self.values));
        pool.run(n_heads, GRAIN.div_ceil((2 * slots.len() * head_len).max(1)), &|heads| {
            for head in heads {
                for (i, slot) in slots.iter().enumerate() {
                    let (page, slot) = (slot / PAGE_LEN, slot % PAGE_LEN);
                    let begin = (page * n_heads + head) * len;
                    // SAFETY: heads' parts of pages do not overlap, and `run` hands out each head once.
                    let (keys, values) = unsafe { (keys.part(begin..begin + len), values.part(begin..begin + len)) };
                    let row = [k, v].map(|x| &x.row(i)[head * head_len..(head + 1) * head_len]);
                    match format {
                        KvFormat::F32 => put_f32(keys, values, slot, row),
                        KvFormat::F16 => put_f16(keys, values, slot, row),
                        KvFormat::Q8 => put_q8(keys, values, slot, row),
                    }
                }
            }
        });
    }
}

/// Writes a slot of one head's page.
fn put_f32(keys: &mut [u8], values: &mut [u8], slot: usize, [k, v]: [&[f32]; 2]) {
    for (key, k) in keys.as_chunks_mut::<4>().0.iter_mut().skip(slot).step_by(PAGE_LEN).zip(k) {
        *key = k.to_le_bytes();
    }
    for (value, v) in values.as_chunks_mut::<4>().0[slot * v.len()..].iter_mut().zip(v) {
        *value = v.to_le_bytes();
    }
}

/// The same in half precision, some numbers at a time: a processor turns several at once.
fn put_f16(keys: &mut [u8], values: &mut [u8], slot: usize, [k, v]: [&[f32]; 2]) {
    const LEN: usize = 64;
    let mut halves = [half::f16::ZERO; LEN];
    let mut keys = keys.as_chunks_mut::<2>().0.iter_mut().skip(slot).step_by(PAGE_LEN);
    for k in k.chunks(LEN) {
        let halves = &mut halves[..k.len()];
        halves.convert_from_f32_slice(k);
        for (half, key) in halves.iter().zip(&mut keys) {
            *key = half.to_le_bytes();
        }
    }
    for (v, values) in v.chunks(LEN).zip(values.as_chunks_mut::<2>().0[slot * v.len()..].chunks_mut(LEN)) {
        let halves = &mut halves[..v.len()];
        halves.convert_from_f32_slice(v);
        for (half, value) in halves.iter().zip(values) {
            *value = half.to_le_bytes();
        }
    }
}

/// The same in eight bits, scale by scale.
fn put_q8(keys: &mut [u8], values: &mut [u8], slot: usize, [k, v]: [&[f32]; 2]) {
    let (len, n_blocks) = (k.len(), k.len().div_ceil(ACTIVATION_LEN));
    let (keys, key_scales) = keys.split_at_mut(len * PAGE_LEN);
    let (values, value_scales) = values.split_at_mut(len * PAGE_LEN);
    for (block, (k, v)) in k.chunks(ACTIVATION_LEN).zip(v.chunks(ACTIVATION_LEN)).enumerate() {
        let first = block * ACTIVATION_LEN;
        let (scale, q) = quantise_head(k);
        key_scales.as_chunks_mut::<4>().0[block * PAGE_LEN + slot] = scale.to_le_bytes();
        for (i, q) in q[..k.len()].iter().enumerate() {
            keys[(first + i) * PAGE_LEN + slot] = q.cast_unsigned();
        }
        let (scale, q) = quantise_head(v);
        value_scales.as_chunks_mut::<4>().0[slot * n_blocks + block] = scale.to_le_bytes();
        for (i, q) in q[..v.len()].iter().enumerate() {
            values[slot * len + first + i] = q.cast_unsigned();
        }
    }
}
