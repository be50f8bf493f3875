//! externalIPs and load balancer VIPs: served like NodePorts, by address; their other ports are left alone.

use crate::scenario::{PROTOCOLS, at, everything, for_everything, lab};
use nft_table::Family;
use test_support::lab::{Outcome, assert_even, external_ip};
use test_support::proxy::{Config, Proxy, endpoints, objects, service};

#[test]
fn everybody_reaches_them_and_is_masqueraded() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        everything("ext").cluster_ip(10).external_ip(7),
        for_everything("ext").on(&lab, &["c"]),
        everything("lb").cluster_ip(11).load_balancer(8, None),
        for_everything("lb").on(&lab, &["c"]),
        everything("vip").cluster_ip(12).load_balancer(9, Some("VIP")),
        for_everything("vip").on(&lab, &["c"]),
    ]);
    for family in Family::BOTH {
        let node = lab.ip("node", family);
        for number in [7, 8, 9] {
            let vip = external_ip(number, family);
            for host in ["a", "node", "client"] {
                for (protocol, probe) in PROTOCOLS {
                    let outcome = probe(&lab.from(host), at(vip, 80));
                    assert_eq!(outcome, Outcome::reached("c", node), "{host} {protocol} {vip}");
                }
            }
            // An undefined port is none of the proxy's business.
            for host in ["a", "node"] {
                let untouched = Outcome::Untouched { source: lab.ip(host, family) };
                assert_eq!(lab.from(host).tcp(at(vip, 81)), untouched, "{host} {vip}");
            }
        }
    }
}

#[test]
fn connections_are_spread_evenly() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service("ext").cluster_ip(10).external_ip(7).tcp(80),
        endpoints("ext").tcp().on(&lab, &["a", "b", "c"]),
    ]);
    for family in Family::BOTH {
        let vip = at(external_ip(7, family), 80);
        assert_even(&lab.from("client").spread(vip, 180), &["a", "b", "c"]);
    }
}

#[test]
fn a_load_balancer_in_proxy_mode_is_left_to_the_load_balancer() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service("lb").cluster_ip(10).load_balancer(50, Some("Proxy")).tcp(8080).node_port(30080),
        endpoints("lb").tcp().on(&lab, &["b"]),
        service("gone").cluster_ip(11).load_balancer(51, Some("Proxy")).tcp(80),
        endpoints("gone").tcp().on(&lab, &["b"]),
    ]);
    for family in Family::BOTH {
        for host in ["a", "node"] {
            let from = lab.ip(host, family);
            let outcome = lab.from(host).tcp(at(external_ip(50, family), 8080));
            assert_eq!(outcome, Outcome::reached("lb", from), "{host}");
            let outcome = lab.from(host).tcp(at(external_ip(51, family), 80));
            assert_eq!(outcome, Outcome::Untouched { source: from }, "{host}");
        }
        // The load balancer itself comes in through the NodePort.
        let outcome = lab.from("lb").tcp(at(lab.ip("node", family), 30080));
        assert_eq!(outcome, Outcome::reached("b", lab.ip("node", family)));
    }
}
