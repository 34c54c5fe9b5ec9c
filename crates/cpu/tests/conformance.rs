//! Every op of `Cpu` equals `Reference` to the bit: each instruction set of this machine, 1 to 3 threads, odd sizes.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail like tests

use std::num::NonZeroUsize;
use std::ops::Range;

use cpu::{Cpu, CpuOptions, Isa};
use tensor::quant::Kind;
use tensor::{
    Choice, Device, Format, KvFormat, OpError, Orientation, PAGE_LEN, Pairing, Reference, Rotation, RowKeys,
    WeightSource,
};

const SEED: u64 = 0x5EED_0001;
const SIZES: [usize; 16] = [1, 2, 3, 5, 7, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129];

/// Numbers that depend on nothing but the seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Mostly in −2…2, with zeros of both signs, large and tiny values between.
    fn values(&mut self, n: usize) -> Vec<f32> {
        let value = |bits: u64| (bits >> 40) as f32 / (1 << 22) as f32 - 2.0;
        (0..n)
            .map(|_| match self.next() {
                bits if bits % 61 == 0 => -0.0,
                bits if bits % 67 == 0 => value(bits) * 1e6,
                bits if bits % 71 == 0 => value(bits) * 1e-30,
                bits => value(bits),
            })
            .collect()
    }

    fn source(&mut self, format: Format, orientation: Orientation, shape: [usize; 3]) -> WeightSource {
        let values = self.values(shape.iter().product());
        let bytes: Vec<u8> = match format {
            Format::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Format::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
            Format::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
            Format::Block(kind) => {
                let mut bytes = vec![0; values.len() / kind.len() * kind.bytes()];
                kind.encode(&values, &mut bytes);
                bytes
            }
        };
        WeightSource::new(bytes.into(), format, orientation, shape).unwrap()
    }
}

/// One op with its operands; `run` writes it once for every device.
enum Op {
    Linear {
        parts: Vec<WeightSource>,
        bias: Option<Vec<f32>>,
        x: Vec<f32>,
    },
    RmsNorm {
        x: Vec<f32>,
        row: usize,
        width: usize,
        gain: Option<Vec<f32>>,
    },
    LayerNorm {
        x: Vec<f32>,
        gain: Vec<f32>,
        bias: Vec<f32>,
    },
    Rope {
        x: Vec<f32>,
        width: usize,
        rotation: Rotation,
    },
    Attention {
        kv: Vec<f32>,
        slots: Vec<usize>,
        shape: [usize; 3],
        format: KvFormat,
        q: Vec<f32>,
        group: usize,
        rows: Vec<Seen>,
    },
    Experts {
        parts: Vec<WeightSource>,
        logits: Vec<f32>,
        top_k: usize,
        x: Vec<f32>,
    },
    Embed {
        table: WeightSource,
        ids: Vec<u32>,
    },
    Move {
        x: Vec<f32>,
        width: usize,
        columns: Range<usize>,
        rows: Vec<usize>,
    },
    Elementwise {
        x: Vec<f32>,
        y: Vec<f32>,
        width: usize,
    },
    Swiglu {
        x: Vec<f32>,
        width: usize,
    },
}

/// An owned `RowKeys`.
struct Seen {
    pages: Vec<u32>,
    first_position: usize,
    begin: usize,
    end: usize,
}

fn vector<D: Device>(dev: &D, values: &[f32]) -> Result<D::Vector, OpError> {
    dev.vector(&[WeightSource::from_f32(values, 1, values.len())?])
}

