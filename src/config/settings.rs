//! [`Config`]: the one validated value that the rest of the program reads.

use super::file::KubeProxyConfiguration;
use super::gates::FeatureGates;
use super::logging::Logging;
use super::node_ports::NodePortAddresses;
use ipnet::IpNet;
use nft_table::Family;
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

/// The mode that the configuration names. All are served with nftables; it only tells from which
/// section masqueradeAll, syncPeriod and minSyncPeriod came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    Nftables,
    Iptables,
    Ipvs,
}

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

/// Requests to the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// Not used, like the next one: `kube` speaks JSON alone.
    pub accept_content_types: String,
    pub content_type: String,
    /// Requests per second; negative for no limit.
    pub qps: f32,
    pub burst: u32,
}

/// Kernel settings of connection tracking; `None` leaves the kernel's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// nf_conntrack_max per CPU core.
    pub max_per_core: Option<u32>,
    /// Least nf_conntrack_max; without effect where `max_per_core` is None.
    pub min: u32,
    pub tcp_established_timeout: Option<Duration>,
    pub tcp_close_wait_timeout: Option<Duration>,
    /// Only ever switched on.
    pub tcp_be_liberal: bool,
    pub udp_timeout: Option<Duration>,
    pub udp_stream_timeout: Option<Duration>,
}

/// The configuration file as it was when it was read, to notice changes later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedFile {
    pub path: PathBuf,
    pub content: Vec<u8>,
}

/// Everything that flags and file decide.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub action: Action,
    pub source: Source,
    /// `--config`, when given.
    pub file: Option<LoadedFile>,
    pub client: Client,
    /// Resync period of watches.
    pub config_sync_period: Duration,

    /// Name of this node's Node object; never empty, lower case.
    pub node_name: String,
    /// bindAddress where it is specific: this node's primary address, whatever the Node says.
    pub node_ip_override: Option<IpAddr>,
    /// /healthz and /livez; None when switched off by `--healthz-port=0`.
    pub healthz_bind_address: Option<SocketAddr>,
    /// /metrics and the other pages; None when switched off by `--metrics-port=0`.
    pub metrics_bind_address: Option<SocketAddr>,
    /// Exit when an address cannot be bound.
    pub bind_address_hard_fail: bool,
    pub profiling: bool,
    pub oom_score_adj: i32,

    pub mode: ProxyMode,
    pub detect_local: DetectLocal,
    pub node_port_addresses: NodePortAddresses,
    /// Masquerade all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// Wait before a refused transaction is tried again; never zero. Unhealthy after twice this.
    pub sync_period: Duration,
    /// Least time between the end of one write and the next; zero writes at once.
    pub min_sync_period: Duration,
    pub conntrack: Conntrack,
    pub feature_gates: FeatureGates,
    pub logging: Logging,

    /// What the operator should know; to be logged once logging is set up.
    pub warnings: Vec<String>,
    /// The configuration in the file's own terms, for `--write-config-to` and /configz.
    pub(super) document: KubeProxyConfiguration,
}
