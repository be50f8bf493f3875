//! `docs/debugging.md`: what it shows is what the commands say. `UPDATE_DOCS=1 cargo test --test netns debugging` writes
//! the blocks anew.
//!
//! A block is known by the line before it, `<!-- NAME -->`, and begins with the command that it is the output of.

use crate::scenario::{at, lab};
use nft_table::Family;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use test_support::lab::{Lab, Outcome, cluster_ip};
use test_support::proxy::{
    Endpoints, Manifests, Program, Service, endpoints, node, objects, program, service,
};

const CLUSTER: [&str; 2] = ["--cluster-cidr", "10.244.0.0/16"];

/// A Service of IPv4 alone, to keep the page short.
fn shop(name: &str) -> Service {
    service(name).only(Family::V4).cluster_ip(10).tcp(80)
}

fn pods(name: &str) -> Endpoints {
    endpoints(name).only(Family::V4).tcp()
}

/// What is there for a question, and the command that answers it.
struct Scenario {
    name: &'static str,
    objects: fn(&Lab) -> Vec<Value>,
    command: &'static [&'static str],
    /// What happens between the start of the proxy and the command.
    then: fn(&Lab, &Manifests),
}

const NOTHING: fn(&Lab, &Manifests) = |_, _| {};

const SCENARIOS: [Scenario; 12] = [
    Scenario {
        name: "nothing is ready",
        objects: |lab| {
            let not_ready = json!({"conditions": {"ready": false}});
            objects![shop("cart"), pods("cart").with(lab, &["a", "c"], not_ready)]
        },
        command: &["services", "--problems"],
        then: NOTHING,
    },
    Scenario {
        name: "zone hints",
        objects: |lab| {
            let hint = |zone: &str| json!({"hints": {"forZones": [{"name": zone}]}});
            let cart = pods("cart").with(lab, &["a"], hint("here"));
            objects![node(), shop("cart"), cart.with(lab, &["c"], hint("there"))]
        },
        command: &["explain", "default/cart", "--from", "10.244.0.12"],
        then: NOTHING,
    },
    Scenario {
        name: "source ranges",
        objects: |lab| {
            let ranges = json!(["198.51.100.64/26"]);
            let cart = shop("cart").load_balancer(50, None).node_port(30080);
            objects![
                node(),
                cart.spec("loadBalancerSourceRanges", ranges),
                pods("cart").on(lab, &["a"])
            ]
        },
        command: &["explain", "203.0.113.50:80", "--from", "198.51.100.11"],
        then: NOTHING,
    },
    Scenario {
        name: "external policy Local",
        objects: |lab| {
            let cart = shop("cart").node_port(30080).spec("externalTrafficPolicy", json!("Local"));
            objects![node(), cart, pods("cart").on(lab, &["c"])]
        },
        command: &["explain", "192.0.2.1:30080"],
        then: NOTHING,
    },
    Scenario {
        name: "another port",
        objects: |lab| objects![node(), shop("cart"), pods("cart").on(lab, &["a"])],
        command: &["explain", "10.96.0.10:8080"],
        then: NOTHING,
    },
    Scenario {
        name: "the name of a port",
        objects: |lab| {
            let cart = endpoints("cart").only(Family::V4).port("web", "TCP", 8080);
            objects![
                node(),
                service("cart").only(Family::V4).cluster_ip(10).tcp(80).named("http"),
                cart.on(lab, &["a"])
            ]
        },
        command: &["explain", "default/cart", "--from", "10.244.0.12"],
        then: NOTHING,
    },
    Scenario {
        name: "limits",
        objects: |lab| {
            let cart = shop("cart").annotation("nft.kube-proxy/limits", "open=1");
            objects![node(), cart, pods("cart").on(lab, &["c"])]
        },
        command: &["explain", "10.96.0.10:80", "--from", "198.51.100.11"],
        then: |lab, _| {
            let target = at(cluster_ip(10, Family::V4), 80);
            let _open = lab.from("client").connect(target);
            (0..3).for_each(|_| assert_eq!(lab.from("client").tcp(target), Outcome::Reset));
        },
    },
    Scenario {
        name: "session affinity",
        objects: |lab| {
            let cart = shop("cart").spec("sessionAffinity", json!("ClientIP"));
            objects![node(), cart, pods("cart").on(lab, &["c"])]
        },
        command: &["explain", "10.96.0.10:80", "--from", "10.244.0.11"],
        then: |lab, _| drop(lab.from("a").tcp(at(cluster_ip(10, Family::V4), 80))),
    },
    Scenario {
        name: "whose address",
        objects: |lab| {
            objects![node(), shop("cart").node_port(30080), pods("cart").on(lab, &["a"])]
        },
        command: &["explain", "192.0.2.1:30080", "--from", "198.51.100.11"],
        then: NOTHING,
    },
    Scenario {
        name: "an address of two",
        objects: |lab| {
            let older = shop("cart").external_ip(1).created("2025-03-01T00:00:00Z");
            let younger = service("other").only(Family::V4).cluster_ip(11).external_ip(1).tcp(80);
            objects![
                node(),
                older,
                pods("cart").on(lab, &["a"]),
                younger.created("2026-01-01T00:00:00Z"),
                pods("other").on(lab, &["c"])
            ]
        },
        command: &["explain", "203.0.113.1:80", "--from", "198.51.100.11"],
        then: NOTHING,
    },
    Scenario {
        name: "old connections",
        objects: |lab| objects![node(), shop("cart"), pods("cart").on(lab, &["c"])],
        command: &["explain", "10.96.0.10:80", "--from", "10.244.0.11"],
        then: |lab, manifests| {
            let target = at(cluster_ip(10, Family::V4), 80);
            assert_eq!(lab.from("a").tcp(target).endpoint(), "c");
            manifests.apply(pods("cart").on(lab, &["b"]));
        },
    },
    Scenario {
        name: "verify",
        objects: |lab| objects![node(), shop("cart"), pods("cart").on(lab, &["a"])],
        command: &["verify", "MANIFESTS", "--node", "node", "--", "--cluster-cidr=10.244.0.0/16"],
        then: NOTHING,
    },
];

