//! API objects out of their protobuf encoding, with only the fields that a proxy reads.
//!
//! What is skipped (managed fields, selectors, target references, most annotations, conditions) is the
//! larger part of an object and is never allocated. The types are those of `k8s-openapi`, so that
//! [`crate::intake`] treats protobuf, JSON and manifests alike. Field numbers are part of Kubernetes'
//! API and never change: `generated.proto` in k8s.io/api and k8s.io/apimachinery.

use super::wire::{Field, Fields, WireError};
use k8s_openapi::api::core::v1::{
    ClientIPConfig, LoadBalancerIngress, LoadBalancerStatus, Node, NodeAddress, NodeSpec,
    NodeStatus, Service, ServicePort, ServiceSpec, ServiceStatus, SessionAffinityConfig, Taint,
};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

/// The only annotation that is kept: when the change that a slice shows happened.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What the watch loop itself needs of an object whose kind does not matter (bookmarks).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Marker {
    pub resource_version: String,
    /// Annotation `k8s.io/initial-events-end`: a streaming list is complete.
    pub initial_events_end: bool,
}

/// A `meta.v1.Status`, reduced.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StatusText {
    pub code: u16,
    pub reason: String,
    pub message: String,
}

/// Non-empty text; Kubernetes' encoder writes empty strings where JSON leaves the field out.
fn text(field: &Field<'_>) -> Result<Option<String>, WireError> {
    field.text().map(|text| (!text.is_empty()).then(|| text.to_owned()))
}

fn entry<'a>(field: &Field<'a>) -> Result<(&'a str, &'a str), WireError> {
    let (mut key, mut value) = ("", "");
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => key = field.text()?,
            2 => value = field.text()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// The text of field 1 of an embedded message: `ForZone`, `ForNode`.
fn name_of(field: &Field<'_>) -> Result<String, WireError> {
    let mut name = String::new();
    for field in field.message()? {
        let field = field?;
        if field.number == 1 {
            name = field.string()?;
        }
    }
    Ok(name)
}

fn time(field: &Field<'_>) -> Result<Option<Time>, WireError> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => seconds = field.int64()?,
            2 => nanos = field.int32()?,
            _ => {}
        }
    }
    Ok(Timestamp::new(seconds, nanos).ok().map(Time))
}

fn metadata(field: &Field<'_>) -> Result<ObjectMeta, WireError> {
    let mut meta = ObjectMeta::default();
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => meta.name = text(&field)?,
            3 => meta.namespace = text(&field)?,
            6 => meta.resource_version = text(&field)?,
            8 => meta.creation_timestamp = time(&field)?,
            9 => meta.deletion_timestamp = time(&field)?,
            11 => {
                let (key, value) = entry(&field)?;
                meta.labels
                    .get_or_insert_with(BTreeMap::new)
                    .insert(key.to_owned(), value.to_owned());
            }
            12 => {
                let (key, value) = entry(&field)?;
                if key == TRIGGER_TIME {
                    meta.annotations
                        .get_or_insert_with(BTreeMap::new)
                        .insert(key.to_owned(), value.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(meta)
}

/// `metadata` of any object, for bookmarks.
pub fn marker(object: &[u8]) -> Result<Marker, WireError> {
    let mut marker = Marker::default();
    for field in Fields::new(object) {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        for field in field.message()? {
            let field = field?;
            match field.number {
                6 => marker.resource_version = field.string()?,
                12 => marker.initial_events_end |= entry(&field)?.0 == "k8s.io/initial-events-end",
                _ => {}
            }
        }
    }
    Ok(marker)
}

/// A `Status` object.
pub fn status(object: &[u8]) -> Result<StatusText, WireError> {
    let mut status = StatusText::default();
    for field in Fields::new(object) {
        let field = field?;
        match field.number {
            3 => status.message = field.string()?,
            4 => status.reason = field.string()?,
            6 => status.code = field.int32()? as u16,
            _ => {}
        }
    }
    Ok(status)
}

/// A `core/v1` Service.
pub fn service(object: &[u8]) -> Result<Service, WireError> {
    let mut service = Service::default();
    for field in Fields::new(object) {
        let field = field?;
        match field.number {
            1 => service.metadata = metadata(&field)?,
            2 => service.spec = Some(service_spec(&field)?),
            3 => service.status = Some(service_status(&field)?),
            _ => {}
        }
    }
    Ok(service)
}

fn service_spec(field: &Field<'_>) -> Result<ServiceSpec, WireError> {
    let mut spec = ServiceSpec::default();
    let push = |list: &mut Option<Vec<String>>, field: &Field<'_>| {
        field.string().map(|text| list.get_or_insert_default().push(text))
    };
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => spec.ports.get_or_insert_default().push(service_port(&field)?),
            3 => spec.cluster_ip = text(&field)?,
            4 => spec.type_ = text(&field)?,
            5 => push(&mut spec.external_ips, &field)?,
            7 => spec.session_affinity = text(&field)?,
            9 => push(&mut spec.load_balancer_source_ranges, &field)?,
            11 => spec.external_traffic_policy = text(&field)?,
            12 => spec.health_check_node_port = Some(field.int32()?).filter(|port| *port != 0),
            14 => spec.session_affinity_config = Some(affinity_config(&field)?),
            18 => push(&mut spec.cluster_ips, &field)?,
            19 => push(&mut spec.ip_families, &field)?,
            22 => spec.internal_traffic_policy = text(&field)?,
            _ => {}
        }
    }
    Ok(spec)
}

