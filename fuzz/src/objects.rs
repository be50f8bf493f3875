//! API objects as text, on their way into the table.

use kube_proxy::api::Needed;
use kube_proxy::intake::{Intake, Reading};
use kube_proxy::manifests::fuzzing::{Format, Object, Piece, decode, split};
use kube_proxy::model::{Algorithm, Change, Service};
use kube_proxy::plan::checks::{
    assert_no_dangling_references, assert_sets_have_elements, normal, unreachable,
};
use kube_proxy::plan::layout::{MASQUERADE_ALWAYS, MASQUERADE_FROM_NODE, REJECT};
use kube_proxy::plan::{Counting, DetectLocal, Planner, Settings};
use nft_table::Family;
use nft_table::netlink::Batch;
use std::collections::BTreeMap;

/// What is there before: a node, two Services and their endpoints.
const THERE: &str = include_str!("there.yaml");

/// More elements than this are only slow.
const LARGE: usize = 2000;

/// The objects of a text are planned on top of others and taken away again. On the way the table is one that the kernel
/// would take, it is the same as one planned from nothing, and in the end it is the one from before.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut intake = Intake::default();
    let there = there();
    let new: Vec<Change> = [Format::Yaml, Format::Json]
        .into_iter()
        .flat_map(|format| read(text, format, &mut intake))
        .collect();
    if new.is_empty() || new.iter().map(size).sum::<usize>() > LARGE {
        return;
    }
    let mut planner = planner();
    apply(&mut planner, there.values());
    let before = normal(planner.table());
    let batch = Batch::encode(&planner.table().changes(), 1, None);
    assert!(batch.is_ok(), "{batch:?}");
    planner.table_mut().committed();

    apply(&mut planner, &new);
    let new = keyed(new);
    let mut all = there.clone();
    all.extend(new.clone());
    let mut from_nothing = self::planner();
    apply(&mut from_nothing, all.values().rev());
    assert_eq!(normal(planner.table()), normal(from_nothing.table()));

    let gone = new.iter().map(|(key, change)| there.get(key).cloned().unwrap_or(absent(change)));
    apply(&mut planner, &gone.collect::<Vec<_>>());
    assert_eq!(normal(planner.table()), before);
}

/// A plan of what is there before.
pub fn planner_of_some() -> Planner {
    let mut planner = planner();
    apply(&mut planner, there().values());
    planner
}

fn there() -> BTreeMap<String, Change> {
    thread_local! {
        static THERE_READ: BTreeMap<String, Change> =
            keyed(read(THERE, Format::Yaml, &mut Intake::default()));
    }
    THERE_READ.with(BTreeMap::clone)
}

fn planner() -> Planner {
    let mut planner = Planner::new(Settings {
        node_name: "node-1".into(),
        detect_local: DetectLocal::NodeCidr,
        masquerade_all: false,
        localhost_nodeports: Family::BOTH.into(),
        counting: Counting::Off,
        algorithm: Algorithm::Random,
        reset_gone: false,
    });
    let networks = ["192.0.2.1/32", "2001:db8::1/128"].map(|network| network.parse().unwrap());
    planner.set_nodeport_networks(&networks);
    planner
}

fn apply<'a>(planner: &mut Planner, changes: impl IntoIterator<Item = &'a Change>) {
    changes.into_iter().for_each(|change| planner.apply(change.clone()));
    planner.plan();
    assert_no_dangling_references(planner.table());
    planner.remove_emptied();
    assert_no_dangling_references(planner.table());
    assert_sets_have_elements(planner);
    let batch = Batch::encode(&planner.table().changes(), 1, None);
    assert!(batch.is_ok(), "{batch:?}");
    while planner.has_unused() {
        planner.delete_unused();
    }
    assert_no_dangling_references(planner.table());
    let mut unreachable = unreachable(planner.table());
    unreachable
        .retain(|chain| ![REJECT, MASQUERADE_ALWAYS, MASQUERADE_FROM_NODE].contains(&&**chain));
    assert_eq!(unreachable, [""; 0]);
}

/// The objects of a text, each as a manifest and, if it is JSON, as an API server's.
fn read(text: &str, format: Format, intake: &mut Intake) -> Vec<Change> {
    let pieces = split(text, format, true).unwrap_or_default();
    let mut changes = Vec::new();
    for piece in &pieces {
        for object in decode(text, piece).unwrap_or_default() {
            let reading = take(&object, intake);
            if let (Some(reading), Some(needed)) = (&reading, read_needed(piece, &object, intake)) {
                assert_eq!(*reading, needed, "fields that are needed are read");
            }
            changes.extend(reading.map(|reading| reading.change));
        }
    }
    changes
}

fn take(object: &Object, intake: &mut Intake) -> Option<Reading> {
    Some(match object {
        Object::Service(object) => intake.service(object),
        Object::EndpointSlice(object) => intake.endpoint_slice(object),
        Object::Node(object) => intake.node(object),
        Object::ServiceCidr(object) => intake.service_cidr(object),
        Object::Other(_) => return None,
    })
}

/// The object with those fields only that are read of an API server's.
fn read_needed(piece: &Piece<'_>, object: &Object, intake: &mut Intake) -> Option<Reading> {
    let text = piece.text;
    match object {
        Object::Service(_) => {
            serde_json::from_str(text).ok().map(|Needed(object)| intake.service(&object))
        }
        Object::EndpointSlice(_) => {
            serde_json::from_str(text).ok().map(|Needed(object)| intake.endpoint_slice(&object))
        }
        _ => None,
    }
}

/// The last change of each object.
fn keyed(changes: Vec<Change>) -> BTreeMap<String, Change> {
    let key = |change: &Change| match change {
        Change::Service(name, _) => format!("Service {name}"),
        Change::EndpointSlice(name, _) => format!("EndpointSlice {name}"),
        Change::Node(_) => "Node".to_owned(),
        Change::ServiceCidr(name, _) => format!("ServiceCIDR {name}"),
    };
    changes.into_iter().map(|change| (key(&change), change)).collect()
}

fn absent(change: &Change) -> Change {
    match change.clone() {
        Change::Service(name, _) => Change::Service(name, None),
        Change::EndpointSlice(name, _) => Change::EndpointSlice(name, None),
        Change::Node(_) => Change::Node(None),
        Change::ServiceCidr(name, _) => Change::ServiceCidr(name, None),
    }
}

/// About how many elements an object is.
fn size(change: &Change) -> usize {
    let frontends = |service: &Service| {
        let addresses = [&service.cluster_ips, &service.external_ips, &service.load_balancer_ips];
        addresses.map(Vec::len).iter().sum::<usize>() * service.ports.len()
    };
    match change {
        Change::Service(_, Some(service)) => frontends(service) * (1 + service.source_ranges.len()),
        Change::EndpointSlice(_, Some(slice)) => slice.endpoints.len() * slice.ports.len(),
        _ => 1,
    }
}
