//! Services that are held: the kernel refuses what they are to become, so they stay what they were.
//!
//! Until a plan is committed, the old version of every object that changed is kept. To hold a Service is to
//! exchange its objects for those, and to release it is to exchange them again; the plan follows as it follows
//! any change. Where no old version is known, as after a restart, or none for sure, as after an answer that was lost, or
//! where that is refused as well, as when the table was lost, the Service is planned as if it were not there, but what the kernel has of it stays, whatever it is.

use super::earlier_run::address;
use super::{Entry, Planner, frontend_of};
use crate::model::{EndpointSlice, ObjectName, Service};
use crate::plan::layout::{Balancing, SetKind, SetName};
use crate::plan::{PortPlan, own};
use hashbrown::HashSet;
use nft_table::{Key, Value};
use std::collections::BTreeMap;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

/// Other versions of objects of one Service.
#[derive(Debug, Default)]
pub(super) struct Versions {
    /// Outer None: the Service object is the same in both.
    service: Option<Option<Box<Service>>>,
    /// By name; None: there is no such slice.
    slices: BTreeMap<Arc<str>, Option<EndpointSlice>>,
    /// The kernel may have others than these, or none.
    are_in_doubt: bool,
}

impl Versions {
    fn were_committed(&self) -> bool {
        !self.are_in_doubt && (self.service.is_some() || !self.slices.is_empty())
    }

    /// Keeps the first old version of the Service object.
    pub fn keep_service(&mut self, old: Option<Box<Service>>) {
        self.service.get_or_insert(old);
    }

    /// Keeps the first old version of a slice.
    pub fn keep_slice(&mut self, name: &Arc<str>, old: Option<EndpointSlice>) {
        self.slices.entry(name.clone()).or_insert(old);
    }
}

impl Entry {
    fn exchange(&mut self, versions: &mut Versions) {
        if let Some(service) = &mut versions.service {
            mem::swap(&mut self.service, service);
        }
        for (name, slice) in &mut versions.slices {
            let here = match slice.take() {
                Some(slice) => self.put_slice(slice),
                None => self.remove_slice(name),
            };
            *slice = here;
        }
    }

    fn endpoints(&self) -> usize {
        self.slices.iter().map(|slice| slice.endpoints.len()).sum()
    }
}

impl Planner {
    /// The old versions of a Service that is about to change, if they are needed.
    pub(super) fn versions(&mut self, service: &ObjectName) -> Option<&mut Versions> {
        self.release(service);
        self.has_committed.then(|| self.uncommitted.entry(service.clone()).or_default())
    }

    /// Plans a Service as it was when the kernel took it last, until it is released or changes; if it is held already,
    /// as if it were not there. Whether there is something else to be tried then.
    pub fn hold(&mut self, service: &ObjectName) -> bool {
        let Some(entry) = self.services.get(service) else { return false };
        if entry.absent {
            return false;
        }
        if !self.held.contains_key(service) {
            let versions = self.uncommitted.remove(service).unwrap_or_default();
            if versions.were_committed() {
                self.held.insert(service.clone(), versions);
                self.exchange(service);
                return true;
            }
        }
        self.held.entry(service.clone()).or_default().are_in_doubt = true;
        self.set_absent(service, true);
        true
    }

    /// Plans a Service that is held as it should be.
    pub fn release(&mut self, service: &ObjectName) {
        if !self.held.contains_key(service) {
            return;
        }
        for (set, key) in self.kept.remove(service).unwrap_or_default() {
            self.writer.take(set, &key);
        }
        self.set_absent(service, false);
        self.exchange(service);
        if let Some(versions) = self.held.remove(service).filter(|_| self.has_committed) {
            self.uncommitted.insert(service.clone(), versions);
        }
    }

    fn set_absent(&mut self, service: &ObjectName, absent: bool) {
        let entry = self.services.entry(service.clone()).or_default();
        entry.absent = absent;
        entry.claims_are_stale = true;
        self.changed.insert(service.clone());
        self.at_once.insert(service.clone());
    }

