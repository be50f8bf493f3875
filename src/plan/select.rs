//! Which endpoints a Service port may use on this node.
//!
//! The rules are those of kube-proxy's `CategorizeEndpoints` (KEP-1669 for terminating endpoints,
//! KEP-2433 and KEP-5495 for hints).

use crate::model::{Description, Endpoint, EndpointSlice, ServicePort, Weights};
use nft_table::Family;
use nft_table::{Data, Value};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// An address and port that connections are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
}

impl Backend {
    /// The backend as data of a map.
    pub fn to_value(&self) -> Value {
        Value::Data(Data::address_port(self.address, self.port))
    }

    /// Reads it back; None of what is no address with a port.
    pub fn of_value(value: &Value) -> Option<Backend> {
        let Value::Data(data) = value else { return None };
        let (address, [high, low, _, _]) = data.bytes().split_last_chunk()?;
        let address = match <[u8; 4]>::try_from(address) {
            Ok(octets) => IpAddr::from(octets),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        };
        Some(Backend { address, port: u16::from_be_bytes([*high, *low]) })
    }

    pub const fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// Where this proxy runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    pub node_name: Arc<str>,
    pub zone: Option<Arc<str>>,
}

/// Which lists a Service port needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub cluster: bool,
    pub local: bool,
}

/// Endpoints that share connections, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    pub backends: Vec<Backend>,
    /// What each weighs, never 0; empty: all have the same.
    pub weights: Vec<u32>,
    /// Terminating endpoints beside ready ones, with what they weigh: new connections do not go there, but those of others
    /// may.
    pub draining: Vec<(Backend, u32)>,
}

impl List {
    fn of(candidates: &[Candidate<'_>], draining: Vec<(Backend, u32)>) -> List {
        let mut weights: Vec<u32> = candidates.iter().map(|c| c.weight).collect();
        let mut all = weights.iter().chain(draining.iter().map(|(_, weight)| weight));
        if all.all(|weight| Some(weight) == weights.first()) {
            weights = Vec::new();
        }
        List { backends: candidates.iter().map(|c| c.backend).collect(), weights, draining }
    }

    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }
}

/// The endpoints of a Service port in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// For policy Cluster: ready endpoints that topology allows, else all serving terminating ones.
    pub cluster: List,
    /// For policy Local: ready endpoints on this node, else the serving terminating ones on this node.
    pub local: List,
    /// Whether there is a usable endpoint on any node.
    pub anywhere: bool,
    /// Addresses of selected endpoints that are, or may be, on this node.
    pub hairpin: Vec<IpAddr>,
    /// All endpoints that serve, ready or terminating, whatever policies and topology say: flows to
    /// them are left alone.
    pub serving: Vec<Backend>,
    /// All endpoints that are in a slice.
    pub listed: Vec<Backend>,
}

impl Selection {
    /// Keeps so many endpoints of each list; whether there were more.
    pub fn truncate(&mut self, most: usize) -> bool {
        let mut is_cut = false;
        for list in [&mut self.cluster, &mut self.local] {
            is_cut |= list.backends.len() > most;
            list.backends.truncate(most);
            list.weights.truncate(most);
        }
        is_cut
    }
}

/// An endpoint with the port that the Service port resolves to in its slice.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    backend: Backend,
    endpoint: &'a Endpoint,
    weight: u32,
}

impl Candidate<'_> {
    /// One with weight 0 is there for the connections that it has.
    fn ready(&self) -> bool {
        self.endpoint.conditions.ready && self.weight > 0
    }

    fn serving_terminating(&self) -> bool {
        self.endpoint.conditions.serving && self.endpoint.conditions.terminating && self.weight > 0
    }

    fn is_on(&self, node: &str) -> bool {
        self.endpoint.node_name.as_deref() == Some(node)
    }
}

