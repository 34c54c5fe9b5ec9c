//! What the next step computes.

use std::time::Duration;

use tensor::PAGE_LEN;

use super::prefix::first_needed;
use super::{JobId, Piece, Scheduler, SequenceId, Step};
use crate::service::Failure;

impl Scheduler {
    /// The next step, `now` after some fixed moment.
    ///
    /// First the oldest sequence that can go on, then those that answer, then prompts, each by age. A step without
    /// pieces means that nothing can go on until somebody else does something.
    pub fn plan(&mut self, now: Duration) -> Step {
        let mut step = Step::default();
        self.expire(now, &mut step);
        let can_run = |id: &&SequenceId| self.jobs.get(&id.job).is_some_and(super::Job::can_run);
        let ids: Vec<SequenceId> = self.sequences.keys().filter(can_run).copied().collect();
        let Some((oldest, others)) = ids.split_first() else { return step };
        let mut left = self.capacity.prompt_rows.max(1);
        self.start(*oldest, &mut step);
        left -= self.give_rows(*oldest, left, &mut step);
        for id in others.iter().filter(|id| self.is_answering(**id)).copied().collect::<Vec<_>>() {
            left -= self.give_rows(id, left, &mut step);
        }
        let mut is_open = true;
        for id in others {
            if self.has_piece(*id, &step) || step.preempted.contains(id) {
                continue;
            }
            if !self.is_running(*id) {
                // Nobody overtakes one that waits: a small job behind a large one would let it wait for ever.
                is_open &= left > 0 && self.fits(*id);
                if !is_open {
                    continue;
                }
                self.start(*id, &mut step);
            }
            left -= self.give_rows(*id, left, &mut step);
        }
        self.guess(&mut step);
        step
    }

    /// Ends jobs whose time is over.
    fn expire(&mut self, now: Duration, step: &mut Step) {
        let since = |then: Duration| now.saturating_sub(then);
        for (id, job) in &self.jobs {
            let failure = if job.blocked_since.is_some_and(|then| since(then) > self.capacity.longest_block) {
                Failure::Stalled
            } else if since(job.submitted) > job.request.deadline
                || (!job.has_started && since(job.submitted) > self.capacity.longest_wait)
            {
                Failure::Deadline
            } else {
                continue;
            };
            step.ended.push((*id, failure));
        }
        for (id, _) in &step.ended {
            self.cancel(*id);
        }
    }

    fn is_running(&self, id: SequenceId) -> bool {
        self.sequences.get(&id).is_some_and(|sequence| sequence.is_running)
    }

    /// Whether its next row is one of an answer's, or few enough that they delay nobody.
    fn is_answering(&self, id: SequenceId) -> bool {
        let (Some(sequence), Some(job)) = (self.sequences.get(&id), self.jobs.get(&id.job)) else { return false };
        let n_left = sequence.len(job) - sequence.n_computed;
        // A fork computes what stands in the page that it shared once more.
        sequence.is_running && !sequence.tail.is_empty() && n_left <= PAGE_LEN
    }

    fn has_piece(&self, id: SequenceId, step: &Step) -> bool {
        step.pieces.iter().any(|piece| piece.sequence == id)
    }

    /// Places among the running sequences that are taken.
    fn n_slots(&self) -> usize {
        let running = self.sequences.iter().filter(|(_, sequence)| sequence.is_running);
        running.map(|(id, _)| self.jobs.get(&id.job).map_or(1, super::Job::n_slots)).sum()
    }

