//! From what was typed to a [`Config`]: all checks of values, each mistake named by its field.

use super::address::{HostPortError, parse_host_port};
use super::duration::GoDuration;
use super::file::{ConntrackConfiguration, KubeProxyConfiguration};
use super::gates::{FeatureGates, LOCALHOST_NODE_PORTS};
use super::logging::{LogFormat, Logging};
use super::node_ports::{NodePortAddress, NodePortAddresses};
use super::problems::Problems;
use super::settings::{Client, Conntrack, DetectLocal, ProxyMode};
use crate::model::{parse_cidr, parse_ip};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const MODES: [&str; 3] = ["iptables", "ipvs", "nftables"];
const DETECT_LOCAL_MODES: [&str; 4] =
    ["BridgeInterface", "ClusterCIDR", "InterfaceNamePrefix", "NodeCIDR"];
/// Interface names of Linux hold at most this many bytes (IFNAMSIZ - 1).
const INTERFACE_NAME_MAX: usize = 15;
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Everything of [`Config`](super::Config) that the document alone decides.
pub(super) struct Checked {
    pub(super) mode: ProxyMode,
    pub(super) node_ip_override: Option<IpAddr>,
    pub(super) healthz_bind_address: Option<SocketAddr>,
    pub(super) metrics_bind_address: Option<SocketAddr>,
    pub(super) detect_local: DetectLocal,
    pub(super) node_port_addresses: NodePortAddresses,
    pub(super) masquerade_all: bool,
    pub(super) sync_period: Duration,
    pub(super) min_sync_period: Duration,
    pub(super) config_sync_period: Duration,
    pub(super) conntrack: Conntrack,
    pub(super) client: Client,
    pub(super) oom_score_adj: i32,
    pub(super) feature_gates: FeatureGates,
    pub(super) logging: Logging,
}

/// Checks a document that has its defaults. Mistakes go to `problems`; where there is one, the
/// value that stands for the field is of no use.
pub(super) fn check(document: &KubeProxyConfiguration, problems: &mut Problems) -> Checked {
    let feature_gates = FeatureGates::new(document.feature_gates.clone());
    let mode = mode(document, problems);
    let (sync_period, min_sync_period) = periods(document, mode, problems);
    let in_range = |bit: &Option<i32>| bit.is_none_or(|bit| (0..=31).contains(&bit));
    for (used, field, bit) in [
        (true, "iptables.masqueradeBit", &document.iptables.masquerade_bit),
        (mode == ProxyMode::Nftables, "nftables.masqueradeBit", &document.nftables.masquerade_bit),
    ] {
        if used && !in_range(bit) {
            problems.invalid(field, bit, "must be within the range [0, 31]");
        }
    }
    if mode == ProxyMode::Ipvs {
        ipvs(document, problems);
    }
    let oom_score_adj = document.oom_score_adj.unwrap_or_default();
    if !(-1000..=1000).contains(&oom_score_adj) {
        problems.invalid("oomScoreAdj", oom_score_adj, "must be within the range [-1000, 1000]");
    }
    if document.config_sync_period <= GoDuration::ZERO {
        problems.invalid("configSyncPeriod", document.config_sync_period, "must be greater than 0");
    }
    let bind_address = parse_ip(&document.bind_address);
    if bind_address.is_none() {
        let detail = "not a valid textual representation of an IP address";
        problems.invalid("bindAddress", &document.bind_address, detail);
    }
    hidden_metrics(&document.show_hidden_metrics_for_version, problems);
    let mut server = |field, text: &str| match text {
        "" => None,
        text => host_port(field, text, problems),
    };
    let healthz_bind_address = server("healthzBindAddress", &document.healthz_bind_address);
    let metrics_bind_address = server("metricsBindAddress", &document.metrics_bind_address);
    Checked {
        mode,
        node_ip_override: bind_address.filter(|ip| !ip.is_unspecified()),
        healthz_bind_address,
        metrics_bind_address,
        detect_local: detect_local(document, problems),
        node_port_addresses: node_port_addresses(document, &feature_gates, problems),
        masquerade_all: match mode {
            ProxyMode::Nftables => document.nftables.masquerade_all,
            ProxyMode::Iptables | ProxyMode::Ipvs => document.iptables.masquerade_all,
        },
        sync_period,
        min_sync_period,
        config_sync_period: document.config_sync_period.to_std(),
        conntrack: conntrack(&document.conntrack, problems),
        client: client(document, problems),
        oom_score_adj,
        logging: logging(document, problems),
        feature_gates,
    }
}