#[test]
fn the_page_shows_what_the_commands_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/debugging.md");
    let mut page = fs::read_to_string(&path).expect("the page");
    for scenario in &SCENARIOS {
        let Some(lab) = lab() else { return };
        let shown = show(&lab, scenario);
        let marker = format!("<!-- {} -->\n```\n", scenario.name);
        let start = page.find(&marker).unwrap_or_else(|| panic!("no block {:?}", scenario.name));
        let start = start + marker.len();
        let end = start + page[start..].find("```").expect("the end of the block");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            page.replace_range(start..end, &shown);
            fs::write(&path, &page).expect("write the page");
        }
        let there = &page[start..start + page[start..].find("```").expect("the end of the block")];
        assert_eq!(there, shown, "{}: see UPDATE_DOCS in {}", scenario.name, file!());
    }
}

/// The command and what it says, with nothing in it that differs from run to run.
fn show(lab: &Lab, scenario: &Scenario) -> String {
    let manifests = Manifests::new();
    manifests.apply((scenario.objects)(lab));
    let is_verify = scenario.command[0] == "verify";
    let mut running = Program::start_with(lab, &manifests, &CLUSTER);
    (scenario.then)(lab, &manifests);
    if is_verify {
        // Something else has a way with the table while nobody looks.
        running.signal(nix::sys::signal::Signal::SIGKILL);
        running.wait(std::time::Duration::from_secs(10));
        let element = "{ 10.96.0.10 . tcp . 80 . 0 : 10.244.0.11 . 8080 }";
        lab.nft(&["delete", "element", "inet", "kube-proxy", "cluster-endpoints4", element]);
    }
    let directory = manifests.path().to_str().expect("UTF-8");
    let arguments =
        scenario.command.iter().map(|word| if *word == "MANIFESTS" { directory } else { *word });
    let mut said = String::new();
    let run = || {
        lab.node().namespace.run(|| {
            let output = Command::new(program()).args(arguments.clone()).output();
            output.expect("run kube-proxy")
        })
    };
    // A change comes a moment later.
    let is_waited_for = |said: &str| {
        scenario.name != "old connections" || said.contains("which is no endpoint in use")
    };
    running_until(
        &mut said,
        || {
            let output = run();
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr)
        },
        is_waited_for,
    );
    let words: Vec<&str> = scenario
        .command
        .iter()
        .map(|word| if *word == "MANIFESTS" { "manifests/" } else { *word })
        .collect();
    let shown = format!("$ kube-proxy {}\n{said}", words.join(" "));
    // How long it is remembered still depends on when it is asked.
    let mut parts = shown.splitn(2, "for another 2h 59m ");
    match (parts.next(), parts.next().and_then(|rest| rest.split_once('s'))) {
        (Some(before), Some((_, behind))) => format!("{before}for another 3h{behind}"),
        _ => shown,
    }
}

fn running_until(said: &mut String, say: impl Fn() -> String, is_it: impl Fn(&str) -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        *said = say();
        if is_it(said) {
            return;
        }
        assert!(std::time::Instant::now() < end, "never as expected:\n{said}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
