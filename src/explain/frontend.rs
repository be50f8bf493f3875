//! Whose an address and port are.

use super::Question;
use super::endpoints::MOST;
use super::report::{Claimant, Frontend, Limits};
use crate::model::ServicePort;
use crate::plan::claims::{Rank, Reason};
use crate::plan::{Frontend as PlanFrontend, Inspected, PlannedFrontend, Planner, PortPlan, Route};
use nft_table::Family;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

/// A frontend and the Service that has it.
pub struct Found<'a> {
    pub frontend: PlanFrontend,
    pub rank: &'a Rank,
    pub inspected: Inspected<'a>,
    pub port: &'a ServicePort,
    /// None: it was not planned yet.
    pub planned: Option<(&'a PortPlan, &'a PlannedFrontend)>,
}

/// The frontend that an address and port are, if any: one by address before a NodePort, unless it comes from outside and
/// has no endpoints.
pub fn find<'a>(
    planner: &'a Planner,
    is_local: &dyn Fn(IpAddr) -> bool,
    question: &Question,
) -> Option<Found<'a>> {
    let Question { address, port, protocol, .. } = *question;
    let by_address = of(planner, PlanFrontend::Ip { address, protocol, port });
    if by_address.as_ref().is_some_and(|found| !found.gives_way()) {
        return by_address;
    }
    let answers = answers_nodeports(planner, address) || is_localhost(planner, address);
    let family = Family::of(&address);
    let by_port = (answers && is_local(address))
        .then(|| of(planner, PlanFrontend::NodePort { family, protocol, port }))
        .flatten();
    by_port.or(by_address)
}

/// A frontend with its Service.
pub fn of(planner: &Planner, frontend: PlanFrontend) -> Option<Found<'_>> {
    let rank = planner.claimants(&frontend).next()?;
    let inspected = planner.inspect(&rank.service)?;
    let plan = inspected.plans.iter().find_map(|plan| Some((plan, plan.find(&frontend)?)));
    let is_port = |port: &&ServicePort| match (plan, frontend) {
        (Some((plan, _)), _) => plan.name == port.name && plan.protocol == port.protocol,
        (None, PlanFrontend::Ip { protocol, port: number, .. }) => {
            port.protocol == protocol && port.port == number
        }
        (None, PlanFrontend::NodePort { protocol, port: number, .. }) => {
            port.protocol == protocol && port.node_port == Some(number)
        }
    };
    let port = inspected.service.ports.iter().find(is_port)?;
    Some(Found { frontend, rank, inspected, port, planned: plan })
}

/// Whether NodePorts answer on an address.
pub fn answers_nodeports(planner: &Planner, address: IpAddr) -> bool {
    planner.nodeport_networks().iter().any(|network| network.contains(&address))
}

/// Whether it is a loopback address on which NodePorts are to be had by way of the proxy itself.
pub fn is_localhost(planner: &Planner, address: IpAddr) -> bool {
    address.is_loopback() && planner.settings().localhost_nodeports.contains(&Family::of(&address))
}

/// What Kubernetes calls such an address.
pub fn kind(frontend: &PlanFrontend, reason: Reason) -> &'static str {
    match (frontend, reason) {
        (PlanFrontend::NodePort { .. }, _) => "NodePort",
        (_, Reason::Allocated) => "ClusterIP",
        (_, Reason::LoadBalancer) => "LoadBalancer",
        (_, Reason::ExternalIp) => "ExternalIP",
    }
}

