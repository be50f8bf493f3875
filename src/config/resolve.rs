//! From what was typed to a [`Config`]: who wins, then all checks of values, each mistake named by
//! its field.

use super::address::{HostPortError, parse_host_port};
use super::document::{Field, KubeProxyConfiguration};
use super::problems::{NOT_NEGATIVE, Problems};
use super::{
    Action, Config, ConfigError, FeatureGates, Flags, GoDuration, LoadedFile, Source, conntrack,
    decode, detect_local, hostname, logging, merge, mode, node_ports,
};
use crate::model::parse_ip;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

impl Config {
    /// Reads the file that the flags name, if any, and resolves both.
    pub fn load(flags: &Flags) -> Result<Config, ConfigError> {
        let file = match &flags.config {
            Some(path) if !path.as_os_str().is_empty() => Some(read(path)?),
            _ => None,
        };
        Config::resolve(flags, file, hostname::os_host_name)
    }

    /// The configuration that flags and a file that has been read come to. `host_name` is asked
    /// where neither names the node.
    pub fn resolve(
        flags: &Flags,
        file: Option<LoadedFile>,
        host_name: impl FnOnce() -> io::Result<String>,
    ) -> Result<Config, ConfigError> {
        let mut warnings = Vec::new();
        let (mut document, node_ports_unset) = match &file {
            Some(file) => {
                let mut document = decode(file, &mut warnings)?;
                let node_ports_unset = document.node_port_addresses.is_unset();
                document.apply_defaults();
                merge::beside_file(&mut document, flags);
                warnings.extend(flags.overridden_warning());
                (document, node_ports_unset)
            }
            None => {
                warnings.extend(flags.deprecated_warning());
                (merge::from_flags(flags), flags.document.node_port_addresses.is_unset())
            }
        };
        warnings.extend(mode::name(&mut document, node_ports_unset));

        // In the order in which mistakes are listed; what stands for a wrong value is not used.
        let mut problems = Problems::default();
        let feature_gates = FeatureGates::new(document.feature_gates.clone());
        let mode = mode::check(&document, &mut problems);
        let (sync_period, min_sync_period) = mode::periods(&document, mode, &mut problems);
        mode::unused(&document, mode, &mut problems);
        plain_values(&document, &mut problems);
        let node_ip_override = node_ip_override(&document, &mut problems);
        hidden_metrics(&document, &mut problems);
        let [healthz_bind_address, metrics_bind_address] = servers(&document, &mut problems);
        let detect_local = detect_local::check(&document, &mut problems);
        let node_port_addresses = node_ports::check(&document, &feature_gates, &mut problems);
        let conntrack = conntrack::check(&document.conntrack, &mut problems);
        client(&document, &mut problems);
        let logging = logging::check(&document.logging, &mut problems);
        if !problems.0.is_empty() {
            return Err(ConfigError::Invalid(problems.0));
        }
        warnings.extend(feature_gates.warning());

        let typed_name = &flags.document.hostname_override;
        if !typed_name.is_empty() {
            document.hostname_override = hostname::normal(typed_name)?;
        }
        Ok(Config {
            action: action(flags),
            source: source(flags, &document),
            file,
            node_name: hostname::node_name(&document.hostname_override, host_name)?,
            node_ip_override,
            healthz_bind_address,
            metrics_bind_address,
            mode,
            detect_local,
            node_port_addresses,
            masquerade_all: mode::masquerade_all(&document, mode),
            own_table: flags.own_table.unwrap_or(true),
            balancing: flags
                .balancing
                .unwrap_or_else(|| mode::balancing(&document, mode, &mut warnings)),
            gone_endpoints: flags.gone_endpoints.unwrap_or_default(),
            count_connections: flags.count_connections.unwrap_or_default(),
            status_page: flags.status_page.unwrap_or(true),
            sync_period,
            min_sync_period,
            conntrack,
            feature_gates,
            logging,
            warnings,
            document,
        })
    }
}

