//! The Node object of this node.

use super::problem::{Field, Findings, NotACidr, NotAnIp};
use super::{Intake, ObjectKey, Reading, items, label};
use crate::model::{Change, Node, Taint, node_addresses, parse_cidr, parse_ip};
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use std::net::IpAddr;

const ZONE: &str = "topology.kubernetes.io/zone";

impl Intake {
    /// Reads this node's Node object; the caller sees to it that it is this node's. A bad address or
    /// CIDR is left out alone.
    pub fn node(&mut self, object: &core::Node) -> Reading {
        let name = self.strings.text(object.metadata.name.as_deref().unwrap_or_default());
        let key = ObjectKey::Node(name.clone());
        let mut findings = Findings::of(&key);
        let spec = object.spec.as_ref();
        let taints = spec.map(|spec| items(&spec.taints)).unwrap_or_default();
        let node = Node {
            name,
            addresses: node_addresses(self.options.bind_address, &addresses(object, &mut findings)),
            zone: label(&object.metadata, ZONE)
                .filter(|zone| !zone.is_empty())
                .map(|zone| self.strings.text(zone)),
            pod_cidrs: spec.map(|spec| pod_cidrs(spec, &mut findings)).unwrap_or_default(),
            taints: taints
                .iter()
                .map(|taint| Taint {
                    key: self.strings.text(&taint.key),
                    effect: self.strings.text(&taint.effect),
                })
                .collect(),
            deleting: object.metadata.deletion_timestamp.is_some(),
        };
        let problems = findings.into_problems();
        Reading { key, change: Change::Node(Some(Box::new(node))), problems }
    }
}

/// Internal addresses, then external ones.
fn addresses(object: &core::Node, findings: &mut Findings<'_>) -> Vec<IpAddr> {
    let list = object.status.as_ref().map(|status| items(&status.addresses)).unwrap_or_default();
    let mut addresses = Vec::new();
    for wanted in ["InternalIP", "ExternalIP"] {
        for (index, entry) in list.iter().enumerate().filter(|(_, entry)| entry.type_ == wanted) {
            let field = Field("status.addresses", index, "address");
            let text = entry.address.as_str();
            match findings.need(parse_ip(text), field, NotAnIp(text)) {
                Some(address) if !addresses.contains(&address) => addresses.push(address),
                _ => {}
            }
        }
    }
    addresses
}

fn pod_cidrs(spec: &core::NodeSpec, findings: &mut Findings<'_>) -> Vec<IpNet> {
    let list = items(&spec.pod_cidrs);
    if list.is_empty() {
        let text = spec.pod_cidr.as_deref().filter(|text| !text.is_empty());
        let cidr =
            text.and_then(|text| findings.need(parse_cidr(text), "spec.podCIDR", NotACidr(text)));
        return cidr.into_iter().collect();
    }
    list.iter()
        .enumerate()
        .filter_map(|(index, text)| {
            let field = Field("spec.podCIDRs", index, "");
            findings.need(parse_cidr(text), field, NotACidr(text))
        })
        .collect()
}
