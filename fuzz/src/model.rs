//! Where a packet should go: what the documentation of Services says, in as few words as possible. Nothing here is
//! taken from the plan or from its table; a packet is asked about, and everything is worked out from the objects.

use crate::cluster::{NODE, node_address};
use kube_proxy::model::{
    Endpoint, EndpointSlice, Family, Node, ObjectName, Protocol, Service, ServicePort,
};
use kube_proxy::plan::{DetectLocal, Settings};
use nft_table::evaluate::Packet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

type Backend = (IpAddr, u16);

/// The objects that there are.
#[derive(Debug, Default)]
pub struct Objects {
    pub services: BTreeMap<ObjectName, Service>,
    pub slices: BTreeMap<ObjectName, EndpointSlice>,
    pub node: Option<Node>,
    pub has_service_cidrs: bool,
}

/// What should become of a packet.
#[derive(Debug, PartialEq)]
pub enum Expected {
    Rejected,
    Dropped,
    Untouched,
    /// It reaches one of these, each as likely as any other.
    Served {
        backends: BTreeSet<Backend>,
        masquerade: Masquerade,
        sticks: bool,
    },
}

/// Whether an endpoint sees the node instead of the client.
#[derive(Debug, PartialEq)]
pub enum Masquerade {
    Always,
    /// Only those that reach themselves, of these addresses.
    Hairpin(BTreeSet<IpAddr>),
}

/// A way to a Service port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Address(IpAddr, u16),
    NodePort(u16),
}

pub fn is_local(address: IpAddr) -> bool {
    let family = Family::of(&address);
    address.is_loopback() || address == node_address(family)
}

pub struct Model<'a> {
    pub settings: &'a Settings,
    pub objects: &'a Objects,
}

impl<'a> Model<'a> {
    pub fn expect(&self, packet: &Packet) -> Expected {
        let family = Family::of(&packet.destination);
        let protocol = Protocol::ALL.into_iter().find(|p| p.number() == packet.protocol);
        if let Some(protocol) = protocol {
            let by_address = Way::Address(packet.destination, packet.port);
            if let Some((service, port)) = self.owner(by_address, protocol, family) {
                let is_cluster_ip = service.cluster_ip(family) == Some(packet.destination);
                if !is_cluster_ip && !self.may_connect(service, packet) {
                    return Expected::Dropped;
                }
                let expected = match is_cluster_ip {
                    true => self.internal(service, port, packet),
                    false => self.external(service, port, packet),
                };
                // What nobody serves may still be a NodePort.
                if is_cluster_ip || expected != Expected::Rejected {
                    return expected;
                }
                return self.nodeport(packet, protocol).unwrap_or(expected);
            }
        }
        let to_loopback = packet.input.is_none() && packet.destination.is_loopback();
        if let Some(protocol) = protocol {
            if to_loopback && self.settings.localhost_nodeports.contains(&family) {
                let there = self.owner(Way::NodePort(packet.port), protocol, family);
                let is_refused = there.is_some() && protocol != Protocol::Tcp;
                return if is_refused { Expected::Rejected } else { Expected::Untouched };
            }
            if let Some(expected) = self.nodeport(packet, protocol) {
                return expected;
            }
        }
        self.nobody(packet, family)
    }

    /// What has no frontend.
    fn nobody(&self, packet: &Packet, family: Family) -> Expected {
        let mut services = self.objects.services.values();
        if services.any(|service| service.cluster_ip(family) == Some(packet.destination)) {
            return Expected::Rejected;
        }
        let in_cidr = match packet.destination {
            IpAddr::V4(address) => address.octets()[..2] == [10, 96],
            IpAddr::V6(address) => address.segments()[..2] == [0xfd00, 0x96],
        };
        match in_cidr && self.objects.has_service_cidrs {
            true => Expected::Dropped,
            false => Expected::Untouched,
        }
    }

    fn nodeport(&self, packet: &Packet, protocol: Protocol) -> Option<Expected> {
        let family = Family::of(&packet.destination);
        let to_node = packet.destination == node_address(family);
        let way = Way::NodePort(packet.port);
        let (service, port) = self.owner(way, protocol, family).filter(|_| to_node)?;
        Some(self.external(service, port, packet))
    }

