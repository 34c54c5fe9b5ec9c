//! One answer's parser and budget. A value: a copy goes on from the same state.

use std::collections::VecDeque;

use tokenizer::Utf8Stream;

use super::Thinking;

/// Tokens that a character may still need after its first one.
const UTF8_REST: usize = 3;

/// Where an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing but white space came.
    Undecided,
    /// Inside a block.
    Reasoning,
    /// In the answer.
    Content,
}

/// What a token turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Text of the answer.
    Content,
    /// Text of a thought.
    Thought,
    /// Part of a marker.
    Marker,
    /// Not shown: a second closing marker, or white space before a block.
    Ignored,
}

/// The state of one answer.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    thinking: Thinking,
    mode: Mode,
    /// Whether the answer has to follow a grammar. What reads like a marker in it is then the grammar's.
    is_bound: bool,
    /// Tokens that may begin a marker, and white space before them while undecided; `true` for white space.
    held: Vec<(u32, bool)>,
    /// Tokens sampled in blocks.
    n: usize,
    /// Of those, tokens over the budget, which complete a character.
    n_over: usize,
    n_extensions: usize,
    /// Tokens to write next.
    forced: VecDeque<u32>,
    /// Whether the last of them close the block.
    is_closing: bool,
    /// Follows the block's text, to see where characters end.
    utf8: Utf8Stream,
    is_torn: bool,
}

/// What came of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Of the tokens that were undecided, oldest first, this is what the first ones are.
    pub(crate) roles: Vec<Role>,
    /// Whether what follows is treated otherwise than before.
    pub(crate) has_turned: bool,
}

impl Block {
    /// Before the first token after `prompt`. `is_bound`: the answer has to follow a grammar.
    pub(crate) fn new(thinking: Thinking, prompt: &[u32], is_bound: bool) -> Self {
        let inside = thinking.markers.open_in(prompt);
        let mut block = Self {
            thinking,
            mode: if inside.is_some() { Mode::Reasoning } else { Mode::Undecided },
            is_bound,
            held: Vec::new(),
            n: inside.unwrap_or(0),
            n_over: 0,
            n_extensions: 0,
            forced: VecDeque::new(),
            is_closing: false,
            utf8: Utf8Stream::new(),
            is_torn: false,
        };
        if inside.is_some() {
            block.check_budget();
        }
        block
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// The token to write next, if none is to be sampled.
    pub(crate) fn forced(&self) -> Option<u32> {
        self.forced.front().copied()
    }

    /// Tokens that are not decided yet.
    pub(crate) fn held(&self) -> impl Iterator<Item = u32> {
        self.held.iter().map(|(id, _)| *id)
    }

    /// The token with which a marker would go on that opens a block, while the answer is undecided and may think.
    pub(crate) fn opening(&self) -> Option<u32> {
        let start = &self.thinking.markers.start;
        let n = (0..start.len()).rev().find(|n| self.held_ends_with(&start[..*n])).unwrap_or(0);
        start.get(n).copied().filter(|_| self.mode == Mode::Undecided && self.thinking.budget > 0)
    }

    /// Tokens that close a block by themselves.
    pub(crate) fn implicit_end(&self) -> &[u32] {
        &self.thinking.markers.implicit_end
    }

    /// Whether `id`, one of the tokens that end an answer, does so here.
    pub(crate) fn may_end(&self, id: u32) -> bool {
        self.mode != Mode::Reasoning || self.thinking.markers.end_tokens.contains(&id)
    }

    /// What stands in the place of a sampled token: itself, or the beginning of the message that extends the block.
    pub(crate) fn extended(&mut self, sampled: u32) -> Option<u32> {
        let Thinking { markers, min_tokens, max_extensions, .. } = &self.thinking;
        let is_early = self.mode == Mode::Reasoning && markers.end == [sampled] && self.n < *min_tokens;
        if !is_early || self.n_extensions >= *max_extensions || markers.extend_message.is_empty() {
            return None;
        }
        self.n_extensions += 1;
        self.forced = markers.extend_message.iter().copied().collect();
        self.forced()
    }

    /// Goes on by a token with these bytes, none for a control token.
    pub(crate) fn take(&mut self, id: u32, bytes: &[u8]) -> Taken {
        let before = (self.mode, self.forced.is_empty());
        self.follow(bytes);
        let roles = match self.forced.pop_front() {
            Some(_) => self.write(id),
            None => self.sampled(id, bytes),
        };
        let has_turned = before != (self.mode, self.forced.is_empty());
        Taken { roles, has_turned }
    }

    /// What the undecided tokens are when nothing follows.
    pub(crate) fn finish(&mut self) -> Vec<Role> {
        self.release(self.held.len())
    }

    fn follow(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.utf8.flush();
        } else {
            self.utf8.push(bytes);
        }
        self.is_torn = self.utf8.is_torn();
    }

