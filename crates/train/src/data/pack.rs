//! Which documents go into which step.

/// Puts things of these lengths into bins of `capacity`: the longest first, each into the fullest bin that has room for
/// it. Of equals the earlier comes first. A thing longer than a bin has one of its own.
///
/// Each bin lists its things in their order, and bins stand in the order of their first things, so that steps follow
/// the stream that they were made of.
pub fn pack(lens: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lens.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lens[i]), i));
    let mut bins: Vec<(usize, Vec<usize>)> = Vec::new();
    for i in order {
        let fitting = bins.iter_mut().filter(|(room, _)| *room >= lens[i]);
        // The first of the fullest.
        match fitting.min_by_key(|(room, _)| *room) {
            Some((room, things)) => {
                *room -= lens[i];
                things.push(i);
            }
            None => bins.push((capacity.saturating_sub(lens[i]), vec![i])),
        }
    }
    let mut bins: Vec<Vec<usize>> = bins.into_iter().map(|(_, things)| things).collect();
    bins.iter_mut().for_each(|things| things.sort_unstable());
    bins.sort_unstable();
    bins
}
