//! What Prometheus's own client libraries say about every process, from proc(5).

use std::{fs, sync::atomic::AtomicU64, time::SystemTime};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

/// The metrics named `process_…`.
#[derive(Debug)]
pub struct Process {
    resident: Gauge,
    descriptors: Gauge,
    descriptors_max: Gauge,
    cpu: Counter<f64, AtomicU64>,
}

impl Process {
    /// Adds them to the registry, which should be the one without a prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let process = Self {
            resident: Gauge::default(),
            descriptors: Gauge::default(),
            descriptors_max: Gauge::default(),
            cpu: Counter::default(),
        };
        let started: Gauge<f64, AtomicU64> = Gauge::default();
        // Asked for within moments of the start.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        started.set(now.as_secs_f64());
        let registry = registry.sub_registry_with_prefix("process");
        registry.register_with_unit(
            "start_time",
            "When the process began, Unix time",
            Unit::Seconds,
            started,
        );
        let help = "Memory that is resident";
        registry.register_with_unit("resident_memory", help, Unit::Bytes, process.resident.clone());
        let help = "Time on the processor, in the program and in the kernel";
        registry.register_with_unit("cpu", help, Unit::Seconds, process.cpu.clone());
        registry.register("open_fds", "Open descriptors", process.descriptors.clone());
        registry.register("max_fds", "The most descriptors it may have", process.descriptors_max.clone());
        process
    }

    /// Reads what changes. What can't be read keeps its last value.
    pub fn refresh(&self) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        if let Some(kib) = resident.and_then(|kib| kib.parse::<i64>().ok()) {
            self.resident.set(kib * 1024);
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            // One of them is this directory.
            self.descriptors.set(i64::try_from(descriptors.count()).unwrap_or(i64::MAX) - 1);
        }
        if let Ok((soft, _)) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
            self.descriptors_max.set(i64::try_from(soft).unwrap_or(i64::MAX));
        }
        if let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF) {
            let seconds = |time: nix::sys::time::TimeVal| {
                std::time::Duration::new(
                    u64::try_from(time.tv_sec()).unwrap_or(0),
                    u32::try_from(time.tv_usec() * 1000).unwrap_or(0),
                )
            };
            let used = (seconds(usage.user_time()) + seconds(usage.system_time())).as_secs_f64();
            self.cpu.inc_by((used - self.cpu.get()).max(0.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn a_process_shows_its_memory_time_and_descriptors() {
        let mut registry = Registry::default();
        let process = Process::register(&mut registry);
        process.refresh();
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string");
        for name in [
            "process_start_time_seconds ",
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
        ] {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|value| value.parse::<f64>().ok());
            assert!(value.is_some_and(|value| value > 0.0 || name.contains("cpu")), "{name:?} in\n{text}");
        }
    }
}
