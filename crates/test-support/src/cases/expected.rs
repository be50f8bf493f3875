//! Packets and what is to become of them.

use super::topology::Topology;
use nft_table::Family;
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What a case says of a packet.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Expectation {
    Fate(Fate),
    Served(Served),
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is answered with "port unreachable".
    Refused,
    /// It vanishes.
    Dropped,
    /// It goes on as it came.
    Untouched,
}

/// It reaches an endpoint.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Served {
    /// Any of these, each as likely as any other: `a`, or `a:8443` for another port than 8080.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Whose address the endpoint sees; None: either.
    #[serde(default)]
    pub source: Option<Source>,
    /// The client stays with the one that it got, which has this name from now on.
    #[serde(default)]
    pub sticks: Option<String>,
    /// The one that got this name.
    #[serde(default)]
    pub same: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The client's.
    Kept,
    /// The node's.
    Node,
}

/// A protocol that packets are sent over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
    /// An echo request.
    Icmp,
}

impl Protocol {
    const TRANSPORTS: &[Protocol] = &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    fn parse(text: &str) -> Option<&'static [Protocol]> {
        Some(match text {
            "*" => Protocol::TRANSPORTS,
            "TCP" => &[Protocol::Tcp],
            "UDP" => &[Protocol::Udp],
            "SCTP" => &[Protocol::Sctp],
            "ICMP" => &[Protocol::Icmp],
            _ => return None,
        })
    }

    /// IANA's number.
    pub fn number(self, family: Family) -> u8 {
        match (self, family) {
            (Protocol::Tcp, _) => 6,
            (Protocol::Udp, _) => 17,
            (Protocol::Sctp, _) => 132,
            (Protocol::Icmp, Family::V4) => 1,
            (Protocol::Icmp, Family::V6) => 58,
        }
    }
}

/// One packet.
#[derive(Clone, Debug)]
pub struct Probe {
    /// File and case, for messages.
    what: String,
    pub from: String,
    pub to: SocketAddr,
    pub protocol: Protocol,
    pub expected: Expectation,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} to {} over {:?}", self.what, self.from, self.to, self.protocol)
    }
}

impl Probe {
    /// All packets that `to` stands for: `ADDRESS[:PORT][/PROTOCOL]`.
    pub fn all(
        what: &str,
        from: &str,
        to: &str,
        expected: &Expectation,
        topology: &Topology,
    ) -> Vec<Probe> {
        let bad = || -> ! { panic!("{what}: {to} is no address, port and protocol") };
        let (place, protocols) = to.split_once('/').unwrap_or((to, "TCP"));
        let Some(protocols) = Protocol::parse(protocols) else { bad() };
        let places: Vec<SocketAddr> = match place.parse() {
            Ok(place) => vec![place],
            Err(_) => {
                let (name, port) = place.rsplit_once(':').unwrap_or((place, "0"));
                let Ok(port) = port.parse() else { bad() };
                let addresses = topology.addresses(name).into_iter();
                addresses.map(|address| SocketAddr::new(address, port)).collect()
            }
        };
        if places.is_empty() {
            bad();
        }
        assert!(topology.host(from).is_some(), "{what}: no host {from}");
        let of_place = |to: SocketAddr| {
            protocols.iter().map(move |protocol| Probe {
                what: what.to_owned(),
                from: from.to_owned(),
                to,
                protocol: *protocol,
                expected: expected.clone(),
            })
        };
        places.into_iter().flat_map(of_place).collect()
    }

    pub fn family(&self) -> Family {
        Family::of(&self.to.ip())
    }

    /// Where the packet comes from.
    pub fn source(&self, topology: &Topology) -> IpAddr {
        topology.source(&self.from, self.to.ip())
    }
}
