//! internalTrafficPolicy and externalTrafficPolicy Local: who gets which endpoints, whose address is kept, and
//! what happens where there is no endpoint on this node.

use crate::scenario::{PROTOCOLS, at, everything, for_everything, lab};
use kube_proxy::plan::DetectLocal;
use nft_table::Family;
use serde_json::json;
use std::net::SocketAddr;
use test_support::lab::{Lab, Outcome, assert_even, cluster_ip, external_ip};
use test_support::proxy::{Config, Proxy, Service, endpoints, objects, service};

fn internal_local(name: &str) -> Service {
    service(name).spec("internalTrafficPolicy", json!("Local"))
}

fn external_local(name: &str) -> Service {
    service(name).spec("externalTrafficPolicy", json!("Local"))
}

/// A Service with every kind of external frontend.
fn exposed(service: Service) -> Service {
    service.cluster_ip(10).tcp(80).node_port(30080).external_ip(7).load_balancer(8, None)
}

fn external_frontends(lab: &Lab, family: Family) -> [SocketAddr; 3] {
    [
        at(external_ip(7, family), 80),
        at(external_ip(8, family), 80),
        at(lab.ip("node", family), 30080),
    ]
}

#[test]
fn internal_local_uses_endpoints_of_this_node_only() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        exposed(internal_local("web")),
        endpoints("web").tcp().on(&lab, &["a", "b", "c"]),
    ]);
    for family in Family::BOTH {
        for host in ["a", "node", "client"] {
            let vip = at(cluster_ip(10, family), 80);
            assert_even(&lab.from(host).spread(vip, 60), &["a", "b"]);
        }
        for target in external_frontends(&lab, family) {
            assert_even(&lab.from("client").spread(target, 90), &["a", "b", "c"]);
        }
    }
}

#[test]
fn internal_local_without_local_endpoints_drops_on_the_cluster_ip_only() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let web = everything("web").cluster_ip(10).external_ip(7);
    proxy.apply(objects![
        web.spec("internalTrafficPolicy", json!("Local")),
        for_everything("web").on(&lab, &["c"]),
    ]);
    for family in Family::BOTH {
        for host in ["a", "node", "client"] {
            for (protocol, probe) in PROTOCOLS {
                let outcome = |ip| probe(&lab.from(host), at(ip, 80));
                let dropped = outcome(cluster_ip(10, family));
                assert_eq!(dropped, Outcome::TimedOut, "{host} {protocol} {family}");
                let served = outcome(external_ip(7, family));
                assert_eq!(served.endpoint(), "c", "{host} {protocol} {family}");
            }
        }
    }
    // Without any endpoint at all it is a plain rejection.
    proxy.apply(for_everything("web"));
    let vip = at(cluster_ip(10, Family::V4), 80);
    assert_eq!(lab.from("a").tcp(vip), Outcome::Reset);
    // And with one here it is served.
    proxy.apply(for_everything("web").on(&lab, &["b", "c"]));
    assert_eq!(lab.from("a").tcp(vip), Outcome::reached("b", lab.v4("a")));
}

#[test]
fn external_local_keeps_the_source_and_this_nodes_endpoints() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        exposed(external_local("web")),
        endpoints("web").tcp().on(&lab, &["b", "c"]),
    ]);
    for family in Family::BOTH {
        for target in external_frontends(&lab, family) {
            for _ in 0..5 {
                let outcome = lab.from("client").tcp(target);
                assert_eq!(outcome, Outcome::reached("b", lab.ip("client", family)), "{target}");
            }
            // Pods and the node itself are short-circuited to all endpoints.
            for (host, seen) in [("a", "a"), ("node", "node")] {
                assert_even(&lab.from(host).spread(target, 60), &["b", "c"]);
                let outcome = lab.from(host).tcp(target);
                assert_eq!(outcome.source(), lab.ip(seen, family), "{host} to {target}");
            }
        }
        let vip = at(cluster_ip(10, family), 80);
        assert_even(&lab.from("client").spread(vip, 60), &["b", "c"]);
    }
}