impl Op {
    fn run<D: Device>(&self, dev: &D) -> Result<Vec<f32>, OpError> {
        let result = match self {
            Self::Linear { parts, bias, x } => {
                let bias = bias.as_ref().map(|bias| vector(dev, bias)).transpose()?;
                let (w, x) = (dev.matrix(parts)?, dev.upload(x, parts[0].shape()[2])?);
                let y = dev.linear(&w, bias.as_ref(), &x)?;
                let onto = dev.linear_onto(y.clone(), &w, bias.as_ref(), &x)?;
                let mut out = [dev.download(&y), dev.download(&onto)].concat();
                if dev.shape(&y)[1] % 2 == 0 {
                    let fused = dev.download(&dev.linear_swiglu(&w, bias.as_ref(), &x)?);
                    assert!(same(&fused, &dev.download(&dev.swiglu(&y)?)), "swiglu in the epilogue");
                    out.extend(fused);
                }
                // Whole rows that such a map reads are rounded in the same pass as they are normalised.
                let normed = dev.rms_norm(&x, None, parts[0].shape()[2], 1e-5)?;
                out.extend([dev.download(&normed), dev.download(&dev.linear(&w, None, &normed)?)].concat());
                return Ok(out);
            }
            Self::RmsNorm { x, row, width, gain } => {
                let gain = gain.as_ref().map(|gain| vector(dev, gain)).transpose()?;
                dev.rms_norm(&dev.upload(x, *row)?, gain.as_ref(), *width, 1e-5)?
            }
            Self::LayerNorm { x, gain, bias } => {
                dev.layer_norm(&dev.upload(x, gain.len())?, &vector(dev, gain)?, &vector(dev, bias)?, 1e-5)?
            }
            Self::Rope { x, width, rotation } => dev.rope(&dev.upload(x, *width)?, rotation)?,
            Self::Attention { kv, slots, shape: [n_pages, n_heads, len], format, q, group, rows } => {
                let mut pages = dev.pages(*n_pages, *n_heads, *len, *format)?;
                let (k, v) = kv.split_at(kv.len() / 2);
                let (k, v) = (dev.upload(k, n_heads * len)?, dev.upload(v, n_heads * len)?);
                dev.store(&mut pages, &k, &v, slots)?;
                let rows: Vec<RowKeys<'_>> = rows.iter().map(|row| row.borrow(&rows[0])).collect();
                dev.attention(&dev.upload(q, group * n_heads * len)?, &pages, &rows)?
            }
            Self::Experts { parts, logits, top_k, x } => {
                let [n_experts, _, n_in] = parts[0].shape();
                let x = dev.upload(x, n_in)?;
                let routing = dev.route(&dev.upload(logits, n_experts)?, *top_k)?;
                let w = dev.matrix(parts)?;
                let inner = dev.experts_swiglu(&w, &x, &routing)?;
                let sent: Vec<usize> = (0..dev.choices(&routing).len()).map(|i| i / top_k).collect();
                let y = dev.experts(&w, &dev.rows(&x, &sent)?, &routing)?;
                let firsts: Vec<usize> = (0..dev.shape(&x)[0]).collect();
                let shared = dev.rows(&dev.concat(&y, &y)?, &firsts)?;
                let combined = dev.combine(dev.rows(&y, &firsts)?, &shared, &y, &routing)?;
                let mut out = [dev.download(&combined), dev.download(&inner)].concat();
                out.extend(dev.choices(&routing).iter().flat_map(|Choice { expert, score }| [*expert as f32, *score]));
                return Ok(out);
            }
            Self::Embed { table, ids } => dev.embed(&dev.table(table)?, ids)?,
            Self::Move { x, width, columns, rows } => {
                let x = dev.columns(&dev.upload(x, *width)?, columns.clone())?;
                let y = dev.rows(&x, rows)?;
                dev.reshape(dev.concat(&x, &y)?, 1)?
            }
            Self::Elementwise { x, y, width } => {
                let x = dev.upload(x, *width)?;
                let sum = dev.add(&x, &dev.upload(y, *width)?)?;
                dev.gelu(&dev.scale_rows(&sum, &y[..dev.shape(&x)[0]])?)
            }
            Self::Swiglu { x, width } => dev.swiglu(&dev.upload(x, *width)?)?,
        };
        let [n_rows, width] = dev.shape(&result);
        let values = dev.download(&result);
        assert_eq!(n_rows * width, values.len());
        Ok(values)
    }
}

