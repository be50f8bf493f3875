//! What the sources delivered, and what was wrong with it.

use super::register::Register;
use prometheus::{IntCounter, IntGauge, IntGaugeVec};

/// A kind of object that a source reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Service,
    EndpointSlice,
    Node,
    ServiceCidr,
}

pub struct Objects {
    /// Services that the proxy serves.
    pub services: IntGauge,
    /// Those of them that limit clients.
    pub limited_services: IntGauge,
    /// Endpoints of all EndpointSlices, whatever their conditions.
    pub endpoints: IntGauge,
    /// Addresses with a port that more than one Service claims; the oldest has it.
    pub duplicate_frontends: IntGauge,
    problems: [IntCounter; 4],
    health_check_ports: IntGaugeVec,
}

impl Objects {
    pub(super) fn new(register: &Register) -> Self {
        let problems = register.counters(
            "kubeproxy_object_problems_total",
            "Objects, or parts of them, that were left out because they are invalid",
            &["kind"],
        );
        let problems = ["Service", "EndpointSlice", "Node", "ServiceCIDR"]
            .map(|kind| problems.with_label_values(&[kind]));
        Objects {
            services: register.gauge("kubeproxy_services", "Services that the proxy serves"),
            limited_services: register.gauge(
                "kubeproxy_limited_services",
                "Services that the proxy serves and that limit the connections of a client",
            ),
            endpoints: register.gauge("kubeproxy_endpoints", "Endpoints of all EndpointSlices"),
            duplicate_frontends: register.gauge(
                "kubeproxy_duplicate_frontends",
                "Addresses with a port that more than one Service claims",
            ),
            problems,
            health_check_ports: register.gauges(
                "kubeproxy_health_check_node_ports",
                "Health check node ports of Services, by state of their listeners",
                &["state"],
            ),
        }
    }

    /// An object, or a part of it, was left out.
    pub fn problem(&self, kind: Kind) {
        self.problems[kind as usize].inc();
    }

    /// Health check node ports that listen, and those that could not be opened.
    pub fn set_health_check_ports(&self, listening: usize, failed: usize) {
        for (state, count) in [("listening", listening), ("failed", failed)] {
            self.health_check_ports.with_label_values(&[state]).set(count as i64);
        }
    }
}
