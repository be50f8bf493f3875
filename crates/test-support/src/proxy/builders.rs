//! Kubernetes objects for scenarios, dual stack unless said otherwise, as the JSON of their manifests.

use crate::lab::{Lab, PORT, cluster_ip, external_ip};
use nft_table::Family;
use serde_json::{Value, json};

/// A Service in namespace `default`, or with its namespace as `shop/cart`.
pub fn service(name: &str) -> Service {
    Service {
        object: json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(name),
            "spec": { "ports": [] },
        }),
        families: Family::BOTH.to_vec(),
    }
}

/// The EndpointSlices of a Service, one per family. Ports come first, then endpoints.
pub fn endpoints(service: &str) -> Endpoints {
    Endpoints {
        service: service.to_owned(),
        suffix: String::new(),
        families: Family::BOTH.to_vec(),
        ports: Vec::new(),
        endpoints: Vec::new(),
    }
}

/// A ServiceCIDR object.
pub fn service_cidr(name: &str, cidrs: &[&str]) -> Vec<Value> {
    vec![json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": { "name": name },
        "spec": { "cidrs": cidrs },
    })]
}

/// The lab's node, with its addresses and podCIDRs.
pub fn node() -> Vec<Value> {
    vec![json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": "node", "labels": { "topology.kubernetes.io/zone": "here" } },
        "spec": {
            "podCIDR": "10.244.0.0/24",
            "podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"],
        },
        "status": { "addresses": [
            { "type": "InternalIP", "address": "192.0.2.1" },
            { "type": "InternalIP", "address": "2001:db8::1" },
        ] },
    })]
}

fn metadata(name: &str) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    json!({ "namespace": namespace, "name": name })
}

/// See [`service`].
#[derive(Clone)]
pub struct Service {
    object: Value,
    families: Vec<Family>,
}

impl Service {
    /// Only this family. Must come before the addresses.
    pub fn only(mut self, family: Family) -> Self {
        self.families = vec![family];
        self
    }

    /// ClusterIP [`cluster_ip`]`(number)`.
    pub fn cluster_ip(self, number: u8) -> Self {
        let ips: Vec<_> = self.families.iter().map(|family| cluster_ip(number, *family)).collect();
        let families: Vec<_> = self.families.iter().map(|family| family.to_string()).collect();
        self.spec("clusterIP", json!(ips[0]))
            .spec("clusterIPs", json!(ips))
            .spec("ipFamilies", json!(families))
    }

    /// A TCP port, unnamed unless [`Service::named`] follows.
    pub fn tcp(self, port: u16) -> Self {
        self.port("TCP", port)
    }

    pub fn udp(self, port: u16) -> Self {
        self.port("UDP", port)
    }

    pub fn sctp(self, port: u16) -> Self {
        self.port("SCTP", port)
    }

    /// Names the last port.
    pub fn named(mut self, name: &str) -> Self {
        self.last_port()["name"] = json!(name);
        self
    }

    /// Gives the last port a NodePort.
    pub fn node_port(mut self, port: u16) -> Self {
        self.last_port()["nodePort"] = json!(port);
        if self.object["spec"]["type"].is_null() {
            self.object["spec"]["type"] = json!("NodePort");
        }
        self
    }

    /// An external IP, [`external_ip`]`(number)`.
    pub fn external_ip(self, number: u8) -> Self {
        let ips: Vec<_> = self.families.iter().map(|family| external_ip(number, *family)).collect();
        self.spec("externalIPs", json!(ips))
    }

    /// A load balancer with the VIP [`external_ip`]`(number)`; `mode` is its ipMode.
    pub fn load_balancer(mut self, number: u8, mode: Option<&str>) -> Self {
        self.object["spec"]["type"] = json!("LoadBalancer");
        let ingress = self.families.iter().map(|family| {
            let ip = external_ip(number, *family);
            mode.map_or(json!({ "ip": ip }), |mode| json!({ "ip": ip, "ipMode": mode }))
        });
        self.object["status"]["loadBalancer"]["ingress"] = ingress.collect();
        self
    }

