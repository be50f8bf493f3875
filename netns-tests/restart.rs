//! Restarts: an unchanged state is adopted without a write, a changed one by its difference, and a table of
//! another layout is replaced, all without a lost packet.

use crate::scenario::{assert_same, at, generation, lab};
use nft_table::Family;
use serde_json::Value;
use test_support::lab::{Lab, Load, Outcome, cluster_ip};
use test_support::proxy::{
    Config, Manifests, Program, Proxy, endpoints, objects, service, service_cidr,
};

fn cluster(lab: &Lab, pods: &[&str]) -> Vec<Value> {
    objects![
        service_cidr("kubernetes", &["10.96.0.0/16", "fd00:10:96::/112"]),
        service("web").cluster_ip(10).external_ip(7).tcp(80).node_port(30080),
        endpoints("web").tcp().on(lab, pods),
        service("idle").cluster_ip(11).udp(53).node_port(30053),
        service("one").cluster_ip(12).sctp(80),
        endpoints("one").sctp().on(lab, &["b"]),
    ]
}

#[test]
fn an_unchanged_state_is_adopted_without_a_write() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(cluster(&lab, &["a", "b", "c"]));
    // Slots that were swapped around by updates are adopted as they are.
    proxy.apply(cluster(&lab, &["b", "c"]));
    proxy.apply(cluster(&lab, &["a", "b", "c"]));
    let (before, listing) = (generation(&lab), proxy.listing());
    let mut proxy = proxy.restart(Config::default());
    let committed = proxy.commit();
    assert_eq!(committed.operations, 0, "{committed:?}");
    assert_eq!(generation(&lab), before + 1, "it is the owner now, and that is all");
    assert_same(&listing, &proxy.listing());
}

#[test]
fn a_changed_state_is_adopted_by_its_difference() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(cluster(&lab, &["a", "c"]));
    let mut proxy = proxy.restart(Config::default());
    let committed = proxy.apply(cluster(&lab, &["b", "c"]));
    assert!((1..100).contains(&committed.operations), "{committed:?}");
    for family in Family::BOTH {
        let counts = lab.from("client").spread(at(cluster_ip(10, family), 80), 80);
        test_support::lab::assert_even(&counts, &["b", "c"]);
    }
}

#[test]
fn a_table_of_another_layout_is_replaced() {
    let Some(lab) = lab() else { return };
    lab.nft(&["-f", concat!(env!("CARGO_MANIFEST_DIR"), "/netns-tests/reference.nft")]);
    lab.nft(&[
        "add chain inet kube-proxy services-of-old { type nat hook prerouting priority -101; }",
    ]);
    lab.nft(&["add map inet kube-proxy old { type ipv4_addr : verdict; }"]);
    let mut proxy = Proxy::new(&lab, Config::default());
    let (report, ()) = Load::during(&lab.from("client"), "10.96.0.10:80", 2, |load| {
        load.wait_for(10);
        proxy.apply(cluster(&lab, &["a", "b", "c"]));
    });
    report.assert_no_loss();
    assert!(!proxy.listing().contains("old"), "{}", proxy.listing());
    // And what was written is what a fresh start writes.
    proxy.tidy();
    let replaced = proxy.listing();
    let mut proxy = proxy.restart(Config::default());
    lab.nft(&["delete table inet kube-proxy"]);
    proxy.commit();
    assert_same(&replaced, &proxy.listing());
}

#[test]
fn other_tables_are_left_alone() {
    let Some(lab) = lab() else { return };
    lab.nft(&["add table inet mine"]);
    lab.nft(&["add table ip kube-proxy-not"]);
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(cluster(&lab, &["b"]));
    let mut proxy = proxy.restart(Config::default());
    proxy.commit();
    let tables = lab.nft(&["list", "tables"]);
    for table in ["inet mine", "ip kube-proxy-not", "inet kube-proxy"] {
        assert!(tables.contains(table), "{tables}");
    }
}

#[test]
fn a_table_that_was_lost_comes_back() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(cluster(&lab, &["b"]));
    lab.nft(&["flush ruleset"]);
    // The next change finds out.
    proxy.apply(cluster(&lab, &["c"]));
    let vip = at(cluster_ip(10, Family::V4), 80);
    assert_eq!(lab.from("client").tcp(vip).endpoint(), "c");
    assert_eq!(lab.from("a").udp(at(cluster_ip(11, Family::V4), 53)), Outcome::Refused);
}

#[test]
fn the_program_restarts_without_a_lost_packet() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(cluster(&lab, &["a", "b", "c"]));
    let program = Program::start(&lab, &manifests, None);
    let before = (generation(&lab), lab.nft(&["list", "table", "inet", "kube-proxy"]));
    let (report, ()) = Load::during(&lab.from("client"), "192.0.2.1:30080", 2, |load| {
        load.wait_for(20);
        let status = program.terminate();
        assert!(status.success(), "SIGTERM: {status}");
        load.wait_for(20);
        let program = Program::start(&lab, &manifests, None);
        load.wait_for(20);
        program.kill();
        load.wait_for(20);
        let _program = Program::start(&lab, &manifests, None);
        load.wait_for(20);
    });
    report.assert_no_loss();
    assert_eq!(generation(&lab), before.0 + 2, "each was the owner, and wrote nothing");
    assert_same(&before.1, &lab.nft(&["list", "table", "inet", "kube-proxy"]));
}
