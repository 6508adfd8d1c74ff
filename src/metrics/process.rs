//! What the kernel says of this process, read from `/proc` when somebody asks.

use std::fs;

/// A reading; what could not be read is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// User and system CPU time, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Limit on open file descriptors.
    pub max_fds: Option<u64>,
    /// Start, in seconds since the Unix epoch.
    pub start_seconds: Option<f64>,
}

/// `USER_HZ`: Linux shows times in hundredths of a second on every platform that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    /// Reads `/proc`.
    #[must_use]
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = boot_seconds();
        Self {
            cpu_seconds: field(&stat, 14)
                .zip(field(&stat, 15))
                .map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            resident_bytes: resident_bytes(),
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
            max_fds: max_fds(),
            start_seconds: field(&stat, 22).zip(boot).map(|(ticks, boot)| boot + ticks / TICKS_PER_SECOND),
        }
    }
}

/// Resident memory, in bytes.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    status_kib("VmRSS:").map(|kib| kib * 1024)
}

/// Field number `number` of `/proc/self/stat`, counted from 1 as in proc(5). The name in field 2 may hold spaces.
fn field(stat: &str, number: usize) -> Option<f64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(number - 3)?.parse().ok()
}

fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn status_kib(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_do_not_shift_the_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1234 0 0";
        assert_eq!((field(stat, 14), field(stat, 15), field(stat, 22)), (Some(250.0), Some(50.0), Some(1234.0)));
        assert_eq!(field("", 14), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(process.open_fds.is_some_and(|count| count >= 3));
        assert!(process.start_seconds.is_some_and(|start| start > 1.7e9));
    }
}
