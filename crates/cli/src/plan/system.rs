//! What the operating system says of the machine and of this process. Linux; elsewhere nothing is known.

/// The machine's memory.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// All of it, in bytes.
    pub total: u64,
    /// What can be used without swapping.
    pub available: u64,
}

/// The machine's memory, where the system says.
pub fn memory() -> Option<Memory> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some(Memory { total: kib(&text, "MemTotal:")?, available: kib(&text, "MemAvailable:")? })
}

/// The field `name` of this process's status, in bytes: `VmRSS:` what it holds, `VmHWM:` the most that it held.
pub fn process(name: &str) -> Option<u64> {
    kib(&std::fs::read_to_string("/proc/self/status").ok()?, name)
}

/// Makes `VmHWM:` count from now on; whether that worked.
pub fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// A line such as `VmRSS:    1234 kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The processor's name.
pub fn cpu_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.and_then(|line| line.split_once(':')).map_or("unknown processor", |(_, name)| name.trim()).to_owned()
}

/// Bytes of the largest cache of the first core.
pub fn cache_bytes() -> Option<usize> {
    let sizes = (0..8).filter_map(|i| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{i}/size");
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().strip_suffix('K')?.parse::<usize>().ok()?.checked_mul(1024)
    });
    sizes.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_system_are_read_in_kibibytes() {
        let text = "VmPeak:\t  100 kB\nVmHWM:\t    42 kB\nVmRSS:\tmany kB\n";
        assert_eq!(kib(text, "VmHWM:"), Some(42 * 1024));
        assert_eq!((kib(text, "VmRSS:"), kib(text, "VmSwap:")), (None, None));
    }
}
