//! Keeps the table in step with Services, endpoints and the node, and redoes only what changed.

mod banks;
mod earlier_run;
mod frontends;
mod held;
mod inspect;
mod owner;
mod turns;
mod write;

use super::claims::{Claims, Reason};
use super::effects::Effects;
use super::layout::{Bank, SetKind, SetName};
use super::pods::Pods;
use super::writer::{ChainNames, Writer};
use super::{Backend, Frontend, Here, PortPlan, Settings, elements, own, ports};
use crate::model::{Change, EndpointSlice, Node, ObjectName, Service};
use banks::Banks;
use earlier_run::EarlierRun;
pub use earlier_run::is_this_layout;
pub use frontends::SLOTS;
use hashbrown::{HashMap, HashSet};
use held::Versions;
pub use inspect::{Expected, Inspected};
use ipnet::IpNet;
use nft_table::{Family, Key, Table};
pub use owner::frontend_of;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who of several Services that want a frontend has it; the operator is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dispute {
    /// Two Services want the same frontend, and this one does not get it.
    Lost { service: ObjectName, frontend: Frontend, to: ObjectName },
    /// A Service got a frontend that another one had.
    TookOver { service: ObjectName, frontend: Frontend },
    /// A Service has so many frontends that each of them gets so many of its endpoints only.
    Cut { service: ObjectName, endpoints: usize },
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services that are served.
    pub services: usize,
    /// Those of them that limit clients.
    pub limited_services: usize,
    /// Endpoints in all slices, whatever their conditions.
    pub endpoints: usize,
    /// Frontends that a Service wants and an older one has.
    pub lost_frontends: usize,
}

/// A Service with its slices, as far as they are known, and what was planned for it.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Box<Service>>,
    /// Sorted by name, so that the order is the same on every node and after a restart.
    slices: Vec<EndpointSlice>,
    /// When it was created, and the frontends that it wants, sorted.
    claims: Option<(i64, Vec<(Frontend, Reason)>)>,
    /// The Service is another one than that of the claims.
    claims_are_stale: bool,
    /// Frontends that it wants and does not have, sorted.
    lost: Vec<Frontend>,
    /// To how many endpoints a frontend its ports were cut, if they were.
    cut: Option<usize>,
    /// Sorted by [`PortPlan::key`].
    plans: Vec<PortPlan>,
    /// It is held, and nothing is known of what it was: planned as if it were not there.
    absent: bool,
    /// It is counted as served, and as limited.
    counted: [bool; 2],
}

impl Entry {
    fn is_gone(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }

    fn find_slice(&self, name: &str) -> Result<usize, usize> {
        self.slices.binary_search_by(|slice| (*slice.name.name).cmp(name))
    }

    /// Adds a slice, or replaces the one of that name, which it returns.
    fn put_slice(&mut self, slice: EndpointSlice) -> Option<EndpointSlice> {
        match self.find_slice(&slice.name.name) {
            Ok(place) => Some(std::mem::replace(&mut self.slices[place], slice)),
            Err(place) => {
                // Most Services have one.
                self.slices.reserve_exact(1);
                self.slices.insert(place, slice);
                None
            }
        }
    }

    fn remove_slice(&mut self, name: &str) -> Option<EndpointSlice> {
        self.find_slice(name).ok().map(|place| self.slices.remove(place))
    }

    fn has_own(&self) -> bool {
        self.plans.iter().any(own::has_objects)
    }

    fn active(&self) -> Option<&Service> {
        self.service.as_deref().filter(|_| !self.absent)
    }
}

/// The plan. [`Planner::apply`] takes in changes, [`Planner::plan`] puts what follows from them into the table.
#[derive(Debug)]
pub struct Planner {
    writer: Writer,
    names: ChainNames,
    settings: Settings,
    here: Here,
    node: Option<Box<Node>>,
    services: HashMap<ObjectName, Entry>,
    /// The Service of every slice.
    slices: HashMap<ObjectName, ObjectName>,
    service_cidrs: BTreeMap<Arc<str>, Vec<IpNet>>,
    /// What NodePorts answer on.
    nodeport_networks: Vec<IpNet>,
    banks: Banks,
    claims: Claims,
    changed: HashSet<ObjectName>,
    /// Old versions of what changed since the last commit.
    uncommitted: HashMap<ObjectName, Versions>,
    /// Services that stay as they were, with the versions that they should be.
    held: BTreeMap<ObjectName, Versions>,
    /// What the kernel has of Services that are held and absent.
    kept: BTreeMap<ObjectName, Vec<(SetName, Key)>>,
    has_committed: bool,
    /// Changed Services that wait for a later turn, wholly or in part.
    later: BTreeSet<ObjectName>,
    /// Those of them that do not wait: what the table has of them is not what they had.
    at_once: BTreeSet<ObjectName>,
    /// All that changed is to be planned in the next turn, however much it is.
    all_next: bool,
    /// Services planned since the last commit.
    unconfirmed: BTreeSet<ObjectName>,
    /// How much is planned in a turn, see [`turns`].
    work: usize,
    earlier_run: EarlierRun,
    disputes: Vec<Dispute>,
    effects: Effects,
    counts: Counts,
    purges: BTreeMap<Arc<str>, Vec<Backend>>,
}

