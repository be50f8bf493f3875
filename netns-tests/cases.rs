//! The case files of `tests/cases/` with real packets in a real kernel: see the README there.
//!
//! A packet that may reach one of several endpoints is sent until it has reached each of them. TCP connections that
//! a step opens stay open until the case ends, and have to answer after every change.

use crate::explained;
use kube_proxy::kernel::addresses::AddressWatch;
use kube_proxy::kernel::nft::Nft;
use kube_proxy::sync::Engine;
use nft_table::Family;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;
use test_support::cases::{
    Case, Expectation, Fate, Manifests, OUTSIDE, PODS, Probe, Protocol, REMOTE_PODS, SECOND_PORT,
    Served, Source, Step, Topology, read,
};
use test_support::lab::{Connection, Lab, Outcome, PORT, has_nft};

/// So many packets miss one of four endpoints once in 10^18 runs.
const PACKETS_MAX: usize = 150;
/// So many packets are sent where only one endpoint is expected.
const PACKETS_MIN: usize = 3;

test_support::case_files!(run);

fn run(file: &str) {
    if !has_nft() {
        return;
    }
    let mut labs: Vec<(Topology, Lab)> = Vec::new();
    for case in read(file) {
        let fits = |topology: &Topology| {
            let wiring = (&topology.bridge, &topology.interface_prefix);
            wiring == (&case.topology.bridge, &case.topology.interface_prefix)
        };
        if !labs.iter().any(|(topology, _)| fits(topology)) {
            let Some(lab) = build(&case.topology) else { return };
            labs.push((case.topology.clone(), lab));
        }
        let (_, lab) = labs.iter().find(|(topology, _)| fits(topology)).expect("just built");
        Run::new(lab, &case).all();
    }
}

/// Builds the lab that a topology describes.
fn build(topology: &Topology) -> Option<Lab> {
    let mut builder = Lab::builder().port(SECOND_PORT);
    builder = PODS.into_iter().fold(builder, |builder, pod| builder.pod(pod));
    builder = REMOTE_PODS.into_iter().fold(builder, |builder, pod| builder.remote_pod(pod));
    builder = OUTSIDE
        .into_iter()
        .fold(builder, |builder, (name, owned)| builder.outside_owning(name, owned));
    if let Some(bridge) = &topology.bridge {
        builder = builder.bridge(bridge);
    }
    if let Some(prefix) = &topology.interface_prefix {
        builder = builder.pod_interfaces(prefix);
    }
    let lab = builder.build()?;
    for host in &topology.hosts {
        let addresses = Family::BOTH.map(|family| lab.ip(&host.name, family));
        assert_eq!(addresses, host.addresses[..2], "{}", host.name);
        assert_eq!(lab.node_of(&host.name), host.node);
    }
    if topology.bridge.is_some() {
        for name in ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"] {
            lab.node().namespace.sysctl_if_there(name, "0");
        }
    }
    Some(lab)
}

/// One case.
struct Run<'l> {
    lab: &'l Lab,
    case: &'l Case,
    manifests: Manifests,
    engine: Engine<Nft>,
    open: Vec<Open<'l>>,
    /// Endpoints that got a name.
    names: BTreeMap<(Family, String), String>,
}

/// A connection that stays.
struct Open<'l> {
    probe: &'l Probe,
    connection: Connection<'l>,
    answer: Outcome,
}

