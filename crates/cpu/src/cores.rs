//! Which cores threads run on.

use std::path::Path;

/// Physical cores of this process, each by its first logical processor: those of one memory node after another, the node
/// with the most cores first, so that a few threads share the nearest memory.
///
/// `None` where the system does not say.
pub(crate) fn physical() -> Option<Vec<usize>> {
    let cpus = Path::new("/sys/devices/system/cpu");
    let nodes = Path::new("/sys/devices/system/node");
    let allowed = allowed()?;
    let first_sibling = |cpu: usize| {
        let list = cpus.join(format!("cpu{cpu}/topology/thread_siblings_list"));
        let siblings = parse_list(&std::fs::read_to_string(list).ok()?)?;
        siblings.into_iter().find(|sibling| allowed.contains(sibling))
    };
    let mut cores: Vec<usize> = Vec::new();
    for cpu in &allowed {
        let core = first_sibling(*cpu)?;
        if !cores.contains(&core) {
            cores.push(core);
        }
    }
    let mut by_node: Vec<Vec<usize>> = Vec::new();
    for node in 0.. {
        let Ok(list) = std::fs::read_to_string(nodes.join(format!("node{node}/cpulist"))) else { break };
        let members = parse_list(&list)?;
        by_node.push(cores.iter().copied().filter(|core| members.contains(core)).collect());
    }
    Some(nearest_first(by_node, cores))
}

/// The nodes' cores, the largest node first; `all` where that leaves some out.
fn nearest_first(mut by_node: Vec<Vec<usize>>, all: Vec<usize>) -> Vec<usize> {
    // Stable: of nodes of one size the first stays first.
    by_node.sort_by_key(|cores| std::cmp::Reverse(cores.len()));
    let sorted = by_node.concat();
    if sorted.len() == all.len() { sorted } else { all }
}

/// A list of the kernel's, like `0-3,8`.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        all.extend((first..=last).take(MOST));
    }
    Some(all)
}

/// Processors that a list is read for, at most.
const MOST: usize = 4096;

/// Logical processors that this thread may run on.
#[cfg(target_os = "linux")]
fn allowed() -> Option<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    Some((0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Option<Vec<usize>> {
    None
}

/// Keeps the calling thread on `core`, where the system allows it: a thread that moves loses its caches.
#[cfg(target_os = "linux")]
pub(crate) fn stay_on(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    // A refusal costs speed, nothing else.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn stay_on(_core: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        for (text, want) in [
            ("0\n", Some(vec![0])),
            ("0-3,8\n", Some(vec![0, 1, 2, 3, 8])),
            ("", Some(vec![])),
            ("0-x", None),
            ("3-1", Some(vec![])),
        ] {
            assert_eq!(parse_list(text), want, "{text:?}");
        }
    }

    #[test]
    fn the_largest_node_comes_first_and_no_core_is_lost() {
        assert_eq!(nearest_first(vec![vec![0], vec![1, 2], vec![3, 4]], vec![0, 1, 2, 3, 4]), [1, 2, 3, 4, 0]);
        assert_eq!(nearest_first(vec![vec![0]], vec![0, 1]), [0, 1]);
        assert_eq!(nearest_first(vec![], vec![2, 5]), [2, 5]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn every_physical_core_is_one_this_process_may_use() {
        let (cores, allowed) = (physical().expect("Linux says"), allowed().expect("Linux says"));
        assert!(!cores.is_empty() && cores.iter().all(|core| allowed.contains(core)), "{cores:?} of {allowed:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_stays_where_it_is_put() {
        let core = *physical().and_then(|cores| cores.last().copied()).as_ref().expect("a core");
        std::thread::spawn(move || {
            stay_on(core);
            assert_eq!(allowed(), Some(vec![core]));
        })
        .join()
        .expect("the thread ends well");
    }
}
