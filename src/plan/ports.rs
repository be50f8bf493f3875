//! What becomes of every frontend of a Service port.

use super::layout::Bank;
use super::select::{Backend, Selection, Wanted};
use crate::model::{Protocol, Service, ServicePort};
use ipnet::IpNet;
use nft_table::Family;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a client connects to. Each belongs to one Service port at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Frontend {
    /// A ClusterIP, external IP or load balancer VIP.
    Ip { address: IpAddr, protocol: Protocol, port: u16 },
    /// A port on the NodePort addresses of a family.
    NodePort { family: Family, protocol: Protocol, port: u16 },
}

impl Frontend {
    pub fn family(&self) -> Family {
        match self {
            Frontend::Ip { address, .. } => Family::of(address),
            Frontend::NodePort { family, .. } => *family,
        }
    }

    /// The address, of one that has one of its own.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Frontend::Ip { address, .. } => Some(*address),
            Frontend::NodePort { .. } => None,
        }
    }

    pub fn protocol(&self) -> Protocol {
        match self {
            Frontend::Ip { protocol, .. } | Frontend::NodePort { protocol, .. } => *protocol,
        }
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Frontend::Ip { address: IpAddr::V6(address), protocol, port } => {
                write!(f, "[{address}]:{port}/{protocol}")
            }
            Frontend::Ip { address, protocol, port } => write!(f, "{address}:{port}/{protocol}"),
            Frontend::NodePort { family, protocol, port } => {
                write!(f, "{family} NodePort {port}/{protocol}")
            }
        }
    }
}

/// Where a frontend leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the cluster list.
    Cluster,
    /// To the local list (internal policy Local).
    Local,
    /// Pods and the node itself to the cluster list, others to the local list (external policy
    /// Local), or nowhere when that is empty.
    ExternalLocal,
    /// There is no usable endpoint anywhere.
    Reject,
    /// Internal policy Local, and the endpoints are on other nodes.
    Drop,
}

/// Which of a frontend's flows get the node's address as their source. Flows to ClusterIPs are
/// decided by where they come from, for all Services alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masquerade {
    BySource,
    Always,
    /// What comes from the node itself.
    FromNode,
}

/// A frontend with what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFrontend {
    pub frontend: Frontend,
    pub route: Route,
    pub masquerade: Masquerade,
    /// loadBalancerSourceRanges of this family, aggregated; None: everybody may connect.
    pub allowed_sources: Option<Box<[IpNet]>>,
}

/// A Service port in one family: its frontends, and its backends by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub family: Family,
    /// Where its slots are; it stays for as long as the port has frontends.
    pub bank: Bank,
    pub frontends: Vec<PlannedFrontend>,
    /// Slots of the cluster list.
    pub cluster: Vec<Backend>,
    /// Slots of the local list.
    pub local: Vec<Backend>,
    /// Addresses of endpoints that may be on this node, sorted.
    pub hairpin: Vec<IpAddr>,
    /// Session affinity by client address, with its timeout.
    pub affinity: Option<Duration>,
    /// For UDP: all endpoints that serve. Flows to others are stale.
    pub serving: Vec<Backend>,
}

/// Which lists of endpoints the ports of a Service need.
pub fn wanted(service: &Service) -> Wanted {
    let external = service.externally_accessible();
    Wanted {
        cluster: !service.internal_local || external,
        local: service.internal_local || (service.external_local && external),
    }
}

/// All that clients can connect to for a Service port in a family; none when the Service has no
/// ClusterIP of that family.
pub fn frontends(service: &Service, port: &ServicePort, family: Family) -> Vec<Frontend> {
    let Some(cluster_ip) = service.cluster_ip(family) else { return Vec::new() };
    let external = service.load_balancer_ips.iter().chain(&service.external_ips).copied();
    let addresses = [cluster_ip].into_iter().chain(external.filter(|ip| Family::of(ip) == family));
    let (protocol, number) = (port.protocol, port.port);
    let mut frontends: Vec<Frontend> =
        addresses.map(|address| Frontend::Ip { address, protocol, port: number }).collect();
    frontends.extend(port.node_port.map(|port| Frontend::NodePort { family, protocol, port }));
    let mut seen = Vec::new();
    frontends.retain(|frontend| {
        let new = !seen.contains(frontend);
        seen.push(*frontend);
        new
    });
    frontends
}

/// What becomes of a frontend of `service`, given its endpoints.
pub fn plan_frontend(
    service: &Service,
    frontend: Frontend,
    selection: &Selection,
    node_ip: Option<IpAddr>,
) -> PlannedFrontend {
    let cluster_ip = service.cluster_ip(frontend.family());
    let address = match frontend {
        Frontend::Ip { address, .. } => Some(address),
        Frontend::NodePort { .. } => None,
    };
    let internal = address.is_some() && address == cluster_ip;
    let route = if internal {
        internal_route(service, selection)
    } else {
        external_route(service, selection)
    };
    let masquerade = match (internal, service.external_local) {
        (true, _) => Masquerade::BySource,
        (false, false) => Masquerade::Always,
        (false, true) => Masquerade::FromNode,
    };
    let restricted = address.filter(|ip| !internal && service.load_balancer_ips.contains(ip));
    PlannedFrontend {
        frontend,
        route,
        masquerade,
        allowed_sources: restricted.and_then(|vip| allowed_sources(service, vip, node_ip)),
    }
}

fn internal_route(service: &Service, selection: &Selection) -> Route {
    match (service.internal_local, selection.anywhere) {
        (_, false) => Route::Reject,
        (false, true) if selection.cluster.is_empty() => Route::Reject,
        (false, true) => Route::Cluster,
        (true, true) if selection.local.is_empty() => Route::Drop,
        (true, true) => Route::Local,
    }
}

fn external_route(service: &Service, selection: &Selection) -> Route {
    match (service.external_local, selection.anywhere) {
        (_, false) => Route::Reject,
        (false, true) if selection.cluster.is_empty() => Route::Reject,
        (false, true) => Route::Cluster,
        (true, true) => Route::ExternalLocal,
    }
}

/// The sources that may connect to a load balancer VIP. A /0 lets everybody in, as do ranges that are
/// all of the other family. A node that is in a range itself may also use the VIP as its source: that
/// is how it talks to a VIP that is bound on it.
fn allowed_sources(
    service: &Service,
    vip: IpAddr,
    node_ip: Option<IpAddr>,
) -> Option<Box<[IpNet]>> {
    let family = Family::of(&vip);
    let ranges: Vec<IpNet> = service
        .source_ranges
        .iter()
        .filter(|range| Family::of(&range.addr()) == family)
        .map(IpNet::trunc)
        .collect();
    if ranges.is_empty() || ranges.iter().any(|range| range.prefix_len() == 0) {
        return None;
    }
    let mut allowed = ranges;
    if node_ip.is_some_and(|ip| allowed.iter().any(|range| range.contains(&ip))) {
        let own = service.load_balancer_ips.iter().filter(|ip| Family::of(ip) == family);
        allowed.extend(own.map(|ip| IpNet::from(*ip)));
    }
    // The kernel refuses overlapping ranges.
    Some(IpNet::aggregate(&allowed).into())
}
