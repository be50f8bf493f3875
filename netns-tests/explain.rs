//! The commands that say what a proxy does, beside a running one.

use crate::scenario::{at, generation, lab};
use kube_proxy::answers::{Query, explain_now};
use nft_table::Family;
use serde_json::{Value, json};
use std::process::{Command, Output};
use test_support::lab::{Lab, Outcome, cluster_ip};
use test_support::proxy::{
    Config, Manifests, Program, Proxy, endpoints, node, objects, program, service,
};

/// A Service with a pod on the node that is ready, one that is not, and one on the other node; and a younger one that
/// wants the same external address.
fn shop(lab: &Lab) -> Vec<Value> {
    let not_ready = json!({"conditions": {"ready": false}});
    let web = endpoints("web").tcp().on(lab, &["a", "c"]).with(lab, &["b"], not_ready);
    objects![
        node(),
        service("web")
            .cluster_ip(10)
            .external_ip(1)
            .tcp(80)
            .node_port(30080)
            .created("2025-01-01T00:00:00Z"),
        web,
        service("late").cluster_ip(11).external_ip(1).tcp(80).created("2026-01-01T00:00:00Z"),
        endpoints("late").tcp().on(lab, &["a"]),
        service("empty").cluster_ip(12).tcp(80),
    ]
}

/// How pods are told from others.
const CLUSTER: [&str; 2] = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/56"];

/// Runs a command of the program in the node's namespace.
fn command(lab: &Lab, arguments: &[&str]) -> Output {
    lab.node().namespace.run(|| {
        let mut command = Command::new(program());
        command.args(arguments).output().expect("run kube-proxy")
    })
}

fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(error))
}