impl Seen {
    /// With the page list of `first` if it is the same: rows of one sequence share one list.
    fn borrow<'a>(&'a self, first: &'a Self) -> RowKeys<'a> {
        let &Self { ref pages, first_position, begin, end } = self;
        let pages = if *pages == first.pages { &first.pages } else { pages };
        RowKeys { pages, first_position, begin, end }
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

/// The devices under test, and how much was compared.
struct Bench {
    devices: Vec<Cpu>,
    n_values: usize,
    n_finite: usize,
}

impl Bench {
    fn new() -> Self {
        println!("seed {SEED:#x}, detected {:?}", Isa::detect());
        let mut devices = Vec::new();
        for isa in Isa::ALL.iter().copied().filter(|isa| *isa <= Isa::detect()) {
            for threads in 1..=3 {
                let cpu =
                    Cpu::new(CpuOptions { threads: NonZeroUsize::new(threads), isa: Some(isa), ..Default::default() });
                assert_eq!((cpu.isa(), cpu.threads()), (isa, threads));
                devices.push(cpu);
            }
        }
        Self { devices, n_values: 0, n_finite: 0 }
    }

    /// Runs `op` everywhere and returns Reference's values.
    fn check(&mut self, what: &str, op: &Op) -> Vec<f32> {
        let want = op.run(&Reference).unwrap();
        for dev in &self.devices {
            let got = op.run(dev).unwrap();
            if !same(&got, &want) {
                let at = got.iter().zip(&want).position(|(a, b)| !same(&[*a], &[*b]));
                let pair = at.map(|at| (got[at], want[at]));
                panic!(
                    "{what} on {dev:?}: {} and {} values, first difference at {at:?}: {pair:?}",
                    got.len(),
                    want.len()
                );
            }
            self.n_values += want.len();
        }
        self.n_finite += want.iter().filter(|v| v.is_finite()).count();
        want
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            println!("compared {} values, {} of them finite in the reference", self.n_values, self.n_finite);
            assert!(self.n_finite > 0, "nothing was compared");
        }
    }
}

fn formats() -> Vec<(Format, Orientation)> {
    let plain = [Format::F32, Format::F16, Format::BF16];
    let blocks = Kind::ALL.iter().map(|kind| (Format::Block(*kind), Orientation::OutIn));
    plain.iter().flat_map(|f| [(*f, Orientation::OutIn), (*f, Orientation::InOut)]).chain(blocks).collect()
}

/// Input widths that `format` can have.
fn widths(format: Format) -> Vec<usize> {
    match format {
        Format::Block(kind) => [1, 2, 3, 5].iter().map(|n| n * kind.len()).collect(),
        _ => SIZES.to_vec(),
    }
}

#[test]
fn linear_equals_reference_in_every_format_and_size() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    for (format, orientation) in formats() {
        let widths = widths(format);
        for (i, n_out) in [1, 2, 15, 16, 17, 32, 128].into_iter().enumerate() {
            for (j, n_rows) in [0, 1, 2, 3, 4, 5, 8].into_iter().enumerate() {
                let n_in = widths[(3 * i + j) % widths.len()];
                let parts = vec![numbers.source(format, orientation, [1, n_out, n_in])];
                let bias = (j % 2 == 0).then(|| numbers.values(n_out));
                let op = Op::Linear { parts, bias, x: numbers.values(n_rows * n_in) };
                bench.check(&format!("{} {orientation:?} [{n_out}, {n_in}] × {n_rows}", format.name()), &op);
            }
        }
    }
}

#[test]
fn long_steps_go_through_linear_in_blocks() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    for (format, orientation) in formats() {
        for n_rows in [63, 64, 65, 131] {
            let n_in = widths(format)[0].max(16);
            let parts = vec![numbers.source(format, orientation, [1, 19, n_in])];
            let op = Op::Linear { parts, bias: None, x: numbers.values(n_rows * n_in) };
            bench.check(&format!("{} {orientation:?} × {n_rows}", format.name()), &op);
        }
    }
}

#[test]
fn wide_and_long_steps_go_through_unquantised_weights_in_chunks() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    for format in [Format::F32, Format::F16, Format::BF16] {
        for (n_in, n_rows) in [(256, 9), (272, 13), (521, 1), (521, 6), (700, 7), (40, 245), (270, 253)] {
            let parts = [70, 26].map(|n| numbers.source(format, Orientation::OutIn, [1, n, n_in]));
            let bias = Some(numbers.values(96));
            let op = Op::Linear { parts: parts.into(), bias, x: numbers.values(n_rows * n_in) };
            bench.check(&format!("{} [96, {n_in}] × {n_rows}", format.name()), &op);
        }
    }
}

