//! Keeps the table in step with Services, endpoints and the node, and redoes only what changed.

use super::balancing::Balancing;
use super::base::{self, Sets};
use super::claims::{Claims, Rank};
use super::effects::{Effects, HealthCheck};
use super::writer::{ChainNames, Writer};
use super::{Backend, Frontend, Here, PlannedFrontend, PortPlan, Settings};
use super::{affinity, elements, ports, select, slots, sources};
use crate::family::Family;
use crate::model::{Change, EndpointSlice, Node, ObjectName, Protocol, Service};
use crate::ruleset::{Data, Key, SetId, Snapshot, Table, Value};
use hashbrown::{HashMap, HashSet};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Something that the operator should know, told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Two Services want the same frontend, and this one does not get it.
    Lost { service: ObjectName, frontend: Frontend, to: ObjectName },
    /// A Service got a frontend that another one had.
    TookOver { service: ObjectName, frontend: Frontend },
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services that are served: not those in quarantine.
    pub services: usize,
    /// Endpoints in all slices, whatever their conditions.
    pub endpoints: usize,
    /// Frontends that a Service wants and an older one has.
    pub lost_frontends: usize,
}

/// A Service with its slices, as far as they are known, and what was planned for it.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Box<Service>>,
    /// By name, so that the order is the same on every node and after a restart.
    slices: BTreeMap<Arc<str>, Box<EndpointSlice>>,
    /// Frontends that it wants.
    claims: Option<(Rank, Vec<Frontend>)>,
    /// Frontends that it wants and does not have.
    lost: Vec<Frontend>,
    plans: Vec<PortPlan>,
    /// The kernel refused it: planned as if it were not there.
    quarantined: bool,
    /// It is counted as served.
    counted: bool,
}

impl Entry {
    fn is_gone(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }

    fn active(&self) -> Option<&Service> {
        self.service.as_deref().filter(|_| !self.quarantined)
    }
}

/// The backends of a frontend in the kernel, by slot.
type Seeds = HashMap<(SetId, Key), Vec<Option<Backend>>>;

/// See the module.
#[derive(Debug)]
pub struct Planner {
    writer: Writer,
    sets: Sets,
    names: ChainNames,
    settings: Settings,
    here: Here,
    node: Option<Box<Node>>,
    services: HashMap<ObjectName, Entry>,
    /// The Service of every slice.
    slices: HashMap<ObjectName, ObjectName>,
    service_cidrs: BTreeMap<Arc<str>, Vec<IpNet>>,
    claims: Claims,
    changed: HashSet<ObjectName>,
    seeds: Seeds,
    notices: Vec<Notice>,
    effects: Effects,
    counts: Counts,
    purges: BTreeMap<Arc<str>, Vec<Backend>>,
}

impl Planner {
    /// A plan without any Service.
    pub fn new(settings: Settings) -> Planner {
        let (table, sets) = base::table();
        let here = Here { node_name: settings.node_name.clone(), zone: None };
        let mut planner = Planner {
            writer: Writer::new(table),
            sets,
            names: ChainNames::default(),
            settings,
            here,
            node: None,
            services: HashMap::new(),
            slices: HashMap::new(),
            service_cidrs: BTreeMap::new(),
            claims: Claims::default(),
            changed: HashSet::new(),
            seeds: HashMap::new(),
            notices: Vec::new(),
            effects: Effects::default(),
            counts: Counts::default(),
            purges: BTreeMap::new(),
        };
        planner.write_sources();
        planner
    }

    /// The table as planned.
    pub fn table(&self) -> &Table {
        &self.writer.table
    }

    /// The table, to tell it what the kernel has.
    pub fn table_mut(&mut self) -> &mut Table {
        &mut self.writer.table
    }

    pub fn sets(&self) -> &Sets {
        &self.sets
    }

