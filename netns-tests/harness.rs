//! The lab itself: who reaches whom without a proxy, and every kind of outcome and observation against a table
//! written by hand (`reference.nft`), so that a failing packet test points at the proxy and not at the lab.

use crate::scenario::{self, SCTP, TCP, UDP, at};
use nft_table::Family;
use test_support::lab::{Lab, Load, Outcome, assert_even, cluster_ip, external_ip};

/// A full lab, the table loaded.
fn lab() -> Option<Lab> {
    let lab = scenario::lab()?;
    lab.nft(&["-f", concat!(env!("CARGO_MANIFEST_DIR"), "/netns-tests/reference.nft")]);
    Some(lab)
}

#[test]
fn hosts_reach_each_other_directly() {
    let Some(lab) = Lab::builder().pod("a").pod("b").remote_pod("c").outside("client").build()
    else {
        return;
    };
    for (client, server) in [
        ("a", "b"),
        ("a", "c"),
        ("a", "client"),
        ("c", "a"),
        ("node", "a"),
        ("node", "c"),
        ("node", "client"),
        ("remote", "node"),
        ("client", "node"),
        ("gateway", "remote"),
    ] {
        for family in Family::BOTH {
            let reached = Outcome::reached(server, lab.ip(client, family));
            let ip = lab.ip(server, family);
            let from = lab.from(client);
            for probe in [TCP, UDP, SCTP] {
                assert_eq!(probe(&from, at(ip, 8080)), reached, "{client} to {server}, {family}");
            }
            assert_eq!(from.ping(ip), Outcome::reached(server, ip));
            assert_eq!(from.tcp(at(ip, 9)), Outcome::Reset);
            assert_eq!(from.udp(at(ip, 9)), Outcome::Refused);
            assert_eq!(from.sctp(at(ip, 9)), Outcome::Reset);
        }
    }
}

#[test]
fn bridged_pods_reach_each_other_and_named_ports_show() {
    let lab = Lab::builder().bridge("cni0").pod("a").pod("b").outside("client").port(8443).build();
    let Some(lab) = lab else { return };
    for family in Family::BOTH {
        let reached = Outcome::reached("b:8443", lab.ip("a", family));
        assert_eq!(lab.from("a").tcp(at(lab.ip("b", family), 8443)), reached);
        let seen = lab.from("node").tcp(at(lab.ip("b", family), 8080)).source();
        assert_eq!(seen.to_string(), ["10.244.0.1", "fd00:10:244::1"][family as usize]);
    }
}

#[test]
fn a_vip_is_spread_over_its_endpoints() {
    let Some(lab) = lab() else { return };
    for family in Family::BOTH {
        let vip = at(cluster_ip(10, family), 80);
        for client in ["a", "node", "client"] {
            assert_even(&lab.from(client).spread(vip, 150), &["a", "b", "c"]);
        }
        let nodeport = at(lab.ip("node", family), 30080);
        assert_even(&lab.from("client").spread(nodeport, 150), &["a", "b", "c"]);
    }
}

#[test]
fn every_protocol_is_translated_and_sources_are_seen() {
    let Some(lab) = lab() else { return };
    for family in Family::BOTH {
        let node = lab.ip("node", family);
        for probe in [TCP, UDP, SCTP] {
            let one = at(cluster_ip(11, family), 80);
            let from = |host| probe(&lab.from(host), one);
            assert_eq!(from("b"), Outcome::reached("a", lab.ip("b", family)), "a pod");
            assert_eq!(from("a"), Outcome::reached("a", node), "hairpin");
            assert_eq!(from("node"), Outcome::reached("a", node), "the node");
            assert_eq!(from("client"), Outcome::reached("a", node), "outside");
        }
        for client in ["b", "node", "client"] {
            let client = lab.from(client);
            let quic = at(external_ip(7, family), 443);
            assert_eq!(client.udp(quic), Outcome::reached("c", node), "an external address");
            let dns = client.udp(at(node, 30053));
            assert!(["a", "b"].contains(&dns.endpoint()), "a UDP NodePort: {dns:?}");
            let sctp = client.sctp(at(cluster_ip(10, family), 5000));
            assert!(["b", "c"].contains(&sctp.endpoint()), "an SCTP Service: {sctp:?}");
        }
    }
}

