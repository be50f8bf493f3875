//! Changes of the Node object, ServiceCIDRs, and a second node.

use super::eventually;
use crate::World;
use crate::proxy::{Proxy, status};
use serde_json::json;
use std::process::Command;
use std::time::Duration;
use test_support::cluster::objects::{cluster_ips, node, service, slice};
use test_support::lab::Outcome;

/// Zone label, addresses and taints of this Node count at once.
pub fn changes_take_effect(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, .. } = world;
    let pod_cidrs = ["10.244.0.0/24", "fd00:10:244::/64"];
    let own = |zone: &str, v4: &str, taints: serde_json::Value| {
        let addresses = [v4.parse().expect("an address"), lab.v6("node")];
        let mut object = node("node", &addresses, &pod_cidrs);
        object["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone);
        object["spec"]["taints"] = taints;
        object
    };
    let mut object = service("zones");
    object["spec"]["type"] = json!("NodePort");
    object["spec"]["ports"][0]["nodePort"] = json!(30081);
    let made = cluster.apply(&object);
    let mut endpoints = slice("zones", "zones", &[(lab.v4("b"), "node"), (lab.v4("c"), "remote")]);
    endpoints["endpoints"][0]["hints"] = json!({"forZones": [{"name": "zone-a"}]});
    endpoints["endpoints"][1]["hints"] = json!({"forZones": [{"name": "zone-b"}]});
    cluster.apply(&endpoints);
    let vip = (cluster_ips(&made)[0], 80);
    for (zone, pod) in [("zone-a", "b"), ("zone-b", "c"), ("zone-a", "b")] {
        cluster.apply(&own(zone, "192.0.2.1", json!([])));
        eventually(&Outcome::reached(pod, lab.v4("a")), || lab.from("a").tcp(vip));
    }

    // NodePorts answer on the Node's primary addresses only.
    lab.node().output("ip", &["address", "add", "192.0.2.101/32", "dev", "eth0"]);
    let other = ("192.0.2.101".parse().expect("an address"), 30081);
    assert_eq!(lab.from("client").tcp(other), Outcome::Reset);
    cluster.apply(&own("zone-a", "192.0.2.101", json!([])));
    eventually(&Outcome::reached("b", lab.v4("node")), || lab.from("client").tcp(other));
    eventually(&Outcome::Reset, || lab.from("client").tcp((lab.v4("node"), 30081)));

    // The autoscaler is about to delete the machine: load balancers are told, kubelet is not.
    let taint = json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
    cluster.apply(&own("zone-a", "192.0.2.1", taint));
    eventually(&503, || status(lab.node(), "/healthz").0);
    assert_eq!(status(lab.node(), "/livez").0, 200);
    cluster.apply(&own("zone-a", "192.0.2.1", json!([])));
    eventually(&200, || status(lab.node(), "/healthz").0);
    eventually(&Outcome::reached("b", lab.v4("node")), || {
        lab.from("client").tcp((lab.v4("node"), 30081))
    });
    cluster.delete(&made);
    cluster.delete(&endpoints);
}

/// Addresses of a new ServiceCIDR that no Service has are dropped instead of leaving the node.
pub fn a_new_service_cidr_is_guarded(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, .. } = world;
    let unused = ("10.97.0.9".parse().expect("an address"), 80);
    assert_eq!(lab.from("a").tcp(unused), Outcome::Untouched { source: lab.v4("a") });
    cluster.apply(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]},
    }));
    eventually(&Outcome::TimedOut, || lab.from("a").tcp(unused));
}

/// A proxy on each of two nodes.
pub fn two_nodes(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, .. } = world;
    let remote = lab.machine("remote");
    let mut second = Proxy::start(cluster, remote, "remote");
    second.wait_ready(remote);
    let mut object = service("pair");
    object["spec"]["type"] = json!("NodePort");
    object["spec"]["externalTrafficPolicy"] = json!("Local");
    object["spec"]["ports"][0]["nodePort"] = json!(30082);
    let made = cluster.apply(&object);
    let vip = (cluster_ips(&made)[0], 80);
    cluster.apply(&slice("pair", "pair", &[(lab.v4("a"), "node")]));
    eventually(&Outcome::reached("a", lab.v4("c")), || lab.from("c").tcp(vip));
    eventually(&Outcome::reached("a", lab.v4("b")), || lab.from("b").tcp(vip));
    let outside = |name: &str| lab.from("client").tcp((lab.v4(name), 30082));
    eventually(&Outcome::reached("a", lab.v4("client")), || outside("node"));
    assert_eq!(outside("remote"), Outcome::TimedOut);
    // The pod moves to the other node.
    cluster.apply(&slice("pair", "pair", &[(lab.v4("c"), "remote")]));
    eventually(&Outcome::reached("c", lab.v4("client")), || outside("remote"));
    eventually(&Outcome::TimedOut, || outside("node"));
    eventually(&Outcome::reached("c", lab.v4("b")), || lab.from("b").tcp(vip));
    second.stop();
    assert_eq!(outside("remote"), Outcome::reached("c", lab.v4("client")), "the rules stay");
    cluster.delete(&made);
    cluster.delete(&slice::<&str>("pair", "pair", &[]));
}

/// A Node whose podCIDRs contradict the configuration: the program says so and ends.
pub fn an_unfit_node_ends_the_program(world: &mut World) {
    world.need_manifests();
    let World { lab, cluster, .. } = world;
    let unfit = node("unfit", &[lab.v4("remote")], &["fd00:10:244:7::/64"]);
    cluster.apply(&unfit);
    let output = lab.machine("remote").namespace.run(|| {
        Command::new("timeout")
            .args(["30", env!("CARGO_BIN_EXE_kube-proxy"), "--hostname-override=unfit"])
            .args(["--detect-local-mode=NodeCIDR", "--conntrack-max-per-core=0"])
            .arg("--kubeconfig")
            .arg(cluster.directory().join("admin.kubeconfig"))
            .output()
            .expect("timeout of coreutils")
    });
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("but its podCIDRs are only IPv6"), "{log}");
    cluster.delete(&unfit);
}

/// A name that no Node has, as of a typing mistake: /healthz is 503, and the log says why, once in a while.
pub fn a_wrong_node_name_is_told(world: &mut World) {
    world.need_manifests();
    let World { lab, cluster, .. } = world;
    let remote = lab.machine("remote");
    let mut proxy = Proxy::start(cluster, remote, "nobody");
    eventually(&503, || status(remote, "/healthz").0);
    eventually(&true, || proxy.process().log().contains("\"nobody\""));
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(status(remote, "/healthz").0, 503);
    let log = proxy.process().log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!((1..=6).contains(&warnings.len()), "{log}");
    proxy.assert_running();
    proxy.stop();
}
