//! Services and slices through the API, connections through the kernel.

use super::eventually;
use crate::World;
use crate::proxy::{Proxy, status};
use nft_table::Family;
use serde_json::json;
use test_support::cluster::objects::{cluster_ips, service, slice};
use test_support::lab::{Load, Outcome};

/// Also: the API server is reachable at its own Service's address, and people are told of the start.
pub fn runs_with_what_is_granted(world: &mut World) {
    world.need_proxy();
    world.lab.from("a").connect("10.96.0.1:443");
    world.lab.from("node").connect("10.96.0.1:443");
    eventually(&true, || {
        let events = world.cluster.get("/apis/events.k8s.io/v1/namespaces/default/events");
        let events = events["items"].as_array().expect("items");
        events.iter().any(|event| {
            event["reason"] == "Starting" && event["reportingController"] == "kube-proxy"
        })
    });
    let (code, body) = status(world.lab.node(), "/livez");
    assert_eq!(code, 200, "{body}");
}

pub fn come_scale_and_go(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, .. } = world;
    let made = cluster.apply(&service("web"));
    let ips = cluster_ips(&made);
    for (family, ip) in Family::BOTH.into_iter().zip(ips) {
        let name = format!("web-{}", family.to_string().to_lowercase());
        let vip = (ip, 80);
        let scale = |pods: &[&str]| {
            let node = |pod: &str| if pod == "c" { "remote" } else { "node" };
            let endpoints: Vec<_> =
                pods.iter().map(|pod| (lab.ip(pod, family), node(pod))).collect();
            cluster.apply(&slice(&name, "web", &endpoints));
        };
        eventually(&Outcome::Reset, || lab.from("a").tcp(vip));
        scale(&["b"]);
        eventually(&Outcome::reached("b", lab.ip("a", family)), || lab.from("a").tcp(vip));
        // From the node itself: masqueraded.
        assert_eq!(lab.from("node").tcp(vip), Outcome::reached("b", lab.ip("node", family)));
        scale(&["a", "b", "c"]);
        eventually(&3, || lab.from("b").spread(vip, 30).len());
        scale(&["c"]);
        // One answer of c may be chance while the others still serve.
        eventually(&1, || lab.from("a").spread(vip, 20).len());
        assert_eq!(lab.from("a").tcp(vip), Outcome::reached("c", lab.ip("a", family)));
        cluster.delete(&slice::<&str>(&name, "web", &[]));
        eventually(&Outcome::Reset, || lab.from("a").tcp(vip));
    }
    let vip = (cluster_ips(&made)[0], 80);
    cluster.delete(&made);
    // Now an address of the Service range that nobody has: dropped.
    eventually(&Outcome::TimedOut, || lab.from("a").tcp(vip));
}

pub fn node_ports_answer_outside(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, .. } = world;
    let mut object = service("open");
    object["spec"]["type"] = json!("NodePort");
    object["spec"]["ports"][0]["nodePort"] = json!(30080);
    cluster.apply(&object);
    let endpoints = slice("open", "open", &[(lab.v4("c"), "remote")]);
    cluster.apply(&endpoints);
    let target = (lab.v4("node"), 30080);
    let reached = Outcome::reached("c", lab.v4("node"));
    eventually(&reached, || lab.from("client").tcp(target));
    object["spec"]["externalTrafficPolicy"] = json!("Local");
    cluster.apply(&object);
    eventually(&Outcome::TimedOut, || lab.from("client").tcp(target));
    cluster.apply(&slice("open", "open", &[(lab.v4("c"), "remote"), (lab.v4("a"), "node")]));
    eventually(&Outcome::reached("a", lab.v4("client")), || lab.from("client").tcp(target));
    cluster.delete(&object);
    cluster.delete(&endpoints);
    eventually(&Outcome::Reset, || lab.from("client").tcp(target));
}

pub fn a_restart_loses_nothing(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, proxy, .. } = world;
    let made = cluster.apply(&service("steady"));
    let endpoints = slice("steady", "steady", &[(lab.v4("a"), "node"), (lab.v4("c"), "remote")]);
    cluster.apply(&endpoints);
    let vip = (cluster_ips(&made)[0], 80);
    eventually(&2, || match lab.from("b").tcp(vip) {
        Outcome::Reached { .. } => lab.from("b").spread(vip, 30).len(),
        _ => 0,
    });
    let target = format!("{}:80", vip.0);
    let before = lab.nft(&["list", "table", "inet", "kube-proxy"]);
    let (report, ()) = Load::during(&lab.from("b"), &target, 2, |load| {
        proxy.take().expect("it runs").stop();
        load.wait_for(50);
        let mut started = Proxy::start(cluster, lab.node(), "node");
        started.wait_ready(lab.node());
        *proxy = Some(started);
        load.wait_for(50);
    });
    report.assert_no_loss();
    assert_eq!(lab.nft(&["list", "table", "inet", "kube-proxy"]), before);
    cluster.delete(&made);
    cluster.delete(&endpoints);
}

/// Names of pods are read when a Service comes to ask for them, and are there before the first commit of the next run.
pub fn weights_are_by_pod(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, .. } = world;
    let mut weighted = service("weighted");
    let made = cluster.apply(&weighted);
    let vip = (cluster_ips(&made)[0], 80);
    let mut pods = slice("weighted", "weighted", &[(lab.v4("b"), "node"), (lab.v4("c"), "remote")]);
    pods["endpoints"][0]["targetRef"] = json!({"kind": "Pod", "name": "weighted-b"});
    pods["endpoints"][1]["targetRef"] = json!({"kind": "Pod", "name": "weighted-c"});
    cluster.apply(&pods);
    eventually(&2, || match lab.from("a").tcp(vip) {
        Outcome::Reached { .. } => lab.from("a").spread(vip, 20).len(),
        _ => 0,
    });
    weighted["metadata"]["annotations"] = json!({
        "nft.kube-proxy/weights": "weighted-b=1, *=0", "nft.kube-proxy/balancing": "round-robin",
    });
    cluster.apply(&weighted);
    let reached = Outcome::reached("b", lab.v4("a"));
    eventually(&true, || (0..20).all(|_| lab.from("a").tcp(vip) == reached));
    let World { lab, cluster, proxy, .. } = world;
    let listing = || lab.nft(&["list", "map", "inet", "kube-proxy", "cluster-endpoints4"]);
    let before = listing();
    let target = format!("{}:80", vip.0);
    let (report, ()) = Load::during(&lab.from("a"), &target, 2, |_| {
        proxy.take().expect("it runs").stop();
        let mut started = Proxy::start(cluster, lab.node(), "node");
        started.wait_ready(lab.node());
        *proxy = Some(started);
    });
    report.assert_no_loss();
    assert_eq!(report.endpoints.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(listing(), before);
    cluster.delete(&pods);
    cluster.delete(&made);
}
