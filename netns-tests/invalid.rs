//! What is wrong with one object harms that object alone, in the cheapest way.

use crate::scenario::{at, lab};
use nft_table::Family;
use serde_json::json;
use test_support::lab::{Outcome, cluster_ip, external_ip};
use test_support::proxy::{Config, Proxy, endpoints, objects, service};

#[test]
fn invalid_services_and_slices_leave_all_others_alone() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let mut bad_slice: Vec<_> = endpoints("half").tcp().on(&lab, &["a", "b"]).into_iter().collect();
    for slice in &mut bad_slice {
        slice["endpoints"][0]["addresses"] = json!(["not an address"]);
    }
    proxy.apply(objects![
        service("good").cluster_ip(10).tcp(80),
        endpoints("good").tcp().on(&lab, &["b"]),
        service("bad-ip").tcp(80).spec("clusterIP", json!("10.96.0.300")),
        service("bad-port").cluster_ip(20).tcp(0),
        service("bad-protocol")
            .cluster_ip(21)
            .spec("ports", json!([{ "port": 80, "protocol": "DCCP" }])),
        service("half").cluster_ip(11).tcp(80),
        bad_slice,
        service("bad-external")
            .cluster_ip(12)
            .tcp(80)
            .spec("externalIPs", json!(["x", "203.0.113.7"])),
        endpoints("bad-external").tcp().on(&lab, &["c"]),
        service("late").cluster_ip(13).tcp(80),
        endpoints("late").tcp().on(&lab, &["c"]),
    ]);
    for family in Family::BOTH {
        let from_node = |number| lab.from("node").tcp(at(cluster_ip(number, family), 80));
        assert_eq!(from_node(10).endpoint(), "b");
        assert_eq!(from_node(11).endpoint(), "b", "without its bad endpoint");
        assert_eq!(from_node(12).endpoint(), "c", "without its bad external IP");
        assert_eq!(from_node(13).endpoint(), "c");
        for bad in [20, 21] {
            assert!(!matches!(from_node(bad), Outcome::Reached { .. }));
        }
    }
    let vip = at(external_ip(7, Family::V4), 80);
    assert_eq!(lab.from("client").tcp(vip).endpoint(), "c", "its good external IP");
    // Once it is put right it is served.
    proxy.apply(objects![
        service("bad-port").cluster_ip(20).tcp(80),
        endpoints("bad-port").tcp().on(&lab, &["b"]),
    ]);
    let vip = at(cluster_ip(20, Family::V4), 80);
    assert_eq!(lab.from("client").tcp(vip).endpoint(), "b");
}
