//! Pods behind a bridge whose frames pass the hooks of the inet family, as `bridge-nf-call-iptables` has it: what a
//! pod says is translated, refused or dropped while it is bridged, and pods answer each other past the node's routes.
//!
//! It needs a kernel with br_netfilter. Where there is none, every test fails.

use kube_proxy::plan::DetectLocal;
use nft_table::Family;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use test_support::lab::{Client, Lab, Outcome, PORT, cluster_ip, external_ip};
use test_support::proxy::{
    Config, Endpoints, Proxy, Service, endpoints, objects, service, service_cidr,
};

const HOOKS: [&str; 2] =
    ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"];

/// The kernel's own limits of ICMP errors, which the lab lifts. A refusal must not depend on them.
const LIMITS: [(&str, &str); 4] = [
    ("net.ipv4.icmp_ratelimit", "1000"),
    ("net.ipv4.icmp_ratemask", "6168"),
    ("net.ipv6.icmp.ratelimit", "1000"),
    ("net.ipv6.icmp.ratemask", "0-1,3-127"),
];

/// Less than the second after which a client tries again. The machine may be slow.
const AT_ONCE: Duration = Duration::from_millis(900);
/// More than the kernel sends ICMP errors in a row.
const IN_A_ROW: usize = 8;

/// Who sends.
const EVERYBODY: [&str; 3] = ["a", "node", "client"];

macro_rules! in_both_families {
    ($($test:ident)*) => {
        mod ipv4 { $(#[test] fn $test() { super::$test(nft_table::Family::V4); })* }
        mod ipv6 { $(#[test] fn $test() { super::$test(nft_table::Family::V6); })* }
    };
}

in_both_families! {
    everybody_reaches_a_pod_through_a_cluster_ip
    everybody_reaches_a_pod_through_a_node_port
    pods_reach_another_node
    pods_are_known_by_their_bridge
    a_pod_reaches_itself
    tcp_is_refused_at_once_and_again
    udp_is_refused
    what_is_to_be_dropped_is_dropped
    an_open_connection_outlives_its_service
    without_the_hooks_an_answer_is_not_translated
}

/// Pods a and b on a bridge, pod c on another node, a client outside.
fn lab() -> Lab {
    let lab = Lab::builder().bridge("cni0").on_link().pod("a").pod("b").remote_pod("c");
    let lab = lab.outside("client").build().expect("a lab");
    lab.node().namespace.sysctls(&HOOKS.map(|name| (name, "1")));
    lab.node().namespace.sysctls(&LIMITS);
    lab
}

/// A Service of ports 80 of TCP and UDP, which are NodePorts 30080, too.
fn web() -> Service {
    service("web")
        .cluster_ip(10)
        .tcp(80)
        .named("tcp")
        .node_port(30080)
        .udp(80)
        .named("udp")
        .node_port(30080)
}

fn pods_of_web() -> Endpoints {
    endpoints("web").port("tcp", "TCP", PORT).port("udp", "UDP", PORT)
}

fn vip(family: Family) -> SocketAddr {
    SocketAddr::new(cluster_ip(10, family), 80)
}

fn node_port(lab: &Lab, family: Family) -> SocketAddr {
    SocketAddr::new(lab.ip("node", family), 30080)
}

type Probe = fn(&Client, SocketAddr) -> Outcome;
const TCP: Probe = |client, target| client.tcp(target);
const UDP: Probe = |client, target| client.udp(target);

/// Over TCP and UDP, the host reaches that pod, which sees that source.
fn reaches(lab: &Lab, host: &str, target: SocketAddr, pod: &str, source: IpAddr) {
    for (protocol, probe) in [("TCP", TCP), ("UDP", UDP)] {
        let outcome = probe(&lab.from(host), target);
        assert_eq!(outcome, Outcome::reached(pod, source), "{host} to {target}, {protocol}");
    }
}

/// The address that pods of the node see when the node itself asks.
fn seen(lab: &Lab, family: Family) -> IpAddr {
    lab.from("node").tcp(SocketAddr::new(lab.ip("b", family), PORT)).source()
}

fn everybody_reaches_a_pod_through_a_cluster_ip(family: Family) {
    let lab = lab();
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web(), pods_of_web().on(&lab, &["b"])]);
    reaches(&lab, "a", vip(family), "b", lab.ip("a", family));
    for host in ["node", "client"] {
        reaches(&lab, host, vip(family), "b", seen(&lab, family));
    }
}

fn everybody_reaches_a_pod_through_a_node_port(family: Family) {
    let lab = lab();
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web(), pods_of_web().on(&lab, &["b"])]);
    for host in EVERYBODY {
        reaches(&lab, host, node_port(&lab, family), "b", seen(&lab, family));
    }
}

