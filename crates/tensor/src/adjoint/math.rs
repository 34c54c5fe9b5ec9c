//! Adjoints of row arithmetic, shared by the CPU devices as [`crate::math`] is.

use std::ops::Range;

use crate::math::{exp, ln, sigmoid, silu, sum, sum_squares};
use crate::{DENSE_BLOCK, PAGE_LEN};

/// Positions whose scores are computed side by side.
const LANES: usize = PAGE_LEN;

/// Σ a·b in the order of [`sum`].
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i], lanes[i]);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane = a.mul_add(*b, *lane);
    }
    sum(&lanes)
}

/// `dx` of [`rms_norm`](crate::math::rms_norm): s·(g·dy − x·s²/n·Σ g·dy·x), and `normed` = x·s for the gain's gradient.
#[inline(always)]
pub fn rms_norm(x: &[f32], gain: Option<&[f32]>, eps: f32, dy: &[f32], [dx, normed]: [&mut [f32]; 2]) {
    let n = x.len() as f32;
    let scale = 1.0 / (sum_squares(x, 0.0) / n + eps).sqrt();
    // `dx` holds g·dy first.
    match gain {
        Some(gain) => {
            for ((dx, dy), gain) in dx.iter_mut().zip(dy).zip(gain) {
                *dx = dy * gain;
            }
        }
        None => dx.copy_from_slice(dy),
    }
    let along = dot(dx, x) * scale * scale / n;
    for ((dx, normed), x) in dx.iter_mut().zip(normed).zip(x) {
        *dx = scale * (-along).mul_add(*x, *dx);
        *normed = x * scale;
    }
}

/// `dx` of [`layer_norm`](crate::math::layer_norm), and `normed` = (x − mean)·s for the gain's gradient.
#[inline(always)]
pub fn layer_norm(x: &[f32], gain: &[f32], eps: f32, dy: &[f32], [dx, normed]: [&mut [f32]; 2]) {
    let n = x.len() as f32;
    let mean = sum(x) / n;
    let scale = 1.0 / (sum_squares(x, mean) / n + eps).sqrt();
    for ((((dx, normed), x), dy), gain) in dx.iter_mut().zip(normed.iter_mut()).zip(x).zip(dy).zip(gain) {
        *dx = dy * gain;
        *normed = (x - mean) * scale;
    }
    let (level, along) = (sum(dx) / n, dot(dx, normed) / n);
    for (dx, normed) in dx.iter_mut().zip(normed) {
        *dx = scale * (-along).mul_add(*normed, *dx - level);
    }
}

/// Gradients of gate and up of silu(gate)·up.
#[inline(always)]
pub fn swiglu(gate: &[f32], up: &[f32], dy: &[f32], [d_gate, d_up]: [&mut [f32]; 2]) {
    for ((((d_gate, d_up), gate), up), dy) in d_gate.iter_mut().zip(d_up).zip(gate).zip(up).zip(dy) {
        let s = sigmoid(*gate);
        *d_up = dy * silu(*gate);
        *d_gate = dy * up * (s * gate.mul_add(1.0 - s, 1.0));
    }
}

/// dy·(Φ(x) + x·φ(x)).
#[inline(always)]
pub fn gelu(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    const DENSITY: f32 = 0.398_942_3; // 1 / √(2π)
    for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
        let below = 0.5 * (1.0 + crate::math::erf(x * std::f32::consts::FRAC_1_SQRT_2));
        let density = DENSITY * exp(-0.5 * x * x);
        // Far out the density is 0, and x may be infinite.
        let slope = if density == 0.0 { below } else { x.mul_add(density, below) };
        *dx = dy * slope;
    }
}

/// Adds the columns of `rows`, each row `width` long, from `first` on to `out`, in chains of [`DENSE_BLOCK`] rows.
/// `scratch` is as long as `out`.
#[inline(always)]
pub fn add_columns(rows: &[f32], [width, first]: [usize; 2], scratch: &mut [f32], out: &mut [f32]) {
    for block in rows.chunks(DENSE_BLOCK * width) {
        scratch.fill(0.0);
        for row in block.chunks_exact(width) {
            for (sum, value) in scratch.iter_mut().zip(&row[first..]) {
                *sum += value;
            }
        }
        for (out, sum) in out.iter_mut().zip(scratch.iter()) {
            *out += sum;
        }
    }
}

