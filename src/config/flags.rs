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
#[command(args_override_self = true, next_line_help = false, max_term_width = 100)]
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
    #[arg(short, long, help_heading = ACTIONS, action = ArgAction::Help)]
    help: Option<bool>,

    /// Kubeconfig file; without it and --master the pod's ServiceAccount is used
    #[arg(long, value_name = "FILE", help_heading = API)]
    pub kubeconfig: Option<String>,
    /// Address of the API server; overrides the one in the kubeconfig
    #[arg(long, value_name = "URL", help_heading = API)]
    pub master: Option<String>,
    /// Content type of requests [default: application/vnd.kubernetes.protobuf]
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
    #[arg(long, value_name = "DURATION", help_heading = OTHER)]
    pub ipvs_sync_period: Option<GoDuration>,
    #[arg(long, value_name = "DURATION", help_heading = OTHER)]
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
        Flags::command().mut_args(|arg| {
            let names = arg.get_value_names().unwrap_or_default();
            if names.first().is_some_and(|name| name.as_str() == BOOL) {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else if arg.get_action().takes_values() {
                arg.allow_hyphen_values(true)
            } else {
                arg
            }
        })
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
        Ok(flags)
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
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Flags, clap::Error> {
        Flags::read(std::iter::once("kube-proxy").chain(line.split_whitespace()))
    }

    fn good(line: &str) -> Flags {
        read(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn the_command_is_well_formed() {
        Flags::cli().debug_assert();
    }

    #[test]
    fn values_stand_behind_a_blank_or_an_equals_sign() {
        for line in ["--hostname-override=n1", "--hostname-override n1", "--hostname_override=n1"] {
            assert_eq!(good(line).hostname_override.as_deref(), Some("n1"), "{line}");
        }
        assert_eq!(good("--hostname-override=a_b").hostname_override.as_deref(), Some("a_b"));
        assert_eq!(good("--oom-score-adj -5").oom_score_adj, Some(-5));
        assert_eq!(good("--oom-score-adj=-5").oom_score_adj, Some(-5));
    }

    #[test]
    fn booleans_take_no_separate_value() {
        for (line, expected) in [
            ("", None),
            ("--cleanup", Some(true)),
            ("--cleanup=true", Some(true)),
            ("--cleanup=1", Some(true)),
            ("--cleanup=F", Some(false)),
        ] {
            assert_eq!(good(line).cleanup, expected, "{line}");
        }
        assert!(read("--cleanup true").is_err());
        assert!(read("--cleanup=maybe").is_err());
        assert_eq!(good("--cleanup --master u").master.as_deref(), Some("u"));
    }

    #[test]
    fn verbosity_has_four_spellings() {
        for line in ["-v=4", "-v 4", "-v4", "--v=4", "--v 4"] {
            assert_eq!(good(line).logging.verbosity, Some(4), "{line}");
        }
    }

    #[test]
    fn the_last_of_repeated_flags_counts_but_lists_grow() {
        assert_eq!(good("--master a --master b").master.as_deref(), Some("b"));
        assert_eq!(good("--cleanup --cleanup=false").cleanup, Some(false));
        let flags = good("--nodeport-addresses=10.0.0.0/8,localhost --nodeport-addresses ::/0");
        assert_eq!(flags.nodeport_addresses.unwrap(), ["10.0.0.0/8", "localhost", "::/0"]);
        let gates = good("--feature-gates=A=true,B=false --feature-gates C=t").feature_gates;
        assert_eq!(gates.iter().map(|gates| gates.len()).sum::<usize>(), 3);
    }

    #[test]
    fn usage_errors_name_the_flag() {
        for (line, expected) in [
            ("positional", "positional"),
            ("--no-such-flag", "--no-such-flag"),
            ("--bind-address=x", "--bind-address"),
            ("--healthz-bind-address=1.2.3.4:x", "--healthz-bind-address"),
            ("--conntrack-udp-timeout=5", "missing unit"),
            ("--feature-gates=A", "NAME=true"),
            ("--feature-gates=A=x", "true or false"),
            ("--vmodule=a", "NAME=N"),
            ("--healthz-port=70000", "--healthz-port"),
        ] {
            let error = read(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn help_is_grouped_and_names_every_flag() {
        let error = read("--help").unwrap_err();
        assert_eq!(error.exit_code(), 0);
        let help = error.to_string();
        for text in
            ["Source:", "Actions:", "Traffic:", "--manifests", "--vmodule", "--ipvs-strict-arp"]
        {
            assert!(help.contains(text), "{text} is not in:\n{help}");
        }
    }
}
