//! How single values of flags are read, where clap does not know Go's rules.

use super::address::is_ip_or_ip_port;
use crate::model::{Algorithm, parse_ip};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// One `--feature-gates` argument.
pub type GateSettings = BTreeMap<String, bool>;

/// `--some_flag=a_b` as `--some-flag=a_b`.
pub(super) fn dashed(argument: OsString) -> OsString {
    let Some(text) = argument.to_str().filter(|text| text.starts_with("--")) else {
        return argument;
    };
    match text.split_once('=') {
        Some((name, value)) => format!("{}={value}", name.replace('_', "-")).into(),
        None => text.replace('_', "-").into(),
    }
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub(super) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("true or false is expected".to_owned()),
    }
}

pub(super) fn ip_text(text: &str) -> Result<String, String> {
    match text.is_empty() || parse_ip(text).is_some() {
        true => Ok(text.to_owned()),
        false => Err("not a valid IP address".to_owned()),
    }
}

pub(super) fn ip_port_text(text: &str) -> Result<String, String> {
    match text.is_empty() || is_ip_or_ip_port(text) {
        true => Ok(text.to_owned()),
        false => Err("an IP address or IP:port is expected".to_owned()),
    }
}

pub(super) fn gate_settings(text: &str) -> Result<GateSettings, String> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("{pair:?} is not NAME=true or NAME=false"))?;
            let value = go_bool(value.trim()).map_err(|error| format!("{name}: {error}"))?;
            Ok((name.trim().to_owned(), value))
        })
        .collect()
}

/// How connections are spread.
pub(super) fn algorithm(text: &str) -> Result<Algorithm, String> {
    let known = || Algorithm::ALL.map(Algorithm::name).join(", ");
    Algorithm::parse(text).ok_or_else(|| format!("must be one of {}", known()))
}
