//! Whose an element is, and leaving out whom the kernel refuses.

use super::Planner;
use super::seeds::address;
use crate::model::ObjectName;
use crate::plan::{Frontend, base};
use nft_table::Family;
use nft_table::{Key, SetId};

impl Planner {
    /// The Service that an element belongs to, as far as the element tells.
    pub fn owner_of(&self, set: SetId, key: &Key) -> Option<ObjectName> {
        let frontend = self.frontend_of(set, key)?;
        self.claims.owner(&frontend).cloned()
    }

    fn frontend_of(&self, set: SetId, key: &Key) -> Option<Frontend> {
        let bytes = &key.0[..];
        let by_number = |protocol: u8| {
            use crate::model::Protocol::{Sctp, Tcp, Udp};
            [Tcp, Udp, Sctp].into_iter().find(|p| p.number() == protocol)
        };
        let of = |is: fn(&base::FamilySets, SetId) -> bool| {
            Family::BOTH.into_iter().find(|family| is(self.sets.of(*family), set))
        };
        let by_nodeport = of(base::FamilySets::is_by_nodeport);
        let family = by_nodeport.or_else(|| of(base::FamilySets::is_by_address))?;
        let (address, rest) = match by_nodeport {
            Some(_) => (None, bytes),
            None => bytes
                .split_at_checked(base::address_type(family).len())
                .map(|(ip, rest)| (address(ip), rest))?,
        };
        let [protocol, _, _, _, high, low, ..] = *rest else { return None };
        let (protocol, port) = (by_number(protocol)?, u16::from_be_bytes([high, low]));
        Some(match address {
            Some(address) => Frontend::Ip { address, protocol, port },
            None => Frontend::NodePort { family, protocol, port },
        })
    }

    /// Plans a Service as if it were not there, until it changes.
    pub fn quarantine(&mut self, service: &ObjectName) {
        if let Some(entry) = self.services.get_mut(service) {
            entry.quarantined = true;
            self.changed.insert(service.clone());
        }
    }

    /// Tries again with a Service that was quarantined.
    pub fn release(&mut self, service: &ObjectName) {
        if let Some(entry) = self.services.get_mut(service).filter(|entry| entry.quarantined) {
            entry.quarantined = false;
            self.changed.insert(service.clone());
        }
    }
}
