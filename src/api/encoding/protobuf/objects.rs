//! The objects' fields that are needed, and their way into the types that the intake reads.

use crate::api::needed::Needed;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::jiff::Timestamp;
use prost::Message;
use std::collections::BTreeMap;

fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn number(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

fn list<T, U: From<T>>(list: Vec<T>) -> Option<Vec<U>> {
    (!list.is_empty()).then(|| list.into_iter().map(U::from).collect())
}

#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(message, optional, tag = "8")]
    creation_timestamp: Option<Time>,
    #[prost(message, optional, tag = "9")]
    deletion_timestamp: Option<Time>,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    annotations: BTreeMap<String, String>,
}

/// Without nanoseconds, which JSON does not have either.
#[derive(Clone, Copy, PartialEq, Message)]
struct Time {
    /// Absent where there is no time.
    #[prost(int64, optional, tag = "1")]
    seconds: Option<i64>,
}

impl Time {
    fn to_time(self) -> Option<meta::Time> {
        Timestamp::from_second(self.seconds?).ok().map(meta::Time)
    }
}

impl From<Metadata> for meta::ObjectMeta {
    fn from(from: Metadata) -> Self {
        meta::ObjectMeta {
            name: text(from.name),
            namespace: text(from.namespace),
            resource_version: text(from.resource_version),
            creation_timestamp: from.creation_timestamp.and_then(Time::to_time),
            deletion_timestamp: from.deletion_timestamp.and_then(Time::to_time),
            labels: (!from.labels.is_empty()).then_some(from.labels),
            annotations: (!from.annotations.is_empty()).then_some(from.annotations),
            ..Default::default()
        }
    }
}

