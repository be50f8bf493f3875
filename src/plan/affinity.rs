//! Session affinity (ClientIP): the only chains and maps that belong to a single Service.
//!
//! For each list of endpoints that frontends of the port use (cluster, local) there is a dynamic map from
//! client address to endpoint. The balancing chain of the port looks into it and falls through to the
//! shared chain; when a connection was translated, the remember chain writes the endpoint down, in the
//! map of every list that it is in. For `shop/cart`, port `http`, with three endpoints:
//!
//! ```text
//! map affinity4-shop/cart/tcp/http/cluster {
//!     typeof ip saddr : ip daddr . th dport
//!     size 65535
//!     flags dynamic,timeout
//! }
//! chain affinity4-shop/cart/tcp/http/cluster {
//!     meta l4proto tcp dnat ip to ip saddr map @affinity4-shop/cart/tcp/http/cluster
//!     goto cluster4-3
//! }
//! chain affinity4-shop/cart/tcp/http/remember {
//!     update @affinity4-shop/cart/tcp/http/cluster { ip saddr timeout 3h : ip daddr . th dport }
//! }
//! ```
//!
//! The timeout stands in the rule and not in the map, so that it can change without losing anybody.
//! What the maps hold is the kernel's: endpoints that leave a list are purged by the engine.

use super::layout::{Balancing, Kind, address_type, external_rules};
use super::pods::Pods;
use super::{Backend, Frontend, PortPlan, Route};
use crate::model::ObjectName;
use nft_table::Family;
use nft_table::{
    Chain, Constant, DataType, Expression, Key, Rule, Set, SetData, SetFlags, Statement, Verdict,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The most clients that a map remembers: the kernel's default for dynamic sets. Clients beyond that
/// are balanced anew with each connection.
const CLIENTS_MAX: u32 = 65_535;

/// The longest name that the kernel takes is 255 bytes (`NFT_NAME_MAXLEN`); suffixes need some. With the names
/// that an API server takes, of 63 bytes each, it is 206 at most.
const BASE_MAX: usize = 230;

/// The objects of one Service port in one family.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// Dynamic maps, with the endpoints that may be remembered in them.
    pub maps: Vec<(Set, Vec<Backend>)>,
    /// Sets of the endpoints of each list, where there are two lists.
    pub sets: Vec<(Set, Vec<Key>)>,
    pub chains: Vec<Chain>,
}

/// Names of a port's objects begin with this; a role follows behind a slash, which no part of it holds. So
/// no two objects have one name, whatever Services and ports are called. What is no name for nft, which an API server
/// would have refused, is written as a hash behind a dot, so that it is no other one's name either.
fn base_name(service: &ObjectName, plan: &PortPlan) -> String {
    let digit = match plan.family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    let protocol = plan.protocol.nft();
    let parts = [&*service.namespace, &*service.name, &*plan.name];
    // Names from manifests were not checked by an API server; nft's own are letters, digits and these.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let port = if plan.name.is_empty() { String::new() } else { format!("/{}", plan.name) };
    let name = format!("affinity{digit}-{service}/{protocol}{port}");
    if name.len() <= BASE_MAX && parts.iter().all(|part| part.chars().all(is_plain)) {
        return name;
    }
    // Each part with its length, so that it matters where one ends. Whoever writes manifests could choose two names
    // with one hash of a weaker kind.
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(format!("{}:{part}", part.len()));
    }
    format!("affinity{digit}.{:x}/{protocol}", hash.finalize())
}

/// The chain that stands for a shared one of this kind.
pub fn balancing_chain(service: &ObjectName, plan: &PortPlan, kind: Kind) -> Arc<str> {
    format!("{}/{}", base_name(service, plan), kind.name()).into()
}

/// The chain that remembers.
pub fn remember_chain(service: &ObjectName, plan: &PortPlan) -> Arc<str> {
    format!("{}/remember", base_name(service, plan)).into()
}

