//! Whatever an object holds, it is read.

use super::*;
use crate::model::{parse_cidr, parse_ip};
use proptest::prelude::*;

/// Texts that fields may hold: right ones, nearly right ones and any.
fn some_text() -> impl Strategy<Value = String> {
    let known = [
        "",
        "None",
        "10.0.0.1",
        "010.0.0.1",
        "10.0.0.256",
        "fd00::1",
        "::ffff:1.2.3.4",
        "10.0.0.0/8",
        "fd00::/64",
        "0.0.0.0/0",
        "::/",
        "/",
        "TCP",
        "UDP",
        "SCTP",
        "IPv4",
        "IPv6",
        "FQDN",
        "Local",
        "Cluster",
        "ClientIP",
        "NodePort",
        "LoadBalancer",
        "ExternalName",
        "VIP",
        "Proxy",
        "InternalIP",
        "2026-01-02T03:04:05Z",
    ];
    prop_oneof![4 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn some_texts() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(some_text(), 0..4)
}

fn some_port() -> impl Strategy<Value = i32> {
    prop_oneof![0..4i32, 65534..65537i32, any::<i32>()]
}

proptest! {
    #[test]
    fn any_service_is_read(
        texts in proptest::collection::vec(some_text(), 9), cluster_ips in some_texts(),
        families in some_texts(), external in some_texts(), ranges in some_texts(),
        ingress in some_texts(), ports in proptest::collection::vec((some_port(), some_text(), some_port()), 0..4),
        timeout in any::<i32>(),
    ) {
        let ports: Vec<_> = ports.iter().map(|(port, text, node_port)| {
            json!({"name": text, "port": port, "protocol": text, "nodePort": node_port})
        }).collect();
        let ingress: Vec<_> =
            ingress.iter().map(|text| json!({"ip": text, "ipMode": texts[8]})).collect();
        let object: k8s_openapi::api::core::v1::Service = serde_json::from_value(json!({
            "metadata": {"name": texts[0], "labels": {texts[1].clone(): texts[2]}},
            "spec": {
                "type": texts[3], "clusterIP": texts[4], "clusterIPs": cluster_ips,
                "ipFamilies": families, "externalIPs": external, "ports": ports,
                "internalTrafficPolicy": texts[5], "externalTrafficPolicy": texts[6],
                "sessionAffinity": texts[7], "loadBalancerSourceRanges": ranges,
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": timeout}},
                "healthCheckNodePort": timeout,
            },
            "status": {"loadBalancer": {"ingress": ingress}},
        })).unwrap();
        let mut intake = Intake::default();
        let reading = intake.service(&object);
        prop_assert_eq!(&reading, &intake.service(&object));
        let Change::Service(_, value) = reading.change else { panic!("not a Service") };
        if let Some(service) = value {
            prop_assert!(!service.cluster_ips.is_empty() && !service.ports.is_empty());
            prop_assert!(service.ports.iter().all(|p| p.port != 0 && p.node_port != Some(0)));
            let families = |family| service.cluster_ips.iter().filter(|ip| Family::of(ip) == family).count();
            prop_assert!(families(Family::V4) <= 1 && families(Family::V6) <= 1);
        }
    }

    #[test]
    fn any_slice_is_read(
        texts in proptest::collection::vec(some_text(), 5), addresses in some_texts(),
        conditions in any::<[Option<bool>; 3]>(),
        ports in proptest::collection::vec((some_port(), some_text()), 0..4),
    ) {
        let endpoints: Vec<_> = addresses.iter().map(|address| json!({
            "addresses": [address], "nodeName": texts[0],
            "hints": {"forZones": [{"name": texts[1]}]},
            "conditions": {"ready": conditions[0], "serving": conditions[1], "terminating": conditions[2]},
        })).collect();
        let ports: Vec<_> = ports.iter().map(|(port, text)| {
            json!({"name": text, "port": port, "protocol": text})
        }).collect();
        let object: k8s_openapi::api::discovery::v1::EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": texts[2]},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": texts[3]}},
            "addressType": texts[4], "ports": ports, "endpoints": endpoints,
        })).unwrap();
        let reading = Intake::default().endpoint_slice(&object);
        let Change::EndpointSlice(_, value) = reading.change else { panic!("not a slice") };
        if let Some(slice) = value {
            prop_assert!(slice.ports.iter().all(|port| port.port != 0));
            prop_assert!(slice.endpoints.iter().all(|e| Family::of(&e.address) == slice.family));
        }
    }

    #[test]
    fn any_text_is_an_address_or_is_not(text in "[0-9a-f:./]{0,24}") {
        if let Ok(ip) = text.parse::<std::net::IpAddr>() {
            prop_assert_eq!(parse_ip(&text), Some(ip.to_canonical()));
        }
        if let Some(ip) = parse_ip(&text) {
            prop_assert_eq!(parse_ip(&ip.to_string()), Some(ip));
        }
        if let Some(net) = parse_cidr(&text) {
            prop_assert_eq!(parse_cidr(&net.to_string()), Some(net));
        }
    }
}
