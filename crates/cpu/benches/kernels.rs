//! How fast linear maps are, as JSON lines: `cargo bench -p cpu --bench kernels -- --size real [--threads N] [--isa I]
//! [--format F] [--rows N] [--n-in N] [--copies all]`.
//!
//! `--n-in` takes the shapes of that input alone; `--copies` has several rows read memory, not a cache, as one row does.
//! One row measures what decoding is bound by, weight bytes a second (of the packed weights, beside what the file
//! holds); 64 rows measure arithmetic, multiply-adds counted as two operations. `--size small`, the default, is quick
//! and checks that the program runs.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use cpu::{Cpu, CpuOptions, Isa, Matrix, Pages, Tensor, Vector};
use tensor::quant::Kind;
use tensor::{Device, Format, KvFormat, OpError, Orientation, PAGE_LEN, Pairing, Rotation, RowKeys, WeightSource};

/// The value behind `--name`, if there is one.
fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|a| a != name);
    arguments.nth(1)
}

fn source(format: Format, n_out: usize, n_in: usize) -> WeightSource {
    let values: Vec<f32> = (0..n_out * n_in).map(|i| ((i * 2_654_435_761) % 1009) as f32 / 504.5 - 1.0).collect();
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
    WeightSource::new(bytes.into(), format, Orientation::OutIn, [1, n_out, n_in]).expect("sizes that fit")
}

