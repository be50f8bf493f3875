//! `detectLocalMode`: how pods of this node are told from other sources.

use super::document::KubeProxyConfiguration;
use super::problems::Problems;
use crate::model::{Family, parse_cidr};
use ipnet::IpNet;

const MODES: [&str; 4] = ["BridgeInterface", "ClusterCIDR", "InterfaceNamePrefix", "NodeCIDR"];
/// Interface names of Linux hold at most this many bytes (IFNAMSIZ - 1).
const INTERFACE_NAME_MAX: usize = 15;

/// How pods of this node are told from other sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// By source address; a family without a CIDR has no detector.
    ClusterCidr { v4: Option<IpNet>, v6: Option<IpNet> },
    /// By source address, in the Node object's podCIDRs.
    NodeCidr,
    /// By the name of the bridge that packets come in on.
    BridgeInterface(String),
    /// By the start of the name of the interface that packets come in on.
    InterfaceNamePrefix(String),
}

impl DetectLocal {
    /// The cluster's pod CIDR of a family, where that is the detector.
    pub fn cluster_cidr(&self, family: Family) -> Option<IpNet> {
        match (self, family) {
            (DetectLocal::ClusterCidr { v4, .. }, Family::V4) => *v4,
            (DetectLocal::ClusterCidr { v6, .. }, Family::V6) => *v6,
            _ => None,
        }
    }
}

pub(super) fn check(document: &KubeProxyConfiguration, problems: &mut Problems) -> DetectLocal {
    let mut interface = |field: &str, name: &str| {
        if name.is_empty() {
            problems.invalid(field, name, "must not be empty");
        } else if name.len() > INTERFACE_NAME_MAX {
            problems.invalid(field, name, "interface names are at most 15 bytes long");
        } else if name.contains('\0') {
            problems.invalid(field, name, "interface names have no NUL");
        }
        name.to_owned()
    };
    let detect = &document.detect_local;
    match document.detect_local_mode.as_str() {
        "ClusterCIDR" => cluster_cidr(&document.cluster_cidr, problems),
        "NodeCIDR" => DetectLocal::NodeCidr,
        "BridgeInterface" => DetectLocal::BridgeInterface(interface(
            "detectLocal.bridgeInterface",
            &detect.bridge_interface,
        )),
        "InterfaceNamePrefix" => DetectLocal::InterfaceNamePrefix(interface(
            "detectLocal.interfaceNamePrefix",
            &detect.interface_name_prefix,
        )),
        other => {
            problems.unsupported("detectLocalMode", other, &MODES);
            DetectLocal::NodeCidr
        }
    }
}

fn cluster_cidr(text: &str, problems: &mut Problems) -> DetectLocal {
    const PAIR: &str = "must be either a single CIDR or a dual-stack pair of CIDRs \
                        (e.g. 10.100.0.0/16,fde4:8dba:82e1::/48)";
    let (mut v4, mut v6) = (None, None);
    let cidrs: Vec<&str> = match text {
        "" => Vec::new(),
        text => text.split(',').collect(),
    };
    if cidrs.len() > 2 {
        problems.invalid("clusterCIDR", text, PAIR);
        return DetectLocal::ClusterCidr { v4, v6 };
    }
    for cidr in &cidrs {
        let slot = match parse_cidr(cidr) {
            Some(cidr) if cidr.addr().is_ipv4() => (&mut v4, cidr),
            Some(cidr) => (&mut v6, cidr),
            None => {
                let detail =
                    "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)";
                problems.invalid("clusterCIDR", cidr, detail);
                continue;
            }
        };
        if slot.0.replace(slot.1).is_some() {
            problems.invalid("clusterCIDR", text, PAIR);
        }
    }
    DetectLocal::ClusterCidr { v4, v6 }
}
