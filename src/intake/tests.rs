//! The rules of intake, one table or test each.

use super::*;
use crate::model::{EndpointSlice, Family, Node, Protocol, Service, ServiceType};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

/// An object from JSON, where `patch` is laid over `base` (RFC 7386: null removes).
fn object<T: DeserializeOwned>(mut base: Value, patch: Value) -> T {
    fn merge(base: &mut Value, patch: Value) {
        match (base, patch) {
            (Value::Object(base), Value::Object(patch)) => {
                for (key, value) in patch {
                    if value.is_null() {
                        base.remove(&key);
                    } else {
                        merge(base.entry(key).or_insert(Value::Null), value);
                    }
                }
            }
            (base, patch) => *base = patch,
        }
    }
    merge(&mut base, patch);
    serde_json::from_value(base).unwrap()
}

fn read_service(options: Options, patch: Value) -> (Option<Box<Service>>, Vec<String>) {
    let base = json!({
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"],
            "ports": [{"port": 80, "protocol": "TCP"}],
        },
    });
    let reading = Intake::new(options).service(&object(base, patch));
    let Change::Service(name, value) = reading.change else { panic!("not a Service") };
    assert_eq!(name.to_string(), "default/web");
    assert_eq!(reading.key, ObjectKey::Service(name));
    (value, reading.problems.iter().map(ToString::to_string).collect())
}

/// A Service that has no problems and is served.
fn service(patch: Value) -> Service {
    let (value, problems) = read_service(Options::default(), patch);
    assert_eq!(problems, [""; 0]);
    *value.expect("served")
}

fn read_slice(patch: Value) -> (Option<Box<EndpointSlice>>, Vec<String>) {
    let base = json!({
        "metadata": {
            "namespace": "default", "name": "web-1",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.1.0.1"]}],
    });
    let reading = Intake::new(Options::default()).endpoint_slice(&object(base, patch));
    let Change::EndpointSlice(name, value) = reading.change else { panic!("not a slice") };
    assert_eq!(name.to_string(), "default/web-1");
    (value, reading.problems.iter().map(ToString::to_string).collect())
}

fn slice(patch: Value) -> EndpointSlice {
    let (value, problems) = read_slice(patch);
    assert_eq!(problems, [""; 0]);
    *value.expect("served")
}

fn ips(list: &[std::net::IpAddr]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn plain_service() {
    let service = service(json!({"metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"}}));
    assert_eq!(service.service_type, ServiceType::ClusterIp);
    assert_eq!(service.created, 1_767_323_045);
    assert_eq!(ips(&service.cluster_ips), ["10.96.0.10"]);
    assert_eq!(service.ports.len(), 1);
    assert_eq!((&*service.ports[0].name, service.ports[0].port), ("", 80));
    assert_eq!(service.ports[0].node_port, None);
    assert!(!service.internal_local && !service.external_local);
    assert_eq!(service.affinity, None);
}

#[test]
fn skipped_services() {
    for (why, patch) in [
        ("headless", json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}})),
        ("empty", json!({"spec": {"clusterIP": ""}})),
        ("no ClusterIP", json!({"spec": {"clusterIP": null}})),
        ("ExternalName", json!({"spec": {"type": "ExternalName"}})),
        (
            "foreign",
            json!({"metadata": {"labels": {
            "service.kubernetes.io/service-proxy-name": "other"}}}),
        ),
        (
            "foreign without a value",
            json!({"metadata": {"labels": {
            "service.kubernetes.io/service-proxy-name": ""}}}),
        ),
        ("no spec", json!({"spec": null})),
        ("skipped although bad", json!({"spec": {"clusterIP": "None", "ports": [{"port": 0}]}})),
    ] {
        assert_eq!(read_service(Options::default(), patch), (None, vec![]), "{why}");
    }
}

