//! Exact fractions.

/// `numerator / denominator` in lowest terms, the denominator positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ratio {
    numerator: i128,
    denominator: i128,
}

impl Ratio {
    /// A whole number.
    pub(crate) fn whole(number: i64) -> Self {
        Self { numerator: i128::from(number), denominator: 1 }
    }

    /// The number, if it is whole.
    pub(crate) fn to_whole(self) -> Option<i64> {
        (self.denominator == 1).then(|| i64::try_from(self.numerator).ok()).flatten()
    }

    /// The sum, or `None` where it is too large.
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        Self::of(left.checked_add(right)?, self.denominator.checked_mul(other.denominator)?)
    }

    /// The product, or `None` where it is too large.
    pub(crate) fn times(self, other: Self) -> Option<Self> {
        Self::of(self.numerator.checked_mul(other.numerator)?, self.denominator.checked_mul(other.denominator)?)
    }

    /// The number with the other sign.
    pub(crate) fn negated(self) -> Option<Self> {
        Self::of(self.numerator.checked_neg()?, self.denominator)
    }

    /// `1 / self`, or `None` of zero.
    pub(crate) fn inverse(self) -> Option<Self> {
        Self::of(self.denominator, self.numerator)
    }

    fn of(numerator: i128, denominator: i128) -> Option<Self> {
        let divisor = i128::try_from(gcd(numerator.unsigned_abs(), denominator.unsigned_abs())).ok()?;
        let divisor = if denominator < 0 { -divisor } else { divisor };
        (denominator != 0).then(|| Self { numerator: numerator / divisor, denominator: denominator / divisor })
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