impl Found<'_> {
    /// Whether the traffic policy of inside the cluster counts for it.
    pub fn is_internal(&self) -> bool {
        self.frontend.address().is_some() && self.rank.reason == Reason::Allocated
    }

    /// Whether a NodePort of the same address and port has what is sent there.
    fn gives_way(&self) -> bool {
        let route = self.planned.map(|(_, planned)| planned.route);
        !self.is_internal() && self.frontend.address().is_some() && route == Some(Route::Reject)
    }

    /// Whether its traffic policy is Local.
    pub fn is_local(&self) -> bool {
        let service = self.inspected.service;
        if self.is_internal() { service.internal_local } else { service.external_local }
    }

    pub fn report(&self, planner: &Planner) -> Frontend {
        let claimant = |rank: &Rank| Claimant {
            service: rank.service.to_string(),
            kind: kind(&self.frontend, rank.reason).to_owned(),
            created: created(rank.created),
        };
        let allowed = self.planned.and_then(|(_, planned)| planned.allowed_sources.clone());
        let service = self.inspected.service;
        Frontend {
            kind: kind(&self.frontend, self.rank.reason).to_owned(),
            service: service.name.to_string(),
            port: match &*self.port.name {
                "" => self.port.port.to_string(),
                name => name.to_owned(),
            },
            others: planner.claimants(&self.frontend).skip(1).map(claimant).collect(),
            policy: match self.is_internal() {
                true => "internalTrafficPolicy",
                false => "externalTrafficPolicy",
            }
            .to_owned(),
            policy_value: if self.is_local() { "Local" } else { "Cluster" }.to_owned(),
            balancing: service.algorithm.unwrap_or(planner.settings().algorithm).name().to_owned(),
            affinity_seconds: service.affinity.map(|timeout| timeout.as_secs()),
            limits: service.limits.map(|limits| Limits {
                new_per_second: limits.new_per_second,
                burst: limits.burst,
                open: limits.open,
                refused: None,
            }),
            allowed_sources: allowed
                .map(|sources| sources.iter().map(ToString::to_string).collect()),
        }
    }

    /// What is odd about the Service.
    pub fn notes(&self, planner: &Planner, address: IpAddr) -> Vec<String> {
        let Inspected { service, slices, cut, .. } = self.inspected;
        let name = &service.name;
        let mut notes = Vec::new();
        if let PlanFrontend::NodePort { protocol, port, .. } = self.frontend
            && let Some(other) = of(planner, PlanFrontend::Ip { address, protocol, port })
        {
            notes.push(format!(
                "The address is also one of Service {} ({}), which has no endpoint: so the NodePort has it.",
                other.rank.service,
                kind(&other.frontend, other.rank.reason)
            ));
        }
        if self.inspected.is_held() {
            notes.push(format!(
                "The kernel refused what Service {name} is to become: it stays as it was, and is tried again. The log \
                 says why."
            ));
        }
        if self.inspected.is_pending() || self.planned.is_none() {
            notes.push(format!(
                "Service {name} has just changed; the change is not in the kernel yet."
            ));
        }
        if let Some(most) = cut {
            notes.push(format!(
                "Service {name} has so many frontends that each of them gets {most} of its endpoints only."
            ));
        }
        let endpoints: usize = slices.iter().map(|slice| slice.endpoints.len()).sum();
        if endpoints > MOST {
            notes.push(format!(
                "It has {endpoints} endpoints, of which the first {MOST} of each port are looked at here."
            ));
        }
        let family = self.frontend.family();
        let of_family = || slices.iter().filter(|slice| slice.family == family);
        let port = &*self.port.name;
        if slices.is_empty() {
            notes.push(format!(
                "There is no EndpointSlice with the label kubernetes.io/service-name={} in namespace {}: no pod \
                 matches the Service's selector, or it has none.",
                name.name, name.namespace
            ));
        } else if of_family().next().is_none() {
            notes.push(format!(
                "None of the Service's EndpointSlices is of {family}: see ipFamilies."
            ));
        } else if of_family().all(|slice| slice.port(port, self.port.protocol).is_none()) {
            notes.push(format!(
                "No EndpointSlice has a port called {port:?} with protocol {}: does targetPort name a port of the \
                 pods?",
                self.port.protocol
            ));
        }
        if planner.here().zone.is_none() && self.has_zone_hints() {
            notes.push(
                "Endpoints have zone hints, but this Node has no label topology.kubernetes.io/zone: hints do not count."
                    .to_owned(),
            );
        }
        notes
    }

    fn has_zone_hints(&self) -> bool {
        let mut endpoints = self.inspected.slices.iter().flat_map(|slice| &slice.endpoints);
        endpoints.any(|endpoint| !endpoint.zone_hints().is_empty())
    }
}

/// `metadata.creationTimestamp` of a rank; a Service without one is younger than all others.
fn created(seconds: i64) -> Option<String> {
    let seconds = u64::try_from(seconds).ok().filter(|_| seconds < i64::MAX)?;
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}

/// Why an address and port are no Service's.
pub fn nobody(
    planner: &Planner,
    is_local: &dyn Fn(IpAddr) -> bool,
    question: &Question,
) -> Vec<String> {
    let Question { address, port, protocol, .. } = *question;
    let mut notes = Vec::new();
    let family = Family::of(&address);
    let as_node_port = PlanFrontend::NodePort { family, protocol, port };
    if planner.is_cluster_ip(address) {
        let owners =
            planner.inspect_all().filter(|there| there.service.cluster_ips.contains(&address));
        for owner in owners {
            let ports: Vec<String> = owner
                .service
                .ports
                .iter()
                .map(|port| format!("{}/{}", port.port, port.protocol))
                .collect();
            notes.push(format!(
                "{address} is a ClusterIP of Service {}, which has no port {port}/{protocol}; it has {}.",
                owner.service.name,
                ports.join(", ")
            ));
        }
    } else if planner.is_in_service_cidrs(address) {
        notes.push(format!(
            "{address} is in a range of ClusterIPs (ServiceCIDR), but no Service that this node knows has it."
        ));
    } else if let Some(rank) = planner.claimants(&as_node_port).next() {
        notes.push(if is_local(address) {
            format!(
                "{port} is a NodePort of Service {}, but NodePorts do not answer on {address}: see nodePortAddresses.",
                rank.service
            )
        } else {
            format!(
                "{port} is a NodePort of Service {}, but {address} is not an address of this node.",
                rank.service
            )
        });
    } else {
        notes.push(format!(
            "No Service that this node knows has {address} with port {port}/{protocol}."
        ));
    }
    notes
}
