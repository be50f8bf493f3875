//! Who wins, flags or file.
//!
//! Without `--config` the flags are laid over the defaults. With it the file decides, except for
//! the logging flags and the node's name; `--master`, `--manifests` and the actions are no part of
//! a document.

use super::Flags;
use super::address::append_port;
use super::document::{Field, IptablesConfiguration, KubeProxyConfiguration};
use clap::FromArgMatches;

/// The document that a command line without `--config` stands for.
pub(super) fn from_flags(flags: &Flags) -> KubeProxyConfiguration {
    let typed = &flags.document;
    // The servers' addresses follow the family of bindAddress.
    let bind_address = typed.bind_address.clone();
    let mut defaults = KubeProxyConfiguration { bind_address, ..Default::default() };
    defaults.apply_defaults();
    let mut document = defaults.clone();
    // As in Go they replace defaults, so that a zero which was typed stays one.
    lay(&mut document, flags);

    // These are different: what is empty leaves the default.
    document.bind_address = defaults.bind_address;
    document.detect_local_mode = or(&typed.detect_local_mode, defaults.detect_local_mode);
    document.node_port_addresses = or(&typed.node_port_addresses, defaults.node_port_addresses);
    let (healthz, metrics) = (defaults.healthz_bind_address, defaults.metrics_bind_address);
    document.healthz_bind_address =
        server_address(&typed.healthz_bind_address, flags.healthz_port, healthz);
    document.metrics_bind_address =
        server_address(&typed.metrics_bind_address, flags.metrics_port, metrics);

    document.feature_gates = typed.feature_gates.clone();
    document.logging.vmodule = typed.logging.vmodule.clone();
    // Only files are served: there is no other mode that this could have been meant for.
    if typed.mode.is_empty() && flags.manifests.is_some() {
        document.mode = "nftables".to_owned();
    }
    if document.mode == "nftables" {
        iptables_flags_for_nftables(&mut document, defaults.iptables);
    }
    document
}

/// The document of a file that has its defaults, with the flags that count all the same. Of
/// `--vmodule` and the file's list both do, the flag first.
pub(super) fn beside_file(document: &mut KubeProxyConfiguration, flags: &Flags) {
    let of_file = std::mem::take(&mut document.logging.vmodule);
    lay(&mut document.logging, flags);
    document.logging.vmodule = flags.document.logging.vmodule.clone();
    document.logging.vmodule.extend(of_file);
}

/// Sets the fields of a section whose flags were given.
fn lay(section: &mut impl FromArgMatches, flags: &Flags) {
    let taken = section.update_from_arg_matches(&flags.matches);
    taken.expect("the same matches made the flags");
}

fn or<T: Field + Clone>(typed: &T, default: T) -> T {
    if typed.is_unset() { default } else { typed.clone() }
}

/// `--healthz-port` and `--metrics-port` only add to an address without a port; 0 switches off.
fn server_address(typed: &str, port: Option<u16>, default: String) -> String {
    match (typed, port) {
        (_, Some(0)) => String::new(),
        ("", _) => default,
        (address, Some(port)) => append_port(address, port),
        (address, None) => {
            let port = default.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            append_port(address, port.unwrap_or(0))
        }
    }
}

/// There are no flags for the section of nftables: those of iptables stand for them.
fn iptables_flags_for_nftables(
    document: &mut KubeProxyConfiguration,
    defaults: IptablesConfiguration,
) {
    let (iptables, nftables) = (&mut document.iptables, &mut document.nftables);
    nftables.masquerade_all =
        std::mem::replace(&mut iptables.masquerade_all, defaults.masquerade_all);
    nftables.sync_period = std::mem::replace(&mut iptables.sync_period, defaults.sync_period);
    nftables.min_sync_period =
        std::mem::replace(&mut iptables.min_sync_period, defaults.min_sync_period);
}