fn service_port(field: &Field<'_>) -> Result<ServicePort, WireError> {
    let mut port = ServicePort::default();
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => port.name = text(&field)?,
            2 => port.protocol = text(&field)?,
            3 => port.port = field.int32()?,
            5 => port.node_port = Some(field.int32()?).filter(|port| *port != 0),
            _ => {}
        }
    }
    Ok(port)
}

fn affinity_config(field: &Field<'_>) -> Result<SessionAffinityConfig, WireError> {
    let mut config = SessionAffinityConfig::default();
    for field in field.message()? {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        let mut client_ip = ClientIPConfig::default();
        for field in field.message()? {
            let field = field?;
            if field.number == 1 {
                client_ip.timeout_seconds = Some(field.int32()?);
            }
        }
        config.client_ip = Some(client_ip);
    }
    Ok(config)
}

fn service_status(field: &Field<'_>) -> Result<ServiceStatus, WireError> {
    let mut load_balancer = LoadBalancerStatus::default();
    for field in field.message()? {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        for field in field.message()? {
            let field = field?;
            if field.number == 1 {
                load_balancer.ingress.get_or_insert_default().push(ingress(&field)?);
            }
        }
    }
    Ok(ServiceStatus { load_balancer: Some(load_balancer), conditions: None })
}

fn ingress(field: &Field<'_>) -> Result<LoadBalancerIngress, WireError> {
    let mut ingress = LoadBalancerIngress::default();
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => ingress.ip = text(&field)?,
            2 => ingress.hostname = text(&field)?,
            3 => ingress.ip_mode = text(&field)?,
            _ => {}
        }
    }
    Ok(ingress)
}

/// A `discovery.k8s.io/v1` EndpointSlice.
pub fn endpoint_slice(object: &[u8]) -> Result<EndpointSlice, WireError> {
    let mut slice = EndpointSlice::default();
    for field in Fields::new(object) {
        let field = field?;
        match field.number {
            1 => slice.metadata = metadata(&field)?,
            2 => slice.endpoints.get_or_insert_default().push(endpoint(&field)?),
            3 => slice.ports.get_or_insert_default().push(endpoint_port(&field)?),
            4 => slice.address_type = field.string()?,
            _ => {}
        }
    }
    Ok(slice)
}

