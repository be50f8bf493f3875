//! `conntrack`: settings of the kernel's connection tracking.

use super::GoDuration;
use super::document::ConntrackConfiguration;
use super::problems::{NOT_NEGATIVE, Problems};
use std::time::Duration;

/// Kernel settings of connection tracking; `None` leaves the kernel's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// nf_conntrack_max per CPU core.
    pub max_per_core: Option<u32>,
    /// Least nf_conntrack_max; without effect where `max_per_core` is None.
    pub min: u32,
    pub tcp_established_timeout: Option<Duration>,
    pub tcp_close_wait_timeout: Option<Duration>,
    /// Only ever switched on.
    pub tcp_be_liberal: bool,
    pub udp_timeout: Option<Duration>,
    pub udp_stream_timeout: Option<Duration>,
}

pub(super) fn check(section: &ConntrackConfiguration, problems: &mut Problems) -> Conntrack {
    let mut number = |field: &str, value: Option<i32>| {
        let value = value.unwrap_or_default();
        if value < 0 {
            problems.invalid(field, value, NOT_NEGATIVE);
        }
        value.max(0) as u32
    };
    let max_per_core = number("conntrack.maxPerCore", section.max_per_core);
    let min = number("conntrack.min", section.min);
    let mut timeout = |field: &str, value: Option<GoDuration>| {
        let value = value.unwrap_or_default();
        if value.is_negative() {
            problems.invalid(field, value, NOT_NEGATIVE);
        }
        (value > GoDuration::ZERO).then(|| value.to_std())
    };
    Conntrack {
        max_per_core: (max_per_core > 0).then_some(max_per_core),
        min,
        tcp_established_timeout: timeout(
            "conntrack.tcpEstablishedTimeout",
            section.tcp_established_timeout,
        ),
        tcp_close_wait_timeout: timeout(
            "conntrack.tcpCloseWaitTimeout",
            section.tcp_close_wait_timeout,
        ),
        tcp_be_liberal: section.tcp_be_liberal,
        udp_timeout: timeout("conntrack.udpTimeout", Some(section.udp_timeout)),
        udp_stream_timeout: timeout("conntrack.udpStreamTimeout", Some(section.udp_stream_timeout)),
    }
}
