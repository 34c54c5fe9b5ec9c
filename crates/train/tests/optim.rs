//! Optimisers against PyTorch's, and what they promise about bits, threads and bad numbers.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use formats::{map_file, safetensors};
use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use train::optim::{
    Accumulator, AdamW, Compute, Counters, Group, Matrices, Muon, Optimizer, Outcome, Parameter, Right, Scale,
    Settings, Side, Threads, Weights, global_norm, plain_product,
};

const ADAMW: AdamW = AdamW { lr: 1e-2, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 };
const MUON: Muon = Muon { lr: 2e-2, momentum: 0.95, weight_decay: 0.1, scale: Scale::AdamW };
const SETTINGS: Settings = Settings { adamw: ADAMW, muon: Some(MUON), norm_limit: None, average_decay: None };
const N_STEPS: usize = 20;
/// The relative error of one rounding to f32.
const ROUNDING: f64 = 1.0 / 16_777_216.0;

fn threads(n: usize) -> Threads {
    NonZeroUsize::new(n).map_or(Threads::ONE, Threads::new)
}

fn optimizer(settings: Settings) -> Optimizer {
    Optimizer::new(settings, Compute::plain(threads(2)))
}

/// One step of one parameter.
fn step(
    optimizer: &mut Optimizer,
    factor: f64,
    (name, shape): (&str, &[usize]),
    weights: &mut [f32],
    gradient: &[f32],
) -> Result<Outcome> {
    Ok(optimizer.step(factor, vec![Parameter { name, shape, weights: Weights::F32(weights), gradient }])?)
}

/// A shape and values.
type Golden = (Vec<usize>, Vec<f64>);

/// The golden tensors by name, widened to f64.
fn goldens() -> Result<BTreeMap<String, Golden>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/train/optimizers.safetensors");
    let tensors = safetensors::parse(&path, &map_file(&path)?)?;
    let widen = |tensor: formats::Tensor| {
        let values = match tensor.dtype.name() {
            "F64" => tensor.bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
            _ => tensor.bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
        };
        (tensor.name, (tensor.shape, values))
    };
    Ok(tensors.into_iter().map(widen).collect())
}

/// Runs the golden called `prefix` and returns the largest distance of any value after any step.
fn largest_distance(prefix: &str, name: &str, settings: Settings) -> Result<f64> {
    let goldens = goldens()?;
    let get = |what: &str| goldens.get(&format!("{prefix}.{what}")).with_context(|| format!("{prefix}.{what}"));
    let (shape, begin) = get("begin")?;
    // A vector would not decay.
    let shape = if shape.len() == 1 { vec![1, shape[0]] } else { shape.clone() };
    let narrow = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
    let mut weights = narrow(begin);
    let (len, mut optimizer, mut largest) = (weights.len(), optimizer(settings), 0.0f64);
    let steps = get("gradients")?.1.chunks(len).zip(get("steps")?.1.chunks(len));
    for (i, (gradient, expected)) in steps.enumerate() {
        let factor = (i + 1) as f64 / N_STEPS as f64;
        step(&mut optimizer, factor, (name, &shape), &mut weights, &narrow(gradient))?;
        for (value, expected) in weights.iter().zip(expected) {
            largest = largest.max((f64::from(*value) - expected).abs());
        }
    }
    ensure!(optimizer.counters().applied == N_STEPS as u64);
    Ok(largest)
}

#[test]
fn adamw_takes_the_steps_of_torch() -> Result<()> {
    // Gradients have magnitudes of 0.5 to 1, so |first moment| ≤ 1 − β₁ᵗ and the corrected root is at least 0.5. After t
    // steps the corrected first moment is off by at most 3t roundings (three operations a step, on values below the
    // correction), the corrected root, relatively, by (4t + 4)/2 + 2. So a step of size lr·(first / root) is off by
    // lr·(3t/0.5 + 2·(2t + 4) + 4·2) = lr·(10t + 16) roundings, which adds up to 2,420·lr over 20 steps; the factors of
    // the schedule only lower that. The value itself, below 1.3, is rounded three times a step.
    let bound = ROUNDING * (2_420.0 * ADAMW.lr + 20.0 * 3.0 * 1.3);
    let largest = largest_distance("adamw", "lm_head.weight", SETTINGS)?;
    println!("20 steps of AdamW: at most {largest:.2e} from torch in f64; the bound is {bound:.2e}");
    assert!(largest <= bound && largest > 0.0);
    Ok(())
}

