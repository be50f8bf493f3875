//! `IP:port`, as the addresses of the servers are written.
//!
//! The IP is read as leniently as everywhere ([`parse_ip`]).

use crate::model::parse_ip;
use std::net::SocketAddr;

/// Why a text is not `IP:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostPortError {
    /// There is no `IP:port` form in it at all.
    Form,
    /// The part before the port is no IP address.
    Host(String),
    /// The part after the last colon is no port from 1 to 65535.
    Port(String),
}

/// Splits `host:port` or `[host]:port` as Go's `net.SplitHostPort` does.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    if let Some(bracketed) = host.strip_prefix('[') {
        return Some((bracketed.strip_suffix(']')?, port));
    }
    (!host.contains([':', '[', ']']) && !port.contains([':', '[', ']'])).then_some((host, port))
}

/// Appends a port to a bare IP address; anything else stays as it is, for validation to judge.
pub(super) fn append_port(text: &str, port: u16) -> String {
    if split_host_port(text).is_some() {
        return text.to_owned();
    }
    match parse_ip(text) {
        Some(_) if text.contains(':') => format!("[{text}]:{port}"),
        Some(_) => format!("{text}:{port}"),
        None => text.to_owned(),
    }
}

/// Both parts of `IP:port`, the port from 1 to 65535; or all that is wrong with them.
pub(super) fn parse_host_port(text: &str) -> Result<SocketAddr, Vec<HostPortError>> {
    let Some((host, port)) = split_host_port(text) else {
        return Err(vec![HostPortError::Form]);
    };
    let ip = parse_ip(host).ok_or_else(|| HostPortError::Host(host.to_owned()));
    let number = port
        .parse::<u16>()
        .ok()
        .filter(|&number| number != 0 && !port.starts_with('+'))
        .ok_or_else(|| HostPortError::Port(port.to_owned()));
    match (ip, number) {
        (Ok(ip), Ok(number)) => Ok(SocketAddr::new(ip, number)),
        (ip, number) => Err([ip.err(), number.err()].into_iter().flatten().collect()),
    }
}

/// What `--healthz-bind-address` and `--metrics-bind-address` accept: an IP, or IP:port with any
/// number for a port (0 is refused later, with the other fields).
pub(super) fn is_ip_or_ip_port(text: &str) -> bool {
    parse_ip(text).is_some()
        || split_host_port(text)
            .is_some_and(|(host, port)| parse_ip(host).is_some() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_ports_only_to_bare_addresses() {
        for (text, expected) in [
            ("1.2.3.4", "1.2.3.4:80"),
            ("1.2.3.4:9", "1.2.3.4:9"),
            ("::1", "[::1]:80"),
            ("[::1]:9", "[::1]:9"),
            ("[::1]", "[::1]"),
            ("", ""),
            ("host", "host"),
        ] {
            assert_eq!(append_port(text, 80), expected, "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_host_and_port() {
        use HostPortError::{Form, Host, Port};
        assert_eq!(parse_host_port("[::]:10256"), Ok("[::]:10256".parse().unwrap()));
        assert_eq!(parse_host_port("0.0.0.0"), Err(vec![Form]));
        assert_eq!(parse_host_port("::1"), Err(vec![Form]));
        assert_eq!(parse_host_port("a:1"), Err(vec![Host("a".into())]));
        assert_eq!(parse_host_port("1.2.3.4:0"), Err(vec![Port("0".into())]));
        assert_eq!(parse_host_port("a:b"), Err(vec![Host("a".into()), Port("b".into())]));
        assert_eq!(parse_host_port("1.2.3.4:65536"), Err(vec![Port("65536".into())]));
    }
}