    /// A token of ours.
    fn write(&mut self, id: u32) -> Vec<Role> {
        let mut roles = self.release(self.held.len());
        let is_marker = self.is_closing && self.forced.len() < self.thinking.markers.end.len();
        self.held.push((id, false));
        roles.extend(self.release_as(1, if is_marker { Role::Marker } else { Role::Thought }));
        if self.is_closing && self.forced.is_empty() {
            self.is_closing = false;
            self.mode = Mode::Content;
        }
        roles
    }

    fn sampled(&mut self, id: u32, bytes: &[u8]) -> Vec<Role> {
        let is_space = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_whitespace);
        if self.mode == Mode::Content && self.is_bound {
            self.held.push((id, is_space));
            return self.release(self.held.len());
        }
        if self.mode == Mode::Reasoning && self.thinking.markers.implicit_end.contains(&id) {
            let mut roles = self.release(self.held.len());
            self.mode = Mode::Content;
            self.held.push((id, is_space));
            roles.extend(self.release(1));
            return roles;
        }
        self.held.push((id, is_space));
        let markers = self.thinking.markers.clone();
        if self.held_ends_with(&markers.start) {
            return self.start(markers.start.len());
        }
        if self.held_ends_with(&markers.end) {
            return self.end(markers.end.len());
        }
        let mut roles = self.release_sure();
        if self.mode == Mode::Reasoning {
            roles.extend(self.count());
        }
        roles
    }

    fn start(&mut self, len: usize) -> Vec<Role> {
        let n_before = self.held.len() - len;
        let before = if self.mode == Mode::Undecided { Role::Ignored } else { self.role() };
        let mut roles = self.release_as(n_before, before);
        roles.extend(self.release_as(len, Role::Marker));
        if self.mode == Mode::Reasoning {
            roles.extend(self.count());
        } else {
            self.mode = Mode::Reasoning;
            self.utf8.flush();
            self.is_torn = false;
            self.check_budget();
        }
        roles
    }

    fn end(&mut self, len: usize) -> Vec<Role> {
        let is_stray = self.mode != Mode::Reasoning;
        let mut roles = self.release(self.held.len() - len);
        roles.extend(self.release_as(len, if is_stray { Role::Ignored } else { Role::Marker }));
        self.mode = Mode::Content;
        roles
    }

    /// A sampled token that did not close the block. One that may yet turn out to begin a closing marker counts too:
    /// else a marker of many tokens could take an answer over its budget.
    fn count(&mut self) -> Vec<Role> {
        self.n += 1;
        self.check_budget();
        if self.n >= self.thinking.budget { self.release(self.held.len()) } else { Vec::new() }
    }

    fn check_budget(&mut self) {
        if self.n < self.thinking.budget {
            return;
        }
        if self.is_torn && self.n_over < UTF8_REST {
            self.n_over += 1;
            return;
        }
        let markers = &self.thinking.markers;
        // A block that may hold nothing holds no message either.
        let message = if self.thinking.budget == 0 { &[][..] } else { markers.budget_message.as_slice() };
        self.forced = message.iter().chain(&markers.end).copied().collect();
        self.is_closing = true;
    }

    fn held_ends_with(&self, ids: &[u32]) -> bool {
        let begin = self.held.len().checked_sub(ids.len());
        begin.is_some_and(|begin| self.held[begin..].iter().zip(ids).all(|((held, _), id)| held == id))
    }

    /// Releases what no marker can claim any more.
    fn release_sure(&mut self) -> Vec<Role> {
        let markers = &self.thinking.markers;
        let begins = |n: usize| {
            let begins = |marker: &[u32]| marker.len() > n && self.held_ends_with(&marker[..n]);
            begins(&markers.start) || begins(&markers.end)
        };
        let n_kept = (0..=self.held.len()).rev().find(|n| begins(*n)).unwrap_or(0);
        let n_sure = self.held.len() - n_kept;
        if self.mode == Mode::Undecided && self.held[..n_sure].iter().all(|(_, is_space)| *is_space) {
            return Vec::new();
        }
        self.release(n_sure)
    }

    fn role(&self) -> Role {
        if self.mode == Mode::Reasoning { Role::Thought } else { Role::Content }
    }

    fn release(&mut self, n: usize) -> Vec<Role> {
        if n > 0 && self.mode == Mode::Undecided {
            self.mode = Mode::Content;
        }
        self.release_as(n, self.role())
    }

    fn release_as(&mut self, n: usize, role: Role) -> Vec<Role> {
        self.held.drain(..n);
        vec![role; n]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::Markers;
    use super::*;

    const TEXT: u32 = 65;
    const SPACE: u32 = 32;
    const TOOL: u32 = 400;

    fn markers(start: &[u32], end: &[u32]) -> Markers {
        Markers {
            start: start.to_vec(),
            end: end.to_vec(),
            implicit_end: vec![TOOL],
            budget_message: vec![1, 2],
            extend_message: vec![3, 4, 5],
            end_tokens: vec![999],
        }
    }

    fn thinking(markers: Markers, budget: usize) -> Thinking {
        Thinking { markers: Arc::new(markers), budget, min_tokens: 0, max_extensions: 0 }
    }

    /// Ids below 256 are bytes; others are control tokens.
    fn take(block: &mut Block, id: u32) -> Vec<Role> {
        let byte = u8::try_from(id).ok();
        block.take(id, byte.as_slice()).roles
    }

    #[test]
    fn the_table_of_modes() {
        use Role::{Content, Ignored, Marker, Thought};
        for (start, end) in [(&[300][..], &[301][..]), (&[60, 84, 62][..], &[60, 47, 62][..])] {
            let (n_start, n_end) = (start.len(), end.len());
            let run = |ids: &[&[u32]]| {
                let mut block = Block::new(thinking(markers(start, end), 100), &[7], false);
                let mut roles: Vec<Role> = ids.concat().iter().flat_map(|id| take(&mut block, *id)).collect();
                roles.extend(block.finish());
                (roles, block.mode)
            };
            let many = |role, n| vec![role; n];
            let (roles, mode) = run(&[start]);
            assert_eq!((roles, mode), (many(Marker, n_start), Mode::Reasoning));
            assert_eq!(run(&[&[SPACE, TEXT]]), (many(Content, 2), Mode::Content));
            assert_eq!(run(&[&[SPACE], start]).0, [many(Ignored, 1), many(Marker, n_start)].concat());
            let again = [many(Marker, 2 * n_start), many(Thought, 1)].concat();
            assert_eq!(run(&[start, start, &[TEXT]]), (again, Mode::Reasoning));
            let closed = [many(Marker, n_start), many(Thought, 1), many(Marker, n_end), many(Content, 1)].concat();
            assert_eq!(run(&[start, &[TEXT], end, &[TEXT]]), (closed, Mode::Content));
            let implicit = [many(Marker, n_start), many(Content, 1)].concat();
            assert_eq!(run(&[start, &[TOOL]]), (implicit, Mode::Content));
            let stray = [many(Content, 1), many(Ignored, n_end)].concat();
            assert_eq!(run(&[&[TEXT], end]), (stray, Mode::Content));
            let anew = [many(Content, 1), many(Marker, n_start)].concat();
            assert_eq!(run(&[&[TEXT], start]), (anew, Mode::Reasoning));
            // What only begins like a marker is text.
            assert_eq!(run(&[&[TEXT], &start[..n_start - 1]]).0, many(Content, n_start));
        }
    }

    #[test]
    fn a_beginning_inside_a_failed_marker_is_not_lost() {
        let mut block = Block::new(thinking(markers(&[60, 60, 62], &[61]), 100), &[7], false);
        let roles: Vec<Vec<Role>> = [60, 60, 60, 62].iter().map(|id| take(&mut block, *id)).collect();
        let (none, content, marker) = (vec![], vec![Role::Content], vec![Role::Marker; 3]);
        assert_eq!(roles, [none.clone(), none, content, marker]);
    }

    #[test]
    fn a_prompt_opens_a_block_in_its_last_turn_only() {
        let thinking = thinking(markers(&[60, 61], &[62]), 9);
        assert_eq!(thinking.markers.open_in(&[7, 60, 61]), Some(0));
        assert_eq!(thinking.markers.open_in(&[7, 60, 61, 8, 8]), Some(2));
        assert_eq!(thinking.markers.open_in(&[60, 61, 62]), None);
        assert_eq!(thinking.markers.open_in(&[60, 61, 8, 999, 7]), None);
        assert_eq!(Block::new(thinking, &[60, 61, 8, 8], false).n, 2);
    }

    #[test]
    fn an_end_that_comes_too_early_is_replaced_as_often_as_allowed() {
        let thinking = Thinking { min_tokens: 5, max_extensions: 1, ..thinking(markers(&[300], &[301]), 50) };
        let mut block = Block::new(thinking, &[300], false);
        take(&mut block, TEXT);
        assert_eq!(block.extended(TEXT), None);
        assert_eq!(block.extended(301), Some(3));
        for id in [3, 4, 5] {
            assert_eq!(block.forced(), Some(id));
            assert_eq!(take(&mut block, id), [Role::Thought]);
        }
        assert_eq!((block.forced(), block.n, block.extended(301)), (None, 1, None));
        assert_eq!(take(&mut block, 301), [Role::Marker]);
    }

    #[test]
    fn a_copy_goes_on_from_the_same_state() {
        let mut block = Block::new(thinking(markers(&[300], &[301]), 2), &[300], false);
        take(&mut block, TEXT);
        let mut copy = block.clone();
        take(&mut block, TEXT);
        assert_eq!((block.forced(), copy.forced()), (Some(1), None));
        assert!(copy.take(TEXT, b"A").has_turned);
        assert_eq!(copy.forced(), Some(1));
    }

    #[test]
    fn a_used_budget_holds_for_the_next_block_too() {
        let mut block = Block::new(thinking(markers(&[300], &[301]), 2), &[300], false);
        [TEXT, 301, TEXT, 300, TEXT].iter().for_each(|id| drop(take(&mut block, *id)));
        assert_eq!(block.forced(), Some(1));
    }

    proptest! {
        /// Tokens of a block, its opening marker left out, against what the budget allows.
        #[test]
        fn no_block_is_longer_than_its_budget(
            shape in 0usize..4,
            budget in 0usize..24,
            min_tokens in 0usize..12,
            max_extensions in 0usize..3,
            is_open: bool,
            tokens in prop::collection::vec(prop_oneof![
                Just(60u32), Just(62), Just(47), Just(84), Just(300), Just(301), Just(TOOL), Just(SPACE),
                Just(0xf0), Just(0x9f), Just(0x99), Just(0x82), Just(0xe2), Just(TEXT),
            ], 0..120),
        ) {
            let shapes: [(&[u32], &[u32]); 4] =
                [(&[300], &[301]), (&[60, 84, 62], &[60, 47, 84, 62]), (&[300], &[60, 60, 62, 62, 60]), (&[60, 84], &[62])];
            let (start, end) = shapes[shape];
            let own = markers(start, end);
            let extra = 3 + own.budget_message.len() + end.len() + max_extensions * own.extend_message.len();
            let thinking = Thinking { min_tokens, max_extensions, ..thinking(own, budget) };
            let mut block = Block::new(thinking, if is_open { start } else { &[7] }, false);
            let (mut n, mut n_sampled, mut n_taken, mut n_roles) = (0, 0, 0, 0);
            let mut tokens = tokens.into_iter();
            loop {
                let (id, is_sampled) = match block.forced() {
                    Some(id) => (id, false),
                    None => {
                        let Some(sampled) = tokens.next() else { break };
                        block.extended(sampled).map_or((sampled, true), |id| (id, false))
                    }
                };
                let was = block.mode;
                n_roles += take(&mut block, id).len();
                n_taken += 1;
                if was == Mode::Reasoning {
                    n += 1;
                    n_sampled += usize::from(is_sampled && block.mode == Mode::Reasoning);
                }
                prop_assert!(n <= budget + extra, "{n} tokens of a block, {budget} allowed");
                if block.mode != Mode::Reasoning || was != Mode::Reasoning {
                    n = 0;
                }
                prop_assert!(n_sampled <= budget + 3, "{n_sampled} tokens were sampled, {budget} allowed");
            }
            prop_assert_eq!(n_roles + block.finish().len(), n_taken);
            prop_assert!(block.forced().is_none());
        }
    }
}
