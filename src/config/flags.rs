//! The command line, as the user typed it: every flag of kube-proxy on Linux, and `--manifests`.
//!
//! Names and syntax are Go's: `--flag value` and `--flag=value`, `_` in a name is `-`, a boolean is
//! set by `--flag` or `--flag=false` and takes no separate value, of a repeated flag the last one
//! counts. All values are optional here, so that "not given" can be told from "given"; what they
//! mean together is decided when they become a [`Config`](super::Config).

use super::duration::GoDuration;
use super::flag_values::{
    GateSettings, dashed, gate_settings, go_bool, ip_port_text, ip_text, vmodule,
};
use clap::parser::ValueSource;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

const SOURCE: &str = "Source";
const ACTIONS: &str = "Actions";
const NODE: &str = "Node and servers";
const API: &str = "Kubernetes API";
const TRAFFIC: &str = "Traffic";
const CONNTRACK: &str = "Connection tracking (0 leaves the kernel's value)";
const LOGGING: &str = "Logging";
const OTHER: &str = "Accepted for compatibility, without effect";

/// Value name that marks a flag as boolean; see [`Flags::cli`].
const BOOL: &str = "true|false";

/// A service proxy for Kubernetes and for single hosts, native to nftables.
///
/// It turns Services and EndpointSlices into table `inet kube-proxy`. They come from a Kubernetes
/// API server (--config with a KubeProxyConfiguration, --kubeconfig, --master, or in-cluster) or
/// from files (--manifests). With --config the file decides everything except --manifests,
/// --hostname-override, --master, the logging flags and the flags under Actions.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "kube-proxy", disable_version_flag = true, disable_help_flag = true)]
#[command(args_override_self = true, next_line_help = true, max_term_width = 100)]
pub struct Flags {
    /// Read Services, EndpointSlices, Nodes and ServiceCIDRs from the YAML and JSON files of this
    /// directory instead of from an API server
    #[arg(long, value_name = "DIR", help_heading = SOURCE)]
    pub manifests: Option<PathBuf>,
    /// KubeProxyConfiguration file (kubeproxy.config.k8s.io/v1alpha1)
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    pub config: Option<PathBuf>,

    /// Remove everything that this proxy, or kube-proxy in any mode, left in the kernel, and exit
    #[arg(long, help_heading = ACTIONS, value_parser = go_bool, value_name = BOOL)]
    pub cleanup: Option<bool>,
    /// Do what needs full root privileges, then exit; afterwards CAP_NET_ADMIN is enough
    #[arg(long, help_heading = ACTIONS, value_parser = go_bool, value_name = BOOL)]
    pub init_only: Option<bool>,
    /// Write the configuration that results from defaults, flags and --config to this file, and exit
    #[arg(long, value_name = "FILE", help_heading = ACTIONS)]
    pub write_config_to: Option<PathBuf>,
    /// Print the version and exit
    #[arg(long, help_heading = ACTIONS, value_name = BOOL)]
    pub version: Option<String>,
    /// Print this help
    #[arg(short, long, help_heading = ACTIONS, action = ArgAction::HelpShort)]
    help: Option<bool>,

    /// Kubeconfig file; without it and --master the pod's ServiceAccount is used
    #[arg(long, value_name = "FILE", help_heading = API)]
    pub kubeconfig: Option<String>,
    /// Address of the API server; overrides the one in the kubeconfig
    #[arg(long, value_name = "URL", help_heading = API)]
    pub master: Option<String>,
    /// Accepted without effect: JSON is spoken [default: application/vnd.kubernetes.protobuf]
    #[arg(long, value_name = "TYPE", help_heading = API)]
    pub kube_api_content_type: Option<String>,
    /// Burst of requests [default: 10]
    #[arg(long, value_name = "N", help_heading = API)]
    pub kube_api_burst: Option<i32>,
    /// Requests per second [default: 5]
    #[arg(long, value_name = "N", help_heading = API)]
    pub kube_api_qps: Option<f32>,
    /// How often everything is listed again [default: 15m0s]
    #[arg(long, value_name = "DURATION", help_heading = API)]
    pub config_sync_period: Option<GoDuration>,

    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME", help_heading = NODE)]
    pub hostname_override: Option<String>,
    /// This node's primary IP address, where the Node object should not decide; nothing is bound to it
    #[arg(long, value_name = "IP", help_heading = NODE, value_parser = ip_text)]
    pub bind_address: Option<String>,
    /// Address of /healthz and /livez [default: 0.0.0.0:10256]
    #[arg(long, value_name = "IP[:PORT]", help_heading = NODE, value_parser = ip_port_text)]
    pub healthz_bind_address: Option<String>,
    /// Address of /metrics [default: 127.0.0.1:10249]
    #[arg(long, value_name = "IP[:PORT]", help_heading = NODE, value_parser = ip_port_text)]
    pub metrics_bind_address: Option<String>,
    /// Exit when one of these addresses cannot be bound, instead of trying again
    #[arg(long, help_heading = NODE, value_parser = go_bool, value_name = BOOL)]
    pub bind_address_hard_fail: Option<bool>,
    /// Serve profiles under /debug/pprof on the metrics address
    #[arg(long, help_heading = NODE, value_parser = go_bool, value_name = BOOL)]
    pub profiling: Option<bool>,
    /// Show metrics that were hidden in this earlier minor version, such as 1.36
    #[arg(long, value_name = "VERSION", help_heading = NODE)]
    pub show_hidden_metrics_for_version: Option<String>,
    /// oom_score_adj of this process, -1000 to 1000 [default: -999]
    #[arg(long, value_name = "N", help_heading = NODE)]
    pub oom_score_adj: Option<i32>,
    /// Port of /healthz where its address names none; 0 disables it (deprecated)
    #[arg(long, value_name = "PORT", help_heading = NODE)]
    pub healthz_port: Option<u16>,
    /// Port of /metrics where its address names none; 0 disables it (deprecated)
    #[arg(long, value_name = "PORT", help_heading = NODE)]
    pub metrics_port: Option<u16>,

