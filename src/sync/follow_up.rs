//! What follows from a commit outside the table: flows that go to endpoints which are gone, or to none,
//! health check node ports, and localhost NodePorts.

use crate::health::{BindAddresses, ServiceCheck, ServiceChecks};
use crate::kernel::addresses::{
    FamilySelection, LocalAddresses, NodePortSelection, health_port_addresses,
};
use crate::kernel::conntrack::{ConntrackCleaner, FlowFrontend, StaleCheck, StaleFlows};
use crate::localhost::LocalhostPort;
use crate::model::Protocol;
use crate::plan::{Backend, Effects, Frontend};
use ipnet::IpNet;
use nft_table::Family;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Those who are told. All of them work on their own time.
pub struct FollowUp {
    pub conntrack: ConntrackCleaner,
    pub checks: Arc<ServiceChecks>,
    pub localhost: watch::Sender<Arc<[LocalhostPort]>>,
    /// Families whose NodePorts are served on the loopback addresses.
    pub localhost_families: Vec<Family>,
}

impl FollowUp {
    /// Passes on what changed with the last commit. NodePorts answer on the addresses of these networks.
    pub fn committed(&self, effects: &mut Effects, nodeport_networks: Vec<IpNet>) {
        let stale = effects.take_stale_flows();
        if !stale.is_empty() {
            let checks = stale.into_iter().map(stale_check).collect();
            self.conntrack.check(checks, nodeport_networks);
        }
        for (service, check) in effects.take_health_checks() {
            let check = check.map(|check| ServiceCheck {
                port: check.port,
                local_endpoints: check.local_endpoints,
            });
            self.checks.set(&service, check);
        }
        if let Some(ports) = effects.changed_localhost_ports() {
            let wanted =
                ports.iter().filter(|((_, _, family), _)| self.localhost_families.contains(family));
            let ports = wanted.map(|((service, name, family), port)| LocalhostPort {
                service_port: format!("{service}:{name}").into(),
                family: *family,
                node_port: port.node_port,
                endpoints: port.endpoints.iter().map(socket_address).collect(),
                affinity: port.affinity,
            });
            self.localhost.send_replace(ports.collect());
        }
    }

    /// Where health check node ports listen from now on.
    pub fn listen_on(&self, selection: &NodePortSelection, local: &LocalAddresses) {
        for family in Family::BOTH {
            let of_family = match family {
                Family::V4 => &selection.v4,
                Family::V6 => &selection.v6,
            };
            let addresses = match of_family {
                FamilySelection::All => BindAddresses::All,
                FamilySelection::Cidrs(_) => BindAddresses::Only(
                    health_port_addresses(selection, family, local).into_iter().collect(),
                ),
            };
            self.checks.set_addresses(family, addresses);
        }
    }
}

fn stale_check((frontend, gone_or_serving): (Frontend, Vec<Backend>)) -> StaleCheck {
    let protocol = frontend.protocol();
    let endpoints = || {
        let endpoints = gone_or_serving.iter().map(|backend| (backend.address, backend.port));
        Arc::new(endpoints.collect())
    };
    let flows = match protocol {
        Protocol::Udp => StaleFlows::Elsewhere(endpoints()),
        Protocol::Tcp if !gone_or_serving.is_empty() => StaleFlows::Gone(endpoints()),
        Protocol::Tcp | Protocol::Sctp => StaleFlows::Untranslated,
    };
    let frontend = match frontend {
        Frontend::Ip { address, port, .. } => FlowFrontend::Address(address, port),
        Frontend::NodePort { family, port, .. } => FlowFrontend::NodePort(family, port),
    };
    StaleCheck { protocol: protocol.number(), frontend, flows }
}

fn socket_address(backend: &Backend) -> SocketAddr {
    (backend.address, backend.port).into()
}
