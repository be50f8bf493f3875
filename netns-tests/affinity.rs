//! Session affinity by client address.

use crate::scenario::{PROTOCOLS, at, everything, for_everything, two_clients};
use nft_table::Family;
use serde_json::json;
use std::net::SocketAddr;
use test_support::lab::{Client, Lab, Outcome, cluster_ip, external_ip};
use test_support::proxy::{Config, Proxy, Service, endpoints, objects, service};

fn sticky(service: Service) -> Service {
    service.spec("sessionAffinity", json!("ClientIP"))
}

fn with_timeout(service: Service, seconds: u32) -> Service {
    let config = json!({ "clientIP": { "timeoutSeconds": seconds } });
    sticky(service).spec("sessionAffinityConfig", config)
}

/// The one endpoint that answers again and again.
#[track_caller]
fn stays(client: &Client, target: SocketAddr) -> String {
    let first = client.tcp(target).endpoint().to_owned();
    for _ in 0..15 {
        assert_eq!(client.tcp(target).endpoint(), first, "{target}");
    }
    first
}

/// Endpoints that answer in many tries.
fn distinct(client: &Client, target: SocketAddr) -> usize {
    client.spread(target, 60).len()
}

fn on_all(lab: &Lab, name: &str) -> test_support::proxy::Endpoints {
    endpoints(name).tcp().on(lab, &["a", "b", "c"])
}

#[test]
fn a_client_stays_with_its_endpoint_on_all_frontends() {
    let Some(lab) = two_clients() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let web = service("web").cluster_ip(10).external_ip(7).tcp(80).node_port(30080);
    proxy.apply(objects![sticky(web), on_all(&lab, "web")]);
    for family in Family::BOTH {
        for host in ["client", "stranger", "node", "b"] {
            let client = lab.from(host);
            let endpoint = stays(&client, at(cluster_ip(10, family), 80));
            // The node has another source address where it reaches a VIP by another way; here it has one.
            for target in [at(external_ip(7, family), 80), at(lab.ip("node", family), 30080)] {
                assert_eq!(stays(&client, target), endpoint, "{host} {target}");
            }
        }
    }
    // Without affinity the choice is free again, at once.
    proxy.apply(service("web").cluster_ip(10).external_ip(7).tcp(80).node_port(30080));
    for family in Family::BOTH {
        assert_eq!(distinct(&lab.from("client"), at(cluster_ip(10, family), 80)), 3);
    }
}

#[test]
fn every_protocol_and_every_port_on_its_own() {
    let Some(lab) = two_clients() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        sticky(everything("web").cluster_ip(10)),
        for_everything("web").on(&lab, &["a", "b", "c"]),
    ]);
    for family in Family::BOTH {
        let vip = at(cluster_ip(10, family), 80);
        for (protocol, probe) in PROTOCOLS {
            let client = lab.from("client");
            let first = probe(&client, vip);
            for _ in 0..15 {
                assert_eq!(probe(&client, vip), first, "{protocol} {family}");
            }
        }
    }
}

#[test]
fn an_endpoint_that_goes_frees_its_clients_and_the_others_stay() {
    let Some(lab) = two_clients() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![sticky(service("web").cluster_ip(10).tcp(80)), on_all(&lab, "web"),]);
    for family in Family::BOTH {
        let vip = at(cluster_ip(10, family), 80);
        let endpoint = stays(&lab.from("client"), vip);
        let others: Vec<_> = ["a", "b", "c"].into_iter().filter(|pod| *pod != endpoint).collect();
        proxy.apply(endpoints("web").tcp().on(&lab, &others));
        let other = stays(&lab.from("client"), vip);
        assert_ne!(other, endpoint);
        // It comes back, and the client stays where it is now.
        proxy.apply(on_all(&lab, "web"));
        assert_eq!(stays(&lab.from("client"), vip), other);
        // Somebody else goes, and the client still stays.
        let third: Vec<_> = ["a", "b", "c"].into_iter().filter(|pod| *pod != endpoint).collect();
        proxy.apply(endpoints("web").tcp().on(&lab, &third));
        assert_eq!(stays(&lab.from("client"), vip), other);
        proxy.apply(on_all(&lab, "web"));
    }
}

#[test]
fn it_survives_a_restart_and_ends_with_its_timeout() {
    let Some(lab) = two_clients() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![
        with_timeout(service("web").cluster_ip(10).tcp(80), 3600),
        on_all(&lab, "web"),
    ]);
    let vip = at(cluster_ip(10, Family::V4), 80);
    let endpoint = stays(&lab.from("client"), vip);
    let mut proxy = proxy.restart(Config::default());
    assert_eq!(proxy.commit().operations, 0);
    assert_eq!(stays(&lab.from("client"), vip), endpoint);
    // With a timeout of a second a client that waits is free; how long it waited does not matter here.
    proxy.apply(with_timeout(service("web").cluster_ip(10).tcp(80), 1));
    lab.from("client").tcp(vip);
    let mut moved = false;
    for _ in 0..20 {
        let before = lab.from("client").tcp(vip);
        std::thread::sleep(std::time::Duration::from_millis(1300));
        moved |= lab.from("client").tcp(vip) != before;
        if moved {
            break;
        }
    }
    assert!(moved, "the client was remembered for too long");
}

#[test]
fn a_local_frontend_has_a_memory_of_its_own() {
    let Some(lab) = two_clients() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let web = service("web").cluster_ip(10).external_ip(7).tcp(80);
    proxy.apply(objects![
        sticky(web).spec("externalTrafficPolicy", json!("Local")),
        on_all(&lab, "web"),
    ]);
    for family in Family::BOTH {
        let (vip, local) = (at(cluster_ip(10, family), 80), at(external_ip(7, family), 80));
        // Until the cluster list has remembered the remote endpoint.
        for number in 0..60 {
            let client = lab.from(if number % 2 == 0 { "client" } else { "stranger" });
            if client.tcp(vip).endpoint() == "c" {
                break;
            }
        }
        for host in ["client", "stranger"] {
            let client = lab.from(host);
            let local = stays(&client, local);
            assert_ne!(local, "c", "{host}");
            let cluster = stays(&client, vip);
            // A choice of a local endpoint is remembered in both lists.
            assert!(cluster == "c" || cluster == local, "{host}: {cluster}, {local}");
        }
    }
}

#[test]
fn without_endpoints_it_rejects_like_any_other() {
    let Some(lab) = two_clients() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(sticky(service("web").cluster_ip(10).tcp(80)));
    let vip = at(cluster_ip(10, Family::V4), 80);
    assert_eq!(lab.from("client").tcp(vip), Outcome::Reset);
    proxy.apply(on_all(&lab, "web"));
    stays(&lab.from("client"), vip);
    proxy.apply(endpoints("web").tcp());
    assert_eq!(lab.from("client").tcp(vip), Outcome::Reset);
}
