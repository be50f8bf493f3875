//! EndpointSlices.

use super::problem::{Field, Findings, NotAPort, NotAnIp};
use super::service::protocol;
use super::special::special;
use super::{Intake, ObjectKey, Reading, annotations, has_label, items, label, port_number};
use crate::model::{
    Change, Conditions, Description, Endpoint, EndpointPort, EndpointSlice, Family, ObjectName,
    Weights, parse_ip,
};
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

/// A slice with this label belongs to a headless Service, whatever the value.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Names the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// When the change that led to this version of the slice happened (RFC 3339).
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

impl Intake {
    /// Reads an EndpointSlice. Slices of headless Services and of address type FQDN are skipped
    /// without a word.
    pub fn endpoint_slice(&mut self, object: &discovery::EndpointSlice) -> Reading {
        let name = self.name(&object.metadata);
        let key = ObjectKey::EndpointSlice(name.clone());
        let mut findings = Findings::of(&key);
        let value = if has_label(&object.metadata, HEADLESS) {
            None
        } else {
            self.served_slice(object, &mut findings).map(Box::new)
        };
        let problems = findings.into_problems();
        Reading { key, change: Change::EndpointSlice(name, value), problems }
    }

    fn served_slice(
        &mut self,
        object: &discovery::EndpointSlice,
        findings: &mut Findings<'_>,
    ) -> Option<EndpointSlice> {
        let family = match object.address_type.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            "FQDN" => return None,
            "" => {
                findings.add("addressType", "missing; IPv4 or IPv6");
                return None;
            }
            other => {
                findings.add("addressType", format_args!("{other:?} is not IPv4 or IPv6"));
                return None;
            }
        };
        let service = match label(&object.metadata, SERVICE_NAME) {
            Some(service) if !service.is_empty() => self.strings.text(service),
            _ => {
                let field = format_args!("metadata.labels[{SERVICE_NAME}]");
                findings.add(field, "missing, so the slice belongs to no Service");
                return None;
            }
        };
        let ports = self.endpoint_ports(object, findings);
        let list = items(&object.endpoints);
        let name = self.name(&object.metadata);
        let weights = annotations::weights(&object.metadata, findings);
        let of = ObjectName { namespace: name.namespace.clone(), name: service.clone() };
        let is_described = weights.is_some() || self.options.described.are_wanted(&of);
        let (mut endpoints, mut described) = (Vec::with_capacity(list.len()), Vec::new());
        for (index, object) in list.iter().enumerate() {
            let Some(endpoint) = self.endpoint(index, object, family, findings) else { continue };
            if is_described {
                described.push(self.description(object, weights.as_deref()));
            }
            endpoints.push(endpoint);
        }
        endpoints.shrink_to_fit();
        if described.iter().all(|described| *described == Description::default()) {
            described.clear();
        }
        Some(EndpointSlice {
            name,
            service,
            described: described.into(),
            family,
            ports,
            endpoints,
            trigger_time: trigger_time(&object.metadata, findings),
        })
    }

    /// Ports that have a name (maybe an empty one) and a number; bad ones are left out.
    fn endpoint_ports(
        &mut self,
        object: &discovery::EndpointSlice,
        findings: &mut Findings<'_>,
    ) -> Vec<EndpointPort> {
        let list = items(&object.ports);
        let mut ports = Vec::with_capacity(list.len());
        for (index, entry) in list.iter().enumerate() {
            let field = |name| Field("ports", index, name);
            let (Some(name), Some(number)) = (&entry.name, entry.port) else {
                continue;
            };
            let port = findings.need(port_number(number), field("port"), NotAPort(number));
            let protocol = protocol(&entry.protocol, field("protocol"), findings);
            if let (Some(port), Some(protocol)) = (port, protocol) {
                ports.push(EndpointPort { name: self.strings.text(name), protocol, port });
            }
        }
        ports.shrink_to_fit();
        ports
    }

    /// What weights go by, and the weight that the slice itself gives.
    fn description(
        &mut self,
        endpoint: &discovery::Endpoint,
        weights: Option<&Weights>,
    ) -> Description {
        let mut text = |text: Option<&String>| text.map(|text| self.strings.text(text));
        let mut described = Description {
            pod: text(endpoint.target_ref.as_ref().and_then(|pod| pod.name.as_ref())),
            zone: text(endpoint.zone.as_ref()),
            weight: None,
        };
        let node = endpoint.node_name.as_deref();
        described.weight = weights.and_then(|weights| weights.of(&described, node));
        described
    }

    /// An endpoint, or `None` when its first address is unusable.
    fn endpoint(
        &mut self,
        index: usize,
        endpoint: &discovery::Endpoint,
        family: Family,
        findings: &mut Findings<'_>,
    ) -> Option<Endpoint> {
        let field = || Field("endpoints", index, "addresses[0]");
        let text = findings.need(endpoint.addresses.first(), field(), "missing")?;
        let address = findings.need(parse_ip(text), field(), NotAnIp(text))?;
        if Family::of(&address) != family {
            findings.add(field(), format_args!("{text} is not an {family} address"));
            return None;
        }
        if let Some(kind) = special(address) {
            findings.add(field(), format_args!("{text} is {kind}, no endpoint can have it"));
            return None;
        }
        let node_name = endpoint.node_name.as_deref().filter(|name| !name.is_empty());
        let hints = endpoint.hints.as_ref();
        let zones = hints.map(|hints| items(&hints.for_zones)).unwrap_or_default();
        let nodes = hints.map(|hints| items(&hints.for_nodes)).unwrap_or_default();
        Some(Endpoint {
            address,
            conditions: conditions(endpoint.conditions.as_ref()),
            node_name: node_name.map(|name| self.strings.text(name)),
            hints: self.strings.hints(
                zones.iter().map(|zone| zone.name.as_str()),
                nodes.iter().map(|node| node.name.as_str()),
            ),
        })
    }
}

fn conditions(conditions: Option<&discovery::EndpointConditions>) -> Conditions {
    let default = Conditions::default();
    conditions.map_or(default, |given| Conditions {
        ready: given.ready.unwrap_or(default.ready),
        serving: given.serving.unwrap_or(default.serving),
        terminating: given.terminating.unwrap_or(default.terminating),
    })
}

fn trigger_time(metadata: &ObjectMeta, findings: &mut Findings<'_>) -> Option<i64> {
    let text = metadata.annotations.as_ref()?.get(TRIGGER_TIME)?;
    let time =
        text.parse::<Timestamp>().ok().and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    let field = format_args!("metadata.annotations[{TRIGGER_TIME}]");
    findings.need(time, field, format_args!("{text:?} is not a time (RFC 3339)"))
}
