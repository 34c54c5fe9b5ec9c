//! Checkpoints under loss of power, full disks, flipped bits and kills.

mod kill;
mod lossy;

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use half::bf16;
use lossy::{Fault, LossyDisk};
use serde_json::json;
use train::checkpoint::{
    CheckpointError, Checkpoints, Fallback, Loaded, N_KEPT, Saved, SavedTensor, Snapshot, Storage, Values,
};

const FILES: [&str; 5] =
    ["manifest.json", "weights.safetensors", "optimizer.safetensors", "averages.safetensors", "state.json"];

/// Values that tell a step from all others.
fn values(step: u64, len: usize) -> Vec<f32> {
    (0..len).map(|i| step as f32 + i as f32 / 1024.0).collect()
}

/// Saves what step `step` has, `len` weights.
fn save<S: Storage>(checkpoints: &Checkpoints<S>, step: u64, len: usize) -> Result<Saved, CheckpointError> {
    let weights = values(step, len);
    let small: Vec<bf16> = values(step, 3).into_iter().map(bf16::from_f32).collect();
    let shape = [len];
    let wide = |name| SavedTensor { name, shape: &shape, values: Values::F32(&weights) };
    checkpoints.save(&Snapshot {
        step,
        weights: &[wide("a.weight"), SavedTensor { name: "b.weight", shape: &[3, 1], values: Values::Bf16(&small) }],
        optimizer: &[wide("first_moment.a.weight")],
        averages: &[wide("average.a.weight")],
        state: &json!({ "step": step, "data": { "shard": 3, "row": step * 17 } }),
    })
}

/// Whether `loaded` is to the bit what [`save`] saved of its step.
fn check(loaded: &Loaded, len: usize) -> Result<()> {
    let wide: Vec<u8> = values(loaded.step, len).into_iter().flat_map(f32::to_le_bytes).collect();
    let small: Vec<u8> =
        values(loaded.step, 3).into_iter().flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect();
    for tensors in [&loaded.weights, &loaded.optimizer, &loaded.averages] {
        ensure!(tensors.first().context("a tensor")?.bytes.to_vec() == wide);
    }
    let second = loaded.weights.get(1).context("a second tensor")?;
    ensure!(second.bytes.to_vec() == small && second.shape == [3, 1] && second.name == "b.weight");
    ensure!(loaded.state == json!({ "step": loaded.step, "data": { "shard": 3, "row": loaded.step * 17 } }));
    Ok(())
}

fn open(disk: &LossyDisk) -> Result<Checkpoints<LossyDisk>> {
    Ok(Checkpoints::open(disk.clone(), Path::new("run"))?)
}

/// The newest checkpoint, which must load without falling back and be what was saved.
fn newest(disk: &LossyDisk) -> Result<u64> {
    let loaded = open(disk)?.load(Fallback::Refuse)?.context("no checkpoint")?;
    check(&loaded, LEN)?;
    Ok(loaded.step)
}

fn names(disk: &LossyDisk) -> Result<Vec<String>> {
    Ok(disk.list(Path::new("run"))?)
}

const LEN: usize = 5;

/// A disk with `n` saves behind it, all durable, and a file of somebody else's.
fn saved_disk(n: u64) -> Result<LossyDisk> {
    let disk = LossyDisk::new();
    let checkpoints = open(&disk)?;
    for step in 1..=n {
        save(&checkpoints, step, LEN)?;
    }
    Ok(disk)
}

#[test]
fn the_last_complete_checkpoint_loads_after_a_loss_of_power_at_any_operation() -> Result<()> {
    let counted = saved_disk(2)?;
    counted.set_fault(Fault::None);
    save(&open(&counted)?, 3, LEN)?;
    let n_operations = counted.n_operations();
    let (mut n_cases, mut n_found) = (0, [0, 0]);
    for seed in 0..8 {
        for last in 0..=n_operations {
            let disk = saved_disk(2)?;
            let checkpoints = open(&disk)?;
            disk.set_fault(Fault::PowerLossAfter(last));
            let saved = save(&checkpoints, 3, LEN);
            let after = disk.after_power_loss(seed * 1000 + last as u64);
            let step = newest(&after).with_context(|| format!("seed {seed}, after operation {last}"))?;
            ensure!(
                step == 3 || (step == 2 && saved.is_err()),
                "seed {seed}, after {last}: {saved:?}, but {step} loads"
            );
            n_found[usize::from(step == 3)] += 1;
            // What the loss left does not get in the way of the next save, nor of one more loss.
            save(&open(&after)?, 4, LEN)?;
            ensure!(newest(&after.after_power_loss(seed))? == 4);
            let left = names(&after)?;
            ensure!(left.iter().all(|name| !name.ends_with(".tmp") && !name.ends_with(".old")), "{left:?}");
            n_cases += 1;
        }
    }
    println!(
        "{n_cases} losses of power in {n_operations} operations: the older loaded {} times, the newer {}",
        n_found[0], n_found[1]
    );
    ensure!(n_cases >= 200 && n_found[0] > 0 && n_found[1] > 0);
    Ok(())
}

