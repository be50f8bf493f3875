//! Connections are counted by Service and endpoint, and what was counted stays.

use crate::explain::said;
use crate::listing::loads_again;
use crate::scenario::{TCP, UDP, assert_same, at, everything, for_everything, lab};
use kube_proxy::answers::connections_now;
use kube_proxy::explain::CountedPort;
use kube_proxy::metrics::kernel::Rebuild;
use kube_proxy::plan::Counting;
use nft_table::Family;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use test_support::lab::{Lab, Load, Outcome, cluster_ip, external_ip};
use test_support::proxy::{Config, Manifests, Program, Proxy, endpoints, objects, service};

fn by_endpoint() -> Config {
    Config { counting: Counting::Endpoint, ..Config::default() }
}

/// What was counted of a port.
#[track_caller]
fn port(proxy: &Proxy<'_>, lab: &Lab, name: &str, port: &str) -> CountedPort {
    let name = kube_proxy::model::ObjectName::new("default", name);
    let view = proxy.view();
    let counted = lab.node().namespace.run(|| connections_now(&view, Some(&[name])));
    let ports = counted.expect("the kernel answers").ports;
    ports.into_iter().find(|there| there.port == port).expect("the port is there")
}

/// Connections by pod.
fn pods(lab: &Lab, counted: &CountedPort) -> BTreeMap<String, u64> {
    let mut pods = BTreeMap::new();
    for endpoint in &counted.endpoints {
        let is_it =
            |pod: &&str| Family::BOTH.iter().any(|f| lab.ip(pod, *f) == endpoint.address.ip());
        let pod = ["a", "b", "c"].into_iter().find(is_it).expect("a pod");
        *pods.entry(pod.to_owned()).or_default() += endpoint.connections;
    }
    pods
}

#[test]
fn each_connection_is_counted_once() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, by_endpoint());
    proxy.apply(objects![
        everything("web")
            .cluster_ip(10)
            .external_ip(7)
            .spec("externalTrafficPolicy", json!("Local")),
        for_everything("web").on(&lab, &["a", "b", "c"]),
        service("plain").cluster_ip(11).tcp(80).node_port(30080),
        endpoints("plain").tcp().on(&lab, &["b"]),
    ]);
    let mut expected: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for family in Family::BOTH {
        for (protocol, probe) in [("tcp", TCP), ("udp", UDP)] {
            for (host, target) in [
                ("a", at(cluster_ip(10, family), 80)),
                ("node", at(cluster_ip(10, family), 80)),
                ("client", at(external_ip(7, family), 80)),
                ("a", at(external_ip(7, family), 80)),
            ] {
                for _ in 0..5 {
                    let pod = probe(&lab.from(host), target).endpoint().to_owned();
                    *expected.entry((protocol, pod)).or_default() += 1;
                }
            }
        }
        for host in ["client", "a", "node"] {
            lab.from(host).tcp(at(lab.ip("node", family), 30080)).endpoint();
        }
        assert_eq!(lab.from("client").tcp(at(lab.ip("b", family), 8080)).endpoint(), "b");
    }
    for protocol in ["tcp", "udp"] {
        let counted = port(&proxy, &lab, "web", protocol);
        assert_eq!((counted.served, counted.refused, counted.dropped), (40, 0, 0));
        let of_protocol = expected.iter().filter(|((there, _), _)| *there == protocol);
        let expected = of_protocol.map(|((_, pod), count)| (pod.clone(), *count)).collect();
        assert_eq!(pods(&lab, &counted), expected, "{protocol}");
    }
    assert_eq!(port(&proxy, &lab, "web", "sctp").total(), 0);
    let plain = port(&proxy, &lab, "plain", "80");
    assert_eq!((plain.served, pods(&lab, &plain)["b"]), (6, 6));
    // Packets of established connections are nothing new.
    let mut connection = lab.from("client").connect(at(lab.v4("node"), 30080));
    (0..10).for_each(|_| assert_eq!(connection.ask().endpoint(), "b"));
    assert_eq!(port(&proxy, &lab, "plain", "80").served, 7);
}