#[test]
fn stacked_parts_keep_their_formats() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    let block = Format::Block;
    for formats in [
        vec![block(Kind::Q4_K), block(Kind::Q4_K), block(Kind::Q6_K)],
        vec![Format::F32, block(Kind::Q8_0), Format::BF16],
        vec![block(Kind::Q4_1), Format::F16],
    ] {
        for n_rows in [1, 6] {
            let parts = [16, 5, 33].into_iter().zip(&formats);
            let parts = parts.map(|(n, f)| numbers.source(*f, Orientation::OutIn, [1, n, 256])).collect::<Vec<_>>();
            let bias = numbers.values(parts.iter().map(|part| part.shape()[1]).sum());
            let op = Op::Linear { parts, bias: Some(bias), x: numbers.values(n_rows * 256) };
            bench.check(&format!("{formats:?}"), &op);
        }
    }
}

#[test]
fn any_bytes_of_a_block_format_give_the_same_bits() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    for &kind in Kind::ALL {
        for _ in 0..8 {
            let n_in = 256;
            let bytes: Vec<u8> = (0..20 * n_in / kind.len() * kind.bytes()).map(|_| numbers.next() as u8).collect();
            let shape = [1, 20, n_in];
            let source = WeightSource::new(bytes.into(), Format::Block(kind), Orientation::OutIn, shape).unwrap();
            let op = Op::Linear { parts: vec![source], bias: None, x: numbers.values(5 * n_in) };
            bench.check(kind.name(), &op);
        }
    }
}

#[test]
fn the_largest_integers_do_not_saturate() {
    let mut bench = Bench::new();
    let one = half::f16::ONE.to_le_bytes();
    for (kind, head, byte) in [
        (Kind::Q8_0, one.to_vec(), 0x80u8),
        (Kind::Q8_0, one.to_vec(), 0x7F),
        (Kind::Q4_1, [one, one].concat(), 0xFF),
        (Kind::Q4_0, one.to_vec(), 0x00),
        (Kind::Q4_0, one.to_vec(), 0xFF),
    ] {
        let block: Vec<u8> = head.iter().copied().chain(vec![byte; kind.bytes() - head.len()]).collect();
        let bytes = block.repeat(17);
        let source = WeightSource::new(bytes.into(), Format::Block(kind), Orientation::OutIn, [1, 17, 32]).unwrap();
        for x in [127.0, -127.0] {
            let op = Op::Linear { parts: vec![source.clone()], bias: None, x: vec![x; 5 * 32] };
            let q = match kind {
                Kind::Q8_0 => f32::from(byte.cast_signed()),
                Kind::Q4_0 => f32::from(byte & 15) - 8.0,
                _ => f32::from(byte & 15) + 1.0,
            };
            let out = bench.check(kind.name(), &op);
            assert!(out[..5 * 17].iter().all(|v| *v == 32.0 * q * x), "{} {byte:#x}", kind.name());
        }
    }
}

#[test]
fn a_broken_row_stays_in_its_row() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    for (format, orientation) in formats() {
        let n_in = widths(format)[1].max(40).next_multiple_of(32);
        let n_in = if let Format::Block(kind) = format { n_in.next_multiple_of(kind.len()) } else { n_in };
        let parts = vec![numbers.source(format, orientation, [1, 21, n_in])];
        let mut x = numbers.values(6 * n_in);
        let clean = bench.check(format.name(), &Op::Linear { parts: parts.clone(), bias: None, x: x.clone() });
        let n = 6 * 21;
        x[n_in + 3] = f32::NAN;
        x[4 * n_in + 7] = f32::INFINITY;
        x[4 * n_in + 8] = f32::NEG_INFINITY;
        let broken = bench.check(format.name(), &Op::Linear { parts, bias: None, x });
        for (row, (clean, broken)) in clean[..n].chunks(21).zip(broken[..n].chunks(21)).enumerate() {
            match row {
                1 => assert!(broken.iter().all(|v| v.is_nan()), "{}", format.name()),
                4 => assert!(broken.iter().all(|v| !v.is_finite()), "{}", format.name()),
                _ => assert!(same(clean, broken), "{} row {row}", format.name()),
            }
        }
    }
}

