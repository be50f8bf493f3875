//! The rules of intake, one table or test each.

mod any;
mod nodes;
mod services;
mod slices;

use super::*;
use crate::model::{
    Algorithm, Description, EndpointSlice, Family, Limits, Node, Protocol, Service, ServiceType,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

/// An object from JSON, where `patch` is laid over `base` (RFC 7386: null removes).
fn object<T: DeserializeOwned>(mut base: Value, patch: Value) -> T {
    fn merge(base: &mut Value, patch: Value) {
        match (base, patch) {
            (Value::Object(base), Value::Object(patch)) => {
                for (key, value) in patch {
                    if value.is_null() {
                        base.remove(&key);
                    } else {
                        merge(base.entry(key).or_insert(Value::Null), value);
                    }
                }
            }
            (base, patch) => *base = patch,
        }
    }
    merge(&mut base, patch);
    serde_json::from_value(base).unwrap()
}

fn ips(list: &[std::net::IpAddr]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}
