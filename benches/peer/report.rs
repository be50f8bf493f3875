//! The figures, as a table for people and as raw numbers.

use crate::{Cost, Who};
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// What was measured of one program at one size.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the start to the first connection.
    pub loads: Vec<Duration>,
    /// Processor time of a start.
    pub load_cpu: Vec<Duration>,
    /// From the acknowledged change to the first connection.
    pub updates: Vec<Duration>,
    /// Processor time of one update.
    pub cpu: Duration,
    /// Resident memory in KiB, at the end and at most.
    pub memory: u64,
    pub peak: u64,
    /// What a start and what an update cost the API server.
    pub load_cost: Cost,
    pub update_cost: Cost,
}

/// A percentile of some durations, in milliseconds.
fn percentile(durations: &[Duration], percent: usize) -> f64 {
    let mut sorted = durations.to_vec();
    sorted.sort();
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(0.0, |duration| duration.as_secs_f64() * 1e3)
}

impl Measured {
    /// The columns: name, value, digits.
    fn figures(&self) -> [(&'static str, f64, usize); 11] {
        [
            ("load, ms", percentile(&self.loads, 50), 0),
            ("CPU a load, ms", percentile(&self.load_cpu, 50), 0),
            ("update p50, ms", percentile(&self.updates, 50), 1),
            ("update p99, ms", percentile(&self.updates, 99), 1),
            ("CPU an update, ms", self.cpu.as_secs_f64() * 1e3, 2),
            ("RSS, MiB", self.memory as f64 / 1024.0, 1),
            ("peak, MiB", self.peak as f64 / 1024.0, 1),
            ("server: CPU a load, ms", self.load_cost.cpu * 1e3, 0),
            ("sent a load, MiB", self.load_cost.bytes / 1024.0 / 1024.0, 1),
            ("CPU an update, ms", self.update_cost.cpu * 1e3, 2),
            ("sent an update, KiB", self.update_cost.bytes / 1024.0, 1),
        ]
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value, digits) in self.figures() {
            write!(f, "{name} {value:.digits$}; ")?;
        }
        write!(f, "{} updates", self.updates.len())
    }
}

/// All figures.
#[derive(Default)]
pub struct Report {
    rows: Vec<(usize, Who, Measured)>,
}

impl Report {
    pub fn add(&mut self, size: usize, who: Who, measured: Measured) {
        self.rows.push((size, who, measured));
    }

    fn find(&self, size: usize, who: Who) -> Option<&Measured> {
        self.rows.iter().find(|row| row.0 == size && row.1 == who).map(|row| &row.2)
    }

    /// Every single figure.
    pub fn raw(&self) -> String {
        let millis = |list: &[Duration]| -> Vec<f64> {
            list.iter().map(|one| one.as_secs_f64() * 1e3).collect()
        };
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(size, who, measured)| {
                json!({
                    "services": size, "who": format!("{who:?}"),
                    "load_ms": millis(&measured.loads), "update_ms": millis(&measured.updates),
                    "cpu_ms": measured.cpu.as_secs_f64() * 1e3,
                    "rss_kib": measured.memory, "peak_kib": measured.peak,
                })
            })
            .collect();
        serde_json::to_string_pretty(&rows).expect("JSON")
    }
}

impl fmt::Display for Report {
    /// Markdown: a row for each size and program, and the ratio where both were measured.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((_, _, first)) = self.rows.first() else { return Ok(()) };
        write!(f, "| Services x 10 | |")?;
        for (name, ..) in first.figures() {
            write!(f, " {name} |")?;
        }
        write!(f, "\n|---|---|{}", "---|".repeat(first.figures().len()))?;
        for (size, who, measured) in &self.rows {
            write!(f, "\n| {size} | {who:?} |")?;
            for (_, value, digits) in measured.figures() {
                write!(f, " {value:.digits$} |")?;
            }
            if let (Who::Upstream, Some(ours)) = (who, self.find(*size, Who::Ours)) {
                write!(f, "\n| {size} | ratio |")?;
                for ((_, theirs, _), (_, ours, _)) in measured.figures().iter().zip(ours.figures())
                {
                    write!(f, " {:.1} |", theirs / ours)?;
                }
            }
        }
        Ok(())
    }
}
