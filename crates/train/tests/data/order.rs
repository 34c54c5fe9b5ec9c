use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use generators::{Draw, Generator, Role, Sample, Split, Turn};
use proptest::prelude::*;
use rand::Rng;
use train::data::{
    Feed, FeedSettings, FeedState, Ingredient, Mixture, MixtureSettings, MixtureState, Row, Senses, Source,
    is_held_out, pack,
};

use super::{Thinks, encoder, file};

/// A task whose samples are random numbers.
struct Numbers(&'static str);

impl Generator for Numbers {
    fn name(&self) -> &'static str {
        self.0
    }

    fn sample(&self, _: Split, draw: &mut Draw) -> Sample {
        let n = draw.next_u32() % 20;
        let question = Turn::text(Role::User, "and ".repeat(n as usize) + &draw.next_u64().to_string());
        Sample { task: self.0, turns: vec![question, Turn::text(Role::Assistant, n.to_string())] }
    }

    fn is_correct(&self, _: &Sample, _: &str) -> bool {
        false
    }

    fn chance(&self) -> f64 {
        0.0
    }
}

const N_ROWS: usize = 2500;

/// A file of more than two blocks, a small one and two generators.
fn ingredients(folder: &Path) -> Result<Vec<Ingredient>> {
    let (large, small) = (folder.join("large.jsonl"), folder.join("small.jsonl"));
    if !large.exists() {
        let lines = |name: &str, n: usize| -> String {
            (0..n).map(|i| format!("{{\"text\": \"{name} {i}{}\"}}\n", " more".repeat(i % 13))).collect()
        };
        file(folder, "large.jsonl", lines("large", N_ROWS).as_bytes())?;
        file(folder, "small.jsonl", lines("small", 5).as_bytes())?;
    }
    Ok(vec![
        Ingredient { source: Source::File(large), weight: 6.0 },
        Ingredient { source: Source::Generator(Box::new(Numbers("one"))), weight: 1.0 },
        Ingredient { source: Source::File(small), weight: 0.5 },
        Ingredient { source: Source::Generator(Box::new(Numbers("two"))), weight: 2.5 },
    ])
}

fn mixture(folder: &Path, settings: MixtureSettings) -> Result<Mixture> {
    Ok(Mixture::new(ingredients(folder)?, settings)?)
}

fn take(mixture: &mut Mixture, n: usize) -> Result<Vec<Row>> {
    (0..n).map(|_| Ok(mixture.next_row()?.1)).collect()
}

#[test]
fn resuming_after_any_number_of_rows_gives_what_never_stopping_gives() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let n_compared = Cell::new(0);
    // Two epochs and more of the large file.
    let n_most = 3 * N_ROWS * 10 / 6;
    proptest!(ProptestConfig::with_cases(12), |(seed in 0..3u64, before in 0..n_most, shard in 0..2u64)| {
        let settings = MixtureSettings { seed, shard, n_shards: 2, held_out: 0.2, ..MixtureSettings::default() };
        let before = before / 2;
        let mut whole = mixture(folder.path(), settings).expect("sources");
        take(&mut whole, before).expect("rows");
        let state = serde_json::to_string(&whole.state()).expect("a state");
        let state: MixtureState = serde_json::from_str(&state).expect("a state");
        let mut resumed = mixture(folder.path(), settings).expect("sources");
        resumed.resume(&state).expect("a state of the same sources");
        prop_assert_eq!(resumed.state(), whole.state());
        prop_assert_eq!(take(&mut resumed, 700).expect("rows"), take(&mut whole, 700).expect("rows"));
        prop_assert_eq!(resumed.state(), whole.state());
        n_compared.set(n_compared.get() + 700);
    });
    println!("{} rows", n_compared.get());
    Ok(())
}

#[test]
fn shards_together_are_the_mixture_of_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let all = take(&mut mixture(folder.path(), MixtureSettings::default())?, 300)?;
    for n_shards in [2, 3] {
        for shard in 0..n_shards {
            let settings = MixtureSettings { shard, n_shards, ..MixtureSettings::default() };
            let own = take(&mut mixture(folder.path(), settings)?, 100)?;
            let expected = all.iter().skip(shard as usize).step_by(n_shards as usize);
            assert!(own.iter().zip(expected).all(|(own, expected)| own == expected), "{shard} of {n_shards}");
        }
    }
    Ok(())
}