#[test]
fn muon_takes_the_steps_of_torch() -> Result<()> {
    let goldens = goldens()?;
    let mut n_compared = 0;
    for (scale, scale_name) in [(Scale::Shape, "shape"), (Scale::AdamW, "adamw")] {
        for size in ["6x10", "10x6", "8x8", "1x5"] {
            let prefix = format!("muon.{scale_name}.{size}");
            let (_, spread) = goldens.get(&format!("{prefix}.spread")).context("spread")?;
            // The iteration magnifies roundings by what depends on the matrix, so the script measured how far torch's own
            // f32 evaluation lies from its f64 one. Ours is another evaluation in f32, whose roundings are independent of
            // those: a factor of 4 for the larger of two such maxima. A wrong coefficient in the fourth digit moves the
            // parameters by five hundred times as much.
            let bound = 4.0 * spread[0];
            let settings = Settings { muon: Some(Muon { scale, ..MUON }), ..SETTINGS };
            let largest = largest_distance(&prefix, "model.layers.0.self_attn.q_proj.weight", settings)?;
            println!("20 steps of {prefix}: at most {largest:.2e} from torch in f64; the bound is {bound:.2e}");
            assert!(largest <= bound);
            n_compared += 1;
        }
    }
    assert_eq!(n_compared, 8);
    Ok(())
}

#[test]
fn groups_follow_names_and_shapes() {
    let two = |rows, columns| Group::Matrices(Matrices { rows, columns, parts: 1, rows_are: Side::Outputs });
    let fused = |rows, columns, parts| Group::Matrices(Matrices { rows, columns, parts, rows_are: Side::Inputs });
    let layer = "language_model.model.layers.3";
    let cases: [(String, &[usize], Group); 16] = [
        ("language_model.model.embed_tokens.weight".into(), &[320, 64], Group::Undecayed),
        ("language_model.lm_head.weight".into(), &[320, 64], Group::Decayed),
        ("language_model.model.norm.weight".into(), &[64], Group::Undecayed),
        (format!("{layer}.input_layernorm.weight"), &[64], Group::Undecayed),
        (format!("{layer}.self_attn.q_proj.weight"), &[64, 32], two(64, 32)),
        (format!("{layer}.feed_forward.router.weight"), &[8, 64], Group::Decayed),
        (format!("{layer}.feed_forward.experts.gate_up_proj"), &[8, 64, 128], fused(64, 128, 2)),
        (format!("{layer}.feed_forward.experts.down_proj"), &[8, 64, 32], fused(64, 32, 1)),
        (format!("{layer}.feed_forward.shared_expert.down_proj.weight"), &[64, 32], two(64, 32)),
        (format!("{layer}.self_attn.q_proj.lora_A.weight"), &[4, 32], Group::Decayed),
        ("vision_model.class_embedding".into(), &[64], Group::Undecayed),
        ("vision_model.positional_embedding_vlm".into(), &[17, 64], Group::Undecayed),
        ("vision_model.patch_embedding.linear.weight".into(), &[64, 588], Group::Decayed),
        ("vision_model.model.layers.0.mlp.fc1.weight".into(), &[32, 64], two(32, 64)),
        ("vision_model.model.layers.0.mlp.fc1.bias".into(), &[32], Group::Undecayed),
        ("multi_modal_projector.linear_1.weight".into(), &[64, 64], two(64, 64)),
    ];
    for (name, shape, expected) in &cases {
        assert_eq!(Group::of(name, shape), *expected, "{name}");
    }
    println!("{} names", cases.len());
}