#[test]
fn cluster_ip_of_each_family() {
    for (patch, expected) in [
        (json!({}), vec!["10.96.0.10"]),
        (
            json!({"clusterIPs": ["10.96.0.10", "fd00::a"], "ipFamilies": ["IPv4", "IPv6"]}),
            vec!["10.96.0.10", "fd00::a"],
        ),
        (
            json!({"clusterIPs": ["fd00::a", "10.96.0.10"], "ipFamilies": ["IPv6", "IPv4"]}),
            vec!["fd00::a", "10.96.0.10"],
        ),
        (json!({"clusterIPs": ["10.96.0.10", "fd00::a"]}), vec!["10.96.0.10"]),
        (json!({"ipFamilies": ["IPv4", "IPv6"]}), vec!["10.96.0.10"]),
        (json!({"ipFamilies": null, "clusterIPs": null}), vec!["10.96.0.10"]),
        (json!({"ipFamilies": null, "clusterIP": "fd00::b"}), vec!["fd00::b"]),
        (json!({"clusterIPs": ["010.096.000.010"]}), vec!["10.96.0.10"]),
    ] {
        let service = service(json!({"spec": patch.clone()}));
        assert_eq!(ips(&service.cluster_ips), expected, "{patch}");
    }
}

#[test]
fn values_that_make_a_service_unusable() {
    for (spec, expected) in [
        (
            json!({"clusterIPs": ["10.96.0.300"]}),
            r#"spec.clusterIPs[0]: "10.96.0.300" is not an IP address"#,
        ),
        (
            json!({"clusterIP": "x", "ipFamilies": null}),
            r#"spec.clusterIP: "x" is not an IP address"#,
        ),
        (
            json!({"clusterIPs": ["fd00::1"]}),
            r#"spec.clusterIPs[0]: fd00::1 is not of the family "IPv4" of its place"#,
        ),
        (json!({"clusterIPs": []}), "spec.clusterIPs: empty, but spec.ipFamilies is not"),
        (json!({"ports": []}), "spec.ports: empty, there is nothing to serve"),
        (
            json!({"ports": [{"port": 80}, {"name": "b", "port": 0}]}),
            "spec.ports[1].port: 0 is not a port (1-65535)",
        ),
        (json!({"ports": [{"port": 65536}]}), "spec.ports[0].port: 65536 is not a port (1-65535)"),
        (json!({"ports": [{"port": -1}]}), "spec.ports[0].port: -1 is not a port (1-65535)"),
        (
            json!({"ports": [{"port": 80, "protocol": "ICMP"}]}),
            r#"spec.ports[0].protocol: "ICMP" is not TCP, UDP or SCTP"#,
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 70000}]}),
            "spec.ports[0].nodePort: 70000 is not a port (1-65535)",
        ),
        (
            json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}),
            "spec.ports[1].port: the same as of TCP port 80",
        ),
        (
            json!({"ports": [{"port": 80}, {"port": 81}]}),
            "spec.ports[1].name: the same as of TCP port 80",
        ),
        (
            json!({"ports": [{"name": "a", "port": 80, "nodePort": 30000},
                             {"name": "b", "port": 81, "nodePort": 30000}]}),
            "spec.ports[1].nodePort: the same as of TCP port 80",
        ),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.0/8", "10.0.0.0"]}),
            r#"spec.loadBalancerSourceRanges[1]: "10.0.0.0" is not a CIDR"#,
        ),
        (
            json!({"sessionAffinity": "ClientIP",
                   "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is not in 1-86400",
        ),
    ] {
        let (value, problems) = read_service(Options::default(), json!({"spec": spec.clone()}));
        assert_eq!(value, None, "{spec}");
        assert_eq!(problems, [format!("Service default/web: {expected}")], "{spec}");
    }
}

