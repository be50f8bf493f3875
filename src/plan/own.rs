//! Objects that belong to a single Service port: of limits, of session affinity and of round robin.

use super::layout::{Balancing, Kind, parting_rules};
use super::pods::Pods;
use super::{Backend, PortPlan, Route, affinity, elements, limits, round_robin};
use crate::model::{Algorithm, ObjectName};
use nft_table::{Chain, Family, Key, Set};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The longest name that the kernel takes is 255 bytes (`NFT_NAME_MAXLEN`); roles need up to 26 of them. With the names
/// that an API server takes, of 63 bytes each, it is 206 at most.
const BASE_MAX: usize = 220;

/// The objects of one Service port in one family.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// Dynamic maps, with the endpoints that may be remembered in them.
    pub maps: Vec<(Set, Vec<Backend>)>,
    /// Sets of the endpoints of each list, where there are two lists; dynamic sets of clients, without elements.
    pub sets: Vec<(Set, Vec<Key>)>,
    pub chains: Vec<Chain>,
}

/// All that a port has for itself.
pub fn objects(service: &ObjectName, plan: &PortPlan, pods: &Pods) -> Objects {
    let mut objects = affinity::objects(service, plan);
    objects.chains.extend(round_robin::chains(service, plan, pods));
    let limits = limits::objects(service, plan);
    objects.sets.extend(limits.sets);
    objects.chains.extend(limits.chains);
    objects.chains.extend(parting_chains(service, plan, pods));
    objects
}

/// What connections go through one after the other; for each a port may have a chain of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Stage {
    Limits,
    Affinity,
    Balancing,
}

/// The chain in which connections of a kind begin at a stage, or at the next one that the port has; None: there are
/// only the shared ones.
pub fn own_chain(
    service: &ObjectName,
    plan: &PortPlan,
    kind: Kind,
    from: Stage,
) -> Option<Arc<str>> {
    if from <= Stage::Limits && plan.limits.is_some() {
        Some(limits::entrance(service, plan, kind))
    } else if from <= Stage::Affinity && plan.affinity.is_some() {
        Some(affinity::balancing_chain(service, plan, kind))
    } else if plan.algorithm == Algorithm::RoundRobin {
        Some(round_robin::chain_name(service, plan, kind))
    } else {
        None
    }
}

/// The shared chain of a kind.
pub fn shared_chain(plan: &PortPlan, kind: Kind) -> Balancing {
    let slots = [plan.cluster.len(), plan.local.len()];
    Balancing::new(kind, plan.family, plan.bank, slots).by(plan.algorithm)
}

/// The chains of a port's own that part pods and the node from others, for external policy Local. Limits come before,
/// unless others are dropped anyway: those are not counted.
fn parting_chains(service: &ObjectName, plan: &PortPlan, pods: &Pods) -> Vec<Chain> {
    let first = if plan.local.is_empty() { Stage::Limits } else { Stage::Affinity };
    let parted = plan.frontends.iter().filter(|planned| planned.route == Route::ExternalLocal);
    let kinds: BTreeSet<Kind> =
        parted.map(|planned| elements::kinds(&planned.frontend)[2]).collect();
    let parting = |kind: Kind| {
        let list = |kind: Kind| if kind.is_local() { &plan.local } else { &plan.cluster };
        let next = |kind| (!list(kind).is_empty()).then(|| chain(service, plan, kind, first));
        let rules = parting_rules(plan.family, pods, kind.parts()?.map(next));
        Some(Chain::regular(own_chain(service, plan, kind, first)?, rules))
    };
    kinds.into_iter().filter_map(parting).collect()
}

/// The chain in which connections of a kind begin at a stage.
pub fn chain(service: &ObjectName, plan: &PortPlan, kind: Kind, from: Stage) -> Arc<str> {
    own_chain(service, plan, kind, from)
        .unwrap_or_else(|| shared_chain(plan, kind).to_string().into())
}

/// Whether a port may have objects of its own.
pub fn has_objects(plan: &PortPlan) -> bool {
    plan.affinity.is_some() || plan.limits.is_some() || plan.algorithm == Algorithm::RoundRobin
}

/// The name of an object in a role.
pub fn name(feature: &str, service: &ObjectName, plan: &PortPlan, role: &str) -> Arc<str> {
    format!("{}/{role}", base_name(feature, service, plan)).into()
}

