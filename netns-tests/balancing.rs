//! How connections are spread, where a Service says so.

use crate::listing::loads_again;
use crate::scenario::{at, lab};
use kube_proxy::answers::{Query, explain_now};
use nft_table::evaluate::{Machine, Outcome, Packet, evaluate};
use nft_table::{Family, Table};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use test_support::lab::{Lab, cluster_ip, external_ip};
use test_support::proxy::{Config, Proxy, Service, endpoints, objects, service};

const BALANCING: &str = "nft.kube-proxy/balancing";

/// A Service with all kinds of frontends.
fn web(algorithm: &str) -> Service {
    service("web")
        .cluster_ip(10)
        .external_ip(7)
        .tcp(80)
        .node_port(30080)
        .annotation(BALANCING, algorithm)
}

fn ready(lab: &Lab, pods: &[&str]) -> Vec<Value> {
    endpoints("web").tcp().on(lab, pods).into_iter().collect()
}

fn frontends(lab: &Lab, family: Family) -> [SocketAddr; 3] {
    [
        at(cluster_ip(10, family), 80),
        at(external_ip(7, family), 80),
        at(lab.ip("node", family), 30080),
    ]
}

/// Where the table sends a connection, which nothing is drawn for.
fn predicted(table: &Table, lab: &Lab, source: SocketAddr, target: SocketAddr) -> SocketAddr {
    let packet = Packet {
        source: source.ip(),
        destination: target.ip(),
        protocol: 6,
        source_port: Some(source.port()),
        port: target.port(),
        input: Some("eth0".to_owned()),
    };
    let own = Family::BOTH.map(|family| lab.ip("node", family));
    let is_local = |address: IpAddr| own.contains(&address);
    let mut random = |below: u32| panic!("a number below {below} is drawn");
    let mut machine =
        Machine { is_local: &is_local, random: &mut random, learned: &mut HashMap::new() };
    match evaluate(table, packet, &mut machine).expect("it can be evaluated") {
        Outcome::Passed { destination, port, .. } => SocketAddr::new(destination, port),
        other => panic!("{other:?}"),
    }
}

fn pod_at(lab: &Lab, address: SocketAddr) -> &'static str {
    let is_at = |pod: &&str| Family::BOTH.iter().any(|family| lab.ip(pod, *family) == address.ip());
    ["a", "b", "c"].into_iter().find(is_at).expect("a pod")
}

/// The kernel's numbers are those of the evaluator, so nodes agree wherever kernels do.
#[test]
fn flows_go_where_the_table_says() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web("hash-flow"), ready(&lab, &["a", "b", "c"])]);
    for family in Family::BOTH {
        let mut reached = BTreeSet::new();
        for target in frontends(&lab, family) {
            for port in 20_000..20_040 {
                let source = at(lab.ip("client", family), port);
                let expected = pod_at(&lab, predicted(proxy.table(), &lab, source, target));
                let pod = lab.from("client").port(port).tcp(target).endpoint().to_owned();
                assert_eq!(pod, expected, "{source} to {target}");
                reached.insert(pod);
            }
        }
        assert_eq!(reached.len(), 3, "{reached:?}");
    }
}

#[test]
fn a_client_keeps_its_endpoint_and_others_have_others() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web("hash-client"), ready(&lab, &["a", "b", "c"])]);
    for family in Family::BOTH {
        for target in frontends(&lab, family) {
            let first = lab.from("client").tcp(target).endpoint().to_owned();
            for _ in 0..20 {
                assert_eq!(lab.from("client").tcp(target).endpoint(), first);
            }
            let source = at(lab.ip("client", family), 1);
            assert_eq!(first, pod_at(&lab, predicted(proxy.table(), &lab, source, target)));
            // It is told beforehand.
            let query = Query {
                address: Some(target.ip()),
                port: Some(target.port()),
                from: Some(source.ip()),
                ..Query::default()
            };
            let view = proxy.view();
            let explained = lab.node().namespace.run(|| explain_now(&view, &query)).unwrap();
            let [client] = &explained[0].clients[..] else { panic!("{explained:?}") };
            let [endpoint] = client.endpoints[..] else { panic!("{client:?}") };
            assert_eq!(pod_at(&lab, endpoint), first);
            assert_eq!(explained[0].frontend.as_ref().unwrap().balancing, "hash-client");
            assert_eq!(explained[0].kernel.as_ref().unwrap().differences, [""; 0]);
        }
        let target = at(cluster_ip(10, family), 80);
        let pods = (1..200u8).map(|number| {
            let client: IpAddr = match family {
                Family::V4 => [198, 51, 100, number].into(),
                Family::V6 => [0x2001, 0xdb8, 0x51, 0, 0, 0, 0, number.into()].into(),
            };
            pod_at(&lab, predicted(proxy.table(), &lab, at(client, 1), target))
        });
        let shares = pods.fold(BTreeMap::<_, u32>::new(), |mut shares, pod| {
            *shares.entry(pod).or_default() += 1;
            shares
        });
        assert!(shares.len() == 3 && shares.values().all(|share| *share > 40), "{shares:?}");
    }
}