fn pods_reach_another_node(family: Family) {
    let lab = lab();
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web(), pods_of_web().on(&lab, &["c"])]);
    reaches(&lab, "a", vip(family), "c", lab.ip("a", family));
    reaches(&lab, "a", node_port(&lab, family), "c", lab.ip("node", family));
}

fn pods_are_known_by_their_bridge(family: Family) {
    let lab = lab();
    let detect_local = DetectLocal::BridgeInterface("cni0".into());
    let mut proxy = Proxy::new(&lab, Config { detect_local, ..Config::default() });
    for (pod, outside) in [("b", seen(&lab, family)), ("c", lab.ip("node", family))] {
        proxy.apply(objects![web(), pods_of_web().on(&lab, &[pod])]);
        reaches(&lab, "a", vip(family), pod, lab.ip("a", family));
        reaches(&lab, "client", vip(family), pod, outside);
    }
}

fn a_pod_reaches_itself(family: Family) {
    let lab = lab();
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web(), pods_of_web().on(&lab, &["b"])]);
    for target in [vip(family), node_port(&lab, family)] {
        reaches(&lab, "b", target, "b", seen(&lab, family));
    }
}

fn tcp_is_refused_at_once_and_again(family: Family) {
    let lab = lab();
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web(), pods_of_web()]);
    // Without endpoints, and a port that is none of the Service's.
    let unknown = SocketAddr::new(vip(family).ip(), 81);
    for target in [vip(family), node_port(&lab, family), unknown] {
        for host in EVERYBODY {
            for number in 1..=IN_A_ROW {
                let time = lab.from(host).refused_after(target);
                assert!(time < AT_ONCE, "refusal {number} of {host} to {target} took {time:?}");
            }
        }
    }
}

fn udp_is_refused(family: Family) {
    let lab = lab();
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web(), pods_of_web()]);
    for target in [vip(family), node_port(&lab, family)] {
        for host in EVERYBODY {
            assert_eq!(lab.from(host).udp(target), Outcome::Refused, "{host} to {target}");
        }
    }
}

fn what_is_to_be_dropped_is_dropped(family: Family) {
    let lab = lab();
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service_cidr("kubernetes", &["10.96.0.0/16", "fd00:10:96::/112"]),
        web(),
        pods_of_web().on(&lab, &["b"]),
        service("local")
            .cluster_ip(11)
            .external_ip(7)
            .tcp(80)
            .spec("type", json!("LoadBalancer"))
            .spec("externalTrafficPolicy", json!("Local"))
            .spec("internalTrafficPolicy", json!("Local")),
        endpoints("local").tcp().on(&lab, &["c"]),
    ]);
    // Addresses that no Service has, and Services without an endpoint on this node.
    let nobody = SocketAddr::new(cluster_ip(99, family), 80);
    let internal = SocketAddr::new(cluster_ip(11, family), 80);
    for target in [nobody, internal] {
        for host in EVERYBODY {
            assert_eq!(lab.from(host).tcp(target), Outcome::TimedOut, "{host} to {target}");
        }
    }
    let external = SocketAddr::new(external_ip(7, family), 80);
    assert_eq!(lab.from("client").tcp(external), Outcome::TimedOut);
    // To pods it is another address of the Service.
    assert_eq!(lab.from("a").tcp(external).endpoint(), "c");
}

fn an_open_connection_outlives_its_service(family: Family) {
    let lab = lab();
    let mut proxy = Proxy::new(&lab, Config::default());
    let web = objects![web(), pods_of_web().on(&lab, &["b"])];
    proxy.apply(web.clone());
    let mut connections = EVERYBODY.map(|host| lab.from(host).connect(vip(family)));
    let before = connections.each_mut().map(|connection| connection.ask());
    proxy.delete(web);
    assert_eq!(connections.each_mut().map(|connection| connection.ask()), before);
}

/// That is how the others know that pods answer each other past the node's routes.
fn without_the_hooks_an_answer_is_not_translated(family: Family) {
    let lab = lab();
    lab.node().namespace.sysctls(&HOOKS.map(|name| (name, "0")));
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web(), pods_of_web().on(&lab, &["b"])]);
    assert_eq!(lab.from("a").tcp(vip(family)), Outcome::TimedOut);
    reaches(&lab, "client", vip(family), "b", seen(&lab, family));
}