#[test]
fn rejected_dropped_and_untouched_packets_are_told_apart() {
    let Some(lab) = lab() else { return };
    for family in Family::BOTH {
        let idle = cluster_ip(30, family);
        for host in ["a", "node", "client"] {
            let client = lab.from(host);
            for probe in [TCP, UDP, SCTP] {
                let outcome = |ip, port| probe(&client, at(ip, port));
                assert_eq!(outcome(idle, 80), Outcome::Refused, "no endpoints: {host}");
                assert_eq!(outcome(cluster_ip(10, family), 9), Outcome::Refused, "unknown port");
                let untouched = Outcome::Untouched { source: lab.ip(host, family) };
                if host != "client" {
                    assert_eq!(outcome(external_ip(7, family), 9), untouched, "external: {host}");
                }
            }
            assert_eq!(client.tcp(at(idle, 81)), Outcome::TimedOut, "dropped: {host}");
            assert_eq!(client.ping(cluster_ip(10, family)), Outcome::Refused, "ICMP: {host}");
            let unallocated = cluster_ip(99, family);
            assert_eq!(client.tcp(at(unallocated, 80)), Outcome::TimedOut, "unallocated: {host}");
            assert_eq!(client.ping(unallocated), Outcome::TimedOut);
            let nodeport = at(lab.ip("node", family), 30030);
            assert_eq!(client.tcp(nodeport), Outcome::Refused, "NodePort: {host}");
            assert_eq!(client.tcp(at(nodeport.ip(), 30031)), Outcome::Reset);
        }
        let lb = at(external_ip(50, family), 8080);
        assert_eq!(lab.from("a").tcp(lb), Outcome::reached("lb", lab.ip("a", family)));
    }
}

#[test]
fn a_packet_whose_answer_is_lost_is_still_seen() {
    let Some(lab) = lab() else { return };
    let rule = "udp sport 8080 ip saddr 10.244.1.11 drop";
    lab.nft(&["add table inet hole"]);
    lab.nft(&["add chain inet hole in { type filter hook prerouting priority -300; }"]);
    lab.nft(&["add rule inet hole in", rule]);
    let quic = at(external_ip(7, Family::V4), 443);
    let unanswered = Outcome::Unanswered { endpoint: "c".into(), source: lab.v4("node") };
    assert_eq!(lab.from("client").udp(quic), unanswered);
}

#[test]
fn open_connections_and_flows_outlive_their_service() {
    let Some(lab) = lab() else { return };
    let vip = at(cluster_ip(10, Family::V4), 80);
    let mut connections: Vec<_> = (0..4).map(|_| lab.from("a").connect(vip)).collect();
    let before: Vec<_> = connections.iter_mut().map(|connection| connection.ask()).collect();
    let flow = lab.from("a").port(5353).flow(at(cluster_ip(10, Family::V4), 53));
    let answer = flow.ask();
    lab.nft(&["flush map inet kube-proxy service-ips4"]);
    let after: Vec<_> = connections.iter_mut().map(|connection| connection.ask()).collect();
    assert_eq!(before, after);
    assert_eq!(flow.ask(), answer);
    assert_eq!(lab.from("a").tcp(vip), Outcome::Refused);
}

#[test]
fn load_counts_what_is_answered_and_what_is_not() {
    let Some(lab) = lab() else { return };
    let (report, ()) = Load::during(&lab.from("client"), "192.0.2.1:30080", 4, |load| {
        load.wait_for(200);
    });
    report.assert_no_loss();
    assert!(report.answered >= 200 && report.endpoints.len() == 3, "{report:?}");
    let (report, ()) = Load::during(&lab.from("client"), "192.0.2.1:30080", 2, |load| {
        lab.nft(&["flush map inet kube-proxy service-nodeports4"]);
        load.wait_for(20);
    });
    assert!(!report.failures.is_empty(), "nobody listens on the node itself: {report:?}");
}

#[test]
fn a_client_chooses_its_source() {
    let Some(lab) = lab() else { return };
    let one = at(cluster_ip(11, Family::V4), 80);
    let connection = lab.from("b").port(40_000).connect(one);
    assert_eq!(connection.local(), at(lab.v4("b"), 40_000));
    let lb = lab.from("lb").at(external_ip(50, Family::V4));
    assert_eq!(lb.tcp(at(lab.v4("a"), 8080)), Outcome::reached("a", external_ip(50, Family::V4)));
}
