//! Ranges of a parameter that threads work on.

use half::bf16;

/// Values in a piece where nothing else decides: small enough to spread over threads, large enough that taking one costs
/// nothing.
pub(crate) const PIECE_LEN: usize = 1 << 16;

/// A range of one parameter: all slices are equally long.
pub(crate) struct Piece<'a> {
    /// What is updated.
    pub(crate) values: &'a mut [f32],
    /// The weights that those are the masters of, where they are another copy.
    pub(crate) rounded: Option<&'a mut [bf16]>,
    /// The moving average of the values, where one is kept.
    pub(crate) average: Option<&'a mut [f32]>,
    /// The gradient as it came.
    pub(crate) gradient: &'a [f32],
    /// The optimiser's own numbers.
    pub(crate) moments: [&'a mut [f32]; 2],
}

impl<'a> Piece<'a> {
    /// The first `len` values and the rest.
    fn split_at(self, len: usize) -> (Self, Self) {
        let (values, values_rest) = self.values.split_at_mut(len);
        let (rounded, rounded_rest) = self.rounded.map(|all| all.split_at_mut(len)).unzip();
        let (average, average_rest) = self.average.map(|all| all.split_at_mut(len)).unzip();
        let (gradient, gradient_rest) = self.gradient.split_at(len);
        // A method with one moment leaves the second empty.
        let [(first, first_rest), (second, second_rest)] =
            self.moments.map(|moment| moment.split_at_mut(len.min(moment.len())));
        (
            Self { values, rounded, average, gradient, moments: [first, second] },
            Self {
                values: values_rest,
                rounded: rounded_rest,
                average: average_rest,
                gradient: gradient_rest,
                moments: [first_rest, second_rest],
            },
        )
    }

    /// Pieces of `len` values, and one of what is left.
    pub(crate) fn split(self, len: usize) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut rest = self;
        while rest.values.len() > len {
            let (piece, after) = rest.split_at(len);
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        pieces
    }

    /// After an update: moves the average by `share` of its distance to the values, and rounds those to the weights.
    pub(crate) fn finish(&mut self, share: f32) {
        if let Some(average) = &mut self.average {
            for (average, value) in average.iter_mut().zip(&*self.values) {
                *average += share * (value - *average);
            }
        }
        if let Some(rounded) = &mut self.rounded {
            for (rounded, value) in rounded.iter_mut().zip(&*self.values) {
                *rounded = bf16::from_f32(*value);
            }
        }
    }
}
