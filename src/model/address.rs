//! IP addresses and CIDRs as Kubernetes reads them: Go's parser before 1.17 ("sloppy"), which the
//! API server keeps for stored objects. All of this program reads them so, also in its configuration.
//!
//! Octets and prefix lengths with leading zeros are decimal (`010.0.0.08` is 10.0.0.8), groups of
//! IPv6 addresses may have any number of leading zeros, and an IPv4-mapped IPv6 address is an IPv4
//! address.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads an IP address; no zone, no white space.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        parse_ipv6(text).map(|ip| IpAddr::V6(ip).to_canonical())
    } else {
        parse_ipv4(text).map(IpAddr::V4)
    }
}

/// Reads a CIDR and clears its host bits.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let length = u8::try_from(decimal(length)?).ok()?;
    if !address.contains(':') {
        return Ipv4Net::new(parse_ipv4(address)?, length).ok().map(|net| IpNet::V4(net.trunc()));
    }
    let net = Ipv6Net::new(parse_ipv6(address)?, length).ok()?;
    match net.addr().to_ipv4_mapped() {
        Some(ip) if length >= 96 => {
            Ipv4Net::new(ip, length - 96).ok().map(|net| IpNet::V4(net.trunc()))
        }
        _ => Some(IpNet::V6(net.trunc())),
    }
}

/// A number in decimal digits only; leading zeros change nothing.
fn decimal(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    if digits.is_empty() { Some(0) } else { digits.parse().ok() }
}

fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(decimal(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn parse_ipv6(text: &str) -> Option<Ipv6Addr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    // The strict parser refuses leading zeros only; take them away and ask it again.
    let (head, tail) = text.rsplit_once(':')?;
    let mut plain = String::with_capacity(text.len());
    for group in head.split(':') {
        plain.push_str(without_zeros(group));
        plain.push(':');
    }
    if tail.contains('.') {
        plain.push_str(&parse_ipv4(tail)?.to_string());
    } else {
        plain.push_str(without_zeros(tail));
    }
    plain.parse().ok()
}

fn without_zeros(group: &str) -> &str {
    match group.trim_start_matches('0') {
        "" if !group.is_empty() => "0",
        digits => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.0.08", Some("10.0.0.8")),
            ("0.0.0.0", Some("0.0.0.0")),
            ("10.0.0.0000000000000255", Some("10.0.0.255")),
            ("10.0.0.256", None),
            ("10.0.0", None),
            ("10.0.0.1.2", None),
            ("10.0.0.", None),
            ("10.0.0.+1", None),
            ("10.0.0.0x1", None),
            (" 10.0.0.1", None),
            ("10.0.0.99999999999999999999", None),
            ("", None),
            ("None", None),
            ("fd00::1", Some("fd00::1")),
            ("FD00::000001", Some("fd00::1")),
            ("0000:00000::", Some("::")),
            ("1:2:3:4:5:6:7:00008", Some("1:2:3:4:5:6:7:8")),
            ("64:ff9b::010.1.2.03", Some("64:ff9b::a01:203")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("::ffff:010.0.0.01", Some("10.0.0.1")),
            ("fe80::1%eth0", None),
            ("fd00:::1", None),
            ("fd00::1::2", None),
            ("fd00::12345", None),
            (":", None),
            ("[fd00::1]", None),
        ] {
            let expected = expected.map(|ip| ip.parse::<IpAddr>().unwrap());
            assert_eq!(parse_ip(text), expected, "{text}");
        }
    }

    #[test]
    fn cidrs() {
        for (text, expected) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("010.1.2.3/08", Some("10.0.0.0/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("10.0.0.1/32", Some("10.0.0.1/32")),
            ("10.0.0.0/33", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/-1", None),
            ("10.0.0.0/8/8", None),
            ("10.0.0.0", None),
            (" 10.0.0.0/8", None),
            ("fd00::1/064", Some("fd00::/64")),
            ("::/0", Some("::/0")),
            ("fd00::/129", None),
            ("fd00::/999", None),
            ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
        ] {
            let expected = expected.map(|net| net.parse::<IpNet>().unwrap());
            assert_eq!(parse_cidr(text), expected, "{text}");
        }
    }
}
