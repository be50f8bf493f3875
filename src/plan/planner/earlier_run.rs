//! What an earlier run left in the kernel: where its backends stand, so that a restart moves none.

use super::Planner;
use crate::plan::layout::{Balancing, Bank, Counting, SetKind, SetName, is_base_chain};
use crate::plan::pods::Pods;
use crate::plan::{Backend, PlannedFrontend, elements};
use hashbrown::HashMap;
use nft_table::netlink::SnapshotChain;
use nft_table::{Key, Snapshot, SnapshotSet, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What the kernel has of a frontend, by a map of slots in the first bank.
pub(super) type EarlierRun = HashMap<(SetName, Key), EarlierSlots>;

/// The backends of a frontend by slot, and the bank that they are in.
#[derive(Debug)]
pub(super) struct EarlierSlots {
    bank: Bank,
    slots: Vec<Option<Backend>>,
}

/// Whether what the kernel has is declared as this layout would do it, so that it can become what is planned
/// piece by piece.
pub fn is_this_layout(there: &Snapshot) -> bool {
    let fits = |(name, set): (&Arc<str>, &SnapshotSet)| {
        let is_known =
            |known: SetName| set.set.as_ref().is_some_and(|set| known.is_declared_as(set));
        SetName::parse(name).is_none_or(is_known)
    };
    let is_known = |(name, chain): (&Arc<str>, &SnapshotChain)| {
        !chain.is_foreign && chain.base.as_ref().is_none_or(|base| is_base_chain(name, base))
    };
    !there.is_foreign && there.sets.iter().all(fits) && there.chains.iter().all(is_known)
}

impl Planner {
    /// Learns which sets the kernel has: what it has in them may have to stay.
    pub fn know_sets(&mut self, there: &Snapshot) {
        let known = there.sets.keys().filter_map(|name| SetName::parse(name));
        known.for_each(|name| self.writer.know_set(name));
    }

    /// Counts from now on what the kernel counts already.
    pub fn count_as(&mut self, there: &Snapshot) {
        let counted = there
            .sets
            .iter()
            .filter(|(_, there)| there.set.as_ref().is_some_and(|set| set.counter));
        let kinds: Vec<SetKind> =
            counted.filter_map(|(name, _)| SetName::parse(name)).map(|name| name.kind).collect();
        self.settings.counting = if SetKind::SLOTS.iter().any(|slots| kinds.contains(slots)) {
            Counting::Endpoint
        } else if !kinds.is_empty() {
            Counting::Service
        } else {
            Counting::Off
        };
        self.writer.set_counting(self.settings.counting);
    }

    /// Learns from what an earlier run left in the kernel, before the first [`Planner::plan`]: which
    /// backend stands in which slot, and shared chains. So a restart changes nothing.
    pub fn learn_from(&mut self, snapshot: &Snapshot) {
        for (name, there) in &snapshot.sets {
            let set = SetName::parse(name).filter(|set| SetKind::SLOTS.contains(&set.kind));
            let Some(set) = set else { continue };
            if there.set.as_ref().is_some_and(|there| set.is_declared_as(there)) {
                there.elements.iter().for_each(|(key, value)| {
                    note_slot(&mut self.earlier_run, set, key, value);
                });
            }
        }
        let pods = Pods::new(&self.settings, self.node.as_deref());
        for (name, there) in &snapshot.chains {
            if let Some(chain) = Balancing::parse(name)
                && !chain.kind.is_single()
                && there.has_rules_of(&chain.chain(&pods))
            {
                self.writer.keep_chain(chain);
            }
        }
    }
}

/// Notes the backend of a slot in the kernel.
fn note_slot(earlier: &mut EarlierRun, set: SetName, key: &Key, value: &Value) {
    let Some((frontend, slot)) = key.0.split_at_checked(key.0.len().saturating_sub(4)) else {
        return;
    };
    let (Ok(slot), Some(backend)) = (<[u8; 4]>::try_from(slot), Backend::of_value(value)) else {
        return;
    };
    let slot = u32::from_ne_bytes(slot) as usize;
    // A number that no run of ours wrote is no slot.
    if slot >= 1 << 16 {
        return;
    }
    let first = (set.in_bank(Bank(0)), Key(frontend.into()));
    let there =
        earlier.entry(first).or_insert_with(|| EarlierSlots { bank: set.bank, slots: Vec::new() });
    // A frontend has its slots in one bank.
    if there.bank != set.bank {
        return;
    }
    let slots = &mut there.slots;
    if slots.len() <= slot {
        slots.resize(slot + 1, None);
    }
    slots[slot] = Some(backend);
}

/// The slots of the first frontend that the kernel has, cluster list and local list, and their bank.
pub(super) fn earlier_slots(
    earlier: &EarlierRun,
    frontends: &[PlannedFrontend],
) -> ([Vec<Backend>; 2], Option<Bank>) {
    if earlier.is_empty() {
        return ([Vec::new(), Vec::new()], None);
    }
    let found = [0, 1].map(|list| {
        frontends.iter().find_map(|planned| {
            let key = elements::frontend_key(&planned.frontend).build();
            earlier.get(&(elements::slot_maps(&planned.frontend)[list], key))
        })
    });
    let bank = found.iter().flatten().map(|there| there.bank).next();
    let slots = |there: &EarlierSlots| there.slots.iter().copied().flatten().collect();
    (found.map(|there| there.map(slots).unwrap_or_default()), bank)
}

/// An address in network order.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into())
}
