//! An upgrade finds a table of the first layout and replaces it: nobody is refused or misled meanwhile, open
//! connections live on, and clients keep the endpoints that they had.

use crate::scenario::{at, lab};
use nft_table::Family;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use test_support::lab::{Lab, Load, cluster_ip};
use test_support::proxy::{Config, Proxy, endpoints, objects, service, service_cidr};

/// The table beside, while one is replaced.
const INTERIM: &str = "kube-proxy-interim";

/// What the table written by hand serves, a Service with session affinity, and more slots than a first stage holds.
fn cluster(lab: &Lab) -> Vec<Value> {
    let large = |index: u32| {
        let address = Ipv4Addr::from(0x0a80_0000 + index);
        json!({ "addresses": [address] })
    };
    let cart = service("cart").only(Family::V4);
    objects![
        service_cidr("kubernetes", &["10.96.0.0/16", "fd00:10:96::/112"]),
        service("web").cluster_ip(10).tcp(80).node_port(30080),
        endpoints("web").tcp().on(lab, &["a", "b", "c"]),
        // nft 1.0.6 loads no listing with session affinity for IPv6.
        cart.cluster_ip(20).tcp(80).spec("sessionAffinity", json!("ClientIP")),
        endpoints("cart").only(Family::V4).tcp().on(lab, &["a", "b", "c"]),
        service("large").only(Family::V4).cluster_ip(40).tcp(80),
        [json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default",
                "name": "large",
                "labels": { "kubernetes.io/service-name": "large" },
            },
            "addressType": "IPv4",
            "ports": [{ "port": 8080 }],
            "endpoints": (0..20_000).map(large).collect::<Vec<_>>(),
        })],
    ]
}

/// Loads a table of the first layout, in which `client` is remembered on an endpoint of `cart`.
fn load_first_layout(lab: &Lab, remembered: &str) {
    lab.nft(&["-f", concat!(env!("CARGO_MANIFEST_DIR"), "/netns-tests/reference.nft")]);
    let map = "affinity4-default/cart/tcp-cluster";
    lab.nft(&[&format!(
        "add map inet kube-proxy {map} {{ typeof ip saddr : ip daddr . th dport; size 65535; \
         flags dynamic,timeout; }}"
    )]);
    let client = lab.ip("client", Family::V4);
    let endpoint = lab.ip(remembered, Family::V4);
    lab.nft(&[&format!(
        "add element inet kube-proxy {map} {{ {client} timeout 3h expires 1h : {endpoint} . 8080 }}"
    )]);
}

#[test]
fn the_first_layout_is_replaced_under_load_and_clients_keep_their_endpoints() {
    for remembered in ["a", "b", "c"] {
        let Some(lab) = lab() else { return };
        load_first_layout(&lab, remembered);
        let targets = |family| [at(cluster_ip(10, family), 80), at(lab.ip("node", family), 30080)];
        let mut open: Vec<_> = Family::BOTH
            .into_iter()
            .flat_map(targets)
            .flat_map(|target| ["a", "node", "client"].map(|host| (host, target)))
            .map(|(host, target)| {
                let mut connection = lab.from(host).connect(target);
                let answer = connection.ask();
                (connection, answer)
            })
            .collect();
        let mut proxy = Proxy::new(&lab, Config::default());
        let vip = at(cluster_ip(10, Family::V4), 80).to_string();
        let (report, ()) = Load::during(&lab.from("client"), &vip, 2, |load| {
            load.wait_for(10);
            proxy.apply(cluster(&lab));
            load.wait_for(10);
        });
        report.assert_no_loss();
        for (connection, answer) in &mut open {
            assert_eq!(connection.ask(), *answer);
        }
        for _ in 0..5 {
            let cart = at(cluster_ip(20, Family::V4), 80);
            assert_eq!(lab.from("client").tcp(cart).endpoint(), remembered);
        }
        assert_eq!(lab.nft(&["list", "tables"]).trim(), "table inet kube-proxy");
        assert_eq!(proxy.written_by_a_new_one(Config::default()), 0);
    }
}

/// Starts beside a complete table of the interim name, with the table itself or without.
fn starts_after_a_kill(table_is_there: bool) {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config { own_table: false, ..Config::default() });
    proxy.apply(cluster(&lab));
    let listing = proxy.listing();
    let beside = listing.replace("table inet kube-proxy {", &format!("table inet {INTERIM} {{"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), beside).unwrap();
    lab.nft(&["-f", file.path().to_str().unwrap()]);
    if !table_is_there {
        lab.nft(&["delete table inet kube-proxy"]);
    }
    let mut proxy = proxy.restart(Config::default());
    let vip = at(cluster_ip(10, Family::V6), 80).to_string();
    let (report, ()) = Load::during(&lab.from("a"), &vip, 2, |load| {
        load.wait_for(10);
        proxy.commit();
        load.wait_for(10);
    });
    report.assert_no_loss();
    assert_eq!(lab.nft(&["list", "tables"]).trim(), "table inet kube-proxy");
}

#[test]
fn a_run_that_was_killed_before_the_table_was_written_leaves_nothing_beside() {
    starts_after_a_kill(false);
}

#[test]
fn nor_does_one_that_was_killed_after_it() {
    starts_after_a_kill(true);
}
