//! A Service that everybody is connecting to comes to use something that it did not, and ceases to.

use super::traffic::{Established, Stream, go_on, under_load};
use super::{HOSTS, ROUNDS, lab, local};
use crate::scenario::{assert_same, at, everything, for_everything};
use kube_proxy::plan::DetectLocal;
use nft_table::Family;
use serde_json::{Value, json};
use test_support::lab::{Lab, cluster_ip, external_ip};
use test_support::proxy::{Config, Proxy, Service, node, objects};

/// Frontends of every kind, with policy Local and session affinity, for which endpoint b alone is chosen.
fn all_kinds() -> Service {
    let ports = everything("steady").tcp(81).named("np").node_port(30080);
    ports.cluster_ip(10).external_ip(7).load_balancer(8, None)
}

/// Who connects to [`all_kinds`] meanwhile.
fn to_all_kinds(lab: &Lab) -> Vec<Stream<'_>> {
    let of = |family| {
        [
            at(cluster_ip(10, family), 80),
            at(external_ip(7, family), 80),
            at(external_ip(8, family), 80),
            at(lab.ip("node", family), 30080),
        ]
    };
    let all = Family::BOTH.map(of).concat();
    HOSTS.map(|host| (lab.from(host), all.clone())).into()
}

/// Changes a Service that is connected to all the time, in steps that leave it able to serve everybody.
fn on_a_served_service(config: Config, steps: &[fn(&Lab) -> Vec<Value>]) {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, config);
    let endpoints =
        |pods: &[&str]| objects![for_everything("steady").port("np", "TCP", 8080).on(&lab, pods)];
    proxy.apply(objects![all_kinds(), endpoints(&["b"]), steps[0](&lab)]);
    let streams = to_all_kinds(&lab);
    let mut established = Established::default();
    for (client, targets) in &streams {
        for target in targets {
            established.connect(client, *target);
        }
    }
    let mut flow = |host, ip| established.flow(&lab.from(host), at(ip, 80));
    flow("a", cluster_ip(10, Family::V4));
    flow("client", external_ip(8, Family::V6));
    proxy.tidy();
    let first = proxy.listing();
    let reports = under_load(&streams, &mut |loads| {
        for round in 0..ROUNDS {
            for step in steps.iter().skip(1).chain(&steps[..1]) {
                proxy.apply(step(&lab));
                // New chains come before what leads to them instead of something else, and what that had goes after.
                let transactions = proxy.transactions();
                assert!((1..=3).contains(&transactions), "round {round}: {transactions}");
                established.live_on();
                go_on(loads);
            }
            if round % 2 == 1 {
                proxy.tidy();
                assert_same(&first, &proxy.listing());
            }
        }
    });
    for (host, report) in HOSTS.iter().zip(&reports) {
        report.assert_no_loss();
        let pods: Vec<&String> = report.endpoints.keys().collect();
        assert_eq!(pods, ["b"], "{host}: {report:?}");
    }
}

#[test]
fn policies() {
    on_a_served_service(
        Config::default(),
        &[
            |_| objects![all_kinds()],
            |_| objects![local("externalTrafficPolicy", all_kinds())],
            |_| objects![local("internalTrafficPolicy", all_kinds())],
        ],
    );
}

#[test]
fn affinity() {
    on_a_served_service(
        Config::default(),
        &[
            |_| objects![all_kinds()],
            |_| objects![all_kinds().spec("sessionAffinity", json!("ClientIP"))],
            |_| {
                let local = local("externalTrafficPolicy", all_kinds());
                objects![local.spec("sessionAffinity", json!("ClientIP"))]
            },
        ],
    );
}

#[test]
fn source_ranges() {
    on_a_served_service(
        Config::default(),
        &[
            |_| objects![all_kinds()],
            |_| {
                let everybody = json!([
                    "198.51.100.0/24",
                    "192.0.2.0/24",
                    "10.244.0.0/16",
                    "2001:db8:100::/64",
                    "2001:db8::/64",
                    "fd00:10:244::/56",
                ]);
                objects![all_kinds().spec("loadBalancerSourceRanges", everybody)]
            },
        ],
    );
}

#[test]
fn pods_become_known() {
    let detect_local = DetectLocal::NodeCidr;
    let nobody = |_: &Lab| {
        let mut node = node();
        node[0]["spec"] = json!({});
        objects![local("externalTrafficPolicy", all_kinds()), node]
    };
    let range = |_: &Lab| node();
    let wider = |_: &Lab| {
        let mut node = node();
        let cidrs = ["10.244.0.0/16", "fd00:10:244::/56"];
        node[0]["spec"] = json!({ "podCIDR": cidrs[0], "podCIDRs": cidrs });
        node
    };
    let config = Config { detect_local, ..Config::default() };
    on_a_served_service(config, &[nobody, range, wider]);
}
