//! What becomes of a client's connection: the planned table, evaluated for its first packet.

use super::frontend::{Found, is_localhost};
use super::report::{Client, Exception, Fate, Source};
use super::{Answer, Question};
use crate::model::{Algorithm, Protocol};
use crate::plan::layout::{Balancing, Kind, SetKind, SetName};
use crate::plan::{Backend, Masquerade, Planner, Route, kind_of_own_chain};
use ipnet::IpNet;
use nft_table::evaluate::{Decision, EvaluateError, Machine, Outcome, Packet, trace};
use nft_table::{Constant, Family, Key, Statement, Table};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

/// So many endpoints are looked at one by one: whoever writes EndpointSlices may write many of the node's own addresses.
const EXCEPTIONS: usize = 16;

/// Who connects, and how its packets come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub address: IpAddr,
    /// The interface its packets come in by; None: the node itself sends them.
    pub interface: Option<String>,
}

/// Adds what becomes of the client that was asked for, or of one of each kind that there is.
pub fn follow(
    planner: &Planner,
    is_local: &dyn Fn(IpAddr) -> bool,
    question: &Question,
    found: Option<&Found<'_>>,
    answer: &mut Answer,
) {
    let family = Family::of(&question.address);
    let origins = match &question.client {
        Some(origin) => vec![(String::new(), origin.clone())],
        None => examples(planner, is_local, family, question.address),
    };
    let mut passed = BTreeSet::new();
    // The endpoint of one client is known, where its address is all that counts.
    let hashes_client = found.and_then(|found| found.planned).is_some_and(|(plan, _)| {
        plan.algorithm == Algorithm::HashClient && question.client.is_some()
    });
    for (who, origin) in origins {
        let packet = Packet {
            source: origin.address,
            destination: question.address,
            protocol: question.protocol.number(),
            source_port: hashes_client.then_some(0),
            port: question.port,
            input: origin.interface.clone(),
        };
        let table = planner.table();
        let (outcome, decisions) = match follow_to(table, &packet, is_local, 0) {
            Ok(traced) => traced,
            Err(error) => {
                answer.explanation.notes.push(format!("The rules cannot be followed: {error}"));
                continue;
            }
        };
        let decisions = &decisions;
        let mut list = list(found, decisions);
        if let (true, Outcome::Passed { destination, port, .. }) = (hashes_client, &outcome) {
            list.retain(|(_, one)| (one.address, one.port) == (*destination, *port));
        }
        let fate = match outcome {
            Outcome::Passed { .. } if !list.is_empty() => Fate::Endpoint,
            Outcome::Passed { .. } => Fate::Untouched,
            Outcome::Rejected => Fate::Refused,
            Outcome::Dropped => Fate::Dropped,
        };
        let (source, exceptions) = source(table, &packet, is_local, &list, &outcome);
        let mut endpoints: Vec<SocketAddr> =
            list.iter().map(|(_, backend)| backend.socket_address()).collect();
        endpoints.sort_unstable();
        let is_example = !who.is_empty();
        let mut client = Client {
            who: if is_example { who } else { describe(planner, is_local, &origin) },
            // What stands for others says nothing.
            address: (!is_example).then_some(origin.address),
            interface: origin.interface.clone().filter(|_| !is_example),
            fate,
            endpoints,
            source,
            exceptions,
            reasons: Vec::new(),
            rules: decisions.iter().map(|decision| rule(table, decision)).collect(),
        };
        client.reasons = reasons(planner, found, &client, decisions);
        serve_localhost(planner, question, found, &origin, &mut client);
        for decision in decisions {
            let Some(chain) = table.chain(&decision.chain) else { continue };
            let maps = chain.rules.iter().flat_map(|rule| &rule.statements);
            let remembering = maps.filter_map(|statement| match statement {
                Statement::Dnat { map, .. } => table.set(table.set_id(map)?),
                _ => None,
            });
            let number = answer.explanation.clients.len();
            for set in remembering.filter(|set| set.flags.dynamic) {
                let key = Key::builder().address(packet.source).build();
                answer.remembered.push((number, set.clone(), key));
            }
            passed.insert(decision.chain.clone());
        }
        answer.explanation.clients.push(client);
    }
    answer.chains = passed.iter().filter_map(|name| planner.table().chain(name)).cloned().collect();
}

/// Follows a packet that draws this slot wherever something is drawn.
fn follow_to(
    table: &Table,
    packet: &Packet,
    is_local: &dyn Fn(IpAddr) -> bool,
    slot: usize,
) -> Result<(Outcome, Vec<Decision>), EvaluateError> {
    let slot = u32::try_from(slot).unwrap_or_default();
    let mut random = |below: u32| slot.min(below.saturating_sub(1));
    let mut machine = Machine { is_local, random: &mut random, learned: &mut HashMap::default() };
    trace(table, packet.clone(), &mut machine)
}

