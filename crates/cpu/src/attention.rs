//! Attention: which thread computes which query heads, and the kernel.

use std::marker::PhantomData;
use std::ops::Range;

use tensor::quant::ACTIVATION_LEN;
use tensor::{DENSE_BLOCK, KvFormat, PAGE_LEN, RowKeys, math};

use crate::kernels::{Kernels, ROWS};
use crate::pages::Pages;
use crate::pool::{Disjoint, Pool};
use crate::simd::{Simd, Work, with_columns};
use crate::values::Tensor;

/// Query heads that read a page together.
const TILE: usize = 8;
/// Pages whose values are added before the sums are written.
const PAGES: usize = 4;
/// Components of a key whose code stands side by side.
const UNROLLED: usize = 4;
/// Multiply-adds below which another thread is not worth its wake-up.
const GRAIN: usize = 1 << 14;

/// One query head of one row.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    /// `[C]`.
    q: &'a [f32],
    seen: &'a RowKeys<'a>,
}

/// Query heads that read the same key head of the same pages, at most [`TILE`], and where their results go.
pub(crate) struct Queries<'a, 'b> {
    pages: &'a Pages,
    /// The key head.
    head: usize,
    queries: &'b [Query<'a>],
    /// `[C]` each, zeros.
    out: &'b mut [&'a mut [f32]],
}