fn endpoint(field: &Field<'_>) -> Result<Endpoint, WireError> {
    let mut endpoint = Endpoint::default();
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => endpoint.addresses.push(field.string()?),
            2 => endpoint.conditions = Some(conditions(&field)?),
            6 => endpoint.node_name = text(&field)?,
            8 => endpoint.hints = Some(hints(&field)?),
            _ => {}
        }
    }
    Ok(endpoint)
}

fn conditions(field: &Field<'_>) -> Result<EndpointConditions, WireError> {
    let mut conditions = EndpointConditions::default();
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => conditions.ready = Some(field.bool()?),
            2 => conditions.serving = Some(field.bool()?),
            3 => conditions.terminating = Some(field.bool()?),
            _ => {}
        }
    }
    Ok(conditions)
}

fn hints(field: &Field<'_>) -> Result<EndpointHints, WireError> {
    let mut hints = EndpointHints::default();
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => hints.for_zones.get_or_insert_default().push(ForZone { name: name_of(&field)? }),
            2 => hints.for_nodes.get_or_insert_default().push(ForNode { name: name_of(&field)? }),
            _ => {}
        }
    }
    Ok(hints)
}

fn endpoint_port(field: &Field<'_>) -> Result<EndpointPort, WireError> {
    let mut port = EndpointPort::default();
    for field in field.message()? {
        let field = field?;
        match field.number {
            // A nil name is skipped, an empty one is a name: keep the difference.
            1 => port.name = Some(field.string()?),
            2 => port.protocol = text(&field)?,
            3 => port.port = Some(field.int32()?),
            _ => {}
        }
    }
    Ok(port)
}

/// A `core/v1` Node.
pub fn node(object: &[u8]) -> Result<Node, WireError> {
    let mut node = Node::default();
    for field in Fields::new(object) {
        let field = field?;
        match field.number {
            1 => node.metadata = metadata(&field)?,
            2 => node.spec = Some(node_spec(&field)?),
            3 => node.status = Some(node_status(&field)?),
            _ => {}
        }
    }
    Ok(node)
}

fn node_spec(field: &Field<'_>) -> Result<NodeSpec, WireError> {
    let mut spec = NodeSpec::default();
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => spec.pod_cidr = text(&field)?,
            5 => spec.taints.get_or_insert_default().push(taint(&field)?),
            7 => spec.pod_cidrs.get_or_insert_default().push(field.string()?),
            _ => {}
        }
    }
    Ok(spec)
}

fn taint(field: &Field<'_>) -> Result<Taint, WireError> {
    let mut taint = Taint::default();
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => taint.key = field.string()?,
            2 => taint.value = text(&field)?,
            3 => taint.effect = field.string()?,
            _ => {}
        }
    }
    Ok(taint)
}

fn node_status(field: &Field<'_>) -> Result<NodeStatus, WireError> {
    let mut status = NodeStatus::default();
    for field in field.message()? {
        let field = field?;
        if field.number != 5 {
            continue;
        }
        let mut address = NodeAddress::default();
        for field in field.message()? {
            let field = field?;
            match field.number {
                1 => address.type_ = field.string()?,
                2 => address.address = field.string()?,
                _ => {}
            }
        }
        status.addresses.get_or_insert_default().push(address);
    }
    Ok(status)
}

