//! What is counted: new connections, by the elements that they are looked up in.

use super::layout::{self, Balancing, Kind, SetKind, SetName};
use super::{Frontend, PortPlan, elements};
use hashbrown::HashMap;
use nft_table::{Count, Key, Value, Verdict};

/// What becomes of the connections that an element counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// They are sent to an endpoint. Of a frontend with external policy Local and no endpoint on this node, also those
    /// that are dropped because they come from outside.
    Served,
    /// No endpoint is ready.
    Refused,
    /// Internal policy Local, and no endpoint on this node is ready.
    Dropped,
}

impl Outcome {
    pub const ALL: [Outcome; 3] = [Outcome::Served, Outcome::Refused, Outcome::Dropped];

    /// As it stands in metrics: `served`, `refused`, `dropped`.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Served => "served",
            Outcome::Refused => "refused",
            Outcome::Dropped => "dropped",
        }
    }
}

/// Counts of frontends that led elsewhere before, by outcome; what they count now is the kernel's to say.
pub type Aside = HashMap<(SetName, Key), [Count; Outcome::ALL.len()]>;

/// What becomes of connections to a frontend, by what its element says.
pub fn outcome(value: &Value) -> Outcome {
    let Value::Verdict(element) = value else { return Outcome::Served };
    match &element.verdict {
        Verdict::Drop => Outcome::Dropped,
        Verdict::Goto(chain) if **chain == *layout::REJECT => Outcome::Refused,
        Verdict::Goto(chain)
            if Balancing::parse(chain).is_some_and(|to| to.kind == Kind::ExternalReject) =>
        {
            Outcome::Refused
        }
        _ => Outcome::Served,
    }
}

/// Where connections to a frontend are counted.
pub fn frontend_counter(frontend: &Frontend) -> (SetName, Key) {
    let kind = match frontend {
        Frontend::Ip { .. } => SetKind::ServiceIps,
        Frontend::NodePort { .. } => SetKind::ServiceNodeports,
    };
    (SetName::new(kind, frontend.family()), elements::frontend_key(frontend).build())
}

/// Where connections to the endpoints of a port are counted.
pub fn slot_counters(plan: &PortPlan) -> impl Iterator<Item = (SetName, Vec<Key>)> {
    plan.frontends.iter().flat_map(|planned| {
        elements::slots(plan, planned).map(|slots| {
            (slots.map, elements::slot_keys(&planned.frontend, slots.numbers()).collect())
        })
    })
}