    /// Who claims a way for the best reason has it, of several the oldest Service, with the first of its ports that does.
    fn owner(
        &self,
        way: Way,
        protocol: Protocol,
        family: Family,
    ) -> Option<(&'a Service, &'a ServicePort)> {
        let port = |service: &'a Service| {
            let cluster_ip = service.cluster_ip(family)?;
            let has = |address: &IpAddr| {
                *address == cluster_ip
                    || service.external_ips.contains(address)
                    || service.load_balancer_ips.contains(address)
            };
            let leads_to = |port: &&ServicePort| match way {
                Way::Address(address, number) => has(&address) && port.port == number,
                Way::NodePort(number) => port.node_port == Some(number),
            };
            service.ports.iter().filter(|port| port.protocol == protocol).find(leads_to)
        };
        let claims = self.objects.services.values().filter_map(|s| Some((s, port(s)?)));
        let reason = |service: &Service| match way {
            Way::Address(address, _) if service.cluster_ips.contains(&address) => 0,
            Way::Address(address, _) if service.load_balancer_ips.contains(&address) => 1,
            Way::Address(..) => 2,
            Way::NodePort(_) => 0,
        };
        claims.min_by_key(|(service, _)| (reason(service), service.created, &service.name))
    }

    /// loadBalancerSourceRanges.
    fn may_connect(&self, service: &Service, packet: &Packet) -> bool {
        if !service.load_balancer_ips.contains(&packet.destination) {
            return true;
        }
        let family = Family::of(&packet.destination);
        let ranges = || service.source_ranges.iter().filter(|r| Family::of(&r.addr()) == family);
        let allows = |address| ranges().any(|range| range.contains(&address));
        let node = self.objects.node.as_ref().and_then(|node| node.address(family));
        // A node that may connect may do so with the load balancer's address as its source.
        let as_balancer =
            || node.is_some_and(allows) && service.load_balancer_ips.contains(&packet.source);
        let is_open = ranges().next().is_none() && !service.unreadable_ranges.contains(&family);
        is_open || allows(packet.source) || as_balancer()
    }

    fn internal(&self, service: &Service, port: &ServicePort, packet: &Packet) -> Expected {
        let endpoints = Endpoints::of(self.objects, service, port, Family::of(&packet.destination));
        let backends = match service.internal_local {
            _ if endpoints.usable().is_empty() => return Expected::Rejected,
            true => endpoints.here(),
            false => endpoints.cluster(self.objects),
        };
        let masquerade = match self.is_pod(packet) {
            _ if self.settings.masquerade_all => Masquerade::Always,
            Some(false) => Masquerade::Always,
            Some(true) | None => Masquerade::Hairpin(self.hairpin(packet)),
        };
        served(service, backends, masquerade)
    }

    fn external(&self, service: &Service, port: &ServicePort, packet: &Packet) -> Expected {
        let endpoints = Endpoints::of(self.objects, service, port, Family::of(&packet.destination));
        if endpoints.usable().is_empty() {
            return Expected::Rejected;
        }
        if !service.external_local {
            return served(service, endpoints.cluster(self.objects), Masquerade::Always);
        }
        let masquerade = match is_local(packet.source) {
            true => Masquerade::Always,
            false => Masquerade::Hairpin(self.hairpin(packet)),
        };
        if is_local(packet.source) || self.is_pod(packet) == Some(true) {
            return served(service, endpoints.cluster(self.objects), masquerade);
        }
        served(service, endpoints.here(), masquerade)
    }

    /// Whether a packet comes from a pod; None where nothing tells.
    fn is_pod(&self, packet: &Packet) -> Option<bool> {
        let input = packet.input.as_deref().unwrap_or_default();
        let family = Family::of(&packet.source);
        let first = |networks: &[ipnet::IpNet]| {
            let network = networks.iter().find(|network| Family::of(&network.addr()) == family)?;
            Some(network.contains(&packet.source))
        };
        match &self.settings.detect_local {
            DetectLocal::ClusterCidr(networks) => first(networks),
            DetectLocal::NodeCidr => first(&self.objects.node.as_ref()?.pod_cidrs),
            DetectLocal::BridgeInterface(name) => Some(input == name),
            DetectLocal::InterfaceNamePrefix(prefix) => Some(input.starts_with(&**prefix)),
        }
    }

    /// The source, if it is an endpoint that any Service port on this node may lead to.
    fn hairpin(&self, packet: &Packet) -> BTreeSet<IpAddr> {
        let family = Family::of(&packet.source);
        let mut addresses = BTreeSet::new();
        for service in self.objects.services.values() {
            for port in service.ports.iter().filter(|port| self.is_served(service, port, family)) {
                let endpoints = Endpoints::of(self.objects, service, port, family);
                let external = service.external_local && service.externally_accessible();
                let mut reached = BTreeSet::new();
                if !service.internal_local || service.externally_accessible() {
                    reached.extend(endpoints.cluster(self.objects));
                }
                if service.internal_local || external {
                    reached.extend(endpoints.here());
                }
                let may_be_here = endpoints.0.iter().filter(|(backend, endpoint)| {
                    reached.contains(*backend)
                        && endpoint.node_name.as_deref().is_none_or(|name| name == NODE)
                });
                addresses.extend(may_be_here.map(|((address, _), _)| *address));
            }
        }
        addresses.retain(|address| *address == packet.source);
        addresses
    }

    /// Whether a Service port has any way of a family.
    fn is_served(&self, service: &Service, port: &ServicePort, family: Family) -> bool {
        let addresses = service.cluster_ips.iter().chain(&service.external_ips);
        let addresses = addresses.chain(&service.load_balancer_ips);
        let of_family = addresses.filter(|address| Family::of(address) == family);
        let ways = of_family.map(|address| Way::Address(*address, port.port));
        let mut ways = ways.chain(port.node_port.map(Way::NodePort));
        ways.any(|way| {
            self.owner(way, port.protocol, family).is_some_and(|(owner, owner_port)| {
                (&owner.name, &owner_port.name) == (&service.name, &port.name)
            })
        })
    }
}

