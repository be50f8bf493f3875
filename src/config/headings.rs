//! The groups of flags in the help, and how a boolean's value is named there.

pub const SOURCE: &str = "Source";
pub const ACTIONS: &str = "Actions";
pub const API: &str = "Kubernetes API";
pub const NODE: &str = "Node and servers";
pub const TRAFFIC: &str = "Traffic";
pub const CONNTRACK: &str = "Connection tracking (0 leaves the kernel's value)";
pub const LOGGING: &str = "Logging";
/// Flags under this heading are listed by name only, and mentioned in the log when they are given.
pub const WITHOUT_EFFECT: &str = "Accepted for compatibility, without effect";

/// Value name that marks a flag as boolean.
pub const BOOL: &str = "true|false";
