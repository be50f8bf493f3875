//! UDP flows whose endpoint is gone are set free, so that the client's next packet is balanced anew; all other flows
//! and all connections stay.

use crate::scenario::{at, lab};
use nft_table::Family;
use serde_json::{Value, json};
use std::net::SocketAddr;
use test_support::lab::{Flow, Lab, Outcome, cluster_ip, external_ip};
use test_support::proxy::{Manifests, Program, endpoints, objects, service};

fn dns(lab: &Lab, pods: &[&str]) -> Vec<Value> {
    objects![
        service("dns")
            .cluster_ip(10)
            .external_ip(7)
            .udp(53)
            .named("udp")
            .node_port(30053)
            .tcp(53)
            .named("tcp"),
        endpoints("dns").port("udp", "UDP", 8080).port("tcp", "TCP", 8080).on(lab, pods),
    ]
}

fn frontends(lab: &Lab, family: Family) -> [SocketAddr; 3] {
    [
        at(cluster_ip(10, family), 53),
        at(external_ip(7, family), 53),
        at(lab.ip("node", family), 30053),
    ]
}

fn config() -> Option<Value> {
    let config = json!({
        "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56",
        "nodePortAddresses": ["192.0.2.0/24", "2001:db8::/64"],
    });
    Some(config)
}

fn flows(lab: &Lab) -> Vec<Flow<'_>> {
    let of = |family| {
        frontends(lab, family)
            .into_iter()
            .flat_map(|target| ["a", "client", "node"].map(|host| lab.from(host).flow(target)))
    };
    Family::BOTH.into_iter().flat_map(of).collect()
}

/// Waits until all flows reach pod c.
fn wait_for_c(program: &mut Program<'_>, flows: &[Flow<'_>]) {
    let is_at_c = |flow: &Flow<'_>| matches!(flow.ask(), Outcome::Reached { endpoint, .. } if endpoint == "c");
    flows.iter().for_each(|flow| program.wait_until(|_| is_at_c(flow)));
}

#[test]
fn flows_move_when_their_endpoint_goes_and_not_before() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(dns(&lab, &["b"]));
    let mut program = Program::start(&lab, &manifests, config());
    let flows = flows(&lab);
    for flow in &flows {
        assert_eq!(flow.ask().endpoint(), "b");
    }
    let mut connection = lab.from("a").connect(at(cluster_ip(10, Family::V4), 53));
    let answer = connection.ask();
    // A second endpoint takes nothing from the first.
    manifests.apply(dns(&lab, &["b", "c"]));
    let fresh = || lab.from("a").udp(at(cluster_ip(10, Family::V6), 53)).endpoint().to_owned();
    program.wait_until(|_| fresh() == "c");
    for flow in &flows {
        assert_eq!(flow.ask().endpoint(), "b");
    }
    manifests.apply(dns(&lab, &["c"]));
    wait_for_c(&mut program, &flows);
    assert_eq!(connection.ask(), answer, "TCP is left alone");
}

#[test]
fn flows_end_with_the_last_endpoint_and_with_the_service() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(dns(&lab, &["b"]));
    let mut program = Program::start(&lab, &manifests, config());
    let flows = flows(&lab);
    for flow in &flows {
        assert_eq!(flow.ask().endpoint(), "b");
    }
    manifests.apply(dns(&lab, &[]));
    for flow in &flows {
        program.wait_until(|_| flow.ask() == Outcome::Refused);
    }
    manifests.apply(dns(&lab, &["c"]));
    wait_for_c(&mut program, &flows);
    manifests.delete(dns(&lab, &["c"]));
    for flow in &flows {
        program.wait_until(|_| !matches!(flow.ask(), Outcome::Reached { .. }));
    }
}

#[test]
fn a_flow_that_is_older_than_its_service_finds_it() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    let mut program = Program::start(&lab, &manifests, config());
    let flow = lab.from("a").flow(at(cluster_ip(10, Family::V4), 53));
    assert_eq!(flow.ask(), Outcome::Untouched { source: lab.v4("a") });
    manifests.apply(dns(&lab, &["b"]));
    program
        .wait_until(|_| matches!(flow.ask(), Outcome::Reached { endpoint, .. } if endpoint == "b"));
}

#[test]
fn what_went_while_the_program_was_away_is_noticed_at_its_start() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(dns(&lab, &["b"]));
    let program = Program::start(&lab, &manifests, config());
    let flow = lab.from("a").flow(at(cluster_ip(10, Family::V4), 53));
    assert_eq!(flow.ask().endpoint(), "b");
    program.kill();
    manifests.apply(dns(&lab, &["c"]));
    assert_eq!(flow.ask().endpoint(), "b", "nobody is there to change it");
    let mut program = Program::start(&lab, &manifests, config());
    program
        .wait_until(|_| matches!(flow.ask(), Outcome::Reached { endpoint, .. } if endpoint == "c"));
}
