//! The sets and maps, one of each kind per family.

use super::chains::{nodeport_key, vip_key};
use nft_table::Family;
use nft_table::{DataType, Expression, Set, SetData, SetFlags, SetId, Table};
use std::sync::Arc;

/// The sets and maps of one family.
#[derive(Clone, Copy, Debug)]
pub struct FamilySets {
    pub service_ips: SetId,
    pub service_nodeports: SetId,
    pub short_circuit_services: SetId,
    pub short_circuit_nodeports: SetId,
    pub no_endpoint_services: SetId,
    pub no_endpoint_nodeports: SetId,
    pub remember_services: SetId,
    pub remember_nodeports: SetId,
    pub cluster_endpoints: SetId,
    pub nodeport_cluster_endpoints: SetId,
    pub local_endpoints: SetId,
    pub nodeport_local_endpoints: SetId,
    pub cluster_ips: SetId,
    pub nodeport_ips: SetId,
    pub service_cidrs: SetId,
    pub pod_sources: SetId,
    pub unmasqueraded_sources: SetId,
    pub masquerade_always: SetId,
    pub masquerade_always_nodeports: SetId,
    pub masquerade_from_node: SetId,
    pub masquerade_from_node_nodeports: SetId,
    pub hairpin: SetId,
    pub restricted_services: SetId,
    pub allowed_sources: SetId,
    pub localhost_ips: SetId,
    pub localhost_nodeports: SetId,
}

/// All fixed sets and maps.
#[derive(Clone, Copy, Debug)]
pub struct Sets {
    v4: FamilySets,
    v6: FamilySets,
    pub pod_interfaces: SetId,
    pub unmasqueraded_interfaces: SetId,
}

impl Sets {
    pub(super) fn new(
        v4: FamilySets,
        v6: FamilySets,
        pod_interfaces: SetId,
        unmasqueraded_interfaces: SetId,
    ) -> Sets {
        Sets { v4, v6, pod_interfaces, unmasqueraded_interfaces }
    }

    pub fn of(&self, family: Family) -> &FamilySets {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl FamilySets {
    /// Whether the key of a set begins with protocol and port: that of a NodePort.
    pub fn is_by_nodeport(&self, set: SetId) -> bool {
        [
            self.service_nodeports,
            self.short_circuit_nodeports,
            self.no_endpoint_nodeports,
            self.remember_nodeports,
            self.nodeport_cluster_endpoints,
            self.nodeport_local_endpoints,
            self.masquerade_always_nodeports,
            self.masquerade_from_node_nodeports,
            self.localhost_nodeports,
        ]
        .contains(&set)
    }

    /// Whether the key of a set begins with the address, protocol and port of a frontend.
    pub fn is_by_address(&self, set: SetId) -> bool {
        [
            self.service_ips,
            self.short_circuit_services,
            self.no_endpoint_services,
            self.remember_services,
            self.cluster_endpoints,
            self.local_endpoints,
            self.masquerade_always,
            self.masquerade_from_node,
            self.restricted_services,
            self.allowed_sources,
        ]
        .contains(&set)
    }
}

/// The digit that the names of a family's sets end in.
fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// The name of a set that exists once per family.
pub fn set_name(name: &str, family: Family) -> Arc<str> {
    format!("{name}{}", digit(family)).into()
}

/// The type of addresses of a family.
pub fn address_type(family: Family) -> DataType {
    match family {
        Family::V4 => DataType::Ipv4Address,
        Family::V6 => DataType::Ipv6Address,
    }
}

pub(super) fn set(name: &str, key: &[DataType], data: SetData, interval: bool) -> Set {
    Set {
        name: name.into(),
        key: key.to_vec(),
        data,
        flags: SetFlags { interval, dynamic: false },
        type_of: None,
        size: None,
    }
}

pub(super) fn add_family_sets(table: &mut Table, family: Family) -> FamilySets {
    use DataType::{InetProto, InetService, Slot};
    let address = address_type(family);
    let (vip, nodeport) = ([address, InetProto, InetService], [InetProto, InetService]);
    let mut add = |name: &str, key: &[DataType], data: SetData, interval: bool| {
        table.add_set(set(&set_name(name, family), key, data, interval))
    };
    let mut verdicts = |name: &str, key: &[DataType]| add(name, key, SetData::Verdict, false);
    let service_ips = verdicts("service-ips", &vip);
    let service_nodeports = verdicts("service-nodeports", &nodeport);
    let short_circuit_services = verdicts("short-circuit-services", &vip);
    let short_circuit_nodeports = verdicts("short-circuit-nodeports", &nodeport);
    let no_endpoint_services = verdicts("no-endpoint-services", &vip);
    let no_endpoint_nodeports = verdicts("no-endpoint-nodeports", &nodeport);
    let remember_services = verdicts("remember-services", &vip);
    let remember_nodeports = verdicts("remember-nodeports", &nodeport);

    let backend = SetData::Fields(vec![address, InetService]);
    let mut add_slots = |name: &str, key: &[DataType], expressions: Vec<Expression>| {
        let mut slots = set(&set_name(name, family), key, backend.clone(), false);
        // The number after mod only tells nft that the field is a slot number.
        let key = [expressions, vec![Expression::Random(2)]].concat();
        let data = vec![Expression::DestinationAddress(family), Expression::DestinationPort];
        slots.type_of = Some((key, data));
        table.add_set(slots)
    };
    let (vip_slot, nodeport_slot) =
        ([address, InetProto, InetService, Slot], [InetProto, InetService, Slot]);
    let cluster_endpoints = add_slots("cluster-endpoints", &vip_slot, vip_key(family));
    let nodeport_cluster_endpoints =
        add_slots("nodeport-cluster-endpoints", &nodeport_slot, nodeport_key());
    let local_endpoints = add_slots("local-endpoints", &vip_slot, vip_key(family));
    let nodeport_local_endpoints =
        add_slots("nodeport-local-endpoints", &nodeport_slot, nodeport_key());

    let mut add = |name: &str, key: &[DataType], interval: bool| {
        table.add_set(set(&set_name(name, family), key, SetData::None, interval))
    };
    FamilySets {
        service_ips,
        service_nodeports,
        short_circuit_services,
        short_circuit_nodeports,
        no_endpoint_services,
        no_endpoint_nodeports,
        remember_services,
        remember_nodeports,
        cluster_endpoints,
        nodeport_cluster_endpoints,
        local_endpoints,
        nodeport_local_endpoints,
        cluster_ips: add("cluster-ips", &[address], false),
        nodeport_ips: add("nodeport-ips", &[address], true),
        service_cidrs: add("service-cidrs", &[address], true),
        pod_sources: add("pod-sources", &[address], true),
        unmasqueraded_sources: add("unmasqueraded-sources", &[address], true),
        masquerade_always: add("masquerade-always", &vip, false),
        masquerade_always_nodeports: add("masquerade-always-nodeports", &nodeport, false),
        masquerade_from_node: add("masquerade-from-node", &vip, false),
        masquerade_from_node_nodeports: add("masquerade-from-node-nodeports", &nodeport, false),
        hairpin: add("hairpin", &[address, address], false),
        restricted_services: add("restricted-services", &vip, false),
        allowed_sources: add("allowed-sources", &[address, InetProto, InetService, address], true),
        localhost_ips: add("localhost-ips", &[address], true),
        localhost_nodeports: add("localhost-nodeports", &nodeport, false),
    }
}
