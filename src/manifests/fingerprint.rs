//! Hashes by which an object's versions are told apart, so that the objects need not be kept.

use crate::model::{
    Change, Endpoint, EndpointPort, EndpointSlice, Node, Service, ServicePort, Taint,
};
use foldhash::fast::FixedState;
use std::hash::{BuildHasher, Hash, Hasher};

/// The fingerprint of an object that is not there.
pub const ABSENT: u64 = 0;

/// A hash of a text.
pub fn of_text(text: &str) -> u64 {
    FixedState::default().hash_one(text)
}

/// A hash of everything in an object; equal objects have equal ones. [`ABSENT`] for none.
pub fn of_change(change: &Change) -> u64 {
    let mut state = FixedState::default().build_hasher();
    match change {
        Change::Service(_, None)
        | Change::EndpointSlice(_, None)
        | Change::Node(None)
        | Change::ServiceCidr(_, None) => return ABSENT,
        Change::Service(_, Some(value)) => service(value, &mut state),
        Change::EndpointSlice(_, Some(value)) => slice(value, &mut state),
        Change::Node(Some(value)) => node(value, &mut state),
        Change::ServiceCidr(_, Some(cidrs)) => cidrs.hash(&mut state),
    }
    state.finish().max(1)
}

// The patterns below name every field, so that a new one cannot be forgotten here.

fn service(value: &Service, state: &mut impl Hasher) {
    let Service {
        name,
        created,
        service_type,
        cluster_ips,
        external_ips,
        load_balancer_ips,
        ports,
        internal_local,
        external_local,
        affinity,
        algorithm,
        weights,
        table_size,
        limits,
        reset_gone,
        source_ranges,
        unreadable_ranges,
        health_check_node_port,
    } = value;
    (name, created, cluster_ips, external_ips, load_balancer_ips).hash(state);
    std::mem::discriminant(service_type).hash(state);
    (internal_local, external_local, affinity, health_check_node_port).hash(state);
    (source_ranges, unreadable_ranges, algorithm, weights, table_size, limits, reset_gone)
        .hash(state);
    ports.len().hash(state);
    for ServicePort { name, protocol, port, node_port } in ports {
        (name, protocol, port, node_port).hash(state);
    }
}

fn slice(value: &EndpointSlice, state: &mut impl Hasher) {
    let EndpointSlice { name, service, family, ports, endpoints, described, trigger_time } = value;
    (name, service, family, trigger_time, described, ports.len()).hash(state);
    for EndpointPort { name, protocol, port } in ports {
        (name, protocol, port).hash(state);
    }
    for Endpoint { address, conditions, node_name, hints } in endpoints {
        (address, conditions, node_name, hints).hash(state);
    }
}

fn node(value: &Node, state: &mut impl Hasher) {
    let Node { name, addresses, zone, pod_cidrs, taints, deleting } = value;
    (name, addresses, zone, pod_cidrs, deleting).hash(state);
    for Taint { key, effect } in taints {
        (key, effect).hash(state);
    }
}