#[test]
fn every_row_of_a_file_comes_once_an_epoch_in_an_order_of_its_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |seed| -> Result<Vec<Row>> {
        let ingredients = ingredients(folder.path())?.into_iter().take(1).collect();
        take(&mut Mixture::new(ingredients, MixtureSettings { seed, ..MixtureSettings::default() })?, 2 * N_ROWS)
    };
    let rows = file(0)?;
    let (first, second) = rows.split_at(N_ROWS);
    let hashes = |rows: &[Row]| rows.iter().map(Row::hash).collect::<BTreeSet<_>>();
    assert!(hashes(first).len() == N_ROWS && hashes(first) == hashes(second));
    assert!(first != second && rows != file(1)? && rows == file(0)?);
    Ok(())
}

#[test]
fn sources_come_as_often_as_their_weights_say() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mixture = mixture(folder.path(), MixtureSettings { seed: 7, ..MixtureSettings::default() })?;
    let n = 4000;
    let mut counts = [0.0; 4];
    for _ in 0..n {
        let (place, _) = mixture.next_row()?;
        let which = ["large.jsonl", "generator:one", "small.jsonl", "generator:two"];
        counts[which.iter().position(|name| place.source.ends_with(name)).context("a known source")?] += 1.0;
    }
    for (count, share) in counts.iter().zip([0.6, 0.1, 0.05, 0.25]) {
        // Four standard deviations of a count of independent choices.
        let tolerance = 4.0 * (f64::from(n) * share * (1.0 - share)).sqrt();
        assert!((count - f64::from(n) * share).abs() < tolerance, "{counts:?}");
    }
    println!("{counts:?}");
    Ok(())
}

#[test]
fn what_is_held_out_is_chosen_by_content_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    ingredients(folder.path())?;
    let text = std::fs::read_to_string(folder.path().join("large.jsonl"))?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.reverse();
    let other = file(folder.path(), "reversed.jsonl", lines.join("\n").as_bytes())?;
    let hashes = |path: std::path::PathBuf, split| -> Result<BTreeSet<u64>> {
        let settings = MixtureSettings { split, held_out: 0.1, ..MixtureSettings::default() };
        let mut mixture = Mixture::new(vec![Ingredient { source: Source::File(path), weight: 1.0 }], settings)?;
        // An epoch and more.
        Ok(take(&mut mixture, N_ROWS)?.iter().map(Row::hash).collect())
    };
    let large = || folder.path().join("large.jsonl");
    let (train, held_out) = (hashes(large(), Split::Train)?, hashes(large(), Split::HeldOut)?);
    assert!(train.is_disjoint(&held_out) && train.len() + held_out.len() == N_ROWS);
    assert_eq!(held_out, hashes(other, Split::HeldOut)?);
    // Four standard deviations.
    let expected = N_ROWS as f64 * 0.1;
    assert!((held_out.len() as f64 - expected).abs() < 4.0 * (expected * 0.9).sqrt(), "{}", held_out.len());
    println!("{} held out of {N_ROWS}", held_out.len());
    // Known values: another hash would move rows from one side to the other.
    assert_eq!(Row::Document("a".into()).hash(), 0x75b9_e151_520c_7466);
    assert!(!is_held_out(u64::MAX, 0.999) && is_held_out(0, 1e-9) && !is_held_out(0, 0.0));
    Ok(())
}

#[test]
fn a_state_of_other_sources_or_settings_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = MixtureSettings::default();
    let state = mixture(folder.path(), settings)?.state();
    let mut other = mixture(folder.path(), MixtureSettings { seed: 1, ..settings })?;
    let why = other.resume(&state).err().context("another seed")?.to_string();
    assert!(why.contains("other sources, weights, seed"), "{why}");
    for (weight, word) in [(0.0, "above 0"), (f64::NAN, "above 0"), (f64::INFINITY, "above 0")] {
        let source = Source::Generator(Box::new(Numbers("one")));
        let why = Mixture::new(vec![Ingredient { source, weight }], settings).err().context("a weight")?.to_string();
        assert!(why.contains(word), "{why}");
    }
    let empty = file(folder.path(), "empty.jsonl", b"\n")?;
    let mut mixture = Mixture::new(vec![Ingredient { source: Source::File(empty), weight: 1.0 }], settings)?;
    let why = mixture.next_row().err().context("no rows")?.to_string();
    assert!(why.ends_with("empty.jsonl has no row that is for training"), "{why}");
    Ok(())
}