/// Names of a port's objects begin with this; a role follows behind a slash, which no part of it holds. So
/// no two objects have one name, whatever Services and ports are called. What is no name for nft, which an API server
/// would have refused, is written as a hash behind a dot, so that it is no other one's name either.
pub fn base_name(feature: &str, service: &ObjectName, plan: &PortPlan) -> String {
    let digit = match plan.family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    let protocol = plan.protocol.nft();
    let parts = [&*service.namespace, &*service.name, &*plan.name];
    // Names from manifests were not checked by an API server; nft's own are letters, digits and these.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let port = if plan.name.is_empty() { String::new() } else { format!("/{}", plan.name) };
    let name = format!("{feature}{digit}-{service}/{protocol}{port}");
    if name.len() <= BASE_MAX && parts.iter().all(|part| part.chars().all(is_plain)) {
        return name;
    }
    // Each part with its length, so that it matters where one ends. Whoever writes manifests could choose two names
    // with one hash of a weaker kind.
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(format!("{}:{part}", part.len()));
    }
    format!("{feature}{digit}.{:x}/{protocol}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Algorithm, Protocol};
    use crate::plan::layout::{Bank, Kind};
    use nft_table::Family;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn plan(family: Family, protocol: Protocol, name: &str) -> PortPlan {
        PortPlan {
            name: name.into(),
            protocol,
            family,
            bank: Bank(0),
            frontends: Vec::new(),
            cluster: Vec::new(),
            local: Vec::new(),
            draining: Default::default(),
            hairpin: Vec::new(),
            affinity: None,
            limits: None,
            algorithm: Algorithm::Random,
            flows_stay: Vec::new(),
            reset_gone: false,
        }
    }

    /// Few and short, so that they are alike; some that no API server takes.
    fn name() -> impl Strategy<Value = String> {
        let words = [
            "",
            "a",
            "b",
            "a-b",
            "tcp",
            "cluster",
            "remember",
            "nodeport-cluster",
            "a/tcp",
            "b\"; x",
            "a\nb",
        ];
        prop_oneof![
            8 => prop::sample::select(words.to_vec()).prop_map(str::to_owned),
            1 => "[a-c/]{1,3}",
            1 => prop::sample::select(vec![63, 64, 100, 200, 210, 300]).prop_map(|len| "x".repeat(len)),
        ]
    }

    /// The longest role.
    const LONGEST: &str = "new-1000000-burst-1000000";

    #[test]
    fn every_role_fits() {
        let kinds = Kind::ALL.into_iter().map(Kind::name);
        let longest = kinds.chain([LONGEST, "local-endpoints"]).map(str::len).max().unwrap();
        assert!(BASE_MAX + 1 + longest <= 255, "{longest}");
    }

    /// Where an operator looks for it.
    #[test]
    fn names_of_an_api_server_are_not_hashed() {
        let part = "x".repeat(63);
        let service = ObjectName::new(part.as_str(), part.as_str());
        let plan = plan(Family::V4, Protocol::Sctp, &part);
        assert_eq!(
            base_name("affinity", &service, &plan),
            format!("affinity4-{part}/{part}/sctp/{part}")
        );
    }

    proptest! {
        #[test]
        fn no_two_objects_have_one_name(
            ports in prop::collection::hash_set(
                (name(), name(), name(), any::<bool>(), prop::sample::select(Protocol::ALL.to_vec())), 0..40),
        ) {
            let mut owners = HashMap::new();
            for port in ports {
                let (namespace, service, port_name, is_v6, protocol) = &port;
                let service = ObjectName::new(namespace.as_str(), service.as_str());
                let plan = plan(if *is_v6 { Family::V6 } else { Family::V4 }, *protocol, port_name);
                let base = base_name("affinity", &service, &plan);
                let of_kind = |kind| {
                    let affinity = affinity::balancing_chain(&service, &plan, kind);
                    let limits = limits::entrance(&service, &plan, kind);
                    [affinity, round_robin::chain_name(&service, &plan, kind), limits]
                };
                let kinds = Kind::ALL.into_iter().flat_map(of_kind);
                let names: Vec<String> = kinds
                    .map(|name| name.to_string())
                    .chain([affinity::remember_chain(&service, &plan).to_string()])
                    .chain([super::name("limits", &service, &plan, "over").to_string()])
                    .chain([super::name("limits", &service, &plan, LONGEST)]
                        .map(|set| format!("set {set}")))
                    .chain(["cluster", "local", "local-endpoints"].map(|list| format!("map {base}/{list}")))
                    .collect();
                for name in names {
                    let is_nft = |c: char| c.is_ascii_alphanumeric() || "-_./ ".contains(c);
                    prop_assert!(name.len() < "set ".len() + 256 && name.chars().all(is_nft), "{name:?}");
                    if let Some(other) = owners.insert(name.clone(), port.clone()) {
                        prop_assert!(false, "{name} is of {port:?} and of {other:?}");
                    }
                }
            }
        }
    }
}
