//! Runs cases against the evaluator of the planned table.
//!
//! Every random choice is made in every way. What session affinity remembers then differs from choice to choice,
//! so a case is followed in several *worlds*, one per memory.

use kube_proxy::kernel::addresses::nodeport_networks;
use kube_proxy::plan::Planner;
use nft_table::Family;
use nft_table::Table;
use nft_table::evaluate::{self, Outcome, Packet, Possibility};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use test_support::cases::{
    Case, Expectation, Fate, Manifests, Probe, Served, Source, Topology, read,
};

/// More worlds than this mean that a case has too many clients of Services with affinity.
const WORLDS_MAX: usize = 5000;

/// What may have happened so far.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    /// What dynamic maps hold.
    learned: BTreeMap<(Arc<str>, Vec<u8>), Vec<u8>>,
    /// Endpoints that got a name.
    names: BTreeMap<String, String>,
}

/// Runs the cases of a file, over one family after the other: their memories are apart.
pub fn run(file: &str) {
    for case in read(file) {
        Family::BOTH.into_iter().for_each(|family| run_case(&case, family));
    }
}

fn run_case(case: &Case, family: Family) {
    let mut options = case.options();
    let mut planner = Planner::new(options.settings);
    let mut manifests = Manifests::default();
    let mut worlds = BTreeSet::from([World::default()]);
    for step in &case.steps {
        for change in manifests.changes(&step.objects) {
            planner.apply(change);
        }
        let selection = (options.select_nodeports)(planner.node());
        let networks = nodeport_networks(&selection, &case.topology.local_addresses());
        planner.set_nodeport_networks(&networks);
        planner.plan();
        planner.remove_emptied();
        for (map, may_stay) in planner.take_purges() {
            let may_stay: Vec<Vec<u8>> = may_stay.iter().map(|b| data(b.address, b.port)).collect();
            let purged = worlds.into_iter().map(|mut world| {
                world.learned.retain(|(name, _), data| *name != map || may_stay.contains(data));
                world
            });
            worlds = purged.collect();
        }
        for probe in step.probes.iter().filter(|probe| probe.family() == family) {
            let before = std::mem::take(&mut worlds);
            for world in before {
                worlds.extend(follow(&world, probe, planner.table(), &case.topology));
            }
            assert!(worlds.len() < WORLDS_MAX, "{probe}: too many possibilities");
        }
        while planner.has_unused() {
            planner.delete_unused();
        }
    }
}

/// An endpoint as a dynamic map holds it.
fn data(address: IpAddr, port: u16) -> Vec<u8> {
    nft_table::Data::address_port(address, port).bytes().to_vec()
}

/// Sends a packet into a world, checks what comes of it, and returns the worlds after it.
fn follow(world: &World, probe: &Probe, table: &Table, topology: &Topology) -> Vec<World> {
    let possible = possibilities(world, probe, table, topology);
    let served = match &probe.expected {
        Expectation::Fate(fate) => {
            let expected = match fate {
                Fate::Refused => Outcome::Rejected,
                Fate::Dropped => Outcome::Dropped,
                Fate::Untouched => Outcome::Passed {
                    destination: probe.to.ip(),
                    port: probe.to.port(),
                    translated: false,
                    masqueraded: false,
                },
            };
            for possibility in &possible {
                assert_eq!(possibility.outcome, expected, "{probe}");
            }
            return vec![world.clone()];
        }
        Expectation::Served(served) => served,
    };
    let mut odds: BTreeMap<String, f64> = BTreeMap::new();
    let mut worlds = Vec::new();
    for possibility in possible {
        let endpoint = endpoint(&possibility.outcome, probe, served, topology);
        *odds.entry(endpoint.clone()).or_default() += possibility.odds;
        let mut next = World {
            learned: possibility.learned.into_iter().collect(),
            names: world.names.clone(),
        };
        if let Some(name) = &served.sticks {
            next.names.insert(name.clone(), endpoint);
        }
        worlds.push(next);
    }
    let expected: BTreeSet<&String> = match &served.same {
        Some(name) => BTreeSet::from([&world.names[name]]),
        None => served.endpoints.iter().collect(),
    };
    let even = 1.0 / expected.len() as f64;
    let is_even = odds.values().all(|odds| (odds - even).abs() < 1e-9);
    let reached: BTreeSet<&String> = odds.keys().collect();
    assert_eq!(reached, expected, "{probe}");
    assert!(is_even, "{probe}: {odds:?}");
    worlds
}

/// The endpoint that was reached, after a look at the source that it sees.
fn endpoint(outcome: &Outcome, probe: &Probe, served: &Served, topology: &Topology) -> String {
    let Outcome::Passed { destination, port, masqueraded, .. } = outcome else {
        panic!("{probe}: {outcome:?} instead of reaching an endpoint");
    };
    let expected = match served.source {
        None => *masqueraded,
        Some(Source::Node) => true,
        Some(Source::Kept) => false,
    };
    // What the node itself sends comes from the node in any case.
    let own = probe.source(topology) == topology.source("node", probe.to.ip());
    assert!(own || *masqueraded == expected, "{probe}: masqueraded {masqueraded}");
    let owner = topology.owner(*destination).unwrap_or_else(|| panic!("{probe}: to {destination}"));
    match port {
        8080 => owner.to_owned(),
        port => format!("{owner}:{port}"),
    }
}

/// What may become of a packet.
fn possibilities(
    world: &World,
    probe: &Probe,
    table: &Table,
    topology: &Topology,
) -> Vec<Possibility> {
    let packet = Packet {
        source: probe.source(topology),
        destination: probe.to.ip(),
        protocol: probe.protocol.number(probe.family()),
        source_port: None,
        port: probe.to.port(),
        input: topology.host(&probe.from).expect("checked").interface.clone(),
    };
    let is_local = |address| topology.is_local(address);
    let learned = world.learned.clone().into_iter().collect();
    evaluate::possibilities(table, &packet, &is_local, &learned).unwrap()
}
