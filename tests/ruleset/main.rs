//! Tables of the ruleset library in a real kernel, each test in network namespaces of its own.

mod bytes;
mod commit;
mod difference;
mod errors;
mod expiring;
mod json;
mod scenario;