#[test]
fn counts_outlive_changes_restarts_and_refusals() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, by_endpoint());
    proxy.apply(service("web").cluster_ip(10).tcp(80));
    let target = at(cluster_ip(10, Family::V4), 80);
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let mut connect = |there: &[&str]| {
        for (pod, count) in lab.from("client").spread(target, 10 * there.len()) {
            *expected.entry(pod).or_default() += count as u64;
        }
        expected.clone()
    };
    for there in [&["a", "b"][..], &["a", "b", "c"], &["c", "a", "b"]] {
        proxy.apply(endpoints("web").tcp().on(&lab, there));
        let expected = connect(there);
        assert_eq!(pods(&lab, &port(&proxy, &lab, "web", "80")), expected);
    }
    let mut proxy = proxy.restart(by_endpoint());
    proxy.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        endpoints("web").tcp().on(&lab, &["a", "b", "c"]),
    ]);
    let expected = connect(&["a", "b", "c"]);
    let counted = port(&proxy, &lab, "web", "80");
    assert_eq!((counted.served, pods(&lab, &counted)), (110, expected));
    proxy.apply(endpoints("web").tcp());
    for _ in 0..3 {
        assert_eq!(lab.from("client").tcp(target), Outcome::Reset);
    }
    let counted = port(&proxy, &lab, "web", "80");
    assert_eq!((counted.served, counted.refused), (110, 3));
    proxy.apply(endpoints("web").tcp().on(&lab, &["b"]));
    lab.from("client").tcp(target).endpoint();
    let counted = port(&proxy, &lab, "web", "80");
    assert_eq!((counted.served, counted.refused), (111, 3));
}

#[test]
fn what_is_counted_changes_without_a_lost_connection() {
    let Some(lab) = lab() else { return };
    let objects = || {
        objects![
            service("web").cluster_ip(10).tcp(80),
            endpoints("web").tcp().on(&lab, &["a", "b", "c"]),
        ]
    };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects());
    let target = at(cluster_ip(10, Family::V4), 80);
    let mut connection = lab.from("client").connect(target);
    let answer = connection.ask();
    for counting in [Counting::Service, Counting::Endpoint, Counting::Off] {
        let client = lab.from("client");
        let (report, restarted) = Load::during(&client, &target.to_string(), 2, |load| {
            load.wait_for(20);
            let mut proxy = proxy.restart(Config { counting, ..Config::default() });
            assert_eq!(proxy.apply(objects()).rebuilt, Some(Rebuild::Layout));
            load.wait_for(20);
            proxy
        });
        report.assert_no_loss();
        proxy = restarted;
        assert_eq!(connection.ask(), answer);
        assert_eq!(proxy.written_by_a_new_one(Config { counting, ..Config::default() }), 0);
    }
}

/// With nft's own words, and so that it loads again.
#[test]
fn a_listing_has_the_counts() {
    let Some(lab) = lab() else { return };
    let config = Config { own_table: false, ..by_endpoint() };
    let mut proxy = Proxy::new(&lab, config);
    proxy.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        endpoints("web").tcp().on(&lab, &["a"]),
    ]);
    assert_same(&proxy.listing(), &proxy.table().to_string());
    lab.from("client").tcp(at(cluster_ip(10, Family::V4), 80)).endpoint();
    let listing = proxy.listing();
    assert!(listing.contains("counter packets 1 bytes 60 comment \"default/web:80\""), "{listing}");
    loads_again(&lab);
}

