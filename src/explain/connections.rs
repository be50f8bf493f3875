//! Counted connections, by Service port.

use crate::model::ObjectName;
use crate::plan::layout::SetName;
use crate::plan::{
    Aside, Backend, Counting, Inspected, Outcome, Planner, frontend_counter, outcome, over_chain,
    slot_counters,
};
use nft_table::{Count, Key, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// New connections to Service ports, counted by the kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connections {
    pub node: String,
    /// `off`, `service` or `endpoint`: what is counted.
    pub counting: String,
    /// Sorted by namespace, name and port; those of which nothing was counted only where they were asked for by name.
    pub ports: Vec<Port>,
}

/// A port of a Service, over both families and all frontends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    pub namespace: String,
    pub name: String,
    /// Its name, or its number if it has none.
    pub port: String,
    pub protocol: String,
    /// Connections that an endpoint got.
    pub served: u64,
    /// Attempts while no endpoint was ready.
    pub refused: u64,
    /// Attempts while no endpoint on this node was ready, with internal policy Local.
    pub dropped: u64,
    /// Attempts of clients that were over a limit, where the Service limits clients; counted in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_limits: Option<OverLimits>,
    /// By endpoint, where that is counted and was asked for: sorted by address. Connections that session affinity sent
    /// where it had sent the client before are not among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
}

impl Port {
    fn has(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Served => &mut self.served,
            Outcome::Refused => &mut self.refused,
            Outcome::Dropped => &mut self.dropped,
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.served + self.refused + self.dropped
    }
}

/// Attempts that were refused because a client was over a limit, since the limits are what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OverLimits {
    /// New connections in too short a time.
    pub new_per_second: u64,
    /// Connections beside those that were open already.
    pub open: u64,
}

impl OverLimits {
    /// What the counters of [`crate::plan::over_chain`] say.
    pub fn of(counters: &[u64]) -> OverLimits {
        let counter = |place| counters.get(place).copied().unwrap_or_default();
        OverLimits { new_per_second: counter(0), open: counter(1) }
    }
}

/// Connections to an endpoint of a Service port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    pub address: SocketAddr,
    pub connections: u64,
}

/// Connections of which the kernel's part is missing yet.
#[derive(Debug, Default)]
pub struct Uncounted {
    connections: Connections,
    pub counting: Counting,
    /// What is to be read: the elements that count, each with the index of its port.
    pub elements: BTreeMap<SetName, Vec<(Key, usize)>>,
    /// Chains that refuse who is over a limit, likewise.
    pub over_chains: Vec<(Arc<str>, usize)>,
    by_endpoint: Vec<BTreeMap<SocketAddr, u64>>,
    has_all: bool,
}

/// Prepares to count the connections of all Services, or of some, and of their endpoints.
pub fn connections(
    planner: &Planner,
    aside: &Aside,
    services: Option<&[ObjectName]>,
    by_endpoint: bool,
) -> Uncounted {
    let counting = planner.settings().counting;
    let mut uncounted = Uncounted { counting, has_all: services.is_none(), ..Uncounted::default() };
    uncounted.connections.node = planner.here().node_name.to_string();
    uncounted.connections.counting = match counting {
        Counting::Off => "off",
        Counting::Service => "service",
        Counting::Endpoint => "endpoint",
    }
    .to_owned();
    match services {
        // Only limits are counted.
        None if counting == Counting::Off && planner.counts().limited_services == 0 => {}
        None => planner.inspect_all().for_each(|there| uncounted.add(&there, aside, false)),
        Some(services) => {
            let by_endpoint = by_endpoint && counting == Counting::Endpoint;
            let there = services.iter().filter_map(|name| planner.inspect(name));
            there.for_each(|there| uncounted.add(&there, aside, by_endpoint));
        }
    }
    uncounted
}

impl Uncounted {
    fn add(&mut self, there: &Inspected<'_>, aside: &Aside, by_endpoint: bool) {
        let counts = self.counting != Counting::Off;
        if !counts && there.service.limits.is_none() {
            return;
        }
        let first = self.connections.ports.len();
        for plan in there.plans {
            let (name, protocol) = (&there.service.name, plan.protocol.to_string());
            let mut ports = there.service.ports.iter();
            let number =
                ports.find(|port| port.name == plan.name && port.protocol == plan.protocol);
            let port = match number {
                Some(number) if plan.name.is_empty() => number.port.to_string(),
                _ => plan.name.to_string(),
            };
            // The other family of a port is the same port.
            let is_same = |there: &Port| there.port == port && there.protocol == protocol;
            let index = match self.connections.ports[first..].iter().position(is_same) {
                Some(index) => first + index,
                None => {
                    let (namespace, name) = (name.namespace.to_string(), name.name.to_string());
                    let port = Port { namespace, name, port, protocol, ..Port::default() };
                    self.connections.ports.push(port);
                    self.by_endpoint.push(BTreeMap::new());
                    self.connections.ports.len() - 1
                }
            };
            let over = over_chain(&there.service.name, plan);
            self.over_chains.extend(over.map(|chain| (chain, index)));
            if !counts {
                continue;
            }
            for planned in &plan.frontends {
                let (set, key) = frontend_counter(&planned.frontend);
                if let Some(counts) = aside.get(&(set, key.clone())) {
                    for outcome in Outcome::ALL {
                        let counted = counts[outcome as usize].packets;
                        *self.connections.ports[index].has(outcome) += counted;
                    }
                }
                self.elements.entry(set).or_default().push((key, index));
            }
            if by_endpoint {
                for backend in plan.cluster.iter().chain(&plan.local) {
                    self.by_endpoint[index].insert(backend.socket_address(), 0);
                }
                for (map, keys) in slot_counters(plan) {
                    let keys = keys.into_iter().map(|key| (key, index));
                    self.elements.entry(map).or_default().extend(keys);
                }
            }
        }
    }

    /// What the kernel has under a key that is of a port.
    pub fn count(&mut self, port: usize, value: &Value, count: Count) {
        match Backend::of_value(value) {
            Some(backend) => {
                *self.by_endpoint[port].entry(backend.socket_address()).or_default() +=
                    count.packets;
            }
            None => *self.connections.ports[port].has(outcome(value)) += count.packets,
        }
    }

    /// What the counters say of a chain that refuses who is over a limit, and is of a port.
    pub fn count_over(&mut self, port: usize, counters: &[u64]) {
        let counted = OverLimits::of(counters);
        let sum = self.connections.ports[port].over_limits.get_or_insert_default();
        sum.new_per_second += counted.new_per_second;
        sum.open += counted.open;
    }

    /// Everything is counted.
    pub fn finish(mut self) -> Connections {
        for (port, endpoints) in self.connections.ports.iter_mut().zip(self.by_endpoint) {
            let endpoint = |(address, connections)| Endpoint { address, connections };
            port.endpoints = endpoints.into_iter().map(endpoint).collect();
            if let Some(over) = port.over_limits {
                // They were looked up before.
                port.served = port.served.saturating_sub(over.new_per_second + over.open);
            }
        }
        if self.has_all {
            self.connections.ports.retain(|port| port.total() > 0 || port.over_limits.is_some());
        }
        let name = |port: &Port| (port.namespace.clone(), port.name.clone(), port.port.clone());
        self.connections.ports.sort_by_cached_key(name);
        self.connections
    }
}
