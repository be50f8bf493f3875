//! The commands of the program besides serving: `kube-proxy explain`, `services` and others.
//!
//! * `client`: asks the running proxy over its metrics address
//! * `explain`, `services`: what the answers look like to people
//! * `top`: what happens, in a terminal
//! * `target`: what the user names: an address with a port, or a Service

mod client;
mod explain;
mod services;
mod target;
mod top;

use crate::answers;
use crate::app::review;
use crate::config::{Config, Flags};
use crate::explain::{Explanation, Filter, Services};
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use target::Target;

/// Ask a node's kube-proxy what it does, and why.
///
/// Without a command kube-proxy serves: see `kube-proxy --help`.
#[derive(Debug, Parser)]
#[command(name = "kube-proxy", max_term_width = 100, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Explain what becomes of a connection on this node
    ///
    /// Says which Service an address and port belong to, which endpoints are in use and why others are not, what
    /// becomes of a connection from a pod, from the node and from outside, which rules decide, and where the kernel
    /// differs from what kube-proxy has planned.
    #[command(after_help = "Examples:\n  \
        kube-proxy explain 10.96.0.10:53/UDP\n  \
        kube-proxy explain '[fd00:10:96::a]:80' --from fd00:10:244::5\n  \
        kube-proxy explain shop/cart -o json")]
    Explain {
        /// ADDRESS:PORT[/PROTOCOL] (TCP, UDP or SCTP; default TCP), or a Service as NAMESPACE/NAME
        target: Target,
        /// The client's address; default: a pod, the node itself and somebody outside
        #[arg(long, value_name = "ADDRESS")]
        from: Option<IpAddr>,
        #[command(flatten)]
        common: Common,
    },
    /// List Services with their endpoints, and what is wrong with them
    #[command(after_help = "Examples:\n  \
        kube-proxy services --problems\n  \
        kube-proxy services -n shop\n  \
        kube-proxy services 10.96.0.10")]
    Services {
        /// A part of NAMESPACE/NAME, the beginning of an address, or a port
        search: Option<String>,
        /// Only those of a namespace
        #[arg(short, long)]
        namespace: Option<String>,
        /// Only those that are not served as they ask for
        #[arg(long)]
        problems: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Watch new connections by Service and endpoint, refusals and syncs
    ///
    /// Where nobody looks (standard output is no terminal), with --once or -o json, it prints what happened in one interval. The
    /// running kube-proxy has to count connections: --count-connections=service, or =endpoint for those of the
    /// selected Service by endpoint as well.
    #[command(after_help = "Examples:\n  \
        kube-proxy top\n  \
        kube-proxy top -n shop --interval 10s --once")]
    Top {
        /// Only Services of a namespace
        #[arg(short, long)]
        namespace: Option<String>,
        /// Time between two looks
        #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
        interval: Duration,
        /// Print what happens in one interval, and exit
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Print the nft listing that manifests ask for, without touching the kernel
    ///
    /// Reads Services, EndpointSlices, Nodes and ServiceCIDRs from files, directories or standard input, as written by
    /// hand or saved with `kubectl get -o yaml`. Needs no privileges.
    #[command(after_help = "Examples:\n  \
        kube-proxy render manifests/ -- --cluster-cidr=10.244.0.0/16\n  \
        kubectl get services,endpointslices,nodes -A -o yaml | kube-proxy render --node worker-1 -")]
    Render {
        /// Files (.yaml, .yml, .json), directories, or - for standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Addresses of the node beside those of its Node object, for NodePorts
        #[arg(long, value_name = "ADDRESS")]
        address: Vec<IpAddr>,
        #[command(flatten)]
        serving: Serving,
    },
    /// Compare the kernel with what the API server or manifests say; change nothing
    ///
    /// Prints what a kube-proxy that starts now would change, as commands of nft, and exits with 1; or nothing, and
    /// exits with 0. It exits with 2 if it cannot tell. Needs CAP_NET_ADMIN in the node's network namespace.
    #[command(after_help = "Examples:\n  \
        kube-proxy verify --config /var/lib/kube-proxy/config.conf\n  \
        kube-proxy verify manifests/ -- --cluster-cidr=10.244.0.0/16")]
    Verify {
        /// Files, directories, or - for standard input; default: what the API server has
        files: Vec<PathBuf>,
        #[command(flatten)]
        serving: Serving,
    },
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  source <(kube-proxy completion bash)")]
    Completion { shell: Shell },
    /// Print the manual pages
    #[command(after_help = "Example:\n  kube-proxy man | man -l -")]
    Man,
}

/// How the proxy would serve.
#[derive(Debug, clap::Args)]
struct Serving {
    /// The configuration file of kube-proxy
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The node for which it is done; default: this host's name
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Other flags of kube-proxy
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<OsString>,
}

impl Serving {
    /// The configuration that a proxy with these flags would have.
    fn load(&self, files: &[PathBuf]) -> anyhow::Result<Config> {
        let mut arguments = vec![OsString::from("kube-proxy")];
        let mut add = |flag: &str, value: &OsStr| arguments.extend([flag.into(), value.to_owned()]);
        if let Some(config) = &self.config {
            add("--config", config.as_os_str());
        }
        if let Some(node) = &self.node {
            add("--hostname-override", OsStr::new(node));
        }
        if let Some(file) = files.first() {
            // No API server is needed.
            add("--manifests", file.as_os_str());
        }
        arguments.extend(self.flags.iter().cloned());
        let flags = Flags::read(arguments).unwrap_or_else(|error| error.exit());
        let config = Config::load(&flags)?;
        config.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        Ok(config)
    }
}

/// What commands that ask the running proxy have in common.
#[derive(Debug, clap::Args)]
struct Common {
    /// Where the running kube-proxy has its metrics (metricsBindAddress)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:10249")]
    server: String,
    /// For people, or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

/// A time that the proxy can be asked at.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let range = Duration::from_millis(100)..=Duration::from_secs(3600);
    if range.contains(&interval) {
        Ok(interval)
    } else {
        Err("100ms to 1h are possible".to_owned())
    }
}

/// Whether a command line names a command; else it is for serving.
pub fn is_command<T: AsRef<OsStr>>(arguments: &[T]) -> bool {
    let Some(first) = arguments.get(1).and_then(|first| first.as_ref().to_str()) else {
        return false;
    };
    first == "help" || Cli::command().get_subcommands().any(|command| command.get_name() == first)
}

/// Flags for serving and commands together, as users see the program.
fn whole() -> clap::Command {
    Flags::cli().subcommands(Cli::command().get_subcommands().cloned())
}

/// Runs a command: 0 if all is well, 1 if it could not be done.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let cli = Cli::try_parse_from(arguments).unwrap_or_else(|error| error.exit());
    match run_command(cli.command) {
        Ok(code) => code,
        // Whoever read it has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kube-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run_command(command: Command) -> anyhow::Result<ExitCode> {
    // It leaves colours out where NO_COLOR is set or nobody looks.
    let mut out = anstream::stdout().lock();
    match command {
        Command::Explain { target, from, common } => {
            let explanations = match client::get(&common.server, &target.path(from)) {
                Ok(json) => serde_json::from_str(&json)?,
                Err(error) => serde_json::to_value([without_proxy(&target, error)?])?,
            };
            let write = |out: &mut _, all: &Vec<_>| explain::write(out, all);
            show(&mut out, common.output, explanations, write)?;
        }
        Command::Services { search, namespace, problems, common } => {
            let filter = Filter { search, namespace, problems, ..Filter::default() };
            let list = serde_json::to_value(all_services(&common.server, filter)?)?;
            show(&mut out, common.output, list, services::write)?;
        }
        Command::Top { namespace, interval, once, common: Common { server, output } } => {
            let options = top::Options { server, namespace, interval };
            if output == Output::Text && !once && io::stdout().is_terminal() {
                drop(out);
                top::watch(&options)?;
                return Ok(ExitCode::SUCCESS);
            }
            let seen = top::once(&options)?;
            let write = |out: &mut _, rates: &Vec<_>| top::write(out, &seen, rates);
            show(&mut out, output, serde_json::to_value(&seen.rates)?, write)?;
        }
        Command::Render { files, address, serving } => {
            log_to_stderr();
            let config = serving.load(&files)?;
            write!(out, "{}", review::render(&config, &files, &address)?)?;
        }
        Command::Verify { files, serving } => {
            log_to_stderr();
            let verified = serving.load(&files).and_then(|config| review::verify(&config, &files));
            match verified {
                Ok(differences) if differences.is_empty() => {}
                Ok(differences) => {
                    differences.iter().try_for_each(|line| writeln!(out, "{line}"))?;
                    out.flush()?;
                    return Ok(ExitCode::FAILURE);
                }
                Err(error) => {
                    eprintln!("kube-proxy: {error:#}");
                    return Ok(ExitCode::from(2));
                }
            }
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut whole(), "kube-proxy", &mut script);
            out.write_all(&script)?;
        }
        Command::Man => {
            let mut page = Vec::new();
            let mut whole = whole();
            whole.build();
            clap_mangen::Man::new(whole.clone()).render(&mut page)?;
            for command in whole.get_subcommands().filter(|one| one.get_name() != "help") {
                clap_mangen::Man::new(command.clone()).render(&mut page)?;
            }
            out.write_all(&page)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// All Services that a filter lets through, asked for page by page.
fn all_services(server: &str, mut filter: Filter) -> anyhow::Result<Services> {
    let mut all = Services::default();
    loop {
        let path = format!("/api/services?{}", serde_urlencoded::to_string(&filter)?);
        let mut page: Services = serde_json::from_str(&client::get(server, &path)?)?;
        filter.offset += page.services.len();
        let is_last = page.services.is_empty() || filter.offset >= page.matched;
        page.services.splice(0..0, std::mem::take(&mut all.services));
        all = page;
        if is_last {
            return Ok(all);
        }
    }
}

/// What the kernel alone says, where no proxy answers.
fn without_proxy(target: &Target, error: client::Error) -> anyhow::Result<Explanation> {
    let (Target::Address(address, protocol), client::Error::NoProxy { .. }) = (target, &error)
    else {
        return Err(error.into());
    };
    let mut explanation = answers::read_kernel(address.ip(), address.port(), *protocol)
        .with_context(|| error.to_string())?;
    explanation.notes.insert(0, format!("{error} This is what the kernel has, without reasons."));
    Ok(explanation)
}

/// What is wrong with objects is said where it does not get into the output.
fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(tracing::Level::WARN)
        .with_target(false)
        .without_time()
        .init();
}

/// Writes an answer as it came, or for people.
fn show<W: Write, T: DeserializeOwned>(
    out: &mut W,
    output: Output,
    mut answer: Value,
    write: impl FnOnce(&mut W, &T) -> io::Result<()>,
) -> anyhow::Result<()> {
    match output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&answer)?)?,
        Output::Text => {
            client::make_printable(&mut answer);
            write(out, &serde_json::from_value(answer)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_for_serving_names_every_command() {
        let help = Flags::cli().render_long_help().to_string();
        for command in Cli::command().get_subcommands() {
            assert!(help.contains(command.get_name()), "{} is not in:\n{help}", command.get_name());
        }
    }

    #[test]
    fn commands_and_flags_are_told_apart() {
        let is = |arguments: &[&str]| is_command(arguments);
        assert!(is(&["kube-proxy", "explain", "10.96.0.1:443"]) && is(&["kube-proxy", "help"]));
        assert!(!is(&["kube-proxy"]) && !is(&["kube-proxy", "--config", "explain"]));
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
        whole().debug_assert();
    }
}
