//! The types of `KubeProxyConfiguration`, kubeproxy.config.k8s.io/v1alpha1, field by field as in
//! Kubernetes 1.31 to 1.38, each with its default and with the flag that says the same.
//!
//! Every field is present and none is required: kubeadm writes all of them, empty or zero where
//! unset, and Go reads a zero as "not set".
//!
//! ```text
//! /// Timeout of TCP connections in CLOSE_WAIT          what the help says of the flag
//! #[arg(id = "/conntrack/tcpCloseWaitTimeout",          the place in the document
//!     long = "conntrack-tcp-timeout-close-wait",        the flag
//!     value_name = "DURATION")]                         what the help calls its value
//! tcp_close_wait_timeout: Option<GoDuration> = GoDuration::from_secs(3600),
//!                                                       the default, none for Go's zero value
//! ```
//!
//! `help_heading` is the group in the help; [`WITHOUT_EFFECT`] makes the flag one that is accepted,
//! no more. Flags that only say how one run goes (`--cleanup`) are in [`Flags`](super::Flags).

mod field;
mod logging;
mod sections;

pub(super) use field::Field;
pub use logging::LoggingConfiguration;
pub(super) use logging::VModuleItem;
pub use sections::{
    ClientConnectionConfiguration, ConntrackConfiguration, DetectLocalConfiguration,
    IptablesConfiguration, IpvsConfiguration, NftablesConfiguration, WinkernelConfiguration,
};

use super::GoDuration;
use super::address::append_port;
use super::flag_values::{ip_port_text, ip_text};
use super::headings::{NODE, TRAFFIC, WITHOUT_EFFECT};
use crate::model::parse_ip;
use clap::{ArgAction, Args};
use field::section;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `apiVersion` of the only version there is.
pub const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// `kind` of the file.
pub const KIND: &str = "KubeProxyConfiguration";
/// Port of /healthz and /livez.
const HEALTHZ_PORT: u16 = 10256;
/// Port of /metrics.
const METRICS_PORT: u16 = 10249;

fn is_false(value: &bool) -> bool {
    !value
}

section! {
    /// The whole document. The order is that of the help.
    KubeProxyConfiguration {
        #[arg(skip)]
        api_version: String = API_VERSION,
        #[arg(skip)]
        kind: String = KIND,

        #[command(flatten)]
        client_connection: ClientConnectionConfiguration,
        // Watches are never resynced: nothing is lost between them and the plan.
        #[arg(id = "/configSyncPeriod", long = "config-sync-period", value_name = "DURATION",
            help_heading = WITHOUT_EFFECT)]
        config_sync_period: GoDuration = GoDuration::from_secs(15 * 60),

        /// Name of this node [default: the host name]
        #[arg(id = "/hostnameOverride", long = "hostname-override", value_name = "NAME",
            help_heading = NODE)]
        hostname_override: String,
        /// This node's primary IP address, where the Node object should not decide; nothing is
        /// bound to it
        #[arg(id = "/bindAddress", long = "bind-address", value_name = "IP", help_heading = NODE,
            value_parser = ip_text)]
        bind_address: String = "0.0.0.0",
        /// Address of /healthz and /livez
        #[arg(id = "/healthzBindAddress", long = "healthz-bind-address", value_name = "IP[:PORT]",
            help_heading = NODE, value_parser = ip_port_text)]
        healthz_bind_address: String,
        /// Address of /metrics
        #[arg(id = "/metricsBindAddress", long = "metrics-bind-address", value_name = "IP[:PORT]",
            help_heading = NODE, value_parser = ip_port_text)]
        metrics_bind_address: String,
        /// Exit when one of these addresses cannot be bound, instead of trying again
        #[arg(id = "/bindAddressHardFail", long = "bind-address-hard-fail", help_heading = NODE)]
        bind_address_hard_fail: bool,
        /// Serve profiles under /debug/pprof on the metrics address
        #[arg(id = "/enableProfiling", long = "profiling", help_heading = NODE)]
        enable_profiling: bool,
        // No metric is hidden.
        #[arg(id = "/showHiddenMetricsForVersion", long = "show-hidden-metrics-for-version",
            value_name = "VERSION", help_heading = WITHOUT_EFFECT)]
        show_hidden_metrics_for_version: String,
        /// oom_score_adj of this process, -1000 to 1000
        #[arg(id = "/oomScoreAdj", long = "oom-score-adj", value_name = "N", help_heading = NODE)]
        oom_score_adj: Option<i32> = -999,

        /// nftables; iptables and ipvs are accepted and mean the same, with a warning
        #[arg(id = "/mode", long = "proxy-mode", value_name = "MODE", help_heading = TRAFFIC)]
        mode: String,
        /// How pods of this node are told from other sources: ClusterCIDR, NodeCIDR,
        /// BridgeInterface or InterfaceNamePrefix
        #[arg(id = "/detectLocalMode", long = "detect-local-mode", value_name = "MODE",
            help_heading = TRAFFIC)]
        detect_local_mode: String = "ClusterCIDR",
        /// Pod CIDR of the cluster, or one of each family separated by a comma
        #[arg(id = "/clusterCIDR", long = "cluster-cidr", value_name = "CIDR[,CIDR]",
            help_heading = TRAFFIC)]
        #[serde(rename = "clusterCIDR")]
        cluster_cidr: String,
        #[command(flatten)]
        detect_local: DetectLocalConfiguration,
        /// Node addresses that answer on NodePorts: CIDRs and the keywords primary, localhost and
        /// all
        #[arg(id = "/nodePortAddresses", long = "nodeport-addresses", value_name = "LIST",
            help_heading = TRAFFIC, value_delimiter = ',', action = ArgAction::Append)]
        node_port_addresses: Option<Vec<String>> = vec!["primary".to_owned()],
        /// Its flag may be repeated and adds to the map, see [`Flags`](super::Flags).
        #[arg(skip)]
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        feature_gates: BTreeMap<String, bool>,
        #[command(flatten)]
        iptables: IptablesConfiguration,
        #[command(flatten)]
        ipvs: IpvsConfiguration,
        #[arg(skip)]
        nftables: NftablesConfiguration,
        #[command(flatten)]
        conntrack: ConntrackConfiguration,
        #[command(flatten)]
        logging: LoggingConfiguration,

        #[arg(skip)]
        port_range: String,
        #[arg(skip)]
        winkernel: WinkernelConfiguration,
        #[arg(skip)]
        #[serde(skip_serializing_if = "is_false")]
        windows_run_as_service: bool,
    }
}

impl KubeProxyConfiguration {
    /// What an empty file stands for.
    pub fn defaults() -> Self {
        let mut document = KubeProxyConfiguration::default();
        document.apply_defaults();
        document
    }

    /// Fills in every default. minSyncPeriod has none: absent and zero both mean that changes are
    /// written at once. The mode stays empty where it is, so that it can be said.
    pub fn apply_defaults(&mut self) {
        self.fill_in();
        // The servers' addresses follow the family of bindAddress.
        let (any, loopback) = match parse_ip(&self.bind_address) {
            Some(ip) if ip.is_ipv4() => ("0.0.0.0", "127.0.0.1"),
            _ => ("::", "::1"),
        };
        for (address, default, port) in [
            (&mut self.healthz_bind_address, any, HEALTHZ_PORT),
            (&mut self.metrics_bind_address, loopback, METRICS_PORT),
        ] {
            let host = if address.is_empty() { default } else { address.as_str() };
            *address = append_port(host, port);
        }
    }
}

#[cfg(test)]
mod tests;