    /// nftables; iptables and ipvs are accepted and mean the same, with a warning
    #[arg(long, value_name = "MODE", help_heading = TRAFFIC)]
    pub proxy_mode: Option<String>,
    /// Masquerade all traffic to ClusterIPs
    #[arg(long, help_heading = TRAFFIC, value_parser = go_bool, value_name = BOOL)]
    pub masquerade_all: Option<bool>,
    /// How pods of this node are told from other sources: ClusterCIDR, NodeCIDR, BridgeInterface or
    /// InterfaceNamePrefix [default: ClusterCIDR]
    #[arg(long, value_name = "MODE", help_heading = TRAFFIC)]
    pub detect_local_mode: Option<String>,
    /// Pod CIDR of the cluster, or one of each family separated by a comma
    #[arg(long, value_name = "CIDR[,CIDR]", help_heading = TRAFFIC)]
    pub cluster_cidr: Option<String>,
    /// Bridge that pods are attached to, for BridgeInterface
    #[arg(long, value_name = "NAME", help_heading = TRAFFIC)]
    pub pod_bridge_interface: Option<String>,
    /// Start of the names of pods' interfaces, for InterfaceNamePrefix
    #[arg(long, value_name = "PREFIX", help_heading = TRAFFIC)]
    pub pod_interface_name_prefix: Option<String>,
    /// Node addresses that answer on NodePorts: CIDRs and the keywords primary, localhost and all
    /// [default: primary]
    #[arg(long, value_name = "LIST", help_heading = TRAFFIC, value_delimiter = ',',
        action = ArgAction::Append)]
    pub nodeport_addresses: Option<Vec<String>>,
    /// Feature gates, such as A=true,B=false
    #[arg(long, value_name = "NAME=BOOL,...", help_heading = TRAFFIC, value_parser = gate_settings,
        action = ArgAction::Append)]
    pub feature_gates: Vec<GateSettings>,
    /// How long to wait before a refused change is written again, in every mode but ipvs;
    /// /healthz reports changes unwritten for twice as long [default: 30s]
    #[arg(long, value_name = "DURATION", help_heading = TRAFFIC)]
    pub iptables_sync_period: Option<GoDuration>,
    /// Least time between two writes, in every mode but ipvs; 0 writes at once [default: 0s]
    #[arg(long, value_name = "DURATION", help_heading = TRAFFIC)]
    pub iptables_min_sync_period: Option<GoDuration>,

    /// Connections to track per CPU core; 0 also ignores --conntrack-min [default: 32768]
    #[arg(long, value_name = "N", help_heading = CONNTRACK)]
    pub conntrack_max_per_core: Option<i32>,
    /// Least number of connections to track [default: 131072]
    #[arg(long, value_name = "N", help_heading = CONNTRACK)]
    pub conntrack_min: Option<i32>,
    /// Timeout of idle established TCP connections [default: 24h0m0s]
    #[arg(long, value_name = "DURATION", help_heading = CONNTRACK)]
    pub conntrack_tcp_timeout_established: Option<GoDuration>,
    /// Timeout of TCP connections in CLOSE_WAIT [default: 1h0m0s]
    #[arg(long, value_name = "DURATION", help_heading = CONNTRACK)]
    pub conntrack_tcp_timeout_close_wait: Option<GoDuration>,
    /// Accept TCP packets outside of the window (nf_conntrack_tcp_be_liberal)
    #[arg(long, help_heading = CONNTRACK, value_parser = go_bool, value_name = BOOL)]
    pub conntrack_tcp_be_liberal: Option<bool>,
    /// Timeout of UDP flows without a reply [default: 0s]
    #[arg(long, value_name = "DURATION", help_heading = CONNTRACK)]
    pub conntrack_udp_timeout: Option<GoDuration>,
    /// Timeout of UDP flows with replies [default: 0s]
    #[arg(long, value_name = "DURATION", help_heading = CONNTRACK)]
    pub conntrack_udp_timeout_stream: Option<GoDuration>,

    #[command(flatten)]
    pub logging: LoggingFlags,
    #[command(flatten)]
    pub other: OtherFlags,

    /// Names of the flags that were given, in order.
    #[arg(skip)]
    given: Vec<String>,
    #[arg(skip)]
    in_effect: BTreeMap<String, String>,
}

