//! Learning from another model's probabilities.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use cpu::{Cpu, CpuOptions};
use formats::Checkpoint;
use llama::Model;
use train::optim::{AdamW, Compute, Optimizer, Settings, Threads};
use train::{Distillation, Memory, Objective, Sequence, Tape, Teacher, Trainer, Weights};

const OBJECTIVE: Objective = Objective { balance: 0.0, router_z: 0.0, logit_rows: 7, memory: Memory::KeepAll };

fn toy() -> Result<Checkpoint> {
    Ok(Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/toy/scout"))?)
}

fn sequences() -> Vec<Sequence> {
    let ids = |seed: u32| (0..20).map(|t| 3 + (t * t * 7 + t * seed) % 90).collect::<Vec<u32>>();
    [5, 8, 13].map(|seed| Sequence::text(&ids(seed))).to_vec()
}

/// The largest gradient of each tensor of the model of `student`, taught by the model of `teacher`.
fn gradients(student: &Checkpoint, teacher: &Checkpoint, how: Option<Distillation>) -> Result<Vec<(String, Vec<f32>)>> {
    let dev = Arc::new(Cpu::new(CpuOptions::default()));
    let teacher = how.map(|how| Teacher::new(Arc::clone(&dev), teacher, how)).transpose()?;
    let tape = Tape::new(dev, |_| true);
    let model = Model::load(&tape, student, &mut |_| {})?;
    let sequences = sequences();
    let total = sequences.iter().map(Sequence::weight).sum();
    let losses = OBJECTIVE.accumulate_from(teacher.as_ref(), (&tape, &model), &sequences, (total, 1.0))?;
    assert!(losses.entropy > 0.0 && losses.divergence >= -1e-9, "{losses:?}");
    Ok(tape.take_gradients().into_iter().collect())
}

#[test]
fn a_model_learns_nothing_from_itself() -> Result<()> {
    let toy = toy()?;
    let alone = gradients(&toy, &toy, None)?;
    let half = gradients(&toy, &toy, Some(Distillation { share: 0.5, temperature: 2.0 }))?;
    let whole = gradients(&toy, &toy, Some(Distillation { share: 1.0, temperature: 1.0 }))?;
    let mut n = 0;
    for (((name, alone), (_, half)), (_, whole)) in alone.iter().zip(&half).zip(&whole) {
        let scale = alone.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for ((alone, half), whole) in alone.iter().zip(half).zip(whole) {
            assert!((half - alone / 2.0).abs() <= 1e-5 * scale, "{name}: {half}, half of {alone}");
            assert!(whole.abs() <= 1e-5 * scale, "{name}: {whole}");
            n += 1;
        }
    }
    assert!(n > 1000);
    Ok(())
}

#[test]
fn the_gradient_is_that_of_the_divergence() -> Result<()> {
    let (student, teacher) = (Weights::fresh(toy()?, 3)?, Weights::fresh(toy()?, 4)?);
    let how = Distillation { share: 1.0, temperature: 1.5 };
    let sequences = sequences();
    let total: f64 = sequences.iter().map(Sequence::weight).sum();
    let dev = Arc::new(Cpu::new(CpuOptions::default()));
    let divergence = |weights: &Weights| -> Result<f64> {
        let teacher = Teacher::new(Arc::clone(&dev), &teacher.checkpoint(), how)?;
        let tape = Tape::new(Arc::clone(&dev), |_| true);
        let model = Model::load(&tape, &weights.checkpoint(), &mut |_| {})?;
        let losses = OBJECTIVE.accumulate_from(Some(&teacher), (&tape, &model), &sequences, (total, 1.0))?;
        Ok(f64::from(how.temperature).powi(2) * losses.divergence / total)
    };
    let gradients = gradients(&student.checkpoint(), &teacher.checkpoint(), Some(how))?;
    // Down the whole gradient, where many digits are left of the difference.
    let square: f64 = gradients.iter().flat_map(|(_, values)| values).map(|x| f64::from(*x).powi(2)).sum();
    let moved = |step: f64| -> Result<f64> {
        let mut weights = student.clone();
        for (name, gradient) in &gradients {
            let values = student.tensors().find(|(known, _, _)| known == name).map_or(&[][..], |(_, _, values)| values);
            let values =
                values.iter().zip(gradient).map(|(value, d)| (f64::from(*value) + step * f64::from(*d)) as f32);
            weights.set(name, values.collect())?;
        }
        divergence(&weights)
    };
    let step = 1e-3 / square.sqrt();
    let slope = (moved(step)? - moved(-step)?) / (2.0 * step);
    println!("{slope} by differences, {square} by adjoints");
    assert!((slope / square - 1.0).abs() < 1e-2, "{slope} {square}");
    Ok(())
}

#[test]
fn a_model_comes_closer_to_its_teacher() -> Result<()> {
    let dev = Arc::new(Cpu::new(CpuOptions::default()));
    let teacher = Weights::fresh(toy()?, 4)?.checkpoint();
    let how = Distillation { share: 1.0, temperature: 1.0 };
    let adamw = AdamW { lr: 3e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.0 };
    let settings = Settings { adamw, muon: None, norm_limit: Some(1.0), average_decay: None };
    let optimizer = Optimizer::new(settings, Compute::plain(Threads::ONE));
    let student = (Weights::fresh(toy()?, 3)?, Arc::new(|_: &str| true) as train::Trained);
    let trainer = Trainer::new(Arc::clone(&dev), student, optimizer, (OBJECTIVE, 64));
    let mut trainer = trainer.taught_by(Teacher::new(dev, &teacher, how)?);
    let mut divergences = Vec::new();
    for _ in 0..30 {
        divergences.push(trainer.step(&sequences(), 1.0)?.losses.divergence);
    }
    println!("{divergences:?}");
    assert!(divergences[29] < divergences[0] / 4.0, "{divergences:?}");
    Ok(())
}
