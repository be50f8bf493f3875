//! The planned table against a model of where packets should go.

use crate::cluster::{Step, node_address, service_cidrs, settings};
use crate::model::{Expected, Masquerade, Model, Objects, is_local};
use arbitrary::{Arbitrary, Result, Unstructured};
use kube_proxy::model::{Change, Family};
use kube_proxy::plan::checks::{assert_no_dangling_references, assert_sets_have_elements, normal};
use kube_proxy::plan::{Planner, Settings};
use nft_table::evaluate::{Learned, Outcome, Packet, Possibility, possibilities};
use std::collections::{BTreeMap, BTreeSet};

/// More steps are only slow.
const STEPS: usize = 40;

/// A node from its start on.
#[derive(Debug)]
pub struct History {
    settings: Settings,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for History {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<History> {
        let settings = settings(u)?;
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < STEPS {
            steps.push(u.arbitrary()?);
        }
        Ok(History { settings, steps })
    }
}

/// Whatever happens, packets go where the model says. In the end the table is one that the kernel would take, and the same as
/// one planned from nothing.
pub fn check(history: &History) {
    let mut objects = Objects::default();
    let mut planner = planner(&history.settings);
    plan(&mut planner);
    for step in &history.steps {
        match step {
            Step::Packet(packet) => {
                plan(&mut planner);
                let model = Model { settings: &history.settings, objects: &objects };
                send(&planner, packet, &model.expect(packet));
            }
            Step::Tidy => {
                plan(&mut planner);
                planner.delete_unused();
            }
            Step::Service(name, service) => {
                set(&mut objects.services, name, service);
                planner.apply(Change::Service(name.clone(), service.clone().map(Box::new)));
            }
            Step::Slice(name, slice) => {
                set(&mut objects.slices, name, slice);
                planner.apply(Change::EndpointSlice(name.clone(), slice.clone().map(Box::new)));
            }
            Step::Node(node) => {
                objects.node = node.clone();
                planner.apply(Change::Node(node.clone().map(Box::new)));
            }
            Step::ServiceCidrs(there) => {
                objects.has_service_cidrs = *there;
                planner.apply(service_cidrs(*there));
            }
        }
    }
    plan(&mut planner);
    assert_no_dangling_references(planner.table());
    assert_sets_have_elements(&planner);
    while planner.has_unused() {
        planner.delete_unused();
    }
    assert_no_dangling_references(planner.table());
    let again = from_nothing(&history.settings, objects);
    assert_eq!(normal(planner.table()), normal(again.table()));
}

fn planner(settings: &Settings) -> Planner {
    let mut planner = Planner::new(settings.clone());
    planner.set_nodeport_networks(&Family::BOTH.map(|family| node_address(family).into()));
    planner
}

fn from_nothing(settings: &Settings, objects: Objects) -> Planner {
    let mut planner = planner(settings);
    for (name, slice) in objects.slices {
        planner.apply(Change::EndpointSlice(name, Some(slice.into())));
    }
    for (name, service) in objects.services {
        planner.apply(Change::Service(name, Some(service.into())));
    }
    planner.apply(Change::Node(objects.node.map(Box::new)));
    planner.apply(service_cidrs(objects.has_service_cidrs));
    plan(&mut planner);
    planner
}

fn plan(planner: &mut Planner) {
    planner.plan();
    planner.remove_emptied();
}

fn set<K: Ord + Clone, V: Clone>(map: &mut BTreeMap<K, V>, key: &K, value: &Option<V>) {
    match value {
        Some(value) => drop(map.insert(key.clone(), value.clone())),
        None => drop(map.remove(key)),
    }
}

fn send(planner: &Planner, packet: &Packet, expected: &Expected) {
    let follow = |learned: &Learned| -> Vec<Possibility> {
        let all = possibilities(planner.table(), packet, &is_local, learned);
        all.unwrap_or_else(|error| panic!("{packet:?}: {error}"))
    };
    let all = follow(&Learned::new());
    let Expected::Served { backends, masquerade, sticks } = expected else {
        for Possibility { outcome, .. } in &all {
            assert_eq!(*outcome, fate(packet, expected), "{packet:?}");
        }
        return;
    };
    let mut odds = BTreeMap::new();
    for Possibility { odds: probability, outcome, learned } in &all {
        let Outcome::Passed { destination, port, masqueraded, .. } = outcome else {
            panic!("{packet:?}: {outcome:?} instead of {expected:?}");
        };
        *odds.entry((*destination, *port)).or_insert(0.0) += probability;
        // What ends on this machine keeps its source.
        let leaves = packet.input.is_none() || !is_local(*destination);
        let is_masqueraded = match masquerade {
            Masquerade::Always => true,
            Masquerade::Hairpin(addresses) => addresses.contains(destination),
        };
        assert_eq!(*masqueraded, leaves && is_masqueraded, "{packet:?} to {destination}");
        if *sticks {
            let again = follow(learned);
            assert!(again.iter().all(|next| next.outcome == *outcome), "{packet:?}: {again:?}");
        }
    }
    assert_eq!(odds.keys().copied().collect::<BTreeSet<_>>(), *backends, "{packet:?}");
    let even = 1.0 / backends.len() as f64;
    assert!(odds.values().all(|odds| (odds - even).abs() < 1e-9), "{packet:?}: {odds:?}");
}

fn fate(packet: &Packet, expected: &Expected) -> Outcome {
    match expected {
        Expected::Rejected => Outcome::Rejected,
        Expected::Dropped => Outcome::Dropped,
        _ => Outcome::Passed {
            destination: packet.destination,
            port: packet.port,
            translated: false,
            masqueraded: false,
        },
    }
}
