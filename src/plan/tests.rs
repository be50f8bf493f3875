//! Random changes: the plan after each equals a plan made from nothing.

use super::checks::{
    assert_no_dangling_references, assert_sets_have_elements, normal, unreachable,
};
use super::*;
use crate::explain;
use crate::model::*;
use nft_table::{Family, Key, Value, evaluate};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const NODE: &str = "node-1";

fn settings() -> Settings {
    Settings {
        node_name: NODE.into(),
        detect_local: DetectLocal::NodeCidr,
        masquerade_all: false,
        localhost_nodeports: Family::BOTH.into(),
        counting: Counting::Off,
        algorithm: Algorithm::Random,
        reset_gone: false,
    }
}

/// A plan without any Service, on a node with an address of each family.
fn planner() -> Planner {
    let mut planner = Planner::new(settings());
    let networks = ["198.51.100.7/32", "2001:db8::7/128"].map(|network| network.parse().unwrap());
    planner.set_nodeport_networks(&networks);
    planner
}

/// A few addresses and ports, so that Services collide.
fn vip(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, 0, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number.into()).into(),
    }
}

fn pod(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 244, 0, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, number.into()).into(),
    }
}

fn ports() -> impl Strategy<Value = Vec<ServicePort>> {
    let port = (0usize..3, 0usize..3, 1u16..4, prop::option::of(30000u16..30004));
    prop::collection::vec(port, 1..3).prop_map(|ports| {
        let mut seen = Vec::new();
        ports
            .into_iter()
            .filter_map(|(name, protocol, port, node_port)| {
                let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][protocol];
                let name: Arc<str> = ["", "http", "dns"][name].into();
                (!seen.contains(&name)).then(|| {
                    seen.push(name.clone());
                    ServicePort { name, protocol, port, node_port }
                })
            })
            .collect()
    })
}

fn service(index: u8) -> impl Strategy<Value = Service> {
    let flags = any::<(bool, bool, bool, bool, bool)>();
    let affinity = prop::option::of((1u64..3).prop_map(Duration::from_secs));
    // Some of them are ClusterIPs of others.
    let addresses = prop::collection::vec(prop_oneof![4 => 200u8..204, 1 => 0u8..5], 0..3);
    (ports(), flags, affinity, 0i64..3, addresses.clone(), addresses).prop_map(
        move |(ports, flags, affinity, created, external, lb)| {
            let (v4, v6, internal_local, external_local, ranges) = flags;
            let families = [(v4, Family::V4), (v6, Family::V6)];
            let of = |number: u8| {
                families.into_iter().filter(|(on, _)| *on).map(move |(_, f)| vip(f, number))
            };
            Service {
                name: ObjectName::new("default", format!("service-{index}")),
                created,
                service_type: ServiceType::LoadBalancer,
                cluster_ips: of(index).collect(),
                external_ips: external.into_iter().flat_map(of).collect(),
                load_balancer_ips: lb.into_iter().flat_map(of).collect(),
                ports,
                internal_local,
                external_local,
                affinity,
                algorithm: Algorithm::ALL
                    .get((usize::from(index) + created as usize) % 12)
                    .copied(),
                weights: (created == 1)
                    .then(|| Arc::new(Weights::parse("node/node-1=2, zone/a=0, *=3").unwrap())),
                table_size: None,
                limits: [
                    None,
                    Limits::parse("open=5").ok(),
                    Limits::parse("new-per-second=3").ok(),
                ][usize::from(index) * created as usize % 3],
                reset_gone: None,
                unreadable_ranges: Vec::new(),
                source_ranges: if ranges {
                    vec!["198.51.100.0/24".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()]
                } else {
                    Vec::new()
                },
                health_check_node_port: None,
            }
        },
    )
}

fn slice(service: u8, index: u8) -> impl Strategy<Value = EndpointSlice> {
    let endpoint = (1u8..12, any::<(bool, bool, bool)>(), 0usize..3, 0usize..3);
    (any::<bool>(), prop::collection::vec(endpoint, 0..8)).prop_map(move |(v4, endpoints)| {
        let family = if v4 { Family::V4 } else { Family::V6 };
        let port = |name: &str, port| {
            [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| EndpointPort {
                name: name.into(),
                protocol,
                port,
            })
        };
        EndpointSlice {
            name: ObjectName::new("default", format!("slice-{service}-{index}")),
            service: format!("service-{service}").into(),
            family,
            ports: [port("", 8080), port("http", 8081), port("dns", 8053)].concat(),
            endpoints: endpoints
                .into_iter()
                .map(|(number, (ready, serving, terminating), node, zone)| Endpoint {
                    address: pod(family, number),
                    conditions: Conditions { ready, serving, terminating },
                    node_name: [None, Some(NODE.into()), Some("node-2".into())][node].clone(),
                    hints: [None, Some("a"), Some("b")][zone]
                        .map(|zone| Arc::new(Hints { zones: vec![zone.into()], nodes: vec![] })),
                })
                .collect(),
            described: Box::default(),
            trigger_time: None,
        }
    })
}

