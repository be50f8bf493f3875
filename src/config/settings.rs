//! [`Config`]: the one validated value that the rest of the program reads.

use super::conntrack::Conntrack;
use super::detect_local::DetectLocal;
use super::document::KubeProxyConfiguration;
use super::gates::FeatureGates;
use super::logging::Logging;
use super::mode::ProxyMode;
use super::node_ports::NodePortAddresses;
use crate::model::Algorithm;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What this run of the program is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Serve until stopped.
    Run,
    /// `--write-config-to`: write the configuration and exit.
    WriteConfig(PathBuf),
    /// `--cleanup`: remove all state of all modes from the kernel and exit.
    Cleanup,
    /// `--init-only`: do what needs privileges and exit.
    InitOnly,
}

/// Where Services come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Files of a directory.
    Manifests(PathBuf),
    /// An API server, as a kubeconfig names it; `master` overrides the address.
    Kubeconfig { path: PathBuf, master: Option<String> },
    /// The API server at this address, without credentials.
    Master(String),
    /// The API server of the cluster that this pod runs in, with the pod's ServiceAccount.
    InCluster,
}

/// `--gone-endpoints`: what becomes of TCP connections to endpoints that are in no EndpointSlice any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum GoneEndpoints {
    #[default]
    Keep,
    Reset,
}

/// `--count-connections`: which new connections the kernel counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CountConnections {
    #[default]
    Off,
    /// By Service port.
    Service,
    /// Also by endpoint.
    Endpoint,
}

/// The configuration file as it was when it was read, to notice changes later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedFile {
    pub path: PathBuf,
    pub content: Vec<u8>,
}

/// Everything that flags and file decide. What is good as it stands in the document is read there.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub action: Action,
    pub source: Source,
    /// `--config`, when given.
    pub file: Option<LoadedFile>,
    /// Name of this node's Node object; never empty, lower case.
    pub node_name: String,
    /// bindAddress where it is specific: this node's primary address, whatever the Node says.
    pub node_ip_override: Option<IpAddr>,
    /// /healthz and /livez; None when switched off by `--healthz-port=0`.
    pub healthz_bind_address: Option<SocketAddr>,
    /// /metrics and the other pages; None when switched off by `--metrics-port=0`.
    pub metrics_bind_address: Option<SocketAddr>,

    pub mode: ProxyMode,
    pub detect_local: DetectLocal,
    pub node_port_addresses: NodePortAddresses,
    /// Masquerade all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// Own the table, where the kernel can.
    pub own_table: bool,
    /// How connections to Services that do not say are spread over endpoints.
    pub balancing: Algorithm,
    pub gone_endpoints: GoneEndpoints,
    pub count_connections: CountConnections,
    /// The metrics server answers questions about Services, and has a page that shows them.
    pub status_page: bool,
    /// Wait before a refused transaction is tried again; never zero. Unhealthy after twice this.
    pub sync_period: Duration,
    /// Least time between the end of one write and the next; zero writes at once.
    pub min_sync_period: Duration,
    pub conntrack: Conntrack,
    pub feature_gates: FeatureGates,
    pub logging: Logging,

    /// What the operator should know; to be logged once logging is set up.
    pub warnings: Vec<String>,
    /// The configuration in the file's own terms, checked, with its defaults.
    pub document: KubeProxyConfiguration,
}
