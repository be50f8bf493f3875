//! What is said about a connection, in the words of Kubernetes. `-o json` has the same names.

use super::OverLimits;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// What becomes of connections to an address on this node, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    /// Where the client connects to, `10.96.0.10:53`.
    pub destination: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// This node.
    pub node: String,
    /// What the address is for; None: it is no Service's.
    pub frontend: Option<Frontend>,
    /// All endpoints of the Service port, in order of their addresses.
    pub endpoints: Vec<Endpoint>,
    /// What becomes of a client's connection.
    pub clients: Vec<Client>,
    /// What else there is to know, a sentence each.
    pub notes: Vec<String>,
    /// What the kernel has; None: it was not asked.
    pub kernel: Option<Kernel>,
}

/// What an address and port are for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Frontend {
    /// `ClusterIP`, `LoadBalancer`, `ExternalIP` or `NodePort`.
    pub kind: String,
    /// `namespace/name` of the Service that has it.
    pub service: String,
    /// Name or number of the Service port.
    pub port: String,
    /// Others that want it, the next one first.
    pub others: Vec<Claimant>,
    /// `internalTrafficPolicy` or `externalTrafficPolicy`.
    pub policy: String,
    /// `Cluster` or `Local`.
    pub policy_value: String,
    /// How an endpoint is chosen: `random`, `hash-client` or `hash-flow`.
    pub balancing: String,
    /// Session affinity by client address, with its timeout in seconds.
    pub affinity_seconds: Option<u64>,
    /// How many connections a client may have; None: as many as it likes.
    pub limits: Option<Limits>,
    /// `loadBalancerSourceRanges` that may connect; None: everybody may.
    pub allowed_sources: Option<Vec<String>>,
}

/// How many connections to a Service port a client may have by way of this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// New ones, in the long run.
    pub new_per_second: u32,
    /// New ones at once.
    pub burst: u32,
    /// Open ones.
    pub open: Option<u32>,
    /// How many were refused since the limits are what they are, where the kernel says it.
    pub refused: Option<OverLimits>,
}

/// A Service that wants an address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claimant {
    pub service: String,
    /// As what it wants it: `ClusterIP`, `LoadBalancer`, `ExternalIP` or `NodePort`.
    pub kind: String,
    /// `metadata.creationTimestamp`, where it has one.
    pub created: Option<String>,
}

/// An endpoint of a Service port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    pub address: SocketAddr,
    pub node: Option<String>,
    /// Some client gets it from this node.
    pub in_use: bool,
    /// Why it is in use or is not, for each traffic policy that counts.
    pub reasons: Vec<String>,
}

/// What becomes of a client's connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Client {
    /// Who it is: `a pod of this node`, `this node`, `outside`.
    pub who: String,
    /// None: it stands for all of its kind.
    pub address: Option<IpAddr>,
    /// The interface it comes in by; None: the node itself, or it stands for all of its kind.
    pub interface: Option<String>,
    pub fate: Fate,
    /// The endpoints that the connection may go to, each as likely.
    pub endpoints: Vec<SocketAddr>,
    /// Whose address endpoints see.
    pub source: Source,
    /// Endpoints that see another one's.
    pub exceptions: Vec<Exception>,
    /// Why it is dropped, refused, masqueraded or sticks to an endpoint, a sentence each.
    pub reasons: Vec<String>,
    /// The rules that decide, in nft's words, with their chains.
    pub rules: Vec<String>,
}

/// Whose address an endpoint sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The client's.
    #[default]
    Kept,
    /// One of this node.
    Node,
}

/// An endpoint that sees another address than others do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    pub endpoint: SocketAddr,
    pub source: Source,
    pub reason: String,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fate {
    /// It goes to an endpoint.
    Endpoint,
    /// The client hears at once that nobody is there.
    Refused,
    /// The client hears nothing.
    Dropped,
    /// It goes where it was sent to: no Service has a part in it.
    #[default]
    Untouched,
}

/// What the kernel has, compared with the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kernel {
    /// It was compared with a plan.
    pub compared: bool,
    /// What differs, in nft's words: `-` before what the kernel has, `+` before what it should have.
    pub differences: Vec<String>,
    /// How many conntrack entries there are of connections to this address.
    pub connections: u64,
    /// Those that lead to something that is no endpoint in use, by where they lead, with their number.
    pub elsewhere: Vec<(SocketAddr, u64)>,
    /// Why some of it could not be read.
    pub errors: Vec<String>,
}
