//! What the proxy tells of itself: metrics and Events.

use super::eventually;
use crate::World;
use crate::proxy::metrics;
use nft_table::Family;
use serde_json::json;
use std::net::TcpListener;
use std::process::Command;
use test_support::cluster::Cluster;
use test_support::cluster::objects::{cluster_ips, service, slice};
use test_support::lab::Outcome;

/// The value of a metric, by its name and labels as the page has them.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// How long a change took is measured from the trigger time of its slice, and no request was refused.
pub fn metrics_count_what_happens(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, .. } = world;
    let count = "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"}";
    let before = value(&metrics(lab.node()), count).expect(count);
    let made = cluster.apply(&service("measured"));
    let mut endpoints = slice("measured", "measured", &[(lab.v4("a"), "node")]);
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    endpoints["metadata"]["annotations"] =
        json!({"endpoints.kubernetes.io/last-change-trigger-time": now});
    cluster.apply(&endpoints);
    eventually(&Some(before + 1.0), || value(&metrics(lab.node()), count));
    let page = metrics(lab.node());
    assert!(page.contains("rest_client_requests_total{code=\"200\""), "{page}");
    let refused = page.lines().find(|line| {
        line.starts_with("rest_client_requests_total") && line.contains("code=\"403\"")
    });
    assert_eq!(refused, None);
    cluster.delete(&made);
    cluster.delete(&endpoints);
}

/// A health check port that somebody else has is told in an Event about the Service.
pub fn events_tell_of_a_taken_port(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, .. } = world;
    let taken = lab.node().namespace.run(|| TcpListener::bind("0.0.0.0:30999").expect("bind"));
    let mut object = service("checked");
    object["spec"]["type"] = json!("LoadBalancer");
    object["spec"]["externalTrafficPolicy"] = json!("Local");
    object["spec"]["healthCheckNodePort"] = json!(30999);
    let made = cluster.apply(&object);
    eventually(&true, || is_warned(cluster, "checked", "FailedToStartServiceHealthcheck"));
    drop(taken);
    cluster.delete(&made);
}

/// Whoever asks for an address that the API server has given to another Service does not get it, and is told.
pub fn events_tell_of_a_taken_address(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, .. } = world;
    let owner = cluster.apply(&service("owner"));
    let vip = cluster_ips(&owner)[0];
    let mut thief = service("thief");
    thief["spec"]["externalIPs"] = json!([vip]);
    let thief = cluster.apply(&thief);
    let slices = [("owner", "a"), ("thief", "c")]
        .map(|(name, pod)| cluster.apply(&slice(name, name, &[(lab.v4(pod), "node")])));
    eventually(&true, || is_warned(cluster, "thief", "FrontendTaken"));
    let reached = Outcome::reached("a", lab.v4("b"));
    eventually(&reached, || lab.from("b").tcp((vip, 80)));
    slices.iter().chain([&owner, &thief]).for_each(|object| cluster.delete(object));
}

/// Whether there is an Event of this reason about a Service.
fn is_warned(cluster: &Cluster, service: &str, reason: &str) -> bool {
    let events = cluster.get("/apis/events.k8s.io/v1/namespaces/default/events");
    events["items"].as_array().expect("items").iter().any(|event| {
        event["reason"] == reason
            && event["regarding"]["name"] == service
            && event["type"] == "Warning"
    })
}

/// `kube-proxy verify` finds nothing while the proxy runs, and what it would change when it has been away.
pub fn the_kernel_is_verified(world: &mut World) {
    world.need_proxy();
    let config = world.proxy.as_ref().expect("it runs").config();
    let verify = |world: &World| {
        let output = world.lab.node().namespace.run(|| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_kube-proxy"));
            command.arg("verify").arg("--config").arg(&config).args(["--node", "node"]);
            command.output().expect("run kube-proxy")
        });
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said.into_owned())
    };
    let nothing = (Some(0), String::new());
    eventually(&nothing, || verify(world));
    world.proxy.take().expect("it runs").stop();
    let made = world.cluster.apply(&service("late"));
    world.cluster.apply(&slice("late-4", "late", &[(world.lab.ip("b", Family::V4), "node")]));
    let (code, said) = verify(world);
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("delete "), "nothing is too much there: {said}");
    assert!(said.contains("comment \"default/late:80\""), "{said}");
    world.need_proxy();
    eventually(&nothing, || verify(world));
    world.cluster.delete(&slice::<&str>("late-4", "late", &[]));
    world.cluster.delete(&made);
}
