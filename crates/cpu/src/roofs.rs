//! What the machine allows: the rates that kernels are measured against.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Cpu;
use crate::aligned::{Aligned, LINE};
use crate::simd::Simd;

/// Bytes that the memory roof reads: far more than caches hold.
const READ_BYTES: usize = 1 << 28;
/// Bytes of a thread's piece of them.
const PIECE: usize = 1 << 20;
/// Rounds of an arithmetic loop in one call.
const ROUNDS: usize = 20_000;

/// Rates of all threads together, each the best of several tries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roofs {
    /// Bytes a second read from memory.
    pub memory: f64,
    /// Operations a second on eight-bit integers: a multiply-add is two.
    pub int8: f64,
    /// Floating-point operations a second in f32: a fused multiply-add is two.
    pub f32: f64,
    /// Seconds that it takes to hand a job to all threads and have it done.
    pub barrier: f64,
}

impl Cpu {
    /// Measures the roofs of this device's threads and instruction set; takes about `budget`.
    pub fn roofs(&self, budget: Duration) -> Roofs {
        let budget = budget / 4;
        let n = self.threads();
        let each = |work: &(dyn Fn() -> usize + Sync)| {
            let count = AtomicUsize::new(0);
            let seconds = best(budget, || {
                count.store(0, Ordering::Relaxed);
                self.pool().run(n, 1, &|range| {
                    for _ in range {
                        count.fetch_add(work(), Ordering::Relaxed);
                    }
                });
            });
            count.into_inner() as f64 / seconds
        };
        Roofs {
            memory: self.read_rate(READ_BYTES, budget),
            int8: each(&|| self.kernels().multiply_int8()),
            f32: each(&|| self.kernels().multiply_f32()),
            barrier: best(budget, || self.meet()),
        }
    }
}

impl Cpu {
    /// Bytes a second that all threads together read from `n_bytes` over and over: of memory if caches hold far less,
    /// of the last-level cache if that holds them all. Takes about `budget`.
    pub fn read_rate(&self, n_bytes: usize, budget: Duration) -> f64 {
        let piece = PIECE.min(n_bytes / (4 * self.threads())).next_multiple_of(LINE);
        let n_pieces = (n_bytes / piece).max(1);
        let Some(mut bytes) = Aligned::zeroed(n_pieces * piece) else { return 0.0 };
        // Touched first, so that each page is memory of its own.
        self.pool().chunks(&mut bytes, piece, 1, |_, piece| piece.fill(1));
        let seconds = best(budget, || {
            self.pool().run(n_pieces, 1, &|range| {
                self.kernels().read(&bytes[range.start * piece..range.end * piece]);
            });
        });
        (n_pieces * piece) as f64 / seconds
    }

    /// Runs a job that no thread leaves before all are in it.
    fn meet(&self) {
        let n_inside = AtomicUsize::new(0);
        self.pool().run(self.threads(), 1, &|range| {
            n_inside.fetch_add(range.len(), Ordering::AcqRel);
            while n_inside.load(Ordering::Acquire) < self.threads() {
                std::hint::spin_loop();
            }
        });
    }
}

/// The fewest seconds that a call takes.
fn best(budget: Duration, call: impl Fn()) -> f64 {
    let (began, mut best) = (Instant::now(), f64::INFINITY);
    while began.elapsed() < budget || best.is_infinite() {
        let call_began = Instant::now();
        call();
        best = best.min(call_began.elapsed().as_secs_f64());
    }
    best
}

/// Reads all of `bytes`.
///
/// # Safety
/// Needs the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn read<S: Simd>(bytes: &[u8]) {
    let width = 4 * S::LANES;
    // SAFETY: inside of `bytes`.
    unsafe {
        let mut all = [S::bytes([0; 64].as_ptr()); 4];
        for part in bytes.chunks_exact(4 * width) {
            for (i, all) in all.iter_mut().enumerate() {
                *all = S::or(*all, S::bytes(part.as_ptr().add(i * width)));
            }
        }
        std::hint::black_box(all);
    }
}

/// Multiplies four-bit by eight-bit integers in registers; returns the operations.
///
/// # Safety
/// Needs the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn multiply_int8<S: Simd>() -> usize {
    const COLUMNS: usize = 4;
    const BLOCK: usize = 32;
    let mut x = [1i8; BLOCK * COLUMNS];
    // SAFETY: reads `x` and 64 bytes.
    unsafe {
        let w = [S::bytes(std::hint::black_box([3u8; 64]).as_ptr()); 4];
        let mut sums = [S::zero_i32(); COLUMNS];
        for _ in 0..ROUNDS {
            // Could be other integers each time, for all that the compiler knows.
            let x = std::hint::black_box(&mut x).as_ptr();
            for (i, sum) in sums.iter_mut().enumerate() {
                let first = S::dot(S::begin(), w, x.add(BLOCK * i), 4);
                *sum = S::end(S::dot(first, w, x.add(BLOCK * i + BLOCK / 2), 4), *sum, 4);
            }
        }
        std::hint::black_box(sums);
    }
    ROUNDS * COLUMNS * BLOCK * S::LANES * 2
}

/// Multiplies f32 in registers; returns the operations.
///
/// # Safety
/// Needs the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn multiply_f32<S: Simd>() -> usize {
    const CHAINS: usize = 12;
    // SAFETY: reads nothing but its own numbers.
    unsafe {
        let (a, b) = (S::splat(std::hint::black_box(0.9)), S::splat(std::hint::black_box(0.1)));
        let mut sums = [S::splat(0.0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                // The sum is the addend, which some sets' instruction overwrites: anywhere else it would be copied.
                *sum = S::fma(a, b, *sum);
            }
        }
        std::hint::black_box(sums);
    }
    ROUNDS * CHAINS * S::LANES * 2
}
