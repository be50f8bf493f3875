//! The Node and ServiceCIDRs.

use super::*;

fn node(patch: Value) -> (Node, Vec<String>) {
    let reading = Intake::default().node(&object(json!({"metadata": {"name": "n1"}}), patch));
    let Change::Node(Some(node)) = reading.change else { panic!("no Node") };
    (*node, reading.problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_specific_bind_address_is_the_nodes_first_address() {
    let options =
        Options { bind_address: Some("192.0.2.9".parse().unwrap()), ..Options::default() };
    let object = object(
        json!({"metadata": {"name": "n1"}}),
        json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "2001:db8::1"},
            {"type": "InternalIP", "address": "192.0.2.1"},
        ]}}),
    );
    let Change::Node(Some(node)) = Intake::new(options).node(&object).change else {
        panic!("no Node")
    };
    assert_eq!(ips(&node.addresses), ["192.0.2.9", "2001:db8::1", "192.0.2.1"]);
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