/// What it prints; it has to succeed.
#[track_caller]
pub fn said(lab: &Lab, arguments: &[&str]) -> String {
    let output = command(lab, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

#[track_caller]
fn assert_says(said: &str, lines: &[&str]) {
    for line in lines {
        assert!(said.lines().any(|said| said.trim() == *line), "no {line:?} in:\n{said}");
    }
}

#[test]
fn a_connection_is_explained() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(shop(&lab));
    let _program = Program::start_with(&lab, &manifests, &CLUSTER);
    assert_eq!(lab.from("client").tcp("203.0.113.1:80").source(), lab.v4("node"));
    let external =
        said(&lab, &["explain", "203.0.113.1:80", "--from", &lab.v4("client").to_string()]);
    assert_says(
        &external,
        &[
            "ExternalIP of Service default/web, port 80",
            "externalTrafficPolicy: Cluster",
            "wanted by Service default/late as well (ExternalIP, created 2026-01-01T00:00:00Z), which does not get it",
            "Endpoints: 2 of 3 in use",
            "+ 10.244.0.11:8080 on node: ready",
            "- 10.244.0.12:8080 on node: not ready",
            "+ 10.244.1.11:8080 on remote: ready",
            "From outside the cluster (198.51.100.11, by eth0): goes to an endpoint",
            "to one of 2, each as likely",
            "its source becomes an address of this node: externalTrafficPolicy is Cluster: the answer has to come back by this node",
            "cluster4-2: dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @cluster-endpoints4",
            "masquerade-always: masquerade fully-random",
            "The kernel has it as it is planned.",
            "Connections in conntrack: 1",
        ],
    );
    assert!(!external.contains('\x1b'), "no colours where nobody looks: {external:?}");
    let refused = said(&lab, &["explain", "default/empty"]);
    assert_says(
        &refused,
        &[
            "ClusterIP of Service default/empty, port 80",
            "because the Service port has no endpoint that is ready",
            "! There is no EndpointSlice with the label kubernetes.io/service-name=empty in namespace default: no pod matches the Service's selector, or it has none.",
        ],
    );
    let nobody = said(&lab, &["explain", "10.96.0.10:81"]);
    assert_says(
        &nobody,
        &[
            "! 10.96.0.10 is a ClusterIP of Service default/web, which has no port 81/TCP; it has 80/TCP.",
        ],
    );
    let json: Value =
        serde_json::from_str(&said(&lab, &["explain", "10.96.0.10:80", "-o", "json"])).unwrap();
    assert_eq!(json[0]["clients"].as_array().map(Vec::len), Some(3), "{json}");
    assert_eq!(json[0]["kernel"]["differences"], json!([]));
}

#[test]
fn what_makes_no_sense_or_cannot_be_says_why() {
    let Some(lab) = lab() else { return };
    let fails = |arguments: &[&str], why: &str| {
        let output = command(&lab, arguments);
        assert!(!output.status.success(), "{}", text(&output));
        assert!(text(&output).contains(why), "no {why:?} in: {}", text(&output));
    };
    fails(&["services"], "no kube-proxy answers at 127.0.0.1:10249");
    fails(&["explain", "default/web"], "no kube-proxy answers at 127.0.0.1:10249");
    fails(&["explain", "10.96.0.10"], "a port is needed");
    let manifests = Manifests::new();
    manifests.apply(shop(&lab));
    let program = Program::start(&lab, &manifests, None);
    fails(&["explain", "default/nothing"], "there is no Service default/nothing on this node");
    fails(&["explain", "10.96.0.10:80", "--from", "fd00::1"], "same IP family");
    let bad = program.get(10249, "/api/explain?address=10.96.0.10");
    assert!(bad.starts_with("HTTP/1.1 400"), "{bad}");
    drop(program);
    let program = Program::start_with(&lab, &manifests, &["--status-page=false"]);
    fails(&["services"], "does it have --status-page=false?");
    assert!(program.get(10249, "/status").starts_with("HTTP/1.1 404"));
    drop(program);
    let program = Program::start(&lab, &manifests, None);
    let unknown = program.get(10249, "/api/services?colour=red");
    assert!(unknown.starts_with("HTTP/1.1 200"), "as with all of Kubernetes' lists: {unknown}");
}

/// While no proxy runs, the kernel still serves.
#[test]
fn without_a_proxy_the_kernel_is_read() {
    let Some(lab) = lab() else { return };
    let nothing = said(&lab, &["explain", "10.96.0.10:80"]);
    assert_says(&nothing, &["! There is no table inet kube-proxy."]);
    let manifests = Manifests::new();
    manifests.apply(shop(&lab));
    Program::start(&lab, &manifests, None).kill();
    let address = said(&lab, &["explain", "10.96.0.10:80"]);
    assert_says(
        &address,
        &[
            "address of Service default/web, port 80",
            "Endpoints: 2 of 2 in use",
            "! New connections: goto cluster4-2",
        ],
    );
    let node_port = said(&lab, &["explain", "192.0.2.1:30080"]);
    assert_says(
        &node_port,
        &[
            "NodePort of Service default/web, port 30080",
            "+ 10.244.0.11:8080: in map nodeport-cluster-endpoints4",
            "! New connections: goto nodeport-cluster4-2",
        ],
    );
}

#[test]
fn services_are_listed() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(shop(&lab));
    let _program = Program::start(&lab, &manifests, None);
    let all = said(&lab, &["services"]);
    assert_says(
        &all,
        &[
            "default/empty: no IPv4 endpoint is ready; no IPv6 endpoint is ready",
            "default/late: 203.0.113.1:80/TCP is served for Service default/web; [2001:db8:203::1]:80/TCP is served for Service default/web",
        ],
    );
    let names = |arguments: &[&str]| -> Vec<String> {
        let listed: Value = serde_json::from_str(&said(&lab, arguments)).unwrap();
        let services = listed["services"].as_array().unwrap();
        services.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["services", "-o", "json"]), ["empty", "late", "web"]);
    assert_eq!(names(&["services", "--problems", "-o", "json"]), ["empty", "late"]);
    assert_eq!(names(&["services", "10.96.0.10", "-o", "json"]), ["web"]);
    assert_eq!(names(&["services", "30080", "-o", "json"]), ["web"]);
    assert_eq!(names(&["services", "-n", "kube-system", "-o", "json"]), [""; 0]);
}