/// e^(x − largest) of every value, in place; the largest, and the sum of the powers.
#[inline(always)]
fn powers(x: &mut [f32]) -> (f32, f32) {
    // A NaN is never the largest, and reaches the sum all the same.
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in x.chunks(LANES) {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    let largest = lanes.into_iter().fold(f32::NEG_INFINITY, |largest, x| if x > largest { x } else { largest });
    for x in x.iter_mut() {
        *x = exp(*x - largest);
    }
    (largest, sum(x))
}

/// The cross-entropy of one row of logits, and in place of `row`, which holds them, `weight` times its gradient.
#[inline(always)]
pub fn cross_entropy(row: &mut [f32], target: usize, weight: f32) -> f64 {
    let logit = row[target];
    let (largest, total) = powers(row);
    let factor = weight / total;
    for x in row.iter_mut() {
        *x *= factor;
    }
    row[target] -= weight;
    if total.is_finite() && total > 0.0 {
        ln(f64::from(total)) + f64::from(largest) - f64::from(logit)
    } else {
        f64::NAN
    }
}

/// KL(softmax(teacher/τ) ‖ softmax(row/τ)), and in place of `row` `weight` times its gradient. `teacher` is overwritten.
#[inline(always)]
pub fn divergence(row: &mut [f32], teacher: &mut [f32], temperature: f32, weight: f32) -> f64 {
    for x in row.iter_mut().chain(teacher.iter_mut()) {
        *x /= temperature;
    }
    // Σ p·(t − s), before the logits give way to their powers.
    let difference: Vec<f32> = teacher.iter().zip(row.iter()).map(|(t, s)| t - s).collect();
    let (t_largest, t_total) = powers(teacher);
    let (s_largest, s_total) = powers(row);
    let mut mean = 0.0f64;
    for (p, difference) in teacher.iter().zip(&difference) {
        if *p > 0.0 {
            mean += f64::from(*p) * f64::from(*difference);
        }
    }
    let normaliser = |total: f32, largest: f32| ln(f64::from(total)) + f64::from(largest);
    let divergence = mean / f64::from(t_total) - normaliser(t_total, t_largest) + normaliser(s_total, s_largest);
    let factor = weight / temperature;
    for (s, p) in row.iter_mut().zip(teacher) {
        *s = factor * (*s / s_total - *p / t_total);
    }
    divergence
}

/// Rows that are attended to, and the shape of their heads.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// `[T, H·C]`.
    pub q: &'a [f32],
    /// `[_, K·C]`.
    pub k: &'a [f32],
    /// `[_, K·C]`.
    pub v: &'a [f32],
    /// `[T, H·C]`: the gradient of what was gathered.
    pub dy: &'a [f32],
    /// Heads of keys, K.
    pub n_heads: usize,
    /// Heads of queries that read one of keys.
    pub group: usize,
    /// Components, C.
    pub len: usize,
    /// What each row of queries sees.
    pub seen: &'a [Range<usize>],
}

/// A [piece](separate) of an attention: its rows of queries and of keys.
pub type Piece = (Range<usize>, Range<usize>);

impl Heads<'_> {
    /// Numbers of [`attention`]'s result for one head of keys: queries `[group, T, C]`, then keys and values `[n, C]`.
    pub fn gradient_len(&self, (rows, keys): &Piece) -> usize {
        (self.group * rows.len() + 2 * keys.len()) * self.len
    }
}

/// Queries that go through the keys together.
const QUERIES: usize = 4;

/// The gradients of one head of keys in one piece, to `out`, see [`Heads::gradient_len`]; query after query. With
/// weights p and scores s: dvⱼ += pⱼ·dy, dpⱼ = dy·vⱼ, dsⱼ = pⱼ·(dpⱼ − Σ p·dp)/√C, dq = Σ dsⱼ·kⱼ, dkⱼ += dsⱼ·q.
#[inline(always)]
pub fn attention(x: &Heads<'_>, (rows, keys): &Piece, head: usize, out: &mut [f32]) {
    let len = x.len;
    let (q_width, k_width) = (x.n_heads * x.group * len, x.n_heads * len);
    let k = gather(x.k, k_width, keys, head * len, len);
    let turned = [turn(&k, len), turn(&gather(x.v, k_width, keys, head * len, len), len)];
    out.fill(0.0);
    let (d_queries, d_keys) = out.split_at_mut(x.group * rows.len() * len);
    let (dk, dv) = d_keys.split_at_mut(keys.len() * len);
    let mut columns = Columns { k: &k, turned: &turned, len, dk, dv };
    let mut weights = vec![0.0; 2 * QUERIES * (turned[0].len() / len)];
    for (member, d_queries) in d_queries.chunks_exact_mut((rows.len() * len).max(1)).enumerate() {
        let query = |row: usize| {
            let at = row * q_width + (head * x.group + member) * len;
            let seen = x.seen[row].start - keys.start..x.seen[row].end - keys.start;
            Query { q: &x.q[at..at + len], dy: &x.dy[at..at + len], seen }
        };
        for (block, dq) in d_queries.chunks_mut(QUERIES * len).enumerate() {
            let first = rows.start + block * QUERIES;
            if dq.len() == QUERIES * len {
                let queries: [Query<'_>; QUERIES] = std::array::from_fn(|i| query(first + i));
                columns.add(&queries, &mut weights, dq);
            } else {
                for (i, dq) in dq.chunks_exact_mut(len).enumerate() {
                    columns.add(&[query(first + i)], &mut weights, dq);
                }
            }
        }
    }
}

/// A row of one head of queries.
struct Query<'a> {
    q: &'a [f32],
    dy: &'a [f32],
    seen: Range<usize>,
}