/// Flags that win over the `logging` section of the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LoggingFlags {
    /// Verbosity: 0 to 3 informational, 4 and 5 debug, 6 and more trace [default: 0]
    #[arg(short = 'v', long = "v", value_name = "N", help_heading = LOGGING)]
    pub verbosity: Option<u32>,
    /// Verbosity of single modules, such as sync=4,kernel=6
    #[arg(long, value_name = "NAME=N,...", help_heading = LOGGING, value_parser = vmodule,
        action = ArgAction::Append)]
    pub vmodule: Vec<Vec<(String, u32)>>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = LOGGING)]
    pub logging_format: Option<String>,
    #[arg(long, value_name = "DURATION", help_heading = OTHER)]
    pub log_flush_frequency: Option<GoDuration>,
    #[arg(long, help_heading = OTHER, value_parser = go_bool, value_name = BOOL)]
    pub log_text_split_stream: Option<bool>,
    #[arg(long, value_name = "SIZE", help_heading = OTHER)]
    pub log_text_info_buffer_size: Option<String>,
    #[arg(long, help_heading = OTHER, value_parser = go_bool, value_name = BOOL)]
    pub log_json_split_stream: Option<bool>,
    #[arg(long, value_name = "SIZE", help_heading = OTHER)]
    pub log_json_info_buffer_size: Option<String>,
}

/// Flags of other modes and of libraries that kube-proxy once linked.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OtherFlags {
    #[arg(long, value_name = "N", help_heading = OTHER)]
    pub iptables_masquerade_bit: Option<i32>,
    #[arg(long, help_heading = OTHER, value_parser = go_bool, value_name = BOOL)]
    pub iptables_localhost_nodeports: Option<bool>,
    /// The same as --iptables-sync-period, for mode ipvs [default: 30s]
    #[arg(long, value_name = "DURATION", help_heading = TRAFFIC)]
    pub ipvs_sync_period: Option<GoDuration>,
    /// The same as --iptables-min-sync-period, for mode ipvs [default: 0s]
    #[arg(long, value_name = "DURATION", help_heading = TRAFFIC)]
    pub ipvs_min_sync_period: Option<GoDuration>,
    #[arg(long, value_name = "NAME", help_heading = OTHER)]
    pub ipvs_scheduler: Option<String>,
    #[arg(long, value_name = "CIDR,...", help_heading = OTHER, value_delimiter = ',',
        action = ArgAction::Append)]
    pub ipvs_exclude_cidrs: Option<Vec<String>>,
    #[arg(long, help_heading = OTHER, value_parser = go_bool, value_name = BOOL)]
    pub ipvs_strict_arp: Option<bool>,
    #[arg(long, value_name = "DURATION", help_heading = OTHER)]
    pub ipvs_tcp_timeout: Option<GoDuration>,
    #[arg(long, value_name = "DURATION", help_heading = OTHER)]
    pub ipvs_tcpfin_timeout: Option<GoDuration>,
    #[arg(long, value_name = "DURATION", help_heading = OTHER)]
    pub ipvs_udp_timeout: Option<GoDuration>,
    #[arg(long, value_name = "FILE", help_heading = OTHER)]
    pub boot_id_file: Option<String>,
    #[arg(long, value_name = "FILE", help_heading = OTHER)]
    pub machine_id_file: Option<String>,
}

