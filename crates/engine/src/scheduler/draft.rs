//! Guesses how a text goes on from what followed the same few tokens before, for rows that would be idle otherwise.
//!
//! A guess never changes what is chosen: every guessed token is computed as a row of its own and kept only if the
//! sampler chooses the same from the row before it.

use super::Mark;

/// Tokens that have to be the same for a place to count.
const GRAM_LEN: usize = 3;
/// Positions that are looked back.
const REACH: usize = 4096;
/// Tokens that one guess has at most.
const MOST: usize = 8;
/// Steps without a guess at most, after guesses that were wrong.
const LONGEST_REST: u32 = 64;

/// How much one sequence guesses: the better it went, the more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drafter {
    len: usize,
    /// Steps until the next guess.
    rest: u32,
    /// The rest after the next wrong guess.
    next_rest: u32,
}

impl Default for Drafter {
    fn default() -> Self {
        Self { len: 2, rest: 0, next_rest: 1 }
    }
}

impl Drafter {
    /// Up to `most` tokens that may follow `n` positions of which `mark` tells.
    pub(super) fn propose(&mut self, n: usize, mark: impl Fn(usize) -> Option<Mark>, most: usize) -> Vec<u32> {
        let most = most.min(self.len);
        if most == 0 || n <= GRAM_LEN {
            return Vec::new();
        }
        if self.rest > 0 {
            self.rest -= 1;
            return Vec::new();
        }
        let is_same = |end: &usize| (1..=GRAM_LEN).all(|i| mark(end - i) == mark(n - i));
        let Some(end) = (GRAM_LEN.max(n.saturating_sub(REACH))..n).rev().find(is_same) else { return Vec::new() };
        let token = |at: usize| match mark(at) {
            Some(Mark::Token(id)) => Some(id),
            _ => None,
        };
        (end..n.min(end + most)).map_while(token).collect()
    }

    /// Of `n_guessed` tokens the first `n_right` were right.
    pub(super) fn learn(&mut self, n_guessed: usize, n_right: usize) {
        match (n_guessed, n_right) {
            (0, _) => {}
            (_, 0) => {
                self.len = (self.len / 2).max(1);
                self.rest = self.next_rest;
                self.next_rest = (self.next_rest * 2).min(LONGEST_REST);
            }
            (guessed, right) => {
                self.next_rest = 1;
                if guessed == right {
                    self.len = (self.len * 2).min(MOST);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn propose(drafter: &mut Drafter, tokens: &[u32], most: usize) -> Vec<u32> {
        drafter.propose(tokens.len(), |at| tokens.get(at).map(|id| Mark::Token(*id)), most)
    }

    #[test]
    fn what_followed_last_time_is_proposed() {
        let text = [1, 2, 3, 4, 5, 9, 1, 2, 3, 7, 8, 1, 2, 3];
        assert_eq!(propose(&mut Drafter::default(), &text, 8), [7, 8]);
        assert_eq!(propose(&mut Drafter::default(), &text, 1), [7]);
        assert_eq!(propose(&mut Drafter::default(), &text[..9], 8), [4, 5]);
        assert_eq!(propose(&mut Drafter::default(), &text[..8], 8), [0; 0]);
        assert_eq!(propose(&mut Drafter::default(), &[], 8), [0; 0]);
        // A repetition continues into itself only as far as it is known.
        assert_eq!(propose(&mut Drafter::default(), &[6, 6, 6, 6], 8), [6]);
    }

    #[test]
    fn right_guesses_grow_and_wrong_ones_rest() {
        let mut drafter = Drafter::default();
        (0..4).for_each(|_| drafter.learn(drafter.len, drafter.len));
        assert_eq!(drafter.len, MOST);
        drafter.learn(8, 0);
        let text = [1, 2, 3, 4, 1, 2, 3];
        assert_eq!((propose(&mut drafter, &text, 8).len(), drafter.len), (0, 4));
        assert_eq!(propose(&mut drafter, &text, 8), [4, 1, 2, 3]);
        (0..20).for_each(|_| drafter.learn(1, 0));
        assert_eq!((drafter.len, drafter.rest), (1, LONGEST_REST));
        drafter.learn(1, 1);
        assert_eq!(drafter.next_rest, 1);
    }
}
