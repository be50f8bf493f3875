//! Kinds of frontends come into use and go out of use while the program runs: the rules follow in the transaction
//! that brings the elements, and goes with them. Nobody who connects to something else meanwhile notices, and what is
//! connected stays connected.

mod served;
mod traffic;

use crate::scenario::{assert_same, at, everything, for_everything};
use nft_table::Family;
use serde_json::{Value, json};
use std::net::SocketAddr;
use test_support::lab::{Lab, Outcome, cluster_ip, external_ip, has_nft};
use test_support::proxy::{Config, Proxy, Service, objects, service_cidr};
use traffic::{Established, go_on, under_load};

/// How often everything comes and goes.
const ROUNDS: usize = 20;

const HOSTS: [&str; 3] = ["a", "node", "client"];

/// A client, what it connects to, and the endpoints that it may get.
type Served = (&'static str, SocketAddr, &'static [&'static str]);

/// Something that can be in use or not.
struct Kind {
    /// What brings it into use.
    objects: fn(&Lab) -> Vec<Value>,
    /// Sets that rules look into while it is in use and only then, without the digit of the family.
    looks_into: &'static [&'static str],
    /// What else only the listing of a table with it has.
    shows: &'static [&'static str],
    /// Who gets which endpoint by it.
    served: fn(&Lab, Family) -> Vec<Served>,
    /// Who is refused by it.
    refused: fn(Family) -> Vec<(&'static str, SocketAddr)>,
    /// How many transactions bring it into use: one, but that the sources which may connect come before the
    /// restriction to them.
    transactions: u32,
}

/// Nothing in particular.
const KIND: Kind = Kind {
    objects: |_| Vec::new(),
    looks_into: &[],
    shows: &[],
    served: |_, _| Vec::new(),
    refused: |_| Vec::new(),
    transactions: 1,
};

fn lab() -> Option<Lab> {
    if !has_nft() {
        return None;
    }
    Lab::builder().pod("a").pod("b").remote_pod("c").outside("client").build()
}

/// What stays all the time, by ClusterIP alone.
fn steady(lab: &Lab, families: &[Family]) -> Vec<Value> {
    let (mut service, mut endpoints) = (everything("steady"), for_everything("steady"));
    if let [family] = families {
        (service, endpoints) = (service.only(*family), endpoints.only(*family));
    }
    objects![service.cluster_ip(10), endpoints.on(lab, &["b", "c"])]
}

/// The Service that comes and goes; give it more.
fn other() -> Service {
    everything("other").cluster_ip(20)
}

fn other_on(lab: &Lab, pods: &[&str]) -> Vec<Value> {
    objects![for_everything("other").on(lab, pods)]
}

fn local(policy: &str, service: Service) -> Service {
    service.spec(policy, json!("Local"))
}

/// Brings a kind into use and out again, under load on Services that stay.
fn comes_and_goes(kind: &Kind) {
    let Some(lab) = lab() else { return };
    let proxy = Proxy::new(&lab, Config::default());
    beside(&lab, proxy, &Family::BOTH, &Family::BOTH, kind);
}

/// The same for a kind in some families, beside a Service in some families.
fn beside(lab: &Lab, mut proxy: Proxy<'_>, stays: &[Family], comes: &[Family], kind: &Kind) {
    proxy.apply(steady(lab, stays));
    proxy.tidy();
    let without = proxy.listing();
    let mut steady = Established::default();
    let mut streams = Vec::new();
    for host in HOSTS {
        let client = lab.from(host);
        let vips: Vec<SocketAddr> =
            stays.iter().map(|family| at(cluster_ip(10, *family), 80)).collect();
        for vip in &vips {
            steady.connect(&client, *vip);
            steady.flow(&client, *vip);
        }
        streams.push((client, vips));
    }
    let reports = under_load(&streams, &mut |loads| {
        for round in 0..ROUNDS {
            proxy.apply((kind.objects)(lab));
            assert_eq!(proxy.transactions(), kind.transactions, "round {round}");
            let with = proxy.listing();
            let mut opened = Established::default();
            for family in comes {
                assert_shows(&with, kind, *family);
                assert_serves(lab, kind, *family, &mut opened);
            }
            steady.live_on();
            go_on(loads);
            proxy.delete((kind.objects)(lab));
            assert_eq!(proxy.transactions(), 1, "round {round}");
            opened.live_on();
            steady.live_on();
            go_on(loads);
            // Every other time it comes back before it was forgotten.
            if round % 2 == 1 {
                proxy.tidy();
                assert_same(&without, &proxy.listing());
            }
        }
    });
    for ((host, seen), report) in
        [("a", "a"), ("node", "node"), ("client", "node")].iter().zip(&reports)
    {
        report.assert_no_loss();
        let pods: Vec<&String> = report.endpoints.keys().collect();
        assert_eq!(pods, ["b", "c"], "{host}: {report:?}");
        let sources = stays.iter().map(|family| lab.ip(seen, *family)).collect();
        assert_eq!(report.sources, sources, "{host}");
    }
}

#[track_caller]
fn assert_shows(listing: &str, kind: &Kind, family: Family) {
    let digit = if family == Family::V4 { 4 } else { 6 };
    for set in kind.looks_into {
        assert!(
            listing.contains(&format!("@{set}{digit}")),
            "no rule has @{set}{digit}: {listing}"
        );
    }
    for text in kind.shows {
        let text = text.replace('#', &digit.to_string());
        assert!(listing.contains(&text), "no {text}: {listing}");
    }
}

#[track_caller]
fn assert_serves<'l>(lab: &'l Lab, kind: &Kind, family: Family, opened: &mut Established<'l>) {
    for (host, target, endpoints) in (kind.served)(lab, family) {
        let answer = opened.connect(&lab.from(host), target);
        assert!(endpoints.contains(&answer.endpoint()), "{host} to {target}: {answer:?}");
        opened.flow(&lab.from(host), target);
    }
    for (host, target) in (kind.refused)(family) {
        assert_eq!(lab.from(host).tcp(target), Outcome::Reset, "{host} to {target}");
        assert_eq!(lab.from(host).udp(target), Outcome::Refused, "{host} to {target}");
    }
}

