//! The health of the proxy as its JSON answers show it.

use crate::model::Family;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::time::SystemTime;

/// The body of `/healthz` and `/livez`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The last commit; the current time in an answer of 200, for clients that expect it to move.
    pub last_updated: Timestamp,
    pub current_time: Timestamp,
    /// Only `/healthz` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_eligible: Option<bool>,
    /// The proxy's own health, without the node's.
    pub healthy: bool,
    #[serde(serialize_with = "by_family")]
    pub status: Vec<(Family, FamilyReport)>,
    /// Start-up tasks that are not done. An addition to upstream's body, and only before the proxy
    /// has been ready once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<&'static str>,
}

/// The health of one family. One transaction serves both, so they differ in nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyReport {
    pub last_updated: Timestamp,
    pub healthy: bool,
}

/// A time as Go writes it in JSON: RFC 3339 in UTC with as many digits of a second as it has;
/// `None` is Go's zero time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timestamp(pub Option<SystemTime>);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(time) = self.0 else { return serializer.serialize_str("0001-01-01T00:00:00Z") };
        let text = humantime::format_rfc3339_nanos(time).to_string();
        let digits = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
        serializer.collect_str(&format_args!("{digits}Z"))
    }
}

fn by_family<S: Serializer>(
    status: &[(Family, FamilyReport)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(status.len()))?;
    for (family, report) in status {
        map.serialize_entry(&format_args!("{family}"), report)?;
    }
    map.end()
}
