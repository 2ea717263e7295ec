//! The process itself, under the names that every Prometheus client uses. Read from `/proc/self` of this very process.

use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Float = Gauge<f64, AtomicU64>;

/// Gauges of the process.
pub(super) struct Process {
    began: Instant,
    resident: Gauge,
    peak: Gauge,
    files: Gauge,
    uptime: Float,
}

impl Process {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let process = Self {
            began: Instant::now(),
            resident: Gauge::default(),
            peak: Gauge::default(),
            files: Gauge::default(),
            uptime: Float::default(),
        };
        let start = Float::default();
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |age| age.as_secs_f64()));
        registry.register(
            "process_start_time_seconds",
            "When the agent began to count, in Unix seconds",
            start,
        );
        registry.register("process_resident_memory_bytes", "Memory in use", process.resident.clone());
        registry.register(
            "process_resident_memory_max_bytes",
            "Most memory in use so far",
            process.peak.clone(),
        );
        registry.register("process_open_fds", "Open file descriptors", process.files.clone());
        registry.register(
            "ferric_agent_uptime_seconds",
            "Seconds since the agent began to count",
            process.uptime.clone(),
        );
        process
    }

    /// Reads everything anew.
    pub(super) fn refresh(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (key, gauge) in [("VmRSS:", &self.resident), ("VmHWM:", &self.peak)] {
            if let Some(kib) = kib(&status, key) {
                gauge.set(kib.saturating_mul(1024));
            }
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
        self.uptime.set(self.began.elapsed().as_secs_f64());
    }
}

fn kib(status: &str, key: &str) -> Option<i64> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}
