//! What came of a step.

use tensor::PAGE_LEN;

use super::{Fate, Mark, Prefixes, Scheduler, Sequence, SequenceId, Step};

impl Scheduler {
    /// Takes in what came of the pieces of `step`, one fate for each. Pieces of jobs that are gone are passed over.
    pub fn apply(&mut self, step: &Step, fates: Vec<Fate>) {
        for (piece, fate) in step.pieces.iter().zip(fates) {
            let id = piece.sequence;
            if !self.sequences.contains_key(&id) {
                continue;
            }
            match fate {
                Fate::Computed => self.advance(id, piece.end),
                Fate::Chosen(tokens) => self.follow(id, &tokens, piece.draft.len()),
                Fate::Forked(firsts) => self.fork(id, &firsts),
                Fate::Ended(tokens) => {
                    self.follow(id, &tokens, 0);
                    self.end(id);
                }
                Fate::Broken => {
                    self.cancel(id.job);
                }
            }
        }
    }

    /// Forgets every job that has rows in `step`, because nobody knows what came of them.
    pub fn abandon(&mut self, step: &Step) {
        for piece in &step.pieces {
            self.cancel(piece.sequence.job);
        }
    }

    /// `tokens` follow what was known; all but the last are computed.
    fn follow(&mut self, id: SequenceId, tokens: &[u32], n_guessed: usize) {
        let (Some(sequence), Some(job)) = (self.sequences.get_mut(&id), self.jobs.get(&id.job)) else { return };
        let n_right = tokens.len().saturating_sub(1);
        let n_computed = sequence.len(job) + n_right;
        sequence.tail.extend(tokens);
        sequence.drafter.learn(n_guessed, n_right);
        self.advance(id, n_computed);
    }

    /// Every answer shares what is computed of the prompt and goes on with its own first token.
    fn fork(&mut self, id: SequenceId, firsts: &[Option<u32>]) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        job.has_forked = true;
        let n_computed = job.prompt.len();
        self.advance(id, n_computed);
        for (sample, first) in (0u32..).zip(firsts).skip(1) {
            let (Some(token), Some(parent)) = (first, self.sequences.get(&id)) else { continue };
            let child = Sequence {
                tail: vec![*token],
                is_running: true,
                n_computed,
                global: parent.global.shared(&mut self.global),
                chunked: parent.chunked.shared(&mut self.chunked),
                entered: parent.entered,
                drafter: super::Drafter::default(),
            };
            self.sequences.insert(SequenceId { job: id.job, sample }, child);
        }
        if let Some(token) = firsts.first().copied().flatten() {
            self.sequences.entry(id).and_modify(|sequence| sequence.tail.push(token));
        } else {
            self.end(id);
        }
    }

    /// The positions before `n_computed` are stored. Full pages become known to the prefix cache; what nobody sees any
    /// more and what lies behind is given back.
    fn advance(&mut self, id: SequenceId, n_computed: usize) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.n_computed = n_computed;
            sequence.global.truncate(&mut self.global, n_computed);
            sequence.chunked.truncate(&mut self.chunked, n_computed);
        }
        if self.capacity.prefixes == Prefixes::Kept {
            self.enter(id);
        }
        if let (Some(sequence), Some(chunk)) = (self.sequences.get_mut(&id), self.capacity.chunk) {
            sequence.chunked.retire_before(&mut self.chunked, n_computed - n_computed % chunk);
        }
    }

    fn enter(&mut self, id: SequenceId) {
        let (Some(sequence), Some(job)) = (self.sequences.get_mut(&id), self.jobs.get(&id.job)) else { return };
        while sequence.entered.1 < sequence.n_computed / PAGE_LEN {
            let position = sequence.entered.1 * PAGE_LEN;
            let marks = (position..position + PAGE_LEN).filter_map(|at| job.mark(&sequence.tail, at));
            let block: Vec<Mark> = marks.collect();
            let place = (job.request.owner, sequence.entered.0);
            let tables = (&mut sequence.global, &mut sequence.chunked);
            let pools = (&mut self.global, &mut self.chunked);
            let Some(node) = self.prefixes.enter(place, &block, position, tables, pools) else { return };
            sequence.entered = (Some(node), sequence.entered.1 + 1);
        }
    }

    /// Gives the pages of an answer back; the last answer ends its job.
    fn end(&mut self, id: SequenceId) {
        self.give_back(id);
        self.sequences.remove(&id);
        if !self.sequences.keys().any(|other| other.job == id.job) {
            self.jobs.remove(&id.job);
        }
    }
}