#[test]
fn the_first_checkpoint_is_there_or_not_after_a_loss_of_power() -> Result<()> {
    let mut n_cases = 0;
    for seed in 0..4 {
        for last in 0..60 {
            let disk = LossyDisk::new();
            disk.set_fault(Fault::PowerLossAfter(last));
            let saved = open(&disk).and_then(|checkpoints| Ok(save(&checkpoints, 1, LEN)?));
            let after = disk.after_power_loss(seed);
            let loaded = open(&after)?.load(Fallback::Refuse)?;
            ensure!(loaded.is_some() || saved.is_err());
            n_cases += 1;
        }
    }
    println!("{n_cases} losses of power");
    Ok(())
}

#[test]
fn a_full_or_broken_disk_fails_the_save_and_nothing_else() -> Result<()> {
    let counted = saved_disk(2)?;
    counted.set_fault(Fault::None);
    save(&open(&counted)?, 3, LEN)?;
    let n_operations = counted.n_operations();
    let (mut n_failed, mut n_saved) = (0, 0);
    for at in 2..=n_operations {
        let kinds = [ErrorKind::StorageFull, ErrorKind::Other];
        for fault in kinds.into_iter().flat_map(|kind| [Fault::Once(at, kind), Fault::From(at, kind)]) {
            let disk = saved_disk(2)?;
            let before = disk.copy();
            let checkpoints = open(&disk)?;
            disk.set_fault(fault);
            match save(&checkpoints, 3, LEN) {
                Err(CheckpointError::Io { .. }) => n_failed += 1,
                Err(e) => bail!("{fault:?}: {e}"),
                // What failed was the removal of an old one, or an attempt at tidying up.
                Ok(_) => n_saved += 1,
            }
            let is_failed = n_failed + n_saved;
            disk.set_fault(Fault::None);
            let step = newest(&disk)?;
            ensure!(step == 2 || step == 3, "{fault:?}, case {is_failed}");
            if step == 2 {
                for file in ["step-000001", "step-000002"]
                    .iter()
                    .flat_map(|name| FILES.map(|file| format!("run/{name}/{file}")))
                {
                    ensure!(bytes_of(&disk, &file)? == bytes_of(&before, &file)?, "{fault:?} changed {file}");
                }
            }
            // The run goes on, and its next save is a save.
            save(&open(&disk)?, 4, LEN)?;
            ensure!(newest(&disk.after_power_loss(at as u64))? == 4);
        }
    }
    println!("{n_failed} saves failed, {n_saved} succeeded although something failed, {n_operations} operations");
    ensure!(n_failed + n_saved >= 100 && n_failed > n_saved);
    Ok(())
}

fn bytes_of(disk: &LossyDisk, path: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    disk.edit(Path::new(path), |content| bytes.clone_from(content))?;
    Ok(bytes)
}

#[test]
fn short_and_interrupted_writes_are_gone_on_with() -> Result<()> {
    let disk = saved_disk(1)?;
    disk.set_fault(Fault::ShortWrites);
    save(&open(&disk)?, 2, LEN)?;
    println!("{} operations", disk.n_operations());
    disk.set_fault(Fault::None);
    assert_eq!(newest(&disk)?, 2);
    Ok(())
}