    /// This node's object, as last seen.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_deref()
    }

    /// Learns from what an earlier run left in the kernel, before the first [`Planner::plan`]: which
    /// backend stands in which slot, and shared chains. So a restart changes nothing.
    pub fn seed(&mut self, snapshot: &Snapshot) {
        for family in Family::BOTH {
            let sets = *self.sets.of(family);
            for set in [
                sets.cluster_endpoints,
                sets.local_endpoints,
                sets.nodeport_cluster_endpoints,
                sets.nodeport_local_endpoints,
            ] {
                let declared = self.writer.table.set(set).expect("a fixed set");
                let Some(there) = snapshot.sets.get(&declared.name) else { continue };
                if there.set.as_ref() == Some(declared) {
                    there.elements.iter().for_each(|(key, value)| {
                        seed_slot(&mut self.seeds, set, key, value);
                    });
                }
            }
        }
        for (name, there) in &snapshot.chains {
            if let Some(chain) = Balancing::parse(name)
                && there.has_rules_of(&chain.chain())
            {
                self.writer.keep_chain(chain);
            }
        }
    }

    /// Takes in a change. Nothing is planned before [`Planner::plan`].
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Service(name, service) => {
                let entry = self.services.entry(name.clone()).or_default();
                if entry.service == service {
                    return;
                }
                entry.service = service;
                entry.quarantined = false;
                self.changed.insert(name);
            }
            Change::EndpointSlice(name, slice) => self.apply_slice(name, slice),
            Change::Node(node) => self.apply_node(node),
            Change::ServiceCidr(name, cidrs) => {
                match cidrs {
                    Some(cidrs) => self.service_cidrs.insert(name, cidrs),
                    None => self.service_cidrs.remove(&name),
                };
                self.write_service_cidrs();
            }
        }
    }

    fn apply_slice(&mut self, name: ObjectName, slice: Option<Box<EndpointSlice>>) {
        let service = slice.as_ref().map(|slice| slice.service_name());
        let before = match &service {
            Some(service) => self.slices.insert(name.clone(), service.clone()),
            None => self.slices.remove(&name),
        };
        if let Some(before) = before.filter(|before| Some(before) != service.as_ref())
            && let Some(entry) = self.services.get_mut(&before)
        {
            let gone = entry.slices.remove(&name.name);
            self.counts.endpoints -= gone.map_or(0, |slice| slice.endpoints.len());
            self.changed.insert(before);
        }
        if let (Some(service), Some(slice)) = (service, slice) {
            let entry = self.services.entry(service.clone()).or_default();
            self.counts.endpoints += slice.endpoints.len();
            let before = entry.slices.insert(name.name, slice);
            self.counts.endpoints -= before.map_or(0, |slice| slice.endpoints.len());
            entry.quarantined = false;
            self.changed.insert(service);
        }
    }

    fn apply_node(&mut self, node: Option<Box<Node>>) {
        let zone = node.as_ref().and_then(|node| node.zone.clone());
        let ip = |node: &Option<Box<Node>>, family| node.as_ref().and_then(|n| n.address(family));
        let same_ips =
            Family::BOTH.iter().all(|family| ip(&node, *family) == ip(&self.node, *family));
        self.node = node;
        if self.here.zone != zone || !same_ips {
            self.here.zone = zone;
            // Which endpoints are chosen, or who may connect, can change for any Service.
            self.changed.extend(self.services.keys().cloned());
        }
        self.write_sources();
    }

    /// The networks that NodePorts answer on.
    pub fn set_nodeport_networks(&mut self, networks: &[IpNet]) {
        for family in Family::BOTH {
            let of_family: Vec<IpNet> =
                networks.iter().filter(|net| Family::of(&net.addr()) == family).copied().collect();
            let elements = sources::networks(&of_family);
            self.writer.table.replace_elements(self.sets.of(family).nodeport_ips, elements);
        }
    }

    fn write_sources(&mut self) {
        for (set, elements) in sources::elements(&self.settings, self.node.as_deref(), &self.sets) {
            self.writer.table.replace_elements(set, elements);
        }
    }

    fn write_service_cidrs(&mut self) {
        for family in Family::BOTH {
            let all = self.service_cidrs.values().flatten();
            let cidrs: Vec<IpNet> =
                all.filter(|c| Family::of(&c.addr()) == family).copied().collect();
            let elements = sources::networks(&cidrs);
            self.writer.table.replace_elements(self.sets.of(family).service_cidrs, elements);
        }
    }

    /// Plans what changed since the last time; the table then holds what should be.
    pub fn plan(&mut self) {
        let mut changed: Vec<ObjectName> = std::mem::take(&mut self.changed).into_iter().collect();
        changed.sort_unstable();
        self.claim(&mut changed);
        let planned: Vec<(ObjectName, Vec<PortPlan>)> = changed
            .into_iter()
            .map(|name| {
                let plans = self.plan_service(&name);
                (name, plans)
            })
            .collect();
        // All that goes before all that comes: a frontend may move from one Service to another.
        let mut before = Vec::with_capacity(planned.len());
        for (name, plans) in &planned {
            let entry = self.services.get_mut(name);
            let old = entry.map(|entry| std::mem::take(&mut entry.plans)).unwrap_or_default();
            for port in &old {
                let new = plans.iter().find(|new| is_same_port(port, new));
                self.take_away(name, port, new);
            }
            before.push(old);
        }
        for ((name, plans), before) in planned.into_iter().zip(before) {
            for port in &plans {
                self.put(&name, before.iter().find(|old| is_same_port(old, port)), port);
            }
            let Some(entry) = self.services.get_mut(&name) else { continue };
            self.effects.note(&name, entry.active(), &before, &plans);
            let is_served = entry.active().is_some();
            self.counts.services += usize::from(is_served);
            self.counts.services -= usize::from(std::mem::replace(&mut entry.counted, is_served));
            entry.plans = plans;
            self.note_health_check(&name);
            if self.services[&name].is_gone() {
                self.services.remove(&name);
            }
        }
        self.seeds = HashMap::new();
    }

    /// Counts the endpoints on this node for a health check node port: distinct addresses of ready
    /// endpoints, over all ports and families.
    fn note_health_check(&mut self, name: &ObjectName) {
        let entry = &self.services[name];
        let port = entry.active().and_then(|service| service.health_check_node_port);
        let check = port.map(|port| {
            let slices = entry.slices.values().flat_map(|slice| &slice.endpoints);
            let here = slices.filter(|e| e.node_name.as_ref() == Some(&self.here.node_name));
            let ready: HashSet<IpAddr> =
                here.filter(|e| e.conditions.ready).map(|e| e.address).collect();
            HealthCheck { port, local_endpoints: ready.len() }
        });
        self.effects.note_health_check(name, check);
    }

    /// Settles who serves which frontend. Services that get or lose one to a changed Service are
    /// changed, too.
    fn claim(&mut self, changed: &mut Vec<ObjectName>) {
        let mut affected = Vec::new();
        for name in changed.iter() {
            let Some(entry) = self.services.get_mut(name) else { continue };
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
                        self.notices
                            .push(Notice::TookOver { service: next.clone(), frontend: *frontend });
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

    /// What is to be for a Service.
    fn plan_service(&mut self, name: &ObjectName) -> Vec<PortPlan> {
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
                    let slices = entry.slices.values().map(|slice| &**slice);
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
                    let [cluster, local] = match before {
                        Some(plan) => [plan.cluster.clone(), plan.local.clone()],
                        None => seeded(&self.seeds, &frontends, &self.sets),
                    };
                    let is_udp = port.protocol == Protocol::Udp;
                    plans.push(PortPlan {
                        name: port.name.clone(),
                        protocol: port.protocol,
                        family,
                        cluster: slots::place(&cluster, &selection.cluster),
                        local: slots::place(&local, &selection.local),
                        hairpin: selection.hairpin,
                        affinity: service.affinity,
                        serving: if is_udp { selection.serving } else { Vec::new() },
                        frontends,
                    });
                }
            }
        }
        for frontend in lost.iter().filter(|frontend| !entry.lost.contains(frontend)) {
            if let Some(to) = self.claims.owner(frontend) {
                self.notices.push(Notice::Lost {
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

    /// Takes away what a port had and will not have.
    fn take_away(&mut self, name: &ObjectName, old: &PortPlan, new: Option<&PortPlan>) {
        let sets = self.sets.of(old.family);
        for planned in &old.frontends {
            let successor = new.and_then(|new| Some((new, find(new, &planned.frontend)?)));
            if !successor.is_some_and(|successor| is_same_head((old, planned), successor)) {
                let heads = elements::head(name, old, planned, &self.sets, &mut self.names);
                let kept = successor
                    .map(|(new, f)| elements::head(name, new, f, &self.sets, &mut self.names))
                    .unwrap_or_default();
                for (set, key, _) in &heads {
                    if !kept.iter().any(|(kept, kept_key, _)| (kept, kept_key) == (set, key)) {
                        self.writer.take(*set, key);
                    }
                }
            }
            let kept_slots: Vec<(SetId, usize)> = successor
                .into_iter()
                .flat_map(|(new, f)| elements::slots(new, f, &self.sets))
                .map(|(set, backends)| (set, backends.len()))
                .collect();
            for (set, backends) in elements::slots(old, planned, &self.sets) {
                let kept = kept_slots.iter().find(|(s, _)| *s == set).map_or(0, |(_, len)| *len);
                for slot in kept..backends.len() {
                    self.writer.take(set, &elements::slot_key(&planned.frontend, slot));
                }
            }
            if let Some(ip) = cluster_ip(planned)
                && successor.is_none_or(|(_, f)| cluster_ip(f).is_none())
            {
                self.writer.take_shared(sets.cluster_ips, &Key::builder().address(ip).build());
            }
        }
        for ip in &old.hairpin {
            if new.is_none_or(|new| new.hairpin.binary_search(ip).is_err()) {
                self.writer.take_shared(sets.hairpin, &hairpin_key(*ip));
            }
        }
        if old.affinity.is_some() {
            self.take_away_affinity(name, old, new);
        }
    }

    /// Chains and maps stay for a while, but what the maps remember goes at once.
    fn take_away_affinity(&mut self, name: &ObjectName, old: &PortPlan, new: Option<&PortPlan>) {
        let old = affinity::objects(name, old);
        let new = new.map(|new| affinity::objects(name, new)).unwrap_or_default();
        for chain in old.chains {
            if !new.chains.iter().any(|kept| kept.name == chain.name) {
                self.writer.retire_chain(chain.name);
            }
        }
        for (set, _) in old.maps {
            if !new.maps.iter().any(|(kept, _)| kept.name == set.name) {
                self.purges.insert(set.name.clone(), Vec::new());
                self.writer.retire_set(set.name);
            }
        }
        for (set, keys) in old.sets {
            let Some(id) = self.writer.table.set_id(&set.name) else { continue };
            let kept = new.sets.iter().find(|(kept, _)| kept.name == set.name);
            for key in keys.iter().filter(|key| kept.is_none_or(|(_, kept)| !kept.contains(key))) {
                self.writer.take(id, key);
            }
            if kept.is_none() {
                self.writer.retire_set(set.name);
            }
        }
    }

    /// Puts what a port is to have and has not.
    fn put(&mut self, name: &ObjectName, old: Option<&PortPlan>, new: &PortPlan) {
        let sets = *self.sets.of(new.family);
        if new.affinity.is_some() {
            self.put_affinity(name, old, new);
        }
        for planned in &new.frontends {
            let ancestor = old.and_then(|old| Some((old, find(old, &planned.frontend)?)));
            if !ancestor.is_some_and(|ancestor| is_same_head(ancestor, (new, planned))) {
                let heads = elements::head(name, new, planned, &self.sets, &mut self.names);
                for (set, key, value) in heads {
                    self.writer.put(set, key, value);
                }
            }
            for (set, backends) in elements::slots(new, planned, &self.sets) {
                let there = ancestor
                    .and_then(|(old, f)| {
                        elements::slots(old, f, &self.sets).find(|(s, _)| *s == set)
                    })
                    .map_or(&[][..], |(_, backends)| backends);
                for (slot, backend) in backends.iter().enumerate() {
                    if there.get(slot) != Some(backend) {
                        let key = elements::slot_key(&planned.frontend, slot);
                        self.writer.put(set, key, backend.to_value());
                    }
                }
            }
            if let Some(ip) = cluster_ip(planned)
                && ancestor.is_none_or(|(_, f)| cluster_ip(f).is_none())
            {
                self.writer.put_shared(sets.cluster_ips, Key::builder().address(ip).build());
            }
        }
        for ip in &new.hairpin {
            if old.is_none_or(|old| old.hairpin.binary_search(ip).is_err()) {
                self.writer.put_shared(sets.hairpin, hairpin_key(*ip));
            }
        }
    }

    fn put_affinity(&mut self, name: &ObjectName, old: Option<&PortPlan>, new: &PortPlan) {
        let before = old.map(|old| affinity::objects(name, old)).unwrap_or_default();
        let objects = affinity::objects(name, new);
        for (map, backends) in objects.maps {
            let there = before.maps.iter().find(|(there, _)| there.name == map.name);
            let gone = |there: &[Backend]| there.iter().any(|backend| !backends.contains(backend));
            if there.is_none_or(|(_, there)| gone(there)) {
                self.purges.insert(map.name.clone(), backends);
            }
            self.writer.put_set(map);
        }
        for (set, keys) in objects.sets {
            let id = self.writer.put_set(set);
            keys.into_iter().for_each(|key| self.writer.put(id, key, Value::Member));
        }
        objects.chains.into_iter().for_each(|chain| self.writer.put_chain(chain));
    }

    /// Whether [`Planner::plan`] has something to do.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What the operator should know since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// How much there is of everything.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The Service that an element belongs to, as far as the element tells.
    pub fn owner_of(&self, set: SetId, key: &Key) -> Option<ObjectName> {
        let frontend = self.frontend_of(set, key)?;
        self.claims.owner(&frontend).cloned()
    }

    fn frontend_of(&self, set: SetId, key: &Key) -> Option<Frontend> {
        let bytes = &key.0[..];
        let by_number = |protocol: u8| {
            use crate::model::Protocol::{Sctp, Tcp, Udp};
            [Tcp, Udp, Sctp].into_iter().find(|p| p.number() == protocol)
        };
        let of = |is: fn(&base::FamilySets, SetId) -> bool| {
            Family::BOTH.into_iter().find(|family| is(self.sets.of(*family), set))
        };
        let by_nodeport = of(base::FamilySets::is_by_nodeport);
        let family = by_nodeport.or_else(|| of(base::FamilySets::is_by_address))?;
        let (address, rest) = match by_nodeport {
            Some(_) => (None, bytes),
            None => bytes
                .split_at_checked(base::address_type(family).len())
                .map(|(ip, rest)| (address(ip), rest))?,
        };
        let [protocol, _, _, _, high, low, ..] = *rest else { return None };
        let (protocol, port) = (by_number(protocol)?, u16::from_be_bytes([high, low]));
        Some(match address {
            Some(address) => Frontend::Ip { address, protocol, port },
            None => Frontend::NodePort { family, protocol, port },
        })
    }

    /// Plans a Service as if it were not there, until it changes.
    pub fn quarantine(&mut self, service: &ObjectName) {
        if let Some(entry) = self.services.get_mut(service) {
            entry.quarantined = true;
            self.changed.insert(service.clone());
        }
    }

    /// Tries again with a Service that was quarantined.
    pub fn release(&mut self, service: &ObjectName) {
        if let Some(entry) = self.services.get_mut(service).filter(|entry| entry.quarantined) {
            entry.quarantined = false;
            self.changed.insert(service.clone());
        }
    }

    /// Whether there are chains and sets that nothing leads to.
    pub fn has_unused(&self) -> bool {
        self.writer.has_unused()
    }

    /// Deletes them.
    pub fn delete_unused(&mut self) {
        self.writer.delete_unused();
    }

    /// Affinity maps that may remember endpoints which are gone, each with the endpoints that may
    /// stay.
    pub fn take_purges(&mut self) -> BTreeMap<Arc<str>, Vec<Backend>> {
        std::mem::take(&mut self.purges)
    }

    /// What follows from the plan outside the table.
    pub fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }
}

/// What a port has for a frontend.
fn find<'a>(plan: &'a PortPlan, frontend: &Frontend) -> Option<&'a PlannedFrontend> {
    plan.frontends.iter().find(|planned| planned.frontend == *frontend)
}

