//! Which connections of a listener live. Everybody who reaches the node may open some, and say nothing: then the oldest
//! of those that are idle goes, for one that may have something to ask. Pure book-keeping.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Connections of one listener at most.
const MOST: usize = 512;

/// Connections of one client at most: of an IPv4 address, or of an IPv6 network of 64 bits.
const MOST_OF_A_CLIENT: usize = 64;

/// The connections of a listener, each with a number.
#[derive(Debug, Default)]
pub(super) struct Connections {
    next: u64,
    /// In the order in which they came.
    open: std::collections::BTreeMap<u64, Connection>,
    of_client: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Connection {
    client: IpAddr,
    /// A request is being answered.
    is_busy: bool,
}

impl Connections {
    /// A client has connected. Returns the number of the connection, and of the one that has to be closed for it, if any:
    /// the oldest idle one of the client where it has too many, else of all; where none is idle, the oldest.
    pub fn add(&mut self, client: IpAddr) -> (u64, Option<u64>) {
        let client = network(client);
        let of_client = self.of_client.get(&client).copied().unwrap_or_default();
        let victim = if of_client >= MOST_OF_A_CLIENT {
            self.oldest(|connection| connection.client == client)
        } else if self.open.len() >= MOST {
            self.oldest(|_| true)
        } else {
            None
        };
        if let Some(victim) = victim {
            self.remove(victim);
        }
        let number = self.next;
        self.next += 1;
        self.open.insert(number, Connection { client, is_busy: false });
        *self.of_client.entry(client).or_default() += 1;
        (number, victim)
    }

    fn oldest(&self, is_meant: impl Fn(&Connection) -> bool) -> Option<u64> {
        let meant = || self.open.iter().filter(|(_, connection)| is_meant(connection));
        let idle = meant().find(|(_, connection)| !connection.is_busy);
        idle.or_else(|| meant().next()).map(|(number, _)| *number)
    }

    /// A request of the connection is being answered, or no more.
    pub fn set_busy(&mut self, number: u64, is_busy: bool) {
        if let Some(connection) = self.open.get_mut(&number) {
            connection.is_busy = is_busy;
        }
    }

    /// The connection has ended.
    pub fn remove(&mut self, number: u64) {
        let Some(connection) = self.open.remove(&number) else { return };
        if let Some(count) = self.of_client.get_mut(&connection.client) {
            *count -= 1;
            if *count == 0 {
                self.of_client.remove(&connection.client);
            }
        }
    }
}

/// Whom an address belongs to: somebody with an IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    #[test]
    fn a_client_with_too_many_loses_its_own_oldest_idle_one() {
        let mut connections = Connections::default();
        let (other, _) = connections.add(ip(1));
        let (busy, _) = connections.add(ip(2));
        connections.set_busy(busy, true);
        for _ in 1..MOST_OF_A_CLIENT {
            assert_eq!(connections.add(ip(2)).1, None);
        }
        assert_eq!(connections.add(ip(2)).1, Some(busy + 1));
        assert_eq!(connections.add(ip(2)).1, Some(busy + 2));
        assert_eq!(connections.add(ip(1)).1, None);
        connections.remove(other);
        assert_eq!(connections.of_client[&ip(1)], 1);
    }

    #[test]
    fn of_many_clients_the_oldest_idle_one_goes() {
        let mut connections = Connections::default();
        for number in 0..MOST {
            assert_eq!(connections.add(ip(number as u32)), (number as u64, None));
        }
        connections.set_busy(0, true);
        assert_eq!(connections.add(ip(10_000)).1, Some(1));
        (0..2 * MOST as u64).for_each(|number| connections.set_busy(number, true));
        assert_eq!(connections.add(ip(10_001)).1, Some(0), "all are busy");
        assert_eq!(connections.open.len(), MOST);
        (0..2 * MOST as u64).for_each(|number| connections.remove(number));
        assert!(connections.open.is_empty() && connections.of_client.is_empty());
    }

    #[test]
    fn ipv6_clients_are_networks() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(network(address("2001:db8::1:2:3:4")), address("2001:db8::"));
        assert_eq!(network(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }
}