/// A small model: every group, tensors of several pieces, and one of bf16.
struct Model {
    shapes: Vec<(&'static str, Vec<usize>)>,
    weights: Vec<Vec<f32>>,
    small: Vec<bf16>,
    draw: ChaCha8Rng,
}

const EXPERTS: &str = "model.layers.0.feed_forward.experts.gate_up_proj";
const SMALL: &str = "model.layers.0.self_attn.k_proj.weight";

impl Model {
    fn new(seed: u64) -> Self {
        let shapes = vec![
            ("lm_head.weight", vec![129, 1031]),
            ("model.embed_tokens.weight", vec![67, 5]),
            (EXPERTS, vec![3, 7, 10]),
            ("model.layers.0.self_attn.q_proj.weight", vec![24, 17]),
            ("model.norm.weight", vec![13]),
        ];
        let mut draw = ChaCha8Rng::seed_from_u64(seed);
        let mut values = |len: usize| (0..len).map(|_| draw.random_range(-1.0..1.0)).collect::<Vec<f32>>();
        let weights = shapes.iter().map(|(_, shape)| values(shape.iter().product())).collect();
        let small = values(60).into_iter().map(bf16::from_f32).collect();
        Self { shapes, weights, small, draw }
    }

    /// A step on gradients that the model's seed and the step decide.
    fn step(&mut self, optimizer: &mut Optimizer) -> Result<Outcome> {
        let draw = &mut self.draw;
        let mut noise = |len: usize| (0..len).map(|_| draw.random_range(-1.0..1.0)).collect::<Vec<f32>>();
        let gradients: Vec<Vec<f32>> = self.weights.iter().map(|weights| noise(weights.len())).collect();
        let small_gradient = noise(self.small.len());
        let mut parameters = vec![Parameter {
            name: SMALL,
            shape: &[6, 10],
            weights: Weights::Bf16(&mut self.small),
            gradient: &small_gradient,
        }];
        for (((name, shape), weights), gradient) in self.shapes.iter().zip(&mut self.weights).zip(&gradients) {
            parameters.push(Parameter { name, shape, weights: Weights::F32(weights), gradient });
        }
        Ok(optimizer.step(0.5, parameters)?)
    }