#[test]
fn the_program_says_what_it_counts() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        endpoints("web").tcp().on(&lab, &["a"]),
        service("empty").cluster_ip(12).tcp(80),
    ]);
    let flags =
        ["--count-connections=endpoint", "--cluster-cidr", "10.244.0.0/16,fd00:10:244::/56"];
    let program = Program::start_with(&lab, &manifests, &flags);
    let client = lab.from("client");
    for _ in 0..4 {
        client.tcp(at(cluster_ip(10, Family::V4), 80)).endpoint();
    }
    assert_eq!(client.tcp(at(cluster_ip(12, Family::V6), 80)), Outcome::Reset);
    let metrics = program.get(10249, "/metrics");
    for (service, outcome, count) in [("web", "served", 4), ("empty", "refused", 1)] {
        let line = format!(
            "kubeproxy_service_connections_total{{namespace=\"default\",outcome=\"{outcome}\",port=\"80\",protocol=\"TCP\",service=\"{service}\"}} {count}"
        );
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    let list: Value = serde_json::from_str(&said(&lab, &["services", "-o", "json"])).unwrap();
    let counted = |number: usize| {
        let service = &list["services"][number];
        (service["name"].clone(), service["connections"].clone(), service["refused"].clone())
    };
    assert_eq!(counted(0), (json!("empty"), json!(0), json!(1)));
    assert_eq!(counted(1), (json!("web"), json!(4), json!(0)));
    assert!(said(&lab, &["services"]).lines().next().unwrap().ends_with("CONNECTIONS  REFUSED"));
    let answer = program.get(10249, "/api/connections?services=default/web");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    let counted: Value = serde_json::from_str(body).unwrap();
    let endpoint = json!({"address": "10.244.0.11:8080", "connections": 4});
    assert!(counted["ports"][0]["endpoints"].as_array().unwrap().contains(&endpoint), "{counted}");
    let top = said(&lab, &["top", "--once", "--interval", "100ms"]);
    for part in ["2 Services", "default/web", "80/TCP", "CONNECTIONS"] {
        assert!(top.contains(part), "no {part} in {top}");
    }
    let top: Value =
        serde_json::from_str(&said(&lab, &["top", "-o", "json", "--interval", "100ms"])).unwrap();
    let total = |number: usize| (top[number]["name"].clone(), top[number]["total"].clone());
    assert_eq!((total(0), total(1)), ((json!("empty"), json!(1)), (json!("web"), json!(4))));
    // A new process goes on.
    drop(program);
    let program = Program::start_with(&lab, &manifests, &flags);
    let metrics = program.get(10249, "/metrics");
    assert!(metrics.contains("service=\"web\"} 4"), "{metrics}");
    // Who does not say what is counted is told of no difference.
    let folder = manifests.path().to_str().expect("UTF-8");
    let flags = ["--", "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56"];
    let verified = said(&lab, &[&["verify", folder, "--node", "node"][..], &flags].concat());
    assert_eq!(verified, "");
}

/// Also when it is ended from elsewhere, as with a pod or a session.
#[test]
fn top_gives_the_terminal_back() {
    let Some(lab) = lab() else { return };
    let mut program = Program::start(&lab, &Manifests::new(), None);
    let screen = tempfile::NamedTempFile::new().unwrap();
    let seen = || std::fs::read_to_string(screen.path()).unwrap_or_default();
    let (enters, leaves) = ("\x1b[?1049h", "\x1b[?1049l");
    // It gives the command a terminal of its own, and writes down what it shows.
    let top = format!("exec {} top --interval 1h", test_support::proxy::program().display());
    let mut script = lab.node().namespace.run(|| {
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &top]).arg(screen.path());
        command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    });
    program.wait_until(|_| seen().contains(enters));
    let children = format!("/proc/{0}/task/{0}/children", script.id());
    let children = std::fs::read_to_string(children).unwrap();
    let top = Pid::from_raw(children.trim().parse().expect("one child"));
    kill(top, Signal::SIGTERM).unwrap();
    assert!(script.wait().unwrap().success(), "{}", seen());
    assert!(seen().contains(leaves), "{}", seen());
}