/// A `networking.k8s.io/v1` ServiceCIDR.
pub fn service_cidr(object: &[u8]) -> Result<ServiceCIDR, WireError> {
    let mut cidr = ServiceCIDR::default();
    for field in Fields::new(object) {
        let field = field?;
        match field.number {
            1 => cidr.metadata = metadata(&field)?,
            2 => {
                let mut spec = ServiceCIDRSpec::default();
                for field in field.message()? {
                    let field = field?;
                    if field.number == 1 {
                        spec.cidrs.get_or_insert_default().push(field.string()?);
                    }
                }
                cidr.spec = Some(spec);
            }
            _ => {}
        }
    }
    Ok(cidr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message, written field by field.
    #[derive(Default)]
    struct Message(Vec<u8>);

    impl Message {
        fn number(mut self, field: usize, value: usize) -> Self {
            self.varint(field << 3);
            self.varint(value);
            self
        }

        fn varint(&mut self, mut value: usize) {
            while value > 127 {
                self.0.push(value as u8 | 0x80);
                value >>= 7;
            }
            self.0.push(value as u8);
        }

        fn bytes(mut self, field: usize, value: impl AsRef<[u8]>) -> Self {
            self.varint(field << 3 | 2);
            self.varint(value.as_ref().len());
            self.0.extend(value.as_ref());
            self
        }

        fn message(self, field: usize, value: Message) -> Self {
            self.bytes(field, value.0)
        }
    }

    fn entry_of(key: &str, value: &str) -> Message {
        Message::default().bytes(1, key).bytes(2, value)
    }

    #[test]
    fn a_slice_keeps_what_counts() {
        let endpoint = Message::default()
            .bytes(1, "10.0.0.1")
            .message(2, Message::default().number(1, 0).number(2, 1).number(3, 1))
            .bytes(3, "hostname")
            .bytes(6, "node-1")
            .message(8, Message::default().message(1, Message::default().bytes(1, "zone-a")));
        let metadata = Message::default()
            .bytes(1, "web-abc")
            .bytes(3, "default")
            .bytes(6, "77")
            .message(11, entry_of("kubernetes.io/service-name", "web"))
            .message(12, entry_of("kubectl.kubernetes.io/last-applied-configuration", "{}"))
            .message(12, entry_of(TRIGGER_TIME, "2026-01-02T03:04:05Z"))
            .bytes(17, "managed fields");
        let slice = Message::default()
            .message(1, metadata)
            .message(2, endpoint)
            .message(3, Message::default().bytes(1, "").bytes(2, "TCP").number(3, 80))
            .bytes(4, "IPv4");
        let slice = endpoint_slice(&slice.0).expect("well-formed");
        let annotations = slice.metadata.annotations.expect("annotations");
        assert_eq!(annotations.into_keys().collect::<Vec<_>>(), [TRIGGER_TIME]);
        assert_eq!(slice.metadata.resource_version.as_deref(), Some("77"));
        assert_eq!(slice.metadata.managed_fields, None);
        let [endpoint] = &slice.endpoints.expect("endpoints")[..] else { panic!("one endpoint") };
        let conditions = endpoint.conditions.as_ref().expect("conditions");
        assert_eq!((conditions.ready, conditions.terminating), (Some(false), Some(true)));
        assert_eq!(endpoint.hostname, None);
        let hints = endpoint.hints.as_ref().expect("hints");
        assert_eq!(hints.for_zones.as_ref().expect("zones")[0].name, "zone-a");
        let [port] = &slice.ports.expect("ports")[..] else { panic!("one port") };
        assert_eq!((port.name.as_deref(), port.port), (Some(""), Some(80)));
    }

    #[test]
    fn zero_is_no_port_and_empty_is_no_text() {
        let port = Message::default().bytes(1, "").bytes(2, "TCP").number(3, 80).number(5, 0);
        let spec = Message::default().message(1, port).bytes(3, "").number(12, 0);
        let service = service(&Message::default().message(2, spec).0).expect("well-formed");
        let spec = service.spec.expect("a spec");
        assert_eq!((spec.cluster_ip, spec.health_check_node_port), (None, None));
        let ports = spec.ports.expect("ports");
        assert_eq!((ports[0].name.as_deref(), ports[0].node_port), (None, None));
    }

    #[test]
    fn bookmarks() {
        let metadata = Message::default()
            .bytes(6, "9")
            .message(12, entry_of("k8s.io/initial-events-end", "true"));
        let marker = marker(&Message::default().message(1, metadata).0).expect("well-formed");
        assert_eq!(marker, Marker { resource_version: "9".into(), initial_events_end: true });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (service(&bytes), endpoint_slice(&bytes), node(&bytes));
            let _ = (service_cidr(&bytes), status(&bytes), marker(&bytes));
        }
    }
}
