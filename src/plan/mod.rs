//! The plan: what the table must hold for the Services and endpoints there are. Pure code.
//!
//! ```text
//! Service + EndpointSlices --select--> backends --ports--> PortPlan (frontends, slots) --elements--> Table
//! ```
//!
//! * [`layout`]: which chains, rules, sets and maps the table has
//! * `select`: which endpoints a Service port may use, here and now (readiness, topology, policies)
//! * `slots`: which endpoint stands in which slot, so that a change moves few of them
//! * `hashed`: tables for hashed flows
//! * [`weights`]: how many slots each endpoint gets
//! * `ports`: what becomes of every frontend of a Service port
//! * `elements`: a frontend and its slots as elements of sets and maps
//! * [`claims`]: who serves a VIP:port that several Services want
//! * `own`: chains and maps of a single Service port, for `limits`, session affinity (`affinity`) and `round_robin`
//! * `counted`: which elements count which connections
//! * `effects`: what follows outside the table: health checks, localhost NodePorts, UDP flows
//! * `pods`: what the operator configured, and how packets of pods are told from others
//! * `planner`: keeps all that and redoes only what changed

mod affinity;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod checks;
pub mod claims;
mod counted;
mod effects;
mod elements;
mod hashed;
pub mod layout;
mod limits;
mod own;
mod planner;
mod pods;
mod ports;
mod round_robin;
mod select;
mod slots;
#[cfg(test)]
mod tests;
pub mod weights;
mod writer;

pub use counted::{Aside, Outcome, frontend_counter, outcome, slot_counters};
pub use effects::{Effects, HealthCheck, LocalhostPort};
pub use elements::{frontend_key, slot_keys, slot_maps};
pub use layout::Counting;
pub use limits::over_chain;
pub use planner::{
    Counts, Dispute, Expected, Inspected, Planner, SLOTS, frontend_of, is_this_layout,
};
pub use pods::{DetectLocal, Pods, Settings};
pub use ports::{Frontend, Masquerade, PlannedFrontend, PortPlan, Route, wanted_frontends};
pub use round_robin::kind_of as kind_of_own_chain;
pub use select::{Backend, Here, Judged, List, Why, judge};
