//! Services without endpoints reject, over every frontend and protocol, and serve as soon as they have one.

use crate::scenario::{PROTOCOLS, at, for_everything, lab, refused};
use nft_table::Family;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use test_support::lab::{Lab, Outcome, cluster_ip, external_ip};
use test_support::proxy::{Config, Proxy, objects};

fn idle() -> Vec<Value> {
    let service =
        test_support::proxy::service("idle").cluster_ip(10).external_ip(7).load_balancer(8, None);
    let ports = [("TCP", "tcp"), ("UDP", "udp"), ("SCTP", "sctp")].map(|(protocol, name)| {
        json!({ "protocol": protocol, "name": name, "port": 80, "nodePort": 30080 })
    });
    objects![service.spec("ports", json!(ports))]
}

fn frontends(lab: &Lab, family: Family) -> [SocketAddr; 4] {
    [
        at(cluster_ip(10, family), 80),
        at(external_ip(7, family), 80),
        at(external_ip(8, family), 80),
        at(lab.ip("node", family), 30080),
    ]
}

fn all_are_refused(lab: &Lab) {
    for family in Family::BOTH {
        for target in frontends(lab, family) {
            for host in ["a", "node", "client"] {
                for (protocol, probe) in PROTOCOLS {
                    let outcome = probe(&lab.from(host), target);
                    assert_eq!(outcome, refused(protocol), "{host} to {target}, {protocol}");
                }
            }
        }
    }
}

#[test]
fn without_slices_or_endpoints_everything_is_rejected() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(idle());
    all_are_refused(&lab);
    proxy.apply(for_everything("idle"));
    all_are_refused(&lab);
}

#[test]
fn endpoints_that_are_not_ready_do_not_count() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let not_ready = json!({ "conditions": { "ready": false, "serving": false } });
    proxy.apply(objects![idle(), for_everything("idle").with(&lab, &["b"], not_ready)]);
    all_are_refused(&lab);
}

#[test]
fn scaling_from_zero_and_back() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(idle());
    let vip = at(cluster_ip(10, Family::V4), 80);
    assert_eq!(lab.from("a").tcp(vip), Outcome::Reset);
    proxy.apply(for_everything("idle").on(&lab, &["b"]));
    for family in Family::BOTH {
        for target in frontends(&lab, family) {
            for (protocol, probe) in PROTOCOLS {
                let outcome = probe(&lab.from("client"), target);
                assert_eq!(outcome.endpoint(), "b", "{target}, {protocol}");
            }
        }
    }
    let mut connection = lab.from("a").connect(vip);
    let before = connection.ask();
    proxy.apply(for_everything("idle"));
    assert_eq!(connection.ask(), before, "an open connection is left alone");
    all_are_refused(&lab);
}

#[test]
fn a_thousand_connections_in_a_row_are_refused_at_once() {
    let Some(lab) = lab() else { return };
    // As machines have it: one ICMP error a second and host. Resets are not limited.
    for name in ["net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"] {
        lab.node().namespace.sysctl_if_there(name, "1000");
    }
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(idle());
    for family in Family::BOTH {
        for host in ["a", "node", "client"] {
            let client = lab.from(host);
            let vip = at(cluster_ip(10, family), 80);
            for _ in 0..1000 {
                let start = Instant::now();
                assert_eq!(client.tcp(vip), Outcome::Reset, "{host} {family}");
                // One that is not heard at once is heard when the client tries again, after a second.
                assert!(start.elapsed() < Duration::from_millis(900), "{host} {family}");
            }
        }
    }
}
