//! What is measured: kinds of packets, and where they come from.

use crate::flows::FLOWS;
use crate::node::ENDPOINT_PORT;
use crate::rules::Rules;
use crate::services::{self, AFFINITY, EMPTY, LOCAL, NODE_PORT, PLAIN, PORT};
use nft_table::Family;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use test_support::lab::{cluster_ip, external_ip};

/// A kind of packet or, at last, whole connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    ClusterIp,
    /// To Services that are only there, spread over all of them.
    InTurn,
    NodePort,
    Local,
    Affinity,
    NoService,
    NoEndpoints,
    Established,
    EstablishedNoService,
    Connection,
}

/// Where packets come from: a host of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Pod,
    Node,
    Outside,
}

impl Row {
    pub const ALL: [Row; 10] = [
        Row::ClusterIp,
        Row::InTurn,
        Row::NodePort,
        Row::Local,
        Row::Affinity,
        Row::NoService,
        Row::NoEndpoints,
        Row::Established,
        Row::EstablishedNoService,
        Row::Connection,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Row::ClusterIp => "first, ClusterIP",
            Row::InTurn => "first, 512 Services in turn",
            Row::NodePort => "first, NodePort",
            Row::Local => "first, external IP, policy Local",
            Row::Affinity => "first, session affinity",
            Row::NoService => "first, no Service",
            Row::NoEndpoints => "first, no endpoints: refused",
            Row::Established => "established, ClusterIP",
            Row::EstablishedNoService => "established, no Service",
            Row::Connection => "TCP connection, ClusterIP",
        }
    }

    /// Without rules nobody refuses.
    pub fn can_be_measured_with(self, rules: Rules) -> bool {
        match rules {
            Rules::Nothing | Rules::Conntrack => self != Row::NoEndpoints,
            Rules::Least(..) => matches!(
                self,
                Row::ClusterIp | Row::NoService | Row::Established | Row::EstablishedNoService
            ),
            _ => true,
        }
    }

    /// Are its flows opened once and for all?
    pub fn is_established(self) -> bool {
        matches!(self, Row::Established | Row::EstablishedNoService)
    }

    /// Where flow number `flow` goes on a node with these rules.
    pub fn target(self, rules: Rules, family: Family, flow: usize) -> SocketAddr {
        let service = |number| SocketAddr::new(cluster_ip(number, family), PORT);
        let untranslated = matches!(rules, Rules::Nothing | Rules::Conntrack);
        match self {
            _ if untranslated => endpoint(family, flow),
            Row::NoService | Row::EstablishedNoService => endpoint(family, flow),
            Row::InTurn => match rules {
                Rules::Ours(size)
                | Rules::ByService(size)
                | Rules::ByEndpoint(size)
                | Rules::By(_, size)
                | Rules::Limited(_, size)
                | Rules::Upstream(size) => {
                    SocketAddr::new(services::other_ip(flow * size / FLOWS, family), PORT)
                }
                // One rule knows one Service.
                _ => service(PLAIN),
            },
            Row::ClusterIp | Row::Established | Row::Connection => service(PLAIN),
            Row::NodePort => SocketAddr::new(node(family), NODE_PORT),
            Row::Local => SocketAddr::new(external_ip(LOCAL, family), PORT),
            Row::Affinity => service(AFFINITY),
            Row::NoEndpoints => service(EMPTY),
        }
    }
}

fn endpoint(family: Family, flow: usize) -> SocketAddr {
    SocketAddr::new(services::endpoint(flow % services::ENDPOINTS, family), ENDPOINT_PORT)
}

/// The lab's node.
fn node(family: Family) -> IpAddr {
    let text = if family == Family::V4 { "192.0.2.1" } else { "2001:db8::1" };
    text.parse().expect("an address")
}

impl Source {
    pub const ALL: [Source; 3] = [Source::Pod, Source::Node, Source::Outside];

    /// The host's name in the lab.
    pub fn host(self) -> &'static str {
        match self {
            Source::Pod => "pod",
            Source::Node => "node",
            Source::Outside => "outside",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Source::Pod => "from a pod",
            Source::Node => "from the node",
            Source::Outside => "from outside",
        })
    }
}
