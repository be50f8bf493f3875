//! Services.

use super::*;

pub fn base() -> Value {
    json!({
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"],
            "ports": [{"port": 80, "protocol": "TCP"}],
        },
    })
}

fn read_service(options: Options, patch: Value) -> (Option<Box<Service>>, Vec<String>) {
    let reading = Intake::new(options).service(&object(base(), patch));
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
fn weights_and_sizes_of_tables() {
    let with = |annotations: Value| {
        read_service(Options::default(), json!({"metadata": {"annotations": annotations}}))
    };
    let (value, problems) = with(json!({
        "nft.kube-proxy/weights": "web-canary-*=1, *=9", "nft.kube-proxy/table-size": "1021",
    }));
    let service = value.unwrap();
    assert_eq!(service.weights.unwrap().to_string(), "web-canary-*=1, *=9");
    assert_eq!((service.table_size, problems), (Some(1021), Vec::new()));
    let (value, problems) = with(json!({
        "nft.kube-proxy/weights": "web=many", "nft.kube-proxy/table-size": "1000",
    }));
    let service = value.unwrap();
    assert_eq!((service.weights, service.table_size), (None, None));
    assert_eq!(
        problems,
        [
            "Service default/web: metadata.annotations[nft.kube-proxy/weights]: \"many\" is not a weight, a number of 0-1000000",
            "Service default/web: metadata.annotations[nft.kube-proxy/table-size]: \"1000\" is none of 251, 1021, 4093, 16381",
        ]
    );
}

#[test]
fn limits() {
    let with = |limits: &str| {
        let annotations = json!({"nft.kube-proxy/limits": limits});
        read_service(Options::default(), json!({"metadata": {"annotations": annotations}}))
    };
    let (value, problems) = with("new-per-second=20, burst=40, open=100");
    let expected = Limits { new_per_second: 20, burst: 40, open: Some(100) };
    assert_eq!((value.unwrap().limits, problems), (Some(expected), Vec::new()));
    let (value, problems) = with("open=0");
    assert_eq!(value.unwrap().limits, None);
    assert_eq!(
        problems,
        [
            "Service default/web: metadata.annotations[nft.kube-proxy/limits]: \"0\" is no number from 1 to 1000000"
        ]
    );
}

#[test]
fn balancing() {
    let with = |annotations: Value| {
        read_service(Options::default(), json!({"metadata": {"annotations": annotations}}))
    };
    for algorithm in Algorithm::ALL {
        let (value, problems) = with(json!({"nft.kube-proxy/balancing": algorithm.name()}));
        assert_eq!((value.unwrap().algorithm, problems), (Some(algorithm), Vec::new()));
    }
    assert_eq!(with(json!({"other/balancing": "hash-flow"})).0.unwrap().algorithm, None);
    // What others call it; ours comes first.
    for (annotation, name, algorithm) in [
        ("service.cilium.io/lb-algorithm", "maglev", Algorithm::HashFlow),
        ("kube-router.io/service.scheduler", "wrr", Algorithm::RoundRobin),
        ("kube-router.io/service.scheduler", "sh", Algorithm::HashClient),
    ] {
        assert_eq!(with(json!({annotation: name})).0.unwrap().algorithm, Some(algorithm));
        let both = with(json!({annotation: name, "nft.kube-proxy/balancing": "random"}));
        assert_eq!(both.0.unwrap().algorithm, Some(Algorithm::Random));
    }
    let (_, problems) = with(json!({"kube-router.io/service.scheduler": "lc"}));
    assert_eq!(
        problems,
        [
            "Service default/web: metadata.annotations[kube-router.io/service.scheduler]: there is no \"lc\" here; rr, wrr, sh and mh have a counterpart"
        ]
    );
    // It is served all the same.
    let (value, problems) = with(json!({"nft.kube-proxy/balancing": "fastest"}));
    assert_eq!(value.unwrap().algorithm, None);
    assert_eq!(
        problems,
        [
            "Service default/web: metadata.annotations[nft.kube-proxy/balancing]: \"fastest\" is none of random, round-robin, hash-client, hash-flow"
        ]
    );
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
    let closed = Options { allow_service_external_ips: false, ..Options::default() };
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
fn a_range_that_is_none_lets_nobody_in_and_harms_nothing_else() {
    for (range, families) in [
        ("10.0.0.0", &[Family::V4][..]),
        ("fd00::/129", &[Family::V6]),
        ("everybody", &Family::BOTH),
    ] {
        let ranges = json!(["10.0.0.0/8", range]);
        let spec = json!({"spec": {"loadBalancerSourceRanges": ranges}});
        let (service, problems) = read_service(Options::default(), spec);
        let service = service.expect("it is served");
        assert_eq!(service.source_ranges.len(), 1, "{range}");
        assert_eq!(service.unreadable_ranges, families, "{range}");
        let field = "Service default/web: spec.loadBalancerSourceRanges[1]";
        assert_eq!(problems, [format!("{field}: {range:?} is not a CIDR")]);
    }
}