#[test]
fn all_problems_of_a_service_are_named() {
    let (value, problems) = read_service(
        Options::default(),
        json!({"spec": {
            "clusterIPs": ["x"],
            "ports": [{"port": 0, "protocol": "Q"}, {"port": 1, "nodePort": -1}],
            "loadBalancerSourceRanges": ["y"],
        }}),
    );
    assert_eq!(value, None);
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

#[test]
fn values_that_are_left_out_or_defaulted_alone() {
    for (patch, expected) in [
        (
            json!({"spec": {"externalIPs": ["x"]}}),
            r#"spec.externalIPs[0]: "x" is not an IP address"#,
        ),
        (
            json!({"spec": {"externalIPs": ["127.0.0.1"]}}),
            "spec.externalIPs[0]: 127.0.0.1 is loopback",
        ),
        (
            json!({"status": {"loadBalancer": {"ingress": [{"ip": "x"}]}}}),
            r#"status.loadBalancer.ingress[0].ip: "x" is not an IP address"#,
        ),
        (
            json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1", "ipMode": "Q"}]}}}),
            r#"status.loadBalancer.ingress[0].ipMode: "Q" is unknown, left out"#,
        ),
        (json!({"spec": {"type": "Q"}}), r#"spec.type: "Q" is unknown, taken as ClusterIP"#),
        (
            json!({"spec": {"internalTrafficPolicy": "local"}}),
            r#"spec.internalTrafficPolicy: "local" is unknown, taken as Cluster"#,
        ),
        (
            json!({"spec": {"externalTrafficPolicy": "Q"}}),
            r#"spec.externalTrafficPolicy: "Q" is unknown, taken as Cluster"#,
        ),
        (
            json!({"spec": {"sessionAffinity": "Q"}}),
            r#"spec.sessionAffinity: "Q" is unknown, taken as None"#,
        ),
    ] {
        let (value, problems) = read_service(Options::default(), patch.clone());
        assert_eq!(value, Some(Box::new(service(json!({})))), "{patch}");
        assert_eq!(problems, [format!("Service default/web: {expected}")], "{patch}");
    }
}

#[test]
fn service_ports() {
    let service = service(json!({"spec": {"ports": [
        {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "nodePort": 30053},
        {"name": "dns", "port": 54, "protocol": "SCTP", "nodePort": 0},
    ]}}));
    let ports: Vec<_> =
        service.ports.iter().map(|p| (&*p.name, p.protocol, p.port, p.node_port)).collect();
    assert_eq!(
        ports,
        [
            ("dns", Protocol::Udp, 53, Some(30053)),
            ("dns-tcp", Protocol::Tcp, 53, Some(30053)),
            ("dns", Protocol::Sctp, 54, None),
        ]
    );
}

#[test]
fn load_balancer_addresses_depend_on_status_only() {
    let service = service(json!({"status": {"loadBalancer": {"ingress": [
        {"ip": "192.0.2.1"},
        {"ip": "192.0.2.2", "ipMode": "VIP"},
        {"ip": "192.0.2.3", "ipMode": "Proxy"},
        {"hostname": "lb.example.com"},
        {"ip": ""},
        {"ip": "2001:db8::1"},
        {"ip": "192.0.2.1"},
    ]}}}));
    assert_eq!(ips(&service.load_balancer_ips), ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
}

#[test]
fn external_ips_follow_the_gate() {
    let patch = json!({"spec": {
        "externalIPs": ["192.0.2.1", "2001:db8::1", "192.0.2.01"], "externalTrafficPolicy": "Local",
    }});
    let open = service(patch.clone());
    assert_eq!(ips(&open.external_ips), ["192.0.2.1", "2001:db8::1"]);
    assert!(open.external_local);
    let closed = Options { allow_service_external_ips: false };
    let (closed, problems) = read_service(closed, patch);
    let closed = closed.unwrap();
    assert_eq!((closed.external_ips, closed.external_local), (vec![], false));
    assert_eq!(problems, [""; 0]);
}

#[test]
fn traffic_policies() {
    let local = |more: Value| {
        let base = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000});
        let spec: Value = object(base, more);
        let service = service(json!({"spec": spec}));
        (service.external_local, service.health_check_node_port)
    };
    assert_eq!(local(json!({})), (false, None));
    assert_eq!(local(json!({"type": "NodePort"})), (true, None));
    assert_eq!(local(json!({"externalIPs": ["192.0.2.1"]})), (true, None));
    assert_eq!(local(json!({"type": "LoadBalancer"})), (true, Some(32000)));
    assert_eq!(local(json!({"type": "LoadBalancer", "healthCheckNodePort": 0})), (true, None));
    let cluster = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"});
    assert_eq!(local(cluster), (false, None));
    assert!(service(json!({"spec": {"internalTrafficPolicy": "Local"}})).internal_local);
    assert!(!service(json!({"spec": {"internalTrafficPolicy": "Cluster"}})).internal_local);
}

#[test]
fn affinity() {
    let timeout = |spec: Value| service(json!({"spec": spec})).affinity.map(|t| t.as_secs());
    assert_eq!(timeout(json!({"sessionAffinity": "None"})), None);
    assert_eq!(timeout(json!({"sessionAffinity": "ClientIP"})), Some(10_800));
    let config = json!({"clientIP": {"timeoutSeconds": 60}});
    assert_eq!(timeout(json!({"sessionAffinityConfig": config})), None);
    let spec = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config});
    assert_eq!(timeout(spec.clone()), Some(60));
    assert_eq!(service(json!({"spec": spec})).affinity, Some(Duration::from_secs(60)));
}

