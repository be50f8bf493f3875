//! The API server's defaults, for objects that never went through one.
//!
//! A manifest is as its author wrote it, while everything behind this module expects objects as an API
//! server gives them. What an API server would allocate has no default: [`remarks`] names it.

use crate::model::parse_ip;
use k8s_openapi::api::core::v1::{ClientIPConfig, Service, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::api::discovery::v1::EndpointSlice;

const AFFINITY_SECONDS: i32 = 10_800;

/// Applies the defaults of a Service.
pub fn service(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    let service_type = fill(&mut spec.type_, "ClusterIP").to_owned();
    for port in spec.ports.iter_mut().flatten() {
        fill(&mut port.protocol, "TCP");
    }
    if fill(&mut spec.session_affinity, "None") == "ClientIP" {
        let config: &mut SessionAffinityConfig =
            spec.session_affinity_config.get_or_insert_default();
        let client: &mut ClientIPConfig = config.client_ip.get_or_insert_default();
        client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
    }
    if service_type != "ExternalName" {
        fill(&mut spec.internal_traffic_policy, "Cluster");
        let outside = spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
        if service_type != "ClusterIP" || outside {
            fill(&mut spec.external_traffic_policy, "Cluster");
        }
        cluster_ips(spec);
    }
}

/// `clusterIPs` from `clusterIP` or the other way round, then `ipFamilies` from `clusterIPs`.
fn cluster_ips(spec: &mut ServiceSpec) {
    let listed = spec.cluster_ips.get_or_insert_default();
    match (spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty()), listed.first()) {
        (Some(ip), None) => listed.push(ip.to_owned()),
        (None, Some(ip)) => spec.cluster_ip = Some(ip.clone()),
        _ => {}
    }
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() && listed.first().is_some_and(|ip| ip != "None") {
        // A bad address has no family; any will do for the complaint about it.
        let family = |ip: &String| match parse_ip(ip) {
            Some(ip) if ip.is_ipv6() => "IPv6".to_owned(),
            _ => "IPv4".to_owned(),
        };
        *families = listed.iter().map(family).collect();
    }
}

/// Applies the defaults of an EndpointSlice.
pub fn endpoint_slice(slice: &mut EndpointSlice) {
    for port in slice.ports.iter_mut().flatten() {
        port.name.get_or_insert_default();
        fill(&mut port.protocol, "TCP");
    }
}

/// What a Service lacks that an API server would have allocated or refused: field and message.
pub fn remarks(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let service_type = spec.type_.as_deref().unwrap_or_default();
    let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let mut remarks = Vec::new();
    if service_type == "ExternalName" || cluster_ip == "None" {
        return remarks;
    }
    if cluster_ip.is_empty() {
        let message =
            "missing; without an API server nobody allocates one, the Service is not served";
        remarks.push(("spec.clusterIP".to_owned(), message.to_owned()));
    } else if listed.first().is_some_and(|first| first != cluster_ip) {
        let message = format!("{} is not spec.clusterIP ({cluster_ip}), and wins", listed[0]);
        remarks.push(("spec.clusterIPs[0]".to_owned(), message));
    }
    if service_type == "NodePort" {
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            if port.node_port.unwrap_or(0) == 0 {
                let message = "missing; without an API server nobody allocates one";
                remarks.push((format!("spec.ports[{index}].nodePort"), message.to_owned()));
            }
        }
    }
    remarks
}

/// Sets a text that is absent or empty; returns what it is then.
fn fill<'a>(field: &'a mut Option<String>, default: &str) -> &'a str {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(default.to_owned());
    }
    field.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn defaulted(spec: Value) -> Value {
        let mut object: Service = serde_json::from_value(json!({"spec": spec})).unwrap();
        service(&mut object);
        serde_json::to_value(object.spec).unwrap()
    }

    #[test]
    fn service_defaults() {
        assert_eq!(
            defaulted(json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]})),
            json!({
                "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"],
                "ports": [{"port": 80, "protocol": "TCP"}],
            })
        );
        let spec = defaulted(json!({"type": "NodePort", "sessionAffinity": "ClientIP",
            "clusterIPs": ["fd00::1", "10.96.0.1"]}));
        assert_eq!(spec["externalTrafficPolicy"], "Cluster");
        assert_eq!(spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10_800);
        assert_eq!(spec["clusterIP"], "fd00::1");
        assert_eq!(spec["ipFamilies"], json!(["IPv6", "IPv4"]));
    }

    #[test]
    fn what_is_given_stays() {
        let given = json!({
            "type": "LoadBalancer", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}},
            "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
            "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
            "ipFamilies": ["IPv4", "IPv6"], "ports": [{"port": 53, "protocol": "UDP"}],
        });
        assert_eq!(defaulted(given.clone()), given);
        let headless = defaulted(json!({"clusterIP": "None"}));
        assert_eq!(headless["clusterIPs"], json!(["None"]));
        assert_eq!(headless["ipFamilies"], json!([]));
    }

    #[test]
    fn slice_defaults() {
        let mut slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "ports": [{"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        }))
        .unwrap();
        endpoint_slice(&mut slice);
        let ports = serde_json::to_value(slice.ports).unwrap();
        assert_eq!(ports[0], json!({"name": "", "port": 80, "protocol": "TCP"}));
        assert_eq!(ports[1], json!({"name": "dns", "port": 53, "protocol": "UDP"}));
    }

    #[test]
    fn what_an_api_server_would_have_allocated() {
        for (spec, expected) in [
            (json!({"ports": [{"port": 80}]}), vec!["spec.clusterIP"]),
            (json!({"clusterIP": "None"}), vec![]),
            (json!({"type": "ExternalName", "externalName": "example.com"}), vec![]),
            (json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}), vec![]),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}),
                vec!["spec.clusterIPs[0]"],
            ),
            (
                json!({"type": "NodePort", "clusterIP": "10.0.0.1",
                       "ports": [{"port": 80, "nodePort": 30080}, {"port": 81}]}),
                vec!["spec.ports[1].nodePort"],
            ),
        ] {
            let mut object: Service = serde_json::from_value(json!({"spec": spec})).unwrap();
            service(&mut object);
            let fields: Vec<_> = remarks(&object).into_iter().map(|(field, _)| field).collect();
            assert_eq!(fields, expected, "{spec}");
        }
    }
}