impl Planner {
    /// A plan without any Service.
    pub fn new(settings: Settings) -> Planner {
        let pods = Pods::new(&settings, None);
        let here = Here { node_name: settings.node_name.clone(), zone: None };
        Planner {
            writer: Writer::new(pods, settings.masquerade_all, settings.counting),
            names: ChainNames::default(),
            settings,
            here,
            node: None,
            services: HashMap::new(),
            slices: HashMap::new(),
            service_cidrs: BTreeMap::new(),
            nodeport_networks: Vec::new(),
            banks: Banks::default(),
            claims: Claims::default(),
            changed: HashSet::new(),
            uncommitted: HashMap::new(),
            held: BTreeMap::new(),
            kept: BTreeMap::new(),
            has_committed: false,
            later: BTreeSet::new(),
            at_once: BTreeSet::new(),
            all_next: false,
            unconfirmed: BTreeSet::new(),
            work: turns::WORK,
            earlier_run: HashMap::new(),
            disputes: Vec::new(),
            effects: Effects::default(),
            counts: Counts::default(),
            purges: BTreeMap::new(),
        }
    }

    /// The table as planned.
    pub fn table(&self) -> &Table {
        &self.writer.table
    }

    /// The table, to tell it what the kernel has.
    pub fn table_mut(&mut self) -> &mut Table {
        &mut self.writer.table
    }

    /// The number of elements of every set and map that there can be, of all banks together.
    pub fn element_counts(&self) -> BTreeMap<SetName, usize> {
        let mut counts: BTreeMap<SetName, usize> = SetName::all().map(|name| (name, 0)).collect();
        for (name, id) in self.writer.sets().iter() {
            *counts.entry(name.in_bank(Bank(0))).or_default() += self.writer.table.len(id);
        }
        counts
    }

