//! What a Service is to have: its frontends, and what becomes of each.

use super::earlier_run::earlier_slots;
use super::{Dispute, Planner};
use crate::model::{ObjectName, Protocol, Service};
use crate::plan::claims::Rank;
use crate::plan::effects::HealthCheck;
use crate::plan::{Frontend, PlannedFrontend, PortPlan, ports, select, slots};
use hashbrown::HashSet;
use nft_table::Family;
use std::net::IpAddr;

impl Planner {
    /// Settles who serves which frontend. Services that get or lose one to a changed Service are
    /// changed, too.
    pub(super) fn claim(&mut self, changed: &mut Vec<ObjectName>) {
        let mut affected = Vec::new();
        for name in changed.iter() {
            let Some(entry) = self.services.get_mut(name) else { continue };
            if entry.absent {
                // What it had stays its own.
                continue;
            }
            let wanted = entry.active().map(|service| {
                let rank = Rank { created: service.created, service: name.clone() };
                (rank, all_frontends(service))
            });
            if wanted == entry.claims {
                continue;
            }
            if let Some((rank, frontends)) = &entry.claims {
                let is_kept = |frontend: &Frontend| {
                    wanted.as_ref().is_some_and(|(r, kept)| r == rank && kept.contains(frontend))
                };
                for frontend in frontends.iter().filter(|frontend| !is_kept(frontend)) {
                    if let Some(next) = self.claims.remove(frontend, rank) {
                        self.disputes
                            .push(Dispute::TookOver { service: next.clone(), frontend: *frontend });
                        affected.push(next);
                    }
                }
            }
            if let Some((rank, frontends)) = &wanted {
                for frontend in frontends {
                    affected.extend(self.claims.add(*frontend, rank.clone()));
                }
            }
            entry.claims = wanted;
        }
        for name in affected {
            if let Err(place) = changed.binary_search(&name) {
                changed.insert(place, name);
            }
        }
    }

    /// What the ports of a Service are to have.
    pub(super) fn plan_service(&mut self, name: &ObjectName) -> Vec<PortPlan> {
        let Some(entry) = self.services.get_mut(name) else { return Vec::new() };
        let mut lost = Vec::new();
        let mut plans = Vec::new();
        if let Some(service) = entry.active() {
            let wanted = ports::wanted(service);
            let mut taken = HashSet::new();
            for family in Family::BOTH {
                let node_ip = self.node.as_ref().and_then(|node| node.address(family));
                for port in &service.ports {
                    let mut frontends = ports::frontends(service, port, family);
                    // Of two ports of one Service with the same number the first has it.
                    frontends.retain(|frontend| taken.insert(*frontend));
                    let is_own = |frontend: &Frontend| self.claims.owner(frontend) == Some(name);
                    lost.extend(frontends.iter().filter(|frontend| !is_own(frontend)).copied());
                    frontends.retain(is_own);
                    if frontends.is_empty() {
                        continue;
                    }
                    let slices = entry.slices.iter();
                    let selection = select::select(port, family, slices, &self.here, wanted);
                    let plan_one =
                        |frontend| ports::plan_frontend(service, frontend, &selection, node_ip);
                    let frontends: Vec<PlannedFrontend> =
                        frontends.into_iter().map(plan_one).collect();
                    let before = entry.plans.iter().find(|plan| {
                        plan.family == family
                            && plan.protocol == port.protocol
                            && plan.name == port.name
                    });
                    let ([cluster, local], bank) = match before {
                        Some(plan) => ([plan.cluster.clone(), plan.local.clone()], Some(plan.bank)),
                        None => earlier_slots(&self.earlier_run, &frontends),
                    };
                    let is_udp = port.protocol == Protocol::Udp;
                    let plan = PortPlan {
                        bank: bank.unwrap_or_else(|| self.banks.with_room(family)),
                        name: port.name.clone(),
                        protocol: port.protocol,
                        family,
                        cluster: slots::place(&cluster, &selection.cluster),
                        local: slots::place(&local, &selection.local),
                        hairpin: selection.hairpin,
                        affinity: service.affinity,
                        serving: if is_udp { selection.serving } else { Vec::new() },
                        frontends,
                    };
                    self.banks.enter(&plan);
                    plans.push(plan);
                }
            }
        }
        for frontend in lost.iter().filter(|frontend| !entry.lost.contains(frontend)) {
            if let Some(to) = self.claims.owner(frontend) {
                self.disputes.push(Dispute::Lost {
                    service: name.clone(),
                    frontend: *frontend,
                    to: to.clone(),
                });
            }
        }
        self.counts.lost_frontends += lost.len();
        self.counts.lost_frontends -= entry.lost.len();
        entry.lost = lost;
        plans
    }

    /// Counts the endpoints on this node for a health check node port: distinct addresses of ready
    /// endpoints, over all ports.
    pub(super) fn note_health_check(&mut self, name: &ObjectName) {
        let entry = &self.services[name];
        let port = entry.active().and_then(|service| service.health_check_node_port);
        let check = port.map(|port| {
            let slices = entry.slices.iter().flat_map(|slice| &slice.endpoints);
            let here = slices.filter(|e| e.node_name.as_ref() == Some(&self.here.node_name));
            let ready: HashSet<IpAddr> =
                here.filter(|e| e.conditions.ready).map(|e| e.address).collect();
            let of = |family| ready.iter().filter(|ip| Family::of(ip) == family).count();
            HealthCheck { port, local_endpoints: Family::BOTH.map(of) }
        });
        self.effects.note_health_check(name, check);
    }
}

/// All that clients can connect to for a Service, sorted.
fn all_frontends(service: &Service) -> Vec<Frontend> {
    let of =
        |family| service.ports.iter().flat_map(move |port| ports::frontends(service, port, family));
    let mut frontends: Vec<Frontend> = Family::BOTH.into_iter().flat_map(of).collect();
    frontends.sort_unstable();
    frontends.dedup();
    frontends
}