/// One head's keys and values, and their gradients.
struct Columns<'a> {
    /// `[n, C]`.
    k: &'a [f32],
    /// Keys and values the other way about, `[C, n]`.
    turned: &'a [Vec<f32>; 2],
    len: usize,
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

impl Columns<'_> {
    /// The gradients of `queries`, to the rows of `dq`. Every sum is one chain: over components, over keys for `dq`, over
    /// queries for keys and values.
    #[inline(always)]
    fn add<const Q: usize>(&mut self, queries: &[Query<'_>; Q], weights: &mut [f32], dq: &mut [f32]) {
        let len = self.len;
        let n = self.turned[0].len() / len;
        let scale = 1.0 / (len as f32).sqrt();
        let (p, ds) = weights.split_at_mut(QUERIES * n);
        let start = queries.iter().map(|query| query.seen.start).min().unwrap_or(0);
        let end = queries.iter().map(|query| query.seen.end).max().unwrap_or(0);
        let lanes = start / LANES * LANES..end.next_multiple_of(LANES);
        products(std::array::from_fn::<_, Q, _>(|i| queries[i].q), &self.turned[0], lanes.clone(), p);
        products(std::array::from_fn::<_, Q, _>(|i| queries[i].dy), &self.turned[1], lanes, ds);
        for ((query, p), ds) in queries.iter().zip(p.chunks_exact_mut(n)).zip(ds.chunks_exact_mut(n)) {
            let (p, ds) = (&mut p[query.seen.clone()], &mut ds[query.seen.clone()]);
            for p in p.iter_mut() {
                *p *= scale;
            }
            let (_, total) = powers(p);
            for p in p.iter_mut() {
                *p /= total;
            }
            let mean = dot(p, ds);
            for (ds, p) in ds.iter_mut().zip(p.iter()) {
                *ds = p * (*ds - mean) * scale;
            }
        }
        // What all of them see goes together; what some see goes one by one, before it and behind it.
        let common = queries.iter().map(|query| query.seen.start).max().unwrap_or(0)
            ..queries.iter().map(|query| query.seen.end).min().unwrap_or(0);
        let is_joint = Q > 1 && !common.is_empty() && len.is_multiple_of(LANES);
        let (before, behind) = if is_joint { (common.start, common.end) } else { (usize::MAX, usize::MAX) };
        for i in 0..Q {
            let seen = &queries[i].seen;
            self.one(
                &queries[i],
                seen.start..seen.end.min(before),
                (&p[i * n..], &ds[i * n..]),
                &mut dq[i * len..][..len],
            );
        }
        if !is_joint {
            return;
        }
        for first in (0..len).step_by(LANES) {
            self.together(queries, common.clone(), first, (p, ds, n), dq);
        }
        for i in 0..Q {
            let seen = behind..queries[i].seen.end;
            self.one(&queries[i], seen, (&p[i * n..], &ds[i * n..]), &mut dq[i * len..][..len]);
        }
    }

    /// The share of the keys of `range` in the gradients of one query.
    #[inline(always)]
    fn one(&mut self, query: &Query<'_>, range: Range<usize>, (p, ds): (&[f32], &[f32]), dq: &mut [f32]) {
        let len = self.len;
        for j in range {
            let (p, ds, at) = (p[j], ds[j], j * len..(j + 1) * len);
            let (k, dk, dv) = (&self.k[at.clone()], &mut self.dk[at.clone()], &mut self.dv[at]);
            for c in 0..len {
                dq[c] = ds.mul_add(k[c], dq[c]);
                dk[c] = ds.mul_add(query.q[c], dk[c]);
                dv[c] = p.mul_add(query.dy[c], dv[c]);
            }
        }
    }

    /// The same of several queries, in the lanes of components from `first` on.
    #[inline(always)]
    fn together<const Q: usize>(
        &mut self,
        queries: &[Query<'_>; Q],
        range: Range<usize>,
        first: usize,
        (p, ds, n): (&[f32], &[f32], usize),
        dq: &mut [f32],
    ) {
        let len = self.len;
        let lanes = |x: &[f32]| -> [f32; LANES] { std::array::from_fn(|c| x[first + c]) };
        let q: [[f32; LANES]; Q] = std::array::from_fn(|i| lanes(queries[i].q));
        let dy: [[f32; LANES]; Q] = std::array::from_fn(|i| lanes(queries[i].dy));
        let mut sums: [[f32; LANES]; Q] = std::array::from_fn(|i| lanes(&dq[i * len..]));
        let p: [&[f32]; Q] = std::array::from_fn(|i| &p[i * n..][range.clone()]);
        let ds: [&[f32]; Q] = std::array::from_fn(|i| &ds[i * n..][range.clone()]);
        for (place, j) in range.enumerate() {
            let at = j * len + first;
            let k: [f32; LANES] = std::array::from_fn(|c| self.k[at..at + LANES][c]);
            let (dk, dv) = (&mut self.dk[at..at + LANES], &mut self.dv[at..at + LANES]);
            let mut sums_k: [f32; LANES] = std::array::from_fn(|c| dk[c]);
            let mut sums_v: [f32; LANES] = std::array::from_fn(|c| dv[c]);
            for i in 0..Q {
                let (p, ds) = (p[i][place], ds[i][place]);
                for c in 0..LANES {
                    sums[i][c] = ds.mul_add(k[c], sums[i][c]);
                    sums_k[c] = ds.mul_add(q[i][c], sums_k[c]);
                    sums_v[c] = p.mul_add(dy[i][c], sums_v[c]);
                }
            }
            dk.copy_from_slice(&sums_k);
            dv.copy_from_slice(&sums_v);
        }
        for (i, sums) in sums.iter().enumerate() {
            dq[i * len + first..][..LANES].copy_from_slice(sums);
        }
    }
}

/// `out[i, j]` = Σ x[i][c]·turned[c, j] for j in `range`, whole blocks of lanes; each sum one chain over c.
#[inline(always)]
fn products<const Q: usize>(x: [&[f32]; Q], turned: &[f32], range: Range<usize>, out: &mut [f32]) {
    let len = x[0].len();
    let n = turned.len() / len;
    for first in range.step_by(LANES) {
        let mut sums = [[0.0f32; LANES]; Q];
        for c in 0..len {
            let row = &turned[c * n + first..][..LANES];
            for i in 0..Q {
                let x = x[i][c];
                for lane in 0..LANES {
                    sums[i][lane] = x.mul_add(row[lane], sums[i][lane]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            out[i * n + first..][..LANES].copy_from_slice(sums);
        }
    }
}

/// The largest independent pieces of an attention: rows of queries with the rows of keys that they and no others see.
///
/// `None` if a row sees nothing or keys beyond `n_keys`.
pub fn separate(seen: &[Range<usize>], n_keys: usize) -> Option<Vec<Piece>> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (row, range) in seen.iter().enumerate() {
        if range.is_empty() || range.end > n_keys {
            return None;
        }
        let mut piece = (row..row + 1, range.clone());
        while let Some((rows, keys)) = pieces.pop_if(|(_, keys)| keys.start < piece.1.end && piece.1.start < keys.end) {
            piece = (rows.start..piece.0.end, keys.start.min(piece.1.start)..keys.end.max(piece.1.end));
        }
        pieces.push(piece);
    }
    // Keys that an earlier piece sees too would have two writers.
    let mut keys: Vec<&Range<usize>> = pieces.iter().map(|(_, keys)| keys).collect();
    keys.sort_by_key(|keys| keys.start);
    match keys.windows(2).any(|pair| pair[0].end > pair[1].start) {
        true => Some(vec![(0..seen.len(), 0..n_keys)]),
        false => Some(pieces),
    }
}

/// The components from `first` on of each of `rows` of `x`, which is `width` wide: `[rows, C]`.
#[inline(always)]
fn gather(x: &[f32], width: usize, rows: &Range<usize>, first: usize, len: usize) -> Vec<f32> {
    x[rows.start * width..rows.end * width]
        .chunks_exact(width)
        .flat_map(|row| &row[first..first + len])
        .copied()
        .collect()
}

/// `[n, C]` as `[C, n]`, n rounded up to whole lanes with zeros.
#[inline(always)]
fn turn(x: &[f32], len: usize) -> Vec<f32> {
    let n = (x.len() / len).next_multiple_of(LANES);
    let mut out = vec![0.0; n * len];
    for (j, row) in x.chunks_exact(len).enumerate() {
        for (c, value) in row.iter().enumerate() {
            out[c * n + j] = *value;
        }
    }
    out
}