    /// All bits, of the optimiser too.
    fn bits(&self, optimizer: &Optimizer) -> Vec<u32> {
        let tensors: Vec<_> = optimizer.state().into_iter().chain(optimizer.averages()).collect();
        let kept = tensors.iter().flat_map(|tensor| tensor.values);
        let small = self.small.iter().map(|value| u32::from(value.to_bits()));
        self.weights.iter().flatten().chain(kept).map(|value| value.to_bits()).chain(small).collect()
    }
}

const ALL: Settings = Settings { norm_limit: Some(1.0), average_decay: Some(0.9), ..SETTINGS };

#[test]
fn bits_do_not_depend_on_the_number_of_threads() -> Result<()> {
    let mut expected = Vec::new();
    for n_threads in [1, 2, 3, 7] {
        let mut model = Model::new(11);
        let mut optimizer = Optimizer::new(ALL, Compute::plain(threads(n_threads)));
        for _ in 0..3 {
            model.step(&mut optimizer)?;
        }
        let bits = model.bits(&optimizer);
        if n_threads == 1 {
            expected = bits;
        } else {
            assert_eq!(bits, expected, "{n_threads} threads");
        }
    }
    println!("{} numbers, equal for 1, 2, 3 and 7 threads", expected.len());
    assert!(expected.len() > 500_000);
    Ok(())
}

#[test]
fn an_optimiser_that_is_restored_at_any_step_goes_on_with_the_same_bits() -> Result<()> {
    let n_steps = 6;
    let mut whole = Model::new(12);
    let mut never_stopped = optimizer(ALL);
    for _ in 0..n_steps {
        whole.step(&mut never_stopped)?;
    }
    let expected = whole.bits(&never_stopped);
    for stop in 0..=n_steps {
        let mut model = Model::new(12);
        let mut first = optimizer(ALL);
        for _ in 0..stop {
            model.step(&mut first)?;
        }
        let tensors: Vec<_> = first.state().into_iter().chain(first.averages()).collect();
        let tensors = tensors.into_iter().map(|tensor| (tensor.name, tensor.shape.to_vec(), tensor.values.to_vec()));
        let counters: Counters = serde_json::from_str(&serde_json::to_string(&first.counters())?)?;
        let mut second = Optimizer::restore(ALL, Compute::plain(threads(2)), counters, tensors)?;
        for _ in stop..n_steps {
            model.step(&mut second)?;
        }
        assert_eq!(model.bits(&second), expected, "stopped after {stop}");
        assert_eq!(second.counters(), never_stopped.counters());
    }
    println!("{} stops, {} numbers each", n_steps + 1, expected.len());
    Ok(())
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing_and_is_counted() -> Result<()> {
    let (name, shape) = ("lm_head.weight", [1, 70_001]);
    let mut optimizer = optimizer(SETTINGS);
    let mut weights = vec![0.5f32; 70_001];
    let gradient = vec![0.25f32; 70_001];
    step(&mut optimizer, 1.0, (name, &shape), &mut weights, &gradient)?;
    let before = (weights.clone(), format!("{:?}", optimizer.state()));
    let mut n_injected = 0;
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for position in [0, 7, 65_535, 65_536, 70_000] {
            let mut gradient = gradient.clone();
            gradient[position] = bad;
            let outcome = step(&mut optimizer, 1.0, (name, &shape), &mut weights, &gradient)?;
            n_injected += 1;
            assert_eq!(outcome, Outcome::Skipped { in_a_row: n_injected });
            assert!(weights == before.0 && format!("{:?}", optimizer.state()) == before.1, "{bad} at {position}");
        }
    }
    assert_eq!(optimizer.counters(), Counters { applied: 1, skipped: 15, skipped_in_a_row: 15 });
    step(&mut optimizer, 1.0, (name, &shape), &mut weights, &gradient)?;
    assert_eq!(optimizer.counters(), Counters { applied: 2, skipped: 15, skipped_in_a_row: 0 });
    // Finite, though its square is not an f32.
    let large = vec![f32::MAX; 70_001];
    assert!(matches!(step(&mut optimizer, 1.0, (name, &shape), &mut weights, &large)?, Outcome::Applied { .. }));
    println!("{n_injected} bad numbers, {n_injected} steps skipped");
    Ok(())
}

#[test]
fn long_gradients_are_shortened_to_the_limit_together() -> Result<()> {
    // 3, 4 and 12 make 13.
    let [a, b] = [vec![3.0f32, 4.0], vec![12.0]];
    assert_eq!(global_norm(&[&a, &b], threads(2)), 13.0);
    // A moment after one step is a share of the gradient that was used.
    for (limit, expected) in [(Some(6.5), 0.5), (Some(13.5), 1.0), (None, 1.0)] {
        let mut optimizer = optimizer(Settings { norm_limit: limit, ..SETTINGS });
        let (mut first, mut second) = ([1.0f32, 1.0], [1.0f32]);
        let outcome = optimizer.step(
            1.0,
            vec![
                Parameter { name: "b", shape: &[1], weights: Weights::F32(&mut second), gradient: &b },
                Parameter { name: "a", shape: &[2], weights: Weights::F32(&mut first), gradient: &a },
            ],
        )?;
        assert_eq!(outcome, Outcome::Applied { norm: 13.0 });
        let state = optimizer.state();
        let moment = state.iter().find(|tensor| tensor.name == "first_moment.b").context("a moment")?;
        // Six roundings, and the addend of 1e-6 to a norm of 13.
        let wanted = 12.0 * expected * 0.1;
        assert!((f64::from(moment.values[0]) - wanted).abs() <= wanted * (6.0 * ROUNDING + 1e-6 / 13.0), "{limit:?}");
    }
    println!("3 limits");
    Ok(())
}

#[test]
fn weights_of_16_bits_follow_masters_that_move_by_less_than_their_steps() -> Result<()> {
    let settings = Settings { adamw: AdamW { lr: 1e-4, weight_decay: 0.0, ..ADAMW }, ..SETTINGS };
    let shape = [1, 3];
    let begin = [1.0f32, -2.0, 0.5];
    let mut small: Vec<bf16> = begin.iter().copied().map(bf16::from_f32).collect();
    let mut wide = begin.to_vec();
    let (mut of_small, mut of_wide) = (optimizer(settings), optimizer(settings));
    let mut n_moved = 0;
    for _ in 0..200 {
        let gradient = [1.0f32, -1.0, 1.0];
        let before = small.clone();
        let weights = Weights::Bf16(&mut small);
        of_small.step(1.0, vec![Parameter { name: "x", shape: &shape, weights, gradient: &gradient }])?;
        step(&mut of_wide, 1.0, ("x", &shape), &mut wide, &gradient)?;
        for (small, wide) in small.iter().zip(&wide) {
            assert_eq!(*small, bf16::from_f32(*wide));
        }
        n_moved += u32::from(small != before);
    }
    println!("200 steps, of which {n_moved} moved a weight");
    // A step of 1e-4 is a fortieth of the distance between neighbours at 1: without masters none would.
    assert!(n_moved > 5 && n_moved < 100);
    Ok(())
}

#[test]
fn gate_and_up_of_every_expert_are_matrices_of_their_own() -> Result<()> {
    let (n_experts, rows, width) = (3, 6, 4);
    let mut draw = ChaCha8Rng::seed_from_u64(5);
    let mut noise = || (0..n_experts * rows * 2 * width).map(|_| draw.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let (mut fused, gradient) = (noise(), noise());
    // The columns of one half of one expert.
    let part = |values: &[f32], expert: usize, half: usize| -> Vec<f32> {
        let rows = values[expert * rows * 2 * width..][..rows * 2 * width].chunks(2 * width);
        rows.flat_map(|row| row[half * width..][..width].to_vec()).collect()
    };
    let begin = fused.clone();
    step(&mut optimizer(SETTINGS), 1.0, (EXPERTS, &[n_experts, rows, 2 * width]), &mut fused, &gradient)?;
    for expert in 0..n_experts {
        for half in 0..2 {
            let mut alone = part(&begin, expert, half);
            let gradient = part(&gradient, expert, half);
            let name = "model.layers.0.self_attn.v_proj.weight";
            step(&mut optimizer(SETTINGS), 1.0, (name, &[rows, width]), &mut alone, &gradient)?;
            assert_eq!(part(&fused, expert, half), alone, "expert {expert}, half {half}");
        }
    }
    println!("{} matrices", n_experts * 2);
    Ok(())
}

#[test]
fn a_plain_product_depends_on_its_two_rows_alone_and_is_right() {
    let mut draw = ChaCha8Rng::seed_from_u64(6);
    let mut n_outputs = 0;
    for (m, n, k) in [(1, 1, 1), (4, 2, 8), (5, 3, 7), (9, 8, 33), (3, 5, 2), (0, 4, 3), (4, 0, 3)] {
        let mut noise = |len: usize| (0..len).map(|_| draw.random_range(-1.0..1.0)).collect::<Vec<f32>>();
        let (a, b) = (noise(m * k), noise(n * k));
        let mut out = vec![f32::NAN; m * n];
        plain_product(&a, Right::Turned(&b), k, &mut out);
        let turned: Vec<f32> = (0..k * n).map(|i| b[i % n * k + i / n]).collect();
        let mut of_turned = vec![f32::NAN; m * n];
        plain_product(&a, Right::Plain(&turned), k, &mut of_turned);
        assert_eq!(of_turned, out, "{m}×{n}×{k}");
        for row in 0..m {
            for column in 0..n {
                let (a, b) = (&a[row * k..][..k], &b[column * k..][..k]);
                let mut alone = [f32::NAN];
                plain_product(a, Right::Turned(b), k, &mut alone);
                assert_eq!(out[row * n + column], alone[0], "{m}×{n}×{k}");
                let terms = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
                let (exact, sizes) = terms.fold((0.0, 0.0), |(sum, sizes), term| (sum + term, sizes + term.abs()));
                // One rounding of a product, and as many of sums as it takes part in: at most k/4 + 3.
                let bound = sizes * ROUNDING * (k as f64 / 4.0 + 5.0);
                assert!((f64::from(alone[0]) - exact).abs() <= bound);
                n_outputs += 1;
            }
        }
    }
    println!("{n_outputs} outputs");
}

#[test]
fn an_average_follows_the_weights() -> Result<()> {
    let mut optimizer = optimizer(Settings { average_decay: Some(0.75), ..SETTINGS });
    let mut weights = [1.0f32, -1.0, 3.0];
    let mut expected = weights.map(f64::from);
    for i in 0..10u8 {
        step(&mut optimizer, 1.0, ("x", &[3]), &mut weights, &[1.0, f32::from(i), -2.0])?;
        for (expected, weight) in expected.iter_mut().zip(weights) {
            *expected = *expected * 0.75 + f64::from(weight) * 0.25;
        }
    }
    let averages = optimizer.averages();
    assert_eq!(averages[0].name, "average.x");
    for (average, expected) in averages[0].values.iter().zip(expected) {
        // Three roundings a step, each less than one of 4.
        assert!((f64::from(*average) - expected).abs() <= 30.0 * 4.0 * ROUNDING);
    }
    println!("10 steps");
    Ok(())
}

#[test]
fn small_batches_add_up_to_the_mean_over_their_tokens() {
    let batch = |name: &str, values: &[f32]| BTreeMap::from([(name.to_owned(), values.to_vec())]);
    let mut accumulator = Accumulator::default();
    assert!(accumulator.take_mean(threads(2)).is_empty());
    accumulator.add(&batch("a", &[1.0, 2.0]), 3.0, threads(2));
    accumulator.add(&batch("a", &[5.0, -2.0]), 1.0, threads(1));
    accumulator.add(&batch("b", &[8.0]), 4.0, threads(2));
    let mean = accumulator.take_mean(threads(2));
    assert_eq!(mean, BTreeMap::from([("a".into(), vec![1.0, 0.5]), ("b".into(), vec![4.0])]));
    assert!(accumulator.take_mean(threads(2)).is_empty());
    println!("3 batches");
}

#[test]
fn contradictions_are_refused_before_anything_changes() -> Result<()> {
    let mut optimizer = optimizer(SETTINGS);
    let mut weights = [1.0f32; 4];
    step(&mut optimizer, 1.0, ("x", &[4]), &mut weights, &[1.0; 4])?;
    let before = weights;
    let mut refusals = Vec::new();
    let mut refuse = |shape: &[usize], gradient: &[f32], names: &[&str]| {
        let mut copies: Vec<[f32; 4]> = names.iter().map(|_| weights).collect();
        let all = names.iter().zip(&mut copies);
        let all = all.map(|(name, copy)| Parameter { name, shape, weights: Weights::F32(copy), gradient }).collect();
        if let Err(e) = optimizer.step(1.0, all) {
            refusals.push(e.to_string());
        }
        assert!(copies.iter().all(|copy| *copy == before));
    };
    refuse(&[5], &[1.0; 4], &["x"]);
    refuse(&[4], &[1.0; 3], &["x"]);
    refuse(&[2, 2], &[1.0; 4], &["x"]);
    refuse(&[4], &[1.0; 4], &["x", "x"]);
    let unknown = [("moment.x".to_owned(), vec![1], vec![1.0f32])];
    let restored = Optimizer::restore(SETTINGS, Compute::plain(threads(1)), Counters::default(), unknown);
    refusals.extend(restored.err().map(|e| e.to_string()));
    println!("{refusals:#?}");
    assert_eq!(refusals.len(), 5);
    assert_eq!(optimizer.counters().applied, 1);
    Ok(())
}
