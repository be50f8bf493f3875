//! Session affinity (ClientIP), with chains and maps of its own for each Service port.
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
//! A map remembers as many clients as the kernel allows it ([`nft_table::DYNAMIC_SIZE`]); those beyond are balanced
//! anew with each connection. What the maps hold is the kernel's: endpoints that leave a list are purged by the engine.

use super::layout::{Kind, address_type};
use super::own::{self, Objects, Stage, base_name, name};
use super::{Backend, Frontend, PortPlan, Route};
use crate::model::ObjectName;
use nft_table::Family;
use nft_table::{
    Chain, Constant, DataType, Expression, Key, Rule, Set, SetData, SetFlags, Statement, Verdict,
};
use std::sync::Arc;

/// What names begin with.
const AFFINITY: &str = "affinity";

/// The chain that stands for a shared one of this kind.
pub fn balancing_chain(service: &ObjectName, plan: &PortPlan, kind: Kind) -> Arc<str> {
    name(AFFINITY, service, plan, kind.name())
}

/// The chain that remembers.
pub fn remember_chain(service: &ObjectName, plan: &PortPlan) -> Arc<str> {
    name(AFFINITY, service, plan, "remember")
}

/// What a port with affinity needs; nothing without affinity or without endpoints.
pub fn objects(service: &ObjectName, plan: &PortPlan) -> Objects {
    let Some(timeout) = plan.affinity else { return Objects::default() };
    let routes = || plan.frontends.iter().map(|planned| planned.route);
    let cluster = !plan.cluster.is_empty()
        && routes().any(|route| matches!(route, Route::Cluster | Route::ExternalLocal));
    let local = !plan.local.is_empty()
        && routes().any(|route| matches!(route, Route::Local | Route::ExternalLocal));
    let base = base_name(AFFINITY, service, plan);
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
        for (list, _) in &lists {
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
            objects.chains.push(look_up_first(service, plan, kind, map));
        }
    }
    if !remember.is_empty() {
        objects.chains.push(Chain::regular(remember_chain(service, plan), remember));
    }
    objects
}

/// A chain that looks into the map and falls through to the shared chain.
fn look_up_first(service: &ObjectName, plan: &PortPlan, kind: Kind, map: Arc<str>) -> Chain {
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
    let next = own::chain(service, plan, kind, Stage::Balancing);
    let fall_through = Rule::new(vec![Statement::Verdict(Verdict::Goto(next))]);
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
        flags: SetFlags { interval: false, dynamic: true, timeout: true },
        type_of: Some((vec![Expression::SourceAddress(family)], chosen_endpoint(family))),
        size: None,
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
