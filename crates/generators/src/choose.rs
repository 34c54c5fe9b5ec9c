//! Random choices.

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::Draw;

/// One of `choices`, all equally likely.
pub(crate) fn one_of<'a, T>(draw: &mut Draw, choices: &'a [T]) -> &'a T {
    choices.choose(draw).expect("every table of choices has an entry")
}

/// `n` different ones of `choices`, in random order; all if there are fewer.
pub(crate) fn some_of<T: Clone>(draw: &mut Draw, choices: &[T], n: usize) -> Vec<T> {
    let mut chosen = choices.to_vec();
    chosen.shuffle(draw);
    chosen.truncate(n);
    chosen
}

/// A number with 1 to `n_digits` digits, every count of digits equally likely.
pub(crate) fn number(draw: &mut Draw, n_digits: u32) -> i64 {
    let top = 10_i64.pow(draw.random_range(1..=n_digits));
    draw.random_range((top / 10).max(1)..top)
}

/// Whether a thing that happens once in `n` times happens.
pub(crate) fn once_in(draw: &mut Draw, n: u32) -> bool {
    draw.random_ratio(1, n)
}