fn change() -> impl Strategy<Value = Change> {
    let some_service = (0u8..5).prop_flat_map(service);
    let some_slice = (0u8..5, 0u8..3).prop_flat_map(|(s, i)| slice(s, i));
    let name = |kind: &'static str| move |n: u8| ObjectName::new("default", format!("{kind}-{n}"));
    prop_oneof![
        4 => some_service.prop_map(|s| Change::Service(s.name.clone(), Some(Box::new(s)))),
        6 => some_slice.prop_map(|s| Change::EndpointSlice(s.name.clone(), Some(Box::new(s)))),
        1 => (0u8..5).prop_map(move |n| Change::Service(name("service")(n), None)),
        1 => (0u8..5, 0u8..3).prop_map(|(s, i)| {
            Change::EndpointSlice(ObjectName::new("default", format!("slice-{s}-{i}")), None)
        }),
        1 => (0usize..3, prop::option::of(0u8..2)).prop_map(|(zone, pods)| {
            Change::Node(Some(Box::new(Node {
                name: NODE.into(),
                addresses: vec!["198.51.100.7".parse().unwrap()],
                zone: [None, Some("a".into()), Some("b".into())][zone].clone(),
                pod_cidrs: Vec::from_iter(pods.map(|pods| {
                    ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 244, pods, 0), 24).into()
                })),
                taints: Vec::new(),
                deleting: false,
            })))
        }),
        1 => (0u8..3).prop_map(|number| {
            let cidr = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 96, number, 0), 24).into();
            Change::ServiceCidr("kubernetes".into(), (number > 0).then(|| vec![cidr]))
        }),
    ]
}

/// The objects there are after some changes.
#[derive(Default)]
struct Objects(BTreeMap<String, Change>);

impl Objects {
    fn apply(&mut self, change: &Change) {
        let key = match change {
            Change::Service(name, _) => format!("service {name}"),
            Change::EndpointSlice(name, _) => format!("slice {name}"),
            Change::Node(_) => "node".to_string(),
            Change::ServiceCidr(name, _) => format!("cidr {name}"),
        };
        self.0.insert(key, change.clone());
    }

    fn plan(&self) -> Planner {
        let mut planner = planner();
        self.0.values().cloned().for_each(|change| planner.apply(change));
        planner.plan();
        planner.remove_emptied();
        planner
    }
}

