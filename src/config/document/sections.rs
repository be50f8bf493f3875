//! The sections of the document, but for `logging`.

use super::field::{Field, section};
use crate::config::GoDuration;
use crate::config::flag_values::go_bool;
use crate::config::headings::{API, BOOL, CONNTRACK, TRAFFIC, WITHOUT_EFFECT};
use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize, Serializer};

section! {
    /// `clientConnection`.
    #[command(next_help_heading = API)]
    ClientConnectionConfiguration {
        /// Kubeconfig file; without it and --master the pod's ServiceAccount is used
        #[arg(id = "/clientConnection/kubeconfig", long = "kubeconfig", value_name = "FILE")]
        kubeconfig: String,
        #[arg(skip)]
        accept_content_types: String,
        /// Media type of what the API server sends, or JSON where it has no other
        #[arg(id = "/clientConnection/contentType", long = "kube-api-content-type",
            value_name = "TYPE")]
        content_type: String = "application/vnd.kubernetes.protobuf",
        /// Burst of requests
        #[arg(id = "/clientConnection/burst", long = "kube-api-burst", value_name = "N")]
        burst: i32 = 10,
        /// Requests per second
        #[arg(id = "/clientConnection/qps", long = "kube-api-qps", value_name = "N")]
        #[serde(serialize_with = "whole_if_possible")]
        qps: f32 = 5.0_f32,
    }
}

/// 5 rather than 5.0, as Go prints it.
fn whole_if_possible<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f32(*value)
    }
}

section! {
    /// `detectLocal`.
    #[command(next_help_heading = TRAFFIC)]
    DetectLocalConfiguration {
        /// Bridge that pods are attached to, for BridgeInterface
        #[arg(id = "/detectLocal/bridgeInterface", long = "pod-bridge-interface",
            value_name = "NAME")]
        bridge_interface: String,
        /// Start of the names of pods' interfaces, for InterfaceNamePrefix
        #[arg(id = "/detectLocal/interfaceNamePrefix", long = "pod-interface-name-prefix",
            value_name = "PREFIX")]
        interface_name_prefix: String,
    }
}

section! {
    /// `iptables`: of another mode, but a file of that mode is read from here. The flags of this
    /// section stand for those of `nftables`, which has none.
    #[command(next_help_heading = TRAFFIC)]
    IptablesConfiguration {
        #[arg(id = "/iptables/masqueradeBit", long = "iptables-masquerade-bit", value_name = "N",
            help_heading = WITHOUT_EFFECT)]
        masquerade_bit: Option<i32> = 14,
        /// Masquerade all traffic to ClusterIPs
        #[arg(id = "/iptables/masqueradeAll", long = "masquerade-all")]
        masquerade_all: bool,
        #[arg(id = "/iptables/localhostNodePorts", long = "iptables-localhost-nodeports",
            help_heading = WITHOUT_EFFECT, value_name = BOOL, value_parser = go_bool)]
        localhost_node_ports: Option<bool> = true,
        /// How long to wait before a refused change is written again, in every mode but ipvs;
        /// /healthz reports changes unwritten for twice as long
        #[arg(id = "/iptables/syncPeriod", long = "iptables-sync-period", value_name = "DURATION")]
        sync_period: GoDuration = GoDuration::from_secs(30),
        /// Least time between two writes, in every mode but ipvs; 0 writes at once
        #[arg(id = "/iptables/minSyncPeriod", long = "iptables-min-sync-period",
            value_name = "DURATION")]
        min_sync_period: GoDuration,
    }
}

