//! The plan: what the table must hold for the Services and endpoints there are. Pure code.
//!
//! ```text
//! Service + EndpointSlices --select--> backends --ports--> PortPlan (frontends, slots) --elements--> Table
//! ```
//!
//! * [`base`]: the fixed ruleset; [`balancing`]: the shared chains `cluster-3`, `local-1`, ...
//! * `select`: which endpoints a Service port may use, here and now (readiness, topology, policies)
//! * `slots`: which endpoint stands in which slot, so that a change moves few of them
//! * `ports`: what becomes of every frontend of a Service port
//! * `elements`: a frontend and its slots as elements of sets and maps
//! * [`claims`]: who serves a VIP:port that several Services want
//! * `affinity`: the chains and maps of a Service port with session affinity
//! * `effects`: what follows outside the table: health checks, localhost NodePorts, UDP flows
//! * `sources`: local-traffic detectors as elements
//! * `planner`: keeps all that and redoes only what changed

mod affinity;
pub mod balancing;
pub mod base;
pub mod claims;
mod effects;
mod elements;
mod planner;
mod ports;
mod select;
mod slots;
mod sources;
#[cfg(test)]
mod tests;
mod writer;

pub use effects::{Effects, HealthCheck, LocalhostPort};
pub use planner::{Counts, Notice, Planner};
pub use ports::{Frontend, PlannedFrontend, PortPlan, Route};
pub use select::{Backend, Here};
pub use sources::{DetectLocal, Settings};
