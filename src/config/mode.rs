//! The mode, which decides in which section some settings are looked for.

use super::GoDuration;
use super::document::{KIND, KubeProxyConfiguration};
use super::problems::{NOT_NEGATIVE, Problems};
use crate::model::{Algorithm, parse_cidr};
use std::time::Duration;

const MODES: [&str; 3] = ["iptables", "ipvs", "nftables"];

/// The mode that the configuration names. All are served with nftables; it only tells from which
/// section masqueradeAll, syncPeriod and minSyncPeriod came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    Nftables,
    Iptables,
    Ipvs,
}

pub(super) fn check(document: &KubeProxyConfiguration, problems: &mut Problems) -> ProxyMode {
    match document.mode.as_str() {
        "nftables" => ProxyMode::Nftables,
        "iptables" => ProxyMode::Iptables,
        "ipvs" => ProxyMode::Ipvs,
        other => {
            problems.unsupported("mode", other, &MODES);
            ProxyMode::Nftables
        }
    }
}

/// masqueradeAll of the section of the mode.
pub(super) fn masquerade_all(document: &KubeProxyConfiguration, mode: ProxyMode) -> bool {
    match mode {
        ProxyMode::Nftables => document.nftables.masquerade_all,
        ProxyMode::Iptables | ProxyMode::Ipvs => document.iptables.masquerade_all,
    }
}

/// What ipvs.scheduler means, in mode ipvs.
pub(super) fn balancing(
    document: &KubeProxyConfiguration,
    mode: ProxyMode,
    warnings: &mut Vec<String>,
) -> Algorithm {
    let scheduler = document.ipvs.scheduler.as_str();
    // Who names none did not choose one.
    if mode != ProxyMode::Ipvs || scheduler.is_empty() {
        return Algorithm::Random;
    }
    Algorithm::of_ipvs(scheduler).unwrap_or_else(|| {
        warnings.push(format!(
            "ipvs.scheduler: there is no {scheduler:?} here, endpoints are chosen by chance; rr, wrr, sh and mh have a counterpart"
        ));
        Algorithm::Random
    })
}

/// syncPeriod and minSyncPeriod of the section of the mode.
pub(super) fn periods(
    document: &KubeProxyConfiguration,
    mode: ProxyMode,
    problems: &mut Problems,
) -> (Duration, Duration) {
    let (section, sync, min) = match mode {
        ProxyMode::Nftables => {
            ("nftables", document.nftables.sync_period, document.nftables.min_sync_period)
        }
        ProxyMode::Iptables => {
            ("iptables", document.iptables.sync_period, document.iptables.min_sync_period)
        }
        ProxyMode::Ipvs => ("ipvs", document.ipvs.sync_period, document.ipvs.min_sync_period),
    };
    let sync_field = format!("{section}.syncPeriod");
    let min_field = format!("{section}.minSyncPeriod");
    if sync <= GoDuration::ZERO {
        problems.invalid(&sync_field, sync, "must be greater than 0");
    }
    if min.is_negative() {
        problems.invalid(&min_field, min, NOT_NEGATIVE);
    }
    if min > sync {
        let detail = format!("must be greater than or equal to {}.{min_field}", KIND);
        problems.invalid(&sync_field, sync, &detail);
    }
    (sync.to_std(), min.to_std())
}

/// What has no effect but is checked by kube-proxy, so that a file that it refuses is refused here
/// too.
pub(super) fn unused(document: &KubeProxyConfiguration, mode: ProxyMode, problems: &mut Problems) {
    let bits = [
        (true, "iptables.masqueradeBit", document.iptables.masquerade_bit),
        (mode == ProxyMode::Nftables, "nftables.masqueradeBit", document.nftables.masquerade_bit),
    ];
    for (checked, field, bit) in bits {
        if checked && bit.is_some_and(|bit| !(0..=31).contains(&bit)) {
            problems.invalid(field, bit, "must be within the range [0, 31]");
        }
    }
    if mode != ProxyMode::Ipvs {
        return;
    }
    let ipvs = &document.ipvs;
    for (field, timeout) in [
        ("ipvs.tcpTimeout", ipvs.tcp_timeout),
        ("ipvs.tcpFinTimeout", ipvs.tcp_fin_timeout),
        ("ipvs.udpTimeout", ipvs.udp_timeout),
    ] {
        if timeout.is_negative() {
            problems.invalid(field, timeout, NOT_NEGATIVE);
        }
    }
    for (index, cidr) in ipvs.exclude_cidrs.iter().flatten().enumerate() {
        if parse_cidr(cidr).is_none() {
            let field = format!("ipvs.excludeCIDRs[{index}]");
            problems.invalid(&field, cidr, "must be a valid CIDR");
        }
    }
}

/// Names the mode where none is; what the operator should know about it. `node_ports_unset`: nobody
/// said which addresses NodePorts answer on.
pub(super) fn name(
    document: &mut KubeProxyConfiguration,
    node_ports_unset: bool,
) -> Option<String> {
    let named = match document.mode.as_str() {
        "" => {
            document.mode = "iptables".to_owned();
            "no mode is set, which kube-proxy takes for iptables"
        }
        "iptables" => "mode is iptables",
        "ipvs" => "mode is ipvs",
        _ => return None,
    };
    let node_ports = match node_ports_unset {
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
