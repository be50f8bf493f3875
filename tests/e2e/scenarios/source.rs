//! The API source alone, against the real server.

use crate::World;
use kube_proxy::api::{ConnectionOptions, Notice, Observer, Options, Sink, accept, connect, watch};
use kube_proxy::intake;
use serde_json::json;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use test_support::cluster::objects::{node, service, slice};

/// Everything up to `Complete`, in a fixed order.
fn listed(notices: &Receiver<Notice>) -> Vec<String> {
    let mut changes = Vec::new();
    let mut collect = |notice: Notice| match notice {
        Notice::Changes(more) => {
            changes.extend(more.into_iter().map(|change| format!("{change:?}")))
        }
        Notice::Complete => {}
    };
    loop {
        let notice = notices.recv_timeout(test_support::cluster::PATIENCE).expect("the lists come");
        let complete = notice == Notice::Complete;
        collect(notice);
        if complete {
            break;
        }
    }
    changes.sort();
    changes
}

/// Of objects with every field that counts nothing is lost, and they are the same in either encoding.
pub fn objects_are_read_whole(world: &mut World) {
    let name = "whole";
    let mut full = service(name);
    full["spec"] = json!({
        "type": "LoadBalancer", "ipFamilyPolicy": "RequireDualStack",
        "externalIPs": ["203.0.113.9", "2001:db8:203::9"],
        "ports": [
            {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "sig", "port": 5000, "protocol": "SCTP"},
        ],
        "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 77}},
        "loadBalancerSourceRanges": ["198.51.100.0/24", "2001:db8:100::/64"],
    });
    full["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.10", "ipMode": "VIP"}, {"ip": "203.0.113.11", "ipMode": "Proxy"},
    ]}});
    let mut hinted = slice(name, name, &[("10.244.0.11", "node"), ("10.244.1.11", "remote")]);
    hinted["metadata"]["annotations"] =
        json!({"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-02T03:04:05Z"});
    hinted["ports"] =
        json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    hinted["endpoints"][0]["hints"] =
        json!({"forZones": [{"name": "zone-a"}], "forNodes": [{"name": "node"}]});
    hinted["endpoints"][1]["conditions"] =
        json!({"ready": false, "serving": true, "terminating": true});
    let mut tainted = node("whole", &["192.0.2.9".parse().expect("an address")], &["10.9.0.0/24"]);
    tainted["spec"]["taints"] =
        json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
    for object in [&full, &hinted, &tainted] {
        world.cluster.apply(object);
    }

    let list = read(world, "application/vnd.kubernetes.protobuf");
    assert_eq!(list, read(world, "application/json"));
    for part in
        ["10.96.0.1", "77s", "Sctp", "ToBeDeletedByClusterAutoscaler", "zone-a", "1767323045"]
    {
        let found = list.iter().any(|line| line.contains(part));
        assert!(found, "{part} is not in {list:#?}");
    }
    for object in [&full, &hinted, &tainted] {
        world.cluster.delete(object);
    }
}

/// What the source makes of what the server sends in this encoding.
fn read(world: &World, accepted: &str) -> Vec<String> {
    let (sender, notices) = channel();
    let sink: Sink = Arc::new(move |notice| drop(sender.send(notice)));
    let options = ConnectionOptions {
        kubeconfig: Some(world.cluster.directory().join("admin.kubeconfig")),
        ..ConnectionOptions::default()
    };
    let watched = Options {
        node_name: "whole".to_owned(),
        wait_for_node: std::time::Duration::from_secs(30),
        accept: accept(accepted, ""),
        intake: intake::Options::default(),
    };
    world.lab.node().namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let calls: Observer = Arc::new(|_| {});
            let client = connect(options, calls).await.expect("a kubeconfig");
            let _tasks = watch(&client, &watched, sink);
            tokio::task::spawn_blocking(move || listed(&notices)).await.expect("no panic")
        })
    })
}
