//! What the kernel knows about this process: memory, disk writes, processor time.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The number after `name` in a `/proc` file of `name: value` lines.
fn field(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Starts the measure of peak memory afresh.
pub fn reset_peak_rss() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most memory resident at once since the reset; pages of mapped files count.
pub fn peak_rss() -> u64 {
    field("/proc/self/status", "VmHWM") * 1024
}

/// Memory resident now that is not backed by a file.
pub fn anonymous_rss() -> u64 {
    field("/proc/self/status", "RssAnon") * 1024
}

#[derive(Clone, Copy)]
pub struct Usage {
    /// Bytes this process caused to be sent to storage (dirtied pages, deleted files included).
    pub disk: u64,
    /// Bytes passed to write calls, repeated writes of one page counted each time.
    pub calls: u64,
    pub cpu: f64,
}

pub fn usage() -> Usage {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    Usage { disk: field("/proc/self/io", "write_bytes"), calls: field("/proc/self/io", "wchar"), cpu }
}

/// Waits until `busy` is false and the process has, for half a second, used next to no processor
/// and written nothing. For engines that cannot be asked whether they are idle.
#[allow(dead_code, reason = "not every engine needs it")]
pub fn wait_idle(busy: impl Fn() -> bool) {
    let mut last = usage();
    let mut calm_since = Instant::now();
    while calm_since.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(50));
        let now = usage();
        if busy() || now.cpu - last.cpu > 0.010 || now.disk != last.disk {
            calm_since = Instant::now();
        }
        last = now;
    }
}

/// Bytes of data in the files under `dir`: per file the lesser of its length and what is allocated,
/// so that neither a hole nor a preallocated tail counts.
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(m) if m.is_dir() => disk_bytes(&entry.path()),
            Ok(m) => m.len().min(m.blocks() * 512),
            Err(_) => 0,
        })
        .sum()
}