#[test]
fn node_ports() {
    comes_and_goes(&Kind {
        objects: |lab| {
            // `everything` has three ports, and a NodePort is for the last one that was named.
            let other = other().udp(81).named("np-udp").node_port(30081);
            let other = other.tcp(81).named("np-tcp").node_port(30081);
            let endpoints = for_everything("other").port("np-udp", "UDP", 8080);
            objects![other, endpoints.port("np-tcp", "TCP", 8080).on(lab, &["b", "c"])]
        },
        looks_into: &[
            "nodeport-ips",
            "service-nodeports",
            "nodeport-cluster-endpoints",
            "external-nodeports",
        ],
        shows: &["chain nodeport-cluster#-2 {"],
        served: |lab, family| {
            HOSTS.map(|host| (host, at(lab.ip("node", family), 30081), &["b", "c"][..])).into()
        },
        ..KIND
    });
}

#[test]
fn external_ips() {
    comes_and_goes(&Kind {
        objects: |lab| objects![other().external_ip(8), other_on(lab, &["b", "c"])],
        looks_into: &["external-ips", "external-services"],
        shows: &["chain masquerade-always {", "chain masquerading# {"],
        served: |_, family| {
            HOSTS.map(|host| (host, at(external_ip(8, family), 80), &["b", "c"][..])).into()
        },
        ..KIND
    });
}

#[test]
fn external_policy_local() {
    comes_and_goes(&Kind {
        objects: |lab| {
            let other = local("externalTrafficPolicy", other().load_balancer(8, None));
            objects![other, other_on(lab, &["b", "c"])]
        },
        looks_into: &["local-endpoints", "external-ips", "external-services"],
        shows: &["chain external-local#-1-2 {", "chain local#-1 {"],
        served: |_, family| {
            let vip = at(external_ip(8, family), 80);
            vec![("a", vip, &["b", "c"]), ("node", vip, &["b", "c"]), ("client", vip, &["b"])]
        },
        ..KIND
    });
}

#[test]
fn external_policy_local_without_endpoints_here() {
    comes_and_goes(&Kind {
        objects: |lab| {
            let other = local("externalTrafficPolicy", other().load_balancer(8, None));
            objects![other, other_on(lab, &["c"])]
        },
        looks_into: &["external-ips", "external-services"],
        shows: &["chain external-local#-0-1 {"],
        served: |_, family| {
            let vip = at(external_ip(8, family), 80);
            vec![("a", vip, &["c"]), ("node", vip, &["c"])]
        },
        ..KIND
    });
}

