//! A model that is nothing but memory: what it stores at a position is a hash of everything up to there, and what it
//! chooses next is a function of that hash. Whoever reads a slot checks it, so a page with two owners, a prefix that is
//! not one's own or a position that was forgotten is seen by the next row that looks at it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use engine::scheduler::{Capacity, Fate, JobId, Mark, Piece, Prefixes, Request, Scheduler, Step};
use engine::service::Owner;
use tensor::PAGE_LEN;

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn after(hash: u64, mark: Mark) -> u64 {
    let value = match mark {
        Mark::Token(id) => u64::from(id),
        Mark::Media { hash, row } => mix(hash ^ 0x5eed).wrapping_add(u64::from(row)),
    };
    mix(hash.wrapping_mul(31).wrapping_add(value).wrapping_add(1))
}

/// The token that answer `sample` continues with. Few tokens, so that texts repeat and guesses are often right.
fn choice(hash: u64, sample: u32) -> u32 {
    (mix(hash ^ u64::from(sample) << 32) >> 11) as u32 % 2
}

/// A job as its client knows it.
#[derive(Debug, Clone)]
pub struct Wish {
    pub prompt: Vec<Mark>,
    pub owner: Owner,
    pub n_samples: u32,
    /// Tokens of each answer.
    pub n_tokens: usize,
    pub wants_every_row: bool,
}

#[derive(Debug)]
struct Running {
    wish: Wish,
    hashes: Vec<u64>,
    answers: Vec<Answer>,
}

#[derive(Debug, Default, Clone)]
struct Answer {
    tokens: Vec<u32>,
    /// After each token.
    hashes: Vec<u64>,
}

/// Jobs, a scheduler and what the pages hold.
pub struct Simulation {
    pub scheduler: Scheduler,
    pub capacity: Capacity,
    pub now: Duration,
    slots: [Vec<u64>; 2],
    running: BTreeMap<JobId, Running>,
    pub counts: Counts,
}

/// What happened.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub steps: u64,
    pub rows: u64,
    pub finished: u64,
    pub preempted: u64,
    pub cached: u64,
    pub guesses: u64,
    pub right: u64,
    pub reads: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.rows += other.rows;
        self.finished += other.finished;
        self.preempted += other.preempted;
        self.cached += other.cached;
        self.guesses += other.guesses;
        self.right += other.right;
        self.reads += other.reads;
    }
}

pub fn capacity(n_global: u32, n_chunked: u32, chunk: usize) -> Capacity {
    Capacity {
        n_global,
        n_chunked,
        chunk: NonZeroUsize::new(chunk),
        n_running: 8,
        prompt_rows: 32,
        draft_rows: 8,
        prefixes: Prefixes::Kept,
        longest_wait: Duration::MAX,
        longest_block: Duration::MAX,
    }
}

impl Simulation {
    pub fn new(capacity: Capacity) -> Self {
        let slots = [capacity.n_global, capacity.n_chunked].map(|n| vec![0; n as usize * PAGE_LEN]);
        let scheduler = Scheduler::new(capacity.clone());
        Self { scheduler, capacity, now: Duration::ZERO, slots, running: BTreeMap::new(), counts: Counts::default() }
    }

    pub fn submit(&mut self, wish: Wish) -> JobId {
        let request = Request {
            prompt: wish.prompt.clone(),
            owner: wish.owner,
            n_samples: wish.n_samples,
            max_tokens: wish.n_tokens,
            wants_every_row: wish.wants_every_row,
            is_ready: true,
            deadline: Duration::MAX,
        };
        let mut hash = 0;
        let hashes = wish.prompt.iter().map(|mark| {
            hash = after(hash, *mark);
            hash
        });
        let running = Running { hashes: hashes.collect(), answers: Vec::new(), wish };
        let id = self.scheduler.submit(request, self.now);
        self.running.insert(id, running);
        id
    }

    pub fn cancel(&mut self, id: JobId) {
        self.scheduler.cancel(id);
        self.running.remove(&id);
    }

    pub fn jobs(&self) -> Vec<JobId> {
        self.running.keys().copied().collect()
    }

    /// Tokens of the answers of a job so far.
    pub fn n_tokens(&self, id: JobId) -> usize {
        self.running.get(&id).map_or(0, |running| running.answers.iter().map(|answer| answer.tokens.len()).sum())
    }