section! {
    /// `ipvs`.
    #[command(next_help_heading = WITHOUT_EFFECT)]
    IpvsConfiguration {
        /// The same as --iptables-sync-period, for mode ipvs
        #[arg(id = "/ipvs/syncPeriod", long = "ipvs-sync-period", value_name = "DURATION",
            help_heading = TRAFFIC)]
        sync_period: GoDuration = GoDuration::from_secs(30),
        /// The same as --iptables-min-sync-period, for mode ipvs
        #[arg(id = "/ipvs/minSyncPeriod", long = "ipvs-min-sync-period", value_name = "DURATION",
            help_heading = TRAFFIC)]
        min_sync_period: GoDuration,
        #[arg(id = "/ipvs/scheduler", long = "ipvs-scheduler", value_name = "NAME")]
        scheduler: String,
        #[arg(id = "/ipvs/excludeCIDRs", long = "ipvs-exclude-cidrs", value_name = "CIDR,...",
            value_delimiter = ',', action = ArgAction::Append)]
        #[serde(rename = "excludeCIDRs")]
        exclude_cidrs: Option<Vec<String>>,
        #[arg(id = "/ipvs/strictARP", long = "ipvs-strict-arp")]
        #[serde(rename = "strictARP")]
        strict_arp: bool,
        #[arg(id = "/ipvs/tcpTimeout", long = "ipvs-tcp-timeout", value_name = "DURATION")]
        tcp_timeout: GoDuration,
        #[arg(id = "/ipvs/tcpFinTimeout", long = "ipvs-tcpfin-timeout", value_name = "DURATION")]
        tcp_fin_timeout: GoDuration,
        #[arg(id = "/ipvs/udpTimeout", long = "ipvs-udp-timeout", value_name = "DURATION")]
        udp_timeout: GoDuration,
    }
}

section! {
    /// `nftables`. It has no flags of its own.
    NftablesConfiguration {
        /// Validated, then ignored: no packet mark is set.
        masquerade_bit: Option<i32> = 14,
        masquerade_all: bool,
        sync_period: GoDuration = GoDuration::from_secs(30),
        min_sync_period: GoDuration,
    }
}

section! {
    /// `conntrack`. For the timeouts zero means "leave the kernel's value".
    #[command(next_help_heading = CONNTRACK)]
    ConntrackConfiguration {
        /// Connections to track per CPU core; 0 also ignores --conntrack-min
        #[arg(id = "/conntrack/maxPerCore", long = "conntrack-max-per-core", value_name = "N")]
        max_per_core: Option<i32> = 32 * 1024,
        /// Least number of connections to track
        #[arg(id = "/conntrack/min", long = "conntrack-min", value_name = "N")]
        min: Option<i32> = 128 * 1024,
        /// Timeout of idle established TCP connections
        #[arg(id = "/conntrack/tcpEstablishedTimeout", long = "conntrack-tcp-timeout-established",
            value_name = "DURATION")]
        tcp_established_timeout: Option<GoDuration> = GoDuration::from_secs(24 * 3600),
        /// Timeout of TCP connections in CLOSE_WAIT
        #[arg(id = "/conntrack/tcpCloseWaitTimeout", long = "conntrack-tcp-timeout-close-wait",
            value_name = "DURATION")]
        tcp_close_wait_timeout: Option<GoDuration> = GoDuration::from_secs(3600),
        /// Accept TCP packets outside of the window (nf_conntrack_tcp_be_liberal)
        #[arg(id = "/conntrack/tcpBeLiberal", long = "conntrack-tcp-be-liberal")]
        tcp_be_liberal: bool,
        /// Timeout of UDP flows without a reply
        #[arg(id = "/conntrack/udpTimeout", long = "conntrack-udp-timeout",
            value_name = "DURATION")]
        udp_timeout: GoDuration,
        /// Timeout of UDP flows with replies
        #[arg(id = "/conntrack/udpStreamTimeout", long = "conntrack-udp-timeout-stream",
            value_name = "DURATION")]
        udp_stream_timeout: GoDuration,
    }
}

section! {
    /// `winkernel`: of Windows, accepted and kept for a faithful round trip.
    WinkernelConfiguration {
        network_name: String,
        source_vip: String,
        #[serde(rename = "enableDSR")]
        enable_dsr: bool,
        root_hns_endpoint_name: String,
        forward_health_check_vip: bool,
    }
}