#[test]
fn internal_policy_local() {
    comes_and_goes(&Kind {
        objects: |lab| {
            objects![local("internalTrafficPolicy", other()), other_on(lab, &["b", "c"])]
        },
        looks_into: &["local-endpoints"],
        shows: &["chain local#-1 {"],
        served: |_, family| {
            HOSTS.map(|host| (host, at(cluster_ip(20, family), 80), &["b"][..])).into()
        },
        ..KIND
    });
}

#[test]
fn source_ranges() {
    comes_and_goes(&Kind {
        objects: |lab| {
            let ranges = json!(["198.51.100.0/24", "2001:db8:100::/64"]);
            let other = other().load_balancer(8, None).spec("loadBalancerSourceRanges", ranges);
            objects![other, other_on(lab, &["b", "c"])]
        },
        looks_into: &["restricted-services", "allowed-sources"],
        served: |_, family| vec![("client", at(external_ip(8, family), 80), &["b", "c"])],
        transactions: 2,
        ..KIND
    });
}

#[test]
fn session_affinity() {
    comes_and_goes(&Kind {
        objects: |lab| {
            let other = other().spec("sessionAffinity", json!("ClientIP"));
            objects![other, other_on(lab, &["node", "c"])]
        },
        looks_into: &["affinity-ips", "remember-services"],
        shows: &["chain nat-input {", "map affinity#-default/other/tcp/tcp/cluster {"],
        served: |_, family| {
            HOSTS.map(|host| (host, at(cluster_ip(20, family), 80), &["node", "c"][..])).into()
        },
        ..KIND
    });
}

#[test]
fn a_service_without_endpoints() {
    comes_and_goes(&Kind {
        objects: |_| objects![other().external_ip(8)],
        shows: &["chain external-reject# {"],
        refused: |family| {
            let targets = [cluster_ip(20, family), external_ip(8, family)];
            let from = |host| targets.map(|ip| (host, at(ip, 80)));
            HOSTS.into_iter().flat_map(from).collect()
        },
        ..KIND
    });
}

#[test]
fn a_service_cidr() {
    comes_and_goes(&Kind {
        objects: |_| service_cidr("kubernetes", &["10.96.0.0/16", "fd00:10:96::/112"]),
        looks_into: &["service-cidrs"],
        served: |_, family| {
            HOSTS.map(|host| (host, at(cluster_ip(10, family), 80), &["b", "c"][..])).into()
        },
        ..KIND
    });
}

#[test]
fn localhost_node_ports() {
    let Some(lab) = lab() else { return };
    let config = Config { localhost_nodeports: Family::BOTH.into(), ..Config::default() };
    let proxy = Proxy::new(&lab, config);
    let kind = Kind {
        objects: |lab| {
            let other = other().udp(81).named("np").node_port(30081);
            objects![other, for_everything("other").port("np", "UDP", 8080).on(lab, &["b", "c"])]
        },
        looks_into: &["localhost-nodeports", "service-nodeports"],
        shows: &["chain localhost# {"],
        ..KIND
    };
    beside(&lab, proxy, &Family::BOTH, &Family::BOTH, &kind);
}

/// The first and the last Service of an IP family, beside Services of the other one.
fn a_family(comes: Family, stays: Family, kind: &Kind) {
    let Some(lab) = lab() else { return };
    let proxy = Proxy::new(&lab, Config::default());
    beside(&lab, proxy, &[stays], &[comes], kind);
}

/// What the first Service of a family brings.
const FAMILY: Kind = Kind {
    looks_into: &["service-ips", "cluster-ips", "cluster-endpoints"],
    shows: &["chain from-outside# {", "chain from-node# {", "chain masquerade-cluster-ip# {"],
    served: |_, family| {
        HOSTS.map(|host| (host, at(cluster_ip(20, family), 80), &["b", "c"][..])).into()
    },
    ..KIND
};

#[test]
fn the_first_and_last_service_of_ipv4() {
    let objects = |lab: &Lab| {
        let endpoints = for_everything("other").only(Family::V4).on(lab, &["b", "c"]);
        objects![everything("other").only(Family::V4).cluster_ip(20), endpoints]
    };
    a_family(Family::V4, Family::V6, &Kind { objects, ..FAMILY });
}

#[test]
fn the_first_and_last_service_of_ipv6() {
    let objects = |lab: &Lab| {
        let endpoints = for_everything("other").only(Family::V6).on(lab, &["b", "c"]);
        objects![everything("other").only(Family::V6).cluster_ip(20), endpoints]
    };
    a_family(Family::V6, Family::V4, &Kind { objects, ..FAMILY });
}
