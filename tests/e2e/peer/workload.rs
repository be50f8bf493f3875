//! The Services that are only there.

use crate::cluster::Cluster;
use futures::StreamExt;
use http::{Request, header};
use kube::Client;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::ops::Range;

/// Endpoints of each Service.
pub const ENDPOINTS: usize = 10;
/// Requests in flight.
const AT_ONCE: usize = 32;

async fn post(client: &Client, path: &str, object: &Value) {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(object.to_string().into_bytes()).expect("a request");
    let answer: Result<Value, kube::Error> = client.request(request).await;
    answer.unwrap_or_else(|error| panic!("POST {path}: {error}"));
}

fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("service-{number}"), "namespace": "default"},
        "spec": {
            "selector": {"app": format!("app-{number}")},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
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
                    "uid": format!("00000000-0000-4000-8000-{:012}", number * ENDPOINTS + one),
                },
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("service-{number}-abcde"), "namespace": "default",
            "labels": {
                "kubernetes.io/service-name": format!("service-{number}"),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// Creates Services and slices by number.
pub fn create(cluster: &Cluster, numbers: Range<usize>) {
    cluster.with(async |client| {
        let client = &client;
        let work = futures::stream::iter(numbers.map(|number| async move {
            post(client, "/api/v1/namespaces/default/services", &service(number)).await;
            let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
            post(client, slices, &slice(number)).await;
        }));
        work.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    });
}
