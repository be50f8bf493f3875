//! The command line, as the user typed it: every flag of kube-proxy on Linux, `--manifests`, `--own-table`,
//! `--balancing`, `--gone-endpoints`, `--count-connections` and `--status-page`.
//!
//! Names and syntax are Go's: `--flag value` and `--flag=value`, `_` in a name is `-`, a boolean is
//! set by `--flag` or `--flag=false` and takes no separate value, of a repeated flag the last one
//! counts. What flags and file mean together is decided when they become a
//! [`Config`](super::Config).
//!
//! Most flags are defined with the field of the document that they set
//! ([`KubeProxyConfiguration`]); here are those that only say how this run goes. The id of a flag
//! tells which it is: one that starts with a slash is a place in the document, so that a file
//! decides instead of it.

mod dropped;

use super::document::{KubeProxyConfiguration, VModuleItem};
use super::flag_values::{GateSettings, algorithm, dashed, gate_settings, go_bool};
use super::headings::{ACTIONS, API, BOOL, NODE, SOURCE, TRAFFIC, WITHOUT_EFFECT};
use super::settings::{CountConnections, GoneEndpoints};
use crate::model::Algorithm;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// What the program does besides serving.
const OTHER_COMMANDS: &str = "Commands besides serving (kube-proxy help COMMAND):\n  \
    explain, services, top, render, verify, completion, man";

/// A service proxy for Kubernetes and for single hosts, native to nftables.
///
/// It turns Services and EndpointSlices into table `inet kube-proxy`. They come from a Kubernetes
/// API server (--config with a KubeProxyConfiguration, --kubeconfig, --master, or in-cluster) or
/// from files (--manifests). With --config the file decides everything except --manifests,
/// --own-table, --balancing, --gone-endpoints, --count-connections, --status-page, --hostname-override, --master, the logging flags and the flags under Actions.
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

    /// Own table `inet kube-proxy` where the kernel can (Linux 6.9): it then refuses changes of the
    /// table by other programs, and `nft flush ruleset` leaves it alone (default true)
    #[arg(long, value_name = BOOL, help_heading = TRAFFIC, value_parser = go_bool)]
    pub own_table: Option<bool>,

    /// How connections to Services without the annotation nft.kube-proxy/balancing are spread over endpoints: by
    /// chance, one after the other, by a hash of the client's address, or of its address and port (default random, or
    /// what ipvs.scheduler means in mode ipvs)
    #[arg(long, value_name = "random|round-robin|hash-client|hash-flow", help_heading = TRAFFIC, value_parser = algorithm)]
    pub balancing: Option<Algorithm>,

    /// What becomes of TCP connections to endpoints that are in no EndpointSlice any more, of Services without the
    /// annotation nft.kube-proxy/gone-endpoints: nothing, or they are forgotten, so that clients are answered with a
    /// reset (default keep)
    #[arg(long, value_name = "keep|reset", help_heading = TRAFFIC, value_enum)]
    pub gone_endpoints: Option<GoneEndpoints>,

    /// Have the kernel count new connections by Service, or also by endpoint: for `kube-proxy top`, `services` and
    /// the metric kubeproxy_service_connections_total (default off)
    #[arg(long, value_name = "off|service|endpoint", help_heading = TRAFFIC, value_enum)]
    pub count_connections: Option<CountConnections>,

    /// Serve a page that shows this node's Services at /status of the metrics address, and answer `kube-proxy
    /// explain` and `services` at /api (default true)
    #[arg(long, value_name = BOOL, help_heading = NODE, value_parser = go_bool)]
    pub status_page: Option<bool>,

    /// What the flags say of the document, and nothing else.
    #[command(flatten)]
    pub document: KubeProxyConfiguration,

    /// Address of the API server; overrides the one in the kubeconfig
    #[arg(long, value_name = "URL", help_heading = API)]
    pub master: Option<String>,
    /// Port of /healthz where its address names none; 0 disables it (deprecated)
    #[arg(id = "/healthzBindAddress/port", long = "healthz-port", value_name = "PORT",
        help_heading = NODE)]
    pub healthz_port: Option<u16>,
    /// Port of /metrics where its address names none; 0 disables it (deprecated)
    #[arg(id = "/metricsBindAddress/port", long = "metrics-port", value_name = "PORT",
        help_heading = NODE)]
    pub metrics_port: Option<u16>,
    /// Feature gates, such as A=true,B=false
    #[arg(id = "/featureGates", long = "feature-gates", value_name = "NAME=BOOL,...",
        help_heading = TRAFFIC, value_parser = gate_settings, action = ArgAction::Append)]
    pub feature_gates: Vec<GateSettings>,
    #[arg(long, value_name = "FILE", help_heading = WITHOUT_EFFECT)]
    boot_id_file: Option<String>,
    #[arg(long, value_name = "FILE", help_heading = WITHOUT_EFFECT)]
    machine_id_file: Option<String>,

    /// What was typed, to be laid over a document.
    #[arg(skip)]
    pub(super) matches: ArgMatches,
    /// The flags that were given, by name.
    #[arg(skip)]
    given: Vec<Given>,
    #[arg(skip)]
    in_effect: BTreeMap<String, String>,
}

/// A flag that was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Given {
    name: String,
    id: String,
    has_effect: bool,
}

impl Given {
    /// Whether a configuration file decides instead of it. Of the document only the node's name and
    /// the logging flags count also beside a file.
    fn is_overridden_by_file(&self) -> bool {
        self.has_effect
            && self.id.starts_with('/')
            && self.id != "/hostnameOverride"
            && !self.id.starts_with("/logging/")
    }
}