#[test]
fn norms_equal_reference() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    for width in SIZES {
        for n_rows in [0, 1, 2, 17] {
            for n_parts in [1, 3] {
                let x = numbers.values(n_rows * n_parts * width);
                let gain = (n_rows % 2 == 0).then(|| numbers.values(width));
                bench.check("rms_norm", &Op::RmsNorm { x, row: n_parts * width, width, gain });
            }
            let (x, gain, bias) = (numbers.values(n_rows * width), numbers.values(width), numbers.values(width));
            bench.check("layer_norm", &Op::LayerNorm { x, gain, bias });
        }
    }
    let (mut x, gain) = (numbers.values(5 * 600), None);
    (x[3], x[1300]) = (f32::NAN, f32::INFINITY);
    bench.check("rms_norm", &Op::RmsNorm { x, row: 600, width: 600, gain });
}

#[test]
fn rope_equals_reference_in_both_pairings() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    for pairing in [Pairing::Interleaved, Pairing::Halves] {
        for n_pairs in [1, 2, 3, 8, 31, 32, 33] {
            for (n_rows, n_heads) in [(0, 1), (1, 1), (1, 9), (5, 3), (131, 2)] {
                let [cos, sin] = [0; 2].map(|_| numbers.values(n_rows * n_pairs));
                let rotation = Rotation { pairing, n_pairs, cos, sin };
                let width = 2 * n_pairs * n_heads;
                bench.check("rope", &Op::Rope { x: numbers.values(n_rows * width), width, rotation });
            }
        }
    }
}

#[test]
fn attention_equals_reference_for_every_group_of_heads_and_format() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    for (i, len) in [1, 2, 15, 16, 17, 24, 33, 64, 65, 88].into_iter().enumerate() {
        for (j, (n_heads, group)) in [(1, 1), (3, 3), (2, 2), (1, 4), (2, 5), (1, 9)].into_iter().enumerate() {
            for (k, n_rows) in [0, 1, 9].into_iter().enumerate() {
                let format = KvFormat::ALL[(i + j + k) % 3];
                let n_pages = 7;
                let slots: Vec<usize> = (0..n_pages * PAGE_LEN).collect();
                let mut kv = numbers.values(2 * slots.len() * n_heads * len);
                // f16 ends at 65504.
                kv.iter_mut().for_each(|x| *x = x.clamp(-6e4, 6e4));
                // Page 6 is seen by nobody, and its NaNs with it.
                let unseen = 6 * PAGE_LEN * n_heads * len;
                kv[unseen..unseen + 9].fill(f32::NAN);
                let rows = (0..n_rows).map(|_| {
                    let first_position = PAGE_LEN * numbers.below(4);
                    let pages = (0..1 + numbers.below(5)).map(|_| numbers.below(6) as u32).collect::<Vec<_>>();
                    let begin = numbers.below(pages.len() * PAGE_LEN);
                    let end = begin + 1 + numbers.below(pages.len() * PAGE_LEN - begin);
                    Seen { pages, first_position, begin: first_position + begin, end: first_position + end }
                });
                let rows = rows.collect();
                let q = numbers.values(n_rows * group * n_heads * len);
                let op = Op::Attention { kv, slots, shape: [n_pages, n_heads, len], format, q, group, rows };
                let out = bench.check(&format!("attention {n_heads} × {group} heads of {len} in {format:?}"), &op);
                assert!(out.iter().all(|v| v.is_finite()));
            }
        }
    }
}

#[test]
fn rows_of_one_sequence_read_their_pages_together() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    let pages = vec![3, 0, 2, 5, 1];
    for (format, len, n_heads, group) in
        [(KvFormat::F32, 16, 1, 3), (KvFormat::F16, 64, 3, 3), (KvFormat::Q8, 48, 2, 5), (KvFormat::F16, 17, 2, 1)]
    {
        // From one position on, with a chunk's border among them: what a prompt's rows see.
        for (first, border, n_rows) in [(32, 32, 33), (37, 48, 20), (32, 77, 48), (96, 32, 2)] {
            let slots: Vec<usize> = (0..6 * PAGE_LEN).collect();
            let kv = numbers.values(2 * slots.len() * n_heads * len);
            let kv = kv.into_iter().map(|x| x.clamp(-6e4, 6e4)).collect();
            let begin = |at: usize| if at < border { 32 } else { border };
            let rows = (first..first + n_rows).map(|at| Seen {
                pages: pages.clone(),
                first_position: 32,
                begin: begin(at),
                end: at + 1,
            });
            let rows = rows.collect();
            let q = numbers.values(n_rows * group * n_heads * len);
            let op = Op::Attention { kv, slots, shape: [6, n_heads, len], format, q, group, rows };
            let out = bench.check(&format!("{n_rows} rows from {first} in {format:?}"), &op);
            assert!(out.iter().all(|v| v.is_finite()));
        }
    }
}