    /// Whether a sequence that waits can run without anybody giving something up: there is a place, and pages for all
    /// that is known of it and the next page of each that runs.
    fn fits(&self, id: SequenceId) -> bool {
        let (Some(sequence), Some(job)) = (self.sequences.get(&id), self.jobs.get(&id.job)) else { return false };
        let n_slots = self.n_slots();
        if n_slots > 0 && n_slots + job.n_slots() > self.capacity.n_running {
            return false;
        }
        let n_others = self.sequences.values().filter(|sequence| sequence.is_running).count();
        let len = sequence.len(job);
        let hit = self.find(id);
        let alone = self.prefixes.n_alone(&hit, self.capacity.chunk, (&self.global, &self.chunked));
        let needed = (len + 1).div_ceil(PAGE_LEN) - hit.n_computed / PAGE_LEN;
        let free = self.global.n_free() + self.global.n_kept_alone() - alone.0;
        if needed + n_others > free {
            return false;
        }
        let Some(chunk) = self.capacity.chunk else { return true };
        let first = first_needed(hit.n_computed, chunk);
        let n_hit = (hit.n_computed - first) / PAGE_LEN;
        let most = (chunk.get() + self.capacity.prompt_rows).div_ceil(PAGE_LEN) + 1;
        let needed = (len + 1 - first).div_ceil(PAGE_LEN).min(most) - n_hit.min(most);
        let free = self.chunked.n_free() + self.chunked.n_kept_alone() - alone.1;
        needed + n_others <= free || self.chunked.n_pages() == 0
    }

    fn find(&self, id: SequenceId) -> super::prefix::Hit {
        let (Some(sequence), Some(job)) = (self.sequences.get(&id), self.jobs.get(&id.job)) else {
            return super::prefix::Hit::default();
        };
        if job.request.wants_every_row {
            return super::prefix::Hit::default();
        }
        let marks = job.prompt.iter().copied().chain(sequence.tail.iter().map(|id| super::Mark::Token(*id)));
        self.prefixes.find(job.request.owner, marks, self.capacity.chunk)
    }

    /// Lets a sequence run from what is kept of its beginning. Younger ones make place.
    fn start(&mut self, id: SequenceId, step: &mut Step) {
        if self.is_running(id) {
            return;
        }
        let n_needed = self.jobs.get(&id.job).map_or(1, super::Job::n_slots);
        while self.n_slots() + n_needed > self.capacity.n_running {
            let Some(victim) = self.victim(id) else { break };
            self.preempt(victim, step);
        }
        let n_cached = self.begin(id);
        if let Some(job) = self.jobs.get_mut(&id.job) {
            job.has_started = true;
        }
        step.started.push((id, n_cached));
    }

    /// Takes up what is kept of the beginning of a sequence without pages; how much that is.
    fn begin(&mut self, id: SequenceId) -> usize {
        let hit = self.find(id);
        let pools = (&mut self.global, &mut self.chunked);
        let (global, chunked, last) = self.prefixes.share(&hit, self.capacity.chunk, pools);
        let Some(sequence) = self.sequences.get_mut(&id) else { return 0 };
        (sequence.global, sequence.chunked) = (global, chunked);
        sequence.is_running = true;
        sequence.n_computed = hit.n_computed;
        sequence.entered = (last, hit.n_computed / PAGE_LEN);
        hit.n_computed
    }

    /// Plans rows for a running sequence: what is left of it, at most `left` unless it is one row. How many of `left`
    /// it took.
    fn give_rows(&mut self, id: SequenceId, left: usize, step: &mut Step) -> usize {
        if !self.is_running(id) {
            return 0;
        }
        self.own(id);
        let (Some(sequence), Some(job)) = (self.sequences.get(&id), self.jobs.get(&id.job)) else { return 0 };
        let (begin, len) = (sequence.n_computed, sequence.len(job));
        let n_wanted = if len - begin == 1 { 1 } else { (len - begin).min(left) };
        let end = self.make_room(id, begin + n_wanted, step);
        if end <= begin {
            return 0;
        }
        step.pieces.push(Piece { sequence: id, begin, end, is_last: end == len, draft: Vec::new() });
        if len - begin == 1 { 0 } else { end - begin }
    }

    /// Makes sure that the page which the next position goes to is nobody else's: goes back to its beginning if it is,
    /// and to that of the sequence where chunked layers no longer have what they would need.
    fn own(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let next = sequence.n_computed;
        let is_shared = |table: &crate::pages::PageTable, pool: &crate::pages::Pool| {
            table.page_at(next).is_some_and(|page| pool.n_holders(page) > 1)
        };
        if !is_shared(&sequence.global, &self.global) && !is_shared(&sequence.chunked, &self.chunked) {
            return;
        }
        let begin = next - next % PAGE_LEN;
        if self.capacity.chunk.is_some_and(|chunk| sequence.chunked.first_position() > first_needed(begin, chunk)) {
            self.give_back(id);
            self.begin(id);
            return;
        }
        sequence.n_computed = begin;
        sequence.global.truncate(&mut self.global, begin);
        sequence.chunked.truncate(&mut self.chunked, begin);
    }

