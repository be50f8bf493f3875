//! From upstream's kube-proxy to this one and back, while clients connect.

use super::eventually;
use crate::World;
use crate::proxy::Proxy;
use test_support::cluster::objects::{cluster_ips, service, slice};
use test_support::lab::{Load, Outcome};

/// Each takes over from the other without a lost connection, and leaves nothing of the other behind.
pub fn to_and_fro_loses_nothing(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, proxy, .. } = world;
    let node = lab.node();
    let made = cluster.apply(&service("moved"));
    let endpoints = slice("moved", "moved", &[(lab.v4("a"), "node"), (lab.v4("c"), "remote")]);
    cluster.apply(&endpoints);
    let vip = (cluster_ips(&made)[0], 80);
    eventually(&true, || matches!(lab.from("b").tcp(vip), Outcome::Reached { .. }));
    let tables = || {
        let listed = lab.nft(&["list", "tables"]);
        let mut tables: Vec<String> = listed.lines().map(str::to_owned).collect();
        tables.sort();
        tables
    };
    let target = format!("{}:80", vip.0);
    let client = lab.from("b");
    let mut connection = client.connect(vip);
    let before = connection.ask();
    let (report, upstream) = Load::during(&client, &target, 2, |load| {
        proxy.take().expect("it runs").stop();
        let mut upstream = Proxy::start_upstream(cluster, node, "node");
        upstream.wait_ready(node);
        let both = ["inet", "ip", "ip6"].map(|family| format!("table {family} kube-proxy"));
        eventually(&both.to_vec(), tables);
        eventually(&true, || {
            lab.nft(&["list", "table", "ip", "kube-proxy"]).contains(&vip.0.to_string())
        });
        load.wait_for(50);
        // `kube-proxy --cleanup` would take the other one's rules as well.
        lab.nft(&["delete", "table", "inet", "kube-proxy"]);
        load.wait_for(50);
        upstream
    });
    report.assert_no_loss();
    assert_eq!(tables(), ["table ip kube-proxy", "table ip6 kube-proxy"]);
    let (report, ()) = Load::during(&client, &target, 2, |load| {
        upstream.stop();
        load.wait_for(50);
        let mut started = Proxy::start(cluster, node, "node");
        started.wait_ready(node);
        *proxy = Some(started);
        eventually(&vec!["table inet kube-proxy".to_owned()], tables);
        load.wait_for(50);
    });
    report.assert_no_loss();
    assert_eq!(connection.ask(), before, "an open connection outlives both changes");
    cluster.delete(&made);
    cluster.delete(&endpoints);
}
