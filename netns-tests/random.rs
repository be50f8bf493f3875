//! Random changes of random Services. After each the kernel must hold what a restart would write, and random packets
//! must go where the evaluator of the planned table says.
//!
//! A failure names its seed: `NETNS_SEED=7 cargo test --test netns random` runs that one alone.

use crate::explained;
use crate::scenario::{PROTOCOLS, at, refused, two_clients};
use nft_table::Family;
use nft_table::Table;
use nft_table::evaluate::{self, Machine, Packet, evaluate};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use test_support::lab::{Lab, Outcome, PORT, cluster_ip, external_ip};
use test_support::proxy::{
    Config, Proxy, Service, endpoints, node, objects, service, service_cidr,
};

/// Changes per seed, and packets after each.
const CHANGES: usize = 60;
const PACKETS: usize = 5;
/// More slots than any Service has, apart from tables.
const DRAWS: u32 = 10;
/// The entries of a table for hashed flows.
const ENTRIES: u32 = 251;
/// Services are numbered below this.
const SERVICES: u8 = 6;

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn of<'a, T>(&mut self, choice: &'a [T]) -> &'a T {
        &choice[self.below(choice.len())]
    }
}

/// A Service with any mix of features. Its external addresses and NodePorts are few, so that Services claim the
/// same ones.
fn random_service(random: &mut Random, number: u8) -> Service {
    let mut made = service(&name(number)).cluster_ip(10 + number);
    if random.one_in(8) {
        let families = [Family::V4, Family::V6];
        made = service(&name(number)).only(*random.of(&families)).cluster_ip(10 + number);
    }
    let exposed = !random.one_in(3);
    for (protocol, _) in PROTOCOLS {
        if random.one_in(3) && protocol != "TCP" {
            continue;
        }
        made = match protocol {
            "TCP" => made.tcp(80),
            "UDP" => made.udp(80),
            _ => made.sctp(80),
        };
        made = made.named(&protocol.to_lowercase());
        if exposed && !random.one_in(3) {
            made = made.node_port(30_080 + random.below(3) as u16);
        }
    }
    if random.one_in(2) {
        made = made.external_ip(1 + random.below(3) as u8);
    }
    if !random.one_in(3) {
        let mode = *random.of(&[None, Some("VIP"), Some("Proxy")]);
        made = made.load_balancer(4 + random.below(2) as u8, mode);
        if random.one_in(2) {
            let ranges = [
                json!(["198.51.100.11/32", "2001:db8:100::11/128"]),
                json!(["10.244.0.0/16", "198.51.100.12/32"]),
                json!(["0.0.0.0/0"]),
                json!(["192.0.2.1/32", "2001:db8::/64"]),
            ];
            made = made.spec("loadBalancerSourceRanges", random.of(&ranges).clone());
        }
    }
    for policy in ["internalTrafficPolicy", "externalTrafficPolicy"] {
        if random.one_in(3) {
            made = made.spec(policy, json!("Local"));
        }
    }
    if random.one_in(6) {
        made = made.spec("sessionAffinity", json!("ClientIP"));
    }
    if random.one_in(12) {
        let algorithm = *random.of(&["hash-client", "hash-flow", "round-robin", "round-robin"]);
        made = made.annotation("nft.kube-proxy/balancing", algorithm);
    }
    if random.one_in(6) {
        let weights = *random.of(&["node/node=2, *=1", "node/node=1, *=0"]);
        made = made.annotation("nft.kube-proxy/weights", weights);
    }
    if random.one_in(6) {
        // Which nobody reaches.
        let limits = *random.of(&["new-per-second=100000", "open=1000, new-per-second=100000"]);
        made = made.annotation("nft.kube-proxy/limits", limits);
    }
    made.created(&format!("20{:02}-01-01T00:00:00Z", random.below(30)))
}

fn random_endpoints(lab: &Lab, random: &mut Random, number: u8) -> Vec<Value> {
    let mut made = endpoints(&name(number));
    for (protocol, _) in PROTOCOLS {
        made = made.port(&protocol.to_lowercase(), protocol, PORT);
    }
    let hints = random.one_in(2);
    for host in ["a", "b", "c", "node"] {
        if random.one_in(2) {
            continue;
        }
        let conditions = [
            json!({ "ready": true }),
            json!({ "ready": true }),
            json!({}),
            json!({ "ready": false, "serving": true, "terminating": true }),
            json!({ "ready": false, "serving": false, "terminating": true }),
        ];
        let mut fields = json!({ "conditions": random.of(&conditions) });
        if hints && !random.one_in(6) {
            let zone = random.of(&["here", "there"]);
            fields["hints"] = json!({ "forZones": [{ "name": zone }] });
        }
        made = made.with(lab, &[host], fields);
    }
    made.into_iter().collect()
}

fn name(number: u8) -> String {
    format!("random-{number}")
}

