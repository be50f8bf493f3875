//! The Services that are only there.
//!
//! They are written straight into etcd: the API server counts all addresses that are taken whenever it gives
//! one out, so creating Services takes it seconds each at 50,000 of them.

use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::ops::Range;
use test_support::cluster::Cluster;

/// Endpoints of each Service.
pub const ENDPOINTS: usize = 10;
/// Services in a transaction of etcd, which has at most 128 operations.
const AT_ONCE: usize = 40;

/// `10.96.16.0` and on.
fn cluster_ip(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0a60_1000 + number as u32)
}

fn uid(kind: usize, number: usize) -> String {
    format!("00000000-0000-4000-800{kind}-{number:012}")
}

fn service(number: usize) -> Value {
    let ip = cluster_ip(number);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": format!("service-{number}"), "namespace": "default", "uid": uid(0, number),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "selector": {"app": format!("app-{number}")},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
        "status": {"loadBalancer": {}},
    })
}

/// What the API server notes of an address that it has given out.
fn ip_address(number: usize) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": cluster_ip(number), "uid": uid(1, number),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "group": "", "resource": "services", "namespace": "default",
            "name": format!("service-{number}"),
        }},
    })
}

/// As the EndpointSlice controller writes it.
fn slice(number: usize) -> Value {
    let endpoints: Vec<Value> = (0..ENDPOINTS)
        .map(|one| {
            let address = Ipv4Addr::from(0x0a80_0000 + (number * ENDPOINTS + one) as u32);
            json!({
                "addresses": [address], "nodeName": format!("node-{}", (number + one) % 500),
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "zone": format!("zone-{}", one % 3),
                "targetRef": {
                    "kind": "Pod", "namespace": "default", "name": format!("app-{number}-{one}"),
                    "uid": uid(3, number * ENDPOINTS + one),
                },
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("service-{number}-abcde"), "namespace": "default", "uid": uid(2, number),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "kubernetes.io/service-name": format!("service-{number}"),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": format!("service-{number}"),
                "uid": uid(0, number), "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// Makes Services and slices by number, and waits until the API server has nothing more to do with them.
pub fn create(cluster: &Cluster, numbers: Range<usize>) {
    let numbers: Vec<usize> = numbers.collect();
    for some in numbers.chunks(AT_ONCE) {
        let of = |number: &usize| {
            let slice_key = format!("endpointslices/default/service-{number}-abcde");
            [
                (format!("ipaddresses/{}", cluster_ip(*number)), ip_address(*number)),
                (format!("services/specs/default/service-{number}"), service(*number)),
                (slice_key, slice(*number)),
            ]
        };
        let objects: Vec<(String, Value)> = some.iter().flat_map(of).collect();
        cluster.store(&objects);
    }
    cluster.wait_idle();
}
