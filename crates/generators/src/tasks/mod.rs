//! Tasks with worked answers: one file each, and its line here.

use crate::Generator;

mod arithmetic;
mod calendar;
mod countdown;
mod equations;
mod lists;
mod ordering;
mod sorting;
mod strings;
mod syllogisms;
mod tracing;
mod truth_tellers;
mod units;

/// All of them.
pub fn all() -> Vec<Box<dyn Generator>> {
    vec![
        Box::new(arithmetic::Arithmetic),
        Box::new(calendar::Calendar),
        Box::new(countdown::Countdown),
        Box::new(equations::Equations),
        Box::new(lists::Lists),
        Box::new(ordering::Ordering),
        Box::new(sorting::Sorting),
        Box::new(strings::Strings),
        Box::new(syllogisms::Syllogisms),
        Box::new(tracing::Tracing),
        Box::new(truth_tellers::TruthTellers),
        Box::new(units::Units),
    ]
}