/// Changes something.
fn change(lab: &Lab, random: &mut Random, proxy: &mut Proxy, there: &mut BTreeSet<u8>) {
    let number = random.below(SERVICES.into()) as u8;
    match random.below(10) {
        0 if there.remove(&number) => {
            drop(proxy.delete(service(&name(number))));
        }
        1 => {
            let mut node = node();
            let zone = random.of(&["here", "there", "nowhere"]);
            node[0]["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone);
            proxy.apply(node);
        }
        2 => {
            let known = ["10.96.0.0/16", "fd00:10:96::/112"];
            proxy.apply(service_cidr("kubernetes", &known[..random.below(3)]));
        }
        3..=5 => {
            proxy.apply(random_endpoints(lab, random, number));
        }
        _ => {
            there.insert(number);
            proxy.apply(objects![
                random_service(random, number),
                random_endpoints(lab, random, number),
            ]);
        }
    }
}

fn random_target(lab: &Lab, random: &mut Random, family: Family) -> SocketAddr {
    let number = random.below(SERVICES.into()) as u8;
    match random.below(8) {
        0..=2 => at(cluster_ip(10 + number, family), *random.of(&[80, 80, 80, 81])),
        3..=5 => at(external_ip(1 + random.below(5) as u8, family), *random.of(&[80, 80, 80, 81])),
        _ => at(lab.ip("node", family), 30_080 + random.below(4) as u16),
    }
}

/// Everything that may become of a packet, as the evaluator sees it.
fn expected(
    lab: &Lab,
    table: &Table,
    host: &str,
    protocol: &str,
    target: SocketAddr,
) -> Vec<Outcome> {
    let family = Family::of(&target.ip());
    let own = lab.ip(host, family);
    let node = lab.ip("node", family);
    let packet = Packet {
        source: own,
        destination: target.ip(),
        protocol: match protocol {
            "TCP" => 6,
            "UDP" => 17,
            _ => 132,
        },
        source_port: None,
        port: target.port(),
        input: match host {
            "node" => None,
            "a" | "b" => Some(format!("veth-{host}")),
            _ => Some("eth0".to_owned()),
        },
    };
    let name_of = |ip: IpAddr| {
        let hosts = ["a", "b", "c", "node"];
        hosts.into_iter().find(|name| lab.ip(name, family) == ip).expect("one of the endpoints")
    };
    let mut outcomes = Vec::new();
    let hashed = table.chains().iter().any(|chain| chain.name.starts_with("hash-"));
    // Each endpoint has many entries, and 11 leaves out no slot of a few.
    let draws = if hashed { (0..ENTRIES).step_by(11) } else { (0..DRAWS).step_by(1) };
    for draw in draws {
        let mut machine = Machine {
            is_local: &|ip| ip == node || ip.is_loopback(),
            random: &mut |bound| draw % bound,
            learned: &mut HashMap::new(),
        };
        let outcome = match evaluate(table, packet.clone(), &mut machine).unwrap() {
            evaluate::Outcome::Rejected => refused(protocol),
            evaluate::Outcome::Dropped => Outcome::TimedOut,
            evaluate::Outcome::Passed { destination, translated: true, masqueraded, .. } => {
                Outcome::reached(name_of(destination), if masqueraded { node } else { own })
            }
            // Nobody listens there.
            evaluate::Outcome::Passed { destination, .. } if destination == node => {
                if protocol == "UDP" { Outcome::Refused } else { Outcome::Reset }
            }
            evaluate::Outcome::Passed { .. } => Outcome::Untouched { source: own },
        };
        if !outcomes.contains(&outcome) {
            outcomes.push(outcome);
        }
    }
    outcomes
}

fn run(seed: u64) {
    let Some(lab) = two_clients() else { return };
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
    let mut proxy = Proxy::new(&lab, Config::default());
    let mut there = BTreeSet::new();
    proxy.apply(node());
    for step in 0..CHANGES {
        change(&lab, &mut random, &mut proxy, &mut there);
        let written = proxy.written_by_a_new_one(Config::default());
        assert_eq!(written, 0, "seed {seed}, step {step}: the table is not what a new plan has");
        for packet in 0..PACKETS {
            let family = *random.of(&Family::BOTH);
            let host = *random.of(&["a", "b", "node", "client", "stranger"]);
            let (protocol, probe) = *random.of(&PROTOCOLS);
            let target = random_target(&lab, &mut random, family);
            let expected = expected(&lab, proxy.table(), host, protocol, target);
            let mut outcome = probe(&lab.from(host), target);
            if !expected.contains(&outcome) {
                // A client that takes the port of an earlier flow goes on with that, which is as it should be; none
                // does so twice.
                outcome = probe(&lab.from(host), target);
            }
            // To explain takes several times as long as to send.
            if packet == 0 {
                explained::check(&lab, proxy.view(), host, protocol, target, &outcome);
            }
            assert!(
                expected.contains(&outcome),
                "seed {seed}, step {step}: {host} to {target} over {protocol}: {outcome:?}, \
                 expected {expected:?}\n{}",
                proxy.listing()
            );
        }
        if step % 4 == 3 {
            proxy = proxy.restart(Config::default());
            let committed = proxy.commit();
            assert_eq!(committed.operations, 0, "seed {seed}, step {step}: {committed:?}");
        }
    }
}

/// Seeds of this run: those of the test, or the one that the environment names.
fn seeds(mine: std::ops::Range<u64>) -> Vec<u64> {
    match std::env::var("NETNS_SEED") {
        Ok(seed) => vec![seed.parse().expect("NETNS_SEED is a number")],
        Err(_) => mine.collect(),
    }
}

#[test]
fn packets_go_where_the_evaluator_says_one() {
    seeds(1..3).into_iter().for_each(run);
}

#[test]
fn packets_go_where_the_evaluator_says_two() {
    seeds(3..5).into_iter().for_each(run);
}
