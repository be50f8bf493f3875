//! What operators see: `nft list table` works, names every Service, and what it prints loads again, with the
//! installed nft and with newer ones.

use crate::scenario::{assert_same, at, everything, for_everything, lab};
use kube_proxy::metrics::kernel::Rebuild;
use kube_proxy::plan::DetectLocal;
use nft_table::Family;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use test_support::lab::{Lab, Namespace, cluster_ip, external_ip};
use test_support::nft_versions;
use test_support::proxy::{Config, Proxy, endpoints, node, objects, service, service_cidr};

/// A bit of everything.
fn cluster(lab: &Lab) -> Vec<Value> {
    objects![
        node(),
        service_cidr("kubernetes", &["10.96.0.0/16", "fd00:10:96::/112"]),
        service("web").cluster_ip(10).external_ip(7).tcp(80).node_port(30080),
        endpoints("web").tcp().on(lab, &["a", "b", "c"]),
        everything("shop/cart").cluster_ip(11).load_balancer(8, None),
        for_everything("shop/cart").on(lab, &["b", "c"]),
        everything("idle").cluster_ip(12).external_ip(9),
    ]
}

/// Others may write to the table: a listing of an owned one is owned by the nft that loads it, and goes with it.
fn shared() -> Config {
    Config { own_table: false, ..Config::default() }
}

/// The commands to try: the installed one, and newer ones.
fn commands() -> Vec<String> {
    let newer = ["trixie", "forky"].into_iter().filter_map(nft_versions::of_debian);
    std::iter::once("nft".to_owned()).chain(newer).collect()
}

/// Runs nft in a namespace with some standard input.
fn nft(namespace: &Namespace, command: &str, arguments: &[&str], input: &str) -> String {
    namespace.run(|| {
        let mut child = Command::new(command)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start nft");
        let mut stdin = child.stdin.take().expect("piped");
        // nft may fail before it has read all; its message says why.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("wait");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?} {arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    })
}

/// What each nft lists, it can load, and lists again alike.
pub fn loads_again(lab: &Lab) {
    for command in commands() {
        let list = ["list", "table", "inet", "kube-proxy"];
        let listing = nft(&lab.node().namespace, &command, &list, "");
        let elsewhere = Namespace::new().expect("a namespace");
        nft(&elsewhere, &command, &["-f", "-"], &listing);
        let again = nft(&elsewhere, &command, &list, "");
        assert_same(&without_clients(&listing), &without_clients(&again));
    }
}

/// Without elements that packets have added, which may expire between one listing and the next, and without how many
/// of them there are, which newer versions note behind a size.
fn without_clients(listing: &str) -> String {
    let is_client = |line: &&str| line.contains(" timeout ") && !line.contains("update @");
    let lines = listing.lines().filter(|line| !is_client(line));
    lines
        .map(|line| line.split("\t# count ").next().unwrap_or_default().to_owned() + "\n")
        .collect()
}

#[test]
fn it_names_every_service_and_loads_again() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, shared());
    proxy.apply(cluster(&lab));
    let listing = proxy.listing();
    for comment in ["default/web", "shop/cart:udp", "shop/cart:sctp", "default/idle:tcp"] {
        assert!(listing.contains(&format!("comment \"{comment}")), "{comment} in {listing}");
    }
    loads_again(&lab);
}

#[test]
fn it_loads_again_with_every_detector_and_before_any_service() {
    let Some(lab) = lab() else { return };
    for detect_local in [
        DetectLocal::NodeCidr,
        DetectLocal::ClusterCidr(Vec::new()),
        DetectLocal::BridgeInterface("cni0".into()),
        DetectLocal::InterfaceNamePrefix("cali".into()),
    ] {
        let config = Config { detect_local, nodeport_addresses: None, ..shared() };
        let mut proxy = Proxy::new(&lab, config);
        proxy.commit();
        loads_again(&lab);
    }
}

#[test]
fn a_table_loaded_from_its_listing_serves_and_is_replaced() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, shared());
    proxy.apply(cluster(&lab));
    let listing = proxy.listing();
    lab.nft(&["delete table inet kube-proxy"]);
    nft(&lab.node().namespace, "nft", &["-f", "-"], &listing);
    let serves = || {
        for family in Family::BOTH {
            let counts = lab.from("client").spread(at(cluster_ip(10, family), 80), 60);
            assert_eq!(counts.len(), 3, "{counts:?}");
            assert!(lab.from("a").sctp(at(external_ip(8, family), 80)).endpoint() != "a");
        }
    };
    serves();
    // nft gives slot numbers a type that nft up to 1.0.2 does not survive, as our first releases did.
    let mut proxy = proxy.restart(Config::default());
    let committed = proxy.commit();
    assert_eq!(committed.rebuilt, Some(Rebuild::Layout));
    serves();
    assert_same(&listing, &proxy.listing());
    assert_eq!(proxy.restart(Config::default()).commit().operations, 0);
}
