//! healthCheckNodePort: load balancers ask the node whether it has endpoints of a Service.

use crate::scenario::lab;
use nft_table::Family;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use test_support::lab::Lab;
use test_support::proxy::{Manifests, Program, endpoints, objects, service};

fn web(lab: &Lab, pods: &[&str]) -> Vec<Value> {
    let web = service("web").cluster_ip(10).load_balancer(8, None).tcp(80).node_port(30080);
    let web = web.spec("externalTrafficPolicy", json!("Local"));
    objects![web.spec("healthCheckNodePort", json!(32000)), endpoints("web").tcp().on(lab, pods),]
}

const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// What the load balancer hears from the node's address; empty as long as nobody listens.
fn ask_from_outside(lab: &Lab, node: &str) -> String {
    lab.machine("lb").namespace.run(|| {
        let Ok(mut stream) = TcpStream::connect((node, 32000)) else { return String::new() };
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    })
}

/// Waits until the node says `what` on both of its addresses. Each family has a slice, a file, and so a time of its own.
fn wait_for(lab: &Lab, program: &mut Program<'_>, what: &str) {
    program.wait_until(|_| NODE.iter().all(|node| ask_from_outside(lab, node).contains(what)));
}

/// The program with pods on the node and elsewhere, when it answers.
fn answering(lab: &Lab) -> (Manifests, Program<'_>) {
    let manifests = Manifests::new();
    manifests.apply(web(lab, &["a", "b", "c"]));
    let config = json!({ "nodePortAddresses": ["0.0.0.0/0", "::/0"] });
    let mut program = Program::start(lab, &manifests, Some(config));
    wait_for(lab, &mut program, "\"localEndpoints\": 2");
    (manifests, program)
}

#[test]
fn the_node_answers_as_it_has_local_endpoints() {
    let Some(lab) = lab() else { return };
    let (manifests, mut program) = answering(&lab);
    // The balancer asks from outside, and is not taken for a client of the Service.
    manifests.apply(web(&lab, &["c"]));
    wait_for(&lab, &mut program, "HTTP/1.1 503");
    manifests.apply(web(&lab, &["b"]));
    wait_for(&lab, &mut program, "HTTP/1.1 200");
    manifests.delete(web(&lab, &["b"]));
    program.wait_until(|program| program.get(32000, "/").is_empty());
}

#[test]
fn each_family_counts_its_own_endpoints() {
    let Some(lab) = lab() else { return };
    let (manifests, mut program) = answering(&lab);
    manifests.apply(objects![endpoints("web").only(Family::V6).tcp().on(&lab, &["b", "c"])]);
    program.wait_until(|_| {
        ask_from_outside(&lab, NODE[0]).contains("\"localEndpoints\": 2")
            && ask_from_outside(&lab, NODE[1]).contains("\"localEndpoints\": 1")
    });
}
