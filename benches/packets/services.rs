//! The objects: the Services that are measured, and those that are only there.

use crate::node::ENDPOINT_PORT;
use nft_table::Family;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use test_support::lab::{cluster_ip, external_ip};

/// Endpoints of each Service.
pub const ENDPOINTS: usize = 10;
/// Port of each Service.
pub const PORT: u16 = 80;
/// Of the Service that has one.
pub const NODE_PORT: u16 = 30_080;
/// Numbers of the measured Services, see [`cluster_ip`].
pub const PLAIN: u8 = 10;
pub const WITH_NODE_PORT: u8 = 11;
pub const LOCAL: u8 = 12;
pub const AFFINITY: u8 = 13;
pub const EMPTY: u8 = 14;

/// All objects of a cluster with `size` Services beside the measured ones.
pub fn all(size: usize) -> Vec<Value> {
    let mut objects = measured();
    for number in 0..size {
        let name = format!("service-{number}");
        let ips = Family::BOTH.map(|family| other_ip(number, family));
        objects.push(service(&name, ips, json!({})));
        for family in Family::BOTH {
            let address = |one| other_endpoint(number * ENDPOINTS + one, family);
            objects.push(slice(&name, family, (0..ENDPOINTS).map(address), "elsewhere"));
        }
    }
    objects
}

fn measured() -> Vec<Value> {
    let node_port = json!({"name": "udp", "protocol": "UDP", "port": PORT, "nodePort": NODE_PORT});
    let external = Family::BOTH.map(|family| external_ip(LOCAL, family));
    let services = [
        ("plain", PLAIN, json!({})),
        ("node-port", WITH_NODE_PORT, json!({"type": "NodePort", "ports": [node_port]})),
        ("local", LOCAL, json!({"externalIPs": external, "externalTrafficPolicy": "Local"})),
        (
            "affinity",
            AFFINITY,
            json!({
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10_800}},
            }),
        ),
        ("empty", EMPTY, json!({})),
    ];
    let mut objects = Vec::new();
    for (name, number, spec) in services {
        let ips = Family::BOTH.map(|family| cluster_ip(number, family));
        objects.push(service(name, ips, spec));
        for family in Family::BOTH {
            let count = if number == EMPTY { 0 } else { ENDPOINTS };
            let addresses = (0..count).map(|one| endpoint(one, family));
            objects.push(slice(name, family, addresses, "node"));
        }
    }
    // Connections are TCP.
    let tcp = json!({"name": "tcp", "protocol": "TCP", "port": PORT});
    objects[0]["spec"]["ports"].as_array_mut().expect("ports").push(tcp);
    objects
}

/// A Service with one UDP port. It has all that the API server would have added, because nobody adds it
/// when an object is written into etcd.
fn service(name: &str, ips: [IpAddr; 2], more: Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips,
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{"name": "udp", "protocol": "UDP", "port": PORT}],
        },
    });
    let fields = service["spec"].as_object_mut().expect("an object");
    fields.extend(more.as_object().cloned().unwrap_or_default());
    service
}

fn slice(
    service: &str,
    family: Family,
    addresses: impl Iterator<Item = IpAddr>,
    node: &str,
) -> Value {
    let ready = json!({"ready": true, "serving": true, "terminating": false});
    let endpoint = |ip: IpAddr| json!({"addresses": [ip], "nodeName": node, "conditions": ready});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{}", family.to_string().to_lowercase()),
            "namespace": "default", "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family.to_string(),
        "ports": [
            {"name": "udp", "protocol": "UDP", "port": ENDPOINT_PORT},
            {"name": "tcp", "protocol": "TCP", "port": ENDPOINT_PORT},
        ],
        "endpoints": addresses.map(endpoint).collect::<Vec<_>>(),
    })
}

/// An address of the second pod: 10.244.0.64 and on, fd00:10:244::40 and on.
pub fn endpoint(number: usize, family: Family) -> IpAddr {
    numbered(Ipv4Addr::new(10, 244, 0, 64), 0xfd00_0010_0244 << 80 | 64, number, family)
}

/// ClusterIP of a Service that is only there: 10.96.16.0 and on.
pub fn other_ip(number: usize, family: Family) -> IpAddr {
    numbered(Ipv4Addr::new(10, 96, 16, 0), 0xfd00_0010_0096 << 80 | 0x1000, number, family)
}

/// An endpoint that does not exist, but is routed to the second pod: in 10.128.0.0/9
/// or fd00:10:128::/64.
fn other_endpoint(number: usize, family: Family) -> IpAddr {
    numbered(Ipv4Addr::new(10, 128, 0, 0), 0xfd00_0010_0128 << 80, number, family)
}

fn numbered(v4: Ipv4Addr, v6: u128, number: usize, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(u32::from(v4) + number as u32).into(),
        Family::V6 => Ipv6Addr::from(v6 + number as u128).into(),
    }
}