/// Selects the endpoints of a Service port from the slices of its Service, in order of their names. Of very many only
/// the first `most` are looked at.
pub fn select<'a>(
    port: &ServicePort,
    family: Family,
    (slices, weights): (impl Iterator<Item = &'a EndpointSlice>, Option<&Weights>),
    here: &Here,
    wanted: Wanted,
    most: usize,
) -> Selection {
    let candidates = candidates(port, family, (slices, weights), here, most);
    let topology = Topology::of(&candidates, here);
    let mut cluster = Vec::new();
    if wanted.cluster {
        cluster.extend(
            candidates.iter().filter(|c| c.ready() && topology.allows(c.endpoint)).copied(),
        );
        if cluster.is_empty() {
            cluster.extend(candidates.iter().filter(|c| c.serving_terminating()).copied());
        }
    }
    let mut local = Vec::new();
    if wanted.local {
        let here = || candidates.iter().filter(|c| c.is_on(&here.node_name));
        local.extend(here().filter(|c| c.ready()).copied());
        if local.is_empty() {
            local.extend(here().filter(|c| c.serving_terminating()).copied());
        }
    }
    let usable = |c: &Candidate<'_>| c.ready() || c.serving_terminating();
    let anywhere = !cluster.is_empty() || (wanted.local && candidates.iter().any(usable));
    let may_be_here =
        |c: &&Candidate<'_>| c.endpoint.node_name.is_none() || c.is_on(&here.node_name);
    let mut hairpin: Vec<IpAddr> =
        cluster.iter().chain(&local).filter(may_be_here).map(|c| c.backend.address).collect();
    hairpin.sort_unstable();
    hairpin.dedup();
    let serves = |c: &&Candidate<'_>| c.endpoint.conditions.ready || c.endpoint.conditions.serving;
    let serving = candidates.iter().filter(serves);
    // Where nothing else is left, those that terminate are the list.
    let draining = |list: &[Candidate<'_>], is_in: &dyn Fn(&Candidate<'_>) -> bool| {
        let is_used = list.iter().any(|c| c.ready());
        let terminating =
            candidates.iter().filter(|c| is_used && c.endpoint.conditions.terminating);
        let leaving = terminating.filter(|c| !c.ready() && c.weight > 0 && is_in(c));
        leaving.map(|c| (c.backend, c.weight)).collect::<Vec<_>>()
    };
    let all = draining(&cluster, &|c| topology.allows(c.endpoint));
    let here = draining(&local, &|c| c.is_on(&here.node_name));
    Selection {
        serving: serving.map(|c| c.backend).collect(),
        listed: candidates.iter().map(|c| c.backend).collect(),
        cluster: List::of(&cluster, all),
        local: List::of(&local, here),
        anywhere,
        hairpin,
    }
}

/// Why an endpoint is in a list, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    InUse,
    /// It is terminating and serves, and nothing else is left.
    InUseTerminating,
    NotReady,
    /// It is terminating; others are ready.
    Terminating,
    /// The hints of all endpoints name nodes, and its own not this one.
    NodeHint,
    /// The hints of all endpoints name zones, and its own not this one.
    ZoneHint,
    /// It is not on this node.
    OtherNode,
    /// Its weight is 0.
    NoWeight,
}

impl Why {
    pub const fn is_in_use(self) -> bool {
        matches!(self, Why::InUse | Why::InUseTerminating)
    }
}

/// An endpoint, and whether it is in the list of policy Cluster, and in that of policy Local.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    pub backend: Backend,
    pub endpoint: &'a Endpoint,
    pub weight: u32,
    pub cluster: Why,
    pub local: Why,
}