#[test]
fn source_ranges() {
    let service = service(json!({"spec": {
        "loadBalancerSourceRanges": [" 10.1.2.3/8\n", "fd00::/08", "0.0.0.0/0"],
    }}));
    let ranges: Vec<_> = service.source_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.0.0.0/8", "fd00::/8", "0.0.0.0/0"]);
}

#[test]
fn skipped_slices() {
    let headless = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    assert_eq!(read_slice(headless), (None, vec![]));
    let names = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["example.com"]}]});
    assert_eq!(read_slice(names), (None, vec![]));
    for (patch, expected) in [
        (
            json!({"metadata": {"labels": null}}),
            "metadata.labels[kubernetes.io/service-name]: missing, so the slice belongs to no Service",
        ),
        (json!({"addressType": "IP"}), r#"addressType: "IP" is not IPv4 or IPv6"#),
        (json!({"addressType": null}), "addressType: missing; IPv4 or IPv6"),
    ] {
        let problem = format!("EndpointSlice default/web-1: {expected}");
        assert_eq!(read_slice(patch), (None, vec![problem]));
    }
}

#[test]
fn conditions_default_to_ready() {
    let slice = slice(json!({"endpoints": [
        {"addresses": ["10.1.0.1"]},
        {"addresses": ["10.1.0.2"], "conditions": {}},
        {"addresses": ["10.1.0.3"], "conditions": {"ready": false}},
        {"addresses": ["10.1.0.4"], "conditions": {"serving": false, "terminating": true}},
    ]}));
    let conditions: Vec<_> = slice
        .endpoints
        .iter()
        .map(|e| (e.conditions.ready, e.conditions.serving, e.conditions.terminating))
        .collect();
    assert_eq!(
        conditions,
        [(true, true, false), (true, true, false), (false, true, false), (true, false, true)]
    );
}

#[test]
fn endpoints() {
    let slice = slice(json!({
        "metadata": {"annotations": {
            "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-02T03:04:05.5Z"}},
        "endpoints": [
            {"addresses": ["10.1.0.01", "not read"], "nodeName": "n1",
             "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n1"}]}},
            {"addresses": ["10.1.0.2"], "nodeName": ""},
        ],
    }));
    assert_eq!(slice.service_name().to_string(), "default/web");
    assert_eq!(slice.family, Family::V4);
    assert_eq!(slice.trigger_time, Some(1_767_323_045_500_000_000));
    let [first, second] = &slice.endpoints[..] else { panic!("two endpoints") };
    assert_eq!(first.address.to_string(), "10.1.0.1");
    assert_eq!(first.node_name.as_deref(), Some("n1"));
    assert_eq!(first.zone_hints.iter().map(|z| &**z).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(first.node_hints.iter().map(|n| &**n).collect::<Vec<_>>(), ["n1"]);
    assert_eq!(second.node_name, None);
    assert!(second.zone_hints.is_empty() && second.node_hints.is_empty());
}

#[test]
fn a_bad_endpoint_or_port_is_left_out_alone() {
    let (slice, problems) = read_slice(json!({
        "metadata": {"annotations": {
            "endpoints.kubernetes.io/last-change-trigger-time": "yesterday"}},
        "ports": [
            {"name": "", "port": 8080},
            {"port": 8081},
            {"name": "any"},
            {"name": "zero", "port": 0},
            {"name": "large", "port": 65536},
            {"name": "odd", "port": 1, "protocol": "ICMP"},
        ],
        "endpoints": [
            {"addresses": ["10.1.0.1"]},
            {"addresses": []},
            {"addresses": ["10.1.0"]},
            {"addresses": ["fd00::1"]},
            {"addresses": ["127.0.0.1"]},
        ],
    }));
    let slice = slice.unwrap();
    assert_eq!(slice.ports.len(), 1);
    assert_eq!(slice.endpoints.len(), 1);
    assert_eq!(slice.trigger_time, None);
    assert_eq!(
        problems,
        [
            "ports[3].port: 0 is not a port (1-65535)",
            "ports[4].port: 65536 is not a port (1-65535)",
            r#"ports[5].protocol: "ICMP" is not TCP, UDP or SCTP"#,
            "endpoints[1].addresses[0]: missing",
            r#"endpoints[2].addresses[0]: "10.1.0" is not an IP address"#,
            "endpoints[3].addresses[0]: fd00::1 is not an IPv4 address",
            "endpoints[4].addresses[0]: 127.0.0.1 is loopback, no endpoint can have it",
            r#"metadata.annotations[endpoints.kubernetes.io/last-change-trigger-time]: "yesterday" is not a time (RFC 3339)"#,
        ]
        .map(|problem| format!("EndpointSlice default/web-1: {problem}"))
    );
}