#[test]
fn a_flipped_bit_is_refused_with_its_files_name() -> Result<()> {
    let mut n_flips = 0;
    for file in FILES {
        let disk = saved_disk(2)?;
        let path = format!("run/step-000002/{file}");
        let len = bytes_of(&disk, &path)?.len();
        for offset in 0..len {
            let flip = |content: &mut Vec<u8>| content[offset] ^= 1 << (offset % 8);
            disk.edit(Path::new(&path), flip)?;
            let Err(CheckpointError::Damaged { refused, .. }) = open(&disk)?.load(Fallback::Refuse) else {
                bail!("bit {} of byte {offset} of {file} was not noticed", offset % 8)
            };
            ensure!(
                refused.len() == 1 && refused[0].file == file && refused[0].checkpoint == "step-000002",
                "{refused:?}"
            );
            if offset % 101 == 0 {
                let copy = disk.copy();
                let loaded = open(&copy)?.load(Fallback::Older)?.context("the older one")?;
                check(&loaded, LEN)?;
                ensure!(loaded.step == 1 && loaded.refused == refused);
                // The damaged one is out of the way of the steps that are done again, and still there.
                save(&open(&copy)?, 2, LEN)?;
                ensure!(newest(&copy)? == 2);
                ensure!(
                    names(&copy)? == ["step-000001", "step-000002-2", "step-000002.refused"],
                    "{:?}",
                    names(&copy)?
                );
            }
            disk.edit(Path::new(&path), flip)?;
            n_flips += 1;
        }
        for shorter in [0, 1, len - 1] {
            let copy = disk.copy();
            copy.edit(Path::new(&path), |content| content.truncate(shorter))?;
            ensure!(
                matches!(open(&copy)?.load(Fallback::Refuse), Err(CheckpointError::Damaged { refused, .. }) if refused[0].file == file)
            );
        }
        disk.remove_file(Path::new(&path))?;
        ensure!(
            matches!(open(&disk)?.load(Fallback::Refuse), Err(CheckpointError::Damaged { refused, .. }) if refused[0].file == file)
        );
    }
    println!("{n_flips} flipped bits, 15 cuts, 5 files that were gone");
    ensure!(n_flips >= 1000);
    Ok(())
}

#[test]
fn when_all_are_damaged_all_are_named_and_stay() -> Result<()> {
    let disk = saved_disk(2)?;
    let before = names(&disk)?;
    for name in &before {
        disk.edit(&Path::new("run").join(name).join("state.json"), |content| content[0] = b'x')?;
    }
    let Err(e) = open(&disk)?.load(Fallback::Older) else { bail!("something loaded") };
    println!("{e}");
    ensure!(e.to_string().contains("step-000002/state.json") && e.to_string().contains("step-000001/state.json"));
    ensure!(names(&disk)? == before);
    Ok(())
}

#[test]
fn two_are_kept_and_what_is_not_ours_is_left_alone() -> Result<()> {
    let disk = LossyDisk::new();
    let checkpoints = open(&disk)?;
    assert!(checkpoints.load(Fallback::Refuse)?.is_none());
    let foreign =
        ["notes.txt", "step-5", "step-000005.txt", "step-000001.bak", "best.tmp", "step-00000a.tmp", "step-0000001"];
    for name in foreign {
        disk.create(&Path::new("run").join(name))?;
    }
    for step in 1..=9 {
        let saved = save(&checkpoints, step, LEN)?;
        if step == 7 {
            // In the way of its removal, two steps later.
            disk.create(Path::new("run/step-000007/evaluation.txt"))?;
        }
        let in_the_way = usize::from(step == 9);
        ensure!(saved.not_removed.len() == in_the_way, "{:?}", saved.not_removed);
        let ours = names(&disk)?.into_iter().filter(|name| !foreign.contains(&name.as_str())).count();
        ensure!(ours == N_KEPT.min(usize::try_from(step)?) + in_the_way, "{:?}", names(&disk)?);
        assert_eq!(newest(&disk)?, step);
    }
    let left = names(&disk)?;
    println!("{left:?}");
    assert!(foreign.iter().all(|name| left.contains(&(*name).to_owned())));
    Ok(())
}

#[test]
fn a_step_that_is_saved_again_does_not_touch_what_was_saved_before() -> Result<()> {
    let disk = saved_disk(1)?;
    let checkpoints = open(&disk)?;
    save(&checkpoints, 1, LEN)?;
    assert_eq!(names(&disk)?, ["step-000001", "step-000001-2"]);
    save(&checkpoints, 1, LEN)?;
    assert_eq!(names(&disk)?, ["step-000001-2", "step-000001-3"]);
    assert_eq!(newest(&disk)?, 1);
    println!("3 saves of one step");
    Ok(())
}