/// Whether the elements of a frontend apart from its slots are the same.
fn is_same_head(
    (old, before): (&PortPlan, &PlannedFrontend),
    (new, after): (&PortPlan, &PlannedFrontend),
) -> bool {
    before == after
        && old.affinity.is_some() == new.affinity.is_some()
        && (old.cluster.len(), old.local.len()) == (new.cluster.len(), new.local.len())
}

fn hairpin_key(ip: IpAddr) -> Key {
    Key::builder().address(ip).address(ip).build()
}

fn is_same_port(a: &PortPlan, b: &PortPlan) -> bool {
    (a.family, a.protocol, &a.name) == (b.family, b.protocol, &b.name)
}

/// The ClusterIP that a planned frontend is, if it is one.
fn cluster_ip(planned: &PlannedFrontend) -> Option<IpAddr> {
    match planned.frontend {
        Frontend::Ip { address, .. } if planned.masquerade == ports::Masquerade::BySource => {
            Some(address)
        }
        _ => None,
    }
}

fn all_frontends(service: &Service) -> Vec<Frontend> {
    let of =
        |family| service.ports.iter().flat_map(move |port| ports::frontends(service, port, family));
    let mut frontends: Vec<Frontend> = Family::BOTH.into_iter().flat_map(of).collect();
    frontends.sort_unstable();
    frontends.dedup();
    frontends
}

