//! Which Service an element belongs to, and leaving out the Services that the kernel refuses.

use super::Planner;
use super::earlier_run::address;
use crate::model::{ObjectName, Protocol};
use crate::plan::Frontend;
use crate::plan::layout::{KeyStart, SetName, address_type};
use nft_table::{Key, SetId};

impl Planner {
    /// The Service that an element belongs to, as far as the element tells.
    pub fn owner_of(&self, set: SetId, key: &Key) -> Option<ObjectName> {
        let frontend = self.frontend_of(set, key)?;
        self.claims.owner(&frontend).cloned()
    }

    fn frontend_of(&self, set: SetId, key: &Key) -> Option<Frontend> {
        let SetName { kind, family, .. } = self.writer.sets().name_of(set)?;
        let bytes = &key.0[..];
        let (address, rest) = match kind.key() {
            KeyStart::Address => {
                let (ip, rest) = bytes.split_at_checked(address_type(family).len())?;
                (Some(address(ip)?), rest)
            }
            KeyStart::NodePort => (None, bytes),
            KeyStart::Other => return None,
        };
        let [number, _, _, _, high, low, ..] = *rest else { return None };
        let protocol = Protocol::ALL.into_iter().find(|p| p.number() == number)?;
        let port = u16::from_be_bytes([high, low]);
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
