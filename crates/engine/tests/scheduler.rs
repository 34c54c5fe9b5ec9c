//! The scheduler alone, over a model that is nothing but memory.

mod simulated;

use std::time::Duration;

use engine::Layout;
use engine::scheduler::{JobId, Mark, Prefixes};
use engine::service::{About, Admission, Handle, Job, Owner, Stop, SubmitError, Task};
use simulated::{Counts, Random, Simulation, Wish, capacity};
use tensor::PAGE_LEN;
use tokenizer::Piece;

fn owner(key: u64) -> Owner {
    Owner { key, salt: 0 }
}

fn wish(prompt: Vec<u32>, n_tokens: usize) -> Wish {
    let prompt = prompt.into_iter().map(Mark::Token).collect();
    Wish { prompt, owner: owner(0), n_samples: 1, n_tokens, wants_every_row: false }
}

/// One life of a scheduler: jobs come, are blocked, cancelled and broken; in the end all are done.
fn live(seed: u64, n_steps: usize) -> Counts {
    let mut random = Random(seed);
    let n_global = 4 + random.below(61) as u32;
    let chunk = [0, 16, 24, 48][random.below(4)];
    let piece = [1, 7, 32, 64][random.below(4)];
    // As a memory plan would have it, or tighter: one sequence's chunk with a torn page at either end.
    let least = ((chunk + PAGE_LEN - 1).div_ceil(PAGE_LEN) + 1) as u32;
    let n_chunked = if chunk == 0 { 0 } else { least + random.below(40) as u32 };
    let mut capacity = capacity(n_global, n_chunked, chunk);
    capacity.prompt_rows = piece;
    capacity.n_running = 1 + random.below(8);
    capacity.draft_rows = [0, 4, 12][random.below(3)];
    capacity.prefixes = if random.one_in(4) { Prefixes::Dropped } else { Prefixes::Kept };
    let mut simulation = Simulation::new(capacity);
    let longest = simulation.scheduler.longest();
    let mut blocked: Vec<JobId> = Vec::new();
    for i in 0..n_steps {
        simulation.now += Duration::from_millis(random.below(50) as u64);
        if simulation.jobs().len() < 12 && random.one_in(4) {
            simulation.submit(some_wish(&mut random, longest));
        }
        let jobs = simulation.jobs();
        if let Some(id) = jobs.get(random.below(jobs.len())).filter(|_| !jobs.is_empty()) {
            match random.below(40) {
                0 => simulation.cancel(*id),
                1 => {
                    simulation.scheduler.block(*id, simulation.now);
                    blocked.push(*id);
                }
                _ => {}
            }
        }
        if random.one_in(8) {
            blocked.drain(..).for_each(|id| simulation.scheduler.unblock(id));
        }
        let break_at = random.one_in(64).then(|| random.below(40));
        let step = simulation.step(break_at);
        let n_running = simulation.scheduler.census().n_running;
        assert!(n_running <= simulation.capacity.n_running.max(4), "{n_running} run: {step:?}");
        if i % 16 == 0 {
            assert_eq!(simulation.scheduler.audit(), Ok(()), "seed {seed}, step {i}");
        }
    }
    blocked.into_iter().for_each(|id| simulation.scheduler.unblock(id));
    simulation.run_out();
    simulation.check_empty();
    simulation.counts
}

fn some_wish(random: &mut Random, longest: usize) -> Wish {
    let n_tokens = 1 + random.below(24).min(longest - 1);
    let n_prompt = 1 + random.below((longest + 1 - n_tokens).min(120));
    // A few beginnings that many share, then something of one's own.
    let (family, n_shared) = (random.below(3), random.below(n_prompt + 1));
    let prompt = (0..n_prompt).map(|i| match i < n_shared {
        true if family == 2 && i >= 10 => Mark::Media { hash: 7, row: i as u32 },
        true => Mark::Token((family * 1000 + i) as u32),
        false => Mark::Token(random.below(3) as u32),
    });
    Wish {
        prompt: prompt.collect(),
        owner: owner(random.below(2) as u64),
        n_samples: [1, 1, 1, 3][random.below(4)],
        n_tokens,
        wants_every_row: random.one_in(8),
    }
}