/// Most clients stay where they are, and none is ever sent nowhere.
#[test]
fn few_clients_move_when_an_endpoint_goes() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web("hash-flow"), ready(&lab, &["a", "b", "c"])]);
    let target = at(cluster_ip(10, Family::V4), 80);
    let ports = 21_000..21_150;
    let ask = |proxy: &Proxy<'_>| -> Vec<&str> {
        let to = |port| predicted(proxy.table(), &lab, at(lab.v4("client"), port), target);
        ports.clone().map(|port| pod_at(&lab, to(port))).collect()
    };
    let before = ask(&proxy);
    proxy.apply(ready(&lab, &["a", "c"]));
    let after = ask(&proxy);
    let moved = before.iter().zip(&after).filter(|(b, a)| **b != "b" && b != a).count();
    assert!(moved < 10, "{moved} of 150 moved without need");
    for port in ports.clone().step_by(10) {
        lab.from("client").port(port).tcp(target).endpoint();
    }
    // A table of one endpoint, of none, and of many again.
    proxy.apply(ready(&lab, &["c"]));
    assert_eq!(lab.from("client").tcp(target).endpoint(), "c");
    proxy.apply(ready(&lab, &[]));
    assert_eq!(lab.from("client").tcp(target), test_support::lab::Outcome::Reset);
    proxy.apply(ready(&lab, &["a", "b", "c"]));
    assert_eq!(ask(&proxy), before, "the same endpoints make the same table");
}

#[test]
fn it_can_change_while_connections_are_open() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web("random"), ready(&lab, &["a", "b", "c"])]);
    let target = at(cluster_ip(10, Family::V6), 80);
    let mut connection = lab.from("client").connect(target);
    let answer = connection.ask();
    for algorithm in ["hash-client", "hash-flow", "random", "none of those"] {
        let committed = proxy.apply(web(algorithm));
        assert_eq!(committed.rebuilt, None);
        lab.from("client").tcp(target).endpoint();
        assert_eq!(connection.ask(), answer);
        let to = format!(": goto {algorithm}-cluster6-251");
        assert_eq!(proxy.listing().contains(&to), algorithm.starts_with("hash"), "{algorithm}");
        let again = proxy.written_by_a_new_one(Config::default());
        assert_eq!(again, 0, "a restart writes nothing with {algorithm}");
    }
    proxy.tidy();
    assert!(!proxy.listing().contains("jhash"));
}

#[test]
fn it_goes_together_with_policies_and_affinity() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let local = web("hash-flow").spec("externalTrafficPolicy", json!("Local"));
    proxy.apply(objects![local, ready(&lab, &["a", "b", "c"])]);
    for family in Family::BOTH {
        for target in &frontends(&lab, family)[1..] {
            for port in 22_000..22_010 {
                let answer = lab.from("client").port(port).tcp(*target);
                assert!(["a", "b"].contains(&answer.endpoint()), "{answer:?}");
                let source = at(lab.ip("client", family), port);
                let expected = pod_at(&lab, predicted(proxy.table(), &lab, source, *target));
                assert_eq!(answer.endpoint(), expected);
                assert_eq!(answer.source(), lab.ip("client", family));
            }
            lab.from("a").tcp(*target).endpoint();
        }
    }
    let sticky = web("hash-flow").spec("sessionAffinity", json!("ClientIP"));
    proxy.apply(sticky);
    let target = at(cluster_ip(10, Family::V4), 80);
    let first = lab.from("client").tcp(target).endpoint().to_owned();
    for _ in 0..10 {
        assert_eq!(lab.from("client").tcp(target).endpoint(), first);
    }
}

#[test]
fn a_listing_loads_again() {
    let Some(lab) = lab() else { return };
    let config = Config { own_table: false, ..Config::default() };
    let mut proxy = Proxy::new(&lab, config);
    proxy.apply(objects![
        web("hash-flow"),
        ready(&lab, &["a", "b"]),
        service("other").cluster_ip(11).tcp(80).annotation(BALANCING, "hash-client"),
        endpoints("other").tcp().on(&lab, &["a", "c"]),
    ]);
    let listing = proxy.listing();
    assert!(listing.contains("jhash ip6 saddr . th sport mod 251 seed 0x6b756265"), "{listing}");
    loads_again(&lab);
}
