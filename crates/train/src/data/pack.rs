//! Which documents go into which step.

/// Puts things of these lengths into bins of `capacity`. A thing longer than a bin has one of its own.
///
/// Every bin gets as much of the long things and of the short ones as every other, if they fit as few bins as their sum
/// needs: lengths go with kinds of data, and a step of one kind pulls the weights its own way. Else the bins are as few as
/// can be had quickly.
///
/// Each bin lists its things in their order, and bins stand in the order of their first things, so that steps follow
/// the stream that they were made of.
pub fn pack(lens: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lens.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lens[i]), i));
    let mut bins = spread(lens, &order, capacity).unwrap_or_else(|| fill(lens, &order, capacity));
    bins.iter_mut().for_each(|things| things.sort_unstable());
    bins.sort_unstable();
    bins
}

/// The longest first, each into the emptiest bin of as few as their sum needs; `None` if one fits none.
fn spread(lens: &[usize], order: &[usize], capacity: usize) -> Option<Vec<Vec<usize>>> {
    let n_bins = lens.iter().sum::<usize>().div_ceil(capacity.max(1));
    let mut bins = vec![(0, Vec::new()); n_bins];
    for &i in order {
        let (len, things) = bins.iter_mut().min_by_key(|(len, _)| *len)?;
        *len += lens[i];
        things.push(i);
        if *len > capacity {
            return None;
        }
    }
    Some(bins.into_iter().map(|(_, things)| things).collect())
}

/// The longest first, each into the fullest bin that has room for it. Of equals the earlier comes first.
fn fill(lens: &[usize], order: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut bins: Vec<(usize, Vec<usize>)> = Vec::new();
    for &i in order {
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
    bins.into_iter().map(|(_, things)| things).collect()
}
