//! Tables of the ruleset library in a real kernel, each test in network namespaces of its own.

mod bytes;
mod commit;
mod difference;
mod errors;
mod json;
mod listing;
#[allow(dead_code)]
#[path = "../kernel_side/netns.rs"]
mod netns;
mod scenario;
