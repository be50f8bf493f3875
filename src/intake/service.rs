//! Services.

use super::budget;
use super::problem::{Field, Findings, NotACidr, NotAPort, NotAnIp};
use super::special::special;
use super::{Intake, ObjectKey, Reading, annotations, has_label, items, port_number};
use crate::model::{
    Change, Family, Protocol, Service, ServicePort, ServiceType, parse_cidr, parse_ip,
};
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A Service with this label is another proxy's, whatever the value.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where it is not set: three hours.
pub(super) const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;
const MAX_AFFINITY_SECONDS: i32 = 86_400;

impl Intake {
    /// Reads a Service. Headless, ExternalName and other proxies' Services, and those without a
    /// ClusterIP yet, are skipped without a word.
    pub fn service(&mut self, object: &core::Service) -> Reading {
        let name = self.name(&object.metadata);
        let key = ObjectKey::Service(name.clone());
        let mut findings = Findings::of(&key);
        let value = match &object.spec {
            Some(spec) if !skipped(object, spec) => {
                self.served_service(object, spec, &mut findings).map(Box::new)
            }
            _ => None,
        };
        let weights = value.as_ref().and_then(|service| service.weights.as_ref());
        if weights.is_some_and(|weights| weights.need_description()) {
            self.options.described.ask(&name);
        }
        let problems = findings.into_problems();
        Reading { key, change: Change::Service(name, value), problems }
    }

    /// `None` when a value makes the Service unusable.
    fn served_service(
        &mut self,
        object: &core::Service,
        spec: &core::ServiceSpec,
        findings: &mut Findings<'_>,
    ) -> Option<Service> {
        let cluster_ips = cluster_ips(spec, findings);
        let ports = self.service_ports(spec, findings);
        let affinity = affinity(spec, findings);
        let (source_ranges, unreadable_ranges) = source_ranges(spec, findings);

        let service_type = match text(&spec.type_) {
            "" | "ClusterIP" => ServiceType::ClusterIp,
            "NodePort" => ServiceType::NodePort,
            "LoadBalancer" => ServiceType::LoadBalancer,
            other => {
                findings.add("spec.type", format_args!("{other:?} is unknown, taken as ClusterIP"));
                ServiceType::ClusterIp
            }
        };
        let external_ips = if self.options.allow_service_external_ips {
            external_ips(spec, findings)
        } else {
            Vec::new()
        };
        let external_local = is_local(&spec.external_traffic_policy, "external", findings)
            && (service_type != ServiceType::ClusterIp || !external_ips.is_empty());
        let internal_local = is_local(&spec.internal_traffic_policy, "internal", findings);
        let health_check_node_port = match spec.health_check_node_port.unwrap_or(0) {
            0 => None,
            _ if !external_local || service_type != ServiceType::LoadBalancer => None,
            number => {
                findings.need(port_number(number), "spec.healthCheckNodePort", NotAPort(number))
            }
        };

        let mut service = Service {
            name: self.name(&object.metadata),
            created: created(object),
            service_type,
            cluster_ips: cluster_ips?,
            external_ips,
            load_balancer_ips: load_balancer_ips(object, findings),
            ports: ports?,
            internal_local,
            external_local,
            affinity: affinity?,
            algorithm: annotations::algorithm(&object.metadata, findings),
            weights: annotations::weights(&object.metadata, findings),
            table_size: annotations::table_size(&object.metadata, findings),
            limits: annotations::limits(&object.metadata, findings),
            reset_gone: annotations::reset_gone(&object.metadata, findings),
            source_ranges,
            unreadable_ranges,
            health_check_node_port,
        };
        budget::keep(&mut service, findings);
        Some(service)
    }

