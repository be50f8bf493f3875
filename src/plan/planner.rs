//! Keeps the table in step with Services, endpoints and the node, and redoes only what changed.

use super::balancing::Balancing;
use super::base::{self, Sets};
use super::claims::{Claims, Rank};
use super::writer::{ChainNames, Writer};
use super::{Backend, Frontend, Here, PlannedFrontend, PortPlan, Settings};
use super::{elements, ports, select, slots, sources};
use crate::family::Family;
use crate::model::{Change, EndpointSlice, Node, ObjectName, Service};
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
            entry.slices.remove(&name.name);
            self.changed.insert(before);
        }
        if let (Some(service), Some(slice)) = (service, slice) {
            let entry = self.services.entry(service.clone()).or_default();
            entry.slices.insert(name.name, slice);
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
        for (name, plans) in &planned {
            self.take_away(name, plans);
        }
        for (name, plans) in planned {
            self.put(&name, &plans);
            match self.services.get_mut(&name) {
                Some(entry) if entry.is_gone() => drop(self.services.remove(&name)),
                Some(entry) => entry.plans = plans,
                None => {}
            }
        }
        self.seeds = HashMap::new();
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
                    plans.push(PortPlan {
                        name: port.name.clone(),
                        protocol: port.protocol,
                        family,
                        cluster: slots::place(&cluster, &selection.cluster),
                        local: slots::place(&local, &selection.local),
                        hairpin: selection.hairpin,
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
        entry.lost = lost;
        plans
    }

    /// Takes away what a Service had and will not have.
    fn take_away(&mut self, name: &ObjectName, plans: &[PortPlan]) {
        let Some(entry) = self.services.get_mut(name) else { return };
        let before = std::mem::take(&mut entry.plans);
        for old in &before {
            let new = plans.iter().find(|new| is_same_port(old, new));
            self.take_away_port(name, old, new);
        }
        if let Some(entry) = self.services.get_mut(name) {
            entry.plans = before;
        }
    }

    fn take_away_port(&mut self, name: &ObjectName, old: &PortPlan, new: Option<&PortPlan>) {
        let sets = self.sets.of(old.family);
        for planned in &old.frontends {
            let successor = new.and_then(|new| {
                new.frontends.iter().find(|f| f.frontend == planned.frontend).map(|f| (new, f))
            });
            let heads = elements::head(name, old, planned, &self.sets, &mut self.names);
            let kept = successor
                .map(|(new, f)| elements::head(name, new, f, &self.sets, &mut self.names))
                .unwrap_or_default();
            for (set, key, _) in &heads {
                if !kept.iter().any(|(kept_set, kept_key, _)| (kept_set, kept_key) == (set, key)) {
                    self.writer.take(*set, key);
                }
            }
            let kept_slots: Vec<(SetId, usize)> = successor
                .map(|(new, f)| {
                    elements::slots(new, f, &self.sets).map(|(s, b)| (s, b.len())).collect()
                })
                .unwrap_or_default();
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
                self.writer
                    .take_shared(sets.hairpin, &Key::builder().address(*ip).address(*ip).build());
            }
        }
    }

    /// Puts what a Service is to have and has not.
    fn put(&mut self, name: &ObjectName, plans: &[PortPlan]) {
        let before = self
            .services
            .get_mut(name)
            .map(|entry| std::mem::take(&mut entry.plans))
            .unwrap_or_default();
        for new in plans {
            let old = before.iter().find(|old| is_same_port(old, new));
            self.put_port(name, old, new);
        }
    }

    fn put_port(&mut self, name: &ObjectName, old: Option<&PortPlan>, new: &PortPlan) {
        let sets = self.sets.of(new.family);
        for planned in &new.frontends {
            let ancestor = old.and_then(|old| {
                old.frontends.iter().find(|f| f.frontend == planned.frontend).map(|f| (old, f))
            });
            let is_same = ancestor.is_some_and(|(old, f)| {
                f == planned
                    && (old.cluster.len(), old.local.len()) == (new.cluster.len(), new.local.len())
            });
            if !is_same {
                for (set, key, value) in
                    elements::head(name, new, planned, &self.sets, &mut self.names)
                {
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
                        self.writer.put(set, key, elements::slot_value(backend));
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
                self.writer
                    .put_shared(sets.hairpin, Key::builder().address(*ip).address(*ip).build());
            }
        }
    }

    /// Whether [`Planner::plan`] has something to do.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What the operator should know since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// How many Services are served.
    pub fn service_count(&self) -> usize {
        self.services.values().filter(|entry| entry.active().is_some()).count()
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

    /// Whether there are shared chains that nothing leads to.
    pub fn has_idle_chains(&self) -> bool {
        self.writer.has_idle_chains()
    }

    /// Deletes them.
    pub fn delete_idle_chains(&mut self) {
        self.writer.delete_idle_chains();
    }
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
