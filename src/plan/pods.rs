//! What the operator configured, and how packets of this node's pods are told from others by it.

use super::layout::Counting;
use crate::model::{Algorithm, Node};
use ipnet::IpNet;
use nft_table::{Constant, Expression, Family, Statement};
use std::sync::Arc;

/// How traffic of this node's pods is told from other traffic (`detectLocalMode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// By source address; no CIDR of a family means that the family has no detector.
    ClusterCidr(Vec<IpNet>),
    /// By source address in the podCIDRs of this node.
    NodeCidr,
    BridgeInterface(String),
    InterfaceNamePrefix(String),
}

/// What the operator configured, as far as the plan is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node, as endpoints name it.
    pub node_name: Arc<str>,
    pub detect_local: DetectLocal,
    /// Masquerade every flow to a ClusterIP.
    pub masquerade_all: bool,
    /// Families whose NodePorts are to be had on the loopback addresses, too.
    pub localhost_nodeports: Vec<Family>,
    pub counting: Counting,
    /// How connections to Services that do not say are spread.
    pub algorithm: Algorithm,
    /// Whether TCP connections to endpoints that are gone are reset, of Services that do not say.
    pub reset_gone: bool,
}

/// How packets of pods are known: what is in rules, as literals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    networks: [Option<IpNet>; 2],
    interface: Option<Constant>,
}

impl Pods {
    pub fn new(settings: &Settings, node: Option<&Node>) -> Pods {
        let by_network = |cidrs: &[IpNet]| {
            // As upstream, the first of a family counts.
            let first =
                |family| cidrs.iter().find(|cidr| Family::of(&cidr.addr()) == family).copied();
            Pods { networks: Family::BOTH.map(first), interface: None }
        };
        let by_interface = |interface| Pods { networks: [None; 2], interface: Some(interface) };
        match &settings.detect_local {
            DetectLocal::ClusterCidr(cidrs) => by_network(cidrs),
            DetectLocal::NodeCidr => {
                by_network(node.map(|node| &node.pod_cidrs[..]).unwrap_or_default())
            }
            DetectLocal::BridgeInterface(name) => {
                by_interface(Constant::Interface(name.as_str().into()))
            }
            DetectLocal::InterfaceNamePrefix(prefix) => {
                by_interface(Constant::InterfacePrefix(prefix.as_str().into()))
            }
        }
    }

    /// Matches what comes from a pod; None where nothing tells which packets do.
    pub fn source(&self, family: Family) -> Option<Statement> {
        let (expression, constant) = match (self.networks[family as usize], &self.interface) {
            (_, Some(interface)) => (Expression::InputInterface, interface.clone()),
            (Some(everybody), _) if everybody.prefix_len() == 0 => {
                (Expression::NetworkFamily, Constant::Family(family))
            }
            (Some(network), _) => {
                (Expression::SourceAddress(family), Constant::Network(network.trunc()))
            }
            (None, None) => return None,
        };
        Some(Statement::Match { expression, constant, negated: false })
    }

    /// The network that pods of a family are known by, where they are.
    pub fn network(&self, family: Family) -> Option<IpNet> {
        self.networks[family as usize].map(|network| network.trunc())
    }

    /// The interface, or the beginning of the names of the interfaces, of pods.
    pub fn interface(&self) -> Option<&Constant> {
        self.interface.as_ref()
    }
}

/// The loopback addresses of a family.
pub fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert([127, 0, 0, 0].into(), 8),
        Family::V6 => IpNet::new_assert(std::net::Ipv6Addr::LOCALHOST.into(), 128),
    }
}
