//! The health check node ports that Services ask for: load balancers find out there which nodes
//! have endpoints of a Service with external policy Local.
//!
//! After each commit the sync thread says which checks there are to be; the servers follow.

use crate::model::{Family, ObjectName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::sync::watch;

/// The health check of one Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceCheck {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// Distinct addresses of its ready endpoints on this node, over all its ports: IPv4 and IPv6,
    /// for the servers of the two families.
    pub local_endpoints: [usize; 2],
}

impl ServiceCheck {
    /// The count that the server of a family tells.
    pub fn local_endpoints(&self, family: Family) -> usize {
        self.local_endpoints[family as usize]
    }
}

/// Where the health checks of one family listen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BindAddresses {
    /// The family is not served.
    #[default]
    None,
    /// NodePorts are not restricted: the unspecified address.
    All,
    /// The node's addresses that `nodePortAddresses` names.
    Only(BTreeSet<IpAddr>),
}

/// All health checks and where they listen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredChecks {
    services: BTreeMap<ObjectName, ServiceCheck>,
    v4: BindAddresses,
    v6: BindAddresses,
}

impl DesiredChecks {
    pub fn service(&self, name: &ObjectName) -> Option<ServiceCheck> {
        self.services.get(name).copied()
    }

    /// Every Service with the port of its check.
    pub fn ports(&self) -> impl Iterator<Item = (&ObjectName, u16)> {
        self.services.iter().map(|(name, check)| (name, check.port))
    }

    /// The addresses to listen on, of both families.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let v4 = self.v4.list(Ipv4Addr::UNSPECIFIED.into());
        v4.into_iter().chain(self.v6.list(Ipv6Addr::UNSPECIFIED.into())).collect()
    }
}

impl BindAddresses {
    fn list(&self, unspecified: IpAddr) -> Vec<IpAddr> {
        match self {
            BindAddresses::None => vec![],
            BindAddresses::All => vec![unspecified],
            BindAddresses::Only(addresses) => {
                addresses.iter().copied().filter(|ip| !needs_scope(ip)).collect()
            }
        }
    }
}

/// A link-local IPv6 address means nothing without its interface, and nobody balances to it.
fn needs_scope(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The desired checks, shared between who sets them and the servers. Cheap to set.
#[derive(Debug, Default)]
pub struct ServiceChecks(watch::Sender<DesiredChecks>);

impl ServiceChecks {
    /// Sets or removes the check of a Service. Servers are woken only if a port changed; a new
    /// count is what the next request sees.
    pub fn set(&self, name: &ObjectName, check: Option<ServiceCheck>) {
        self.0.send_if_modified(|desired| {
            let before = match check {
                Some(check) => desired.services.insert(name.clone(), check),
                None => desired.services.remove(name),
            };
            before.map(|check| check.port) != check.map(|check| check.port)
        });
    }

    /// Sets where the checks of a family listen.
    pub fn set_addresses(&self, family: Family, addresses: BindAddresses) {
        self.0.send_if_modified(|desired| {
            let slot = match family {
                Family::V4 => &mut desired.v4,
                Family::V6 => &mut desired.v6,
            };
            let changed = *slot != addresses;
            *slot = addresses;
            changed
        });
    }

    /// Follows the changes.
    pub fn watch(&self) -> watch::Receiver<DesiredChecks> {
        self.0.subscribe()
    }
}
