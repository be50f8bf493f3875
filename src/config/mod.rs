//! The command line and the configuration file, turned into one validated [`Config`].
//!
//! Two steps: what was typed ([`Flags`], [`KubeProxyConfiguration`]) becomes what is meant
//! ([`Config`]). Everything here is kube-proxy's own interface (kubeproxy.config.k8s.io/v1alpha1 and
//! its flags), so that its configuration can be taken over unchanged; what differs in meaning is said
//! in a warning. Nothing is logged here: [`Config::warnings`] holds what should be.
//!
//! # To add a value
//!
//! 1. Define it in `document`: the field with its default, and above it the flag with its help. That
//!    makes it readable from files and flags, and shown by `--help`, `--write-config-to`, /configz and
//!    /flagz; `all_flags_are_places_of_the_document` fails where flag and field do not fit.
//! 2. Where not every value is good, refuse those in `resolve` (or the module of its section). Where
//!    the program wants something else than what is written (an address rather than a text, nothing
//!    rather than zero), make that there too, and give it a field of [`Config`].
//! 3. Use it: `config.document.SECTION.FIELD`, or the field of [`Config`].
//!
//! A flag that is no part of the document is a field of [`Flags`], and nothing more.

mod address;
mod conntrack;
mod decode;
mod detect_local;
mod document;
mod duration;
mod flag_values;
mod flags;
mod gates;
mod headings;
mod hostname;
mod logging;
mod merge;
mod mode;
mod node_ports;
mod problems;
mod resolve;
mod sanity;
mod settings;
mod watch;
mod write;

pub use conntrack::Conntrack;
pub use decode::DecodeError;
pub use detect_local::DetectLocal;
pub use document::KubeProxyConfiguration;
pub use duration::{DurationError, GoDuration};
pub use flags::Flags;
pub use gates::{
    ALLOW_SERVICE_EXTERNAL_IPS, COMPONENT_FLAGZ, COMPONENT_STATUSZ, FeatureGates, Stage,
};
pub use logging::{LogFormat, Logging};
pub use mode::ProxyMode;
pub use node_ports::{NodePortAddress, NodePortAddresses, NodePortMatch};
pub use problems::{FieldError, Mistake};
pub use sanity::{Contradictions, NodeFamilies};
pub use settings::{Action, Config, CountConnections, GoneEndpoints, LoadedFile, Source};
pub use watch::ConfigWatch;

use std::io;
use std::path::PathBuf;

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

#[cfg(test)]
mod tests;
