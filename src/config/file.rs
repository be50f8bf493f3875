//! The types of `KubeProxyConfiguration`, kubeproxy.config.k8s.io/v1alpha1, field by field as in
//! Kubernetes 1.31 to 1.38, with the defaults of the API applied by [`KubeProxyConfiguration::apply_defaults`].
//!
//! Every field is present and none is required: kubeadm writes all of them, empty or zero where
//! unset, and Go reads a zero as "not set". Nothing outside `config` reads these types; the rest of
//! the program sees [`Config`](super::Config).

use super::address::append_port;
use super::duration::GoDuration;
use crate::model::parse_ip;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// `apiVersion` of the only version there is.
pub const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// `kind` of the file.
pub const KIND: &str = "KubeProxyConfiguration";
/// Port of /healthz and /livez.
pub const HEALTHZ_PORT: u16 = 10256;
/// Port of /metrics.
pub const METRICS_PORT: u16 = 10249;

fn is_false(value: &bool) -> bool {
    !value
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeProxyConfiguration {
    pub api_version: String,
    pub kind: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub feature_gates: BTreeMap<String, bool>,
    pub client_connection: ClientConnectionConfiguration,
    pub logging: LoggingConfiguration,
    pub hostname_override: String,
    pub bind_address: String,
    pub healthz_bind_address: String,
    pub metrics_bind_address: String,
    pub bind_address_hard_fail: bool,
    pub enable_profiling: bool,
    pub show_hidden_metrics_for_version: String,
    pub mode: String,
    pub iptables: IptablesConfiguration,
    pub ipvs: IpvsConfiguration,
    pub nftables: NftablesConfiguration,
    pub winkernel: WinkernelConfiguration,
    pub detect_local_mode: String,
    pub detect_local: DetectLocalConfiguration,
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    pub node_port_addresses: Option<Vec<String>>,
    pub oom_score_adj: Option<i32>,
    pub conntrack: ConntrackConfiguration,
    pub config_sync_period: GoDuration,
    pub port_range: String,
    #[serde(skip_serializing_if = "is_false")]
    pub windows_run_as_service: bool,
}

/// `clientConnection`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnectionConfiguration {
    pub kubeconfig: String,
    pub accept_content_types: String,
    pub content_type: String,
    #[serde(serialize_with = "whole_if_possible")]
    pub qps: f32,
    pub burst: i32,
}

/// 5 rather than 5.0, as Go prints it.
fn whole_if_possible<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f32(*value)
    }
}

/// `iptables`: of another mode, but a file of that mode is read from here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IptablesConfiguration {
    pub masquerade_bit: Option<i32>,
    pub masquerade_all: bool,
    pub localhost_node_ports: Option<bool>,
    pub sync_period: GoDuration,
    pub min_sync_period: GoDuration,
}

/// `ipvs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpvsConfiguration {
    pub sync_period: GoDuration,
    pub min_sync_period: GoDuration,
    pub scheduler: String,
    #[serde(rename = "excludeCIDRs")]
    pub exclude_cidrs: Option<Vec<String>>,
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,
    pub tcp_timeout: GoDuration,
    pub tcp_fin_timeout: GoDuration,
    pub udp_timeout: GoDuration,
}

/// `nftables`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NftablesConfiguration {
    /// Validated, then ignored: no packet mark is set.
    pub masquerade_bit: Option<i32>,
    pub masquerade_all: bool,
    pub sync_period: GoDuration,
    pub min_sync_period: GoDuration,
}

/// `winkernel`: of Windows, accepted and kept for a faithful round trip.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WinkernelConfiguration {
    pub network_name: String,
    pub source_vip: String,
    #[serde(rename = "enableDSR")]
    pub enable_dsr: bool,
    pub root_hns_endpoint_name: String,
    pub forward_health_check_vip: bool,
}

/// `detectLocal`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DetectLocalConfiguration {
    pub bridge_interface: String,
    pub interface_name_prefix: String,
}

/// `conntrack`. For the timeouts zero means "leave the kernel's value".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConntrackConfiguration {
    pub max_per_core: Option<i32>,
    pub min: Option<i32>,
    pub tcp_established_timeout: Option<GoDuration>,
    pub tcp_close_wait_timeout: Option<GoDuration>,
    pub tcp_be_liberal: bool,
    pub udp_timeout: GoDuration,
    pub udp_stream_timeout: GoDuration,
}

/// `logging`, of k8s.io/component-base.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoggingConfiguration {
    pub format: String,
    pub flush_frequency: FlushFrequency,
    pub verbosity: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vmodule: Vec<VModuleItem>,
    pub options: FormatOptions,
}

/// `logging.flushFrequency`: a duration, or (before Kubernetes 1.28) a number of nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FlushFrequency(pub GoDuration);

impl Serialize for FlushFrequency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FlushFrequency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Nanos(i64),
            Text(String),
        }
        Ok(FlushFrequency(match Form::deserialize(deserializer)? {
            Form::Nanos(nanos) => GoDuration::from_nanos(nanos),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom)?,
        }))
    }
}

/// One entry of `logging.vmodule`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VModuleItem {
    pub file_pattern: String,
    pub verbosity: u32,
}

/// `logging.options`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FormatOptions {
    pub text: OutputRoutingOptions,
    pub json: OutputRoutingOptions,
}

/// `logging.options.text` and `logging.options.json`: accepted, without effect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputRoutingOptions {
    #[serde(skip_serializing_if = "is_false")]
    pub split_stream: bool,
    #[serde(deserialize_with = "quantity")]
    pub info_buffer_size: String,
}

/// A quantity (`"0"`, `64Ki`, `512`), kept as it is written.
fn quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(u64),
        Text(String),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::Number(number) => number.to_string(),
        Form::Text(text) => text,
    })
}

