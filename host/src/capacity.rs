//! How much memory this process can still get, so that a size that cannot fit is refused, with the numbers, before anything is
//! allocated. A failed allocation would end the process without an explanation.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// Refuses about `bytes` of memory if fewer are available: "about X of memory are needed, and Y are available".
///
/// # Errors
/// The second half of a sentence; the caller puts what needs the memory before it.
pub fn check(bytes: u64) -> Result<(), String> {
    match available() {
        Some(available) if bytes > available => {
            Err(format!("about {} of memory are needed, and {} are available", shown(bytes), shown(available)))
        }
        _ => Ok(()),
    }
}

/// Bytes that this process can still get: the minimum of what the system, the control group and the limit of the address space
/// (`ulimit -v`) leave. `None` if none of them reports a number.
pub fn available() -> Option<u64> {
    let system = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_system(&text));
    let swap = system.map_or(0, |(_, swap)| swap);
    let system = system.map(|(memory, swap)| memory.saturating_add(swap));
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| of_control_groups(&text, swap));
    [system, group, of_address_space()].into_iter().flatten().min()
}

/// Available memory and free swap, from the text of `/proc/meminfo`.
fn of_system(text: &str) -> Option<(u64, u64)> {
    let kib = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some((kib("MemAvailable:")?.saturating_mul(1024), kib("SwapFree:").unwrap_or(0).saturating_mul(1024)))
}

/// From the text of `/proc/self/cgroup`: the minimum of what the process's group and its parent groups leave; `swap` is the
/// system's free swap.
fn of_control_groups(text: &str, swap: u64) -> Option<u64> {
    // Version 2, and the controller `memory` of version 1, which may have its own mount.
    let groups = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        match rest.split_once(':')? {
            ("", own) => Some(("/sys/fs/cgroup", own, "memory.max", "memory.current", "")),
            ("memory", own) => {
                Some(("/sys/fs/cgroup/memory", own, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"))
            }
            _ => None,
        }
    });
    let left = groups.flat_map(|(root, own, most, used, prefix)| {
        Path::new(own.trim_start_matches('/')).ancestors().map(|group| Path::new(root).join(group)).filter_map(
            move |folder| {
                let text = |file: &str| fs::read_to_string(folder.join(file)).ok();
                let number = |file: &str| text(file)?.trim().parse::<u64>().ok();
                let held = number(used)?.saturating_sub(reclaimable(&text("memory.stat").unwrap_or_default(), prefix));
                let left = number(most)?.saturating_sub(held);
                // Only version 2 has this file; without it, the group has no swap.
                let swap_left = text("memory.swap.max").map_or(0, |most| {
                    let used = number("memory.swap.current").unwrap_or(0);
                    most.trim().parse::<u64>().map_or(swap, |most| most.saturating_sub(used).min(swap))
                });
                Some(left.saturating_add(swap_left))
            },
        )
    });
    left.min()
}

/// Memory that a group frees when memory is short, from its `memory.stat`: pages of files, and the kernel's caches.
fn reclaimable(stat: &str, prefix: &str) -> u64 {
    let numbers = stat.lines().filter_map(|line| {
        let (name, number) = line.strip_prefix(prefix)?.split_once(' ')?;
        ["active_file", "inactive_file", "slab_reclaimable"]
            .contains(&name)
            .then(|| number.trim().parse::<u64>().ok())?
    });
    numbers.fold(0, u64::saturating_add)
}

fn of_address_space() -> Option<u64> {
    let limit = getrlimit(Resource::As).current?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let kib = line.split_whitespace().next()?.parse::<u64>().ok()?;
    Some(limit.saturating_sub(kib.saturating_mul(1024)))
}

/// A number of bytes as text for the user.
pub(crate) fn shown(bytes: u64) -> String {
    let gib = bytes as f64 / f64::from(1 << 30);
    if gib < 0.1 {
        return format!("{:.1} MiB", gib * 1024.0);
    }
    if gib < 1024.0 { format!("{gib:.1} GiB") } else { format!("{:.1} TiB", gib / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches kibibytes that are read as bytes, swap that is not counted, and free memory that is read instead of available
    /// memory.
    #[test]
    fn the_systems_memory_is_read() {
        let text = "MemTotal:  100 kB\nMemFree:  1 kB\nMemAvailable:   30 kB\nSwapFree:    4 kB\n";
        assert_eq!(of_system(text), Some((30 * 1024, 4 * 1024)));
        assert_eq!(of_system("MemTotal: 100 kB"), None);
    }

    /// Catches the kernel's caches counted as used memory, and a field of another name or of the group alone.
    #[test]
    fn reclaimable_memory_of_a_group_is_counted() {
        let two = "anon 1\nactive_file 20\ninactive_file 300\nslab_reclaimable 4000\nslab_unreclaimable 50000\n";
        assert_eq!(reclaimable(two, ""), 4320);
        assert_eq!(reclaimable("active_file 1\ntotal_active_file 20\ntotal_inactive_file 300\n", "total_"), 320);
    }

    /// Catches small sizes that are shown as 0.
    #[test]
    fn sizes_are_shown_in_their_unit() {
        assert_eq!(shown(3 << 20), "3.0 MiB");
        assert_eq!(shown(3 << 30), "3.0 GiB");
        assert_eq!(shown(3 << 40), "3.0 TiB");
    }

    /// Catches a size that wraps, one that is accepted although it cannot fit, and an error without the numbers.
    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "needs a system that reports its memory")]
    fn what_cannot_fit_is_refused_with_both_numbers() {
        assert_eq!(check(0), Ok(()));
        let available = available().expect("Linux reports its memory");
        let why = check(u64::MAX).unwrap_err();
        assert!(why.starts_with("about 16777216.0 TiB of memory are needed, and "), "{why}");
        assert!(available > 0 && why.ends_with("B are available"), "{why}");
    }
}