#[test]
fn external_local_without_local_endpoints_drops_strangers_only() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![exposed(external_local("web")), endpoints("web").tcp().on(&lab, &["c"]),]);
    for family in Family::BOTH {
        for target in external_frontends(&lab, family) {
            assert_eq!(lab.from("client").tcp(target), Outcome::TimedOut, "{target}");
            let outcome = lab.from("a").tcp(target);
            assert_eq!(outcome, Outcome::reached("c", lab.ip("a", family)), "{target}");
            let outcome = lab.from("node").tcp(target);
            assert_eq!(outcome, Outcome::reached("c", lab.ip("node", family)), "{target}");
        }
        assert_eq!(lab.from("client").tcp(at(cluster_ip(10, family), 80)).endpoint(), "c");
    }
    proxy.apply(endpoints("web").tcp());
    for target in external_frontends(&lab, Family::V4) {
        for host in ["a", "node", "client"] {
            assert_eq!(lab.from(host).tcp(target), Outcome::Reset, "{host} to {target}");
        }
    }
}

#[test]
fn external_local_without_a_detector_takes_pods_for_strangers() {
    let Some(lab) = lab() else { return };
    let detect_local = DetectLocal::ClusterCidr(Vec::new());
    let mut proxy = Proxy::new(&lab, Config { detect_local, ..Config::default() });
    proxy.apply(objects![
        exposed(external_local("web")),
        endpoints("web").tcp().on(&lab, &["b", "c"]),
    ]);
    for family in Family::BOTH {
        for target in external_frontends(&lab, family) {
            for _ in 0..5 {
                let outcome = lab.from("a").tcp(target);
                assert_eq!(outcome, Outcome::reached("b", lab.ip("a", family)), "{target}");
            }
            assert_even(&lab.from("node").spread(target, 60), &["b", "c"]);
        }
    }
}

#[test]
fn an_endpoint_on_the_hosts_own_network_is_local() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        exposed(external_local("web")).spec("internalTrafficPolicy", json!("Local")),
        endpoints("web").tcp().on(&lab, &["node", "remote"]),
    ]);
    for family in Family::BOTH {
        for target in external_frontends(&lab, family) {
            let outcome = lab.from("client").tcp(target);
            assert_eq!(outcome, Outcome::reached("node", lab.ip("client", family)), "{target}");
        }
        let vip = at(cluster_ip(10, family), 80);
        assert_eq!(lab.from("a").tcp(vip), Outcome::reached("node", lab.ip("a", family)));
        assert_eq!(lab.from("node").tcp(vip).endpoint(), "node", "hairpin of the node itself");
        assert_eq!(lab.from("client").tcp(vip).endpoint(), "node");
    }
}

#[test]
fn policies_flip_at_once_and_open_connections_live_on() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let cluster = || exposed(service("web"));
    proxy.apply(objects![cluster(), endpoints("web").tcp().on(&lab, &["b", "c"])]);
    let nodeport = at(lab.v4("node"), 30080);
    let mut connections: Vec<_> = (0..6).map(|_| lab.from("client").connect(nodeport)).collect();
    let answers: Vec<_> = connections.iter_mut().map(|connection| connection.ask()).collect();
    for _ in 0..2 {
        proxy.apply(exposed(external_local("web")));
        for _ in 0..5 {
            let outcome = lab.from("client").tcp(nodeport);
            assert_eq!(outcome, Outcome::reached("b", lab.v4("client")));
        }
        proxy.apply(cluster());
        assert_even(&lab.from("client").spread(nodeport, 60), &["b", "c"]);
        proxy.apply(exposed(internal_local("web")));
        let vip = at(cluster_ip(10, Family::V6), 80);
        assert_even(&lab.from("a").spread(vip, 10), &["b"]);
        let now: Vec<_> = connections.iter_mut().map(|connection| connection.ask()).collect();
        assert_eq!(now, answers);
    }
}
