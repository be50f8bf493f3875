//! How connections are spread, where a Service says so.

use crate::listing::loads_again;
use crate::scenario::{at, lab};
use kube_proxy::answers::{Query, explain_now};
use nft_table::evaluate::{self, Machine, Packet, evaluate};
use nft_table::{Family, Table};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use test_support::lab::{Lab, Outcome, cluster_ip, external_ip};
use test_support::proxy::{
    Config, Manifests, Program, Proxy, Service, endpoints, objects, service,
};

/// Interface index of `lo`.
const LOOPBACK: u32 = 1;
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
        evaluate::Outcome::Passed { destination, port, .. } => SocketAddr::new(destination, port),
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
    assert_eq!(lab.from("client").tcp(target), Outcome::Reset);
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
        service("turns").cluster_ip(12).tcp(80).annotation(BALANCING, "round-robin"),
        endpoints("turns").tcp().on(&lab, &["a", "b"]),
    ]);
    let listing = proxy.listing();
    assert!(listing.contains("numgen inc mod 2"), "{listing}");
    assert!(listing.contains("jhash ip6 saddr . th sport mod 251 seed 0x6b756265"), "{listing}");
    loads_again(&lab);
}

/// As long as one processor asks, nobody has to wait longer than the others.
#[test]
fn endpoints_take_turns() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    proxy.apply(objects![web("round-robin"), ready(&lab, &["a", "b", "c"])]);
    let turns = |target: SocketAddr, of: usize| -> Vec<String> {
        (0..of).map(|_| lab.from("client").tcp(target).endpoint().to_owned()).collect()
    };
    for family in Family::BOTH {
        for target in frontends(&lab, family) {
            let turns = turns(target, 12);
            assert_eq!(turns[..3].iter().collect::<BTreeSet<_>>().len(), 3, "{turns:?}");
            assert!(turns.chunks(3).all(|round| round == &turns[..3]), "{turns:?}");
        }
    }
    let target = at(cluster_ip(10, Family::V4), 80);
    assert_eq!(proxy.written_by_a_new_one(Config::default()), 0, "a restart writes nothing");
    // One more, one less, none, and others again.
    for pods in [&["a", "b"][..], &["c"], &[], &["a", "b", "c"]] {
        proxy.apply(ready(&lab, pods));
        if pods.is_empty() {
            assert_eq!(lab.from("client").tcp(target), Outcome::Reset);
            continue;
        }
        let turns = turns(target, 2 * pods.len());
        let reached: BTreeSet<&str> = turns[..pods.len()].iter().map(|pod| &**pod).collect();
        assert_eq!(reached, pods.iter().copied().collect(), "{turns:?}");
        assert_eq!(turns[..pods.len()], turns[pods.len()..]);
    }
    // With policy Local others than pods and the node get those of the node.
    let local = web("round-robin").spec("externalTrafficPolicy", json!("Local"));
    proxy.apply(local);
    for target in &frontends(&lab, Family::V6)[1..] {
        assert_eq!(turns(*target, 4).iter().collect::<BTreeSet<_>>().len(), 2);
        let own: BTreeSet<String> =
            (0..3).map(|_| lab.from("a").tcp(*target).endpoint().to_owned()).collect();
        assert_eq!(own.len(), 3);
    }
    // Who is remembered does not wait for a turn.
    proxy.apply(web("round-robin").spec("sessionAffinity", json!("ClientIP")));
    assert_eq!(turns(target, 6).iter().collect::<BTreeSet<_>>().len(), 1);
    proxy.apply(web("random"));
    proxy.tidy();
    assert!(!proxy.listing().contains("round-robin"), "{}", proxy.listing());
}

const WEIGHTS: &str = "nft.kube-proxy/weights";

fn named(lab: &Lab) -> Vec<Value> {
    let pod = |name: &str| json!({"targetRef": {"kind": "Pod", "name": format!("web-{name}")}});
    let all = ["a", "b", "c"].into_iter();
    all.fold(endpoints("web").tcp(), |slice, name| slice.with(lab, &[name], pod(name)))
        .into_iter()
        .collect()
}

