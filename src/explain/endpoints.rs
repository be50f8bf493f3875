//! Each endpoint of a Service port, with why it is in use or is not.

use super::frontend::Found;
use super::report::Endpoint;
use crate::plan::{Backend, Here, Judged, Planner, Why, judge};
use hashbrown::HashSet;

/// More endpoints than this are not told one by one: the sync thread has other things to do.
pub const MOST: usize = 2_000;

/// The endpoints of the port that a frontend belongs to.
pub fn all(planner: &Planner, found: &Found<'_>) -> Vec<Endpoint> {
    let weights = found.inspected.service.weights.as_deref();
    let slices = (found.inspected.slices.iter(), weights);
    let family = found.frontend.family();
    let here = planner.here();
    let judged = judge(found.port, family, slices, here, MOST);
    let plan = found.planned.map(|(plan, _)| plan);
    let planned = plan.iter().flat_map(|plan| plan.cluster.iter().chain(&plan.local)).collect();
    judged.iter().map(|judged| endpoint(judged, found, &planned, here)).collect()
}

fn endpoint(
    judged: &Judged<'_>,
    found: &Found<'_>,
    planned: &HashSet<&Backend>,
    here: &Here,
) -> Endpoint {
    let address = judged.backend.socket_address();
    let policies = match (found.is_local(), found.is_internal()) {
        (false, _) => vec![(None, judged.cluster)],
        (true, true) => vec![(None, judged.local)],
        // Pods and the node itself are served as with policy Cluster.
        (true, false) => vec![
            (Some("from outside"), judged.local),
            (Some("from pods and this node"), judged.cluster),
        ],
    };
    let mut in_use = policies.iter().any(|(_, why)| why.is_in_use());
    let mut reasons: Vec<String> = policies
        .iter()
        .map(|(whom, why)| {
            let text = words(*why, judged, here);
            whom.map_or_else(|| text.clone(), |whom| format!("{whom}: {text}"))
        })
        .collect();
    if in_use && judged.weight != 1 {
        reasons.push(format!("weight {}", judged.weight));
    }
    if in_use && !planned.contains(&judged.backend) {
        in_use = false;
        reasons.push(match found.inspected.cut {
            Some(_) => "left out: too many endpoints for so many frontends".to_owned(),
            None => "not planned yet".to_owned(),
        });
    }
    let node = judged.endpoint.node_name.as_ref().map(ToString::to_string);
    Endpoint { address, node, in_use, reasons }
}

fn words(why: Why, judged: &Judged<'_>, here: &Here) -> String {
    let endpoint = judged.endpoint;
    let list = |hints: &[std::sync::Arc<str>]| match hints {
        [] => "none".to_owned(),
        hints => hints.join(", "),
    };
    match why {
        Why::InUse => "ready".to_owned(),
        Why::NoWeight => "its weight is 0".to_owned(),
        Why::InUseTerminating => "terminating, but still serving, and no other is ready".to_owned(),
        Why::Terminating => "terminating".to_owned(),
        Why::NotReady if endpoint.conditions.terminating => {
            "terminating, and no longer serving".to_owned()
        }
        Why::NotReady => "not ready".to_owned(),
        Why::NodeHint => {
            format!(
                "its hint is for other nodes ({}), not {}",
                list(endpoint.node_hints()),
                here.node_name
            )
        }
        Why::ZoneHint => format!(
            "its hint is for other zones ({}), not {}",
            list(endpoint.zone_hints()),
            here.zone.as_deref().unwrap_or("that of this node")
        ),
        Why::OtherNode => match &endpoint.node_name {
            Some(node) => format!("on {node}, and the traffic policy is Local"),
            None => "on no node, and the traffic policy is Local".to_owned(),
        },
    }
}
