//! `process_*`: CPU time, memory and file descriptors of this process, read at each scrape.
//!
//! The collector that comes with the `prometheus` crate counts CPU time in whole seconds, which is
//! too coarse for a process that uses a few milliseconds a minute.

use super::register::Register;
use procfs::process::{LimitValue, Process};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

pub fn register(register: &Register<'_>) {
    register.put(ProcessCollector::new());
}

struct ProcessCollector {
    cpu_seconds: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
    virtual_memory: Gauge,
    virtual_memory_max: Gauge,
    resident_memory: Gauge,
    start_time: Gauge,
}

impl ProcessCollector {
    fn new() -> Self {
        let gauge = |name, help| Gauge::new(name, help).expect("a gauge's name is valid");
        ProcessCollector {
            cpu_seconds: Counter::new(
                "process_cpu_seconds_total",
                "CPU time of this process, user and system, in seconds",
            )
            .expect("a counter's name is valid"),
            open_fds: gauge("process_open_fds", "Open file descriptors"),
            max_fds: gauge("process_max_fds", "Limit of open file descriptors"),
            virtual_memory: gauge("process_virtual_memory_bytes", "Size of virtual memory"),
            virtual_memory_max: gauge(
                "process_virtual_memory_max_bytes",
                "Limit of virtual memory, -1 for none",
            ),
            resident_memory: gauge("process_resident_memory_bytes", "Size of resident memory"),
            start_time: gauge(
                "process_start_time_seconds",
                "When the process started, in seconds since 1970",
            ),
        }
    }

    fn collectors(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu_seconds,
            &self.open_fds,
            &self.max_fds,
            &self.virtual_memory,
            &self.virtual_memory_max,
            &self.resident_memory,
            &self.start_time,
        ]
    }

    /// Reads `/proc/self`; a value that cannot be read stays as it was.
    fn refresh(&self) -> procfs::ProcResult<()> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        let cpu = (stat.utime + stat.stime) as f64 / ticks;
        self.cpu_seconds.inc_by((cpu - self.cpu_seconds.get()).max(0.0));
        self.virtual_memory.set(stat.vsize as f64);
        self.resident_memory.set((stat.rss * procfs::page_size()) as f64);
        let boot = procfs::boot_time_secs()? as f64;
        self.start_time.set(boot + stat.starttime as f64 / ticks);
        let limits = process.limits()?;
        self.max_fds.set(limit(limits.max_open_files.soft_limit));
        self.virtual_memory_max.set(limit(limits.max_address_space.soft_limit));
        self.open_fds.set(process.fd_count()? as f64);
        Ok(())
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Err(error) = self.refresh() {
            tracing::debug!(%error, "cannot read /proc/self for metrics");
        }
        self.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}

fn limit(value: LimitValue) -> f64 {
    match value {
        LimitValue::Value(value) => value as f64,
        LimitValue::Unlimited => -1.0,
    }
}
