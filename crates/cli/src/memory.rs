//! How much memory there is, and what this process has of it.

use std::path::{Path, PathBuf};

/// Memory that can be used without swapping: what the machine has left, or what the process's control groups leave of
/// their limits, whichever is less. `None` where the system does not say.
pub fn free_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().flat_map(|line| free_in_groups(Path::new("/sys/fs/cgroup"), line));
    machine("MemAvailable:").into_iter().chain(limits).min()
}

/// All memory of the machine.
pub fn total_bytes() -> Option<u64> {
    machine("MemTotal:")
}

/// What this process has in memory: bytes of its own, and bytes of files that are mapped, which the system can take back.
pub fn resident_bytes() -> Option<(u64, u64)> {
    Some((process("RssAnon:")?, process("RssFile:")?))
}

/// The field `name` of this process's status, in bytes: `VmRSS:` what it holds, `VmHWM:` the most that it held.
pub fn process(name: &str) -> Option<u64> {
    kib(&std::fs::read_to_string("/proc/self/status").ok()?, name)
}

/// Makes `VmHWM:` count from now on; whether that worked.
pub fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn machine(name: &str) -> Option<u64> {
    kib(&std::fs::read_to_string("/proc/meminfo").ok()?, name)
}

/// A line such as `VmRSS:    1234 kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the group that a line of `/proc/self/cgroup` names, and each group above it, leaves of its limit.
fn free_in_groups(mounts: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
    // Version 2 has one tree without controllers in its name, at the mount or beside the trees of version 1.
    let (mounts, files): (Vec<PathBuf>, [&str; 3]) = if controllers.is_empty() {
        (vec![mounts.into(), mounts.join("unified")], ["memory.max", "memory.current", "inactive_file "])
    } else if controllers.split(',').any(|controller| controller == "memory") {
        let files = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "];
        (vec![mounts.join("memory")], files)
    } else {
        return Vec::new();
    };
    let mut free = Vec::new();
    for mount in mounts {
        // Inside of a container the path may be that of the host: the mount itself is looked at in any case.
        let group = mount.join(path.trim_start_matches('/'));
        let groups = group.ancestors().take_while(|group| group.starts_with(&mount));
        free.extend(groups.filter_map(|group| free_in_group(group, files)));
    }
    free
}

/// What one group leaves: its limit less what it uses, but files in the cache can go.
fn free_in_group(group: &Path, [limit, used, cached]: [&str; 3]) -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    // "max" is no number: no limit. Version 1 writes a number of the order of the address space.
    let limit = read(limit).and_then(number)?;
    let used = read(used).and_then(number)?;
    let stat = read("memory.stat").unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix(cached)?.trim().parse::<u64>().ok()).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

/// A size such as `2G`, `512M`, `1.5GiB` or a number of bytes; units are powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no size, such as 2G, 512M or a number of bytes");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 1u64,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * factor as f64;
    // 2⁵³: above, not every number of bytes can be told from the next.
    if bytes.is_finite() && (1.0..9e15).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A size for people: three digits and a unit.
pub fn size(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let value = bytes as f64 / *unit as f64;
            let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
            format!("{value:.digits$} {name}")
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, want) in [
            ("1", 1),
            ("512M", 512 << 20),
            ("2G", 2 << 30),
            ("2GiB", 2 << 30),
            ("1.5g", 3 << 29),
            ("3kb", 3072),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
        for text in ["", "G", "-1", "2X", "1e3", "0", "nan", "inf", "1.2.3G", "99999999T", "2 0G"] {
            assert!(parse_size(text).is_err_and(|why| why.contains(text)), "{text}");
        }
        assert_eq!(
            (size(900), size(3 << 29), size(70 << 20)),
            ("900 bytes".into(), "1.50 GiB".into(), "70.0 MiB".into())
        );
    }

    #[test]
    fn lines_of_the_system_are_read_in_kibibytes() {
        let text = "VmPeak:\t  100 kB\nVmHWM:\t    42 kB\nVmRSS:\tmany kB\n";
        assert_eq!(kib(text, "VmHWM:"), Some(42 * 1024));
        assert_eq!((kib(text, "VmRSS:"), kib(text, "VmSwap:")), (None, None));
    }

    #[test]
    fn the_tightest_group_of_either_version_counts() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            std::fs::write(path, text).expect("a file");
        };
        for (group, limit) in [("", 1000), ("a/", 9_223_372_036_854_771_712u64), ("a/b/", 2000)] {
            write(&format!("memory/{group}memory.limit_in_bytes"), &limit.to_string());
            write(&format!("memory/{group}memory.usage_in_bytes"), "300\n");
        }
        write("memory/memory.stat", "cache 5\ntotal_inactive_file 100\n");
        let mut free = free_in_groups(root.path(), "4:cpu,memory:/a/b");
        free.sort_unstable();
        assert_eq!(free, [800, 1700, 9_223_372_036_854_771_412]);
        assert!(free_in_groups(root.path(), "4:cpu:/a/b").is_empty());
        write("x/memory.max", "5000\n");
        write("x/memory.current", "4000\n");
        write("x/memory.stat", "anon 1\ninactive_file 500\n");
        write("memory.max", "max\n");
        assert_eq!(free_in_groups(root.path(), "0::/x"), [1500]);
        // The host's path in a container: the mount itself.
        write("memory.max", "700\n");
        write("memory.current", "0\n");
        assert_eq!(free_in_groups(root.path(), "0::/elsewhere"), [700]);
        assert!(free_in_groups(root.path(), "nonsense").is_empty());
    }
}
