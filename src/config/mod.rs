//! The command line and the configuration file, turned into one validated [`Config`].
//!
//! Two steps, and nothing outside sees the first: what was typed ([`Flags`], the types of
//! `KubeProxyConfiguration`) becomes what is meant ([`Config`]). Everything here is kube-proxy's own
//! interface (kubeproxy.config.k8s.io/v1alpha1 and its flags), so that its configuration can be
//! taken over unchanged; what differs in meaning is said in a warning. Nothing is logged here:
//! [`Config::warnings`] holds what should be.

mod address;
mod decode;
mod duration;
mod file;
mod flag_values;
mod flags;
mod gates;
mod hostname;
mod logging;
mod merge;
mod node_addresses;
mod node_ports;
mod problems;
mod resolve;
mod sanity;
mod settings;
mod watch;
mod write;

pub use decode::DecodeError;
pub use duration::{DurationError, GoDuration};
pub use flags::Flags;
pub use gates::{
    ALLOW_SERVICE_EXTERNAL_IPS, COMPONENT_FLAGZ, COMPONENT_STATUSZ, FeatureGates, Stage,
};
pub use logging::{LogFormat, Logging};
pub use node_addresses::NodeAddresses;
pub use node_ports::{NodePortAddress, NodePortAddresses, NodePortMatch};
pub use problems::{FieldError, Mistake};
pub use sanity::{Contradictions, NodeFamilies};
pub use settings::{Action, Client, Config, Conntrack, DetectLocal, LoadedFile, ProxyMode, Source};
pub use watch::ConfigWatch;

use file::KubeProxyConfiguration;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no configuration to run with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("configuration file {}: {error}", path.display())]
    Decode { path: PathBuf, error: DecodeError },
    /// Every wrong field, not only the first.
    #[error("invalid configuration: {}", list(.0))]
    Invalid(Vec<FieldError>),
    #[error("cannot ask for the host name: {0}; set --hostname-override")]
    HostName(io::Error),
    #[error("the node's name is empty: set --hostname-override or hostnameOverride to a name")]
    EmptyHostName,
    #[error("cannot watch the configuration file {}: {error}", path.display())]
    Watch { path: PathBuf, error: notify::Error },
    /// Not a failure: the reason to end, so that the next start reads the new content.
    #[error("the configuration file {} has changed; a restart makes it effective", path.display())]
    Changed { path: PathBuf },
    #[error("cannot write the configuration to {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
}

/// One error behind the colon, several each on a line of its own.
fn list(errors: &[FieldError]) -> String {
    match errors {
        [error] => error.to_string(),
        errors => errors.iter().map(|error| format!("\n  {error}")).collect(),
    }
}

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
        let mut document = match &file {
            Some(file) => from_file(file, &mut warnings)?,
            None => merge::from_flags(flags),
        };
        warnings.extend(match file {
            Some(_) => flags.overridden_warning(),
            None => flags.deprecated_warning(),
        });
        merge::logging_flags(&mut document, flags);
        warnings.extend(platform_defaults(&mut document));

        let mut problems = problems::Problems::default();
        let checked = resolve::check(&document, &mut problems);
        if !problems.0.is_empty() {
            return Err(ConfigError::Invalid(problems.0));
        }
        warnings.extend(checked.feature_gates.warning());

        if let Some(name) = flags.hostname_override.as_ref().filter(|name| !name.is_empty()) {
            document.hostname_override = name.trim().to_lowercase();
            if document.hostname_override.is_empty() {
                return Err(ConfigError::EmptyHostName);
            }
        }
        let node_name = hostname::node_name(&document.hostname_override, host_name)?;
        Ok(Config {
            action: action(flags),
            source: source(flags, &document),
            file,
            client: checked.client,
            config_sync_period: checked.config_sync_period,
            node_name,
            node_ip_override: checked.node_ip_override,
            healthz_bind_address: checked.healthz_bind_address,
            metrics_bind_address: checked.metrics_bind_address,
            bind_address_hard_fail: document.bind_address_hard_fail,
            profiling: document.enable_profiling,
            oom_score_adj: checked.oom_score_adj,
            mode: checked.mode,
            detect_local: checked.detect_local,
            node_port_addresses: checked.node_port_addresses,
            masquerade_all: checked.masquerade_all,
            sync_period: checked.sync_period,
            min_sync_period: checked.min_sync_period,
            conntrack: checked.conntrack,
            feature_gates: checked.feature_gates,
            logging: checked.logging,
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

/// The document in a file, with its defaults.
fn from_file(
    file: &LoadedFile,
    warnings: &mut Vec<String>,
) -> Result<KubeProxyConfiguration, ConfigError> {
    let (mut document, oddities) = decode::decode(&String::from_utf8_lossy(&file.content))
        .map_err(|error| ConfigError::Decode { path: file.path.clone(), error })?;
    if !oddities.is_empty() {
        let path = file.path.display();
        warnings.push(format!("configuration file {path} read leniently: {}", oddities.join("; ")));
    }
    document.apply_defaults();
    Ok(document)
}

/// What kube-proxy fills in on Linux after the API's defaults; what the operator should know about
/// the mode.
fn platform_defaults(document: &mut KubeProxyConfiguration) -> Option<String> {
    if document.detect_local_mode.is_empty() {
        document.detect_local_mode = "ClusterCIDR".to_owned();
    }
    let addresses_unset = document.node_port_addresses.as_ref().is_none_or(Vec::is_empty);
    if addresses_unset {
        document.node_port_addresses = Some(vec!["primary".to_owned()]);
    }
    let named = match document.mode.as_str() {
        "" => {
            document.mode = "iptables".to_owned();
            "no mode is set, which kube-proxy takes for iptables"
        }
        "iptables" => "mode is iptables",
        "ipvs" => "mode is ipvs",
        _ => return None,
    };
    let node_ports = match addresses_unset {
        false => "",
        true => {
            "; nodePortAddresses is not set, so NodePorts answer on this node's primary addresses \
             (those of its Node object) and on no other address"
        }
    };
    Some(format!(
        "{named}, but Services are always served with nftables here; \
         set mode: nftables to silence this{node_ports}"
    ))
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

#[cfg(test)]
mod tests;