#[test]
fn what_the_kernel_has_otherwise_is_told() {
    let Some(lab) = lab() else { return };
    let config = Config { own_table: false, ..Config::default() };
    let mut proxy = Proxy::new(&lab, config);
    proxy.apply(shop(&lab));
    let explained = |proxy: &Proxy<'_>| {
        let view = proxy.view();
        let query =
            Query { address: Some(cluster_ip(10, Family::V4)), port: Some(80), ..Query::default() };
        let explained = lab.node().namespace.run(|| explain_now(&view, &query)).unwrap();
        explained[0].kernel.clone().unwrap().differences
    };
    assert_eq!(explained(&proxy), [""; 0]);
    let table = ["inet", "kube-proxy"];
    let nft = |command: &[&str]| drop(lab.nft(command));
    nft(&[
        "delete",
        "element",
        table[0],
        table[1],
        "cluster-endpoints4",
        "{ 10.96.0.10 . tcp . 80 . 1 }",
    ]);
    nft(&["flush", "set", table[0], table[1], "cluster-ips4"]);
    nft(&["flush", "set", table[0], table[1], "hairpin4"]);
    nft(&["add", "element", table[0], table[1], "external-ips4", "{ 10.96.0.10 }"]);
    nft(&["insert", "rule", table[0], table[1], "cluster4-2", "counter"]);
    assert_eq!(
        explained(&proxy),
        [
            "+ element @cluster-ips4 { 10.96.0.10 }",
            "- element @external-ips4 { 10.96.0.10 }",
            "+ element @hairpin4 { 10.244.0.11 . 10.244.0.11 }",
            "+ element @cluster-endpoints4 { 10.96.0.10 . tcp . 80 . 1 : 10.244.1.11 . 8080 }",
            "chain cluster4-2: its rules are others than planned: nft list chain inet kube-proxy cluster4-2",
        ]
    );
    nft(&["delete", "table", table[0], table[1]]);
    assert_eq!(explained(&proxy), ["+ table inet kube-proxy"]);
}

#[test]
fn connections_that_lead_elsewhere_are_counted() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(shop(&lab));
    let target = at(cluster_ip(10, Family::V4), 80);
    let mut open = Vec::new();
    while !open.iter().any(|(_, answer): &(_, Outcome)| answer.endpoint() == "c") {
        let mut connection = lab.from("b").connect(target);
        let answer = connection.ask();
        open.push((connection, answer));
    }
    proxy.apply(endpoints("web").tcp().on(&lab, &["a"]));
    let view = proxy.view();
    let query = Query { address: Some(target.ip()), port: Some(80), ..Query::default() };
    let explained = lab.node().namespace.run(|| explain_now(&view, &query)).unwrap();
    let kernel = explained[0].kernel.as_ref().unwrap();
    assert_eq!(kernel.connections, open.len() as u64);
    assert_eq!(kernel.elsewhere, [(at(lab.v4("c"), 8080), 1)]);
}

#[test]
fn a_kernel_is_verified_without_being_changed() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(shop(&lab));
    let directory = manifests.path().to_str().unwrap().to_owned();
    let verify = || {
        let arguments = ["verify", &directory, "--node", "node"];
        let before = generation(&lab);
        let output = command(&lab, &arguments);
        assert_eq!(generation(&lab), before, "it changed something");
        (output.status.code(), text(&output))
    };
    let (code, said) = verify();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("add table inet kube-proxy"), "{said}");
    let program = Program::start(&lab, &manifests, None);
    assert_eq!(verify(), (Some(0), String::new()));
    // The table stays, and belongs to nobody.
    program.kill();
    lab.nft(&[
        "delete",
        "element",
        "inet",
        "kube-proxy",
        "service-ips4",
        "{ 10.96.0.10 . tcp . 80 }",
    ]);
    manifests.apply(endpoints("late").tcp().on(&lab, &["c"]));
    let (code, said) = verify();
    assert_eq!(code, Some(1), "{said}");
    assert_says(
        &said,
        &[
            "add element inet kube-proxy service-ips4 { 10.96.0.10 . tcp . 80 comment \"default/web:80\" : goto cluster4-2 }",
            "add element inet kube-proxy cluster-endpoints4 { 10.96.0.11 . tcp . 80 . 0 : 10.244.1.11 . 8080 }",
            "delete element inet kube-proxy cluster-endpoints4 { 10.96.0.11 . tcp . 80 . 0 }",
        ],
    );
    let output = command(&lab, &["verify", "/nowhere.yaml"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}