#[test]
fn packing_loses_nothing_overfills_nothing_and_leaves_one_bin_half_empty_at_most() -> Result<()> {
    let n_bins = Cell::new(0);
    proptest!(ProptestConfig::with_cases(300), |(lens in proptest::collection::vec(1..=100usize, 0..200))| {
        let bins = pack(&lens, 100);
        let mut all: Vec<usize> = bins.iter().flatten().copied().collect();
        all.sort_unstable();
        prop_assert!(all.iter().copied().eq(0..lens.len()));
        let filled = |bin: &Vec<usize>| bin.iter().map(|i| lens[*i]).sum::<usize>();
        prop_assert!(bins.iter().all(|bin| filled(bin) <= 100));
        prop_assert!(bins.windows(2).all(|pair| pair[0][0] < pair[1][0]));
        // What a second half-empty bin holds would have fitted the first.
        prop_assert!(bins.iter().filter(|bin| filled(bin) <= 50).count() <= 1);
        n_bins.set(n_bins.get() + bins.len());
    });
    println!("{} bins", n_bins.get());
    assert_eq!(pack(&[60, 50, 40, 30, 20, 150], 100), [vec![0, 2], vec![1, 3, 4], vec![5]]);
    Ok(())
}

/// Long documents of one kind and short ones of another: each step has its share of both.
#[test]
fn every_step_has_long_and_short_documents() {
    let lens: Vec<usize> = (0..240).map(|i| if i < 60 { 300 } else { 60 }).collect();
    let bins = pack(&lens, 4096);
    println!("{bins:?}");
    assert_eq!(bins.len(), 8);
    for bin in &bins {
        let n_long = bin.iter().filter(|i| lens[**i] == 300).count();
        assert!((7..=8).contains(&n_long), "{n_long} of 60 long ones in one of 8 steps");
    }
}

fn feed(folder: &Path, settings: FeedSettings) -> Result<Feed> {
    let mixture = mixture(folder, MixtureSettings { seed: 3, ..MixtureSettings::default() })?;
    Ok(Feed::new(mixture, encoder(Senses::default(), Thinks::Yes)?, settings)?)
}

const STEPS: FeedSettings = FeedSettings { rows: 256, cut: 64, window: 8 };

#[test]
fn a_feed_that_is_resumed_after_any_step_goes_on_to_the_bit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut whole = feed(folder.path(), STEPS)?;
    let mut states = vec![whole.state()];
    let mut steps = Vec::new();
    for _ in 0..24 {
        steps.push(whole.next_step()?);
        states.push(whole.state());
    }
    let mut n_steps = 0;
    let mut resumed = feed(folder.path(), STEPS)?;
    for (i, state) in states.iter().enumerate().step_by(3) {
        let state: FeedState = serde_json::from_str(&serde_json::to_string(state)?)?;
        resumed.resume(&state)?;
        assert_eq!(&resumed.state(), &states[i]);
        for (step, state) in steps.iter().zip(&states[1..]).skip(i) {
            assert!(&resumed.next_step()? == step && &resumed.state() == state, "{i}");
            n_steps += 1;
        }
    }
    println!("{n_steps} steps");
    Ok(())
}

#[test]
fn steps_are_full_and_whole_and_their_waste_is_counted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut feed = feed(folder.path(), STEPS)?;
    let (mut n_rows, n_steps) = (0, 64);
    for _ in 0..n_steps {
        let step = feed.next_step()?;
        assert!(step.n_rows() <= 256 && step.sequences.iter().all(|sequence| (1..=64).contains(&sequence.len())));
        n_rows += step.n_rows() as u64;
    }
    let given = feed.given();
    assert_eq!((given.steps, given.rows, given.room), (n_steps, n_rows, n_steps * 256));
    println!("{:.1} % of {} rows wasted", given.waste() * 100.0, given.room);
    // The last step of every eight is what is left over.
    assert!(given.waste() < 1.0 / 8.0);
    let none = FeedSettings { cut: 300, ..STEPS };
    assert!(
        Feed::new(mixture(folder.path(), MixtureSettings::default())?, encoder(Senses::default(), Thinks::No)?, none)
            .is_err()
    );
    Ok(())
}

/// Mutation: a file that is read a second time for what is held out.
#[test]
fn each_held_out_row_is_measured_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lines: String = (0..60).map(|i| format!("{{\"text\": \"row {i} of all\"}}\n")).collect();
    let path = file(folder.path(), "rows.jsonl", lines.as_bytes())?;
    let encoder = encoder(Senses::default(), Thinks::No)?;
    let step = train::data::held_out(Source::File(path.clone()), (1, 0.3), &encoder, 100, 1000)?;
    let n = step.sequences.len();
    let mut distinct: Vec<_> = step.sequences.iter().map(|sequence| &sequence.targets).collect();
    distinct.sort();
    distinct.dedup();
    assert!((5..35).contains(&n) && distinct.len() == n, "{n} measured, {} different", distinct.len());
    let few = train::data::held_out(Source::File(path), (1, 0.3), &encoder, 100, 3)?;
    assert_eq!(few.sequences.len(), 3);
    Ok(())
}