/// Row K2. Mutations that turn it red: `own` that does nothing (a shared page is written); `victim` that takes whoever is
/// not asking (the oldest gets no row); `cancel` without `give_back` (pages are lost); `n_usable` that asks for no
/// chunked pages (a row sees a page that is not there); `follow` that counts wrong guesses as computed.
#[test]
fn ten_thousand_lives_leak_nothing_starve_nobody_and_mix_nothing_up() {
    let (n_seeds, n_steps) = (10_000u64, 500);
    let n_threads = std::thread::available_parallelism().map_or(2, usize::from).min(8) as u64;
    let counts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..n_threads)
            .map(|worker| {
                scope.spawn(move || {
                    let mut counts = Counts::default();
                    (worker..n_seeds).step_by(n_threads as usize).for_each(|seed| counts += live(seed, n_steps));
                    counts
                })
            })
            .collect();
        let mut counts = Counts::default();
        workers.into_iter().for_each(|worker| counts += worker.join().expect("a life without mistakes"));
        counts
    });
    println!("{n_seeds} lives: {counts:?}");
    assert!(counts.steps >= n_seeds * n_steps as u64);
    assert!(counts.finished > n_seeds && counts.preempted > n_seeds && counts.cached > n_seeds);
    assert!(counts.right > n_seeds && counts.guesses > counts.right);
}

/// Row K1. Mutation: `longest` that rounds a page up.
#[test]
fn what_does_not_fit_alone_is_refused_and_everything_else_finishes() {
    let (mut n_refused, mut n_finished) = (0, 0);
    for (n_pages, chunk) in (1u32..9).flat_map(|n| [(n, 0usize), (n, 16), (n, 40), (n, 64)]) {
        let least = (chunk + PAGE_LEN - 1).div_ceil(PAGE_LEN) as u32;
        for n_chunked in if chunk == 0 { vec![0] } else { vec![least, least.saturating_sub(1).max(1), n_pages] } {
            let whole = n_pages as usize * PAGE_LEN;
            let lens = [1, whole.saturating_sub(PAGE_LEN), whole - 1, whole, whole + 1, whole + PAGE_LEN];
            for (len, n_answer) in lens.into_iter().flat_map(|len| [(len, 1), (len, 9), (len, len / 2)]) {
                if len <= n_answer || n_answer == 0 {
                    continue;
                }
                let mut simulation = Simulation::new(capacity(n_pages, n_chunked, chunk));
                let about = About {
                    context: usize::MAX,
                    capacity: simulation.scheduler.longest(),
                    n_vocab: 2,
                    width: 1,
                    layout: Layout::default(),
                };
                let admission = Admission { jobs: 9, positions: usize::MAX, jobs_per_key: 9, channel_events: 9 };
                let (handle, _jobs) = Handle::new(about, admission);
                match handle.submit(job(len - n_answer, n_answer)) {
                    Err(SubmitError::TooLong { .. }) => n_refused += 1,
                    other => {
                        assert!(other.is_ok(), "{other:?}");
                        simulation.submit(wish((0..(len - n_answer) as u32).collect(), n_answer));
                        simulation.run_out();
                        simulation.check_empty();
                        n_finished += 1;
                    }
                }
            }
        }
    }
    println!("{n_refused} refused, {n_finished} finished");
    assert!(n_refused > 100 && n_finished > 100);
}

fn job(n_prompt: usize, max_tokens: usize) -> Job {
    Job {
        pieces: vec![Piece::Ids(vec![1; n_prompt])],
        media: Vec::new(),
        task: Task::Generate {
            n_samples: 1,
            sampling: engine::sampling::SamplingParams::default(),
            constraint: None,
            stop: Stop { max_tokens, ..Stop::default() },
            logprobs: None,
            thinking: None,
        },
        prompt_logprobs: None,
        owner: owner(0),
        deadline: Duration::MAX,
    }
}

