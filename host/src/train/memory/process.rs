//! The memory of this process, as the system reports it.

/// The memory of this process as the system reports it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Current bytes.
    pub now: u64,
    /// Peak bytes since the process began.
    pub peak: u64,
}

/// Returns the memory of this process; `None` if the system does not report it.
pub fn process_memory() -> Option<ProcessMemory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    Some(ProcessMemory { now: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}