/// `core/v1.Service`.
#[derive(Clone, PartialEq, Message)]
pub struct NeededService {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<ServiceSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<ServiceStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceSpec {
    #[prost(message, repeated, tag = "1")]
    ports: Vec<ServicePort>,
    #[prost(string, tag = "3")]
    cluster_ip: String,
    #[prost(string, tag = "4")]
    r#type: String,
    #[prost(string, repeated, tag = "5")]
    external_ips: Vec<String>,
    #[prost(string, tag = "7")]
    session_affinity: String,
    #[prost(string, tag = "8")]
    load_balancer_ip: String,
    #[prost(string, repeated, tag = "9")]
    load_balancer_source_ranges: Vec<String>,
    #[prost(string, tag = "11")]
    external_traffic_policy: String,
    #[prost(int32, tag = "12")]
    health_check_node_port: i32,
    #[prost(message, optional, tag = "14")]
    session_affinity_config: Option<AffinityConfig>,
    #[prost(string, repeated, tag = "18")]
    cluster_ips: Vec<String>,
    #[prost(string, repeated, tag = "19")]
    ip_families: Vec<String>,
    #[prost(string, optional, tag = "22")]
    internal_traffic_policy: Option<String>,
    #[prost(string, optional, tag = "23")]
    traffic_distribution: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ServicePort {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    protocol: String,
    #[prost(int32, tag = "3")]
    port: i32,
    #[prost(int32, tag = "5")]
    node_port: i32,
    #[prost(string, optional, tag = "6")]
    app_protocol: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct AffinityConfig {
    #[prost(message, optional, tag = "1")]
    client_ip: Option<ClientIp>,
}

#[derive(Clone, PartialEq, Message)]
struct ClientIp {
    #[prost(int32, optional, tag = "1")]
    timeout_seconds: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceStatus {
    #[prost(message, optional, tag = "1")]
    load_balancer: Option<LoadBalancer>,
}

#[derive(Clone, PartialEq, Message)]
struct LoadBalancer {
    #[prost(message, repeated, tag = "1")]
    ingress: Vec<Ingress>,
}

#[derive(Clone, PartialEq, Message)]
struct Ingress {
    #[prost(string, tag = "1")]
    ip: String,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(string, optional, tag = "3")]
    ip_mode: Option<String>,
}

impl From<NeededService> for Needed<core::Service> {
    fn from(from: NeededService) -> Self {
        Needed(core::Service {
            metadata: from.metadata.unwrap_or_default().into(),
            spec: from.spec.map(Into::into),
            status: from.status.map(|status| core::ServiceStatus {
                load_balancer: status
                    .load_balancer
                    .map(|balancer| core::LoadBalancerStatus { ingress: list(balancer.ingress) }),
                ..Default::default()
            }),
        })
    }
}

impl From<ServiceSpec> for core::ServiceSpec {
    fn from(from: ServiceSpec) -> Self {
        core::ServiceSpec {
            ports: list(from.ports),
            cluster_ip: text(from.cluster_ip),
            type_: text(from.r#type),
            external_ips: list(from.external_ips),
            session_affinity: text(from.session_affinity),
            load_balancer_ip: text(from.load_balancer_ip),
            load_balancer_source_ranges: list(from.load_balancer_source_ranges),
            external_traffic_policy: text(from.external_traffic_policy),
            health_check_node_port: number(from.health_check_node_port),
            session_affinity_config: from.session_affinity_config.map(|config| {
                let client_ip = config.client_ip.map(|client_ip| core::ClientIPConfig {
                    timeout_seconds: client_ip.timeout_seconds,
                });
                core::SessionAffinityConfig { client_ip }
            }),
            cluster_ips: list(from.cluster_ips),
            ip_families: list(from.ip_families),
            internal_traffic_policy: from.internal_traffic_policy,
            traffic_distribution: from.traffic_distribution,
            ..Default::default()
        }
    }
}

impl From<ServicePort> for core::ServicePort {
    fn from(from: ServicePort) -> Self {
        core::ServicePort {
            name: text(from.name),
            protocol: text(from.protocol),
            port: from.port,
            node_port: number(from.node_port),
            app_protocol: from.app_protocol,
            ..Default::default()
        }
    }
}

impl From<Ingress> for core::LoadBalancerIngress {
    fn from(from: Ingress) -> Self {
        core::LoadBalancerIngress {
            ip: text(from.ip),
            hostname: text(from.hostname),
            ip_mode: from.ip_mode,
            ..Default::default()
        }
    }
}

/// `discovery/v1.EndpointSlice`.
#[derive(Clone, PartialEq, Message)]
pub struct NeededSlice {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, repeated, tag = "2")]
    endpoints: Vec<Endpoint>,
    #[prost(message, repeated, tag = "3")]
    ports: Vec<EndpointPort>,
    #[prost(string, tag = "4")]
    address_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct Endpoint {
    #[prost(string, repeated, tag = "1")]
    addresses: Vec<String>,
    #[prost(message, optional, tag = "2")]
    conditions: Option<Conditions>,
    #[prost(message, optional, tag = "4")]
    target_ref: Option<ObjectReference>,
    #[prost(string, optional, tag = "6")]
    node_name: Option<String>,
    #[prost(string, optional, tag = "7")]
    zone: Option<String>,
    #[prost(message, optional, tag = "8")]
    hints: Option<Hints>,
}

/// `core/v1.ObjectReference`.
#[derive(Clone, PartialEq, Message)]
struct ObjectReference {
    #[prost(string, optional, tag = "3")]
    name: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Conditions {
    #[prost(bool, optional, tag = "1")]
    ready: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    serving: Option<bool>,
    #[prost(bool, optional, tag = "3")]
    terminating: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct Hints {
    #[prost(message, repeated, tag = "1")]
    for_zones: Vec<ForOne>,
    #[prost(message, repeated, tag = "2")]
    for_nodes: Vec<ForOne>,
}

/// `ForZone` and `ForNode`.
#[derive(Clone, PartialEq, Message)]
struct ForOne {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct EndpointPort {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    protocol: Option<String>,
    #[prost(int32, optional, tag = "3")]
    port: Option<i32>,
}

impl From<NeededSlice> for Needed<discovery::EndpointSlice> {
    fn from(from: NeededSlice) -> Self {
        Needed(discovery::EndpointSlice {
            metadata: from.metadata.unwrap_or_default().into(),
            address_type: from.address_type,
            endpoints: list(from.endpoints),
            ports: list(from.ports),
        })
    }
}

impl From<Endpoint> for discovery::Endpoint {
    fn from(from: Endpoint) -> Self {
        discovery::Endpoint {
            addresses: from.addresses,
            conditions: from.conditions.map(|conditions| discovery::EndpointConditions {
                ready: conditions.ready,
                serving: conditions.serving,
                terminating: conditions.terminating,
            }),
            node_name: from.node_name,
            target_ref: from.target_ref.map(|reference| core::ObjectReference {
                name: reference.name,
                ..Default::default()
            }),
            zone: from.zone,
            hints: from.hints.map(|hints| discovery::EndpointHints {
                for_zones: list(hints.for_zones),
                for_nodes: list(hints.for_nodes),
            }),
            ..Default::default()
        }
    }
}

impl From<ForOne> for discovery::ForZone {
    fn from(from: ForOne) -> Self {
        discovery::ForZone { name: from.name }
    }
}

impl From<ForOne> for discovery::ForNode {
    fn from(from: ForOne) -> Self {
        discovery::ForNode { name: from.name }
    }
}

impl From<EndpointPort> for discovery::EndpointPort {
    fn from(from: EndpointPort) -> Self {
        discovery::EndpointPort {
            name: from.name,
            protocol: from.protocol,
            port: from.port,
            ..Default::default()
        }
    }
}

/// `core/v1.Node`.
#[derive(Clone, PartialEq, Message)]
pub struct NodeMessage {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<NodeSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<NodeStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeSpec {
    #[prost(string, tag = "1")]
    pod_cidr: String,
    #[prost(message, repeated, tag = "5")]
    taints: Vec<Taint>,
    #[prost(string, repeated, tag = "7")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Taint {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(string, tag = "3")]
    effect: String,
}

#[derive(Clone, PartialEq, Message)]
struct NodeStatus {
    #[prost(message, repeated, tag = "5")]
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeAddress {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(string, tag = "2")]
    address: String,
}

impl From<NodeMessage> for core::Node {
    fn from(from: NodeMessage) -> Self {
        core::Node {
            metadata: from.metadata.unwrap_or_default().into(),
            spec: from.spec.map(|spec| core::NodeSpec {
                pod_cidr: text(spec.pod_cidr),
                pod_cidrs: list(spec.pod_cidrs),
                taints: list(spec.taints),
                ..Default::default()
            }),
            status: from.status.map(|status| core::NodeStatus {
                addresses: list(status.addresses),
                ..Default::default()
            }),
        }
    }
}

impl From<Taint> for core::Taint {
    fn from(from: Taint) -> Self {
        let Taint { key, value, effect } = from;
        core::Taint { key, value: text(value), effect, ..Default::default() }
    }
}

impl From<NodeAddress> for core::NodeAddress {
    fn from(from: NodeAddress) -> Self {
        core::NodeAddress { type_: from.r#type, address: from.address }
    }
}

/// `networking/v1.ServiceCIDR`.
#[derive(Clone, PartialEq, Message)]
pub struct ServiceCidrMessage {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<ServiceCidrSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceCidrSpec {
    #[prost(string, repeated, tag = "1")]
    cidrs: Vec<String>,
}

impl From<ServiceCidrMessage> for networking::ServiceCIDR {
    fn from(from: ServiceCidrMessage) -> Self {
        networking::ServiceCIDR {
            metadata: from.metadata.unwrap_or_default().into(),
            spec: from.spec.map(|spec| networking::ServiceCIDRSpec { cidrs: list(spec.cidrs) }),
            status: None,
        }
    }
}

/// Services as a server would send them.
#[cfg(test)]
pub mod encode {
    use super::{Metadata, NeededService, ServicePort, ServiceSpec};
    use prost::Message;
    use serde_json::Value;

    fn text(value: &Value) -> String {
        value.as_str().unwrap_or_default().to_owned()
    }

    pub fn metadata(value: &Value) -> Metadata {
        let annotations = value["annotations"].as_object().into_iter().flatten();
        Metadata {
            name: text(&value["name"]),
            namespace: text(&value["namespace"]),
            resource_version: text(&value["resourceVersion"]),
            annotations: annotations.map(|(key, value)| (key.clone(), text(value))).collect(),
            ..Metadata::default()
        }
    }

    /// One whose ports are a text ends within a field.
    pub fn service(value: &Value) -> Vec<u8> {
        let spec = &value["spec"];
        let ports = spec["ports"].as_array().into_iter().flatten().map(|port| ServicePort {
            protocol: text(&port["protocol"]),
            port: port["port"].as_i64().unwrap_or_default() as i32,
            ..ServicePort::default()
        });
        let ips = spec["clusterIPs"].as_array().into_iter().flatten().map(text);
        let service = NeededService {
            metadata: Some(metadata(&value["metadata"])),
            spec: Some(ServiceSpec {
                ports: ports.collect(),
                cluster_ip: text(&spec["clusterIP"]),
                cluster_ips: ips.collect(),
                r#type: text(&spec["type"]),
                ..ServiceSpec::default()
            }),
            status: None,
        };
        let mut bytes = service.encode_to_vec();
        if spec["ports"].is_string() {
            // `spec` once more, and in it a port that is no message.
            bytes.extend([0x12, 0x03, 0x0a, 0x01, 0xff]);
        }
        bytes
    }
}