impl Flags {
    /// The command with Go's flag syntax: booleans take a value only behind `=`, all others take
    /// whatever comes next, also if it starts with a dash. The help has the document's defaults.
    pub fn cli() -> clap::Command {
        let mut without_effect = Vec::new();
        let defaults = defaults();
        let command = Flags::command_for_update().mut_args(|arg| {
            let arg = with_go_syntax(arg);
            let default = default_value(&arg, &defaults);
            if has_no_effect(&arg) {
                without_effect.push(format!("--{}", arg.get_long().unwrap_or_default()));
                arg.hide(true)
            } else if default.is_empty() || is_bool(&arg) {
                arg
            } else {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                arg.help(format!("{help} [default: {default}]"))
            }
        });
        let about = command.get_long_about().cloned().unwrap_or_default();
        let without_effect = without_effect.join(" ");
        command
            .about(about)
            .after_help(format!("{WITHOUT_EFFECT}:\n  {without_effect}\n\n{OTHER_COMMANDS}"))
    }

    /// Reads a command line, program name first. The error prints itself: usage errors, and the
    /// text of `--help` (exit code 0).
    pub fn read<T: Into<OsString>>(
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Flags, clap::Error> {
        let arguments = arguments.into_iter().map(|argument| dashed(argument.into()));
        let mut cli = Flags::cli();
        let matches = cli.try_get_matches_from_mut(arguments);
        let matches = matches.map_err(|error| dropped::explain(error, &mut cli))?;
        let mut flags = Flags::default();
        flags.update_from_arg_matches(&matches)?;
        let is_given = |arg: &&Arg| {
            matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
        };
        let given = cli.get_arguments().filter(is_given).map(|arg| Given {
            name: arg.get_long().unwrap_or_default().to_owned(),
            id: arg.get_id().to_string(),
            has_effect: !has_no_effect(arg),
        });
        flags.given = given.collect();
        flags.given.sort_unstable();
        flags.in_effect = in_effect(&cli, &matches);
        flags.matches = matches;
        flags.tidy();
        Ok(flags)
    }

    /// Leaves out the empty entries of lists, and puts repeated flags together.
    fn tidy(&mut self) {
        let document = &mut self.document;
        let addresses = document.node_port_addresses.iter_mut();
        addresses.for_each(|addresses| addresses.retain(|entry| !entry.is_empty()));
        document.logging.vmodule.retain(|item| *item != VModuleItem::default());
        document.feature_gates =
            self.feature_gates.iter().flatten().map(|(k, v)| (k.clone(), *v)).collect();
    }

    /// Every flag with its value, given or default, by name: the content of /flagz.
    pub fn in_effect(&self) -> &BTreeMap<String, String> {
        &self.in_effect
    }

    /// A line for the log that names the flags that were given and change nothing.
    pub fn without_effect(&self) -> Option<String> {
        let names = self.names(|flag| !flag.has_effect)?;
        Some(format!("accepted for compatibility, without effect: {names}"))
    }

    /// A warning that names the deprecated flags that were given.
    pub(super) fn deprecated_warning(&self) -> Option<String> {
        let deprecated = [("healthz", self.healthz_port), ("metrics", self.metrics_port)];
        let given = deprecated.iter().filter(|(_, port)| port.is_some());
        let advice = given.map(|(server, _)| {
            format!("--{server}-port is deprecated: use --{server}-bind-address")
        });
        Some(advice.collect::<Vec<_>>().join("; ")).filter(|advice| !advice.is_empty())
    }

    /// A warning that names the flags that have no effect because there is a configuration file.
    pub(super) fn overridden_warning(&self) -> Option<String> {
        let names = self.names(Given::is_overridden_by_file)?;
        Some(format!("without effect because --config is given (set them there): {names}"))
    }

    /// The names of some of the flags that were given; None where there are none.
    fn names(&self, which: impl Fn(&Given) -> bool) -> Option<String> {
        let names: Vec<String> = self
            .given
            .iter()
            .filter(|flag| which(flag))
            .map(|flag| format!("--{}", flag.name))
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
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

fn with_go_syntax(arg: Arg) -> Arg {
    let arg = match arg.get_action() {
        // A plain `bool`.
        ArgAction::SetTrue => arg.action(ArgAction::Set).value_parser(go_bool).value_name(BOOL),
        _ => arg,
    };
    if is_bool(&arg) {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else if arg.get_action().takes_values() {
        arg.allow_hyphen_values(true)
    } else {
        arg
    }
}

fn is_bool(arg: &Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == BOOL))
}

fn has_no_effect(arg: &Arg) -> bool {
    arg.get_help_heading() == Some(WITHOUT_EFFECT)
}

/// The document's defaults, to be looked up by the ids of flags.
fn defaults() -> Value {
    serde_json::to_value(KubeProxyConfiguration::defaults()).unwrap_or_default()
}

/// What a flag is where it is not given: the document's default, false for other booleans, else
/// nothing.
fn default_value(arg: &Arg, defaults: &Value) -> String {
    match defaults.pointer(arg.get_id().as_str()) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        _ if is_bool(arg) => "false".to_owned(),
        _ => String::new(),
    }
}

/// Values as they were typed, joined by commas; else the default.
fn in_effect(cli: &clap::Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let defaults = defaults();
    let flags = cli.get_arguments().filter(|arg| arg.get_action().takes_values());
    flags
        .map(|arg| {
            let name = arg.get_long().unwrap_or_default().to_owned();
            let typed = matches.get_raw_occurrences(arg.get_id().as_str()).into_iter().flatten();
            let typed: Vec<_> = typed.flatten().map(|value| value.to_string_lossy()).collect();
            let value = match typed.as_slice() {
                [] => default_value(arg, &defaults),
                typed => typed.join(","),
            };
            (name, value)
        })
        .collect()
}

#[cfg(test)]
mod tests;