/// The endpoints that a balancing chain chose from, each with the first of its slots.
fn list(found: Option<&Found<'_>>, decisions: &[Decision]) -> Vec<(usize, Backend)> {
    let Some((plan, _)) = found.and_then(|found| found.planned) else { return Vec::new() };
    let mut kinds = decisions.iter().filter_map(|Decision { chain, .. }| {
        Balancing::parse(chain).map(|chain| chain.kind).or_else(|| kind_of_own_chain(chain))
    });
    let list = kinds.find_map(|kind| match kind {
        Kind::Cluster | Kind::NodePortCluster => Some(&plan.cluster[..]),
        Kind::Local | Kind::NodePortLocal => Some(&plan.local[..]),
        _ => None,
    });
    // A table for hashed flows has each many times.
    let mut seen = HashSet::new();
    let slots = list.unwrap_or_default().iter().copied().enumerate();
    slots.filter(|(_, backend)| seen.insert(*backend)).collect()
}

/// Whose address most endpoints see, and which see another one's: the client itself, and those on an address of this
/// node, which packets reach without leaving it.
fn source(
    table: &Table,
    packet: &Packet,
    is_local: &dyn Fn(IpAddr) -> bool,
    list: &[(usize, Backend)],
    outcome: &Outcome,
) -> (Source, Vec<Exception>) {
    let of = |outcome: &Outcome| match outcome {
        Outcome::Passed { masqueraded: true, .. } => Source::Node,
        _ => Source::Kept,
    };
    let seen_by = |slot: usize| {
        follow_to(table, packet, is_local, slot).map_or(Source::Kept, |(outcome, _)| of(&outcome))
    };
    let is_itself = |backend: &Backend| backend.address == packet.source;
    let is_special = |backend: &Backend| is_itself(backend) || is_local(backend.address);
    let usual = list.iter().find(|(_, backend)| !is_special(backend));
    let usual = usual.map_or_else(|| of(outcome), |(slot, _)| seen_by(*slot));
    let special = list.iter().filter(|(_, backend)| is_special(backend));
    let special = special.take(EXCEPTIONS);
    let exceptions = special.filter_map(|(slot, backend)| {
        let source = seen_by(*slot);
        let reason = if is_itself(backend) {
            "it is the client itself, and must not answer itself directly"
        } else {
            "it is on an address of this node: packets do not leave it"
        };
        let endpoint = backend.socket_address();
        (source != usual).then(|| Exception { endpoint, source, reason: reason.to_owned() })
    });
    (usual, exceptions.collect())
}

/// One client of each kind: with addresses that stand for all of it.
fn examples(
    planner: &Planner,
    is_local: &dyn Fn(IpAddr) -> bool,
    family: Family,
    destination: IpAddr,
) -> Vec<(String, Origin)> {
    let node = planner.node().and_then(|node| node.address(family));
    let first = || {
        let networks = planner.nodeport_networks().iter().map(IpNet::addr);
        networks.into_iter().find(|address| Family::of(address) == family)
    };
    let own = node.filter(|address| is_local(*address)).or_else(first);
    let own = if destination.is_loopback() { Some(destination) } else { own };
    let own = own.map(|address| ("this node".to_owned(), Origin { address, interface: None }));
    if destination.is_loopback() {
        return own.into_iter().collect();
    }
    let pods = planner.pods();
    let network = pods.network(family).filter(|network| network.prefix_len() > 0);
    let pod = match pods.interface() {
        Some(Constant::Interface(name)) => Some((any_of(family), name.to_string())),
        Some(Constant::InterfacePrefix(prefix)) => Some((any_of(family), format!("{prefix}0"))),
        // The last address is hardly ever a pod's, so that no endpoint is taken for its own client.
        _ => network.map(|network| (network.broadcast(), "a pod's".to_owned())),
    };
    let pod = pod.map(|(address, interface)| {
        ("a pod".to_owned(), Origin { address, interface: Some(interface) })
    });
    let outside = any_of(family);
    let outside = Origin { address: outside, interface: Some("the uplink".to_owned()) };
    pod.into_iter().chain(own).chain([("outside the cluster".to_owned(), outside)]).collect()
}

/// An address of documentation (RFC 5737, RFC 3849), which stands for any.
fn any_of(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([203, 0, 113, 254]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfffe]),
    }
}

fn describe(planner: &Planner, is_local: &dyn Fn(IpAddr) -> bool, origin: &Origin) -> String {
    let Some(interface) = &origin.interface else { return "this node".to_owned() };
    let pods = planner.pods();
    let is_pod = match pods.interface() {
        Some(Constant::Interface(name)) => **name == **interface,
        Some(Constant::InterfacePrefix(prefix)) => interface.starts_with(&**prefix),
        _ => {
            let network = pods.network(Family::of(&origin.address));
            network.is_some_and(|network| network.contains(&origin.address))
        }
    };
    match (is_pod, is_local(origin.address)) {
        (true, _) => "a pod".to_owned(),
        (false, true) => "this node".to_owned(),
        (false, false) => "outside the cluster".to_owned(),
    }
}

