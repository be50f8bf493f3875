//! Addresses as configuration writes them, read as leniently as Go's `ParseIPSloppy`.
//!
//! Leading zeros in IPv4 octets are decimal (`010.0.0.1` is `10.0.0.1`), because files with them
//! exist and kube-proxy has always read them so. An IPv4-mapped IPv6 address is the IPv4 address.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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

fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let significant = part.trim_start_matches('0');
        *octet = if significant.is_empty() { 0 } else { significant.parse().ok()? };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// An IP address; zones (`fe80::1%eth0`) are not addresses here.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return sloppy_v4(text).map(IpAddr::V4);
    }
    let address: Ipv6Addr = text.parse().ok()?;
    Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
}

/// A CIDR, its host bits cleared.
pub(super) fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    let address =
        if address.contains(':') { IpAddr::V6(address.parse().ok()?) } else { parse_ip(address)? };
    Some(IpNet::new(address, length).ok()?.trunc())
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

/// Both parts of `IP:port`, the port from 1 to 65535; all that is wrong with it.
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
    fn reads_addresses_leniently() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.00.08", Some("10.0.0.8")),
            ("::1", Some("::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("10.0.0", None),
            ("10.0.0.256", None),
            ("10.0.0.1.1", None),
            ("10.0.0.+1", None),
            ("fe80::1%eth0", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(parse_ip(text), expected.map(|ip| ip.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn reads_cidrs_leniently() {
        for (text, expected) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("010.0.0.0/8", Some("10.0.0.0/8")),
            ("fd00::1/64", Some("fd00::/64")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("10.0.0.0", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("primary", None),
        ] {
            assert_eq!(parse_cidr(text), expected.map(|net| net.parse().unwrap()), "{text}");
        }
    }

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
