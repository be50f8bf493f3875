//! loadBalancerSourceRanges: who may connect to a load balancer's VIPs.

use crate::scenario::{PROTOCOLS, at, everything, for_everything, refused, two_clients};
use nft_table::Family;
use serde_json::{Value, json};
use test_support::lab::{Lab, Outcome, cluster_ip, external_ip};
use test_support::proxy::{Config, Proxy, endpoints, node, objects, service};

/// A Service with a restricted VIP, 8, that endpoint b serves.
fn restricted(lab: &Lab, ranges: &[&str]) -> Vec<Value> {
    let service = service("web").cluster_ip(10).tcp(80).node_port(30080).external_ip(7);
    objects![
        node(),
        service.load_balancer(8, None).spec("loadBalancerSourceRanges", json!(ranges)),
        endpoints("web").tcp().on(lab, &["b"]),
    ]
}

#[test]
fn only_the_listed_sources_reach_the_vip() {
    let Some(lab) = two_clients() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(restricted(&lab, &["198.51.100.11/32", " 2001:db8:100::11/128 "]));
    for family in Family::BOTH {
        let vip = at(external_ip(8, family), 80);
        assert_eq!(lab.from("client").tcp(vip).endpoint(), "b");
        for host in ["stranger", "a", "node"] {
            assert_eq!(lab.from(host).tcp(vip), Outcome::TimedOut, "{host} {family}");
        }
        // The other frontends are not restricted.
        for target in [
            at(external_ip(7, family), 80),
            at(cluster_ip(10, family), 80),
            at(lab.ip("node", family), 30080),
        ] {
            assert_eq!(lab.from("stranger").tcp(target).endpoint(), "b", "{target}");
        }
    }
}

#[test]
fn every_protocol_is_restricted_also_without_endpoints() {
    let Some(lab) = two_clients() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let web = everything("web").cluster_ip(10).load_balancer(8, None);
    let ranges = json!(["198.51.100.11/32", "2001:db8:100::11/128"]);
    proxy.apply(web.spec("loadBalancerSourceRanges", ranges));
    for family in Family::BOTH {
        for (protocol, probe) in PROTOCOLS {
            let vip = at(external_ip(8, family), 80);
            assert_eq!(probe(&lab.from("client"), vip), refused(protocol), "{protocol}");
            assert_eq!(probe(&lab.from("stranger"), vip), Outcome::TimedOut, "{protocol}");
        }
    }
    proxy.apply(for_everything("web").on(&lab, &["b"]));
    for (protocol, probe) in PROTOCOLS {
        let vip = at(external_ip(8, Family::V6), 80);
        assert_eq!(probe(&lab.from("client"), vip).endpoint(), "b", "{protocol}");
        assert_eq!(probe(&lab.from("stranger"), vip), Outcome::TimedOut, "{protocol}");
    }
}

#[test]
fn a_range_of_everything_or_of_the_other_family_restricts_nobody() {
    let Some(lab) = two_clients() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let reach = |family| lab.from("stranger").tcp(at(external_ip(8, family), 80));
    proxy.apply(restricted(&lab, &["192.0.2.9/32", "0.0.0.0/0"]));
    assert_eq!(reach(Family::V4).endpoint(), "b");
    assert_eq!(reach(Family::V6).endpoint(), "b", "only ranges of the other family");
    proxy.apply(restricted(&lab, &["192.0.2.9/32"]));
    assert_eq!(reach(Family::V4), Outcome::TimedOut);
    assert_eq!(reach(Family::V6).endpoint(), "b");
    proxy.apply(restricted(&lab, &["192.0.2.9/32", "198.51.100.0/24", "198.51.100.64/26"]));
    assert_eq!(reach(Family::V4).endpoint(), "b", "ranges that overlap");
    proxy.apply(restricted(&lab, &[]));
    assert_eq!(reach(Family::V4).endpoint(), "b");
}

#[test]
fn a_node_that_may_connect_may_do_so_from_the_vip() {
    let Some(lab) = two_clients() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(restricted(&lab, &["192.0.2.1/32", "2001:db8::1/128"]));
    for family in Family::BOTH {
        let vip = external_ip(8, family);
        assert_eq!(lab.from("node").tcp(at(vip, 80)).endpoint(), "b");
        // Bound on the node, as some load balancers do it, the VIP becomes the source of its own traffic.
        lab.node().netlink.address(1, vip.into());
        assert_eq!(lab.from("node").tcp(at(vip, 80)).endpoint(), "b", "{family}");
        assert_eq!(lab.from("stranger").tcp(at(vip, 80)), Outcome::TimedOut);
    }
}
