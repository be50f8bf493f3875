//! Whose address an endpoint sees: the matrix of clients, kinds of frontends and local-traffic detectors.

use crate::scenario::{at, lab};
use kube_proxy::plan::DetectLocal;
use nft_table::Family;
use test_support::lab::{Lab, Outcome, cluster_ip, external_ip};
use test_support::proxy::{Config, Proxy, endpoints, node, objects, service};

/// Who keeps the own source address on the way to a ClusterIP.
struct Keeps {
    pod: bool,
    node: bool,
    outside: bool,
}

/// Proves the matrix for one configuration. Pod b is the endpoint.
fn prove(lab: &Lab, config: Config, keeps: Keeps) {
    let what = format!("{:?}, masqueradeAll {}", config.detect_local, config.masquerade_all);
    let mut proxy = Proxy::new(lab, config);
    proxy.apply(objects![
        node(),
        service("web").cluster_ip(10).external_ip(7).tcp(80).node_port(30080),
        endpoints("web").tcp().on(lab, &["b"]),
    ]);
    for family in Family::BOTH {
        let node = lab.from("node").tcp(at(lab.ip("b", family), 8080)).source();
        for (host, keeps) in [("a", keeps.pod), ("node", keeps.node), ("client", keeps.outside)] {
            let client = lab.from(host);
            let own = client.tcp(at(lab.ip("b", family), 8080)).source();
            let seen = if keeps { own } else { node };
            let outcome = client.tcp(at(cluster_ip(10, family), 80));
            assert_eq!(outcome, Outcome::reached("b", seen), "{host}, ClusterIP, {family}, {what}");
            for target in [at(external_ip(7, family), 80), at(lab.ip("node", family), 30080)] {
                let outcome = client.tcp(target);
                assert_eq!(outcome, Outcome::reached("b", node), "{host}, {target}, {what}");
            }
        }
        // An endpoint that reaches itself is always masqueraded, or it would answer itself directly.
        for target in [
            at(cluster_ip(10, family), 80),
            at(external_ip(7, family), 80),
            at(lab.ip("node", family), 30080),
        ] {
            let outcome = lab.from("b").tcp(target);
            assert_eq!(outcome, Outcome::reached("b", node), "hairpin, {target}, {what}");
        }
    }
}

const PODS_ONLY: Keeps = Keeps { pod: true, node: false, outside: false };
const EVERYBODY: Keeps = Keeps { pod: true, node: true, outside: true };
const NOBODY: Keeps = Keeps { pod: false, node: false, outside: false };

fn cidrs(texts: &[&str]) -> DetectLocal {
    DetectLocal::ClusterCidr(texts.iter().map(|text| text.parse().expect("a prefix")).collect())
}

fn with(detect_local: DetectLocal) -> Config {
    Config { detect_local, ..Config::default() }
}

#[test]
fn by_cluster_cidr() {
    let Some(lab) = lab() else { return };
    prove(&lab, with(cidrs(&["10.244.0.0/16", "fd00:10:244::/56"])), PODS_ONLY);
}

#[test]
fn by_node_cidr() {
    let Some(lab) = lab() else { return };
    prove(&lab, with(DetectLocal::NodeCidr), PODS_ONLY);
}

/// Pods on a bridge, whose packets see the inet hooks while they are bridged, or only when they are routed.
fn bridged(call_ip_hooks: bool) {
    let lab = Lab::builder().bridge("cni0").pod("a").pod("b").outside("client").build();
    let Some(lab) = lab else { return };
    for name in ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"] {
        lab.node().namespace.sysctl_if_there(name, if call_ip_hooks { "1" } else { "0" });
    }
    prove(&lab, with(DetectLocal::BridgeInterface("cni0".into())), PODS_ONLY);
}

#[test]
fn by_bridge() {
    bridged(false);
}

#[test]
fn by_bridge_with_br_netfilter() {
    bridged(true);
}

#[test]
fn by_interface_name() {
    let lab = Lab::builder().pod_interfaces("cali").pod("a").pod("b").outside("client").build();
    let Some(lab) = lab else { return };
    prove(&lab, with(DetectLocal::InterfaceNamePrefix("cali".into())), PODS_ONLY);
}

#[test]
fn an_interface_name_must_fit_whole_or_from_its_start() {
    let lab = Lab::builder().pod_interfaces("xcali").pod("a").pod("b").outside("client").build();
    let Some(lab) = lab else { return };
    prove(&lab, with(DetectLocal::InterfaceNamePrefix("cali".into())), NOBODY);
}

#[test]
fn without_a_detector_nobody_is_masqueraded() {
    let Some(lab) = lab() else { return };
    prove(&lab, with(cidrs(&[])), EVERYBODY);
}

#[test]
fn masquerade_all_masquerades_pods_too() {
    let Some(lab) = lab() else { return };
    let detect_local = cidrs(&["10.244.0.0/16", "fd00:10:244::/56"]);
    prove(&lab, Config { detect_local, masquerade_all: true, ..Config::default() }, NOBODY);
}

#[test]
fn masquerade_all_without_a_detector_too() {
    let Some(lab) = lab() else { return };
    let config = Config { detect_local: cidrs(&[]), masquerade_all: true, ..Config::default() };
    prove(&lab, config, NOBODY);
}

#[test]
fn a_detector_of_one_family_says_nothing_about_the_other() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, with(cidrs(&["10.244.0.0/16"])));
    proxy.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        endpoints("web").tcp().on(&lab, &["b"]),
    ]);
    for (family, seen) in [(Family::V4, "node"), (Family::V6, "client")] {
        let outcome = lab.from("client").tcp(at(cluster_ip(10, family), 80));
        assert_eq!(outcome, Outcome::reached("b", lab.ip(seen, family)));
    }
}

#[test]
fn an_endpoint_without_node_name_may_be_the_client() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        endpoints("web").tcp().with(&lab, &["b"], serde_json::json!({ "nodeName": "" })),
    ]);
    for family in Family::BOTH {
        let vip = at(cluster_ip(10, family), 80);
        assert_eq!(lab.from("b").tcp(vip), Outcome::reached("b", lab.ip("node", family)));
        assert_eq!(lab.from("a").tcp(vip), Outcome::reached("b", lab.ip("a", family)));
    }
}
