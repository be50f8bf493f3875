//! A Service, reduced to what a proxy needs.

use super::{Family, Limits, ObjectName, Weights};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A transport protocol that a Service port may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// All that a Service port can have.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// The IANA protocol number, as in `/etc/protocols` and in nft's `inet_proto`.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The protocol as nft spells it.
    pub const fn nft(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// Reads Kubernetes' spelling (`TCP`, `UDP`, `SCTP`).
    pub fn parse(text: &str) -> Option<Protocol> {
        match text {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    /// As Kubernetes writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

/// `spec.type`. ExternalName Services never get this far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Port name, "" for the only port of a Service.
    pub name: Arc<str>,
    pub protocol: Protocol,
    /// Port on every VIP; never 0.
    pub port: u16,
    /// Port on the node's addresses, where the Service has one.
    pub node_port: Option<u16>,
}

/// How new connections are spread over endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// Each by chance.
    #[default]
    Random,
    /// By the client's address: the same one goes to the same endpoint, through whatever node.
    HashClient,
    /// By the client's address and port: every node sends a connection to the same endpoint.
    HashFlow,
    /// One after the other.
    RoundRobin,
}

/// Entries that a table for hashed flows may have: primes.
pub const TABLE_SIZES: [u16; 4] = [251, 1021, 4093, 16_381];

impl Algorithm {
    pub const ALL: [Algorithm; 4] =
        [Algorithm::Random, Algorithm::RoundRobin, Algorithm::HashClient, Algorithm::HashFlow];

    /// As annotations, flags and chains have it.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Random => "random",
            Algorithm::HashClient => "hash-client",
            Algorithm::HashFlow => "hash-flow",
            Algorithm::RoundRobin => "round-robin",
        }
    }

    /// Whether a slot is chosen by what a packet holds.
    pub const fn is_hash(self) -> bool {
        matches!(self, Algorithm::HashClient | Algorithm::HashFlow)
    }

    /// The counterpart of a scheduler of IPVS, where there is one.
    pub fn of_ipvs(scheduler: &str) -> Option<Algorithm> {
        match scheduler {
            "rr" | "wrr" => Some(Algorithm::RoundRobin),
            "sh" | "mh" => Some(Algorithm::HashClient),
            _ => None,
        }
    }

    /// Reads it back.
    pub fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A Service that this proxy serves: it has a ClusterIP and is neither headless, ExternalName nor
/// another proxy's (`service.kubernetes.io/service-proxy-name`).
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: ObjectName,
    /// `metadata.creationTimestamp` in seconds since 1970; `i64::MAX` when there is none, so that a
    /// Service without a date loses against every Service with one.
    pub created: i64,
    pub service_type: ServiceType,
    /// At most one per family (`spec.clusterIPs`).
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`; empty when the feature gate AllowServiceExternalIPs is off.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` with ipMode nil or `VIP`.
    pub load_balancer_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `spec.externalTrafficPolicy: Local`, where it counts: type NodePort or LoadBalancer, or
    /// externalIPs are set.
    pub external_local: bool,
    /// `sessionAffinity: ClientIP` with its `sessionAffinityConfig.clientIP.timeoutSeconds`.
    pub affinity: Option<Duration>,
    /// How connections are spread over endpoints; None: as the configuration says.
    pub algorithm: Option<Algorithm>,
    /// Which endpoints get more connections than others, besides what slices say of theirs.
    pub weights: Option<Arc<Weights>>,
    /// Entries of tables for hashed flows, one of [`TABLE_SIZES`]; None: as many as are good.
    pub table_size: Option<u16>,
    /// How many connections a client may have.
    pub limits: Option<Limits>,
    /// Whether TCP connections to endpoints that are gone are reset; None: as the configuration says.
    pub reset_gone: Option<bool>,
    /// `spec.loadBalancerSourceRanges`, both families as written.
    pub source_ranges: Vec<IpNet>,
    /// Families of which some of `spec.loadBalancerSourceRanges` could not be read: these open nothing.
    pub unreadable_ranges: Vec<Family>,
    /// `spec.healthCheckNodePort`, only for type LoadBalancer with external policy Local.
    pub health_check_node_port: Option<u16>,
}

impl Service {
    /// The ClusterIP of a family. A Service without one is not served in that family, whatever
    /// other addresses it has.
    pub fn cluster_ip(&self, family: Family) -> Option<IpAddr> {
        self.cluster_ips.iter().copied().find(|ip| Family::of(ip) == family)
    }

    /// Whether traffic from outside the cluster can reach it: a NodePort, an external IP or a load
    /// balancer VIP.
    pub fn externally_accessible(&self) -> bool {
        !self.external_ips.is_empty()
            || !self.load_balancer_ips.is_empty()
            || self.ports.iter().any(|port| port.node_port.is_some())
    }
}
