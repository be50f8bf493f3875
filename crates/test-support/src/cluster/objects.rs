//! API objects as JSON: making them, and sending them.

use http::{Method, Request, header};
use kube::Client;
use serde_json::{Value, json};

/// The URL path of an object.
fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&object["metadata"]["name"]);
    let namespace = match text(&object["metadata"]["namespace"]) {
        namespace if namespace.is_empty() => "default".to_owned(),
        namespace => namespace,
    };
    match object["kind"].as_str().unwrap_or_default() {
        "Service" => format!("/api/v1/namespaces/{namespace}/services/{name}"),
        "EndpointSlice" => {
            format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}")
        }
        "Node" => format!("/api/v1/nodes/{name}"),
        "ServiceCIDR" => format!("/apis/networking.k8s.io/v1/servicecidrs/{name}"),
        kind => panic!("objects of kind {kind:?} are not known here"),
    }
}

async fn send(client: &Client, method: Method, path: &str, content: &str, body: &Value) -> Value {
    let request = Request::builder().method(method.clone()).uri(path);
    let request = request.header(header::CONTENT_TYPE, content);
    let request = request.body(body.to_string().into_bytes()).expect("a request");
    client.request(request).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// Creates or changes an object to what is given; returns what the server made of it.
pub async fn apply(client: &Client, object: &Value) -> Value {
    let path = path(object);
    let content = "application/apply-patch+yaml";
    let main = format!("{path}?fieldManager=e2e&force=true");
    let mut object = object.clone();
    let status = object.as_object_mut().and_then(|fields| fields.remove("status"));
    let answer = send(client, Method::PATCH, &main, content, &object).await;
    let Some(status) = status else { return answer };
    // Not as an apply: that takes two addresses of one type in a Node for a mistake.
    let status = json!({"status": status});
    let path = format!("{path}/status");
    send(client, Method::PATCH, &path, "application/merge-patch+json", &status).await
}

/// Deletes an object.
pub async fn delete(client: &Client, object: &Value) {
    let content = "application/json";
    send(client, Method::DELETE, &path(object), content, &json!({})).await;
}

/// A Service with one port, 80 to the lab's port, TCP, in both families.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

/// The ClusterIPs of a Service as the server made it, IPv4 first.
pub fn cluster_ips(service: &Value) -> Vec<std::net::IpAddr> {
    let ips = service["spec"]["clusterIPs"].as_array().expect("clusterIPs");
    let parse = |ip: &Value| ip.as_str().and_then(|ip| ip.parse().ok()).expect("an address");
    let mut ips: Vec<_> = ips.iter().map(parse).collect();
    ips.sort();
    ips
}

/// An EndpointSlice of a Service: (address, node) of each ready endpoint, on the lab's port.
pub fn slice<A: ToString>(name: &str, service: &str, endpoints: &[(A, &str)]) -> Value {
    let ipv6 = endpoints.first().is_some_and(|(address, _)| address.to_string().contains(':'));
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, node)| {
            json!({
                "addresses": [address.to_string()], "nodeName": node,
                "conditions": {"ready": true, "serving": true, "terminating": false},
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": if ipv6 { "IPv6" } else { "IPv4" },
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// A Node with an address of each family.
pub fn node(name: &str, addresses: &[std::net::IpAddr], pod_cidrs: &[&str]) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "zone-a"}},
        "spec": {"podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs},
        "status": {"addresses": addresses},
    })
}
