//! Limits of clients: a port with limits has chains of its own, which count before an endpoint is chosen. For
//! `shop/cart`, port `http`, with three endpoints:
//!
//! ```text
//! set limits4-shop/cart/tcp/http/new-20-burst-40 {
//!     type ipv4_addr
//!     size 65535
//!     flags dynamic,timeout
//! }
//! set limits4-shop/cart/tcp/http/open-100 {
//!     type ipv4_addr
//!     size 65535
//!     flags dynamic
//! }
//! chain limits4-shop/cart/tcp/http/over {
//!     update @limits4-shop/cart/tcp/http/new-20-burst-40 { ip saddr timeout 1m limit rate over 20/second burst 40 packets } counter packets 0 bytes 0 goto reject-connection
//!     add @limits4-shop/cart/tcp/http/open-100 { ip saddr ct count over 100 } counter packets 0 bytes 0 goto reject-connection
//! }
//! chain limits4-shop/cart/tcp/http/cluster {
//!     jump limits4-shop/cart/tcp/http/over
//!     goto cluster4-3
//! }
//! ```
//!
//! Elements keep the limit with which they began, so other limits are other sets. Where a set is full, those that are
//! not in it are not limited ([`nft_table::DYNAMIC_SIZE`]).

use super::layout::{Kind, REJECT, address_type};
use super::own::{Objects, Stage, base_name, chain, name};
use super::{PlannedFrontend, PortPlan, Route, elements};
use crate::model::{Limits, ObjectName};
use nft_table::{Chain, Expression, Rule, Set, SetData, SetFlags, Statement, Verdict};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What names begin with.
const LIMITS: &str = "limits";

/// The role of the chain that refuses.
const OVER: &str = "over";

/// The chain in which connections of a kind begin.
pub fn entrance(service: &ObjectName, plan: &PortPlan, kind: Kind) -> Arc<str> {
    name(LIMITS, service, plan, kind.name())
}

/// The chain that refuses who is over a limit, of a port that has one: first who has too many new connections, then
/// who has too many open ones, each with a counter.
pub fn over_chain(service: &ObjectName, plan: &PortPlan) -> Option<Arc<str>> {
    plan.limits?;
    let is_used = plan.frontends.iter().any(|planned| begins(plan, planned).is_some());
    is_used.then(|| name(LIMITS, service, plan, OVER))
}

/// What a port with limits needs; nothing without limits or where nobody is let in.
pub fn objects(service: &ObjectName, plan: &PortPlan) -> Objects {
    let Some(limits) = plan.limits else { return Objects::default() };
    let Some(over) = over_chain(service, plan) else { return Objects::default() };
    let mut objects = Objects::default();
    let base = base_name(LIMITS, service, plan);
    let mut rule = |role: String, timeout, statement: &dyn Fn(Arc<str>) -> Statement| {
        let set: Arc<str> = format!("{base}/{role}").into();
        objects.sets.push((dynamic_set(set.clone(), plan, timeout), Vec::new()));
        let refuse = Statement::Verdict(Verdict::Goto(REJECT.into()));
        Rule::new(vec![statement(set), Statement::Counter, refuse])
    };
    let Limits { new_per_second, burst, open } = limits;
    let key = || vec![Expression::SourceAddress(plan.family)];
    let mut rules = vec![rule(format!("new-{new_per_second}-burst-{burst}"), true, &|set| {
        let timeout_seconds = forgotten_after(limits);
        Statement::RateOver { set, key: key(), per_second: new_per_second, burst, timeout_seconds }
    })];
    rules.extend(open.map(|most| {
        rule(format!("open-{most}"), false, &|set| Statement::ConnectionsOver {
            set,
            key: key(),
            most,
        })
    }));
    objects.chains.push(Chain::regular(over.clone(), rules));
    let kinds: BTreeSet<Kind> =
        plan.frontends.iter().filter_map(|planned| begins(plan, planned)).collect();
    for kind in kinds {
        let next = chain(service, plan, kind, Stage::Affinity);
        let verdicts = [Verdict::Jump(over.clone()), Verdict::Goto(next)];
        let rules = verdicts.map(|verdict| Rule::new(vec![Statement::Verdict(verdict)]));
        objects.chains.push(Chain::regular(entrance(service, plan, kind), rules.into()));
    }
    objects
}

/// Seconds after which nobody would be refused any more: a burst has come together again by then.
fn forgotten_after(limits: Limits) -> u64 {
    u64::from(limits.burst.div_ceil(limits.new_per_second)).max(60)
}

/// The kind of chain in which connections to a frontend are counted; None where all are refused or dropped.
fn begins(plan: &PortPlan, planned: &PlannedFrontend) -> Option<Kind> {
    let [cluster, local, external] = elements::kinds(&planned.frontend);
    match planned.route {
        Route::Cluster => Some(cluster),
        Route::Local => Some(local),
        Route::ExternalLocal if !plan.local.is_empty() => Some(external),
        // Pods and the node itself: what comes from outside is dropped before.
        Route::ExternalLocal if !plan.cluster.is_empty() => Some(cluster),
        Route::ExternalLocal | Route::Reject | Route::Drop => None,
    }
}

fn dynamic_set(name: Arc<str>, plan: &PortPlan, timeout: bool) -> Set {
    Set {
        name,
        key: vec![address_type(plan.family)],
        data: SetData::None,
        flags: SetFlags { interval: false, dynamic: true, timeout },
        type_of: None,
        size: None,
        counter: false,
    }
}
