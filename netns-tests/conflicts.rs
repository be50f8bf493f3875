//! Several Services that claim one frontend: the older one has it, and when it goes the other takes over.

use crate::scenario::{at, lab};
use nft_table::Family;
use serde_json::Value;
use std::net::SocketAddr;
use test_support::lab::{Lab, cluster_ip, external_ip};
use test_support::proxy::{Config, Proxy, endpoints, objects, service};

fn old(lab: &Lab) -> Vec<Value> {
    let service = service("z/old").cluster_ip(10).external_ip(7).tcp(80).node_port(30080);
    objects![service.created("2020-01-01T00:00:00Z"), endpoints("z/old").tcp().on(lab, &["a"]),]
}

fn new(lab: &Lab) -> Vec<Value> {
    let service = service("a/new").cluster_ip(11).external_ip(7).tcp(80).node_port(30080);
    objects![service.created("2021-01-01T00:00:00Z"), endpoints("a/new").tcp().on(lab, &["b", "c"]),]
}

/// The frontends that both claim.
fn contested(lab: &Lab) -> Vec<SocketAddr> {
    let of = |family| [at(external_ip(7, family), 80), at(lab.ip("node", family), 30080)];
    Family::BOTH.into_iter().flat_map(of).collect()
}

fn both_are_served_and_the_old_one_has_what_is_contested(lab: &Lab) {
    for target in contested(lab) {
        for _ in 0..5 {
            assert_eq!(lab.from("client").tcp(target).endpoint(), "a");
        }
    }
    for family in Family::BOTH {
        assert_eq!(lab.from("client").tcp(at(cluster_ip(10, family), 80)).endpoint(), "a");
        assert_ne!(lab.from("client").tcp(at(cluster_ip(11, family), 80)).endpoint(), "a");
    }
}

#[test]
fn the_older_service_wins_in_whatever_order_they_come() {
    let Some(lab) = lab() else { return };
    for order in [[old(&lab), new(&lab)], [new(&lab), old(&lab)]] {
        let mut proxy = Proxy::new(&lab, Config::default());
        for objects in order {
            proxy.apply(objects);
        }
        both_are_served_and_the_old_one_has_what_is_contested(&lab);
    }
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![new(&lab), old(&lab)]);
    both_are_served_and_the_old_one_has_what_is_contested(&lab);
}

#[test]
fn of_services_of_one_age_the_first_by_name_wins() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service("z/one").cluster_ip(10).external_ip(7).tcp(80),
        endpoints("z/one").tcp().on(&lab, &["c"]),
        service("a/two").cluster_ip(11).external_ip(7).tcp(80),
        endpoints("a/two").tcp().on(&lab, &["b"]),
    ]);
    let vip = at(external_ip(7, Family::V4), 80);
    assert_eq!(lab.from("client").tcp(vip).endpoint(), "b");
}

#[test]
fn when_the_older_one_goes_the_other_takes_over() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![old(&lab), new(&lab)]);
    both_are_served_and_the_old_one_has_what_is_contested(&lab);
    proxy.delete(old(&lab));
    for target in contested(&lab) {
        assert_ne!(lab.from("client").tcp(target).endpoint(), "a");
    }
    proxy.apply(old(&lab));
    both_are_served_and_the_old_one_has_what_is_contested(&lab);
}
