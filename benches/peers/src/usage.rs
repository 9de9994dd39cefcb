//! The resources that a process has used, from the kernel's counters.

use serde::{Deserialize, Serialize};

use crate::device;

/// The resources used since the process started, or between two such values.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    pub user_seconds: f64,
    pub system_seconds: f64,
    /// Voluntary and involuntary.
    pub context_switches: u64,
    /// Bytes that reached the device, by all processes. If the device is unknown, the bytes of the
    /// pages that this process made dirty: `write_bytes` of `/proc/self/io`.
    pub disk_bytes: u64,
    /// True if `disk_bytes` is the device's counter.
    pub is_device_known: bool,
    /// Bytes passed to write calls: `wchar` of `/proc/self/io`.
    pub written_bytes: u64,
    pub write_calls: u64,
}

impl Usage {
    pub fn now() -> Self {
        // SAFETY: `rusage` is plain numbers, and `getrusage` fills it.
        let used = unsafe {
            let mut used: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut used);
            used
        };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        let device_bytes = device::written_bytes();
        Usage {
            user_seconds: seconds(used.ru_utime),
            system_seconds: seconds(used.ru_stime),
            context_switches: (used.ru_nvcsw + used.ru_nivcsw) as u64,
            disk_bytes: device_bytes.unwrap_or_else(|| field(&io, "write_bytes:")),
            is_device_known: device_bytes.is_some(),
            written_bytes: field(&io, "wchar:"),
            write_calls: field(&io, "syscw:"),
        }
    }

    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            user_seconds: self.user_seconds - earlier.user_seconds,
            system_seconds: self.system_seconds - earlier.system_seconds,
            context_switches: self.context_switches - earlier.context_switches,
            disk_bytes: self.disk_bytes.saturating_sub(earlier.disk_bytes),
            is_device_known: self.is_device_known && earlier.is_device_known,
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            write_calls: self.write_calls.saturating_sub(earlier.write_calls),
        }
    }

    /// Returns the sum of the usage of two times. The device is known if the later one knows it.
    pub fn plus(&self, later: &Usage) -> Usage {
        Usage {
            user_seconds: self.user_seconds + later.user_seconds,
            system_seconds: self.system_seconds + later.system_seconds,
            context_switches: self.context_switches + later.context_switches,
            disk_bytes: self.disk_bytes + later.disk_bytes,
            is_device_known: later.is_device_known,
            written_bytes: self.written_bytes + later.written_bytes,
            write_calls: self.write_calls + later.write_calls,
        }
    }

    pub fn cpu_seconds(&self) -> f64 {
        self.user_seconds + self.system_seconds
    }
}

/// Returns the peak resident memory of this process, in KiB.
pub fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&status, "VmHWM:")
}

/// Returns the resident memory, in KiB. At the start it is mostly the contenders' code.
pub fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&status, "VmRSS:")
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}
