//! Names of checkpoints: which are ours, and in what order.

use std::fmt;

/// A checkpoint's folder: `step-000123`, or `step-000123-2` where that step was saved before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) step: u64,
    /// 1 for the first of that step.
    turn: u64,
}

/// What a folder's name ends with while it is written, before it is removed, and after it was refused.
pub(super) const PARTIAL: &str = ".tmp";
pub(super) const RETIRED: &str = ".old";
pub(super) const REFUSED: &str = ".refused";

impl Name {
    /// The name that `text` is, exactly as it is written.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let numbers = text.strip_prefix("step-")?;
        let (step, turn) = numbers.split_once('-').unwrap_or((numbers, "1"));
        let name = Self { step: step.parse().ok()?, turn: turn.parse().ok()? };
        (name.to_string() == text).then_some(name)
    }

    /// The first name of `step` that nothing among `taken` begins with.
    pub(super) fn free(step: u64, taken: &[String]) -> Self {
        let n_taken = u64::try_from(taken.len()).unwrap_or(u64::MAX);
        let is_taken = |name: &Self| {
            let [whole, name_dot] = [name.to_string(), format!("{name}.")];
            taken.iter().any(|other| *other == whole || other.starts_with(&name_dot))
        };
        // One more name than others are there: one of them is free.
        let mut names = (1..=n_taken.saturating_add(1)).map(|turn| Self { step, turn });
        names.find(|name| !is_taken(name)).unwrap_or(Self { step, turn: u64::MAX })
    }

    /// Whether `text` is a checkpoint's that was given up half written or half removed.
    pub(super) fn is_leftover(text: &str) -> bool {
        let name = text.strip_suffix(PARTIAL).or_else(|| text.strip_suffix(RETIRED));
        name.and_then(Self::parse).is_some()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step-{:06}", self.step)?;
        if self.turn == 1 { Ok(()) } else { write!(f, "-{}", self.turn) }
    }
}
