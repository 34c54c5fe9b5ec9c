//! Keys and values in pages.

use tensor::kv::quantise_head;
use tensor::quant::ACTIVATION_LEN;
use tensor::{KvFormat, OpError, PAGE_LEN};

use crate::aligned::Aligned;

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

    /// Writes one row's keys and values, `[K·C]`, to a slot of a page that is there.
    pub(crate) fn write(&mut self, slot: usize, k: &[f32], v: &[f32]) {
        let (page, slot) = (slot / PAGE_LEN, slot % PAGE_LEN);
        let (len, head_len, format) = (self.head_bytes(), self.head_len, self.format);
        let heads = k.chunks_exact(head_len).zip(v.chunks_exact(head_len));
        for (head, (k, v)) in heads.enumerate() {
            let begin = (page * self.n_heads + head) * len;
            let (keys, values) = (&mut self.keys[begin..begin + len], &mut self.values[begin..begin + len]);
            match format {
                KvFormat::F32 => put(keys, values, slot, [k, v], f32::to_le_bytes),
                KvFormat::F16 => put(keys, values, slot, [k, v], |x| half::f16::from_f32(x).to_le_bytes()),
                KvFormat::Q8 => put_q8(keys, values, slot, [k, v]),
            }
        }
    }
}

/// Writes a slot of one head's page, every number by itself.
fn put<const BYTES: usize>(
    keys: &mut [u8],
    values: &mut [u8],
    slot: usize,
    [k, v]: [&[f32]; 2],
    bytes: impl Fn(f32) -> [u8; BYTES],
) {
    let keys = keys.as_chunks_mut::<BYTES>().0.iter_mut().skip(slot).step_by(PAGE_LEN);
    for (key, k) in keys.zip(k) {
        *key = bytes(*k);
    }
    let values = values.as_chunks_mut::<BYTES>().0[slot * v.len()..].iter_mut();
    for (value, v) in values.zip(v) {
        *value = bytes(*v);
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