/// Row K3. Mutation: `victim` that never finds anybody (both hold half of the pages for ever).
#[test]
fn two_that_each_need_all_pages_finish_oldest_first() {
    let mut n_preempted = 0;
    for case in 0..100usize {
        let (n_pages, chunk) = (2 + case as u32 % 20, [0, 16, 48][case % 3]);
        let mut simulation = Simulation::new(capacity(n_pages, if chunk == 0 { 0 } else { n_pages.max(5) }, chunk));
        let whole = n_pages as usize * PAGE_LEN;
        let n_answer = 1 + (case * 7) % (whole - 1);
        let ids: Vec<JobId> = (0..2u32)
            .map(|i| simulation.submit(wish((0..(whole - n_answer) as u32).map(|p| p + i).collect(), n_answer)))
            .collect();
        let mut order = Vec::new();
        while !simulation.scheduler.is_empty() {
            let before = simulation.jobs();
            simulation.step(None);
            let after = simulation.jobs();
            order.extend(before.into_iter().filter(|id| !after.contains(id)));
        }
        assert_eq!(order, ids, "case {case}");
        simulation.check_empty();
        n_preempted += simulation.counts.preempted;
    }
    println!("100 pairs finished in order, {n_preempted} preemptions");
    assert!(n_preempted > 20);
}

/// Row L3, in steps. Half of the long prompts are older than the streams and begin late, so that they come first in every
/// step. Mutations: an answer's row that counts among those of prompts; prompts without a bound.
#[test]
fn long_prompts_let_every_stream_have_a_token_at_least_every_two_steps() {
    let mut capacity = capacity(4096, 0, 0);
    (capacity.n_running, capacity.prompt_rows, capacity.draft_rows) = (64, 256, 0);
    let mut simulation = Simulation::new(capacity);
    let long = |n: u32| {
        let prompt = (0..4000).map(|position| position + 10_000 * n).collect();
        Wish { n_samples: 1 + n % 3, ..wish(prompt, 20) }
    };
    let mut older: Vec<JobId> = (0..8).map(|n| simulation.submit(long(n))).collect();
    older.iter().for_each(|id| simulation.scheduler.block(*id, Duration::ZERO));
    let chats: Vec<JobId> = (0..32).map(|i| simulation.submit(wish(vec![i; 40 + i as usize], 400))).collect();
    while chats.iter().any(|id| simulation.n_tokens(*id) == 0) {
        simulation.step(None);
    }
    let (mut n_long, mut n_gaps, mut widest) = (0u32, 0u64, 0);
    let mut last: Vec<(usize, u64)> = chats.iter().map(|id| (simulation.n_tokens(*id), 0)).collect();
    for i in 0..300u64 {
        if i.is_multiple_of(20) {
            n_long += 1;
            if n_long.is_multiple_of(2)
                && let Some(id) = older.pop()
            {
                simulation.scheduler.unblock(id);
            } else {
                simulation.submit(long(100 + n_long));
            }
        }
        let step = simulation.step(None);
        let n_prompt: usize = step.pieces.iter().map(|piece| piece.end - piece.begin).filter(|n| *n > 1).sum();
        assert!(n_prompt <= 256, "{n_prompt} rows of prompts in a step");
        for (id, (n_tokens, gap)) in chats.iter().zip(&mut last) {
            let now = simulation.n_tokens(*id);
            *gap = if now > *n_tokens { 0 } else { *gap + 1 };
            *n_tokens = now;
            widest = widest.max(*gap + 1);
            n_gaps += 1;
        }
    }
    println!("{n_long} prompts of 4000 among 32 streams: {n_gaps} gaps, the widest {widest} steps");
    assert!(widest <= 2 && n_long >= 15);
}