    /// One step. `break_at`: a row of the step whose numbers break, if the step has so many.
    pub fn step(&mut self, break_at: Option<usize>) -> Step {
        let oldest = self.scheduler.oldest();
        let step = self.scheduler.plan(self.now);
        self.counts.steps += 1;
        self.counts.preempted += step.preempted.len() as u64;
        self.counts.cached += step.started.iter().map(|(_, n)| *n as u64).sum::<u64>();
        for (id, _) in &step.ended {
            self.running.remove(id);
        }
        if let Some(oldest) = oldest.filter(|id| !step.ended.iter().any(|(job, _)| *job == id.job)) {
            let progresses = step.pieces.iter().any(|piece| piece.sequence == oldest);
            assert!(progresses, "the oldest, {oldest:?}, got no row: {step:?}");
        }
        let mut n_rows = 0;
        let mut fates = Vec::new();
        for piece in &step.pieces {
            let n = piece.end + piece.draft.len() - piece.begin;
            let is_broken = break_at.is_some_and(|at| (n_rows..n_rows + n).contains(&at));
            n_rows += n;
            fates.push(if is_broken { Fate::Broken } else { self.compute(piece) });
        }
        self.counts.rows += n_rows as u64;
        for (piece, fate) in step.pieces.iter().zip(&fates) {
            if *fate == Fate::Broken {
                self.running.remove(&piece.sequence.job);
            }
        }
        self.scheduler.apply(&step, fates);
        let is_over = |running: &Running| {
            !running.answers.is_empty() && running.answers.iter().all(|a| a.tokens.len() == running.wish.n_tokens)
        };
        let over: Vec<JobId> = self.running.iter().filter(|(_, r)| is_over(r)).map(|(id, _)| *id).collect();
        for id in over {
            self.counts.finished += 1;
            self.running.remove(&id);
        }
        let jobs: Vec<JobId> = self.scheduler.jobs().collect();
        assert_eq!(jobs, self.jobs(), "scheduler and client know the same jobs");
        step
    }

    /// Stores the rows of `piece`, reads what its last row sees, and chooses.
    fn compute(&mut self, piece: &Piece) -> Fate {
        let running = self.running.get_mut(&piece.sequence.job).expect("rows of a job that is there");
        let n_prompt = running.wish.prompt.len();
        let sample = piece.sequence.sample;
        let (global, chunked) = self.scheduler.pages(piece.sequence);
        let answer = running.answers.get(sample as usize).cloned().unwrap_or_default();
        let known = |at: usize| match at.checked_sub(n_prompt) {
            None => Some(running.hashes[at]),
            Some(at) => answer.hashes.get(at).copied(),
        };
        assert_eq!(piece.is_last, piece.end == n_prompt + answer.tokens.len());
        let mut hashes: Vec<u64> = (piece.begin..piece.end).map(|at| known(at).expect("known")).collect();
        for id in &piece.draft {
            hashes.push(after(*hashes.last().expect("a row before a guess"), Mark::Token(*id)));
        }
        let [of_global, of_chunked] = &mut self.slots;
        let kinds = [(of_global, global, None), (of_chunked, chunked, self.capacity.chunk)];
        for (kind, (slots, run, chunk)) in kinds.into_iter().enumerate() {
            if kind == 1 && chunk.is_none() {
                continue;
            }
            for (position, hash) in (piece.begin..).zip(&hashes) {
                slots[run.slot(position).expect("a page for every row")] = *hash;
            }
            let last = piece.begin + hashes.len() - 1;
            let begin = chunk.map_or(0, |chunk| last - last % chunk);
            for position in begin..=last {
                let want =
                    position.checked_sub(piece.begin).map_or_else(|| known(position), |i| hashes.get(i).copied());
                let slot = run.slot(position).expect("a page for everything that is seen");
                assert_eq!(Some(slots[slot]), want, "{piece:?} reads position {position}, kind {kind}");
            }
            self.counts.reads += (last + 1 - begin) as u64;
        }
        if !piece.is_last {
            return Fate::Computed;
        }
        let n_tokens = running.wish.n_tokens;
        if running.answers.is_empty() {
            let hash = hashes[piece.end - 1 - piece.begin];
            let first = |sample| {
                let token = choice(hash, sample);
                Answer { tokens: vec![token], hashes: vec![after(hash, Mark::Token(token))] }
            };
            running.answers = (0..running.wish.n_samples).map(first).collect();
            let firsts = running.answers.iter().map(|answer| Some(answer.tokens[0]).filter(|_| n_tokens > 1)).collect();
            return match running.wish.n_samples {
                1 if n_tokens > 1 => Fate::Chosen(running.answers[0].tokens.clone()),
                1 => Fate::Ended(running.answers[0].tokens.clone()),
                _ => Fate::Forked(firsts),
            };
        }
        let answer = &mut running.answers[sample as usize];
        let mut tokens = Vec::new();
        for i in 0..=piece.draft.len() {
            let hash = hashes[piece.end - 1 - piece.begin + i];
            let token = choice(hash, sample);
            tokens.push(token);
            answer.tokens.push(token);
            answer.hashes.push(after(hash, Mark::Token(token)));
            if answer.tokens.len() == n_tokens {
                break;
            }
            if piece.draft.get(i) != Some(&token) {
                break;
            }
        }
        self.counts.guesses += piece.draft.len() as u64;
        self.counts.right += tokens.len() as u64 - 1;
        if answer.tokens.len() == n_tokens { Fate::Ended(tokens) } else { Fate::Chosen(tokens) }
    }

    /// Steps until no job is left.
    pub fn run_out(&mut self) {
        const MOST: u64 = 200_000;
        let begun = self.counts.steps;
        while !self.scheduler.is_empty() {
            assert!(!self.step(None).pieces.is_empty(), "jobs are left and nothing goes on: {:?}", self.scheduler);
            assert!(self.counts.steps - begun < MOST, "jobs are left after {MOST} steps");
        }
    }

    /// Nothing is lost: every page is free or kept by the prefix cache.
    pub fn check_empty(&self) {
        self.scheduler.audit().expect("the counts agree");
        let census = self.scheduler.census();
        assert_eq!((census.global[0], census.chunked[0], census.n_running), (0, 0, 0), "{census:?}");
    }
}
