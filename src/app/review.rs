//! What objects ask for, without serving it: printed, or compared with the kernel.

use super::{settings, sources};
use crate::config::Config;
use crate::intake::{OnProblem, Options};
use crate::kernel::addresses::{AddressWatch, LocalAddresses, nodeport_networks};
use crate::kernel::nft::Nft;
use crate::manifests;
use crate::metrics::Metrics;
use crate::model::Change;
use crate::plan::Planner;
use crate::sync;
use anyhow::Context;
use ipnet::IpNet;
use nft_table::Family;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The table that manifests ask for, as nft lists it. `addresses` are those of the node, beside those that its Node object
/// has.
///
/// # Errors
/// A file cannot be read.
pub fn render(config: &Config, files: &[PathBuf], addresses: &[IpAddr]) -> anyhow::Result<String> {
    let changes = manifests::read(files, &config.node_name, intake(config))?;
    let mut all = addresses.to_vec();
    for change in &changes {
        if let Change::Node(Some(node)) = change {
            all.extend(&node.addresses);
        }
    }
    let local = LocalAddresses::new(all.iter().map(|address| IpNet::from(*address)), all.clone());
    let mut planner = planner(config, changes, &local);
    planner.plan_all_next();
    planner.plan();
    planner.remove_emptied();
    Ok(planner.table().to_string())
}

/// What the kernel lacks, or has too much, of what manifests ask for, or the API server where there are none; a command
/// of nft each.
///
/// # Errors
/// The objects, or the kernel's table, cannot be read.
pub fn verify(config: &Config, files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let changes = if files.is_empty() {
        let metrics = Arc::new(Metrics::new(&Family::BOTH));
        let api_server = sources::connect(config, &metrics)?
            .context("neither manifests nor an API server (--kubeconfig, --master) are given")?;
        sources::list(config, &api_server, intake(config))?
    } else {
        manifests::read(files, &config.node_name, intake(config))?
    };
    let (_watch, local) = AddressWatch::start(|_| {})?;
    let mut kernel = Nft::open().context("cannot reach nftables")?;
    let mut planner = planner(config, changes, &local);
    Ok(sync::difference(&mut planner, &mut kernel)?)
}

/// The plan for objects, not planned yet.
fn planner(config: &Config, changes: Vec<Change>, local: &LocalAddresses) -> Planner {
    let mut options = settings::sync_options(config);
    let mut planner = Planner::new(options.settings);
    changes.into_iter().for_each(|change| planner.apply(change));
    let selection = (options.select_nodeports)(planner.node());
    planner.set_nodeport_networks(&nodeport_networks(&selection, local));
    planner
}

/// What is wrong with objects goes to the log alone.
fn intake(config: &Config) -> Options {
    sources::intake(config, OnProblem(Arc::new(|_| {})))
}
