//! Round robin: who comes next is counted by a rule, so each Service port has balancing chains of its own.
//!
//! ```text
//! chain round-robin4-shop/cart/tcp/http/cluster {
//!     dnat ip to ip daddr . meta l4proto . th dport . numgen inc mod 3 map @cluster-endpoints4
//!     dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @cluster-endpoints4
//!     drop
//! }
//! ```
//!
//! All frontends by address are counted together, and all NodePorts.

use super::layout::Kind;
use super::own::{self, name};
use super::pods::Pods;
use super::{PlannedFrontend, PortPlan, Route, elements};
use crate::model::{Algorithm, ObjectName};
use nft_table::Chain;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What names begin with.
const FEATURE: &str = "round-robin";

/// The chain that stands for a shared one of this kind.
pub fn chain_name(service: &ObjectName, plan: &PortPlan, kind: Kind) -> Arc<str> {
    name(FEATURE, service, plan, kind.name())
}

/// The kind of shared chain for which such a chain stands.
pub fn kind_of(chain: &str) -> Option<Kind> {
    let (_, role) = chain.strip_prefix(FEATURE)?.rsplit_once('/')?;
    Kind::ALL.into_iter().find(|kind| kind.name() == role)
}

/// What a port with round robin needs; nothing otherwise.
pub fn chains(service: &ObjectName, plan: &PortPlan, pods: &Pods) -> Vec<Chain> {
    if plan.algorithm != Algorithm::RoundRobin {
        return Vec::new();
    }
    let used: BTreeSet<Kind> = plan.frontends.iter().flat_map(|f| kinds(plan, f)).collect();
    let chain = |kind: Kind| {
        let rules = own::shared_chain(plan, kind).chain(pods).rules;
        Chain::regular(chain_name(service, plan, kind), rules)
    };
    used.into_iter().map(chain).collect()
}

/// The kinds of chains that a frontend uses, apart from those that part pods and the node from others.
fn kinds(plan: &PortPlan, planned: &PlannedFrontend) -> Vec<Kind> {
    let [cluster, local, _] = elements::kinds(&planned.frontend);
    let mut kinds = match planned.route {
        Route::Cluster => vec![cluster],
        Route::Local => vec![local],
        Route::ExternalLocal => vec![cluster, local],
        Route::Reject | Route::Drop => Vec::new(),
    };
    kinds.retain(|kind| !if kind.is_local() { &plan.local } else { &plan.cluster }.is_empty());
    kinds
}