fn read(path: &Path) -> Result<LoadedFile, ConfigError> {
    match std::fs::read(path) {
        Ok(content) => Ok(LoadedFile { path: path.to_owned(), content }),
        Err(error) => Err(ConfigError::Read { path: path.to_owned(), error }),
    }
}

/// The document in a file, without its defaults.
fn decode(
    file: &LoadedFile,
    warnings: &mut Vec<String>,
) -> Result<KubeProxyConfiguration, ConfigError> {
    let (document, oddities) = decode::decode(&String::from_utf8_lossy(&file.content))
        .map_err(|error| ConfigError::Decode { path: file.path.clone(), error })?;
    if !oddities.is_empty() {
        let path = file.path.display();
        warnings.push(format!("configuration file {path} read leniently: {}", oddities.join("; ")));
    }
    Ok(document)
}

/// Values that are used as they are written.
fn plain_values(document: &KubeProxyConfiguration, problems: &mut Problems) {
    let oom_score_adj = document.oom_score_adj.unwrap_or_default();
    if !(-1000..=1000).contains(&oom_score_adj) {
        problems.invalid("oomScoreAdj", oom_score_adj, "must be within the range [-1000, 1000]");
    }
    if document.config_sync_period <= GoDuration::ZERO {
        problems.invalid("configSyncPeriod", document.config_sync_period, "must be greater than 0");
    }
}

fn node_ip_override(document: &KubeProxyConfiguration, problems: &mut Problems) -> Option<IpAddr> {
    let bind_address = parse_ip(&document.bind_address);
    if bind_address.is_none() {
        let detail = "not a valid textual representation of an IP address";
        problems.invalid("bindAddress", &document.bind_address, detail);
    }
    bind_address.filter(|ip| !ip.is_unspecified())
}

/// healthzBindAddress and metricsBindAddress.
fn servers(document: &KubeProxyConfiguration, problems: &mut Problems) -> [Option<SocketAddr>; 2] {
    let addresses = [
        ("healthzBindAddress", document.healthz_bind_address.as_str()),
        ("metricsBindAddress", document.metrics_bind_address.as_str()),
    ];
    addresses.map(|(field, text)| match text {
        "" => None,
        text => host_port(field, text, problems),
    })
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

fn client(document: &KubeProxyConfiguration, problems: &mut Problems) {
    let burst = document.client_connection.burst;
    if burst < 0 {
        problems.invalid("clientConnection.burst", burst, NOT_NEGATIVE);
    }
}

/// `major.minor`, both numbers.
fn hidden_metrics(document: &KubeProxyConfiguration, problems: &mut Problems) {
    let version = &document.show_hidden_metrics_for_version;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let valid = version.split_once('.').is_some_and(|(a, b)| number(a) && number(b));
    if !version.is_empty() && !valid {
        let detail = "must be a minor version such as 1.36";
        problems.invalid("showHiddenMetricsForVersion", version, detail);
    }
}

fn action(flags: &Flags) -> Action {
    let path = flags.write_config_to.as_ref().filter(|path| !path.as_os_str().is_empty());
    match path {
        Some(path) => Action::WriteConfig(path.clone()),
        None if flags.cleanup == Some(true) => Action::Cleanup,
        None if flags.init_only == Some(true) => Action::InitOnly,
        None => Action::Run,
    }
}

fn source(flags: &Flags, document: &KubeProxyConfiguration) -> Source {
    let master = flags.master.clone().filter(|master| !master.is_empty());
    let kubeconfig = &document.client_connection.kubeconfig;
    match (&flags.manifests, kubeconfig.as_str(), master) {
        (Some(directory), _, _) => Source::Manifests(directory.clone()),
        (None, "", None) => Source::InCluster,
        (None, "", Some(master)) => Source::Master(master),
        (None, path, master) => Source::Kubeconfig { path: path.into(), master },
    }
}