#[test]
fn weights_decide_how_many_connections_an_endpoint_gets() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let weighted = |algorithm: &str, weights: &str| web(algorithm).annotation(WEIGHTS, weights);
    proxy.apply(objects![weighted("round-robin", "web-a=1, node/node=2, *=3"), named(&lab)]);
    let target = at(cluster_ip(10, Family::V4), 80);
    let reached = |target: SocketAddr, of: u32| {
        let pods = (0..of).map(|_| lab.from("client").tcp(target).endpoint().to_owned());
        pods.fold(BTreeMap::<String, u32>::new(), |mut reached, pod| {
            *reached.entry(pod).or_default() += 1;
            reached
        })
    };
    let counts = |a: u32, b: u32, c: u32| {
        let all = [("a", a), ("b", b), ("c", c)].map(|(pod, count)| (pod.to_owned(), count));
        all.into_iter().filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>()
    };
    for target in frontends(&lab, Family::V6) {
        assert_eq!(reached(target, 12), counts(2, 4, 6));
    }
    // With weight 0 connections live on, and there are no new ones; by chance and by hashes as well.
    let mut open: Vec<_> = (0..6).map(|_| lab.from("client").connect(target)).collect();
    let before: Vec<_> = open.iter_mut().map(|connection| connection.ask()).collect();
    for algorithm in ["round-robin", "random", "hash-flow", "hash-client"] {
        let committed = proxy.apply(weighted(algorithm, "web-b=0"));
        assert_eq!(committed.rebuilt, None);
        let reached = reached(target, 30);
        assert!(!reached.contains_key("b"), "{reached:?}");
        assert_eq!(proxy.written_by_a_new_one(Config::default()), 0, "{algorithm}");
        let query =
            Query { address: Some(target.ip()), port: Some(target.port()), ..Query::default() };
        let view = proxy.view();
        let explained = lab.node().namespace.run(|| explain_now(&view, &query)).unwrap();
        let of_b = explained[0].endpoints.iter().find(|one| one.address.ip() == lab.v4("b"));
        assert_eq!(of_b.unwrap().reasons, ["its weight is 0"]);
    }
    let after: Vec<_> = open.iter_mut().map(|connection| connection.ask()).collect();
    assert_eq!(after, before);
    proxy.apply(weighted("random", "*=0"));
    assert_eq!(lab.from("client").tcp(target), Outcome::Reset);
    // What cannot be read counts as not there.
    proxy.apply(weighted("round-robin", "web-a=lots"));
    assert_eq!(reached(target, 6), counts(2, 2, 2));
}

/// 100,000 flows of each algorithm, with weights and without, as the kernel counts them.
#[test]
fn shares_are_what_they_should_be() {
    let Some(lab) = lab() else { return };
    let config = Config { counting: kube_proxy::plan::Counting::Endpoint, ..Config::default() };
    let mut proxy = Proxy::new(&lab, config);
    let target = at(cluster_ip(10, Family::V4), 53);
    let send = |ports: std::ops::Range<u16>, clients: std::ops::Range<u8>| {
        for client in clients {
            let source: IpAddr = [192, 0, 2, client].into();
            lab.machine("client").netlink.address(LOOPBACK, source.into());
            lab.machine("client").namespace.run(|| {
                for port in ports.clone() {
                    let socket = std::net::UdpSocket::bind((source, port)).expect("bind");
                    socket.send_to(b"?", target).expect("send");
                }
            });
            lab.machine("client").netlink.remove_address(LOOPBACK, source.into());
            lab.node().output("conntrack", &["-F"]);
        }
    };
    for (algorithm, weights, shares) in [
        ("random", "*=1", [1, 1, 1]),
        ("random", "web-a=1, web-b=2, *=5", [1, 2, 5]),
        ("round-robin", "web-a=1, web-b=2, *=5", [1, 2, 5]),
        ("hash-flow", "*=1", [1, 1, 1]),
        ("hash-flow", "web-a=1, web-b=2, *=5", [1, 2, 5]),
    ] {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let dns = service("web").cluster_ip(10).udp(53);
            let dns = dns.annotation(BALANCING, algorithm).annotation(WEIGHTS, weights);
            let slices = named(&lab).into_iter().map(|mut slice| {
                slice["ports"] = json!([{"name": "", "port": 8080, "protocol": "UDP"}]);
                slice
            });
            proxy.apply(objects![dns.clone(), slices.collect::<Vec<_>>()]);
            send(20_000..45_000, 100..104);
            let counts = counted_by_pod(&lab, &proxy);
            // The next ones are counted from 0 on.
            proxy.delete(dns);
            let (all, sum) = (counts.iter().sum::<f64>(), shares.iter().sum::<u32>());
            assert!((99_990.0..=100_010.0).contains(&all), "{algorithm} {weights}: {counts:?}");
            let expected = shares.map(|share| all * f64::from(share) / f64::from(sum));
            let pairs = || counts.iter().zip(expected);
            // Two degrees of freedom: beyond this once in a thousand times, and three times in a row never.
            let chi_square: f64 = pairs().map(|(n, m)| (n - m).powi(2) / m).sum();
            let sigmas = pairs().map(|(n, m)| (n - m).abs() / (m * (1.0 - m / all)).sqrt());
            // A table for hashes has whole entries, which are a hundredth off at most.
            let (most, off) = match algorithm {
                "round-robin" => (0.01, 0.01),
                "hash-flow" => (13.8 + all * 0.0002, 3.0 + 0.01 * all.sqrt()),
                _ => (13.8, 3.0),
            };
            if chi_square < most && sigmas.clone().all(|sigmas| sigmas < off) {
                break;
            }
            let sigmas: Vec<f64> = sigmas.collect();
            assert!(attempts < 3, "{algorithm} {weights}: {counts:?}, {chi_square}, {sigmas:?}");
        }
    }
}

