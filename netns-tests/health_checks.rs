//! healthCheckNodePort: load balancers ask the node whether it has endpoints of a Service.

use crate::scenario::lab;
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

/// What the load balancer hears.
fn ask_from_outside(lab: &Lab, node: &str) -> String {
    lab.machine("lb").namespace.run(|| {
        let mut stream = TcpStream::connect((node, 32000)).expect("connect");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    })
}

/// The program with pods on the node and elsewhere, when it answers.
fn answering(lab: &Lab) -> (Manifests, Program<'_>) {
    let manifests = Manifests::new();
    manifests.apply(web(lab, &["a", "b", "c"]));
    let config = json!({ "nodePortAddresses": ["0.0.0.0/0", "::/0"] });
    let mut program = Program::start(lab, &manifests, Some(config));
    program.wait_until(|program| program.get(32000, "/").starts_with("HTTP/1.1 200"));
    (manifests, program)
}

#[test]
fn the_node_answers_as_it_has_local_endpoints() {
    let Some(lab) = lab() else { return };
    let (manifests, mut program) = answering(&lab);
    manifests.apply(web(&lab, &["c"]));
    program.wait_until(|program| program.get(32000, "/").starts_with("HTTP/1.1 503"));
    manifests.apply(web(&lab, &["b"]));
    program.wait_until(|program| program.get(32000, "/").starts_with("HTTP/1.1 200"));
    // The balancer asks from outside, and is not taken for a client of the Service.
    assert!(ask_from_outside(&lab, "192.0.2.1").starts_with("HTTP/1.1 200"));
    assert!(ask_from_outside(&lab, "2001:db8::1").starts_with("HTTP/1.1 200"));
    manifests.delete(web(&lab, &["b"]));
    program.wait_until(|program| program.get(32000, "/").is_empty());
}

#[test]
fn each_family_counts_its_own_endpoints() {
    let Some(lab) = lab() else { return };
    let (_manifests, _program) = answering(&lab);
    for node in ["192.0.2.1", "2001:db8::1"] {
        let answer = ask_from_outside(&lab, node);
        assert!(answer.contains("\"localEndpoints\": 2"), "{answer}");
    }
}
