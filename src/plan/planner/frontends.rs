//! What a Service is to have: its frontends, and what becomes of each.

use super::earlier_run::earlier_slots;
use super::{Dispute, Planner};
use crate::model::{ObjectName, Protocol, Service};
use crate::plan::claims::{Rank, Reason};
use crate::plan::effects::HealthCheck;
use crate::plan::slots::Placing;
use crate::plan::{Frontend, PlannedFrontend, PortPlan, ports, select};
use hashbrown::HashSet;
use nft_table::Family;
use std::net::IpAddr;

/// Slots of one Service at most, over all its frontends, for each list of endpoints: some 60 ms to write.
pub const SLOTS: usize = 32_768;

/// Endpoints that are looked at for one Service at most, over all its ports.
const CONSIDERED: usize = 4 * SLOTS;

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
            if !std::mem::take(&mut entry.claims_are_stale) {
                continue;
            }
            let wanted = entry.active().map(|service| (service.created, all_frontends(service)));
            if wanted == entry.claims {
                continue;
            }
            let before = std::mem::replace(&mut entry.claims, wanted);
            let rank = |created, reason| Rank { reason, created, service: name.clone() };
            let is_in = |claims: &Option<(i64, Vec<_>)>, created, claim| {
                let of_age = claims.as_ref().filter(|(other, _)| *other == created);
                of_age.is_some_and(|(_, claims)| claims.binary_search(claim).is_ok())
            };
            for (created, claim) in each(&before) {
                if is_in(&entry.claims, created, claim) {
                    continue;
                }
                let (frontend, reason) = *claim;
                if let Some(next) = self.claims.remove(&frontend, &rank(created, reason)) {
                    self.disputes.push(Dispute::TookOver { service: next.clone(), frontend });
                    affected.push(next);
                }
            }
            for (created, claim) in each(&entry.claims) {
                if !is_in(&before, created, claim) {
                    let (frontend, reason) = *claim;
                    affected.extend(self.claims.add(frontend, rank(created, reason)));
                }
            }
        }
        changed.extend(affected);
        changed.sort_unstable();
        changed.dedup();
    }

    /// What the ports of a Service are to have.
    pub(super) fn plan_service(&mut self, name: &ObjectName) -> Vec<PortPlan> {
        let Some(entry) = self.services.get_mut(name) else { return Vec::new() };
        let mut lost = Vec::new();
        let mut plans = Vec::new();
        let mut cut = None;
        if let Some(service) = entry.active() {
            let wanted = ports::wanted(service);
            let frontends = entry.claims.as_ref().map_or(0, |(_, claims)| claims.len());
            let most = (SLOTS / frontends.max(1)).max(1);
            let considered = most.max(CONSIDERED / service.ports.len().max(1));
            let mut taken = HashSet::new();
            for family in Family::BOTH {
                let node_ip = self.node.as_ref().and_then(|node| node.address(family));
                let allowed = ports::allowed_sources(service, family, node_ip);
                for port in &service.ports {
                    let mut frontends = ports::frontends(service, port, family);
                    // Of two ports of one Service with the same number the first has it.
                    frontends.retain(|(frontend, _)| taken.insert(*frontend));
                    frontends.retain(|(frontend, _)| {
                        let is_own = self.claims.owner(frontend) == Some(name);
                        lost.extend((!is_own).then_some(*frontend));
                        is_own
                    });
                    if frontends.is_empty() {
                        continue;
                    }
                    let endpoints = (entry.slices.iter(), service.weights.as_deref());
                    let mut selection =
                        select::select(port, family, endpoints, &self.here, wanted, considered);
                    if selection.truncate(most) {
                        cut = Some(most);
                    }
                    let plan_one =
                        |frontend| ports::plan_frontend(service, frontend, &selection, &allowed);
                    let frontends: Vec<PlannedFrontend> =
                        frontends.into_iter().map(plan_one).collect();
                    let before =
                        ports::find_port(&entry.plans, (family, port.protocol, &port.name));
                    let ([cluster, local], bank) = match before {
                        Some(plan) => ([plan.cluster.clone(), plan.local.clone()], Some(plan.bank)),
                        None => earlier_slots(&self.earlier_run, &frontends),
                    };
                    let algorithm = service.algorithm.unwrap_or(self.settings.algorithm);
                    let placing = Placing { algorithm, table_size: service.table_size, most };
                    let [cluster, local] = [
                        placing.place(&cluster, &selection.cluster),
                        placing.place(&local, &selection.local),
                    ];
                    let reset_gone = port.protocol == Protocol::Tcp
                        && service.reset_gone.unwrap_or(self.settings.reset_gone);
                    let flows_stay = match port.protocol {
                        Protocol::Udp => selection.serving,
                        Protocol::Tcp if reset_gone => selection.listed,
                        Protocol::Tcp | Protocol::Sctp => Vec::new(),
                    };
                    let plan = PortPlan {
                        bank: bank.unwrap_or_else(|| self.banks.with_room(family)),
                        name: port.name.clone(),
                        protocol: port.protocol,
                        family,
                        algorithm,
                        cluster: cluster.slots,
                        local: local.slots,
                        draining: [cluster.draining, local.draining],
                        hairpin: selection.hairpin,
                        affinity: service.affinity,
                        limits: service.limits,
                        flows_stay,
                        reset_gone,
                        frontends,
                    };
                    self.banks.enter(&plan);
                    plans.push(plan);
                }
            }
        }
        plans.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        lost.sort_unstable();
        let is_new = |frontend: &&Frontend| entry.lost.binary_search(frontend).is_err();
        for frontend in lost.iter().filter(is_new) {
            if let Some(to) = self.claims.owner(frontend) {
                self.disputes.push(Dispute::Lost {
                    service: name.clone(),
                    frontend: *frontend,
                    to: to.clone(),
                });
            }
        }
        if let Some(endpoints) = cut.filter(|_| entry.cut.is_none()) {
            self.disputes.push(Dispute::Cut { service: name.clone(), endpoints });
        }
        entry.cut = cut;
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
fn all_frontends(service: &Service) -> Vec<(Frontend, Reason)> {
    let of =
        |family| service.ports.iter().flat_map(move |port| ports::frontends(service, port, family));
    let mut frontends: Vec<_> = Family::BOTH.into_iter().flat_map(of).collect();
    frontends.sort_unstable();
    frontends.dedup_by_key(|(frontend, _)| *frontend);
    frontends
}

/// What a Service claims, each with the Service's age.
fn each(
    claims: &Option<(i64, Vec<(Frontend, Reason)>)>,
) -> impl Iterator<Item = (i64, &(Frontend, Reason))> {
    let claims = claims.iter().map(|(created, claims)| (*created, claims));
    claims.flat_map(|(created, claims)| claims.iter().map(move |claim| (created, claim)))
}