fn mode(document: &KubeProxyConfiguration, problems: &mut Problems) -> ProxyMode {
    match document.mode.as_str() {
        "nftables" => ProxyMode::Nftables,
        "iptables" => ProxyMode::Iptables,
        "ipvs" => ProxyMode::Ipvs,
        other => {
            problems.unsupported("mode", other, &MODES);
            ProxyMode::Nftables
        }
    }
}

/// syncPeriod and minSyncPeriod of the section of the mode.
fn periods(
    document: &KubeProxyConfiguration,
    mode: ProxyMode,
    problems: &mut Problems,
) -> (Duration, Duration) {
    let (section, sync, min) = match mode {
        ProxyMode::Nftables => {
            ("nftables", document.nftables.sync_period, document.nftables.min_sync_period)
        }
        ProxyMode::Iptables => {
            ("iptables", document.iptables.sync_period, document.iptables.min_sync_period)
        }
        ProxyMode::Ipvs => ("ipvs", document.ipvs.sync_period, document.ipvs.min_sync_period),
    };
    let sync_field = format!("{section}.syncPeriod");
    let min_field = format!("{section}.minSyncPeriod");
    if sync <= GoDuration::ZERO {
        problems.invalid(&sync_field, sync, "must be greater than 0");
    }
    if min.is_negative() {
        problems.invalid(&min_field, min, NOT_NEGATIVE);
    }
    if min > sync {
        let detail = format!("must be greater than or equal to {}.{min_field}", super::file::KIND);
        problems.invalid(&sync_field, sync, &detail);
    }
    (sync.to_std(), min.to_std())
}

/// What kube-proxy checks in this mode, so that a file that it refuses is refused here too.
fn ipvs(document: &KubeProxyConfiguration, problems: &mut Problems) {
    let ipvs = &document.ipvs;
    for (field, timeout) in [
        ("ipvs.tcpTimeout", ipvs.tcp_timeout),
        ("ipvs.tcpFinTimeout", ipvs.tcp_fin_timeout),
        ("ipvs.udpTimeout", ipvs.udp_timeout),
    ] {
        if timeout.is_negative() {
            problems.invalid(field, timeout, NOT_NEGATIVE);
        }
    }
    for (index, cidr) in ipvs.exclude_cidrs.iter().flatten().enumerate() {
        if parse_cidr(cidr).is_none() {
            let field = format!("ipvs.excludeCIDRs[{index}]");
            problems.invalid(&field, cidr, "must be a valid CIDR");
        }
    }
}

fn host_port(field: &str, text: &str, problems: &mut Problems) -> Option<SocketAddr> {
    match parse_host_port(text) {
        Ok(address) => Some(address),
        Err(errors) => {
            for error in errors {
                match error {
                    HostPortError::Form => problems.invalid(field, text, "must be IP:port"),
                    HostPortError::Host(host) => {
                        problems.invalid(field, host, "must be a valid IP");
                    }
                    HostPortError::Port(port) => {
                        problems.invalid(field, port, "must be a valid port");
                    }
                }
            }
            None
        }
    }
}

