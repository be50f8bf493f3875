//! All Services, in short.

use super::connections::Connections;
use super::frontend::kind;
use crate::model::{ObjectName, ServiceType};
use crate::plan::{Inspected, Planner, Route, wanted_frontends};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// Which Services are asked for. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filter {
    pub namespace: Option<String>,
    /// A part of `namespace/name`, of an address, or of a port.
    pub search: Option<String>,
    /// Only those with a problem.
    pub problems: bool,
    /// So many are left out.
    pub offset: usize,
    /// At most so many; None: as many as there are, or as whoever answers gives at a time.
    pub limit: Option<usize>,
}

/// The Services that a filter lets through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Services {
    pub node: String,
    /// How many Services there are.
    pub total: usize,
    /// How many of them the filter lets through, before offset and limit.
    pub matched: usize,
    /// Sorted by namespace and name.
    pub services: Vec<Summary>,
}

/// A Service in short.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    pub namespace: String,
    pub name: String,
    /// `spec.type`.
    #[serde(rename = "type")]
    pub service_type: String,
    pub frontends: Vec<Frontend>,
    /// Endpoints that some client gets from this node, over all ports.
    pub endpoints_in_use: usize,
    /// Endpoints in its slices.
    pub endpoints: usize,
    /// `Local` or `Cluster`.
    pub internal_traffic_policy: String,
    /// None: nothing outside the cluster reaches it.
    pub external_traffic_policy: Option<String>,
    /// Timeout of session affinity by client address.
    pub affinity_seconds: Option<u64>,
    /// New connections to all its ports, where they are counted.
    pub connections: Option<u64>,
    /// Attempts while no endpoint was to be had, where they are counted.
    pub refused: Option<u64>,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

/// What clients connect to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Frontend {
    /// `ClusterIP`, `LoadBalancer`, `ExternalIP` or `NodePort`.
    pub kind: String,
    /// None: the node's addresses.
    pub address: Option<IpAddr>,
    pub port: u16,
    pub protocol: String,
}

/// Lists Services.
pub fn services(planner: &Planner, filter: &Filter) -> Services {
    let mut matching: Vec<Inspected<'_>> =
        planner.inspect_all().filter(|there| matches(planner, there, filter)).collect();
    let matched = matching.len();
    let by_name = |a: &Inspected<'_>, b: &Inspected<'_>| a.service.name.cmp(&b.service.name);
    // What comes behind the page need not be in order.
    let end = filter.offset.saturating_add(filter.limit.unwrap_or(usize::MAX));
    if end < matched {
        matching.select_nth_unstable_by(end, by_name);
        matching.truncate(end);
    }
    matching.sort_unstable_by(by_name);
    let page = matching.iter().skip(filter.offset);
    Services {
        node: planner.here().node_name.to_string(),
        total: planner.counts().services,
        matched,
        services: page.map(|there| summary(planner, there)).collect(),
    }
}

fn matches(planner: &Planner, there: &Inspected<'_>, filter: &Filter) -> bool {
    let ObjectName { namespace, name } = &there.service.name;
    let in_namespace = filter.namespace.as_ref().is_none_or(|wanted| **namespace == **wanted);
    let is_found = |search: &String| {
        let (before, behind) = search.split_once('/').unwrap_or(("", search));
        let by_name = match before {
            "" => namespace.contains(behind) || name.contains(behind),
            before => namespace.ends_with(before) && name.starts_with(behind),
        };
        by_name
            || addresses(there).any(|address| address.to_string().starts_with(search.as_str()))
            || {
                let port: Option<u16> = search.parse().ok();
                port.is_some_and(|port| {
                    let mut ports = there.service.ports.iter();
                    ports.any(|there| there.port == port || there.node_port == Some(port))
                })
            }
    };
    in_namespace
        && filter.search.as_ref().filter(|search| !search.is_empty()).is_none_or(is_found)
        && (!filter.problems || !problems(planner, there).is_empty())
}

fn addresses<'a>(there: &Inspected<'a>) -> impl Iterator<Item = IpAddr> + 'a {
    let service = there.service;
    let all = [&service.cluster_ips, &service.external_ips, &service.load_balancer_ips];
    all.into_iter().flatten().copied()
}

fn summary(planner: &Planner, there: &Inspected<'_>) -> Summary {
    let service = there.service;
    let reasons: BTreeMap<_, _> =
        service.ports.iter().flat_map(|port| wanted_frontends(service, port)).collect();
    let planned = there.plans.iter().flat_map(|plan| &plan.frontends);
    let frontends = planned.filter_map(|planned| {
        let frontend = planned.frontend;
        Some(Frontend {
            kind: kind(&frontend, *reasons.get(&frontend)?).to_owned(),
            address: frontend.address(),
            port: frontend.port(),
            protocol: frontend.protocol().to_string(),
        })
    });
    let mut frontends: Vec<Frontend> = frontends.collect();
    // A NodePort is the same in both families.
    frontends.dedup();
    let in_use: BTreeSet<_> =
        there.plans.iter().flat_map(|plan| plan.cluster.iter().chain(&plan.local)).collect();
    let policy = |local| if local { "Local" } else { "Cluster" }.to_owned();
    Summary {
        namespace: service.name.namespace.to_string(),
        name: service.name.name.to_string(),
        service_type: match service.service_type {
            ServiceType::ClusterIp => "ClusterIP",
            ServiceType::NodePort => "NodePort",
            ServiceType::LoadBalancer => "LoadBalancer",
        }
        .to_owned(),
        frontends,
        endpoints_in_use: in_use.len(),
        endpoints: there.slices.iter().map(|slice| slice.endpoints.len()).sum(),
        internal_traffic_policy: policy(service.internal_local),
        external_traffic_policy: service
            .externally_accessible()
            .then(|| policy(service.external_local)),
        affinity_seconds: service.affinity.map(|timeout| timeout.as_secs()),
        connections: None,
        refused: None,
        problems: problems(planner, there),
    }
}

impl Services {
    /// Puts in what was counted of them.
    pub fn count(&mut self, counted: &Connections) {
        let mut sums: HashMap<(&str, &str), (u64, u64)> = HashMap::new();
        for port in &counted.ports {
            let (served, refused) = sums.entry((&port.namespace, &port.name)).or_default();
            *served += port.served;
            *refused += port.refused + port.dropped;
        }
        for service in &mut self.services {
            let sum = sums.get(&(&*service.namespace, &*service.name)).copied();
            (service.connections, service.refused) = sum.unzip();
        }
    }
}

/// What is wrong with a Service on this node.
fn problems(planner: &Planner, there: &Inspected<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    if there.is_held() {
        problems.push("refused by the kernel: it stays as it was".to_owned());
    }
    for frontend in there.lost {
        if let Some(owner) = planner.claimants(frontend).next() {
            problems.push(format!("{frontend} is served for Service {}", owner.service));
        }
    }
    if let Some(most) = there.cut {
        problems.push(format!("too large: each frontend gets {most} endpoints only"));
    }
    for plan in there.plans {
        let port =
            if plan.name.is_empty() { String::new() } else { format!(" of port {}", plan.name) };
        let has = |route| plan.frontends.iter().any(|planned| planned.route == route);
        if has(Route::Reject) {
            problems.push(format!("no {} endpoint{port} is ready", plan.family));
        } else if has(Route::Drop) {
            problems.push(format!(
                "no {} endpoint{port} on this node is ready, and internalTrafficPolicy is Local",
                plan.family
            ));
        }
    }
    if there.plans.is_empty() && there.lost.is_empty() && !there.is_pending() {
        problems.push("it has nothing that clients could connect to".to_owned());
    }
    problems
}
