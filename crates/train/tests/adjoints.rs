//! Every op's adjoint against finite differences, on both devices.
//!
//! A function of a few numbers is made of an op (or of the ops around it that give it its operands), then reduced to one
//! number by fixed weights. In f32 a central difference with step h errs by ε/h of the value and by h² of the third
//! derivative: with h = 2⁻⁷ and values of size 1 both are below 1e-4; the tolerance is ten times that.

use std::sync::Arc;

use anyhow::{Result, ensure};
use cpu::{Cpu, CpuOptions};
use tensor::{
    Adjoint, Device, Format, KvFormat, Orientation, PAGE_LEN, Pairing, Reference, Rotation, RowKeys, Targets,
    WeightSource,
};
use train::{Tape, Var};

const STEP: f32 = 1.0 / 128.0;
const TOLERANCE: f32 = 1e-3;

/// Numbers between −1 and 1, by number.
fn numbers(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| (((i + 1) * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// A trained weight of name `name`.
fn weight(name: &str, values: &[f32], orientation: Orientation, shape: [usize; 3]) -> Result<WeightSource> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Ok(WeightSource::new(bytes.into(), Format::F32, orientation, shape)?.named(name))
}

/// `values` on the tape as a result with a gradient: rows of a trained table.
fn rows<D: Adjoint>(tape: &Tape<D>, name: &str, values: &[f32], width: usize) -> Result<Var> {
    let n_rows = values.len() / width;
    let table = tape.table(&weight(name, values, Orientation::OutIn, [1, n_rows, width])?)?;
    Ok(tape.embed(&table, &(0..n_rows as u32).collect::<Vec<_>>())?)
}

/// A function of weights: their values come in, by number, and a result goes out.
type Function<'a, D> = dyn Fn(&Tape<D>, &[Vec<f32>]) -> Result<Var> + 'a;

/// Holds the gradients of `f` at `at` against finite differences; the weights are called `0`, `1`, … Returns how many
/// derivatives were compared.
fn check<D: Adjoint>(dev: &Arc<D>, name: &str, at: &[Vec<f32>], f: &Function<'_, D>) -> Result<usize> {
    let value = |at: &[Vec<f32>]| -> Result<f64> {
        let tape = Tape::new(Arc::clone(dev), |_| true);
        let y = tape.download(&f(&tape, at)?);
        let factors = numbers(99, y.len());
        Ok(y.iter().zip(factors).map(|(y, factor)| f64::from(*y) * f64::from(factor)).sum())
    };
    let tape = Tape::new(Arc::clone(dev), |_| true);
    let start = tape.mark();
    let y = f(&tape, at)?;
    let [n_rows, width] = tape.shape(&y);
    tape.seed(&y, dev.upload(&numbers(99, n_rows * width), width)?)?;
    tape.rewind(start)?;
    let gradients = tape.take_gradients();
    let mut n_compared = 0;
    for (weight, values) in at.iter().enumerate() {
        let got = gradients.get(&weight.to_string());
        for i in 0..values.len() {
            let moved = |by: f32| {
                let mut at = at.to_vec();
                at[weight][i] += by;
                value(&at)
            };
            let want = ((moved(STEP)? - moved(-STEP)?) / f64::from(2.0 * STEP)) as f32;
            let got = got.map_or(0.0, |got| got[i]);
            let tolerance = TOLERANCE * want.abs().max(1.0);
            ensure!(
                (got - want).abs() <= tolerance,
                "{name}: {got} for weight {weight}[{i}], the difference is {want}"
            );
            n_compared += 1;
        }
    }
    Ok(n_compared)
}

fn rotation(pairing: Pairing, n_rows: usize, n_pairs: usize) -> Rotation {
    let angles = numbers(5, n_rows * n_pairs);
    let (sin, cos) = angles.iter().map(|a| a.sin_cos()).unzip();
    Rotation { pairing, n_pairs, cos, sin }
}

/// Attention of rows that each see what `seen` says of the rows stored.
fn attend<D: Adjoint>(tape: &Tape<D>, [q, k, v]: [&Var; 3], heads: [usize; 2], seen: &[(usize, usize)]) -> Result<Var> {
    let [n_heads, head_len] = heads;
    let n_stored = tape.shape(k)[0];
    let pages: Vec<u32> = (0..n_stored.div_ceil(PAGE_LEN) as u32).rev().collect();
    let mut stored = tape.pages(pages.len(), n_heads, head_len, KvFormat::F32)?;
    let slots: Vec<usize> = (0..n_stored).map(|i| pages[i / PAGE_LEN] as usize * PAGE_LEN + i % PAGE_LEN).collect();
    tape.store(&mut stored, k, v, &slots)?;
    let keys: Vec<RowKeys<'_>> = seen
        .iter()
        .map(|(begin, end)| RowKeys { pages: &pages, first_position: 0, begin: *begin, end: *end })
        .collect();
    Ok(tape.attention(q, &stored, &keys)?)
}

fn every_op<D: Adjoint>(dev: &Arc<D>) -> Result<usize> {
    let mut n = 0;
    let x = |seed: usize, len: usize| numbers(seed, len);
    n += check(dev, "columns and add", &[x(1, 12)], &|tape, at| {
        let x = rows(tape, "0", &at[0], 4)?;
        Ok(tape.add(&tape.columns(&x, 0..3)?, &tape.columns(&x, 1..4)?)?)
    })?;
    n += check(dev, "rows and concat", &[x(1, 8), x(2, 6)], &|tape, at| {
        let both = tape.concat(&rows(tape, "0", &at[0], 2)?, &rows(tape, "1", &at[1], 2)?)?;
        Ok(tape.rows(&both, &[6, 0, 3, 3, 5, 0])?)
    })?;
    n += check(dev, "reshape and scale_rows", &[x(1, 12)], &|tape, at| {
        Ok(tape.scale_rows(&tape.reshape(rows(tape, "0", &at[0], 4)?, 6)?, &[0.5, -2.0])?)
    })?;
    n += check(
        dev,
        "linear of two parts, with a bias, onto",
        &[x(1, 34), x(2, 51), x(3, 34), x(4, 5), x(5, 10)],
        &|tape, at| {
            let (out_in, in_out) = (Orientation::OutIn, Orientation::InOut);
            let w =
                tape.matrix(&[weight("1", &at[1], out_in, [1, 3, 17])?, weight("2", &at[2], in_out, [1, 2, 17])?])?;
            let bias = tape.vector(&[weight("3", &at[3], out_in, [1, 1, 5])?])?;
            let onto = rows(tape, "4", &at[4], 5)?;
            Ok(tape.linear_onto(onto, &w, Some(&bias), &rows(tape, "0", &at[0], 17)?)?)
        },
    )?;
    n += check(dev, "rms_norm of parts of a row, with a gain", &[x(1, 12), x(2, 3)], &|tape, at| {
        let gain = tape.vector(&[weight("1", &at[1], Orientation::OutIn, [1, 1, 3])?])?;
        Ok(tape.rms_norm(&rows(tape, "0", &at[0], 6)?, Some(&gain), 3, 1e-2)?)
    })?;
    n += check(dev, "rms_norm without a gain", &[x(3, 40)], &|tape, at| {
        Ok(tape.rms_norm(&rows(tape, "0", &at[0], 20)?, None, 20, 1e-5)?)
    })?;
    n += check(dev, "layer_norm", &[x(1, 38), x(2, 19), x(3, 19)], &|tape, at| {
        let vector = |i: usize| {
            Ok::<_, anyhow::Error>(tape.vector(&[weight(&i.to_string(), &at[i], Orientation::OutIn, [1, 1, 19])?])?)
        };
        Ok(tape.layer_norm(&rows(tape, "0", &at[0], 19)?, &vector(1)?, &vector(2)?, 1e-5)?)
    })?;
    for pairing in [Pairing::Interleaved, Pairing::Halves] {
        n += check(dev, "rope", &[x(1, 24)], &|tape, at| {
            Ok(tape.rope(&rows(tape, "0", &at[0], 12)?, &rotation(pairing, 2, 3))?)
        })?;
    }
    n += check(dev, "swiglu", &[x(1, 36)], &|tape, at| Ok(tape.swiglu(&rows(tape, "0", &at[0], 12)?)?))?;
    n += check(dev, "gelu", &[x(1, 30)], &|tape, at| {
        Ok(tape.gelu(&tape.scale_rows(&rows(tape, "0", &at[0], 10)?, &[1.0, 2.0, 3.0])?))
    })?;
    // Four query heads on two of keys; two sequences, one causal, one whose rows see all of it.
    let seen: Vec<(usize, usize)> = (0..19).map(|i| (0, i + 1)).chain((0..3).map(|_| (19, 22))).collect();
    n += check(dev, "attention", &[x(1, 22 * 12), x(2, 22 * 6), x(3, 22 * 6)], &|tape, at| {
        let [q, k, v] = [rows(tape, "0", &at[0], 12)?, rows(tape, "1", &at[1], 6)?, rows(tape, "2", &at[2], 6)?];
        attend(tape, [&q, &k, &v], [2, 3], &seen)
    })?;
    // A layer's whole way through experts: the score's gradient goes to the router.
    for top_k in [1, 2] {
        let at = [x(1, 35), x(2, 15), x(3, 3 * 5 * 8), x(4, 3 * 4 * 5), x(6, 35)];
        n += check(dev, "route, experts, combine", &at, &|tape, at| {
            let x = rows(tape, "0", &at[0], 5)?;
            let router = tape.matrix(&[weight("1", &at[1], Orientation::OutIn, [1, 3, 5])?])?;
            let gate_up = tape.matrix(&[weight("2", &at[2], Orientation::InOut, [3, 8, 5])?])?;
            let down = tape.matrix(&[weight("3", &at[3], Orientation::OutIn, [3, 5, 4])?])?;
            let routing = tape.route(&tape.linear(&router, None, &x)?, top_k)?;
            let y = tape.experts(&down, &tape.experts_swiglu(&gate_up, &x, &routing)?, &routing)?;
            Ok(tape.combine(x, &rows(tape, "4", &at[4], 5)?, &y, &routing)?)
        })?;
    }
    Ok(n)
}

#[test]
fn every_adjoint_is_the_limit_of_differences() -> Result<()> {
    let n = every_op(&Arc::new(Reference))? + every_op(&Arc::new(Cpu::new(CpuOptions::default())))?;
    println!("{n} derivatives compared");
    ensure!(n > 2000, "only {n} derivatives were compared");
    Ok(())
}

/// A loss of logits.
type Loss<'a> = dyn Fn(&[f32]) -> Result<f64> + 'a;

fn losses_agree<D: Adjoint>(dev: &D) -> Result<usize> {
    let (logits, teacher) = (numbers(1, 21), numbers(2, 21));
    let (tokens, weights) = ([3, 0, 6], [1.0, 0.0, 0.5]);
    let targets = Targets { tokens: &tokens, weights: &weights };
    let entropy = |at: &[f32]| -> Result<f64> {
        let (losses, _) = dev.cross_entropy(&dev.upload(at, 7)?, targets)?;
        Ok(losses.iter().zip(weights).map(|(loss, weight)| loss * f64::from(weight)).sum())
    };
    let divergence = |at: &[f32]| -> Result<f64> {
        let (losses, _) = dev.divergence(&dev.upload(at, 7)?, &dev.upload(&teacher, 7)?, 2.0, &weights)?;
        Ok(losses.iter().zip(weights).map(|(loss, weight)| loss * f64::from(weight)).sum())
    };
    let (_, of_entropy) = dev.cross_entropy(&dev.upload(&logits, 7)?, targets)?;
    let (_, of_divergence) = dev.divergence(&dev.upload(&logits, 7)?, &dev.upload(&teacher, 7)?, 2.0, &weights)?;
    let functions: [(&Loss<'_>, Vec<f32>); 2] =
        [(&entropy, dev.download(&of_entropy)), (&divergence, dev.download(&of_divergence))];
    let mut n_compared = 0;
    for (f, got) in functions {
        for (i, got) in got.iter().enumerate() {
            let moved = |by: f32| {
                let mut at = logits.clone();
                at[i] += by;
                f(&at)
            };
            let want = ((moved(STEP)? - moved(-STEP)?) / f64::from(2.0 * STEP)) as f32;
            ensure!((got - want).abs() <= TOLERANCE, "{got} for logit {i}, the difference is {want}");
            n_compared += 1;
        }
    }
    // The divergence from itself is nothing.
    let same = dev.upload(&logits, 7)?;
    let (losses, gradient) = dev.divergence(&same, &same, 2.0, &weights)?;
    ensure!(losses.iter().all(|loss| loss.abs() < 1e-6), "{losses:?}");
    ensure!(dev.download(&gradient).iter().all(|x| x.abs() < 1e-6));
    Ok(n_compared)
}

#[test]
fn gradients_of_losses_are_the_limit_of_differences() -> Result<()> {
    let n = losses_agree(&Reference)? + losses_agree(&Cpu::new(CpuOptions::default()))?;
    ensure!(n == 84, "{n} derivatives were compared");
    Ok(())
}

#[test]
fn what_is_not_trained_has_no_gradient_and_lets_others_have_theirs() -> Result<()> {
    let tape = Tape::new(Arc::new(Reference), |name| name == "b");
    let start = tape.mark();
    let frozen = tape.matrix(&[weight("a", &numbers(1, 6), Orientation::OutIn, [1, 2, 3])?])?;
    let trained = tape.matrix(&[weight("b", &numbers(2, 4), Orientation::OutIn, [1, 2, 2])?])?;
    let x = tape.upload(&numbers(3, 6), 3)?;
    let y = tape.linear(&trained, None, &tape.linear(&frozen, None, &x)?)?;
    tape.seed(&y, Reference.upload(&[1.0; 4], 2)?)?;
    tape.rewind(start)?;
    let gradients = tape.take_gradients();
    ensure!(gradients.keys().collect::<Vec<_>>() == ["b"], "{gradients:?}");
    ensure!(gradients["b"].iter().all(|x| *x != 0.0));
    Ok(())
}
