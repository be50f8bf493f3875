//! Annotations: ours, and those of others that mean the same.
//!
//! | annotation | of | values |
//! |---|---|---|
//! | `nft.kube-proxy/balancing` | Service | `random`, `round-robin`, `hash-client`, `hash-flow` |
//! | `nft.kube-proxy/weights` | Service, EndpointSlice | `PATTERN=WEIGHT, ...` |
//! | `nft.kube-proxy/table-size` | Service | entries of a table for hashes |
//! | `nft.kube-proxy/limits` | Service | `new-per-second=N, burst=N, open=N` |
//! | `nft.kube-proxy/gone-endpoints` | Service | `keep`, `reset` |
//! | `service.cilium.io/lb-algorithm` | Service | `random`, `maglev` |
//! | `kube-router.io/service.scheduler` | Service | IPVS's schedulers |
//!
//! One that cannot be read counts as not there, and is said.

use super::problem::Findings;
use crate::model::{Algorithm, Limits, TABLE_SIZES, Weights};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

const BALANCING: &str = "nft.kube-proxy/balancing";
const WEIGHTS: &str = "nft.kube-proxy/weights";
const TABLE_SIZE: &str = "nft.kube-proxy/table-size";
pub(super) const LIMITS: &str = "nft.kube-proxy/limits";
const GONE: &str = "nft.kube-proxy/gone-endpoints";
const CILIUM: &str = "service.cilium.io/lb-algorithm";
const KUBE_ROUTER: &str = "kube-router.io/service.scheduler";

fn find<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The value of an annotation as `read` takes it; an error is noted.
fn read<T>(
    metadata: &ObjectMeta,
    name: &str,
    findings: &mut Findings<'_>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    match read(find(metadata, name)?) {
        Ok(value) => Some(value),
        Err(error) => {
            findings.add(format_args!("metadata.annotations[{name}]"), error);
            None
        }
    }
}

/// How connections to a Service are to be spread, where an annotation says so.
pub fn algorithm(metadata: &ObjectMeta, findings: &mut Findings<'_>) -> Option<Algorithm> {
    let ours = |name: &str| {
        let known = || Algorithm::ALL.map(Algorithm::name).join(", ");
        Algorithm::parse(name).ok_or_else(|| format!("{name:?} is none of {}", known()))
    };
    // Cilium's Maglev hashes the flow.
    let cilium = |name: &str| match name {
        "random" => Ok(Algorithm::Random),
        "maglev" => Ok(Algorithm::HashFlow),
        _ => Err(format!("{name:?} is none of random, maglev")),
    };
    let kube_router = |name: &str| {
        let none = || format!("there is no {name:?} here; rr, wrr, sh and mh have a counterpart");
        Algorithm::of_ipvs(name).ok_or_else(none)
    };
    read(metadata, BALANCING, findings, ours)
        .or_else(|| read(metadata, CILIUM, findings, cilium))
        .or_else(|| read(metadata, KUBE_ROUTER, findings, kube_router))
}

/// The weights that a Service or a slice gives endpoints.
pub fn weights(metadata: &ObjectMeta, findings: &mut Findings<'_>) -> Option<Arc<Weights>> {
    read(metadata, WEIGHTS, findings, Weights::parse).map(Arc::new)
}

/// How many entries tables for hashes of a Service have.
pub fn table_size(metadata: &ObjectMeta, findings: &mut Findings<'_>) -> Option<u16> {
    read(metadata, TABLE_SIZE, findings, |text| {
        let known = || TABLE_SIZES.map(|size| size.to_string()).join(", ");
        let size = text.parse().ok().filter(|size| TABLE_SIZES.contains(size));
        size.ok_or_else(|| format!("{text:?} is none of {}", known()))
    })
}

/// How many connections a client may have.
pub fn limits(metadata: &ObjectMeta, findings: &mut Findings<'_>) -> Option<Limits> {
    read(metadata, LIMITS, findings, Limits::parse)
}

/// Whether TCP connections to endpoints that are gone are reset.
pub fn reset_gone(metadata: &ObjectMeta, findings: &mut Findings<'_>) -> Option<bool> {
    read(metadata, GONE, findings, |text| match text {
        "keep" => Ok(false),
        "reset" => Ok(true),
        _ => Err(format!("{text:?} is none of keep, reset")),
    })
}
