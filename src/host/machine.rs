//! Machine: how busy its processors are and how much of its memory is used, as `sysinfo` says.
//!
//! From within a container this is the whole machine, which others use, too.

use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, MemoryRefreshKind, System};
use tokio::time::Instant;

/// How the machine is. What is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    /// The share of its processors' time that was used since the last look, from 0 to 1. Waiting for a disk is not use;
    /// what other virtual machines took is.
    pub cpu_usage: Option<f64>,
    /// Memory in use, in bytes: what could not be had without swapping.
    pub memory_used: Option<u64>,
    /// Memory there is, in bytes.
    pub memory_total: Option<u64>,
}

/// Looks at the machine, again and again.
#[derive(Debug)]
pub(super) struct Watch {
    system: System,
    /// When it was looked at first; `None` once there was a second look that tells something.
    begun: Option<Instant>,
}

impl Watch {
    /// Looks for the first time: how busy something is, two looks tell.
    pub(super) fn begin() -> Self {
        let mut system = System::new();
        system.refresh_cpu_usage();
        Self { system, begun: Some(Instant::now()) }
    }

    pub(super) fn look(&mut self) -> Machine {
        // Before that, `sysinfo` looks at nothing, and has only the mean since the machine began.
        if self.begun.is_some_and(|begun| begun.elapsed() >= MINIMUM_CPU_UPDATE_INTERVAL) {
            self.begun = None;
        }
        self.system.refresh_cpu_usage();
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let total = Some(self.system.total_memory()).filter(|total| *total > 0);
        let is_busy_known = self.begun.is_none() && !self.system.cpus().is_empty();
        Machine {
            cpu_usage: is_busy_known.then(|| f64::from(self.system.global_cpu_usage()) / 100.0),
            memory_used: total.map(|total| total.saturating_sub(self.system.available_memory())),
            memory_total: total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_busy_it_is_takes_two_looks() {
        assert_eq!(Watch::begin().look().cpu_usage, None, "the first two are too close");
        let mut watch = Watch::begin();
        let usage = loop {
            if let Some(usage) = watch.look().cpu_usage {
                break usage;
            }
            std::thread::yield_now();
        };
        // This thread at least was not idle.
        assert!(usage > 0.0 && usage <= 1.0, "{usage}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_what_the_kernel_says() {
        let Machine { memory_used, memory_total, .. } = Watch::begin().look();
        let meminfo = std::fs::read_to_string("/proc/meminfo").expect("the kernel says");
        let line = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
        };
        let (total, available) = (line("MemTotal:"), line("MemAvailable:"));
        assert_eq!(memory_total, Some(total));
        let (used, other) = (memory_used.expect("known"), total - available);
        // Between the two looks, others take and give.
        assert!(used.abs_diff(other) < total / 4, "{used}, {other}");
    }
}