/// What `select` makes of each endpoint, with the reasons; of very many, the first `most`.
pub fn judge<'a>(
    port: &ServicePort,
    family: Family,
    slices: (impl Iterator<Item = &'a EndpointSlice>, Option<&Weights>),
    here: &Here,
    most: usize,
) -> Vec<Judged<'a>> {
    let candidates = candidates(port, family, slices, here, most);
    let topology = Topology::of(&candidates, here);
    let is_chosen = |c: &Candidate<'_>| c.ready() && topology.allows(c.endpoint);
    let has_cluster = candidates.iter().any(is_chosen);
    let is_here = |c: &Candidate<'_>| c.is_on(&here.node_name);
    let has_local = candidates.iter().any(|c| c.ready() && is_here(c));
    let unready = |c: &Candidate<'_>, others: bool| match c.endpoint.conditions.terminating {
        _ if c.weight == 0 && (c.endpoint.conditions.ready || c.endpoint.conditions.serving) => {
            Why::NoWeight
        }
        true if others => Why::Terminating,
        true if c.endpoint.conditions.serving => Why::InUseTerminating,
        _ => Why::NotReady,
    };
    let judged = candidates.iter().map(|c| Judged {
        backend: c.backend,
        endpoint: c.endpoint,
        weight: c.weight,
        cluster: match (c.ready(), &topology) {
            (false, _) => unready(c, has_cluster),
            (true, topology) if topology.allows(c.endpoint) => Why::InUse,
            (true, Topology::SameNode(_)) => Why::NodeHint,
            (true, _) => Why::ZoneHint,
        },
        local: match c.ready() {
            _ if !is_here(c) => Why::OtherNode,
            true => Why::InUse,
            false => unready(c, has_local),
        },
    });
    judged.collect()
}

/// All endpoints of the port, sorted and each once: of several entries with the same address and port
/// the one that is not terminating, then the one on this node, then the first.
fn candidates<'a>(
    port: &ServicePort,
    family: Family,
    (slices, weights): (impl Iterator<Item = &'a EndpointSlice>, Option<&Weights>),
    here: &Here,
    most: usize,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for slice in slices.filter(|slice| slice.family == family) {
        let Some(number) = slice.port(&port.name, port.protocol) else { continue };
        let room = most - candidates.len();
        let endpoints = slice.endpoints.iter().enumerate().take(room);
        candidates.extend(endpoints.map(|(place, endpoint)| Candidate {
            backend: Backend { address: endpoint.address, port: number },
            endpoint,
            weight: weight(slice, place, weights),
        }));
    }
    // Stable, so that the order of slices decides last.
    candidates
        .sort_by_key(|c| (c.backend, c.endpoint.conditions.terminating, !c.is_on(&here.node_name)));
    candidates.dedup_by_key(|c| c.backend);
    candidates
}

/// What an endpoint weighs: what its slice says, or its Service, or 1.
fn weight(slice: &EndpointSlice, place: usize, weights: Option<&Weights>) -> u32 {
    if slice.described.is_empty() && weights.is_none() {
        return 1;
    }
    let nothing = Description::default();
    let described = slice.described.get(place).unwrap_or(&nothing);
    let node = slice.endpoints[place].node_name.as_deref();
    described.weight.or_else(|| weights?.of(described, node)).unwrap_or(1)
}

/// How hints narrow the cluster list.
enum Topology<'a> {
    Everywhere,
    SameNode(&'a str),
    SameZone(&'a str),
}

impl<'a> Topology<'a> {
    /// Hints count only when every ready endpoint has one and at least one names this node (or zone):
    /// anything else means that the hints are not complete or not for here.
    fn of(candidates: &[Candidate<'_>], here: &'a Here) -> Topology<'a> {
        let ready = || candidates.iter().filter(|c| c.ready()).map(|c| c.endpoint);
        let node = &here.node_name;
        if ready().all(|e| !e.node_hints().is_empty())
            && ready().any(|e| e.node_hints().contains(node))
        {
            return Topology::SameNode(node);
        }
        if let Some(zone) = &here.zone
            && ready().all(|e| !e.zone_hints().is_empty())
            && ready().any(|e| e.zone_hints().contains(zone))
        {
            return Topology::SameZone(zone);
        }
        Topology::Everywhere
    }

    fn allows(&self, endpoint: &Endpoint) -> bool {
        match self {
            Topology::Everywhere => true,
            Topology::SameNode(node) => endpoint.node_hints().iter().any(|hint| &**hint == *node),
            Topology::SameZone(zone) => endpoint.zone_hints().iter().any(|hint| &**hint == *zone),
        }
    }
}
