//! From the operator's configuration to what each room wants to know.

use super::logging::SetFilter;
use super::node_ports::NodePortSelector;
use crate::config::{Config, CountConnections, DetectLocal, GoneEndpoints, Logging, Stage};
use crate::metrics::{BuildInfo, FeatureStage, Metrics};
use crate::plan::Counting;
use crate::{plan, sync};
use nft_table::Family;

/// The options of the sync thread.
pub fn sync_options(config: &Config) -> sync::Options {
    let mut nodeports = NodePortSelector::new(config);
    sync::Options {
        settings: plan::Settings {
            node_name: config.node_name.as_str().into(),
            detect_local: detect_local(&config.detect_local),
            masquerade_all: config.masquerade_all,
            localhost_nodeports: localhost_families(config),
            algorithm: config.balancing,
            reset_gone: config.gone_endpoints == GoneEndpoints::Reset,
            counting: match config.count_connections {
                CountConnections::Off => Counting::Off,
                CountConnections::Service => Counting::Service,
                CountConnections::Endpoint => Counting::Endpoint,
            },
        },
        select_nodeports: Box::new(move |node| nodeports.select(node)),
        own_table: config.own_table,
        min_sync_period: config.min_sync_period,
        sync_period: config.sync_period,
    }
}

/// Families whose NodePorts are served on the loopback addresses.
pub fn localhost_families(config: &Config) -> Vec<Family> {
    let asked_for = |family: &Family| config.node_port_addresses.localhost(*family);
    Family::BOTH.into_iter().filter(asked_for).collect()
}

fn detect_local(mode: &DetectLocal) -> plan::DetectLocal {
    match mode {
        DetectLocal::ClusterCidr { v4, v6 } => {
            plan::DetectLocal::ClusterCidr([v4, v6].into_iter().flatten().copied().collect())
        }
        DetectLocal::NodeCidr => plan::DetectLocal::NodeCidr,
        DetectLocal::BridgeInterface(name) => plan::DetectLocal::BridgeInterface(name.clone()),
        DetectLocal::InterfaceNamePrefix(prefix) => {
            plan::DetectLocal::InterfaceNamePrefix(prefix.clone())
        }
    }
}

/// What the metrics say about the binary and its feature gates.
pub fn describe(metrics: &Metrics, config: &Config) {
    let mut version = env!("CARGO_PKG_VERSION").split('.');
    let mut part = || version.next().unwrap_or_default().to_string();
    metrics.set_build_info(&BuildInfo {
        git_version: concat!("v", env!("CARGO_PKG_VERSION")).into(),
        major: part(),
        minor: part(),
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        ..BuildInfo::default()
    });
    for (name, (stage, enabled)) in config.feature_gates.all() {
        let stage = match stage {
            Stage::Fixed => FeatureStage::Stable,
            Stage::Alpha => FeatureStage::Alpha,
            Stage::Beta => FeatureStage::Beta,
        };
        metrics.set_feature(name, stage, enabled);
    }
}

/// Changes klog's verbosity while running.
pub fn set_verbosity(
    logging: Logging,
    set_filter: SetFilter,
) -> crate::http::metrics::SetVerbosity {
    Box::new(move |verbosity| set_filter(&logging.filter_at(verbosity)))
}