fn served(service: &Service, backends: BTreeSet<Backend>, masquerade: Masquerade) -> Expected {
    match backends.is_empty() {
        true => Expected::Dropped,
        false => Expected::Served { backends, masquerade, sticks: service.affinity.is_some() },
    }
}

/// The endpoints of a Service port, each once.
struct Endpoints<'a>(BTreeMap<Backend, &'a Endpoint>);

impl<'a> Endpoints<'a> {
    fn of(
        objects: &'a Objects,
        service: &Service,
        port: &ServicePort,
        family: Family,
    ) -> Endpoints<'a> {
        let is_its =
            |slice: &&EndpointSlice| slice.service_name() == service.name && slice.family == family;
        let mut endpoints: BTreeMap<Backend, &Endpoint> = BTreeMap::new();
        for slice in objects.slices.values().filter(is_its) {
            let number =
                slice.ports.iter().find(|p| (&p.name, p.protocol) == (&port.name, port.protocol));
            let Some(number) = number else { continue };
            for endpoint in &slice.endpoints {
                // One that stays counts before one that goes, then one that is here.
                let rank = |e: &Endpoint| (e.conditions.terminating, !is_here(e));
                let place = endpoints.entry((endpoint.address, number.port)).or_insert(endpoint);
                if rank(endpoint) < rank(place) {
                    *place = endpoint;
                }
            }
        }
        // The only weight of 0 that there is: it gets nothing new.
        if service.weights.is_some() {
            endpoints.retain(|_, endpoint| endpoint.node_name.as_deref() != Some("node-2"));
        }
        Endpoints(endpoints)
    }

    fn filter(&self, allows: impl Fn(&Endpoint) -> bool) -> BTreeSet<Backend> {
        let allowed = self.0.iter().filter(|(_, endpoint)| allows(endpoint));
        allowed.map(|(backend, _)| *backend).collect()
    }

    fn usable(&self) -> BTreeSet<Backend> {
        self.filter(|endpoint| is_ready(endpoint) || is_ending(endpoint))
    }

    /// On this node: who is ready, else who ends but still serves.
    fn here(&self) -> BTreeSet<Backend> {
        let ready = self.filter(|endpoint| is_here(endpoint) && is_ready(endpoint));
        if !ready.is_empty() {
            return ready;
        }
        self.filter(|endpoint| is_here(endpoint) && is_ending(endpoint))
    }

    /// Of all nodes, but for what hints say if all who are ready have them and one is meant for here.
    fn cluster(&self, objects: &Objects) -> BTreeSet<Backend> {
        let ready = self.filter(is_ready);
        if ready.is_empty() {
            return self.filter(is_ending);
        }
        let zone = objects.node.as_ref().and_then(|node| node.zone.as_deref());
        let of_nodes = |e: &Endpoint| e.node_hints().iter().map(|hint| hint.to_string()).collect();
        let of_zones = |e: &Endpoint| e.zone_hints().iter().map(|hint| hint.to_string()).collect();
        let narrow = |hints: &dyn Fn(&Endpoint) -> Vec<String>, here: &str| {
            let without = self.filter(|e| is_ready(e) && hints(e).is_empty());
            let meant = self.filter(|e| is_ready(e) && hints(e).iter().any(|hint| hint == here));
            (without.is_empty() && !meant.is_empty()).then_some(meant)
        };
        narrow(&of_nodes, NODE)
            .or_else(|| zone.and_then(|zone| narrow(&of_zones, zone)))
            .unwrap_or(ready)
    }
}

fn is_here(endpoint: &Endpoint) -> bool {
    endpoint.node_name.as_deref() == Some(NODE)
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.ready
}

fn is_ending(endpoint: &Endpoint) -> bool {
    endpoint.conditions.serving && endpoint.conditions.terminating
}
