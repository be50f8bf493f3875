//! What follows from the plan outside the table, once it is committed.

use super::{Backend, Frontend, PortPlan, Route, ports};
use crate::model::{ObjectName, Protocol, Service};
use hashbrown::HashSet;
use nft_table::Family;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

/// A health check node port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    /// Ready endpoints on this node, IPv4 and IPv6.
    pub local_endpoints: [usize; 2],
}

/// A TCP NodePort, to be served on a loopback address by a proxy in user space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalhostPort {
    pub node_port: u16,
    /// Endpoints that the traffic policy allows; nobody listens when there are none.
    pub endpoints: Vec<Backend>,
    pub affinity: Option<Duration>,
}

/// A Service port in one family: Service, port name, family.
pub type PortKey = (ObjectName, Arc<str>, Family);

/// Services that a policy of Local leaves without an endpoint on this node, counted by port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    pub internal: usize,
    pub external: usize,
}

/// Kept in step by the planner; taken by the engine after a commit.
#[derive(Debug, Default)]
pub struct Effects {
    /// Frontends that came, and those of UDP that changed or went, each with the endpoints whose flows are left alone; of
    /// TCP with those whose flows are not.
    stale_flows: BTreeMap<Frontend, Vec<Backend>>,
    health_checks: BTreeMap<ObjectName, HealthCheck>,
    changed_health_checks: BTreeSet<ObjectName>,
    localhost: BTreeMap<PortKey, LocalhostPort>,
    localhost_changed: bool,
    no_local: [NoLocalEndpoints; 2],
}

impl Effects {
    /// Frontends whose flows have to be looked at since the last call. Of UDP, flows to these endpoints are left alone; of
    /// TCP, flows to these are stale; of SCTP there are none.
    pub fn take_stale_flows(&mut self) -> BTreeMap<Frontend, Vec<Backend>> {
        mem::take(&mut self.stale_flows)
    }

    /// The health check node ports that changed since the last call; None: there is none any more.
    pub fn take_health_checks(&mut self) -> Vec<(ObjectName, Option<HealthCheck>)> {
        let changed = mem::take(&mut self.changed_health_checks).into_iter();
        changed.map(|name| (name.clone(), self.health_checks.get(&name).copied())).collect()
    }

    /// The TCP NodePorts of all Services, if they changed since the last call.
    pub fn changed_localhost_ports(&mut self) -> Option<&BTreeMap<PortKey, LocalhostPort>> {
        mem::take(&mut self.localhost_changed).then_some(&self.localhost)
    }

    pub fn no_local_endpoints(&self, family: Family) -> NoLocalEndpoints {
        self.no_local[family as usize]
    }

    /// A Service was planned anew.
    pub(super) fn note(
        &mut self,
        name: &ObjectName,
        service: Option<&Service>,
        before: &[PortPlan],
        plans: &[PortPlan],
    ) {
        self.note_udp(before, plans);
        for (old, new) in ports::pairs(before, plans) {
            if let Some(old) = old {
                self.count(old, -1);
                if old.protocol == Protocol::Tcp && new.is_none() {
                    self.put_localhost((name.clone(), old.name.clone(), old.family), None);
                }
            }
            let Some(new) = new else { continue };
            self.count(new, 1);
            if new.protocol == Protocol::Udp && old != Some(new) {
                let known = |frontend| {
                    old.is_some_and(|old| {
                        old.flows_stay == new.flows_stay && old.find(&frontend).is_some()
                    })
                };
                let changed = new.frontends.iter().map(|planned| planned.frontend);
                self.stale_flows.extend(
                    changed
                        .filter(|frontend| !known(*frontend))
                        .map(|f| (f, new.flows_stay.clone())),
                );
            }
            if new.protocol != Protocol::Udp {
                let known = |frontend| old.is_some_and(|old| old.find(&frontend).is_some());
                let came = new.frontends.iter().map(|planned| planned.frontend);
                for frontend in came.filter(|frontend| !known(*frontend)) {
                    self.stale_flows.entry(frontend).or_default();
                }
            }
            if new.protocol == Protocol::Tcp {
                self.note_gone(old, new);
            }
            if new.protocol == Protocol::Tcp {
                let key = (name.clone(), new.name.clone(), new.family);
                self.put_localhost(key, service.and_then(|service| localhost_port(service, new)));
            }
        }
    }