/// Attention of `q`, whose width is `group` query heads for each key head, over what `rows` may see,
/// into `out`.
pub(crate) fn attend(
    (pool, kernels): (&Pool, &dyn Kernels),
    pages: &Pages,
    q: &Tensor,
    group: usize,
    rows: &[RowKeys<'_>],
    out: &mut [f32],
) {
    let len = pages.head_len();
    out.fill(0.0);
    let runs = runs(rows);
    let n_seen: usize = rows.iter().map(|row| row.end - row.begin).sum();
    // A unit is a key head and as many queries as make enough units to share out evenly.
    let n_queries = rows.len() * group;
    let tile = TILE.min((n_queries * pages.n_heads()).div_ceil(4 * pool.n_threads()).max(1));
    // A head's keys and values stay in the second-level cache while all its queries go through them.
    let units: Vec<(usize, Range<usize>)> = runs
        .iter()
        .flat_map(|run| {
            let queries = run.start * group..run.end * group;
            (0..pages.n_heads()).flat_map(move |head| {
                let end = queries.end;
                queries.clone().step_by(tile).map(move |first| (head, first..(first + tile).min(end)))
            })
        })
        .collect();
    let cost = (2 * len * tile * n_seen).checked_div(rows.len()).unwrap_or(0).max(1);
    let width = q.width();
    let parts = Disjoint::new(out);
    pool.run(units.len(), GRAIN.div_ceil(cost), &|range| {
        for (head, queries) in &units[range] {
            let query = |i: usize| {
                let (row, at) = (i / group, (head * group + i % group) * len);
                Query { q: &q.row(row)[at..at + len], seen: &rows[row] }
            };
            // SAFETY: a query head's result is written by the one unit that holds it.
            let result = |i: usize| unsafe {
                let at = i / group * width + (head * group + i % group) * len;
                parts.part(at..at + len)
            };
            let (first, n) = (queries.start, queries.len());
            let mut out: [&mut [f32]; TILE] =
                std::array::from_fn(|i| if i < n { result(first + i) } else { &mut [][..] });
            let queries: [Query<'_>; TILE] = std::array::from_fn(|i| query(first + i.min(n - 1)));
            kernels.attend_queries(Queries { pages, head: *head, queries: &queries[..n], out: &mut out[..n] });
        }
    });
}

/// Consecutive rows that read the same pages.
fn runs(rows: &[RowKeys<'_>]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let same =
            |other: &RowKeys<'_>| std::ptr::eq(other.pages, row.pages) && other.first_position == row.first_position;
        match runs.last_mut() {
            Some(run) if same(&rows[run.start]) => run.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

/// [`math::attend_page`] over all visible pages, for several query heads at once.
///
/// # Safety
/// Needs the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn attend_queries<S: Simd>(queries: Queries<'_, '_>) {
    // SAFETY: passes on this function's contract.
    unsafe {
        match queries.pages.format() {
            KvFormat::F32 => attend_stored::<S, Singles>(queries),
            KvFormat::F16 => attend_stored::<S, Halves>(queries),
            KvFormat::Q8 => attend_stored::<S, Bytes>(queries),
        }
    }
}

#[inline(always)]
unsafe fn attend_stored<S: Simd, F: Stored>(queries: Queries<'_, '_>) {
    let Queries { pages, head, queries, out } = queries;
    let mut first = 0;
    while first < queries.len() {
        let (queries, out) = (&queries[first..], &mut out[first..]);
        // SAFETY: passes on this function's contract.
        first += unsafe {
            with_columns!(S, queries.len(), N => Attend::<S, F, N> { pages, head, queries, out, set: PhantomData })
        };
    }
}

/// The first `N` query heads.
struct Attend<'a, 'b, S, F, const N: usize> {
    pages: &'a Pages,
    head: usize,
    queries: &'b [Query<'a>],
    out: &'b mut [&'a mut [f32]],
    set: PhantomData<(S, F)>,
}

impl<S: Simd, F: Stored, const N: usize> Work for Attend<'_, '_, S, F, N> {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: passes on this function's contract.
        unsafe { attend_tile::<S, F, N>(self.pages, self.head, self.queries, self.out) }
    }
}

/// [`math::attend_page`] over all pages that `N` query heads see.
#[inline(always)]
unsafe fn attend_tile<S: Simd, F: Stored, const N: usize>(
    pages: &Pages,
    head: usize,
    queries: &[Query<'_>],
    out: &mut [&mut [f32]],
) {
    let len = pages.head_len();
    let scale = 1.0 / (len as f32).sqrt();
    let (mut largest, mut totals) = ([f32::NEG_INFINITY; N], [0.0f32; N]);
    let seen: [&RowKeys<'_>; N] = std::array::from_fn(|n| queries[n].seen);
    let q: [*const f32; N] = std::array::from_fn(|n| queries[n].q.as_ptr());
    assert!(queries[..N].iter().all(|query| query.q.len() == len) && out[..N].iter().all(|out| out.len() == len));
    let first_position = seen[0].first_position;
    let begin = seen.iter().map(|seen| seen.begin).min().unwrap_or(0);
    let end = seen.iter().map(|seen| seen.end).max().unwrap_or(0);
    let last = (end - first_position).div_ceil(PAGE_LEN);
    for first in ((begin - first_position) / PAGE_LEN..last).step_by(PAGES) {
        let mut weighed: [Weighed<'_, N>; PAGES] = std::array::from_fn(|_| Weighed::default());
        let n_pages = PAGES.min(last - first);
        let mut keys = [&[][..]; PAGES];
        for (i, (keys, weighed)) in keys.iter_mut().zip(&mut weighed[..n_pages]).enumerate() {
            (*keys, weighed.values) = pages.page(seen[0].pages[first + i] as usize, head);
        }
        // SAFETY: pages hold keys and values of `len` components, each query too.
        unsafe { scores::<S, F, N>(&keys[..n_pages], q, len, &mut weighed) };
        for (page, weighed) in (first..last).zip(&mut weighed) {
            let position = first_position + page * PAGE_LEN;
            weighed.slots = std::array::from_fn(|n| {
                let clamp = |at: usize| at.saturating_sub(position).min(PAGE_LEN);
                clamp(seen[n].begin)..clamp(seen[n].end)
            });
            weighed.rescale = weigh(&mut weighed.weights, &weighed.slots, scale, &mut largest, &mut totals);
        }
        // SAFETY: as above, and `out` is as long as the queries.
        unsafe { add_values::<S, F, N>(&weighed[..n_pages], len, out) };
    }
    for n in 0..N {
        for value in out[n].iter_mut() {
            *value /= totals[n];
        }
    }
}

/// A page whose scores have become weights.
struct Weighed<'a, const N: usize> {
    values: &'a [u8],
    slots: [Range<usize>; N],
    weights: [[f32; PAGE_LEN]; N],
    /// What each query summed so far is multiplied by.
    rescale: [f32; N],
}

impl<const N: usize> Default for Weighed<'_, N> {
    fn default() -> Self {
        let (slots, weights) = (std::array::from_fn(|_| 0..0), [[0.0; PAGE_LEN]; N]);
        Self { values: &[], slots, weights, rescale: [0.0; N] }
    }
}

/// [`math::weigh`] of a page for `N` queries, added to the totals; returns what was summed before is multiplied by.
#[inline(always)]
fn weigh<const N: usize>(
    weights: &mut [[f32; PAGE_LEN]; N],
    slots: &[Range<usize>; N],
    scale: f32,
    largest: &mut [f32; N],
    totals: &mut [f32; N],
) -> [f32; N] {
    let before = *largest;
    for n in 0..N {
        if slots[n] == (0..PAGE_LEN) {
            // The same with less to compare.
            largest[n] = math::weigh(&mut weights[n], 0..PAGE_LEN, scale, before[n]);
        } else if slots[n].is_empty() {
            // Not this query's page: as if it had not been visited.
            weights[n] = [0.0; PAGE_LEN];
        } else {
            largest[n] = math::weigh(&mut weights[n], slots[n].clone(), scale, before[n]);
        }
    }
    // Side by side, as vectors.
    let mut rescale: [f32; N] = std::array::from_fn(|n| math::exp(before[n] - largest[n]));
    for n in 0..N {
        rescale[n] = if slots[n].is_empty() { 1.0 } else { rescale[n] };
        totals[n] *= rescale[n];
    }
    // An invisible slot's weight is 0, and no total is -0, so adding it changes nothing. Slots are the outer loop:
    // the chains of additions of the queries then run side by side.
    for i in 0..PAGE_LEN {
        for n in 0..N {
            totals[n] += weights[n][i];
        }
    }
    rescale
}

/// Dot products of `N` queries with the keys of pages, in the order of a dense linear map, for weights of `out`.
#[inline(always)]
unsafe fn scores<S: Simd, F: Stored, const N: usize>(
    keys: &[&[u8]],
    q: [*const f32; N],
    len: usize,
    out: &mut [Weighed<'_, N>; PAGES],
) {
    assert!(keys.iter().all(|keys| keys.len() == PAGE_LEN * F::FORMAT.bytes(len)), "pages of keys");
    let vectors = ROWS / S::LANES;
    let mut slots = |vector: usize| {
        let (page, lane) = (vector / vectors, vector % vectors * S::LANES);
        Slots { keys: keys[page].as_ptr(), lane, out: out[page].weights.as_mut_ptr().cast::<f32>().wrapping_add(lane) }
    };
    // SAFETY: inside of the pages and of the queries.
    unsafe {
        // Two vectors at a time share what is read of the queries.
        let n = keys.len() * vectors;
        for first in (0..n - n % 2).step_by(2) {
            scores_of_slots::<S, F, N, 2>([slots(first), slots(first + 1)], q, len);
        }
        if n % 2 == 1 {
            scores_of_slots::<S, F, N, 1>([slots(n - 1)], q, len);
        }
    }
}

/// A vector of a page's slots, and where the first query's scores go; each further query's are [`PAGE_LEN`] behind.
#[derive(Clone, Copy)]
struct Slots {
    keys: *const u8,
    lane: usize,
    out: *mut f32,
}

/// [`scores`] of `R` vectors of slots.
#[inline(always)]
unsafe fn scores_of_slots<S: Simd, F: Stored, const N: usize, const R: usize>(
    slots: [Slots; R],
    q: [*const f32; N],
    len: usize,
) {
    // SAFETY: passes on this function's contract.
    unsafe {
        let mut totals = [[S::splat(0.0); R]; N];
        for begin in (0..len).step_by(DENSE_BLOCK) {
            let mut sums = [[S::splat(0.0); R]; N];
            let mut scales = [S::splat(0.0); R];
            for r in 0..R {
                scales[r] = F::scales::<S>(slots[r].keys, len, begin / ACTIVATION_LEN * PAGE_LEN + slots[r].lane);
            }
            let end = len.min(begin + DENSE_BLOCK);
            let whole = end - (end - begin) % UNROLLED;
            for first in (begin..whole).step_by(UNROLLED) {
                for c in first..first + UNROLLED {
                    scores_of_component::<S, F, N, R>(slots, q, c, scales, &mut sums);
                }
            }
            for c in whole..end {
                scores_of_component::<S, F, N, R>(slots, q, c, scales, &mut sums);
            }
            for n in 0..N {
                for r in 0..R {
                    totals[n][r] = S::add(totals[n][r], sums[n][r]);
                }
            }
        }
        for n in 0..N {
            for r in 0..R {
                S::store(totals[n][r], slots[r].out.add(n * PAGE_LEN));
            }
        }
    }
}

/// Adds the products of one component to the chains.
#[inline(always)]
unsafe fn scores_of_component<S: Simd, F: Stored, const N: usize, const R: usize>(
    slots: [Slots; R],
    q: [*const f32; N],
    c: usize,
    scales: [S::F32; R],
    sums: &mut [[S::F32; R]; N],
) {
    // SAFETY: passes on this function's contract.
    unsafe {
        let mut keys = scales;
        for r in 0..R {
            keys[r] = F::load::<S>(slots[r].keys, c * PAGE_LEN + slots[r].lane, scales[r]);
        }
        for n in 0..N {
            let q = S::splat(*q[n].add(c));
            for r in 0..R {
                sums[n][r] = S::fma(q, keys[r], sums[n][r]);
            }
        }
    }
}

/// Page after page, rescales what each head summed so far and adds the page's weighted values, slot after slot.
#[inline(always)]
unsafe fn add_values<S: Simd, F: Stored, const N: usize>(pages: &[Weighed<'_, N>], len: usize, out: &mut [&mut [f32]]) {
    assert!(pages.iter().all(|page| page.values.len() == PAGE_LEN * F::FORMAT.bytes(len)), "pages of values");
    let last = len.saturating_sub(S::LANES);
    // A last vector that begins inside of the one before works out the same twice, unless its components have two scales.
    let overlaps = len > S::LANES && last % S::LANES > 0 && last / ACTIVATION_LEN == (len - 1) / ACTIVATION_LEN;
    let whole = if overlaps { len } else { len - len % S::LANES };
    let n = whole.div_ceil(S::LANES);
    let begin = |vector: usize| if overlaps { last.min(vector * S::LANES) } else { vector * S::LANES };
    // SAFETY: inside of the page and of every output.
    unsafe {
        // Two vectors at a time share what is read of the weights; the last two, which may overlap, are together.
        if n % 2 == 1 {
            values_of_lanes::<S, F, N, 1>(pages, (len, [0]), out);
        }
        for vector in (n % 2..n).step_by(2) {
            values_of_lanes::<S, F, N, 2>(pages, (len, [begin(vector), begin(vector + 1)]), out);
        }
    }
    for at in whole..len {
        for Weighed { values, slots, weights, rescale } in pages {
            for n in 0..N {
                let sum = &mut out[n][at];
                *sum *= rescale[n];
                for i in slots[n].clone() {
                    *sum = weights[n][i].mul_add(F::single(values, len, i, at), *sum);
                }
            }
        }
    }
}

/// [`add_values`] of `R` vectors of components, each from one of `at` on.
#[inline(always)]
unsafe fn values_of_lanes<S: Simd, F: Stored, const N: usize, const R: usize>(
    pages: &[Weighed<'_, N>],
    (len, at): (usize, [usize; R]),
    out: &mut [&mut [f32]],
) {
    // SAFETY: passes on this function's contract.
    unsafe {
        let mut sums = [[S::splat(0.0); R]; N];
        for n in 0..N {
            for r in 0..R {
                sums[n][r] = S::load(out[n].as_ptr().add(at[r]));
            }
        }
        for Weighed { values, slots, weights, rescale } in pages {
            for n in 0..N {
                for r in 0..R {
                    sums[n][r] = S::mul(sums[n][r], S::splat(rescale[n]));
                }
            }
            if slots.iter().all(|other| *other == (0..PAGE_LEN)) {
                // The same with nothing to compare.
                for i in 0..PAGE_LEN {
                    let mut value = [S::splat(0.0); R];
                    for r in 0..R {
                        value[r] = F::value::<S>(values, len, i, at[r]);
                    }
                    for n in 0..N {
                        let weight = S::splat(weights[n][i]);
                        for r in 0..R {
                            sums[n][r] = S::fma(weight, value[r], sums[n][r]);
                        }
                    }
                }
                continue;
            }
            for i in 0..PAGE_LEN {
                let mut value = [S::splat(0.0); R];
                for r in 0..R {
                    value[r] = F::value::<S>(values, len, i, at[r]);
                }
                for n in 0..N {
                    if slots[n].contains(&i) {
                        let weight = S::splat(weights[n][i]);
                        for r in 0..R {
                            sums[n][r] = S::fma(weight, value[r], sums[n][r]);
                        }
                    }
                }
            }
        }
        for n in 0..N {
            for r in 0..R {
                S::store(sums[n][r], out[n].as_mut_ptr().add(at[r]));
            }
        }
    }
}

/// How pages hold numbers.
trait Stored {
    const FORMAT: KvFormat;

    /// The scales of keys from scale `at` on.
    unsafe fn scales<S: Simd>(keys: *const u8, len: usize, at: usize) -> S::F32;

    /// Numbers from number `at` on, times `scale` where the format has scales.
    unsafe fn load<S: Simd>(stored: *const u8, at: usize, scale: S::F32) -> S::F32;

    /// Components of one slot's value from `at` on.
    unsafe fn value<S: Simd>(values: &[u8], len: usize, slot: usize, at: usize) -> S::F32;

    /// Component `at` of one slot's value.
    fn single(values: &[u8], len: usize, slot: usize, at: usize) -> f32;
}

struct Singles;
struct Halves;
struct Bytes;

impl Stored for Singles {
    const FORMAT: KvFormat = KvFormat::F32;

    #[inline(always)]
    unsafe fn scales<S: Simd>(_keys: *const u8, _len: usize, _at: usize) -> S::F32 {
        // SAFETY: reads nothing.
        unsafe { S::splat(1.0) }
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(stored: *const u8, at: usize, _scale: S::F32) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::load(stored.add(4 * at).cast()) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(values: &[u8], len: usize, slot: usize, at: usize) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::load(values.as_ptr().add(4 * (slot * len + at)).cast()) }
    }

    #[inline(always)]
    fn single(values: &[u8], len: usize, slot: usize, at: usize) -> f32 {
        f32::from_le_bytes(values.as_chunks().0[slot * len + at])
    }
}

impl Stored for Halves {
    const FORMAT: KvFormat = KvFormat::F16;

    #[inline(always)]
    unsafe fn scales<S: Simd>(_keys: *const u8, _len: usize, _at: usize) -> S::F32 {
        // SAFETY: reads nothing.
        unsafe { S::splat(1.0) }
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(stored: *const u8, at: usize, _scale: S::F32) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::load_f16(stored.add(2 * at)) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(values: &[u8], len: usize, slot: usize, at: usize) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::load_f16(values.as_ptr().add(2 * (slot * len + at))) }
    }

    #[inline(always)]
    fn single(values: &[u8], len: usize, slot: usize, at: usize) -> f32 {
        half::f16::from_le_bytes(values.as_chunks().0[slot * len + at]).to_f32()
    }
}

impl Bytes {
    /// The scale of component `at` of one slot's value.
    #[inline(always)]
    fn scale(values: &[u8], len: usize, slot: usize, at: usize) -> f32 {
        let scales = values[PAGE_LEN * len..].as_chunks().0;
        f32::from_le_bytes(scales[slot * len.div_ceil(ACTIVATION_LEN) + at / ACTIVATION_LEN])
    }
}

impl Stored for Bytes {
    const FORMAT: KvFormat = KvFormat::Q8;

    #[inline(always)]
    unsafe fn scales<S: Simd>(keys: *const u8, len: usize, at: usize) -> S::F32 {
        // SAFETY: the caller's; the scales follow the integers.
        unsafe { S::load(keys.add(PAGE_LEN * len + 4 * at).cast()) }
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(stored: *const u8, at: usize, scale: S::F32) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::mul(S::load_i8(stored.add(at)), scale) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(values: &[u8], len: usize, slot: usize, at: usize) -> S::F32 {
        // A vector is no longer than a scale's components, so it has one scale.
        let scale = Self::scale(values, len, slot, at);
        // SAFETY: the caller's.
        unsafe { Self::load::<S>(values.as_ptr(), slot * len + at, S::splat(scale)) }
    }

    #[inline(always)]
    fn single(values: &[u8], len: usize, slot: usize, at: usize) -> f32 {
        Self::scale(values, len, slot, at) * f32::from(values[slot * len + at].cast_signed())
    }
}