/// Connections to the pods a, b and c, as counted.
fn counted_by_pod(lab: &Lab, proxy: &Proxy<'_>) -> [f64; 3] {
    let mut counts = [0.0; 3];
    for line in proxy.listing().lines().filter(|line| line.contains(" counter packets ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for (pod, count) in ["a", "b", "c"].into_iter().zip(&mut counts) {
            let is_to = words.contains(&&*lab.v4(pod).to_string());
            let at = words.iter().position(|word| *word == "packets").unwrap() + 1;
            *count += if is_to { words[at].parse::<f64>().unwrap() } else { 0.0 };
        }
    }
    counts
}

/// A node has died: nobody tells the client, but its next packet finds out.
#[test]
fn connections_to_endpoints_that_are_gone_are_reset_where_that_is_asked_for() {
    let Some(lab) = lab() else { return };
    let flags = [
        "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56",
        "--nodeport-addresses=192.0.2.0/24,2001:db8::/64",
    ];
    for (flag, asked, is_reset) in [
        (None, None, false),
        (None, Some("reset"), true),
        (Some("--gone-endpoints=reset"), None, true),
        (Some("--gone-endpoints=reset"), Some("keep"), false),
    ] {
        let manifests = Manifests::new();
        let web = || asked.map_or(web("random"), |asked| web("random").annotation(GONE, asked));
        manifests.apply(objects![web(), ready(&lab, &["b"])]);
        let flags: Vec<&str> = flags.into_iter().chain(flag).collect();
        let mut program = Program::start_with(&lab, &manifests, &flags);
        for family in Family::BOTH {
            for target in frontends(&lab, family) {
                manifests.apply(ready(&lab, &["c"]));
                program.wait_until(|_| lab.from("client").tcp(target).endpoint() == "c");
                let mut lost = lab.from("client").connect(target);
                assert_eq!(lost.ask(), lab.from("client").tcp(target));
                let mut passing = lab.from("client").connect(at(lab.ip("c", family), 8080));
                passing.ask();
                // Terminating, even not serving, is not gone.
                let gone =
                    json!({"conditions": {"ready": false, "serving": false, "terminating": true}});
                let terminating = endpoints("web").tcp().on(&lab, &["a"]).with(&lab, &["c"], gone);
                manifests.apply(terminating);
                program.wait_until(|_| lab.from("client").tcp(target).endpoint() == "a");
                lost.ask();
                manifests.apply(ready(&lab, &["a"]));
                if is_reset {
                    program.wait_until(|_| lost.try_ask().is_err());
                } else {
                    // What is committed after it is there.
                    manifests.apply(objects![
                        service("other").cluster_ip(99).tcp(80),
                        endpoints("other").tcp().on(&lab, &["a"]),
                    ]);
                    let other = at(cluster_ip(99, family), 80);
                    let is_served =
                        || matches!(lab.from("client").tcp(other), Outcome::Reached { .. });
                    program.wait_until(|_| is_served());
                    lost.ask();
                    manifests.delete(service("other").cluster_ip(99).tcp(80));
                    program.wait_until(|_| !is_served());
                }
                passing.ask();
            }
        }
    }
}

const GONE: &str = "nft.kube-proxy/gone-endpoints";
