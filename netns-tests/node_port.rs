//! NodePorts: on the node's addresses and nowhere else, from everywhere, always masqueraded.

use crate::scenario::{PROTOCOLS, at, everything, for_everything, lab};
use nft_table::Family;
use serde_json::{Value, json};
use test_support::lab::{Outcome, assert_even, cluster_ip};
use test_support::proxy::{Config, Manifests, Program, Proxy, endpoints, objects, service};

/// A second address of the node, which the gateway knows how to reach.
const SECOND: [&str; 2] = ["192.0.2.77", "2001:db8::4d"];

fn web(lab: &test_support::lab::Lab, pods: &[&str]) -> Vec<Value> {
    objects![
        service("web").cluster_ip(10).tcp(80).node_port(30080),
        endpoints("web").tcp().on(lab, pods),
    ]
}

#[test]
fn everybody_reaches_it_over_every_protocol_and_is_masqueraded() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service("web")
            .cluster_ip(10)
            .tcp(80)
            .named("tcp")
            .node_port(30080)
            .udp(80)
            .named("udp")
            .node_port(30080)
            .sctp(80)
            .named("sctp")
            .node_port(30080),
        for_everything("web").on(&lab, &["c"]),
        everything("plain").cluster_ip(11),
        for_everything("plain").on(&lab, &["c"]),
    ]);
    for family in Family::BOTH {
        let node = lab.ip("node", family);
        for host in ["a", "node", "client"] {
            for (protocol, probe) in PROTOCOLS {
                let outcome = probe(&lab.from(host), at(node, 30080));
                assert_eq!(outcome, Outcome::reached("c", node), "{host} {protocol} {family}");
            }
            assert_eq!(lab.from(host).tcp(at(node, 30081)), Outcome::Reset, "no NodePort");
        }
    }
}

#[test]
fn connections_are_spread_evenly() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(web(&lab, &["a", "b", "c"]));
    for family in Family::BOTH {
        let target = at(lab.ip("node", family), 30080);
        assert_even(&lab.from("client").spread(target, 180), &["a", "b", "c"]);
    }
}

#[test]
fn it_answers_on_the_chosen_addresses_only() {
    let Some(lab) = lab() else { return };
    for address in SECOND {
        lab.node().netlink.address(2, address.parse::<std::net::IpAddr>().expect("address").into());
    }
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(web(&lab, &["c"]));
    for (family, second) in Family::BOTH.into_iter().zip(SECOND) {
        let second = at(second.parse().expect("an address"), 30080);
        for host in ["a", "node", "client"] {
            assert_eq!(lab.from(host).tcp(second), Outcome::Reset, "{host}");
            let first = at(lab.ip("node", family), 30080);
            assert_eq!(lab.from(host).tcp(first).endpoint(), "c", "{host}");
        }
    }
    let mut proxy = proxy.restart(Config { nodeport_addresses: None, ..Config::default() });
    proxy.commit();
    for second in SECOND {
        let second = at(second.parse().expect("an address"), 30080);
        for host in ["a", "node", "client"] {
            assert_eq!(lab.from(host).tcp(second).endpoint(), "c", "{host}");
        }
    }
    let loopback = ["127.0.0.1:30080", "[::1]:30080"];
    for loopback in loopback {
        assert_eq!(lab.from("node").tcp(loopback), Outcome::Reset, "never on loopback");
    }
}

#[test]
fn without_a_restriction_every_local_route_counts() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config { nodeport_addresses: None, ..Config::default() });
    let routes = ["203.0.113.64/28", "2001:db8:203::40/124"];
    for route in routes {
        lab.node().netlink.local_route(route.parse().expect("a prefix"));
    }
    proxy.apply(web(&lab, &["c"]));
    for address in ["203.0.113.70:30080", "[2001:db8:203::44]:30080"] {
        assert_eq!(lab.from("client").tcp(address).endpoint(), "c");
    }
}

#[test]
fn a_vip_wins_over_a_node_port() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let node: Vec<_> = Family::BOTH.map(|family| json!(lab.ip("node", family))).to_vec();
    proxy.apply(objects![
        web(&lab, &["b"]),
        service("vip").cluster_ip(11).tcp(30080).spec("externalIPs", json!(node)),
        endpoints("vip").tcp().on(&lab, &["c"]),
    ]);
    for family in Family::BOTH {
        let target = at(lab.ip("node", family), 30080);
        assert_eq!(lab.from("client").tcp(target).endpoint(), "c");
    }
}

#[test]
fn new_and_lost_addresses_count_at_once() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(web(&lab, &["c"]));
    let config = json!({ "nodePortAddresses": ["192.0.2.0/24", "2001:db8::/64"] });
    let mut program = Program::start(&lab, &manifests, Some(config));
    for second in SECOND {
        let address: std::net::IpAddr = second.parse().expect("an address");
        let target = at(address, 30080);
        lab.node().netlink.address(2, address.into());
        // An IPv6 node may masquerade with the new address, so the source is not looked at.
        program.wait_until(|_| matches!(lab.from("client").tcp(target), Outcome::Reached { .. }));
        lab.node().netlink.remove_address(2, address.into());
        lab.node().netlink.local_route(address.into());
        program.wait_until(|_| matches!(lab.from("client").tcp(target), Outcome::Reached { .. }));
        lab.node().netlink.remove_local_route(address.into());
        program.wait_until(|_| !lab.nft(&["list", "table", "inet", "kube-proxy"]).contains(second));
    }
    let vip = at(cluster_ip(10, Family::V4), 80);
    assert_eq!(lab.from("a").tcp(vip).endpoint(), "c", "all the while");
}