#[test]
fn a_visible_nan_breaks_the_heads_that_see_it() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    let mut kv = numbers.values(2 * 32 * 2 * 16);
    kv[20 * 32 + 3] = f32::NAN; // position 20, key head 0
    let seen = |begin, end| Seen { pages: vec![0, 1], first_position: 0, begin, end };
    let rows = vec![seen(0, 20), seen(0, 21), seen(21, 32)];
    let q = numbers.values(3 * 6 * 16);
    let format = KvFormat::F32;
    let op = Op::Attention { kv, slots: (0..32).collect(), shape: [2, 2, 16], format, q, group: 3, rows };
    let out = bench.check("attention", &op);
    let broken: Vec<bool> = out.chunks(48).map(|heads| heads.iter().all(|v| v.is_nan())).collect();
    assert_eq!(broken, [false, false, true, false, false, false]);
    assert!(out.chunks(48).zip(&broken).all(|(heads, broken)| *broken || heads.iter().all(|v| v.is_finite())));
}

#[test]
fn experts_equal_reference() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    for (format, orientation) in formats() {
        let n_in = widths(format)[0].max(13);
        for (n_experts, top_k, n_rows) in [(1, 1, 3), (4, 1, 0), (4, 1, 1), (4, 2, 9), (16, 1, 70), (3, 3, 5)] {
            let parts = vec![numbers.source(format, orientation, [n_experts, 18, n_in])];
            let logits = numbers.values(n_rows * n_experts);
            let op = Op::Experts { parts, logits, top_k, x: numbers.values(n_rows * n_in) };
            bench.check(&format!("experts {} {n_experts} {top_k} {n_rows}", format.name()), &op);
        }
    }
}

#[test]
fn tables_and_moves_equal_reference() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    for (format, _) in formats() {
        let table = numbers.source(format, Orientation::OutIn, [1, 9, widths(format)[1]]);
        bench.check(format.name(), &Op::Embed { table: table.clone(), ids: vec![] });
        bench.check(format.name(), &Op::Embed { table, ids: vec![8, 0, 3, 3] });
    }
    for width in SIZES {
        let x = numbers.values(5 * width);
        bench.check("columns", &Op::Move { x, width, columns: width / 3..width, rows: vec![4, 4, 0, 2] });
    }
}

#[test]
fn elementwise_ops_equal_reference() {
    let (mut bench, mut numbers) = (Bench::new(), Numbers(SEED));
    for width in SIZES {
        for n_rows in [0, 1, 7] {
            let (x, y) = (numbers.values(n_rows * width), numbers.values(n_rows * width));
            bench.check("add, scale_rows, gelu", &Op::Elementwise { x, y, width });
            bench.check("swiglu", &Op::Swiglu { x: numbers.values(n_rows * 2 * width), width: 2 * width });
        }
    }
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-44, 88.0, -88.0, 104.5, -104.5, 2.0, 6.1];
    let x: Vec<f32> = special.iter().flat_map(|a| special.iter().flat_map(move |b| [*a, *b])).collect();
    bench.check("swiglu", &Op::Swiglu { x: x.clone(), width: 12 });
    bench.check("gelu", &Op::Elementwise { y: vec![1.0; x.len()], x, width: 12 });
}