    /// Exchanges the objects of a Service for the other versions.
    fn exchange(&mut self, service: &ObjectName) {
        let Some(versions) = self.held.get_mut(service) else { return };
        let entry = self.services.entry(service.clone()).or_default();
        self.counts.endpoints -= entry.endpoints();
        entry.exchange(versions);
        entry.claims_are_stale = true;
        self.counts.endpoints += entry.endpoints();
        self.changed.insert(service.clone());
        self.at_once.insert(service.clone());
    }

    /// The Services that a refusal may be about and that are not held: those that changed since the last commit, or all
    /// of them.
    pub fn suspects(&self, all: bool) -> Vec<ObjectName> {
        let mut suspects: Vec<ObjectName> = match all {
            false => self.uncommitted.keys().cloned().collect(),
            true => {
                let free = |name: &&ObjectName| !self.held.contains_key(*name);
                self.services.keys().filter(free).cloned().collect()
            }
        };
        suspects.sort_unstable();
        suspects
    }

    /// The Services for which there is a chain, where it is there only because they ask for something that not all do: an
    /// algorithm, limits, session affinity.
    pub fn users_of(&self, chain: &str) -> Vec<ObjectName> {
        let shared = Balancing::parse(chain);
        let uses = |name: &ObjectName, plan: &PortPlan| match shared {
            Some(shared) => shared.algorithm.is_hash() && plan.algorithm == shared.algorithm,
            None if own::has_objects(plan) => {
                let objects = own::objects(name, plan, self.pods());
                objects.chains.iter().any(|there| *there.name == *chain)
            }
            None => false,
        };
        let services = self.services.iter();
        let users = services.filter(|(name, entry)| entry.plans.iter().any(|p| uses(name, p)));
        let mut users: Vec<ObjectName> = users.map(|(name, _)| name.clone()).collect();
        users.sort_unstable();
        users
    }

    /// The kernel may have what is planned, or a part of it.
    pub fn may_be_committed(&mut self) {
        self.uncommitted.values_mut().for_each(|versions| versions.are_in_doubt = true);
    }

    /// The kernel has what is planned.
    pub fn committed(&mut self) {
        self.has_committed = true;
        self.unconfirmed.clear();
        // What is done in part is not what it was, nor what it is to be.
        self.uncommitted.retain(|service, _| self.later.contains(service));
    }

    /// Keeps in the table what the kernel has of Services of which nothing else is known. To be called when the
    /// others are planned, and before the rules are.
    pub(super) fn keep_unknown(&mut self) {
        let absent = |name: &&ObjectName| self.services.get(*name).is_some_and(|e| e.absent);
        let unknown: Vec<ObjectName> = self.held.keys().filter(absent).cloned().collect();
        // What the kernel has of them may lead to whatever nobody else needs.
        self.writer.table.keep_unused(!unknown.is_empty());
        if unknown.is_empty() {
            return;
        }
        let unwanted: Vec<(SetName, Key, Value)> = self
            .writer
            .table
            .unwanted()
            .filter_map(|(id, key, value)| {
                Some((self.writer.sets().name_of(id)?, key.clone(), value.clone()))
            })
            .collect();
        for service in unknown {
            let ips: HashSet<IpAddr> = self.claimed(&service).filter_map(|f| f.address()).collect();
            for (set, key, value) in &unwanted {
                let is_own = match set.kind {
                    // Whose it is cannot be told, and it does no harm.
                    SetKind::Hairpin => true,
                    kind if kind.is_shared() => address(&key.0).is_some_and(|ip| ips.contains(&ip)),
                    _ => self.owner(*set, key) == Some(&service),
                };
                let is_free = |id| self.writer.table.get(id, key).is_none();
                if is_own && self.writer.sets().get(*set).is_some_and(is_free) {
                    let kept = self.kept.entry(service.clone()).or_default();
                    self.writer.put(*set, key.clone(), value.clone());
                    kept.push((*set, key.clone()));
                    // An earlier version may not have known the addresses that are asked for first.
                    if let Some(address) = frontend_of(*set, key).and_then(|f| f.address())
                        && let Some(addresses) = set.kind.addresses()
                    {
                        let addresses = SetName::new(addresses, set.family);
                        let key = Key::builder().address(address).build();
                        self.writer.put(addresses, key.clone(), Value::Member);
                        kept.push((addresses, key));
                    }
                }
            }
        }
    }
}
