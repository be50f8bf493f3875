//! From upstream's kube-proxy to this one and back, while clients connect.

use super::eventually;
use crate::World;
use crate::proxy::Proxy;
use test_support::cluster::objects::{cluster_ips, service, slice};
use test_support::lab::{Lab, Load, Outcome};

/// How often; `HANDOVERS` may ask for more, since what goes wrong rarely shows only then.
fn rounds() -> usize {
    std::env::var("HANDOVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// From upstream's nftables mode and back.
pub fn nftables_to_and_fro_loses_nothing(world: &mut World) {
    (0..rounds()).for_each(|round| to_and_fro(world, "nftables", round));
}

/// From upstream's iptables mode and back.
pub fn iptables_to_and_fro_loses_nothing(world: &mut World) {
    (0..rounds()).for_each(|round| to_and_fro(world, "iptables", round));
}

/// Whether upstream's rules lead to an address.
fn has_upstream(lab: &Lab, mode: &str, vip: &str) -> bool {
    match mode {
        "iptables" => lab.node().output("iptables-save", &["-t", "nat"]).contains(vip),
        _ => {
            lab.try_nft(&["list", "table", "ip", "kube-proxy"]).is_ok_and(|list| list.contains(vip))
        }
    }
}

/// Whether anything of upstream is left.
fn has_leftovers(lab: &Lab) -> bool {
    let listing = lab.nft(&["list", "ruleset"]);
    // The kubelet's, and what nobody leads to but its hint for other programs.
    let chains = listing.lines().filter_map(|line| line.trim().strip_prefix("chain KUBE-"));
    let mut chains =
        chains.filter(|name| !name.starts_with("KUBELET") && !name.starts_with("FIREWALL"));
    listing.contains("table ip kube-proxy") || chains.next().is_some()
}

/// Each takes over from the other without a lost connection, and leaves nothing of the other behind.
fn to_and_fro(world: &mut World, mode: &str, round: usize) {
    world.need_proxy();
    let World { lab, cluster, proxy, .. } = world;
    let node = lab.node();
    let made = cluster.apply(&service("moved"));
    let endpoints = slice("moved", "moved", &[(lab.v4("a"), "node"), (lab.v4("c"), "remote")]);
    cluster.apply(&endpoints);
    let vip = (cluster_ips(&made)[0], 80);
    eventually(&true, || matches!(lab.from("b").tcp(vip), Outcome::Reached { .. }));
    let target = format!("{}:80", vip.0);
    let client = lab.from("b");
    let mut connection = client.connect(vip);
    let before = connection.ask();
    let (report, upstream) = Load::during(&client, &target, 2, |load| {
        proxy.take().expect("it runs").stop();
        let mut upstream = Proxy::start_upstream(cluster, node, "node", mode);
        upstream.wait_ready(node);
        eventually(&true, || has_upstream(lab, mode, &vip.0.to_string()));
        load.wait_for(50);
        // `kube-proxy --cleanup` would take the other one's rules as well. In two steps, as the README says.
        lab.nft(&["flush", "table", "inet", "kube-proxy"]);
        lab.nft(&["delete", "table", "inet", "kube-proxy"]);
        load.wait_for(50);
        upstream
    });
    println!("  {mode} {round}: {} connections to upstream", report.answered);
    report.assert_no_loss();
    let (report, ()) = Load::during(&client, &target, 2, |load| {
        upstream.stop();
        load.wait_for(50);
        let mut started = Proxy::start(cluster, node, "node");
        started.wait_ready(node);
        *proxy = Some(started);
        eventually(&false, || has_leftovers(lab));
        // For as long as what is tidied up later may take.
        load.wait_for(1500);
    });
    println!("  {mode} {round}: {} connections to ours", report.answered);
    report.assert_no_loss();
    assert_eq!(connection.ask(), before, "an open connection outlives both changes");
    cluster.delete(&made);
    cluster.delete(&endpoints);
}
