//! Which Service an element belongs to.

use super::Planner;
use super::earlier_run::address;
use crate::model::{ObjectName, Protocol};
use crate::plan::Frontend;
use crate::plan::layout::{KeyStart, SetName, address_type};
use nft_table::{Key, SetId};

impl Planner {
    /// The Service that an element belongs to, as far as the element tells.
    pub fn owner_of(&self, set: SetId, key: &Key) -> Option<ObjectName> {
        self.owner(self.writer.sets().name_of(set)?, key).cloned()
    }

    pub(in crate::plan) fn owner(&self, set: SetName, key: &Key) -> Option<&ObjectName> {
        self.claims.owner(&frontend_of(set, key)?)
    }

    /// The frontends that a Service wants.
    pub(super) fn claimed(&self, service: &ObjectName) -> impl Iterator<Item = &Frontend> {
        let claims = self.services.get(service).and_then(|entry| entry.claims.as_ref());
        claims.into_iter().flat_map(|(_, frontends)| frontends).map(|(frontend, _)| frontend)
    }
}

/// The frontend that an element is for; none of a set that is not about frontends.
pub fn frontend_of(set: SetName, key: &Key) -> Option<Frontend> {
    let SetName { kind, family, .. } = set;
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