    /// This node's object, as last seen.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_deref()
    }

    /// Takes in a change. Nothing is planned before [`Planner::plan`].
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Service(name, service) => {
                let there = self.services.get(&name).and_then(|entry| entry.service.as_ref());
                if there == service.as_ref() && !self.held.contains_key(&name) {
                    return;
                }
                self.put_service(name, service);
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

    fn put_service(&mut self, name: ObjectName, service: Option<Box<Service>>) {
        self.release(&name);
        let entry = self.services.entry(name.clone()).or_default();
        entry.claims_are_stale = true;
        let old = std::mem::replace(&mut entry.service, service);
        if let Some(versions) = self.versions(&name) {
            versions.keep_service(old);
        }
        self.changed.insert(name);
    }

    fn apply_slice(&mut self, name: ObjectName, slice: Option<Box<EndpointSlice>>) {
        let service = slice.as_ref().map(|slice| slice.service_name());
        let before = match &service {
            Some(service) => self.slices.insert(name.clone(), service.clone()),
            None => self.slices.remove(&name),
        };
        if let Some(before) = before.filter(|before| Some(before) != service.as_ref()) {
            self.put_slice(before, &name.name, None);
        }
        if let (Some(service), Some(slice)) = (service, slice) {
            self.put_slice(service, &name.name, Some(*slice));
        }
    }

    fn put_slice(&mut self, service: ObjectName, name: &Arc<str>, slice: Option<EndpointSlice>) {
        self.release(&service);
        let endpoints =
            |slice: &Option<EndpointSlice>| slice.as_ref().map_or(0, |s| s.endpoints.len());
        let entry = self.services.entry(service.clone()).or_default();
        self.counts.endpoints += endpoints(&slice);
        let old = match slice {
            Some(mut slice) => {
                slice.sort_ports();
                entry.put_slice(slice)
            }
            None => entry.remove_slice(name),
        };
        self.counts.endpoints -= endpoints(&old);
        if let Some(versions) = self.versions(&service) {
            versions.keep_slice(name, old);
        }
        self.changed.insert(service);
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
        let pods = Pods::new(&self.settings, self.node.as_deref());
        if *self.writer.pods() != pods {
            // Chains of single Services hold it, too.
            let with_own = self.services.iter().filter(|(_, entry)| entry.has_own());
            self.changed.extend(with_own.map(|(name, _)| name.clone()));
            self.writer.set_pods(pods);
        }
    }

    /// The networks that NodePorts answer on.
    pub fn set_nodeport_networks(&mut self, networks: &[IpNet]) {
        self.nodeport_networks = networks.to_vec();
    }

    /// The networks that NodePorts answer on.
    pub fn nodeport_networks(&self) -> &[IpNet] {
        &self.nodeport_networks
    }

    /// Addresses of NodePorts are there while there are NodePorts.
    fn write_nodeport_networks(&mut self) {
        for family in Family::BOTH {
            let nodeports = SetName::new(SetKind::ServiceNodeports, family);
            let in_use = self.writer.has_elements(nodeports);
            let all = if in_use { &self.nodeport_networks[..] } else { &[] };
            let (addresses, networks): (Vec<IpNet>, Vec<IpNet>) =
                all.iter().copied().partition(elements::is_few_addresses);
            let addresses = elements::addresses(addresses.iter(), family);
            self.writer.replace(SetName::new(SetKind::NodeportIps, family), addresses);
            let networks = elements::networks(networks.iter(), family);
            self.writer.replace(SetName::new(SetKind::NodeportNetworks, family), networks);
        }
    }

    fn write_service_cidrs(&mut self) {
        for family in Family::BOTH {
            let elements = elements::networks(self.service_cidrs.values().flatten(), family);
            self.writer.replace(SetName::new(SetKind::ServiceCidrs, family), elements);
        }
    }

    /// Plans what changed since the last time, or as much of it as a turn may have ([`Planner::has_postponed`]); the
    /// table then holds what should be, and besides the sets that ceased to
    /// have elements ([`Planner::remove_emptied`]).
    pub fn plan(&mut self) {
        let mut changed: Vec<ObjectName> = std::mem::take(&mut self.changed).into_iter().collect();
        changed.sort_unstable();
        self.claim(&mut changed);
        let planned = self.plan_turn(changed);
        // All that goes before all that comes: a frontend may move from one Service to another.
        let mut before = Vec::with_capacity(planned.len());
        for (name, plans) in &planned {
            let entry = self.services.get_mut(name);
            let old = entry.map(|entry| std::mem::take(&mut entry.plans)).unwrap_or_default();
            for (old, new) in ports::pairs(&old, plans) {
                let Some(port) = old else { continue };
                self.banks.leave(port);
                if has_changed(port, new) {
                    self.take_away(name, port, new);
                }
            }
            before.push(old);
        }
        for ((name, plans), before) in planned.into_iter().zip(before) {
            for (old, new) in ports::pairs(&before, &plans) {
                if let Some(port) = new.filter(|port| has_changed(port, old)) {
                    self.put(&name, old, port);
                }
            }
            let Some(entry) = self.services.get_mut(&name) else { continue };
            self.effects.note(&name, entry.active(), &before, &plans);
            let is_limited = entry.active().is_some_and(|service| service.limits.is_some());
            let is_counted = [entry.active().is_some(), is_limited];
            let was_counted = std::mem::replace(&mut entry.counted, is_counted);
            let counts = [&mut self.counts.services, &mut self.counts.limited_services];
            for ((count, is), was) in counts.into_iter().zip(is_counted).zip(was_counted) {
                *count = *count + usize::from(is) - usize::from(was);
            }
            entry.plans = plans;
            self.note_health_check(&name);
            // Some of its ports may be left for a later turn.
            if self.services[&name].is_gone() && self.services[&name].plans.is_empty() {
                self.services.remove(&name);
            }
        }
        self.earlier_run = HashMap::new();
        self.keep_unknown();
        self.write_nodeport_networks();
        self.writer.write_rules();
    }

    /// Takes away the sets that [`Planner::plan`] left without an element, and the rules that look into them. To be
    /// called when the kernel has what was planned.
    pub fn remove_emptied(&mut self) {
        self.writer.remove_emptied();
    }

    /// Refuses no connections for now, or does so again: while a table is being written, who is not found in
    /// it may well be served.
    pub fn hold_refusals(&mut self, hold: bool) {
        self.writer.hold_refusals(hold);
    }

    /// What the operator should know since the last call.
    pub fn take_disputes(&mut self) -> Vec<Dispute> {
        std::mem::take(&mut self.disputes)
    }

    /// How much there is of everything.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether there are chains and sets that nothing leads to.
    pub fn has_unused(&self) -> bool {
        self.writer.has_unused()
    }

    /// Deletes the chains and sets that nothing leads to.
    pub fn delete_unused(&mut self) {
        self.writer.delete_unused();
    }

    /// Forgets the chains and sets that nothing leads to and that the kernel has never had.
    pub fn drop_unwritten(&mut self) {
        self.writer.drop_unwritten();
    }

    /// Affinity maps that may remember endpoints which are gone, each with the endpoints that may
    /// stay.
    pub fn take_purges(&mut self) -> BTreeMap<Arc<str>, Vec<Backend>> {
        std::mem::take(&mut self.purges)
    }

    /// The table was away for a while: flows may have begun that nobody translated.
    pub fn note_absence(&mut self) {
        for plan in self.services.values().flat_map(|entry| &entry.plans) {
            self.effects.note_absence(plan);
        }
    }

    /// What follows from the plan outside the table.
    pub fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }
}

/// Whether the elements of a port may be others. What a port has of its own depends on more than the plan.
fn has_changed(port: &PortPlan, same: Option<&PortPlan>) -> bool {
    same != Some(port) || own::has_objects(port)
}