/// Which kind of error each mistake gives.
fn mistakes<D: Device>(dev: &D) -> Vec<&'static str> {
    let mut numbers = Numbers(SEED);
    let x = dev.upload(&[1.0; 64], 32).unwrap();
    let source = numbers.source(Format::F32, Orientation::OutIn, [2, 4, 32]);
    let other = numbers.source(Format::F32, Orientation::OutIn, [1, 4, 16]);
    let turned = numbers.source(Format::F32, Orientation::InOut, [1, 4, 32]);
    let matrix = dev.matrix(std::slice::from_ref(&source)).unwrap();
    let table = dev.table(&other).unwrap();
    let routing = dev.route(&x, 2).unwrap();
    let rotation = Rotation { pairing: Pairing::Halves, n_pairs: 5, cos: vec![], sin: vec![] };
    let mut pages = dev.pages(2, 1, 32, KvFormat::F16).unwrap();
    let seen = |pages, begin, end| RowKeys { pages, first_position: 0, begin, end };
    let short = dev.vector(&[WeightSource::zeros(3)]).unwrap();
    let results = [
        dev.matrix(&[source.clone(), other.clone()]).err(),
        dev.table(&source).err(),
        dev.table(&turned).err(),
        dev.pages(usize::MAX, 2, 64, KvFormat::Q8).err(),
        dev.upload(&[0.0; 7], 2).err(),
        dev.upload(&[0.0; 7], 0).err(),
        dev.reshape(x.clone(), 5).err(),
        dev.columns(&x, 4..33).err(),
        dev.columns(&x, 4..4).err(),
        dev.rows(&x, &[0, 2]).err(),
        dev.concat(&x, &dev.reshape(x.clone(), 16).unwrap()).err(),
        dev.embed(&table, &[4]).err(),
        dev.add(&x, &dev.rows(&x, &[0]).unwrap()).err(),
        dev.scale_rows(&x, &[1.0]).err(),
        dev.linear(&matrix, Some(&short), &x).err(),
        dev.linear(&matrix, None, &dev.reshape(x.clone(), 16).unwrap()).err(),
        dev.rms_norm(&x, None, 5, 1e-5).err(),
        dev.rms_norm(&x, None, 0, 1e-5).err(),
        dev.rms_norm(&x, Some(&short), 32, 1e-5).err(),
        dev.layer_norm(&x, &short, &short, 1e-5).err(),
        dev.rope(&x, &rotation).err(),
        dev.rope(&x, &Rotation { n_pairs: 0, ..rotation.clone() }).err(),
        dev.rope(&x, &Rotation { n_pairs: 16, ..rotation.clone() }).err(),
        dev.store(&mut pages, &x, &x, &[0]).err(),
        dev.store(&mut pages, &x, &x, &[0, 32]).err(),
        dev.attention(&x, &pages, &[seen(&[0], 0, 1)]).err(),
        dev.attention(&x, &pages, &[seen(&[0], 0, 1), seen(&[0], 3, 3)]).err(),
        dev.attention(&x, &pages, &[seen(&[0], 0, 1), seen(&[0], 0, 17)]).err(),
        dev.attention(&x, &pages, &[seen(&[0], 0, 1), seen(&[2], 0, 1)]).err(),
        dev.route(&x, 0).err(),
        dev.route(&x, 33).err(),
        dev.linear_onto(x.clone(), &matrix, None, &x).err(),
        dev.linear_swiglu(&matrix, Some(&short), &x).err(),
        dev.experts_swiglu(&matrix, &dev.rows(&x, &[0]).unwrap(), &routing).err(),
        dev.experts(&matrix, &x, &routing).err(),
        dev.combine(x.clone(), &x, &x, &routing).err(),
        dev.swiglu(&dev.upload(&[0.0; 3], 3).unwrap()).err(),
    ];
    let name = |error| match error {
        None => "none",
        Some(OpError::Shape { .. }) => "shape",
        Some(OpError::Index { .. }) => "index",
        Some(OpError::Read(_)) => "read",
    };
    results.into_iter().map(name).collect()
}

#[test]
fn mistakes_give_the_errors_of_reference() {
    let want = mistakes(&Reference);
    assert!(want.iter().all(|kind| *kind != "none"), "{want:?}");
    for dev in &Bench::new_for_errors() {
        assert_eq!(mistakes(dev), want, "{dev:?}");
    }
}

impl Bench {
    /// The devices alone.
    fn new_for_errors() -> Vec<Cpu> {
        let mut this = Self::new();
        this.n_finite = 1;
        std::mem::take(&mut this.devices)
    }
}