/// Seconds a call takes: best, lower quartile, median and upper quartile.
fn time(budget: Duration, mut call: impl FnMut()) -> [f64; 4] {
    call();
    let (began, mut seconds) = (Instant::now(), Vec::new());
    while began.elapsed() < budget || seconds.len() < 5 {
        let call_began = Instant::now();
        call();
        seconds.push(call_began.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    [0, 1, 2, 3].map(|quarter| seconds[(seconds.len() - 1) * quarter / 4])
}

/// Measures `copies` maps of one shape in turn, so that one row reads memory, not a cache.
fn measure(cpu: &Cpu, format: Format, [n_out, n_in]: [usize; 2], n_rows: usize, real: bool) {
    let source = source(format, n_out, n_in);
    let copies = if real && (n_rows == 1 || argument("--copies").is_some()) {
        (200_000_000 / source.bytes().len()).clamp(1, 64)
    } else {
        1
    };
    let maps: Vec<_> = (0..copies).map(|_| cpu.matrix(std::slice::from_ref(&source)).expect("a valid map")).collect();
    let x: Vec<f32> = (0..n_rows * n_in).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = cpu.upload(&x, n_in).expect("whole rows");
    let budget = Duration::from_millis(if real { 1500 } else { 1 });
    let quartiles = time(budget, || {
        for map in &maps {
            std::hint::black_box(cpu.linear(map, None, &x).expect("widths that fit"));
        }
    });
    let [best, low, median, high] = quartiles.map(|s| s / copies as f64);
    let packed = maps.first().map_or(0, |map| map.size_bytes());
    let operations = 2.0 * (n_out * n_in * n_rows) as f64;
    println!(
        "{{\"bench\":\"linear\",\"isa\":\"{:?}\",\"threads\":{},\"format\":\"{}\",\"n_out\":{n_out},\"n_in\":{n_in},\
         \"rows\":{n_rows},\"copies\":{copies},\"file_bytes\":{},\"packed_bytes\":{packed},\"us\":{:.1},\"us_quartiles\":[{:.1},{:.1}],\"us_best\":{:.1},\
         \"gb_per_s\":{:.2},\"gop_per_s\":{:.1}}}",
        cpu.isa(),
        cpu.threads(),
        format.name(),
        source.bytes().len(),
        median * 1e6,
        low * 1e6,
        high * 1e6,
        best * 1e6,
        packed as f64 / median / 1e9,
        operations / median / 1e9,
    );
}

/// Measures one token through a model of SmolLM2-135M's shape with random Q4_1 weights, `context` positions seen: all
/// ops that a decoder's step has.
fn decode(cpu: &Cpu, context: usize, real: bool) {
    let (n_layers, width, ffn, vocab) = if real { (30, 576, 1536, 49152) } else { (2, 64, 96, 100) };
    let (n_heads, kv_heads, len) = (width / HEAD_LEN, width / HEAD_LEN / 3 + usize::from(!real), HEAD_LEN);
    let map = |n_out, n_in| cpu.matrix(&[source(Format::Block(Kind::Q4_1), n_out, n_in)]).expect("a valid map");
    let n_pages = context.div_ceil(PAGE_LEN);
    let mut layers: Vec<_> = (0..n_layers)
        .map(|_| Layer {
            qkv: map((n_heads + 2 * kv_heads) * len, width),
            out: map(width, n_heads * len),
            gate_up: map(2 * ffn, width),
            down: map(width, ffn),
            pages: cpu.pages(n_pages, kv_heads, len, KvFormat::F16).expect("a size that fits"),
        })
        .collect();
    let gain = WeightSource::from_f32(&vec![1.0; width], 1, width).expect("a valid vector");
    let (head, gain) = (map(vocab, width), cpu.vector(&[gain]).expect("a valid vector"));
    let x: Vec<f32> = (0..width).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = cpu.upload(&x, width).expect("whole rows");
    let angles = |f: fn(f32) -> f32| (0..len / 2).map(|i| f(i as f32)).collect();
    let rotation =
        Rotation { pairing: Pairing::Interleaved, n_pairs: len / 2, cos: angles(f32::cos), sin: angles(f32::sin) };
    let pages: Vec<u32> = (0..n_pages as u32).collect();
    let keys = RowKeys { pages: &pages, first_position: 0, begin: 0, end: context };
    let mut step = || {
        let mut x = x.clone();
        for layer in &mut layers {
            x = layer.forward(cpu, x, &gain, &rotation, keys, [n_heads, kv_heads, len])?;
        }
        cpu.linear(&head, None, &cpu.rms_norm(&x, Some(&gain), width, 1e-5)?)
    };
    let budget = Duration::from_millis(if real { 5000 } else { 1 });
    let [best, low, median, high] = time(budget, || {
        std::hint::black_box(step().expect("shapes that fit"));
    });
    println!(
        "{{\"bench\":\"decode\",\"isa\":\"{:?}\",\"threads\":{},\"format\":\"Q4_1\",\"layers\":{n_layers},\"width\":{width},\
         \"context\":{context},\"us\":{:.0},\"us_quartiles\":[{:.0},{:.0}],\"us_best\":{:.0},\"tokens_per_s\":{:.1}}}",
        cpu.isa(),
        cpu.threads(),
        median * 1e6,
        low * 1e6,
        high * 1e6,
        best * 1e6,
        1.0 / median,
    );
}

/// Components of a head in [`decode`].
const HEAD_LEN: usize = 64;

/// One layer of [`decode`].
struct Layer {
    qkv: Matrix,
    out: Matrix,
    gate_up: Matrix,
    down: Matrix,
    pages: Pages,
}

impl Layer {
    fn forward(
        &mut self,
        cpu: &Cpu,
        x: Tensor,
        gain: &Vector,
        rotation: &Rotation,
        keys: RowKeys<'_>,
        [n_heads, kv_heads, len]: [usize; 3],
    ) -> Result<Tensor, OpError> {
        let width = n_heads * len;
        let qkv = cpu.linear(&self.qkv, None, &cpu.rms_norm(&x, Some(gain), width, 1e-5)?)?;
        let q = cpu.rope(&cpu.columns(&qkv, 0..width)?, rotation)?;
        let k = cpu.rope(&cpu.columns(&qkv, width..width + kv_heads * len)?, rotation)?;
        let v = cpu.columns(&qkv, width + kv_heads * len..width + 2 * kv_heads * len)?;
        cpu.store(&mut self.pages, &k, &v, &[keys.end - 1])?;
        let seen = cpu.attention(&q, &self.pages, &[keys])?;
        let x = cpu.add(&x, &cpu.linear(&self.out, None, &seen)?)?;
        let gate_up = cpu.linear(&self.gate_up, None, &cpu.rms_norm(&x, Some(gain), width, 1e-5)?)?;
        cpu.add(&x, &cpu.linear(&self.down, None, &cpu.swiglu(&gate_up)?)?)
    }
}

fn main() {
    let real = argument("--size").as_deref() == Some("real");
    let threads = argument("--threads").and_then(|n| n.parse::<NonZeroUsize>().ok());
    let isa = argument("--isa").and_then(|name| Isa::parse(&name));
    let cpu = Cpu::new(CpuOptions { threads, isa, ..Default::default() });
    let only = argument("--format");
    let rows = argument("--rows").and_then(|n| n.parse::<usize>().ok());
    if only.is_none() {
        for context in [16, 512] {
            decode(&cpu, context, real);
        }
    }
    let shapes: &[[usize; 2]] = if real { &[[1536, 576], [4096, 4096]] } else { &[[64, 64]] };
    // Of Llama 4's vision tower.
    let tower: &[[usize; 2]] = if real { &[[5632, 1408], [1408, 5632]] } else { &[] };
    let blocks = [Kind::Q4_1, Kind::Q4_0, Kind::Q8_0, Kind::Q4_K, Kind::Q6_K].map(Format::Block);
    for format in blocks.into_iter().chain([Format::F32, Format::BF16, Format::F16]) {
        if only.as_ref().is_some_and(|only| only != format.name()) {
            continue;
        }
        for &[n_out, n_in] in shapes {
            if argument("--n-in").is_some_and(|n| n.parse() != Ok(n_in)) {
                continue;
            }
            if n_in % format.block_len() != 0 {
                continue;
            }
            for n_rows in [1, 4, 8, 16, 64, 512].into_iter().filter(|n| rows.is_none_or(|rows| rows == *n)) {
                measure(&cpu, format, [n_out, n_in], n_rows, real);
            }
        }
        for shape in tower.iter().filter(|_| format == Format::BF16 && rows.is_none_or(|rows| rows == 577)) {
            measure(&cpu, format, *shape, 577, real);
        }
    }
}
