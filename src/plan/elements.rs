//! A frontend and its slots as elements of sets and maps.

use super::affinity;
use super::balancing::{Balancing, Kind};
use super::base::{EXTERNAL_NONE_CHAIN, FamilySets, REJECT_CHAIN, Sets};
use super::ports::Masquerade;
use super::writer::ChainNames;
use super::{Backend, Frontend, PlannedFrontend, PortPlan, Route};
use crate::model::{ObjectName, Protocol};
use nft_table::{Key, KeyBuilder, SetId, Value, Verdict};
use std::ops::Range;

/// The most bytes that nft shows of a comment (`NFTNL_UDATA_COMMENT_MAXLEN` in libnftnl).
const COMMENT_MAX: usize = 128;

/// An element and where it belongs.
pub type Placed = (SetId, Key, Value);

/// The key of a frontend in the maps of its kind.
pub fn frontend_key(frontend: &Frontend) -> KeyBuilder {
    match *frontend {
        Frontend::Ip { address, protocol, port } => {
            Key::builder().address(address).protocol(protocol.number()).port(port)
        }
        Frontend::NodePort { protocol, port, .. } => {
            Key::builder().protocol(protocol.number()).port(port)
        }
    }
}

/// The sets and chains that frontends by address, or NodePorts, use.
struct Places {
    frontends: SetId,
    short_circuit: SetId,
    no_endpoint: SetId,
    remember: SetId,
    always: SetId,
    from_node: SetId,
    cluster_slots: SetId,
    local_slots: SetId,
    cluster: Kind,
    local: Kind,
    external: Kind,
}

impl Places {
    fn of(frontend: &Frontend, sets: &FamilySets) -> Places {
        match frontend {
            Frontend::Ip { .. } => Places {
                frontends: sets.service_ips,
                short_circuit: sets.short_circuit_services,
                no_endpoint: sets.no_endpoint_services,
                remember: sets.remember_services,
                always: sets.masquerade_always,
                from_node: sets.masquerade_from_node,
                cluster_slots: sets.cluster_endpoints,
                local_slots: sets.local_endpoints,
                cluster: Kind::Cluster,
                local: Kind::Local,
                external: Kind::ExternalLocal,
            },
            Frontend::NodePort { .. } => Places {
                frontends: sets.service_nodeports,
                short_circuit: sets.short_circuit_nodeports,
                no_endpoint: sets.no_endpoint_nodeports,
                remember: sets.remember_nodeports,
                always: sets.masquerade_always_nodeports,
                from_node: sets.masquerade_from_node_nodeports,
                cluster_slots: sets.nodeport_cluster_endpoints,
                local_slots: sets.nodeport_local_endpoints,
                cluster: Kind::NodePortCluster,
                local: Kind::NodePortLocal,
                external: Kind::ExternalNodePortLocal,
            },
        }
    }
}

