//! What the kernel has counted of Service ports: connections, where it does (`--count-connections`), and refusals of
//! clients that were over a limit.

use super::register::Register;
use prometheus::{IntCounter, IntCounterVec};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// So many Service ports have series of their own: those that had connections first. The others are one.
const PORTS: usize = 1000;

/// A Service port, by what stands in labels: namespace, name, port, protocol.
pub type PortLabels = [String; 4];

/// Counters of each Service port, one for each of N values of a label.
pub struct ServicePorts<const N: usize> {
    counters: IntCounterVec,
    values: [&'static str; N],
    ports: Mutex<Ports<N>>,
}

struct Ports<const N: usize> {
    known: HashMap<PortLabels, Known<N>>,
    /// How many have series of their own.
    listed: usize,
}

struct Known<const N: usize> {
    seen: [u64; N],
    /// None: it is among the others.
    series: Option<[IntCounter; N]>,
}

/// Connections by what becomes of them.
pub(super) fn connections(register: &Register) -> ServicePorts<3> {
    ServicePorts::new(
        register,
        "kubeproxy_service_connections_total",
        "New connections to Service ports, with --count-connections; those beyond 1000 ports have empty labels",
        "outcome",
        ["served", "refused", "dropped"],
    )
}

/// Connections that were refused, by the limit that the client was over.
pub(super) fn over_limits(register: &Register) -> ServicePorts<2> {
    ServicePorts::new(
        register,
        "kubeproxy_service_over_limit_total",
        "New connections that were refused because a client was over a limit of the Service; those beyond 1000 ports have empty labels",
        "limit",
        ["new-per-second", "open"],
    )
}

impl<const N: usize> ServicePorts<N> {
    fn new(
        register: &Register,
        name: &str,
        help: &str,
        label: &str,
        values: [&'static str; N],
    ) -> ServicePorts<N> {
        let labels = ["namespace", "service", "port", "protocol", label];
        ServicePorts {
            counters: register.counters(name, help, &labels),
            values,
            ports: Mutex::new(Ports { known: HashMap::new(), listed: 0 }),
        }
    }

    /// What the kernel has counted by now, for all ports of which it has counted anything.
    pub fn update(&self, counted: impl IntoIterator<Item = (PortLabels, [u64; N])>) {
        let counted: HashMap<PortLabels, [u64; N]> = counted.into_iter().collect();
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let Ports { known, listed } = &mut *ports;
        // First, for they make room.
        let gone = known.extract_if(|labels, _| !counted.contains_key(labels));
        for (labels, _) in gone.filter(|(_, port)| port.series.is_some()) {
            *listed -= 1;
            for value in self.values {
                let _ = self.counters.remove_label_values(&with(&labels, value));
            }
        }
        for (labels, counts) in counted {
            let port = known.entry(labels).or_insert_with_key(|labels| {
                let is_listed = *listed < PORTS;
                *listed += usize::from(is_listed);
                Known { seen: [0; N], series: is_listed.then(|| self.series(labels)) }
            });
            let others = port.series.is_none().then(|| self.series(&PortLabels::default()));
            let series = port.series.as_ref().or(others.as_ref());
            for (place, counter) in series.into_iter().flatten().enumerate() {
                // Where a frontend or a rule is gone, what it had counted is gone with it.
                counter.inc_by(counts[place].saturating_sub(port.seen[place]));
            }
            port.seen = counts;
        }
    }

    fn series(&self, labels: &PortLabels) -> [IntCounter; N] {
        self.values.map(|value| self.counters.with_label_values(&with(labels, value)))
    }
}

fn with<'a>(labels: &'a PortLabels, value: &'a str) -> [&'a str; 5] {
    let [namespace, service, port, protocol] = labels;
    [namespace, service, port, protocol, value]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn port(number: usize) -> PortLabels {
        ["shop".into(), format!("service-{number}"), "http".into(), "TCP".into()]
    }

    fn lines(metrics: &Metrics) -> Vec<String> {
        let text = metrics.render();
        let ours = text.lines().filter(|line| line.starts_with("kubeproxy_service_connections"));
        ours.map(str::to_owned).collect()
    }

    fn served(metrics: &Metrics, service: &str) -> Option<u64> {
        let label = format!("service=\"{service}\"");
        let lines = lines(metrics);
        let mut there = lines.iter().filter(|line| line.contains(&label));
        let line = there.find(|line| line.contains("outcome=\"served\""))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    #[test]
    fn a_counter_never_falls() {
        let metrics = Metrics::new(&[]);
        metrics.connections.update([(port(1), [5, 0, 0])]);
        assert_eq!(served(&metrics, "service-1"), Some(5));
        // One of its frontends is gone.
        metrics.connections.update([(port(1), [3, 0, 0])]);
        assert_eq!(served(&metrics, "service-1"), Some(5));
        metrics.connections.update([(port(1), [4, 1, 0])]);
        assert_eq!(served(&metrics, "service-1"), Some(6));
    }

    #[test]
    fn series_are_bounded_and_nothing_is_lost() {
        let metrics = Metrics::new(&[]);
        let many = 3 * PORTS;
        metrics.connections.update((0..many).map(|number| (port(number), [2, 0, 0])));
        assert_eq!(lines(&metrics).len(), 3 * (PORTS + 1));
        assert_eq!(served(&metrics, ""), Some(2 * 2 * PORTS as u64));
        // Ports that are gone make room for others.
        metrics.connections.update((many..many + 10).map(|number| (port(number), [1, 0, 0])));
        assert_eq!(lines(&metrics).len(), 3 * (10 + 1));
        assert_eq!(served(&metrics, "service-3001"), Some(1));
    }
}