/// Puts a default where Go's zero value stands.
fn default_text(field: &mut String, default: &str) {
    if field.is_empty() {
        *field = default.to_owned();
    }
}

fn default_duration(field: &mut GoDuration, default: GoDuration) {
    if field.is_zero() {
        *field = default;
    }
}

impl KubeProxyConfiguration {
    /// Fills in every default of v1alpha1. minSyncPeriod has none: absent and zero both mean that
    /// changes are written at once.
    pub fn apply_defaults(&mut self) {
        const THIRTY_SECONDS: GoDuration = GoDuration::from_secs(30);
        default_text(&mut self.api_version, API_VERSION);
        default_text(&mut self.kind, KIND);
        default_text(&mut self.bind_address, "0.0.0.0");
        let (any, loopback) = match parse_ip(&self.bind_address) {
            Some(ip) if ip.is_ipv4() => ("0.0.0.0", "127.0.0.1"),
            _ => ("::", "::1"),
        };
        default_text(&mut self.healthz_bind_address, any);
        default_text(&mut self.metrics_bind_address, loopback);
        self.healthz_bind_address = append_port(&self.healthz_bind_address, HEALTHZ_PORT);
        self.metrics_bind_address = append_port(&self.metrics_bind_address, METRICS_PORT);

        self.oom_score_adj.get_or_insert(-999);
        self.iptables.masquerade_bit.get_or_insert(14);
        self.iptables.localhost_node_ports.get_or_insert(true);
        self.nftables.masquerade_bit.get_or_insert(14);
        default_duration(&mut self.iptables.sync_period, THIRTY_SECONDS);
        default_duration(&mut self.ipvs.sync_period, THIRTY_SECONDS);
        default_duration(&mut self.nftables.sync_period, THIRTY_SECONDS);
        default_duration(&mut self.config_sync_period, GoDuration::from_secs(15 * 60));

        let conntrack = &mut self.conntrack;
        conntrack.max_per_core.get_or_insert(32 * 1024);
        conntrack.min.get_or_insert(128 * 1024);
        conntrack.tcp_established_timeout.get_or_insert(GoDuration::from_secs(24 * 3600));
        conntrack.tcp_close_wait_timeout.get_or_insert(GoDuration::from_secs(3600));

        let client = &mut self.client_connection;
        default_text(&mut client.content_type, "application/vnd.kubernetes.protobuf");
        if client.qps == 0.0 {
            client.qps = 5.0;
        }
        if client.burst == 0 {
            client.burst = 10;
        }

        let logging = &mut self.logging;
        default_text(&mut logging.format, "text");
        default_duration(&mut logging.flush_frequency.0, GoDuration::from_secs(5));
        default_text(&mut logging.options.text.info_buffer_size, "0");
        default_text(&mut logging.options.json.info_buffer_size, "0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_gets_every_default() {
        let mut c = KubeProxyConfiguration::default();
        c.apply_defaults();
        assert_eq!(c.bind_address, "0.0.0.0");
        assert_eq!(c.healthz_bind_address, "0.0.0.0:10256");
        assert_eq!(c.metrics_bind_address, "127.0.0.1:10249");
        assert_eq!(c.oom_score_adj, Some(-999));
        assert_eq!(c.nftables.masquerade_bit, Some(14));
        assert_eq!(c.nftables.sync_period.to_string(), "30s");
        assert_eq!(c.nftables.min_sync_period.to_string(), "0s");
        assert_eq!(c.config_sync_period.to_string(), "15m0s");
        assert_eq!(c.conntrack.max_per_core, Some(32768));
        assert_eq!(c.conntrack.min, Some(131_072));
        assert_eq!(c.conntrack.tcp_established_timeout.unwrap().to_string(), "24h0m0s");
        assert_eq!(c.conntrack.tcp_close_wait_timeout.unwrap().to_string(), "1h0m0s");
        assert_eq!((c.client_connection.qps, c.client_connection.burst), (5.0, 10));
        assert_eq!(c.logging.format, "text");
        assert_eq!(c.logging.flush_frequency.0.to_string(), "5s");
    }

    #[test]
    fn server_addresses_follow_the_bind_address() {
        for (bind, healthz, metrics) in [
            ("10.0.0.1", "0.0.0.0:10256", "127.0.0.1:10249"),
            ("::", "[::]:10256", "[::1]:10249"),
            ("fd00::1", "[::]:10256", "[::1]:10249"),
        ] {
            let mut c =
                KubeProxyConfiguration { bind_address: bind.to_owned(), ..Default::default() };
            c.apply_defaults();
            assert_eq!((&*c.healthz_bind_address, &*c.metrics_bind_address), (healthz, metrics));
        }
    }

    #[test]
    fn a_port_is_appended_where_it_is_missing() {
        let mut c = KubeProxyConfiguration {
            healthz_bind_address: "fd00::1".to_owned(),
            metrics_bind_address: "10.0.0.1:9999".to_owned(),
            ..Default::default()
        };
        c.apply_defaults();
        assert_eq!(c.healthz_bind_address, "[fd00::1]:10256");
        assert_eq!(c.metrics_bind_address, "10.0.0.1:9999");
    }

    #[test]
    fn explicit_zeros_of_pointer_fields_stay() {
        let mut c = KubeProxyConfiguration::default();
        c.conntrack.max_per_core = Some(0);
        c.conntrack.tcp_established_timeout = Some(GoDuration::ZERO);
        c.oom_score_adj = Some(0);
        c.apply_defaults();
        assert_eq!(c.conntrack.max_per_core, Some(0));
        assert_eq!(c.conntrack.tcp_established_timeout, Some(GoDuration::ZERO));
        assert_eq!(c.oom_score_adj, Some(0));
    }
}