    /// Sets a field of the spec.
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        self.object["spec"][field] = value;
        self
    }

    /// Sets a label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.object["metadata"]["labels"][name] = json!(value);
        self
    }

    /// Sets an annotation.
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.object["metadata"]["annotations"][name] = json!(value);
        self
    }

    /// Sets the time of creation, as `2024-05-06T07:08:09Z`.
    pub fn created(mut self, time: &str) -> Self {
        self.object["metadata"]["creationTimestamp"] = json!(time);
        self
    }

    fn port(mut self, protocol: &str, port: u16) -> Self {
        let ports = self.object["spec"]["ports"].as_array_mut().expect("ports");
        ports.push(json!({ "protocol": protocol, "port": port }));
        self
    }

    fn last_port(&mut self) -> &mut Value {
        let ports = self.object["spec"]["ports"].as_array_mut().expect("ports");
        ports.last_mut().expect("a port first")
    }
}

impl IntoIterator for Service {
    type Item = Value;
    type IntoIter = std::iter::Once<Value>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.object)
    }
}

/// See [`endpoints`].
#[derive(Clone)]
pub struct Endpoints {
    service: String,
    suffix: String,
    families: Vec<Family>,
    ports: Vec<Value>,
    /// Per endpoint: its addresses by family, and the rest of it.
    endpoints: Vec<([std::net::IpAddr; 2], Value)>,
}

impl Endpoints {
    /// Only this family.
    pub fn only(mut self, family: Family) -> Self {
        self.families = vec![family];
        self
    }

    /// For a second slice of the same Service.
    pub fn slice(mut self, suffix: &str) -> Self {
        self.suffix = format!("-{suffix}");
        self
    }

    /// A TCP port that leads to [`PORT`].
    pub fn tcp(self) -> Self {
        self.port("", "TCP", PORT)
    }

    pub fn udp(self) -> Self {
        self.port("", "UDP", PORT)
    }

    pub fn sctp(self) -> Self {
        self.port("", "SCTP", PORT)
    }

    /// A port by the name that the Service gives it.
    pub fn port(mut self, name: &str, protocol: &str, port: u16) -> Self {
        self.ports.push(json!({ "name": name, "protocol": protocol, "port": port }));
        self
    }

    /// These hosts of the lab are ready endpoints.
    pub fn on(self, lab: &Lab, hosts: &[&str]) -> Self {
        self.with(lab, hosts, json!({ "conditions": { "ready": true } }))
    }

    /// These hosts are endpoints in this condition, or with other fields.
    pub fn with(mut self, lab: &Lab, hosts: &[&str], fields: Value) -> Self {
        for host in hosts {
            let mut fields = fields.clone();
            if fields["nodeName"].is_null() {
                fields["nodeName"] = json!(lab.node_of(host));
            }
            self.endpoints.push((Family::BOTH.map(|family| lab.ip(host, family)), fields));
        }
        self
    }
}

impl IntoIterator for Endpoints {
    type Item = Value;
    type IntoIter = std::vec::IntoIter<Value>;

    fn into_iter(self) -> Self::IntoIter {
        let slice = |family: &Family| {
            let mut metadata = metadata(&self.service);
            let service = metadata["name"].as_str().expect("a name").to_owned();
            let kind = family.to_string();
            metadata["name"] = json!(format!("{service}-{}{}", kind.to_lowercase(), self.suffix));
            metadata["labels"] = json!({ "kubernetes.io/service-name": service });
            let endpoints = self.endpoints.iter().map(|(addresses, fields)| {
                let mut endpoint = fields.clone();
                endpoint["addresses"] = json!([addresses[*family as usize]]);
                endpoint
            });
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": metadata,
                "addressType": kind,
                "ports": self.ports,
                "endpoints": endpoints.collect::<Vec<_>>(),
            })
        };
        self.families.iter().map(slice).collect::<Vec<_>>().into_iter()
    }
}