    /// All ports, or `None` when one of them is bad: the API server would have refused the Service.
    fn service_ports(
        &mut self,
        spec: &core::ServiceSpec,
        findings: &mut Findings<'_>,
    ) -> Option<Vec<ServicePort>> {
        let list = items(&spec.ports);
        if list.is_empty() {
            findings.add("spec.ports", "empty, there is nothing to serve");
            return None;
        }
        let mut ports: Vec<ServicePort> = Vec::with_capacity(list.len());
        let mut seen = SeenPorts::default();
        for (index, entry) in list.iter().enumerate() {
            let field = |name| Field("spec.ports", index, name);
            let port = port_number(entry.port);
            let port = findings.need(port, field("port"), NotAPort(entry.port));
            let protocol = protocol(&entry.protocol, field("protocol"), findings);
            let node_port = match entry.node_port.unwrap_or(0) {
                0 => Some(None),
                number => findings
                    .need(port_number(number), field("nodePort"), NotAPort(number))
                    .map(Some),
            };
            let (Some(port), Some(protocol), Some(node_port)) = (port, protocol, node_port) else {
                continue;
            };
            let name = self.strings.text(text(&entry.name));
            let port = ServicePort { name, protocol, port, node_port };
            match seen.clash(&port) {
                None => ports.push(port),
                Some((what, other)) => findings
                    .add(field(what), format_args!("the same as of {protocol} port {other}")),
            }
        }
        (ports.len() == list.len()).then_some(ports)
    }
}

/// The ports of a Service so far, by what no two of them may share, each with its number.
#[derive(Default)]
struct SeenPorts {
    numbers: HashSet<(Protocol, u16)>,
    names: HashMap<(Protocol, Arc<str>), u16>,
    node_ports: HashMap<(Protocol, u16), u16>,
}

impl SeenPorts {
    /// The field that a port shares with another one, and the number of that; else it is noted.
    fn clash(&mut self, port: &ServicePort) -> Option<(&'static str, u16)> {
        let (protocol, number) = (port.protocol, port.port);
        let name = (protocol, port.name.clone());
        let node_port = port.node_port.map(|node_port| (protocol, node_port));
        if self.numbers.contains(&(protocol, number)) {
            return Some(("port", number));
        }
        if let Some(other) = self.names.get(&name) {
            return Some(("name", *other));
        }
        if let Some(other) = node_port.and_then(|node_port| self.node_ports.get(&node_port)) {
            return Some(("nodePort", *other));
        }
        self.numbers.insert((protocol, number));
        self.names.insert(name, number);
        self.node_ports.extend(node_port.map(|node_port| (node_port, number)));
        None
    }
}

/// Whether a Service is none of this proxy's business.
fn skipped(object: &core::Service, spec: &core::ServiceSpec) -> bool {
    has_label(&object.metadata, PROXY_NAME)
        || matches!(text(&spec.cluster_ip), "" | "None")
        || text(&spec.type_) == "ExternalName"
}

/// The ClusterIP of each family: `clusterIPs` at the places that `ipFamilies` gives them, or
/// `clusterIP` where there is no `ipFamilies`.
fn cluster_ips(spec: &core::ServiceSpec, findings: &mut Findings<'_>) -> Option<Vec<IpAddr>> {
    let families = items(&spec.ip_families);
    if families.is_empty() {
        let ip = text(&spec.cluster_ip);
        return findings.need(parse_ip(ip), "spec.clusterIP", NotAnIp(ip)).map(|ip| vec![ip]);
    }
    let mut ips: Vec<IpAddr> = Vec::with_capacity(families.len());
    let mut sound = true;
    for (index, (family, ip)) in families.iter().zip(items(&spec.cluster_ips)).enumerate() {
        let field = Field("spec.clusterIPs", index, "");
        let Some(address) = findings.need(parse_ip(ip), &field, NotAnIp(ip)) else {
            sound = false;
            continue;
        };
        if Family::of(&address).to_string() != *family {
            findings.add(field, format_args!("{ip} is not of the family {family:?} of its place"));
            sound = false;
        } else if !ips.iter().any(|other| Family::of(other) == Family::of(&address)) {
            ips.push(address);
        }
    }
    if ips.is_empty() && sound {
        findings.add("spec.clusterIPs", "empty, but spec.ipFamilies is not");
        sound = false;
    }
    sound.then_some(ips)
}

/// `spec.externalIPs` without those that cannot be one.
fn external_ips(spec: &core::ServiceSpec, findings: &mut Findings<'_>) -> Vec<IpAddr> {
    let (mut ips, mut seen) = (Vec::new(), HashSet::new());
    for (index, ip) in items(&spec.external_ips).iter().enumerate() {
        let field = Field("spec.externalIPs", index, "");
        match parse_ip(ip).map(|address| (address, special(address))) {
            None => findings.add(field, NotAnIp(ip)),
            Some((_, Some(kind))) => findings.add(field, format_args!("{ip} is {kind}")),
            Some((address, None)) => ips.extend(seen.insert(address).then_some(address)),
        }
    }
    ips
}

