//! Who wins, flags or file.
//!
//! Without `--config` the flags make the document. With it the file does, except for the node name
//! and the logging flags; `--master`, `--manifests` and the actions are no part of a document.

use super::Flags;
use super::address::append_port;
use super::file::{FlushFrequency, KubeProxyConfiguration, VModuleItem};

/// Sets a field where its flag was given.
fn set<T: Clone>(field: &mut T, flag: &Option<T>) {
    if let Some(value) = flag {
        field.clone_from(value);
    }
}

/// As [`set`], for addresses: an empty one leaves the default.
fn set_address(field: &mut String, flag: &Option<String>) {
    if let Some(value) = flag.as_ref().filter(|value| !value.is_empty()) {
        field.clone_from(value);
    }
}

/// As [`set`], for fields where zero and absent differ.
fn set_some<T: Clone>(field: &mut Option<T>, flag: &Option<T>) {
    if flag.is_some() {
        field.clone_from(flag);
    }
}

/// The document that a command line without `--config` stands for, with its defaults.
pub(super) fn from_flags(flags: &Flags) -> KubeProxyConfiguration {
    let mut document = KubeProxyConfiguration::default();
    // Before the defaults, because the servers' addresses follow its family.
    set_address(&mut document.bind_address, &flags.bind_address);
    document.apply_defaults();

    document
        .feature_gates
        .extend(flags.feature_gates.iter().flatten().map(|(k, v)| (k.clone(), *v)));
    let client = &mut document.client_connection;
    set(&mut client.kubeconfig, &flags.kubeconfig);
    set(&mut client.content_type, &flags.kube_api_content_type);
    set(&mut client.burst, &flags.kube_api_burst);
    set(&mut client.qps, &flags.kube_api_qps);
    set(&mut document.config_sync_period, &flags.config_sync_period);

    let healthz = &mut document.healthz_bind_address;
    server_address(healthz, &flags.healthz_bind_address, flags.healthz_port);
    let metrics = &mut document.metrics_bind_address;
    server_address(metrics, &flags.metrics_bind_address, flags.metrics_port);
    set(&mut document.bind_address_hard_fail, &flags.bind_address_hard_fail);
    set(&mut document.enable_profiling, &flags.profiling);
    set(&mut document.show_hidden_metrics_for_version, &flags.show_hidden_metrics_for_version);
    set_some(&mut document.oom_score_adj, &flags.oom_score_adj);

    set(&mut document.detect_local_mode, &flags.detect_local_mode);
    set(&mut document.cluster_cidr, &flags.cluster_cidr);
    set(&mut document.detect_local.bridge_interface, &flags.pod_bridge_interface);
    set(&mut document.detect_local.interface_name_prefix, &flags.pod_interface_name_prefix);
    if let Some(list) = &flags.nodeport_addresses {
        let entries = list.iter().filter(|entry| !entry.is_empty()).cloned();
        document.node_port_addresses = Some(entries.collect());
    }
    mode_flags(&mut document, flags);

    let conntrack = &mut document.conntrack;
    set_some(&mut conntrack.max_per_core, &flags.conntrack_max_per_core);
    set_some(&mut conntrack.min, &flags.conntrack_min);
    set_some(&mut conntrack.tcp_established_timeout, &flags.conntrack_tcp_timeout_established);
    set_some(&mut conntrack.tcp_close_wait_timeout, &flags.conntrack_tcp_timeout_close_wait);
    set(&mut conntrack.tcp_be_liberal, &flags.conntrack_tcp_be_liberal);
    set(&mut conntrack.udp_timeout, &flags.conntrack_udp_timeout);
    set(&mut conntrack.udp_stream_timeout, &flags.conntrack_udp_timeout_stream);
    document
}

/// `--healthz-port` and `--metrics-port` only add to an address without a port; 0 switches off.
fn server_address(field: &mut String, flag: &Option<String>, port: Option<u16>) {
    let Some(address) = flag.as_ref().filter(|address| !address.is_empty()) else {
        if port == Some(0) {
            field.clear();
        }
        return;
    };
    let default = field.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
    *field = match port {
        Some(0) => String::new(),
        port => append_port(address, port.unwrap_or(default)),
    };
}

/// The flags of the other modes. Without a file, `--iptables-*-period` are those of every mode but
/// ipvs, and `--masquerade-all` is that of every mode.
fn mode_flags(document: &mut KubeProxyConfiguration, flags: &Flags) {
    let other = &flags.other;
    set(&mut document.mode, &flags.proxy_mode);
    // Only files are served: there is no other mode that this could have been meant for.
    if flags.proxy_mode.is_none() && flags.manifests.is_some() {
        document.mode = "nftables".to_owned();
    }
    match document.mode.as_str() {
        "nftables" => {
            set(&mut document.nftables.masquerade_all, &flags.masquerade_all);
            set(&mut document.nftables.sync_period, &flags.iptables_sync_period);
            set(&mut document.nftables.min_sync_period, &flags.iptables_min_sync_period);
        }
        "ipvs" => {
            set(&mut document.iptables.masquerade_all, &flags.masquerade_all);
            set(&mut document.ipvs.sync_period, &other.ipvs_sync_period);
            set(&mut document.ipvs.min_sync_period, &other.ipvs_min_sync_period);
        }
        _ => {
            set(&mut document.iptables.masquerade_all, &flags.masquerade_all);
            set(&mut document.iptables.sync_period, &flags.iptables_sync_period);
            set(&mut document.iptables.min_sync_period, &flags.iptables_min_sync_period);
        }
    }
    set_some(&mut document.iptables.masquerade_bit, &other.iptables_masquerade_bit);
    set_some(&mut document.iptables.localhost_node_ports, &other.iptables_localhost_nodeports);
    let ipvs = &mut document.ipvs;
    set(&mut ipvs.scheduler, &other.ipvs_scheduler);
    set_some(&mut ipvs.exclude_cidrs, &other.ipvs_exclude_cidrs);
    set(&mut ipvs.strict_arp, &other.ipvs_strict_arp);
    set(&mut ipvs.tcp_timeout, &other.ipvs_tcp_timeout);
    set(&mut ipvs.tcp_fin_timeout, &other.ipvs_tcpfin_timeout);
    set(&mut ipvs.udp_timeout, &other.ipvs_udp_timeout);
}

/// Logging flags win over the file, one by one; of `--vmodule` and the file's list both count, the
/// flag first.
pub(super) fn logging_flags(document: &mut KubeProxyConfiguration, flags: &Flags) {
    let (logging, flags) = (&mut document.logging, &flags.logging);
    set(&mut logging.verbosity, &flags.verbosity);
    set(&mut logging.format, &flags.logging_format);
    set(&mut logging.flush_frequency, &flags.log_flush_frequency.map(FlushFrequency));
    let items = flags.vmodule.iter().flatten().map(|(pattern, verbosity)| VModuleItem {
        file_pattern: pattern.clone(),
        verbosity: *verbosity,
    });
    logging.vmodule.splice(0..0, items);
    let options = &mut logging.options;
    set(&mut options.text.split_stream, &flags.log_text_split_stream);
    set(&mut options.text.info_buffer_size, &flags.log_text_info_buffer_size);
    set(&mut options.json.split_stream, &flags.log_json_split_stream);
    set(&mut options.json.info_buffer_size, &flags.log_json_info_buffer_size);
}