/// The elements of a frontend apart from its slots: where it leads, what is masqueraded, who may
/// connect. They change only with the Service or the number of its endpoints.
pub fn head(
    service: &ObjectName,
    plan: &PortPlan,
    planned: &PlannedFrontend,
    sets: &Sets,
    names: &mut ChainNames,
) -> Vec<Placed> {
    let sets = sets.of(plan.family);
    let places = Places::of(&planned.frontend, sets);
    let key = || frontend_key(&planned.frontend).build();
    let mut to = |kind, endpoints| match plan.affinity {
        None => names.get(Balancing::new(kind, endpoints)),
        Some(_) => affinity::balancing_chain(service, plan, kind),
    };
    let (cluster, local) = (plan.cluster.len(), plan.local.len());
    let mut elements = Vec::new();
    let text = comment(service, plan, &planned.frontend);
    let mut verdict = |set: SetId, verdict: Verdict| {
        elements.push((set, key(), Value::verdict(verdict, Some(text.clone()))));
    };
    match planned.route {
        Route::Cluster => verdict(places.frontends, Verdict::Goto(to(places.cluster, cluster))),
        Route::Local => verdict(places.frontends, Verdict::Goto(to(places.local, local))),
        Route::Reject => verdict(places.no_endpoint, Verdict::Goto(REJECT_CHAIN.into())),
        Route::Drop => verdict(places.no_endpoint, Verdict::Drop),
        Route::ExternalLocal => {
            if local > 0 {
                verdict(places.frontends, Verdict::Jump(to(places.external, local)));
            } else {
                verdict(places.frontends, Verdict::Jump(EXTERNAL_NONE_CHAIN.into()));
                verdict(places.no_endpoint, Verdict::Drop);
            }
            if cluster > 0 {
                verdict(places.short_circuit, Verdict::Goto(to(places.cluster, cluster)));
            }
        }
    }
    let has_backends = match planned.route {
        Route::Cluster => cluster > 0,
        Route::Local => local > 0,
        Route::ExternalLocal => cluster + local > 0,
        Route::Reject | Route::Drop => false,
    };
    if plan.affinity.is_some() && has_backends {
        verdict(places.remember, Verdict::Goto(affinity::remember_chain(service, plan)));
    }
    if !matches!(planned.route, Route::Reject | Route::Drop) {
        match planned.masquerade {
            Masquerade::BySource => {}
            Masquerade::Always => elements.push((places.always, key(), Value::Member)),
            Masquerade::FromNode => elements.push((places.from_node, key(), Value::Member)),
        }
    }
    if matches!(planned.frontend, Frontend::NodePort { .. }) && plan.protocol != Protocol::Tcp {
        elements.push((sets.localhost_nodeports, key(), Value::Member));
    }
    if let Some(sources) = &planned.allowed_sources {
        elements.push((sets.restricted_services, key(), Value::Member));
        let allowed = |source| frontend_key(&planned.frontend).network(source);
        elements.extend(
            sources.iter().map(|source| (sets.allowed_sources, allowed(*source), Value::Member)),
        );
    }
    elements
}

/// The slots that a frontend needs: which maps, filled from which list.
pub fn slots<'a>(
    plan: &'a PortPlan,
    planned: &PlannedFrontend,
    sets: &Sets,
) -> impl Iterator<Item = (SetId, &'a [Backend])> {
    let places = Places::of(&planned.frontend, sets.of(plan.family));
    let cluster = (places.cluster_slots, &plan.cluster[..]);
    let local = (places.local_slots, &plan.local[..]);
    let (cluster, local) = match planned.route {
        Route::Cluster => (Some(cluster), None),
        Route::Local => (None, Some(local)),
        Route::ExternalLocal => (Some(cluster), Some(local)),
        Route::Reject | Route::Drop => (None, None),
    };
    [cluster, local].into_iter().flatten()
}

/// The keys of some slots of a frontend.
pub fn slot_keys(frontend: &Frontend, slots: Range<usize>) -> impl Iterator<Item = Key> {
    let key = frontend_key(frontend);
    slots.map(move |slot| key.clone().slot(slot as u32).build())
}

/// The data maps that may hold slots of a frontend, cluster list first.
pub fn slot_maps(frontend: &Frontend, sets: &Sets) -> [SetId; 2] {
    let places = Places::of(frontend, sets.of(frontend.family()));
    [places.cluster_slots, places.local_slots]
}

/// `namespace/name:port`, the port by its name where it has one.
fn comment(service: &ObjectName, plan: &PortPlan, frontend: &Frontend) -> Box<str> {
    let mut text = if plan.name.is_empty() {
        let (Frontend::Ip { port, .. } | Frontend::NodePort { port, .. }) = frontend;
        format!("{service}:{port}")
    } else {
        format!("{service}:{}", plan.name)
    };
    // Names from manifests were not checked by an API server: nothing may end the quoted string.
    text.retain(|c| c.is_ascii_graphic() && c != '"' && c != '\\');
    if text.len() > COMMENT_MAX {
        text.truncate(COMMENT_MAX - 3);
        text.push_str("...");
    }
    text.into()
}