impl<'l> Run<'l> {
    fn new(lab: &'l Lab, case: &'l Case) -> Run<'l> {
        for address in &case.topology.given {
            lab.node().netlink.address(link_of(*address), (*address).into());
        }
        let options = case.options();
        let nft = lab.node().namespace.run(|| Nft::open().expect("open an nftables socket"));
        Run {
            lab,
            case,
            manifests: Manifests::default(),
            engine: Engine::new(nft, options.settings, options.select_nodeports, true),
            open: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    fn all(mut self) {
        for (number, step) in self.case.steps.iter().enumerate() {
            self.enter(step);
            for probe in &step.probes {
                self.send(probe);
                let stays = matches!(probe.expected, Expectation::Served(_))
                    && probe.protocol == Protocol::Tcp
                    && number + 1 < self.case.steps.len();
                if stays {
                    let mut connection = self.lab.from(&probe.from).connect(probe.to);
                    let answer = connection.ask();
                    self.open.push(Open { probe, connection, answer });
                }
            }
        }
        // The next case finds the kernel as it was. The owner of the table has to go first.
        drop(self.engine);
        self.lab.nft(&["delete", "table", "inet", "kube-proxy"]);
        for address in &self.case.topology.given {
            self.lab.node().netlink.remove_address(link_of(*address), (*address).into());
        }
    }

    /// Makes the changes of a step.
    fn enter(&mut self, step: &Step) {
        for change in self.manifests.changes(&step.objects) {
            self.engine.apply(change);
        }
        let addresses = self.lab.node().namespace.run(|| {
            let (_watch, addresses) = AddressWatch::start(|_| {}).expect("read the addresses");
            addresses
        });
        self.engine.set_addresses(addresses);
        self.engine.sync().unwrap_or_else(|error| panic!("not committed: {error}"));
        while self.engine.forget_time().is_some() {
            self.engine.forget_clients(Instant::now());
        }
        for Open { probe, connection, answer } in &mut self.open {
            assert_eq!(connection.ask(), *answer, "an open connection, {probe}");
        }
    }

    fn send(&mut self, probe: &Probe) {
        match &probe.expected {
            Expectation::Fate(fate) => {
                let outcome = self.one(probe);
                let expected = self.fate(*fate, probe);
                assert_eq!(outcome, expected, "{probe}");
            }
            Expectation::Served(served) => self.send_until_all_are_seen(probe, served),
        }
    }

    fn send_until_all_are_seen(&mut self, probe: &Probe, served: &Served) {
        let name = |name: &String| (probe.family(), name.clone());
        let expected: BTreeSet<String> = match &served.same {
            Some(same) => BTreeSet::from([self.names[&name(same)].clone()]),
            None => served.endpoints.iter().cloned().collect(),
        };
        let mut seen = BTreeSet::new();
        for number in 1..=PACKETS_MAX {
            let outcome = self.one(probe);
            let Outcome::Reached { endpoint, source } = outcome else {
                panic!("{probe}: {outcome:?}, expected {expected:?}");
            };
            assert!(expected.contains(&endpoint), "{probe}: {endpoint} instead of {expected:?}");
            self.check_source(probe, served.source, source);
            seen.insert(endpoint.clone());
            if let Some(sticks) = &served.sticks {
                self.names.insert(name(sticks), endpoint);
                return;
            }
            if seen == expected && number >= PACKETS_MIN {
                return;
            }
        }
        panic!("{probe}: reached {seen:?} only, not all of {expected:?}");
    }

    fn check_source(&self, probe: &Probe, expected: Option<Source>, seen: IpAddr) {
        let kept = seen == probe.source(&self.case.topology);
        let of_node = self.case.topology.is_local(seen);
        let right = match expected {
            // What the node itself sends comes from the node in any case.
            _ if probe.from == "node" => of_node,
            None => kept || of_node,
            Some(Source::Kept) => kept,
            Some(Source::Node) => of_node,
        };
        assert!(right, "{probe}: seen to come from {seen}, expected {expected:?}");
    }

    /// Sends a packet from a port of its own, so that it is the first of a flow.
    fn one(&self, probe: &Probe) -> Outcome {
        let client = self.lab.from(&probe.from);
        // Before the packet, which may have it remember the client.
        let protocol = match probe.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
            Protocol::Icmp => return client.ping(probe.to.ip()),
        };
        let source = probe.source(&self.case.topology);
        let explained =
            explained::explain(self.lab, self.engine.view(), source, protocol, probe.to);
        let outcome = match probe.protocol {
            Protocol::Tcp => client.port(free_port()).tcp(probe.to),
            Protocol::Udp => client.port(free_port()).udp(probe.to),
            _ => client.port(free_port()).sctp(probe.to),
        };
        explained::agrees(self.lab, source, &explained, &outcome);
        outcome
    }

    fn fate(&self, fate: Fate, probe: &Probe) -> Outcome {
        let source = probe.source(&self.case.topology);
        match fate {
            // TCP is refused by a reset, everything else by "port unreachable".
            Fate::Refused if probe.protocol == Protocol::Tcp => Outcome::Reset,
            Fate::Refused => Outcome::Refused,
            Fate::Dropped => Outcome::TimedOut,
            Fate::Untouched => match (self.case.topology.owner(probe.to.ip()), probe.protocol) {
                (None, _) => Outcome::Untouched { source },
                (Some(owner), Protocol::Icmp) => Outcome::reached(owner, probe.to.ip()),
                (Some(owner), _) if probe.to.port() == PORT => Outcome::reached(owner, source),
                // Nobody listens there.
                (Some(_), Protocol::Udp) => Outcome::Refused,
                (Some(_), _) => Outcome::Reset,
            },
        }
    }
}

/// A source port that no other packet has had for a long time.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000
}

/// The interface for an address: the uplink for one of its network, which neighbours ask for, else loopback.
fn link_of(address: IpAddr) -> u32 {
    let text = address.to_string();
    if text.starts_with("192.0.2.") || text.starts_with("2001:db8::") { 2 } else { 1 }
}