fn detect_local(document: &KubeProxyConfiguration, problems: &mut Problems) -> DetectLocal {
    let mut interface = |field: &str, name: &str| {
        if name.is_empty() {
            problems.invalid(field, name, "must not be empty");
        } else if name.len() > INTERFACE_NAME_MAX {
            problems.invalid(field, name, "interface names are at most 15 bytes long");
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
            problems.unsupported("detectLocalMode", other, &DETECT_LOCAL_MODES);
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

fn node_port_addresses(
    document: &KubeProxyConfiguration,
    gates: &FeatureGates,
    problems: &mut Problems,
) -> NodePortAddresses {
    let list = document.node_port_addresses.as_deref().unwrap_or_default();
    let mut entries = Vec::new();
    for (index, text) in list.iter().enumerate() {
        let field = format!("nodePortAddresses[{index}]");
        match NodePortAddress::parse(text) {
            None => {
                let detail =
                    "must be a valid CIDR or one of the keywords 'primary', 'localhost', 'all'";
                problems.invalid(&field, text, detail);
            }
            Some(NodePortAddress::Cidr(cidr)) => entries.push(NodePortAddress::Cidr(cidr)),
            Some(keyword) if entries.contains(&keyword) => problems.duplicate(&field, text),
            Some(keyword) => entries.push(keyword),
        }
    }
    NodePortAddresses::new(entries, gates.enabled(LOCALHOST_NODE_PORTS))
}

fn conntrack(section: &ConntrackConfiguration, problems: &mut Problems) -> Conntrack {
    let mut number = |field: &str, value: Option<i32>| {
        let value = value.unwrap_or_default();
        if value < 0 {
            problems.invalid(field, value, NOT_NEGATIVE);
        }
        value.max(0) as u32
    };
    let max_per_core = number("conntrack.maxPerCore", section.max_per_core);
    let min = number("conntrack.min", section.min);
    let mut timeout = |field: &str, value: Option<GoDuration>| {
        let value = value.unwrap_or_default();
        if value.is_negative() {
            problems.invalid(field, value, NOT_NEGATIVE);
        }
        (value > GoDuration::ZERO).then(|| value.to_std())
    };
    Conntrack {
        max_per_core: (max_per_core > 0).then_some(max_per_core),
        min,
        tcp_established_timeout: timeout(
            "conntrack.tcpEstablishedTimeout",
            section.tcp_established_timeout,
        ),
        tcp_close_wait_timeout: timeout(
            "conntrack.tcpCloseWaitTimeout",
            section.tcp_close_wait_timeout,
        ),
        tcp_be_liberal: section.tcp_be_liberal,
        udp_timeout: timeout("conntrack.udpTimeout", Some(section.udp_timeout)),
        udp_stream_timeout: timeout("conntrack.udpStreamTimeout", Some(section.udp_stream_timeout)),
    }
}

fn client(document: &KubeProxyConfiguration, problems: &mut Problems) -> Client {
    let client = &document.client_connection;
    if client.burst < 0 {
        problems.invalid("clientConnection.burst", client.burst, NOT_NEGATIVE);
    }
    Client {
        accept_content_types: client.accept_content_types.clone(),
        content_type: client.content_type.clone(),
        qps: client.qps,
        burst: client.burst.max(0) as u32,
    }
}

/// `major.minor`, both numbers.
fn hidden_metrics(version: &str, problems: &mut Problems) {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let valid = version.split_once('.').is_some_and(|(a, b)| number(a) && number(b));
    if !version.is_empty() && !valid {
        let detail = "must be a minor version such as 1.36";
        problems.invalid("showHiddenMetricsForVersion", version, detail);
    }
}

fn logging(document: &KubeProxyConfiguration, problems: &mut Problems) -> Logging {
    let logging = &document.logging;
    if logging.flush_frequency.0 <= GoDuration::ZERO {
        let value = logging.flush_frequency;
        problems.invalid("logging.flushFrequency", value, "must be greater than 0");
    }
    let format = match logging.format.as_str() {
        "json" => LogFormat::Json,
        "text" => LogFormat::Text,
        other => {
            problems.unsupported("logging.format", other, &["json", "text"]);
            LogFormat::Text
        }
    };
    if format == LogFormat::Json && !logging.vmodule.is_empty() {
        problems.forbidden("logging.vmodule", "only supported for text log format");
    }
    for (index, item) in logging.vmodule.iter().enumerate() {
        if item.file_pattern.is_empty() || item.file_pattern.contains(['=', ',']) {
            let field = format!("logging.vmodule[{index}].filePattern");
            let detail = "must be a name without equal sign or comma";
            problems.invalid(&field, &item.file_pattern, detail);
        }
    }
    let items = logging.vmodule.iter();
    let modules = items.map(|item| (item.file_pattern.clone(), item.verbosity)).collect();
    Logging { format, verbosity: logging.verbosity, modules }
}
