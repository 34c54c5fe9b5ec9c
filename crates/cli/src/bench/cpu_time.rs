//! The processor's time that others took while something was measured: what a disturbed figure is known by.

/// Ticks of the counters in `/proc` a second, the same in every Linux interface (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;

/// How long all processors were busy since the start, and how much of that was ours.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    busy: u64,
    ours: u64,
}

impl Reading {
    /// Now, with this process and `process`, if any, as ours; `None` where the system does not say.
    pub fn now(process: Option<u32>) -> Option<Self> {
        let busy = busy_ticks(&std::fs::read_to_string("/proc/stat").ok()?)?;
        let mut ours = process_ticks(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
        if let Some(id) = process {
            ours += process_ticks(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?;
        }
        Some(Self { busy, ours })
    }

    /// Seconds of processor time that others took from `begin` to this reading.
    pub fn others_since(self, begin: Self) -> f64 {
        let busy = self.busy.saturating_sub(begin.busy);
        let ours = self.ours.saturating_sub(begin.ours);
        // The two are not read at the same instant, so that a tick may be ours and not yet anybody's.
        busy.saturating_sub(ours) as f64 / TICKS_PER_S
    }
}

/// Ticks in user, nice, system, irq, softirq and steal of all processors: `proc(5)`.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    Some(user + nice + system + irq + softirq + steal)
}

/// Ticks in user and system of one process. Its name stands in parentheses and may hold any character.
fn process_ticks(stat: &str) -> Option<u64> {
    let mut words = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = words.next()?.parse().ok()?;
    let system: u64 = words.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_took_is_the_busy_time_that_is_not_ours() {
        let stat = |user: u64, steal: u64| busy_ticks(&format!("cpu  {user} 20 30 999 999 1 2 {steal} 0 0\ncpu0 7 7"));
        let process = |user: u64, system: u64| {
            process_ticks(&format!("42 (a ) b) R 1 42 42 0 -1 4194304 5 0 0 0 {user} {system} 0 0 20 0 3"))
        };
        assert_eq!((stat(100, 4), process(7, 5)), (Some(157), Some(12)));
        let reading = |user, steal, ours| Reading { busy: stat(user, steal).unwrap_or(0), ours };
        assert_eq!(reading(400, 104, 262).others_since(reading(100, 4, 12)), 1.5);
        assert_eq!(reading(100, 4, 14).others_since(reading(100, 4, 12)), 0.0);
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        assert_eq!(busy_ticks("cpu  1 2 3"), None);
        assert_eq!(busy_ticks("intr 1"), None);
        assert_eq!(process_ticks("42 (a) R 1"), None);
    }
}
