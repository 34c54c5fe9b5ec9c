//! Tasks with worked answers: one file each, and its line here.

use crate::Generator;

mod arithmetic;
mod countdown;
mod equations;
mod sorting;
mod strings;

/// All of them.
pub(crate) fn all() -> Vec<Box<dyn Generator>> {
    vec![
        Box::new(arithmetic::Arithmetic),
        Box::new(countdown::Countdown),
        Box::new(equations::Equations),
        Box::new(sorting::Sorting),
        Box::new(strings::Strings),
    ]
}
