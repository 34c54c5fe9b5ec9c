//! Work on all cores whose results are wanted in order.

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, sync_channel};

/// Results that a thread may be ahead of the one who takes them.
const AHEAD: usize = 2;

/// Computes `work(0)`, `work(1)`, … `work(n − 1)` on `n_threads` threads and hands the results to `take` in that order.
///
/// No more than a few results a thread wait at a time. An error of `take` ends the work.
///
/// # Errors
/// That of `take`.
pub fn each<T: Send, E>(
    n: usize,
    n_threads: NonZeroUsize,
    work: impl Fn(usize) -> T + Sync,
    mut take: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    std::thread::scope(|scope| {
        let n_threads = n_threads.get().min(n.max(1));
        let start = |thread: usize| -> Receiver<T> {
            let (sender, receiver) = sync_channel(AHEAD);
            let work = &work;
            scope.spawn(move || {
                for index in (thread..n).step_by(n_threads) {
                    // Nobody takes it any more: an error has ended the work.
                    if sender.send(work(index)).is_err() {
                        return;
                    }
                }
            });
            receiver
        };
        let receivers: Vec<Receiver<T>> = (0..n_threads).map(start).collect();
        for (index, receiver) in (0..n).zip(receivers.iter().cycle()) {
            // A thread that panicked sends nothing more; leaving the scope passes its panic on.
            let Ok(result) = receiver.recv() else { break };
            take(index, result)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_whatever_the_number_of_threads() {
        for n_threads in [1, 2, 3, 8] {
            let mut got = Vec::new();
            let n_threads = NonZeroUsize::new(n_threads).expect("not zero");
            let done: Result<(), ()> = each(
                20,
                n_threads,
                |i| i * i,
                |i, square| {
                    got.push((i, square));
                    Ok(())
                },
            );
            assert_eq!(done, Ok(()));
            assert_eq!(got, (0..20).map(|i| (i, i * i)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_ends_the_work() {
        let n_threads = NonZeroUsize::new(2).expect("not zero");
        let n_done = std::sync::atomic::AtomicUsize::new(0);
        let work = |i| {
            n_done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            i
        };
        assert_eq!(each(1000, n_threads, work, |i, _| if i == 3 { Err("enough") } else { Ok(()) }), Err("enough"));
        assert!(n_done.into_inner() < 4 + 2 * (AHEAD + 2));
        assert_eq!(each(0, n_threads, |i| i, |_, _| Err("nothing to take")), Ok(()));
    }
}
