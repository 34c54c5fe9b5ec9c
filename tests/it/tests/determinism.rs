//! Equal bits whatever runs at the same time, however prompts are cut, and whatever is kept.

use std::collections::BTreeSet;

use anyhow::Result;
use engine::scheduler::Prefixes;
use engine::service::{Events, Job, Task};
use it::serving::{Outcome, Served, Tokens, job, options, prompt};

/// Job `i` of a mixed lot: some alike, some forked, some drawn at random; beginnings are shared.
fn mixed(i: usize) -> Job {
    let mut ids = prompt(i % 3, 18 + (i * 29) % 60);
    ids.extend(prompt(i, 1 + i % 7));
    let mut job = job(ids, 10 + (i * 5) % 31);
    if let Task::Generate { sampling, n_samples, .. } = &mut job.task
        && i % 2 == 1
    {
        (sampling.temperature, sampling.seed) = (1.0, i as u64);
        *n_samples = 1 + (i % 3) as u32;
    }
    job
}

fn all(served: &Served, n: usize) -> Result<Vec<Vec<Tokens>>> {
    let events = (0..n).map(|i| Ok(served.handle.submit(mixed(i))?)).collect::<Result<Vec<Events>>>()?;
    events.into_iter().map(Outcome::of).map(|outcome| outcome.usage().map(|_| outcome.answers)).collect()
}

/// Row D2: cache on and off, pieces of 1, 7, 64 and 256 rows, 1 and 2 threads, 1 to 16 at once, with pages for all or
/// for one; guesses on and off along the way. Mutation: `enter` of a page that is not
/// full.
#[test]
fn no_setting_changes_a_bit() -> Result<()> {
    const N: usize = 16;
    let mut want = Vec::new();
    let mut plain = options(1);
    (plain.prefixes, plain.draft_rows, plain.running) = (Prefixes::Dropped, 0, 1);
    let served = Served::start(1, plain)?;
    for i in 0..N {
        let outcome = Outcome::of(served.handle.submit(mixed(i))?);
        outcome.usage()?;
        want.push(outcome.answers);
    }
    served.end()?;
    let (mut n_settings, mut n_answers, mut n_preempted, mut n_cached) = (0, 0, 0, 0);
    for (i, prefixes) in [Prefixes::Dropped, Prefixes::Kept].into_iter().enumerate() {
        for (j, prompt_rows) in [1, 7, 64, 256].into_iter().enumerate() {
            for n_threads in [1, 2] {
                for parallel in [1, 16] {
                    let mut options = options(parallel);
                    if parallel == 1 {
                        // Room for the longest alone: the others make place.
                        options.context = 128;
                    }
                    (options.prefixes, options.prompt_rows) = (prefixes, prompt_rows);
                    options.draft_rows = if (i + j) % 2 == 0 { 0 } else { 12 };
                    let served = Served::start(n_threads, options)?;
                    for n in [1, 2, 5, 16] {
                        assert_eq!(
                            all(&served, n)?,
                            want[..n],
                            "{prefixes:?} {prompt_rows} {n_threads} {parallel} {n}"
                        );
                        n_settings += 1;
                        n_answers += n;
                    }
                    let stats = served.handle.stats().0;
                    n_preempted += stats.n_preempted;
                    n_cached += stats.n_positions[1];
                    served.end()?;
                }
            }
        }
    }
    println!(
        "{n_settings} settings, {n_answers} jobs equal to the bit; {n_preempted} preempted, {n_cached} positions cached"
    );
    assert!(n_settings >= 128 && n_preempted > 0 && n_cached > 1000);
    Ok(())
}

/// Row D1, the engine's side. Mutation: `choice` that reads the logits of the neighbouring row.
#[test]
fn a_thousand_equal_requests_under_noise_have_one_answer() -> Result<()> {
    let served = Served::start(2, options(8))?;
    let mut answers = BTreeSet::new();
    for round in 0..40 {
        let noise = (0..6).map(|i| Ok(served.handle.submit(mixed(round * 6 + i))?)).collect::<Result<Vec<_>>>()?;
        let equal = (0..25).map(|_| Ok(served.handle.submit(job(prompt(77, 30), 8))?)).collect::<Result<Vec<_>>>()?;
        answers.extend(equal.into_iter().map(Outcome::of).map(|outcome| outcome.answers));
        for events in noise {
            Outcome::of(events).usage()?;
        }
    }
    println!("1000 requests, {} distinct answers", answers.len());
    assert_eq!(answers.len(), 1);
    assert!(answers.iter().all(|answer| answer[0].len() == 8));
    served.end()
}

/// Row D4. Mutation: `Sampler` seeded without the position.
#[test]
fn the_same_seed_draws_the_same_tokens_in_any_batch() -> Result<()> {
    let served = Served::start(2, options(8))?;
    let drawn = |seed: u64| {
        let mut job = job(prompt(5, 21), 10);
        if let Task::Generate { sampling, .. } = &mut job.task {
            (sampling.temperature, sampling.seed) = (1.5, seed);
        }
        job
    };
    let alone: Vec<_> =
        (0..10).map(|seed| Ok(Outcome::of(served.handle.submit(drawn(seed))?).answers)).collect::<Result<Vec<_>>>()?;
    assert_eq!(alone.iter().collect::<BTreeSet<_>>().len(), 10, "seeds matter");
    let mut n = 0;
    for batch in 1..=24 {
        let events = (0..batch).map(|i| Ok(served.handle.submit(drawn(i % 10))?)).collect::<Result<Vec<Events>>>()?;
        served.handle.submit(mixed(batch as usize)).map(drop)?;
        for (i, events) in events.into_iter().enumerate() {
            assert_eq!(Outcome::of(events).answers, alone[i % 10], "{i} of {batch}");
            n += 1;
        }
    }
    for batch in 0..200 {
        assert_eq!(Outcome::of(served.handle.submit(drawn(batch % 10))?).answers, alone[batch as usize % 10]);
        n += 1;
    }
    println!("{n} answers drawn again");
    assert!(n >= 500);
    served.end()
}

/// Row D5: what one owner computed is nobody else's, by the counter of cached positions. Mutation: `find` that looks
/// under every owner.
#[test]
fn nothing_is_shared_between_keys_and_salts() -> Result<()> {
    let served = Served::start(1, options(4))?;
    let (mut n_strangers, mut n_own) = (0, 0);
    for (key, salt) in (0..14u64).flat_map(|key| (0..15u64).map(move |salt| (key, salt))) {
        let ask = |ids: Vec<u32>| -> Result<usize> {
            let mut job = job(ids, 1);
            (job.owner.key, job.owner.salt) = (key, salt);
            Ok(Outcome::of(served.handle.submit(job)?).usage()?.n_cached)
        };
        assert_eq!(ask(prompt(1, 60))?, 0, "key {key}, salt {salt}");
        n_strangers += 1;
        // Of one's own 60 positions three pages can be kept with one position left to compute.
        assert_eq!(ask(prompt(1, 60))?, 48, "key {key}, salt {salt}");
        n_own += 1;
    }
    println!("{n_strangers} strangers found nothing, {n_own} owners found their own");
    assert!(n_strangers >= 200);
    served.end()
}