/// Rules follow what is in use: the chains of [`layout::chains`] for the sets that are there, the balancing chains,
/// those of session affinity, and nothing else.
fn assert_rules_follow_uses(planner: &Planner) {
    let table = planner.table();
    let pods = pods::Pods::new(&settings(), planner.node());
    let is_there = |name: &layout::SetName| table.set_id(&name.nft()).is_some();
    // A chain that came out of use may be there, empty, until it is deleted.
    let is_idle = |chain: &nft_table::Chain| {
        planner.has_unused() && chain.base.is_none() && chain.rules.is_empty()
    };
    let (following, fixed): (Vec<_>, Vec<_>) = table
        .chains()
        .into_iter()
        .filter(|chain| !is_idle(chain))
        .filter_map(|chain| layout::Balancing::parse(&chain.name))
        .partition(|chain| chain.kind.is_single());
    let uses = layout::Uses {
        sets: layout::SetName::all().filter(is_there).collect(),
        chains: following,
        pods: pods.clone(),
        masquerade_all: settings().masquerade_all,
        hold_refusals: false,
    };
    let mut wanted: Vec<nft_table::Chain> = layout::chains(&uses);
    wanted.extend(fixed.iter().map(|chain| chain.chain(&pods)));
    for chain in table.chains() {
        match wanted.iter().find(|wanted| wanted.name == chain.name) {
            Some(wanted) => assert_eq!(chain, wanted),
            None => {
                let is_own = ["affinity", "limits", "round-robin"]
                    .iter()
                    .any(|own| chain.name.starts_with(own));
                assert!(is_idle(chain) || is_own, "{chain:?}");
            }
        }
    }
    for chain in wanted {
        assert!(table.chain(&chain.name).is_some(), "no chain {}", chain.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn step_by_step_comes_to_the_same_as_from_nothing(
        batches in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..25)
    ) {
        let (mut planner, mut objects) = (planner(), Objects::default());
        for batch in batches {
            for change in batch {
                objects.apply(&change);
                planner.apply(change);
            }
            planner.plan();
            planner.remove_emptied();
            let check = |planner: &Planner| {
                assert_no_dangling_references(planner.table());
                assert_rules_follow_uses(planner);
                assert_sets_have_elements(planner);
            };
            check(&planner);
            while planner.has_unused() {
                planner.delete_unused();
                check(&planner);
            }
            // Chains for elements to lead to, of which there may be none.
            let for_all = [layout::REJECT, layout::MASQUERADE_ALWAYS, layout::MASQUERADE_FROM_NODE];
            let mut unreachable = unreachable(planner.table());
            unreachable.retain(|chain| !for_all.contains(&&**chain));
            prop_assert_eq!(unreachable, Vec::<String>::new());
            prop_assert_eq!(normal(planner.table()), normal(objects.plan().table()));
        }
    }

    /// What is served before and after is served in between, and new changes may come at any time.
    #[test]
    fn however_little_a_turn_does_it_comes_to_the_same(
        batches in prop::collection::vec(
            (prop::collection::vec(change(), 1..6), 1usize..24, prop::option::of(0usize..4)), 1..20)
    ) {
        let (mut planner, mut objects) = (planner(), Objects::default());
        for (batch, work, turns) in batches {
            planner.set_work(work);
            let is_quiet = !planner.has_postponed();
            let before = frontends(&planner);
            for change in batch {
                objects.apply(&change);
                planner.apply(change);
            }
            let mut between = Vec::new();
            for _ in 0..turns.map_or(usize::MAX, |turns| turns + 1) {
                planner.plan();
                planner.remove_emptied();
                planner.committed();
                assert_no_dangling_references(planner.table());
                assert_sets_have_elements(&planner);
                if !planner.has_postponed() {
                    break;
                }
                between.push(frontends(&planner));
            }
            if planner.has_postponed() {
                continue;
            }
            while planner.has_unused() {
                planner.delete_unused();
            }
            let whole = objects.plan();
            prop_assert_eq!(normal(planner.table()), normal(whole.table()));
            if is_quiet {
                let after = frontends(&planner);
                for between in between {
                    let lost: Vec<_> = before.intersection(&after).filter(|f| !between.contains(*f)).collect();
                    prop_assert!(lost.is_empty(), "{:?}", lost);
                }
            }
        }
    }

    /// Whatever is asked, the explanation says what the evaluator finds with every number that can be drawn.
    #[test]
    fn explanations_agree_with_the_evaluator(
        changes in prop::collection::vec(change(), 1..40),
        family in prop_oneof![Just(Family::V4), Just(Family::V6)],
        numbers in prop::collection::vec((0u8..8, prop_oneof![0u8..6, 200u8..204], 0u16..5, 0usize..3, 0u8..13), 1..30),
    ) {
        let mut objects = Objects::default();
        changes.iter().for_each(|change| objects.apply(change));
        let planner = objects.plan();
        let node: IpAddr = match family {
            Family::V4 => "198.51.100.7".parse().unwrap(),
            Family::V6 => "2001:db8::7".parse().unwrap(),
        };
        let is_local = |address: IpAddr| address == node || address.is_loopback();
        for (from, number, port, protocol, client) in numbers {
            let protocol = Protocol::ALL[protocol];
            let (address, port) = match number {
                5 => (node, 30000 + port),
                number => (vip(family, number), port),
            };
            let (source, interface) = match from {
                0..=3 => (pod(family, client), Some("veth".to_owned())),
                4..=5 => (node, None),
                _ => (vip(family, 250), Some("eth0".to_owned())),
            };
            let client = explain::Origin { address: source, interface: interface.clone() };
            let question = explain::Question { address, port, protocol, client: Some(client) };
            let answer = explain::explain(&planner, &is_local, &question);
            let explained = &answer.explanation.clients[0];
            let packet = evaluate::Packet {
                source,
                destination: address,
                protocol: protocol.number(),
                source_port: answer
                    .explanation
                    .frontend
                    .as_ref()
                    .filter(|frontend| frontend.balancing == "hash-client")
                    .map(|_| 0),
                port,
                input: interface,
            };
            let learned = evaluate::Learned::new();
            let found = evaluate::possibilities(planner.table(), &packet, &is_local, &learned).unwrap();
            let mut reached = Vec::new();
            for evaluate::Possibility { outcome, .. } in found {
                let fate = match outcome {
                    evaluate::Outcome::Rejected => explain::Fate::Refused,
                    evaluate::Outcome::Dropped => explain::Fate::Dropped,
                    evaluate::Outcome::Passed { destination, port, translated, masqueraded } => {
                        let to = SocketAddr::new(destination, port);
                        let exception = explained.exceptions.iter().find(|one| one.endpoint == to);
                        let source = exception.map_or(explained.source, |one| one.source);
                        prop_assert_eq!(source == explain::Source::Node, masqueraded, "{:?} {:?}", question, explained);
                        reached.push(to);
                        if translated { explain::Fate::Endpoint } else { explain::Fate::Untouched }
                    }
                };
                prop_assert_eq!(explained.fate, fate, "{:?} {:?}", question, answer);
            }
            if explained.fate == explain::Fate::Endpoint {
                reached.sort_unstable();
                reached.dedup();
                prop_assert_eq!(&reached, &explained.endpoints, "{:?}", question);
            }
            // Nobody is asked here; what is to be asked has to be something.
            prop_assert!(answer.expected.iter().all(|one| !one.elements.is_empty()) || reached.is_empty());
        }
    }

    /// What is said of each endpoint is what was done with it.
    #[test]
    fn reasons_agree_with_the_selection(
        changes in prop::collection::vec(change(), 1..40),
        zone in 0usize..3,
    ) {
        let mut objects = Objects::default();
        changes.iter().for_each(|change| objects.apply(change));
        let planner = objects.plan();
        let here = Here {
            node_name: NODE.into(),
            zone: [None, Some("a".into()), Some("b".into())][zone].clone(),
        };
        for there in planner.inspect_all() {
            for (port, family) in there.service.ports.iter().flat_map(|port| Family::BOTH.map(|f| (port, f))) {
                let wanted = select::Wanted { cluster: true, local: true };
                let endpoints = || (there.slices.iter(), there.service.weights.as_deref());
                let selection = select::select(port, family, endpoints(), &here, wanted, 1000);
                let judged = judge(port, family, endpoints(), &here, 1000);
                let in_use = |of: fn(&Judged<'_>) -> Why| -> Vec<Backend> {
                    judged.iter().filter(|one| of(one).is_in_use()).map(|one| one.backend).collect()
                };
                prop_assert_eq!(in_use(|one| one.cluster), selection.cluster.backends);
                prop_assert_eq!(in_use(|one| one.local), selection.local.backends);
            }
        }
    }

    #[test]
    fn an_object_less_changes_nothing_for_others(
        changes in prop::collection::vec(change(), 1..40),
        gone in 0u8..5,
    ) {
        let mut objects = Objects::default();
        changes.iter().for_each(|change| objects.apply(change));
        let whole = objects.plan();
        let name = ObjectName::new("default", format!("service-{gone}"));
        objects.apply(&Change::Service(name.clone(), None));
        let without = objects.plan();
        let owner = |planner: &Planner, set: &str, key: &Key| {
            planner.owner(layout::SetName::parse(set)?, key).cloned()
        };
        for (set, key, value) in owned(&whole).filter(|(set, key, _)| owner(&whole, set, key) != Some(name.clone())) {
            let there = without.table().set_id(&set).and_then(|id| without.table().get(id, &key));
            prop_assert_eq!(there, Some(&value), "{} {:?} without {}", set, key, name);
        }
        for (set, key, value) in owned(&without) {
            if owner(&whole, &set, &key) != Some(name.clone()) {
                let before = whole.table().set_id(&set).and_then(|id| whole.table().get(id, &key));
                prop_assert_eq!(before, Some(&value), "{} {:?} without {}", set, key, name);
            }
        }
    }
}

/// What clients can connect to.
fn frontends(planner: &Planner) -> HashSet<(Arc<str>, Key)> {
    let is_map = |set: &nft_table::Set| set.data == nft_table::SetData::Verdict;
    let maps = planner.table().sets().filter(|(_, set)| is_map(set));
    let keys = maps.flat_map(|(id, set)| {
        planner.table().elements(id).map(|(key, _)| (set.name.clone(), key.clone()))
    });
    keys.collect()
}

/// The elements that belong to a single Service.
fn owned(planner: &Planner) -> impl Iterator<Item = (Arc<str>, Key, Value)> {
    let of_set = |(id, set): (nft_table::SetId, &nft_table::Set)| {
        let elements = planner.table().elements(id);
        let owned = elements.filter(|(key, _)| planner.owner_of(id, key).is_some());
        let name = set.name.clone();
        owned.map(|(key, value)| (name.clone(), key.clone(), value.clone())).collect::<Vec<_>>()
    };
    planner.table().sets().flat_map(of_set).collect::<Vec<_>>().into_iter()
}
