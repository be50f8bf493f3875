//! Other tools of a node live on beside a full table: nft of any age lists, loads, deletes and watches what is
//! its own, and lists ours. Newer ones load again what they list.

mod full_table;
mod monitor;
mod nft;

use full_table::FullTable;
use kube_proxy::plan::{Counting, DetectLocal};
use monitor::Monitor;
use nft::Nft;
use std::sync::mpsc;
use test_support::listing::sorted_lines;
use test_support::netns::{in_namespace, skip_without};
use test_support::nft_versions;

/// A table of another program, with something that packets meet and something that is looked up. Once 1.1 has
/// loaded it, older nfts die of it: so no other nft is asked for anything while it is there.
const OTHER: &str = "
table inet other {
	set blocked {
		type ipv4_addr . inet_service
		flags timeout
		elements = { 192.0.2.7 . 80 timeout 1h }
	}

	map ways {
		type inet_service : verdict
		elements = { 22 : accept, 25 : drop }
	}

	chain input {
		type filter hook input priority 0; policy accept;
		ip saddr . tcp dport @blocked drop
		tcp dport vmap @ways
	}
}
";

/// Makes, changes and deletes another table beside ours.
fn works_beside_ours(nft: &Nft) {
    let tables = nft.run("list tables");
    assert!(tables.contains("table inet kube-proxy"), "{tables}");
    nft.load(OTHER);
    nft.run("add rule inet other input udp dport 53 counter accept");
    nft.run("add element inet other ways { 53 : drop }");
    nft.run("delete element inet other blocked { 192.0.2.7 . 80 }");
    let other = nft.run("list table inet other");
    for line in
        ["25 : drop", "53 : drop", "dport @blocked drop", "udp dport 53", "dport vmap @ways"]
    {
        assert!(other.contains(line), "{line} in {other}");
    }
    assert!(!other.contains("192.0.2.7"), "{other}");
    let ruleset = nft.run("list ruleset");
    for line in ["table inet kube-proxy", "table inet other"] {
        assert!(ruleset.contains(line), "{line} in {ruleset}");
    }
    nft.run("delete table inet other");
    assert!(!nft.run("list tables").contains("other"));
}

/// Sees all of ours change.
fn watches_ours(table: &mut FullTable, nft: &Nft) {
    let monitor = Monitor::start(nft);
    nft.load(OTHER);
    nft.run("delete table inet other");
    table.change_everything();
    table.remember_clients();
    let seen = monitor.stop();
    for event in [
        "add table inet other",
        "add element inet other ways",
        "delete table inet other",
        "add table inet kube-proxy",
        "delete table inet kube-proxy",
        "add rule inet kube-proxy",
        "add element inet kube-proxy cluster-endpoints6",
        "delete element inet kube-proxy service-ips4",
    ] {
        assert!(seen.contains(event), "{event} in {seen}");
    }
}

/// What nft lists of our table, without how long elements still live.
fn list(nft: &Nft) -> String {
    nft.run("-s list table inet kube-proxy")
}

/// What nft lists in a namespace where it has loaded a text.
fn loaded(nft: &Nft, text: &str) -> String {
    let (nft, text) = (nft.clone(), text.to_owned());
    let (sender, receiver) = mpsc::channel();
    in_namespace(move || {
        nft.load(&text);
        sender.send(list(&nft)).unwrap();
    });
    receiver.recv().unwrap()
}

fn lives_on(command: &str) {
    let cluster_cidr = DetectLocal::ClusterCidr(
        ["10.244.0.0/16", "fd00:10:244::/56"].map(|cidr| cidr.parse().unwrap()).into(),
    );
    for (detect_local, counting) in [
        (cluster_cidr.clone(), Counting::Off),
        (DetectLocal::InterfaceNamePrefix("cali".into()), Counting::Off),
        (cluster_cidr, Counting::Endpoint),
    ] {
        let nft = Nft::new(command);
        in_namespace(move || {
            let mut table = FullTable::program(detect_local, counting);
            table.remember_clients();
            works_beside_ours(&nft);
            let ours = list(&nft);
            for service in table.services() {
                assert!(ours.contains(&format!("comment \"{service}:")), "{service} in {ours}");
            }
            if !nft.loads_ipv6_affinity() {
                table.end_ipv6_affinity();
            }
            if nft.loads_ours() {
                let ours = list(&nft);
                assert_eq!(sorted_lines(&loaded(&nft, &ours)), sorted_lines(&ours));
            }
            if !nft.watches_concatenated_ranges() {
                table.end_source_ranges();
            }
            if counting == Counting::Off || nft.watches_counters() {
                watches_ours(&mut table, &nft);
            }
        });
    }
}

/// The nft of a Debian release.
fn of_release(release: &str, version: &str) {
    let Some(command) = nft_versions::of_debian(release) else { return };
    assert!(Nft::new(&command).is(version), "{command}");
    lives_on(&command);
}

#[test]
fn the_nft_of_this_machine() {
    if !skip_without("nft") {
        lives_on("nft");
    }
}

#[test]
fn nft_0_9_8() {
    of_release("bullseye", "0.9.8");
}

#[test]
fn nft_1_1_3() {
    of_release("trixie", "1.1.3");
}

/// It becomes newer as time goes by.
#[test]
fn the_newest_nft() {
    of_release("forky", "1.");
}
