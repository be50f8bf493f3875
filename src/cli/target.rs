//! What a user names.

use crate::model::Protocol;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Address(SocketAddr, Protocol),
    /// `namespace/name`
    Service(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        if let Ok(address) = text.parse() {
            return Ok(Target::Address(address, Protocol::Tcp));
        }
        let (before, behind) = text.rsplit_once('/').ok_or_else(|| {
            if text.parse::<IpAddr>().is_ok() {
                "a port is needed, as in 10.96.0.10:53 or [fd00::a]:53".to_owned()
            } else {
                "neither ADDRESS:PORT[/PROTOCOL] nor NAMESPACE/NAME".to_owned()
            }
        })?;
        if let Ok(address) = before.parse() {
            let protocol = Protocol::parse(&behind.to_ascii_uppercase());
            return protocol
                .map(|protocol| Target::Address(address, protocol))
                .ok_or_else(|| format!("no protocol: {behind:?} (TCP, UDP or SCTP)"));
        }
        let is_name = |name: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
            !name.is_empty() && name.chars().all(is_plain)
        };
        // What has a colon was meant to be an address.
        if is_name(before) && is_name(behind) {
            return Ok(Target::Service(text.to_owned()));
        }
        Err("neither ADDRESS:PORT[/PROTOCOL] nor NAMESPACE/NAME".to_owned())
    }
}

impl Target {
    /// Where the running proxy answers what becomes of a client's connection to it.
    pub fn path(&self, from: Option<IpAddr>) -> String {
        let mut path = match self {
            Target::Address(address, protocol) => format!(
                "/api/explain?address={}&port={}&protocol={protocol}",
                address.ip(),
                address.port()
            ),
            Target::Service(name) => format!("/api/explain?service={name}"),
        };
        if let Some(from) = from {
            path.push_str(&format!("&from={from}"));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_services_are_told_apart() {
        let path = |text: &str| text.parse::<Target>().map(|target| target.path(None));
        assert_eq!(
            path("10.96.0.10:53/udp").unwrap(),
            "/api/explain?address=10.96.0.10&port=53&protocol=UDP"
        );
        assert_eq!(
            path("[fd00::a]:80").unwrap(),
            "/api/explain?address=fd00::a&port=80&protocol=TCP"
        );
        assert_eq!(path("shop/cart").unwrap(), "/api/explain?service=shop/cart");
    }

    #[test]
    fn what_is_neither_says_what_is_missing() {
        let error = |text: &str| text.parse::<Target>().unwrap_err();
        assert!(error("10.96.0.10").contains("a port is needed"));
        assert!(error("fd00::a").contains("a port is needed"));
        assert!(error("10.96.0.10:53/icmp").contains("no protocol"));
        assert!(error("10.96.0.10:70000/tcp").contains("neither"));
        assert!(error("cart").contains("neither"));
        assert!(error("shop/").contains("neither"));
    }
}