    /// Pages for the positions of a sequence before `end`, or before as many as there can be without another sequence's
    /// pages; if that is none, younger sequences give theirs. One past the last position that has a slot then, at
    /// most `end`.
    fn make_room(&mut self, id: SequenceId, end: usize, step: &mut Step) -> usize {
        loop {
            let reached = self.grow(id, end);
            let n_computed = self.sequences.get(&id).map_or(0, |sequence| sequence.n_computed);
            if reached > n_computed || end <= n_computed {
                return reached;
            }
            match self.victim(id) {
                Some(victim) => self.preempt(victim, step),
                None => return reached,
            }
        }
    }

    /// Takes free pages, and those that only the prefix cache holds, for positions of a sequence before `end`.
    fn grow(&mut self, id: SequenceId, end: usize) -> usize {
        let Some(sequence) = self.sequences.get_mut(&id) else { return 0 };
        let has_chunks = self.capacity.chunk.is_some();
        for _ in 0..sequence.global.n_missing(end) {
            if self.global.n_free() == 0 && !self.prefixes.evict((&mut self.global, &mut self.chunked)) {
                break;
            }
            let next = sequence.global.end() + 1;
            if sequence.global.grow(&mut self.global, next).is_err() {
                break;
            }
        }
        for _ in 0..if has_chunks { sequence.chunked.n_missing(end) } else { 0 } {
            if self.chunked.n_free() == 0 && !self.prefixes.evict_chunked(&mut self.chunked) {
                break;
            }
            let next = sequence.chunked.end() + 1;
            if sequence.chunked.grow(&mut self.chunked, next).is_err() {
                break;
            }
        }
        let chunked_end = if has_chunks { sequence.chunked.end() } else { usize::MAX };
        sequence.global.end().min(chunked_end).min(end)
    }

    /// Who gives its pages to `id`: the youngest of those that nobody reads, else the youngest that is younger.
    fn victim(&self, id: SequenceId) -> Option<SequenceId> {
        let running = || self.sequences.iter().rev().filter(|(other, s)| s.is_running && **other != id);
        let is_blocked = |other: &SequenceId| self.jobs.get(&other.job).is_some_and(|job| !job.can_run());
        let blocked = running().map(|(other, _)| *other).find(is_blocked);
        blocked.or_else(|| running().map(|(other, _)| *other).find(|other| *other > id))
    }

    fn preempt(&mut self, id: SequenceId, step: &mut Step) {
        self.give_back(id);
        step.pieces.retain(|piece| piece.sequence != id);
        step.preempted.push(id);
    }

    /// Adds guesses to the rows of answers, as many as the step has room for.
    fn guess(&mut self, step: &mut Step) {
        let n_rows: usize = step.pieces.iter().filter(|piece| self.is_answering(piece.sequence)).count();
        let mut left = self.capacity.draft_rows.saturating_sub(n_rows);
        for piece in &mut step.pieces {
            let id = piece.sequence;
            if left == 0 || !piece.is_last {
                continue;
            }
            let (Some(sequence), Some(job)) = (self.sequences.get_mut(&id), self.jobs.get(&id.job)) else { continue };
            let n_more = job.request.max_tokens.saturating_sub(sequence.tail.len() + 1);
            if sequence.tail.is_empty() {
                continue;
            }
            let tail = &sequence.tail;
            let draft = sequence.drafter.propose(piece.end, |at| job.mark(tail, at), n_more.min(left));
            let room = self.grow(id, piece.end + draft.len()) - piece.end;
            piece.draft = draft.into_iter().take(room).collect();
            left -= piece.draft.len();
        }
    }

    /// The oldest sequence that can go on.
    pub fn oldest(&self) -> Option<SequenceId> {
        self.sequences.keys().find(|id| self.jobs.get(&id.job).is_some_and(super::Job::can_run)).copied()
    }

    /// Jobs that there are, oldest first.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.jobs.keys().copied()
    }
}
