//! Addresses that mean something of their own, so that they cannot be anybody's endpoint.

use std::net::IpAddr;

/// Why an address cannot be an endpoint or an external IP (the API server's rule for them), if so.
pub(super) fn special(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.segments()[0] & 0xff0f == 0xff02,
    };
    if ip.is_unspecified() {
        Some("unspecified")
    } else if ip.is_loopback() {
        Some("loopback")
    } else if link_local {
        Some("link-local")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses() {
        for (text, expected) in [
            ("0.0.0.0", Some("unspecified")),
            ("::", Some("unspecified")),
            ("127.1.2.3", Some("loopback")),
            ("::1", Some("loopback")),
            ("169.254.1.1", Some("link-local")),
            ("224.0.0.1", Some("link-local")),
            ("fe80::1", Some("link-local")),
            ("ff02::1", Some("link-local")),
            ("10.0.0.1", None),
            ("239.1.1.1", None),
            ("fd00::1", None),
        ] {
            assert_eq!(special(text.parse().unwrap()), expected, "{text}");
        }
    }
}