/// The addresses of `status.loadBalancer.ingress` that this node answers itself. With ipMode Proxy
/// traffic goes to the load balancer, so those are not ours.
fn load_balancer_ips(object: &core::Service, findings: &mut Findings<'_>) -> Vec<IpAddr> {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.map(|status| items(&status.ingress)).unwrap_or_default();
    let (mut ips, mut seen) = (Vec::new(), HashSet::new());
    for (index, entry) in ingress.iter().enumerate() {
        let field = |name| Field("status.loadBalancer.ingress", index, name);
        match entry.ip_mode.as_deref() {
            None | Some("VIP") => {}
            Some("Proxy") => continue,
            Some(other) => {
                findings.add(field("ipMode"), format_args!("{other:?} is unknown, left out"));
                continue;
            }
        }
        match text(&entry.ip) {
            "" => {}
            ip => match parse_ip(ip) {
                None => findings.add(field("ip"), NotAnIp(ip)),
                Some(address) => ips.extend(seen.insert(address).then_some(address)),
            },
        }
    }
    ips
}

/// `spec.loadBalancerSourceRanges`, and the families of those that are none: they open nothing. White space around a
/// range is allowed.
fn source_ranges(
    spec: &core::ServiceSpec,
    findings: &mut Findings<'_>,
) -> (Vec<IpNet>, Vec<Family>) {
    let list = items(&spec.load_balancer_source_ranges);
    let (mut ranges, mut unreadable) = (Vec::with_capacity(list.len()), Vec::new());
    for (index, range) in list.iter().enumerate() {
        let field = Field("spec.loadBalancerSourceRanges", index, "");
        match findings.need(parse_cidr(range.trim()), field, NotACidr(range)) {
            Some(range) => ranges.push(range),
            None => unreadable.extend(families_like(range)),
        }
    }
    unreadable.sort_unstable();
    unreadable.dedup();
    (ranges, unreadable)
}

/// The families that a text which is no range may have meant.
fn families_like(text: &str) -> Vec<Family> {
    match (text.contains('.'), text.contains(':')) {
        (true, false) => vec![Family::V4],
        (false, true) => vec![Family::V6],
        _ => Family::BOTH.into(),
    }
}

/// The affinity timeout: `Some(None)` without affinity, `None` when the timeout is bad.
fn affinity(spec: &core::ServiceSpec, findings: &mut Findings<'_>) -> Option<Option<Duration>> {
    match text(&spec.session_affinity) {
        "" | "None" => return Some(None),
        "ClientIP" => {}
        other => {
            findings
                .add("spec.sessionAffinity", format_args!("{other:?} is unknown, taken as None"));
            return Some(None);
        }
    }
    let config = spec.session_affinity_config.as_ref();
    let seconds = config
        .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
        .unwrap_or(DEFAULT_AFFINITY_SECONDS);
    let valid =
        u64::try_from(seconds).ok().filter(|_| (1..=MAX_AFFINITY_SECONDS).contains(&seconds));
    findings
        .need(
            valid,
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            format_args!("{seconds} is not in 1-{MAX_AFFINITY_SECONDS}"),
        )
        .map(|seconds| Some(Duration::from_secs(seconds)))
}

/// Whether `internalTrafficPolicy` or `externalTrafficPolicy` is Local.
fn is_local(policy: &Option<String>, which: &str, findings: &mut Findings<'_>) -> bool {
    match text(policy) {
        "Local" => true,
        "" | "Cluster" => false,
        other => {
            let field = format_args!("spec.{which}TrafficPolicy");
            findings.add(field, format_args!("{other:?} is unknown, taken as Cluster"));
            false
        }
    }
}

/// A port's protocol; absent means TCP.
pub(super) fn protocol(
    protocol: &Option<String>,
    field: impl fmt::Display,
    findings: &mut Findings<'_>,
) -> Option<Protocol> {
    match text(protocol) {
        "" => Some(Protocol::Tcp),
        name => findings.need(
            Protocol::parse(name),
            field,
            format_args!("{name:?} is not TCP, UDP or SCTP"),
        ),
    }
}

fn created(object: &core::Service) -> i64 {
    object.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second())
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}
