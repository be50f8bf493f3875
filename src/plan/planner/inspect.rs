//! A look at the plan from outside, for whoever wants to know why something is as it is.

use super::{Entry, Planner};
use crate::model::{EndpointSlice, ObjectName, Service};
use crate::plan::claims::Rank;
use crate::plan::layout::{SetKind, SetName};
use crate::plan::pods::Pods;
use crate::plan::{Frontend, Here, PlannedFrontend, PortPlan, Settings, elements};
use nft_table::{Family, Key, Set, Value};
use std::net::IpAddr;

/// A Service that is there, and what was made of it.
#[derive(Clone, Copy, Debug)]
pub struct Inspected<'a> {
    pub service: &'a Service,
    /// Sorted by name.
    pub slices: &'a [EndpointSlice],
    /// Sorted by [`PortPlan::key`].
    pub plans: &'a [PortPlan],
    /// Frontends that it wants and an older Service, or one with a better claim, has.
    pub lost: &'a [Frontend],
    /// To how many endpoints each of its frontends was cut, if it was.
    pub cut: Option<usize>,
    planner: &'a Planner,
}

impl Inspected<'_> {
    /// Whether the kernel refused what it is to become; it stays as it was.
    pub fn is_held(&self) -> bool {
        self.planner.held.contains_key(&self.service.name)
    }

    /// Whether what it has become is to be planned, or to be written.
    pub fn is_pending(&self) -> bool {
        let (planner, name) = (self.planner, &self.service.name);
        planner.changed.contains(name)
            || planner.later.contains(name)
            || planner.unconfirmed.contains(name)
    }
}

/// What the kernel should have in a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub set: Set,
    /// Keys with their values; None: there should be nothing.
    pub elements: Vec<(Key, Option<Value>)>,
}

impl Planner {
    /// This node.
    pub fn here(&self) -> &Here {
        &self.here
    }

    /// What the operator configured.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How packets of pods are known.
    pub fn pods(&self) -> &Pods {
        self.writer.pods()
    }

    /// Who wants a frontend: first who has it, then who would have it next.
    pub fn claimants(&self, frontend: &Frontend) -> impl Iterator<Item = &Rank> {
        self.claims.all(frontend)
    }

    /// A Service, where it is there.
    pub fn inspect(&self, name: &ObjectName) -> Option<Inspected<'_>> {
        self.inspected(self.services.get(name)?)
    }

    /// All Services, in no order.
    pub fn inspect_all(&self) -> impl Iterator<Item = Inspected<'_>> {
        self.services.values().filter_map(|entry| self.inspected(entry))
    }

    fn inspected<'a>(&'a self, entry: &'a Entry) -> Option<Inspected<'a>> {
        Some(Inspected {
            service: entry.service.as_deref()?,
            slices: &entry.slices,
            plans: &entry.plans,
            lost: &entry.lost,
            cut: entry.cut,
            planner: self,
        })
    }

    /// The ranges that ClusterIPs are from.
    pub fn is_in_service_cidrs(&self, address: IpAddr) -> bool {
        self.service_cidrs.values().flatten().any(|cidr| cidr.contains(&address))
    }

    /// Whether an address is a ClusterIP of a Service that is served.
    pub fn is_cluster_ip(&self, address: IpAddr) -> bool {
        let name = SetName::new(SetKind::ClusterIps, Family::of(&address));
        let key = Key::builder().address(address).build();
        self.writer.sets().get(name).is_some_and(|id| self.writer.table.get(id, &key).is_some())
    }

    /// All that the kernel should have for a frontend of a port, and what it should not have in its place.
    pub fn expected(&self, plan: &PortPlan, planned: &PlannedFrontend) -> Vec<Expected> {
        let mut expected = Vec::new();
        let mut add = |name: SetName, keys: &mut dyn Iterator<Item = Key>| {
            let table = &self.writer.table;
            let Some(id) = self.writer.sets().get(name) else { return };
            let Some(set) = table.set(id).cloned() else { return };
            let with_value = |key| {
                let value = table.get(id, &key).cloned();
                (key, value)
            };
            let elements: Vec<_> = keys.map(with_value).collect();
            // A list without endpoints asks for nothing.
            if !elements.is_empty() {
                expected.push(Expected { set, elements });
            }
        };
        let key = elements::frontend_key(&planned.frontend).build();
        for kind in elements::head_sets(&planned.frontend) {
            add(SetName::new(kind, plan.family), &mut [key.clone()].into_iter());
        }
        // Also those that its address should not be in.
        if let Some(address) = planned.frontend.address() {
            let key = Key::builder().address(address).build();
            for kind in elements::ADDRESS_SETS {
                add(SetName::new(kind, plan.family), &mut [key.clone()].into_iter());
            }
        }
        if let Some((set, key)) = elements::localhost(plan, planned) {
            add(set, &mut [key].into_iter());
        }
        let endpoints = plan.hairpin.iter().map(|ip| elements::hairpin_key(*ip));
        add(SetName::new(SetKind::Hairpin, plan.family), &mut endpoints.into_iter());
        for slots in elements::slots(plan, planned) {
            add(slots.map, &mut elements::slot_keys(&planned.frontend, slots.numbers()));
        }
        expected
    }
}
