//! NodePorts on the loopback address, served by the process itself.

use super::PerFamily;
use super::register::Register;
use crate::model::{Family, Protocol};
use prometheus::{Gauge, IntCounter, IntCounterVec};

pub struct LocalhostNodePorts {
    listeners: PerFamily<Gauge>,
    creation_failures: PerFamily<IntCounter>,
    rejected: IntCounterVec,
    families: Vec<Family>,
}

impl LocalhostNodePorts {
    pub(super) fn new(register: &Register) -> Self {
        LocalhostNodePorts {
            listeners: register.gauge_by_family(
                "kubeproxy_nftables_localhost_nodeport_listeners",
                "Open listeners for NodePorts on the loopback address",
            ),
            creation_failures: register.counter_by_family(
                "kubeproxy_nftables_localhost_nodeport_listener_creation_failures_total",
                "Listeners for NodePorts on the loopback address that could not be opened",
            ),
            rejected: register.counters(
                "kubeproxy_nftables_localhost_nodeport_rejected_packets_total",
                "Packets to NodePorts on the loopback address that were rejected",
                &["ip_family", "protocol"],
            ),
            families: register.families.to_vec(),
        }
    }

    pub fn set_listeners(&self, family: Family, open: usize) {
        self.listeners.of(family, |gauge| gauge.set(open as f64));
    }

    pub fn creation_failed(&self, family: Family) {
        self.creation_failures.of(family, IntCounter::inc);
    }

    /// The handle that counts rejected packets; add what the kernel's counter has grown by.
    /// `None` for a family that is not programmed.
    pub fn rejected(&self, family: Family, protocol: Protocol) -> Option<IntCounter> {
        let labels = [family.to_string(), protocol.nft().to_string()];
        self.families.contains(&family).then(|| self.rejected.with_label_values(&labels))
    }
}