/// `chain: rule`, with what a verdict map said.
fn rule(table: &Table, decision: &Decision) -> String {
    let chain = table.chain(&decision.chain);
    let rule = chain.and_then(|chain| chain.rules.get(decision.rule));
    let text = rule.map(ToString::to_string).unwrap_or_default();
    match &decision.verdict {
        Some(verdict) => format!("{}: {text} -> {verdict}", decision.chain),
        None => format!("{}: {text}", decision.chain),
    }
}

/// Whether one of the rules that decided looks into a set of this kind.
fn looked_into(planner: &Planner, decisions: &[Decision], kind: SetKind) -> bool {
    let names = Family::BOTH.map(|family| SetName::new(kind, family).nft());
    decisions.iter().any(|decision| {
        let chain = planner.table().chain(&decision.chain);
        let rule = chain.and_then(|chain| chain.rules.get(decision.rule));
        rule.into_iter().flat_map(|rule| &rule.statements).any(|statement| match statement {
            Statement::InSet { set, negated: false, .. } => names.contains(set),
            _ => false,
        })
    })
}

fn reasons(
    planner: &Planner,
    found: Option<&Found<'_>>,
    client: &Client,
    decisions: &[Decision],
) -> Vec<String> {
    let planned = found.and_then(|found| found.planned);
    let looked_into = |kind| looked_into(planner, decisions, kind);
    let reason = match client.fate {
        Fate::Dropped if looked_into(SetKind::RestrictedServices) => {
            "the client is in none of the loadBalancerSourceRanges"
        }
        Fate::Dropped if looked_into(SetKind::ServiceCidrs) => "no Service has this address",
        Fate::Dropped => match planned.map(|(_, planned)| planned.route) {
            Some(Route::Drop) => {
                "internalTrafficPolicy is Local, and no endpoint on this node is ready"
            }
            Some(Route::ExternalLocal) => {
                "externalTrafficPolicy is Local, and no endpoint on this node is ready"
            }
            _ => "a rule drops it",
        },
        Fate::Refused if looked_into(SetKind::ClusterIps) => {
            "the address is a ClusterIP, and no Service port is there"
        }
        Fate::Refused => "the Service port has no endpoint that is ready",
        Fate::Untouched => "no Service has a part in it",
        Fate::Endpoint => return source_reasons(planner, found, client, decisions),
    };
    vec![reason.to_owned()]
}

/// Why the source is kept or is not.
fn source_reasons(
    planner: &Planner,
    found: Option<&Found<'_>>,
    client: &Client,
    decisions: &[Decision],
) -> Vec<String> {
    let planned = found.and_then(|found| found.planned).map(|(_, planned)| planned);
    let family = found.map_or(Family::V4, |found| found.frontend.family());
    let is_masqueraded = client.source == Source::Node;
    let reason = match (is_masqueraded, planned.map(|planned| planned.masquerade)) {
        (true, _) if looked_into(planner, decisions, SetKind::Hairpin) => {
            "the client is the endpoint itself, and must not answer itself directly"
        }
        (true, Some(Masquerade::Always)) => {
            "externalTrafficPolicy is Cluster: the answer has to come back by this node"
        }
        (true, Some(Masquerade::FromNode)) => "the node itself connects to an address from outside",
        (true, _) if planner.settings().masquerade_all => "masqueradeAll is on",
        (true, _) => "the client is no pod: the answer has to come back by this node",
        (false, Some(Masquerade::FromNode)) => "externalTrafficPolicy is Local",
        (false, Some(Masquerade::BySource)) if planner.pods().source(family).is_none() => {
            "nothing tells pods from others (detectLocal), so nobody's source is changed"
        }
        (false, Some(Masquerade::BySource)) => "the client is a pod",
        (false, _) => "no rule changes it",
    };
    vec![reason.to_owned()]
}

/// NodePorts on loopback addresses are served by the proxy itself, for TCP.
fn serve_localhost(
    planner: &Planner,
    question: &Question,
    found: Option<&Found<'_>>,
    origin: &Origin,
    client: &mut Client,
) {
    let is_served = question.protocol == Protocol::Tcp && is_localhost(planner, question.address);
    let Some((plan, planned)) = found.and_then(|found| found.planned) else { return };
    if !is_served || origin.interface.is_some() {
        return;
    }
    let list = match planned.route {
        Route::Cluster => &plan.cluster[..],
        Route::Local | Route::ExternalLocal => &plan.local,
        Route::Reject | Route::Drop => &[],
    };
    client.endpoints = list.iter().map(Backend::socket_address).collect();
    client.fate = if list.is_empty() { Fate::Refused } else { Fate::Endpoint };
    client.source = Source::Node;
    client.reasons = vec![if list.is_empty() {
        "nobody listens: no endpoint that the traffic policy allows is ready".to_owned()
    } else {
        "kube-proxy itself listens there and connects on, as no rule can do it on loopback"
            .to_owned()
    }];
}
