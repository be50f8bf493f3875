//! What becomes of every frontend of a Service port.

use super::claims::Reason;
use super::layout::Bank;
use super::select::{Backend, Selection, Wanted};
use crate::model::{Algorithm, Limits, Protocol, Service, ServicePort};
use ipnet::IpNet;
use nft_table::Family;
use std::cmp::Ordering;
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

    /// The port of the address, or the NodePort.
    pub fn port(&self) -> u16 {
        match self {
            Frontend::Ip { port, .. } | Frontend::NodePort { port, .. } => *port,
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
    pub allowed_sources: Option<Arc<[IpNet]>>,
}

/// A Service port in one family: its frontends, and its backends by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub family: Family,
    /// Where its slots are; it stays for as long as the port has frontends.
    pub bank: Bank,
    /// Sorted.
    pub frontends: Vec<PlannedFrontend>,
    /// How a slot is chosen.
    pub algorithm: Algorithm,
    /// Slots of the cluster list: each endpoint once, or the entries of a table for hashed flows.
    pub cluster: Vec<Backend>,
    /// Slots of the local list.
    pub local: Vec<Backend>,
    /// Of tables for hashed flows, cluster list and local list: entries that were others before endpoints began to
    /// terminate, by number.
    /// Packets in the midst of a TCP connection look there first, for another node may have known it.
    pub draining: [Vec<(u32, Backend)>; 2],
    /// Addresses of endpoints that may be on this node, sorted.
    pub hairpin: Vec<IpAddr>,
    /// Session affinity by client address, with its timeout.
    pub affinity: Option<Duration>,
    /// How many connections a client may have.
    pub limits: Option<Limits>,
    /// The endpoints to which flows may go on, sorted; those to others are stale. For UDP all that serve; for TCP, where
    /// connections to endpoints that are gone are to be reset, all that there are. Empty where flows are left alone.
    pub flows_stay: Vec<Backend>,
    /// TCP connections to endpoints that are gone are to be reset.
    pub reset_gone: bool,
}

impl PortPlan {
    /// What ports of a Service are told apart by; plans of a Service are sorted by it.
    pub fn key(&self) -> (Family, Protocol, &str) {
        (self.family, self.protocol, &self.name)
    }

    /// What it has for a frontend.
    pub fn find(&self, frontend: &Frontend) -> Option<&PlannedFrontend> {
        let place = self.frontends.binary_search_by_key(frontend, |planned| planned.frontend);
        place.ok().map(|place| &self.frontends[place])
    }

    /// The plan of the same port among those of a Service.
    pub fn find_same<'a>(&self, plans: &'a [PortPlan]) -> Option<&'a PortPlan> {
        find_port(plans, self.key())
    }
}

/// The ports of two plans of a Service, each with the same one of the other plan where there is one.
pub fn pairs<'o, 'n>(
    old: &'o [PortPlan],
    new: &'n [PortPlan],
) -> impl Iterator<Item = (Option<&'o PortPlan>, Option<&'n PortPlan>)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (Some(one), Some(other)) => one.key().cmp(&other.key()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let one = if order.is_le() { old.next() } else { None };
        let other = if order.is_ge() { new.next() } else { None };
        Some((one, other))
    })
}

/// The plan of a port among those of a Service.
pub fn find_port<'a>(plans: &'a [PortPlan], key: (Family, Protocol, &str)) -> Option<&'a PortPlan> {
    plans.binary_search_by(|plan| plan.key().cmp(&key)).ok().map(|place| &plans[place])
}

/// Which lists of endpoints the ports of a Service need.
pub fn wanted(service: &Service) -> Wanted {
    let external = service.externally_accessible();
    Wanted {
        cluster: !service.internal_local || external,
        local: service.internal_local || (service.external_local && external),
    }
}

/// All that clients can connect to for a Service port in a family, sorted, each with the reason; none when the Service
/// has no ClusterIP of that family.
pub fn frontends(service: &Service, port: &ServicePort, family: Family) -> Vec<(Frontend, Reason)> {
    let Some(cluster_ip) = service.cluster_ip(family) else { return Vec::new() };
    let because = |reason| move |ip: &IpAddr| (*ip, reason);
    let load_balancer = service.load_balancer_ips.iter().map(because(Reason::LoadBalancer));
    let external = service.external_ips.iter().map(because(Reason::ExternalIp));
    let addresses = [(cluster_ip, Reason::Allocated)].into_iter().chain(load_balancer);
    let addresses = addresses.chain(external).filter(|(ip, _)| Family::of(ip) == family);
    let (protocol, number) = (port.protocol, port.port);
    let by_address = |(address, reason)| (Frontend::Ip { address, protocol, port: number }, reason);
    let mut frontends: Vec<(Frontend, Reason)> = addresses.map(by_address).collect();
    let node_port = port.node_port.map(|port| Frontend::NodePort { family, protocol, port });
    frontends.extend(node_port.map(|frontend| (frontend, Reason::Allocated)));
    // Of several reasons for an address the strongest counts.
    frontends.sort_unstable();
    frontends.dedup_by_key(|(frontend, _)| *frontend);
    frontends
}

/// The same, in both families.
pub fn wanted_frontends(service: &Service, port: &ServicePort) -> Vec<(Frontend, Reason)> {
    Family::BOTH.into_iter().flat_map(|family| frontends(service, port, family)).collect()
}

/// What becomes of a frontend of `service`, given its endpoints and who may connect to load balancer addresses.
pub fn plan_frontend(
    service: &Service,
    (frontend, reason): (Frontend, Reason),
    selection: &Selection,
    allowed_sources: &Option<Arc<[IpNet]>>,
) -> PlannedFrontend {
    let internal = frontend.address().is_some() && reason == Reason::Allocated;
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
    let is_restricted = reason == Reason::LoadBalancer;
    PlannedFrontend {
        frontend,
        route,
        masquerade,
        allowed_sources: allowed_sources.clone().filter(|_| is_restricted),
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

/// The sources that may connect to load balancer addresses of a family, sorted; None: everybody. A /0 lets everybody
/// in, as do ranges that are all of the other family; but where some of this family could not be read, nobody gets in
/// for lack of others. A node that is in a range itself may also use the addresses as its source: that is how it talks
/// to one that is bound on it.
pub fn allowed_sources(
    service: &Service,
    family: Family,
    node_ip: Option<IpAddr>,
) -> Option<Arc<[IpNet]>> {
    let ranges: Vec<IpNet> = service
        .source_ranges
        .iter()
        .filter(|range| Family::of(&range.addr()) == family)
        .map(IpNet::trunc)
        .collect();
    let is_open = ranges.is_empty() && !service.unreadable_ranges.contains(&family);
    if is_open || ranges.iter().any(|range| range.prefix_len() == 0) {
        return None;
    }
    let mut allowed = ranges;
    if node_ip.is_some_and(|ip| allowed.iter().any(|range| range.contains(&ip))) {
        let own = service.load_balancer_ips.iter().filter(|ip| Family::of(ip) == family);
        allowed.extend(own.map(|ip| IpNet::from(*ip)));
    }
    // The kernel refuses overlapping ranges.
    let mut allowed = IpNet::aggregate(&allowed);
    allowed.sort_unstable();
    Some(allowed.into())
}
