//! What an earlier run left in the kernel: where its backends stand, so that a restart moves none.

use super::Planner;
use crate::plan::layout::{Balancing, SetKind, SetName};
use crate::plan::pods::Pods;
use crate::plan::{Backend, PlannedFrontend, elements};
use hashbrown::HashMap;
use nft_table::{Data, Key, Snapshot, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The backends of a frontend in the kernel, by slot.
pub(super) type Seeds = HashMap<(SetName, Key), Vec<Option<Backend>>>;

impl Planner {
    /// Learns from what an earlier run left in the kernel, before the first [`Planner::plan`]: which
    /// backend stands in which slot, and shared chains. So a restart changes nothing.
    pub fn seed(&mut self, snapshot: &Snapshot) {
        for set in SetName::all().filter(|name| SetKind::SLOTS.contains(&name.kind)) {
            let Some(there) = snapshot.sets.get(&*set.nft()) else { continue };
            if there.set.as_ref() == Some(&set.declaration()) {
                there.elements.iter().for_each(|(key, value)| {
                    seed_slot(&mut self.seeds, set, key, value);
                });
            }
        }
        let pods = Pods::new(&self.settings, self.node.as_deref());
        for (name, there) in &snapshot.chains {
            if let Some(chain) = Balancing::parse(name)
                && !chain.kind.follows_use()
                && there.has_rules_of(&chain.chain(&pods))
            {
                self.writer.keep_chain(chain);
            }
        }
    }
}

fn backend(data: &Data) -> Option<Backend> {
    let (address_bytes, port) =
        data.bytes().split_at_checked(data.bytes().len().checked_sub(4)?)?;
    Some(Backend { address: address(address_bytes)?, port: u16::from_be_bytes([port[0], port[1]]) })
}

/// Notes the backend of a slot in the kernel.
fn seed_slot(seeds: &mut Seeds, set: SetName, key: &Key, value: &Value) {
    let Value::Data(data) = value else { return };
    let Some((frontend, slot)) = key.0.split_at_checked(key.0.len().saturating_sub(4)) else {
        return;
    };
    let (Ok(slot), Some(backend)) = (<[u8; 4]>::try_from(slot), backend(data)) else { return };
    let slot = u32::from_ne_bytes(slot) as usize;
    // A number that no run of ours wrote is no slot.
    if slot >= 1 << 16 {
        return;
    }
    let slots = seeds.entry((set, Key(frontend.into()))).or_default();
    if slots.len() <= slot {
        slots.resize(slot + 1, None);
    }
    slots[slot] = Some(backend);
}

/// The slots of the first frontend that the kernel has, cluster list and local list.
pub(super) fn seeded(seeds: &Seeds, frontends: &[PlannedFrontend]) -> [Vec<Backend>; 2] {
    if seeds.is_empty() {
        return [Vec::new(), Vec::new()];
    }
    [0, 1].map(|list| {
        frontends
            .iter()
            .find_map(|planned| {
                let key = elements::frontend_key(&planned.frontend).build();
                seeds.get(&(elements::slot_maps(&planned.frontend)[list], key))
            })
            .map(|slots| slots.iter().copied().flatten().collect())
            .unwrap_or_default()
    })
}

/// An address in network order.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into())
}