fn node(patch: Value) -> (Node, Vec<String>) {
    let reading = Intake::default().node(&object(json!({"metadata": {"name": "n1"}}), patch));
    let Change::Node(Some(node)) = reading.change else { panic!("no Node") };
    (*node, reading.problems.iter().map(ToString::to_string).collect())
}

#[test]
fn nodes() {
    let (plain, problems) = node(json!({"metadata": {
        "labels": {"topology.kubernetes.io/zone": "a"}, "deletionTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {
            "podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00:244::/64"],
            "taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}],
        },
        "status": {"addresses": [
            {"type": "Hostname", "address": "n1"},
            {"type": "ExternalIP", "address": "203.0.113.1"},
            {"type": "InternalIP", "address": "192.0.2.01"},
            {"type": "InternalIP", "address": "2001:db8::1"},
        ]},
    }));
    assert_eq!(problems, [""; 0]);
    assert_eq!(ips(&plain.addresses), ["192.0.2.1", "2001:db8::1", "203.0.113.1"]);
    assert_eq!(plain.address(Family::V4).unwrap().to_string(), "192.0.2.1");
    assert_eq!(plain.zone.as_deref(), Some("a"));
    assert_eq!(plain.pod_cidrs.len(), 2);
    assert_eq!(&*plain.taints[0].key, "ToBeDeletedByClusterAutoscaler");
    assert!(plain.deleting);

    let (old, _) = node(json!({"spec": {"podCIDR": "10.244.0.0/24"}}));
    assert_eq!(old.pod_cidrs, ["10.244.0.0/24".parse().unwrap()]);

    let (bare, problems) = node(json!({
        "spec": {"podCIDRs": ["x"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "y"}]},
    }));
    assert_eq!((bare.addresses, bare.pod_cidrs, bare.zone), (vec![], vec![], None));
    assert_eq!(
        problems,
        [
            r#"Node n1: status.addresses[0].address: "y" is not an IP address"#,
            r#"Node n1: spec.podCIDRs[0]: "x" is not a CIDR"#,
        ]
    );
}

#[test]
fn service_cidrs() {
    let read = |cidrs: Value| {
        let object = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}});
        let reading = Intake::default().service_cidr(&serde_json::from_value(object).unwrap());
        let Change::ServiceCidr(name, value) = reading.change else { panic!("not a ServiceCIDR") };
        assert_eq!(&*name, "kubernetes");
        (value, reading.problems.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let nets = |list: &[&str]| Some(list.iter().map(|net| net.parse().unwrap()).collect());
    assert_eq!(
        read(json!(["10.96.0.0/12", "fd00::/108"])),
        (nets(&["10.96.0.0/12", "fd00::/108"]), vec![])
    );
    let problem = r#"ServiceCIDR kubernetes: spec.cidrs[0]: "x" is not a CIDR"#.to_owned();
    assert_eq!(read(json!(["x", "10.96.0.0/12"])), (nets(&["10.96.0.0/12"]), vec![problem]));
    assert_eq!(read(json!([])), (None, vec![]));
}

#[test]
fn endpoints_share_their_strings() {
    let mut intake = Intake::default();
    let endpoint = json!({"addresses": ["10.1.0.1"], "nodeName": "n1"});
    let object: k8s_openapi::api::discovery::v1::EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [endpoint, endpoint],
    }))
    .unwrap();
    let (a, b) = (intake.endpoint_slice(&object).change, intake.endpoint_slice(&object).change);
    let (Change::EndpointSlice(name, Some(a)), Change::EndpointSlice(_, Some(b))) = (a, b) else {
        panic!("not served");
    };
    assert_eq!(name.to_string(), "default/web-1", "no namespace is the default one");
    let same = std::sync::Arc::ptr_eq;
    let names: Vec<_> = a.endpoints.iter().chain(&b.endpoints).map(|e| &e.node_name).collect();
    assert!(
        names.windows(2).all(|pair| { same(pair[0].as_ref().unwrap(), pair[1].as_ref().unwrap()) })
    );
    assert!(std::sync::Arc::ptr_eq(&a.endpoints[0].zone_hints, &b.endpoints[1].node_hints));
}

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
