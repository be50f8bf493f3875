//! Addresses that scenarios give to Services, and that the lab routes to the node.

use nft_table::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `10.96.0.N` or `fd00:10:96::N`: in the range of ClusterIPs.
pub fn cluster_ip(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, 0, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number.into()).into(),
    }
}

/// `203.0.113.N` or `2001:db8:203::N`: for externalIPs and load balancers.
pub fn external_ip(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x203, 0, 0, 0, 0, number.into()).into(),
    }
}
