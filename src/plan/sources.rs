//! Local-traffic detectors (who is a pod of this node) and loopback addresses, as elements.

use super::base::Sets;
use crate::model::Node;
use ipnet::IpNet;
use nft_table::Family;
use nft_table::{Key, SetId, Value};
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
}

/// The elements of the sets that the configuration fills.
pub fn elements(
    settings: &Settings,
    node: Option<&Node>,
    sets: &Sets,
) -> Vec<(SetId, Vec<(Key, Value)>)> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        let pods = pod_networks(settings, node, family);
        let is_interface = interface_key(&settings.detect_local).is_some();
        let unmasqueraded = match (settings.masquerade_all, &pods) {
            (true, _) => Vec::new(),
            // Without a detector nobody is masqueraded.
            (false, None) if !is_interface => vec![everybody(family)],
            (false, None) => Vec::new(),
            (false, Some(pods)) => pods.clone(),
        };
        let sets = sets.of(family);
        let localhost = settings.localhost_nodeports.contains(&family).then(|| loopback(family));
        all.push((sets.localhost_ips, networks(localhost.as_slice())));
        all.push((sets.pod_sources, networks(&pods.unwrap_or_default())));
        all.push((sets.unmasqueraded_sources, networks(&unmasqueraded)));
    }
    let interface: Vec<(Key, Value)> =
        interface_key(&settings.detect_local).map(|key| (key, Value::Member)).into_iter().collect();
    let unmasqueraded = if settings.masquerade_all { Vec::new() } else { interface.clone() };
    all.push((sets.pod_interfaces, interface));
    all.push((sets.unmasqueraded_interfaces, unmasqueraded));
    all
}

/// Networks as elements of an interval set. Overlaps are merged, for the kernel refuses them.
pub fn networks(networks: &[IpNet]) -> Vec<(Key, Value)> {
    let networks: Vec<IpNet> = networks.iter().map(IpNet::trunc).collect();
    let networks = IpNet::aggregate(&networks).into_iter();
    networks.map(|network| (Key::builder().network(network), Value::Member)).collect()
}

fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert([127, 0, 0, 0].into(), 8),
        Family::V6 => IpNet::new_assert(std::net::Ipv6Addr::LOCALHOST.into(), 128),
    }
}

fn everybody(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Default::default()),
        Family::V6 => IpNet::V6(Default::default()),
    }
}

/// The pod networks of a family; None when there is no detector by address.
fn pod_networks(settings: &Settings, node: Option<&Node>, family: Family) -> Option<Vec<IpNet>> {
    let cidrs: &[IpNet] = match &settings.detect_local {
        DetectLocal::ClusterCidr(cidrs) => cidrs,
        DetectLocal::NodeCidr => node.map(|node| &node.pod_cidrs[..]).unwrap_or_default(),
        DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_) => return None,
    };
    // As upstream, the first of a family counts.
    let first = cidrs.iter().find(|cidr| Family::of(&cidr.addr()) == family)?;
    Some(vec![*first])
}

fn interface_key(detect_local: &DetectLocal) -> Option<Key> {
    match detect_local {
        DetectLocal::BridgeInterface(name) => {
            Some(Key::builder().interface(name).to(Key::builder().interface(name)))
        }
        DetectLocal::InterfaceNamePrefix(prefix) => Some(Key::builder().interface_prefix(prefix)),
        _ => None,
    }
}