/// An address in network order.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into())
}

fn backend(data: &Data) -> Option<Backend> {
    let (address_bytes, port) = data.0.split_at_checked(data.0.len().checked_sub(4)?)?;
    Some(Backend { address: address(address_bytes)?, port: u16::from_be_bytes([port[0], port[1]]) })
}

/// Notes the backend of a slot in the kernel.
fn seed_slot(seeds: &mut Seeds, set: SetId, key: &Key, value: &Value) {
    let Value::Data(data) = value else { return };
    let Some((frontend, slot)) = key.0.split_at_checked(key.0.len().saturating_sub(4)) else {
        return;
    };
    let (Ok(slot), Some(backend)) = (<[u8; 4]>::try_from(slot), backend(data)) else { return };
    let slot = u32::from_ne_bytes(slot) as usize;
    // A number that no run of ours wrote is no slot.
    if slot >= 1 << 16 {
        return;
    }
    let slots = seeds.entry((set, Key(frontend.into()))).or_default();
    if slots.len() <= slot {
        slots.resize(slot + 1, None);
    }
    slots[slot] = Some(backend);
}

/// The slots of the first frontend that the kernel has, cluster list and local list.
fn seeded(seeds: &Seeds, frontends: &[PlannedFrontend], sets: &Sets) -> [Vec<Backend>; 2] {
    if seeds.is_empty() {
        return [Vec::new(), Vec::new()];
    }
    [0, 1].map(|list| {
        frontends
            .iter()
            .find_map(|planned| {
                let key = elements::frontend_key(&planned.frontend).build();
                seeds.get(&(elements::slot_maps(&planned.frontend, sets)[list], key))
            })
            .map(|slots| slots.iter().copied().flatten().collect())
            .unwrap_or_default()
    })
}