    /// Connections to endpoints that are in no slice any more, where they are to be reset.
    fn note_gone(&mut self, old: Option<&PortPlan>, new: &PortPlan) {
        let Some(old) =
            old.filter(|old| old.reset_gone && new.reset_gone && old.flows_stay != new.flows_stay)
        else {
            return;
        };
        let is_in = |list: &[Backend], one: &Backend| list.binary_search(one).is_ok();
        let gone: Vec<Backend> =
            old.flows_stay.iter().filter(|one| !is_in(&new.flows_stay, one)).copied().collect();
        for planned in &new.frontends {
            let Some(stale) = self.stale_flows.get_mut(&planned.frontend) else {
                if !gone.is_empty() {
                    self.stale_flows.insert(planned.frontend, gone.clone());
                }
                continue;
            };
            // One that is back is not gone.
            stale.retain(|one| !is_in(&new.flows_stay, one));
            stale.extend(&gone);
        }
    }

    /// Flows may have begun that nobody translated: all frontends of a port have to be looked at.
    pub(super) fn note_absence(&mut self, plan: &PortPlan) {
        let frontends = plan.frontends.iter().map(|planned| planned.frontend);
        for frontend in frontends {
            let stale = self.stale_flows.entry(frontend).or_default();
            if plan.protocol == Protocol::Udp {
                stale.clone_from(&plan.flows_stay);
            }
        }
    }

    /// Flows to UDP frontends that went are all stale, unless another port takes them over.
    fn note_udp(&mut self, before: &[PortPlan], plans: &[PortPlan]) {
        let of_udp =
            |plans| <[PortPlan]>::iter(plans).filter(|plan| plan.protocol == Protocol::Udp);
        let gone = of_udp(before).flat_map(|old| {
            let new = old.find_same(plans);
            let frontends = old.frontends.iter().map(|planned| planned.frontend);
            frontends.filter(move |frontend| new.is_none_or(|new| new.find(frontend).is_none()))
        });
        let gone: Vec<Frontend> = gone.collect();
        if gone.is_empty() {
            return;
        }
        let all = of_udp(plans).flat_map(|plan| &plan.frontends).map(|planned| planned.frontend);
        let kept: HashSet<Frontend> = all.collect();
        for frontend in gone.into_iter().filter(|frontend| !kept.contains(frontend)) {
            self.stale_flows.entry(frontend).or_default();
        }
    }

    pub(super) fn note_health_check(&mut self, name: &ObjectName, check: Option<HealthCheck>) {
        if self.health_checks.get(name) == check.as_ref() {
            return;
        }
        match check {
            Some(check) => self.health_checks.insert(name.clone(), check),
            None => self.health_checks.remove(name),
        };
        self.changed_health_checks.insert(name.clone());
    }

    fn put_localhost(&mut self, key: PortKey, port: Option<LocalhostPort>) {
        if self.localhost.get(&key) == port.as_ref() {
            return;
        }
        match port {
            Some(port) => self.localhost.insert(key, port),
            None => self.localhost.remove(&key),
        };
        self.localhost_changed = true;
    }

    fn count(&mut self, plan: &PortPlan, by: isize) {
        let routes = || plan.frontends.iter().map(|planned| planned.route);
        let counts = &mut self.no_local[plan.family as usize];
        if routes().any(|route| route == Route::Drop) {
            counts.internal = counts.internal.saturating_add_signed(by);
        }
        if plan.local.is_empty() && routes().any(|route| route == Route::ExternalLocal) {
            counts.external = counts.external.saturating_add_signed(by);
        }
    }
}

/// The NodePort of a TCP port, where it has one.
fn localhost_port(service: &Service, plan: &PortPlan) -> Option<LocalhostPort> {
    let (node_port, route) = plan.frontends.iter().find_map(|planned| match planned.frontend {
        Frontend::NodePort { port, .. } => Some((port, planned.route)),
        Frontend::Ip { .. } => None,
    })?;
    let endpoints = match route {
        Route::Cluster => &plan.cluster,
        Route::ExternalLocal | Route::Local => &plan.local,
        Route::Reject | Route::Drop => return None,
    };
    (!endpoints.is_empty()).then(|| LocalhostPort {
        node_port,
        endpoints: endpoints.clone(),
        affinity: service.affinity,
    })
}
