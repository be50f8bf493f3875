//! Which endpoints count: readiness, termination, and topology hints.

use crate::scenario::{at, lab};
use nft_table::Family;
use serde_json::{Value, json};
use test_support::lab::{Lab, Outcome, assert_even, cluster_ip, external_ip};
use test_support::proxy::{Config, Endpoints, Proxy, endpoints, node, objects, service};

/// Conditions of an endpoint in its last moments.
fn terminating() -> Value {
    json!({ "conditions": { "ready": false, "serving": true, "terminating": true } })
}

fn gone() -> Value {
    json!({ "conditions": { "ready": false, "serving": false, "terminating": true } })
}

/// An endpoint meant for these zones.
fn for_zones(zones: &[&str]) -> Value {
    let zones: Vec<_> = zones.iter().map(|zone| json!({ "name": zone })).collect();
    json!({ "hints": { "forZones": zones } })
}

/// An endpoint meant for these zones and nodes.
fn for_nodes(nodes: &[&str], zones: &[&str]) -> Value {
    let nodes: Vec<_> = nodes.iter().map(|node| json!({ "name": node })).collect();
    let mut fields = for_zones(zones);
    fields["hints"]["forNodes"] = json!(nodes);
    fields
}

fn web() -> Endpoints {
    endpoints("web").tcp()
}

/// Who answers at ClusterIP 10.
fn answers(lab: &Lab, expected: &[&str]) {
    for family in Family::BOTH {
        let vip = at(cluster_ip(10, family), 80);
        assert_even(&lab.from("node").spread(vip, 40 * expected.len()), expected);
    }
}

#[test]
fn terminating_endpoints_serve_as_long_as_nobody_is_ready() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(service("web").cluster_ip(10).tcp(80));
    proxy.apply(web().on(&lab, &["a"]).with(&lab, &["b"], terminating()));
    answers(&lab, &["a"]);
    proxy.apply(web().with(&lab, &["a"], gone()).with(&lab, &["b", "c"], terminating()));
    answers(&lab, &["b", "c"]);
    proxy.apply(web().with(&lab, &["a", "b", "c"], gone()));
    let vip = at(cluster_ip(10, Family::V4), 80);
    assert_eq!(lab.from("node").tcp(vip), Outcome::Reset);
}

#[test]
fn the_local_list_falls_back_on_its_own() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let service = service("web").cluster_ip(10).external_ip(7).tcp(80);
    proxy.apply(objects![
        service.spec("externalTrafficPolicy", json!("Local")),
        web().on(&lab, &["c"]).with(&lab, &["a", "b"], terminating()),
    ]);
    answers(&lab, &["c"]);
    for family in Family::BOTH {
        let vip = at(external_ip(7, family), 80);
        assert_even(&lab.from("client").spread(vip, 80), &["a", "b"]);
        assert_even(&lab.from("node").spread(vip, 10), &["c"]);
    }
}

#[test]
fn absent_conditions_mean_ready() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let unknown = json!({ "conditions": { "ready": null, "serving": null, "terminating": null } });
    proxy.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        web().with(&lab, &["a"], json!({})).with(&lab, &["b"], unknown),
    ]);
    answers(&lab, &["a", "b"]);
}

#[test]
fn zone_hints_are_followed_when_all_ready_endpoints_have_them() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![node(), service("web").cluster_ip(10).tcp(80)]);
    let (here, there) = (for_zones(&["here"]), for_zones(&["there"]));
    let apart = || web().with(&lab, &["b"], here.clone()).with(&lab, &["c"], there.clone());
    proxy.apply(apart());
    answers(&lab, &["b"]);
    proxy.apply(apart().with(&lab, &["a"], for_zones(&["there", "here"])));
    answers(&lab, &["a", "b"]);
    proxy.apply(apart().on(&lab, &["a"]));
    answers(&lab, &["a", "b", "c"]);
    proxy.apply(web().with(&lab, &["a", "b", "c"], there.clone()));
    answers(&lab, &["a", "b", "c"]);
    // The node moves to another zone.
    proxy.apply(apart());
    let mut moved = node();
    moved[0]["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!("there");
    proxy.apply(moved.clone());
    answers(&lab, &["c"]);
    moved[0]["metadata"]["labels"] = json!({});
    proxy.apply(moved);
    answers(&lab, &["b", "c"]);
}

#[test]
fn node_hints_go_before_zone_hints() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![node(), service("web").cluster_ip(10).tcp(80)]);
    proxy.apply(
        web()
            .with(&lab, &["a"], for_nodes(&["node"], &["there"]))
            .with(&lab, &["b"], for_nodes(&["remote"], &["here"]))
            .with(&lab, &["c"], for_nodes(&["remote"], &["there"])),
    );
    answers(&lab, &["a"]);
    proxy.apply(web().with(&lab, &["a"], for_nodes(&["remote"], &["there"])).with(
        &lab,
        &["b"],
        for_nodes(&["remote"], &["here"]),
    ));
    answers(&lab, &["b"]);
}

#[test]
fn hints_say_nothing_about_local_policies_and_terminating_endpoints() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let there = for_zones(&["there"]);
    let here = for_zones(&["here"]);
    let service = service("web").cluster_ip(10).external_ip(7).tcp(80);
    proxy.apply(objects![
        node(),
        service.spec("externalTrafficPolicy", json!("Local")),
        web().with(&lab, &["a", "b"], there.clone()).with(&lab, &["c"], here),
    ]);
    answers(&lab, &["c"]);
    let vip = at(external_ip(7, Family::V4), 80);
    assert_even(&lab.from("client").spread(vip, 80), &["a", "b"]);
    let mut leaving = terminating();
    leaving["hints"] = there["hints"].clone();
    proxy.apply(web().with(&lab, &["b", "c"], leaving));
    answers(&lab, &["b", "c"]);
}

#[test]
fn of_one_address_in_several_slices_the_one_that_stays_counts() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        web().with(&lab, &["b"], gone()),
        web().slice("two").on(&lab, &["b", "c"]),
        web().slice("zzz").with(&lab, &["b"], terminating()),
    ]);
    answers(&lab, &["b", "c"]);
}
