//! ClusterIPs: every client reaches every endpoint, over every protocol and family; ports go where their names
//! lead; what is not a Service is left alone.

use crate::scenario::{PROTOCOLS, at, everything, for_everything, lab, refused};
use nft_table::Family;
use serde_json::json;
use test_support::lab::{Outcome, assert_even, cluster_ip};
use test_support::proxy::{Config, Proxy, endpoints, objects, service, service_cidr};

#[test]
fn everybody_reaches_it_over_every_protocol_and_family() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        everything("one").cluster_ip(11),
        for_everything("one").on(&lab, &["b"]),
        everything("far").cluster_ip(12),
        for_everything("far").on(&lab, &["c"]),
    ]);
    for family in Family::BOTH {
        for client in ["a", "node", "client"] {
            // Pods keep their address; who else comes is masqueraded.
            let seen = lab.ip(if client == "a" { "a" } else { "node" }, family);
            for (protocol, probe) in PROTOCOLS {
                for (vip, endpoint) in [(11, "b"), (12, "c")] {
                    let outcome = probe(&lab.from(client), at(cluster_ip(vip, family), 80));
                    let expected = Outcome::reached(endpoint, seen);
                    assert_eq!(outcome, expected, "{client} to {endpoint}, {protocol}, {family}");
                }
            }
        }
    }
}

#[test]
fn connections_are_spread_evenly() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        endpoints("web").tcp().on(&lab, &["a", "b", "c"]),
        service("pair").cluster_ip(11).tcp(80),
        endpoints("pair").tcp().on(&lab, &["b", "c"]),
    ]);
    for family in Family::BOTH {
        for client in ["node", "client", "a"] {
            let web = at(cluster_ip(10, family), 80);
            assert_even(&lab.from(client).spread(web, 180), &["a", "b", "c"]);
        }
        let pair = at(cluster_ip(11, family), 80);
        assert_even(&lab.from("a").spread(pair, 120), &["b", "c"]);
    }
}

#[test]
fn ports_are_matched_by_name_and_protocol_over_several_slices() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    // One name, another number in each slice; and one number over two protocols.
    proxy.apply(objects![
        service("web")
            .cluster_ip(10)
            .tcp(80)
            .named("http")
            .tcp(443)
            .named("tls")
            .udp(443)
            .named("quic"),
        endpoints("web")
            .port("http", "TCP", 8080)
            .port("tls", "TCP", 8443)
            .port("other", "TCP", 9)
            .on(&lab, &["a"]),
        endpoints("web")
            .slice("more")
            .port("http", "TCP", 8443)
            .port("quic", "UDP", 8443)
            .port("tls", "UDP", 9)
            .on(&lab, &["b"]),
    ]);
    for family in Family::BOTH {
        let (client, vip) = (lab.from("node"), cluster_ip(10, family));
        assert_even(&client.spread(at(vip, 80), 60), &["a", "b:8443"]);
        assert_eq!(client.tcp(at(vip, 443)).endpoint(), "a:8443");
        assert_eq!(client.udp(at(vip, 443)).endpoint(), "b:8443");
        assert_eq!(client.udp(at(vip, 80)), Outcome::Refused);
    }
}

#[test]
fn a_service_of_one_family_has_nothing_in_the_other() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service("four").only(Family::V4).cluster_ip(10).tcp(80),
        endpoints("four").tcp().on(&lab, &["b"]),
        service("six").only(Family::V6).cluster_ip(11).tcp(80),
        endpoints("six").tcp().on(&lab, &["b"]),
    ]);
    for (vip, family) in [(10, Family::V4), (11, Family::V6)] {
        let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
        let from_a = |family| lab.from("a").tcp(at(cluster_ip(vip, family), 80));
        assert_eq!(from_a(family).endpoint(), "b");
        assert_eq!(from_a(other), Outcome::Untouched { source: lab.ip("a", other) });
    }
}

#[test]
fn unknown_ports_and_icmp_are_rejected_and_unallocated_addresses_dropped() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let cidrs = service_cidr("kubernetes", &["10.96.0.0/16", "fd00:10:96::/112"]);
    let web =
        objects![service("web").cluster_ip(10).tcp(80), endpoints("web").tcp().on(&lab, &["b"]),];
    proxy.apply(objects![web.clone(), cidrs.clone()]);
    for family in Family::BOTH {
        for host in ["a", "node", "client"] {
            let client = lab.from(host);
            let (web, nobody) = (cluster_ip(10, family), cluster_ip(99, family));
            for (protocol, probe) in PROTOCOLS {
                let outcome = probe(&client, at(web, 81));
                assert_eq!(outcome, refused(protocol), "{host} {protocol} {family}");
                let outcome = probe(&client, at(nobody, 80));
                assert_eq!(outcome, Outcome::TimedOut, "{host} {protocol} {family}");
            }
            assert_eq!(client.udp(at(web, 80)), Outcome::Refused, "TCP only");
            assert_eq!(client.ping(web), Outcome::Refused, "{host} {family}");
            assert_eq!(client.ping(nobody), Outcome::TimedOut, "{host} {family}");
        }
    }
    // What is no ClusterIP any more, and no Service network, is nobody's business.
    proxy.delete(web);
    let outcome = lab.from("a").tcp(at(cluster_ip(10, Family::V4), 80));
    assert_eq!(outcome, Outcome::TimedOut, "unallocated now");
    proxy.delete(cidrs);
    let outcome = lab.from("a").tcp(at(cluster_ip(10, Family::V4), 80));
    assert_eq!(outcome, Outcome::Untouched { source: lab.v4("a") });
}

#[test]
fn headless_external_and_foreign_services_are_skipped() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let skipped = [
        service("headless")
            .tcp(80)
            .spec("clusterIP", json!("None"))
            .spec("clusterIPs", json!(["None"])),
        service("external")
            .tcp(80)
            .spec("type", json!("ExternalName"))
            .spec("externalName", json!("x.y")),
        service("foreign")
            .cluster_ip(12)
            .tcp(80)
            .label("service.kubernetes.io/service-proxy-name", "x"),
    ];
    proxy.apply(objects![
        skipped[0].clone().external_ip(1),
        skipped[1].clone().external_ip(2),
        skipped[2].clone().external_ip(3),
        endpoints("headless").tcp().on(&lab, &["b"]),
        endpoints("external").tcp().on(&lab, &["b"]),
        endpoints("foreign").tcp().on(&lab, &["b"]),
    ]);
    for family in Family::BOTH {
        let untouched = Outcome::Untouched { source: lab.ip("a", family) };
        assert_eq!(lab.from("a").tcp(at(cluster_ip(12, family), 80)), untouched);
        for number in 1..=3 {
            let vip = at(test_support::lab::external_ip(number, family), 80);
            assert_eq!(lab.from("a").tcp(vip), untouched, "{vip}");
        }
    }
}
