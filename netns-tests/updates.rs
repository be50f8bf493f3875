//! Change after change: each takes effect at once, open connections live on, and nobody loses a packet.

use crate::scenario::{at, lab};
use nft_table::Family;
use serde_json::json;
use test_support::lab::{Load, Outcome, assert_even, cluster_ip, external_ip};
use test_support::proxy::{Config, Proxy, endpoints, objects, service};

#[test]
fn scaling_moves_connections_to_whom_there_is() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(service("web").cluster_ip(10).external_ip(7).tcp(80).node_port(30080));
    for pods in
        [&["a"][..], &["a", "b"], &["a", "b", "c"], &["b", "c"], &["c"], &["a", "c"], &["b"]]
    {
        proxy.apply(endpoints("web").tcp().on(&lab, pods));
        for family in Family::BOTH {
            for target in [
                at(cluster_ip(10, family), 80),
                at(external_ip(7, family), 80),
                at(lab.ip("node", family), 30080),
            ] {
                assert_even(&lab.from("client").spread(target, 40 * pods.len()), pods);
            }
        }
    }
}

#[test]
fn open_connections_outlive_every_change() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let web = || service("web").cluster_ip(10).external_ip(7);
    proxy.apply(objects![
        web().tcp(80).node_port(30080),
        endpoints("web").tcp().on(&lab, &["a", "b", "c"]),
    ]);
    let mut connections = Vec::new();
    for family in Family::BOTH {
        for target in [
            at(cluster_ip(10, family), 80),
            at(external_ip(7, family), 80),
            at(lab.ip("node", family), 30080),
        ] {
            for host in ["a", "node", "client"] {
                let mut connection = lab.from(host).connect(target);
                let answer = connection.ask();
                connections.push((connection, answer));
            }
        }
    }
    let mut live_on = |what: &str| {
        for (connection, answer) in &mut connections {
            assert_eq!(connection.ask(), *answer, "{what}");
        }
    };
    proxy.apply(endpoints("web").tcp().on(&lab, &["c"]));
    live_on("fewer endpoints");
    proxy.apply(service("web").cluster_ip(10).tcp(80));
    live_on("external IP and NodePort gone");
    proxy.apply(endpoints("web").tcp());
    live_on("no endpoints");
    proxy.delete(endpoints("web"));
    proxy.delete(service("web"));
    live_on("no Service");
    proxy.apply(service("web").cluster_ip(10).tcp(81));
    live_on("another port");
}

#[test]
fn a_vip_moves_from_one_service_to_another() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service("one").cluster_ip(10).external_ip(7).tcp(80),
        endpoints("one").tcp().on(&lab, &["b"]),
        service("two").cluster_ip(11).tcp(80),
        endpoints("two").tcp().on(&lab, &["c"]),
    ]);
    let vip = at(external_ip(7, Family::V6), 80);
    assert_eq!(lab.from("client").tcp(vip).endpoint(), "b");
    proxy.apply(objects![
        service("one").cluster_ip(10).tcp(80),
        service("two").cluster_ip(11).external_ip(7).tcp(80),
    ]);
    assert_eq!(lab.from("client").tcp(vip).endpoint(), "c");
    // And the ClusterIPs change places.
    proxy.apply(objects![
        service("one").cluster_ip(11).tcp(80),
        service("two").cluster_ip(10).tcp(80),
    ]);
    let from_a = |number| lab.from("a").tcp(at(cluster_ip(number, Family::V4), 80));
    assert_eq!((from_a(10).endpoint(), from_a(11).endpoint()), ("c", "b"));
    assert_eq!(lab.from("a").tcp(at(vip.ip(), 80)), Outcome::Untouched { source: lab.v6("a") });
}

#[test]
fn nothing_is_lost_while_endpoints_change() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service("web").cluster_ip(10).tcp(80).node_port(30080),
        endpoints("web").tcp().on(&lab, &["a", "b", "c"]),
    ]);
    for target in ["192.0.2.1:30080", "[fd00:10:96::a]:80"] {
        let (report, ()) = Load::during(&lab.from("client"), target, 3, |load| {
            for pods in [&["a", "b"][..], &["b", "c"], &["c"], &["a"], &["a", "b", "c"]].repeat(6) {
                proxy.apply(endpoints("web").tcp().on(&lab, pods));
                load.wait_for(10);
            }
        });
        report.assert_no_loss();
        assert_eq!(report.endpoints.len(), 3, "{report:?}");
    }
}

#[test]
fn nothing_is_lost_while_other_services_come_and_go() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        endpoints("web").tcp().on(&lab, &["b", "c"]),
    ]);
    let (report, ()) = Load::during(&lab.from("client"), "10.96.0.10:80", 3, |load| {
        for _ in 0..5 {
            let others: Vec<_> = (20..40)
                .flat_map(|number| {
                    let name = format!("other-{number}");
                    objects![
                        service(&name).cluster_ip(number).external_ip(number).tcp(80),
                        endpoints(&name).tcp().on(&lab, &["a", "b", "c"]),
                    ]
                })
                .collect();
            proxy.apply(others.clone());
            load.wait_for(10);
            proxy.delete(others);
            load.wait_for(10);
        }
    });
    report.assert_no_loss();
}

/// A Service with so many endpoints that the first maps of slots are full; nobody ever asks for it.
fn full() -> Vec<serde_json::Value> {
    let slice = |number: u32| {
        let endpoint = |index| {
            let address = std::net::Ipv4Addr::from(0x0a80_0000 + number * 1000 + index);
            json!({ "addresses": [address] })
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default",
                "name": format!("full-{number}"),
                "labels": { "kubernetes.io/service-name": "full" },
            },
            "addressType": "IPv4",
            "ports": [{ "port": 8080 }],
            "endpoints": (0..1000).map(endpoint).collect::<Vec<_>>(),
        })
    };
    let service = service("full").only(Family::V4).cluster_ip(40).tcp(80);
    service.into_iter().chain((0..9).map(slice)).collect()
}

#[test]
fn a_full_map_of_slots_is_followed_by_another() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(full());
    let web = || {
        let web = service("web").cluster_ip(10).external_ip(7).tcp(80).node_port(30080);
        web.spec("externalTrafficPolicy", "Local".into())
    };
    proxy.apply(web());
    for pods in [&["a"][..], &["a", "b"], &["b"]] {
        proxy.apply(endpoints("web").tcp().on(&lab, pods));
        for family in Family::BOTH {
            for target in [
                at(cluster_ip(10, family), 80),
                at(external_ip(7, family), 80),
                at(lab.ip("node", family), 30080),
            ] {
                assert_even(&lab.from("client").spread(target, 40 * pods.len()), pods);
            }
        }
        assert!(proxy.listing().contains("\tchain external-nodeport-local4.2-"));
        assert_eq!(proxy.written_by_a_new_one(Config::default()), 0, "a restart moves nothing");
    }
    // It stays where it is, as long as it is.
    proxy.delete(full());
    proxy.tidy();
    proxy.apply(endpoints("web").tcp().on(&lab, &["a"]));
    let vip = at(cluster_ip(10, Family::V4), 80);
    assert_eq!(lab.from("a").tcp(vip).endpoint(), "a");
    proxy.delete(objects![web(), endpoints("web")]);
    proxy.tidy();
    assert!(!proxy.listing().contains("endpoints4"), "{}", proxy.listing());
}