impl Flags {
    /// The command with Go's flag syntax: booleans take a value only behind `=`, all others take
    /// whatever comes next, also if it starts with a dash.
    pub fn cli() -> clap::Command {
        let mut without_effect = Vec::new();
        let command = Flags::command().mut_args(|arg| {
            let names = arg.get_value_names().unwrap_or_default();
            let arg = if names.first().is_some_and(|name| name.as_str() == BOOL) {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else if arg.get_action().takes_values() {
                arg.allow_hyphen_values(true)
            } else {
                arg
            };
            if arg.get_help_heading() == Some(OTHER) {
                without_effect.push(format!("--{}", arg.get_long().unwrap_or_default()));
                arg.hide(true)
            } else {
                arg
            }
        });
        let about = command.get_long_about().cloned().unwrap_or_default();
        command.about(about).after_help(format!("{OTHER}:\n  {}", without_effect.join(" ")))
    }

    /// Reads a command line, program name first. The error prints itself: usage errors, and the
    /// text of `--help` (exit code 0).
    pub fn read<T: Into<OsString>>(
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Flags, clap::Error> {
        let arguments = arguments.into_iter().map(|argument| dashed(argument.into()));
        let mut cli = Flags::cli();
        let matches = cli.try_get_matches_from_mut(arguments)?;
        let mut flags = Flags::from_arg_matches(&matches)?;
        let is_given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let ids = cli.get_arguments().map(|argument| argument.get_id().as_str());
        flags.given = ids.filter(is_given).map(|id| id.replace('_', "-")).collect();
        flags.given.sort_unstable();
        flags.in_effect = in_effect(&cli, &matches);
        Ok(flags)
    }

    /// Every flag with its value, given or default, by name: the content of /flagz.
    pub fn in_effect(&self) -> &BTreeMap<String, String> {
        &self.in_effect
    }

    /// A warning that names the deprecated flags that were given.
    pub(super) fn deprecated_warning(&self) -> Option<String> {
        let is_deprecated =
            |name: &&String| matches!(name.as_str(), "healthz-port" | "metrics-port");
        let given = self.given.iter().filter(is_deprecated);
        let advice: Vec<String> = given
            .map(|name| {
                format!("--{name} is deprecated: use --{}", name.replace("port", "bind-address"))
            })
            .collect();
        (!advice.is_empty()).then(|| advice.join("; "))
    }

    /// A warning that names the flags that have no effect because there is a configuration file.
    pub(super) fn overridden_warning(&self) -> Option<String> {
        let overridden = self.given.iter().filter(|name| !is_beside_the_file(name));
        let names: Vec<String> = overridden.map(|name| format!("--{name}")).collect();
        (!names.is_empty()).then(|| {
            format!(
                "without effect because --config is given (set them there): {}",
                names.join(", ")
            )
        })
    }

    /// What `--version` asks to be printed, if it was given: `true` (or nothing) for a line,
    /// `raw` for the bare number.
    pub fn version_text(&self) -> Option<String> {
        let number = env!("CARGO_PKG_VERSION");
        match self.version.as_deref()? {
            "false" => None,
            "raw" => Some(number.to_owned()),
            _ => Some(format!("kube-proxy {number} (nftables)")),
        }
    }
}

/// Values as they were typed, joined by commas; else the default that the help names.
fn in_effect(cli: &clap::Command, matches: &clap::ArgMatches) -> BTreeMap<String, String> {
    let flags = cli.get_arguments().filter(|arg| arg.get_action().takes_values());
    flags
        .map(|arg| {
            let name = arg.get_long().unwrap_or_default().to_owned();
            let typed = matches.get_raw_occurrences(arg.get_id().as_str()).into_iter().flatten();
            let typed: Vec<_> = typed.flatten().map(|value| value.to_string_lossy()).collect();
            let value = match typed.as_slice() {
                [] => default_value(arg),
                typed => typed.join(","),
            };
            (name, value)
        })
        .collect()
}

/// What stands in `[default: ...]`; false for other booleans, else nothing.
fn default_value(arg: &clap::Arg) -> String {
    let is_bool =
        arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == BOOL));
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let named = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
    match named {
        Some((value, _)) if !value.contains(' ') => value.to_owned(),
        _ if is_bool => "false".to_owned(),
        _ => String::new(),
    }
}

/// Whether a flag counts also with `--config`: the node's name, logging, the source, actions, and
/// what has no effect anyway.
fn is_beside_the_file(name: &str) -> bool {
    const NAMES: [&str; 12] = [
        "boot-id-file",
        "cleanup",
        "config",
        "hostname-override",
        "init-only",
        "machine-id-file",
        "manifests",
        "master",
        "verbosity",
        "version",
        "vmodule",
        "write-config-to",
    ];
    NAMES.contains(&name) || name.starts_with("log-") || name == "logging-format"
}

#[cfg(test)]
mod tests;