/// What a port with affinity needs; nothing without affinity or without endpoints.
pub fn objects(service: &ObjectName, plan: &PortPlan, pods: &Pods) -> Objects {
    let Some(timeout) = plan.affinity else { return Objects::default() };
    let routes = || plan.frontends.iter().map(|planned| planned.route);
    let cluster = !plan.cluster.is_empty()
        && routes().any(|route| matches!(route, Route::Cluster | Route::ExternalLocal));
    let local = !plan.local.is_empty()
        && routes().any(|route| matches!(route, Route::Local | Route::ExternalLocal));
    let base = base_name(service, plan);
    let lists: Vec<(&str, &[Backend])> =
        [(cluster, "cluster", &plan.cluster), (local, "local", &plan.local)]
            .into_iter()
            .filter(|(used, ..)| *used)
            .map(|(_, name, backends)| (name, &backends[..]))
            .collect();
    let mut objects = Objects::default();
    let mut remember = Vec::new();
    for (list, backends) in &lists {
        let map: Arc<str> = format!("{base}/{list}").into();
        objects.maps.push((dynamic_map(map.clone(), plan.family), backends.to_vec()));
        let mut statements = Vec::new();
        if lists.len() > 1 {
            let name: Arc<str> = format!("{base}/{list}-endpoints").into();
            let key = |b: &Backend| Key::builder().address(b.address).port(b.port).build();
            let keys = backends.iter().map(key).collect();
            objects.sets.push((endpoint_set(name.clone(), plan.family), keys));
            statements.push(Statement::InSet {
                key: chosen_endpoint(plan.family),
                set: name,
                negated: false,
            });
        }
        statements.push(Statement::Update {
            map,
            key: vec![Expression::SourceAddress(plan.family)],
            data: chosen_endpoint(plan.family),
            timeout_seconds: timeout.as_secs().max(1),
        });
        remember.push(Rule::new(statements));
    }
    let is_nodeport = |f: &Frontend| matches!(f, Frontend::NodePort { .. });
    for by_nodeport in [false, true] {
        let frontends =
            || plan.frontends.iter().filter(|f| is_nodeport(&f.frontend) == by_nodeport);
        for (list, backends) in &lists {
            let (kind, route) = match (*list, by_nodeport) {
                ("cluster", false) => (Kind::Cluster, Route::Cluster),
                ("cluster", true) => (Kind::NodePortCluster, Route::Cluster),
                (_, false) => (Kind::Local, Route::Local),
                (_, true) => (Kind::NodePortLocal, Route::Local),
            };
            let mut routes = frontends().map(|planned| planned.route);
            if !routes.any(|used| used == route || used == Route::ExternalLocal) {
                continue;
            }
            let map = format!("{base}/{list}").into();
            objects.chains.push(look_up_first(service, plan, kind, map, backends.len()));
        }
        if local && frontends().any(|planned| planned.route == Route::ExternalLocal) {
            let (kind, next) = match by_nodeport {
                false => (Kind::ExternalLocal, Kind::Local),
                true => (Kind::ExternalNodePortLocal, Kind::NodePortLocal),
            };
            let next = Verdict::Goto(balancing_chain(service, plan, next));
            let name = balancing_chain(service, plan, kind);
            objects.chains.push(Chain::regular(name, external_rules(plan.family, pods, next)));
        }
    }
    if !remember.is_empty() {
        objects.chains.push(Chain::regular(remember_chain(service, plan), remember));
    }
    objects
}

/// A chain that looks into the map and falls through to the shared chain.
fn look_up_first(
    service: &ObjectName,
    plan: &PortPlan,
    kind: Kind,
    map: Arc<str>,
    endpoints: usize,
) -> Chain {
    let look_up = Rule::new(vec![
        Statement::Match {
            expression: Expression::Protocol,
            constant: Constant::Protocol(plan.protocol.number()),
            negated: false,
        },
        Statement::Dnat {
            family: plan.family,
            key: vec![Expression::SourceAddress(plan.family)],
            map,
        },
    ]);
    let shared = Balancing::new(kind, plan.family, plan.bank, endpoints).by(plan.algorithm);
    let shared = shared.to_string().into();
    let fall_through = Rule::new(vec![Statement::Verdict(Verdict::Goto(shared))]);
    Chain::regular(balancing_chain(service, plan, kind), vec![look_up, fall_through])
}

/// `ip daddr . th dport` behind the translation.
fn chosen_endpoint(family: Family) -> Vec<Expression> {
    vec![Expression::DestinationAddress(family), Expression::DestinationPort]
}

fn dynamic_map(name: Arc<str>, family: Family) -> Set {
    Set {
        name,
        key: vec![address_type(family)],
        data: SetData::Fields(vec![address_type(family), DataType::InetService]),
        flags: SetFlags { interval: false, dynamic: true },
        type_of: Some((vec![Expression::SourceAddress(family)], chosen_endpoint(family))),
        size: Some(CLIENTS_MAX),
        counter: false,
    }
}

fn endpoint_set(name: Arc<str>, family: Family) -> Set {
    Set {
        name,
        key: vec![address_type(family), DataType::InetService],
        data: SetData::None,
        flags: SetFlags::default(),
        type_of: None,
        size: None,
        counter: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Algorithm, Protocol};
    use crate::plan::layout::Bank;
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
            hairpin: Vec::new(),
            affinity: None,
            algorithm: Algorithm::Random,
            serving: Vec::new(),
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
            1 => prop::sample::select(vec![63, 64, 300]).prop_map(|len| "x".repeat(len)),
        ]
    }

    /// Where an operator looks for it.
    #[test]
    fn names_of_an_api_server_are_not_hashed() {
        let part = "x".repeat(63);
        let service = ObjectName::new(part.as_str(), part.as_str());
        let plan = plan(Family::V4, Protocol::Sctp, &part);
        assert_eq!(base_name(&service, &plan), format!("affinity4-{part}/{part}/sctp/{part}"));
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
                let base = base_name(&service, &plan);
                let kinds = Kind::ALL.into_iter().map(|kind| balancing_chain(&service, &plan, kind));
                let names: Vec<String> = kinds
                    .map(|name| name.to_string())
                    .chain([remember_chain(&service, &plan).to_string()])
                    .chain(["cluster", "local", "local-endpoints"].map(|list| format!("map {base}/{list}")))
                    .collect();
                for name in names {
                    let is_nft = |c: char| c.is_ascii_alphanumeric() || "-_./ ".contains(c);
                    prop_assert!(name.len() < 256 && name.chars().all(is_nft), "{name:?}");
                    if let Some(other) = owners.insert(name.clone(), port.clone()) {
                        prop_assert!(false, "{name} is of {port:?} and of {other:?}");
                    }
                }
            }
        }
    }
}
