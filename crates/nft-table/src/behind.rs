//! What of a change has to stay in the kernel until the rest of it is there; [`ahead`](super::ahead) is the other end,
//! and says why: a packet that is being evaluated goes on by the rules and verdicts that it has met, and finds the
//! elements of after.
//!
//! So where a key comes to lead elsewhere, a packet that was led the old way needs what lies there: its slots, and what
//! other maps have for the key, with the key's address where that is a member of a set, which may be asked before those
//! maps. And where a key ceases to be a member of a set, a packet that found it there needs the ranges that are asked for
//! next. All that goes in a transaction of its own, when nothing leads to it any more.

use crate::{DataType, Key, Operation, Set, SetData, Transaction};
use std::collections::HashSet;

/// The first fields of a key, as bytes.
type Start<'a> = &'a [u8];

impl<'a> Transaction<'a> {
    /// Splits a change of a table that is there into most of it and what has to come last; None where nothing has to.
    pub(crate) fn split_behind(&self) -> Option<[Transaction<'a>; 2]> {
        deleted(self).next()?;
        let changes = Changes::of(self);
        if changes.stay.is_empty() {
            return None;
        }
        let has_last = deleted(self).any(|(set, key)| changes.is_behind(set, key));
        if !has_last {
            return None;
        }
        let gone = self.deleted_chains();
        let (mut rest, mut behind) = (Vec::new(), Vec::new());
        for operation in &self.operations {
            match operation {
                Operation::DeleteElements { set, keys } => {
                    let is_last = |key: &&Key| changes.is_behind(set, &key.0);
                    let (last, first): (Vec<_>, Vec<_>) = keys.iter().partition(|key| is_last(key));
                    for (part, keys) in [(&mut rest, first), (&mut behind, last)] {
                        if !keys.is_empty() {
                            part.push(Operation::DeleteElements { set, keys });
                        }
                    }
                }
                // What is deleted last may lead to them.
                Operation::DeleteSet(_) => behind.push(operation.clone()),
                Operation::FlushChain(chain) | Operation::DeleteChain(chain)
                    if gone.contains(chain) =>
                {
                    behind.push(operation.clone());
                }
                _ => rest.push(operation.clone()),
            }
        }
        let parts = [rest, behind].map(|operations| self.part(operations));
        (!parts[0].is_empty()).then_some(parts)
    }

    /// Chains that are deleted and do not come back.
    fn deleted_chains(&self) -> HashSet<&'a str> {
        let deleted = self.operations.iter().filter_map(|operation| match operation {
            Operation::DeleteChain(chain) => Some(*chain),
            _ => None,
        });
        let comes_back = |name: &&str| {
            let mut operations = self.operations.iter();
            operations.any(|o| matches!(o, Operation::AddChain(chain) if *chain.name == **name))
        };
        deleted.filter(|chain| !comes_back(chain)).collect()
    }
}

/// What becomes of which keys.
struct Changes<'a> {
    added: HashSet<(&'a str, Start<'a>)>,
    /// Sets that get elements.
    growing: HashSet<&'a str>,
    /// Keys that packets find, but otherwise than before.
    stay: HashSet<Start<'a>>,
    /// Keys that lose all their slots in a map.
    lose_slots: HashSet<(&'a str, Start<'a>)>,
    /// The first fields of the keys whose verdicts go last.
    asked_first: HashSet<Start<'a>>,
}

impl<'a> Changes<'a> {
    fn of(transaction: &Transaction<'a>) -> Changes<'a> {
        let mut changes = Changes {
            added: HashSet::new(),
            growing: HashSet::new(),
            stay: HashSet::new(),
            lose_slots: HashSet::new(),
            asked_first: HashSet::new(),
        };
        for operation in &transaction.operations {
            if let Operation::AddElements { set, elements } = operation {
                changes.growing.insert(&set.name);
                let keys = elements.iter().map(|(key, _)| (&*set.name, &key.0[..]));
                changes.added.extend(keys);
            }
        }
        let mut gone: HashSet<Start<'a>> = HashSet::new();
        let mut no_members: HashSet<Start<'a>> = HashSet::new();
        for (set, key) in deleted(transaction) {
            let comes_back = changes.added.contains(&(&*set.name, key));
            match set.data {
                SetData::Verdict if comes_back => drop(changes.stay.insert(key)),
                SetData::Verdict => drop(gone.insert(key)),
                SetData::None if !set.flags.interval => drop(no_members.insert(key)),
                _ if !comes_back && is_first_slot(set, key) => {
                    changes.lose_slots.insert((&set.name, start(set, key)));
                }
                _ => {}
            }
        }
        changes.stay.extend(no_members.difference(&gone));
        for (set, key) in deleted(transaction) {
            let is_verdict = set.data == SetData::Verdict && set.key.len() > 1;
            if is_verdict && changes.is_behind(set, key) {
                changes.asked_first.extend(key.get(..set.key[0].padded_len()));
            }
        }
        changes
    }

    /// Whether an element that is deleted has to be there until the end.
    fn is_behind(&self, set: &Set, key: &'a [u8]) -> bool {
        if self.added.contains(&(&*set.name, key)) {
            return false;
        }
        if set.data == SetData::None && self.asked_first.contains(key) {
            return true;
        }
        let start = start(set, key);
        if !self.stay.contains(start) {
            return false;
        }
        match set.data {
            // What overlaps has to be exchanged at once.
            SetData::None => set.is_concatenated_interval() && !self.growing.contains(&*set.name),
            SetData::Verdict => true,
            // One slot less is something that packets under way can do with: chains look into the first as well.
            SetData::Fields(_) => self.lose_slots.contains(&(&*set.name, start)),
        }
    }
}

fn deleted<'t, 'a>(
    transaction: &'t Transaction<'a>,
) -> impl Iterator<Item = (&'a Set, Start<'a>)> + use<'t, 'a> {
    let operations = transaction.operations.iter().filter_map(|operation| match operation {
        Operation::DeleteElements { set, keys } => Some((*set, keys)),
        _ => None,
    });
    operations.flat_map(|(set, keys)| keys.iter().map(move |key| (set, &key.0[..])))
}

/// What a key has before its slot or range; otherwise all of it.
fn start<'a>(set: &Set, key: &'a [u8]) -> Start<'a> {
    let has_more = set.flags.interval || set.key.last() == Some(&DataType::Slot);
    let fields = set.key.len() - usize::from(has_more);
    let len: usize = set.key[..fields].iter().map(|field| field.padded_len()).sum();
    key.get(..len).unwrap_or(key)
}

fn is_first_slot(set: &Set, key: &[u8]) -> bool {
    set.key.last() == Some(&DataType::Slot) && key.ends_with(&0_u32.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::{Example, frontend, with_slots};
    use crate::{Chain, Table, Value, Verdict};
    use std::net::Ipv4Addr;

    fn goto(chain: &str) -> Value {
        Value::verdict(Verdict::Goto(chain.into()), Some("web".into()))
    }

    fn network(port: u16) -> Key {
        let source = Ipv4Addr::new(198, 51, 100, 0);
        Key::builder().port(port).network(ipnet::Ipv4Net::new_assert(source, 24).into())
    }

    /// A frontend with two slots that the kernel has, and a network that is allowed.
    fn committed() -> Example {
        let mut example = with_slots(2);
        let allowed = example.table.set_id("allowed").expect("of the example");
        example.table.insert(allowed, network(80), Value::Member).unwrap();
        example.table.committed();
        example
    }

    /// The number of elements that each stage deletes.
    fn deleted_by_stage(table: &Table) -> Vec<usize> {
        let changes = table.changes();
        let stages = changes.stages();
        assert_eq!(stages.iter().map(Transaction::len).sum::<usize>(), changes.len(), "{stages:?}");
        stages.iter().map(|stage| deleted(stage).count()).collect()
    }

    #[test]
    fn slots_of_a_key_that_leads_elsewhere_go_last() {
        let Example { mut table, frontends, slots } = committed();
        table.insert(frontends, frontend(1).build(), goto("refuse")).unwrap();
        table.remove(slots, &frontend(1).slot(0).build());
        table.remove(slots, &frontend(1).slot(1).build());
        assert_eq!(deleted_by_stage(&table), [1, 2]);
        let changes = table.changes();
        let [rest, behind] = &changes.stages()[..] else { panic!("{changes:?}") };
        assert!(rest.operations.iter().any(|o| matches!(o, Operation::AddElements { .. })));
        assert!(behind.operations.iter().all(|o| matches!(o, Operation::DeleteElements { .. })));
    }

    #[test]
    fn a_slot_less_goes_with_the_rest() {
        let Example { mut table, frontends, slots } = committed();
        table.insert(frontends, frontend(1).build(), goto("refuse")).unwrap();
        table.remove(slots, &frontend(1).slot(1).build());
        assert_eq!(deleted_by_stage(&table), [2]);
    }

    #[test]
    fn what_goes_for_good_goes_at_once() {
        let Example { mut table, frontends, slots } = committed();
        table.remove(frontends, &frontend(1).build());
        table.remove(slots, &frontend(1).slot(0).build());
        table.remove(slots, &frontend(1).slot(1).build());
        assert_eq!(deleted_by_stage(&table), [3]);
        // As do slots of a frontend that leads where it did.
        table.insert(frontends, frontend(1).build(), goto("balance-2")).unwrap();
        assert_eq!(deleted_by_stage(&table), [2]);
    }

    #[test]
    fn what_other_maps_have_for_the_key_goes_last() {
        let Example { mut table, frontends, .. } = committed();
        let other = crate::Set { name: "other".into(), ..table.set(frontends).unwrap().clone() };
        let other = table.add_set(other).unwrap();
        for number in [1, 2] {
            table.insert(other, frontend(number).build(), goto("refuse")).unwrap();
        }
        table.committed();
        table.insert(frontends, frontend(1).build(), goto("refuse")).unwrap();
        table.remove(other, &frontend(1).build());
        table.remove(other, &frontend(2).build());
        assert_eq!(deleted_by_stage(&table), [2, 1]);
    }

    #[test]
    fn so_does_its_address_in_sets_that_may_be_asked_before() {
        let Example { mut table, frontends, .. } = committed();
        let other = crate::Set { name: "other".into(), ..table.set(frontends).unwrap().clone() };
        let addresses = crate::Set {
            name: "addresses".into(),
            key: vec![DataType::Ipv4Address],
            data: SetData::None,
            ..other.clone()
        };
        let [other, addresses] = [other, addresses].map(|set| table.add_set(set).unwrap());
        let address = |number: u32| {
            Key::builder().address(Ipv4Addr::from(0x0a60_0000 + number).into()).build()
        };
        for number in [1, 2] {
            table.insert(other, frontend(number).build(), goto("refuse")).unwrap();
            table.insert(addresses, address(number), Value::Member).unwrap();
        }
        table.committed();
        table.insert(frontends, frontend(1).build(), goto("refuse")).unwrap();
        for number in [1, 2] {
            table.remove(other, &frontend(number).build());
            table.remove(addresses, &address(number));
        }
        assert_eq!(deleted_by_stage(&table), [3, 2]);
        // One that comes back is not deleted.
        table.insert(addresses, address(1), Value::Member).unwrap();
        assert_eq!(deleted_by_stage(&table), [3, 1]);
    }

    #[test]
    fn chains_go_after_what_leads_to_them() {
        let Example { mut table, frontends, .. } = committed();
        let other = crate::Set { name: "other".into(), ..table.set(frontends).unwrap().clone() };
        let other = table.add_set(other).unwrap();
        table.set_chain(Chain::regular("led-to", Vec::new()));
        table.insert(other, frontend(1).build(), goto("led-to")).unwrap();
        table.committed();
        table.insert(frontends, frontend(1).build(), goto("refuse")).unwrap();
        table.remove(other, &frontend(1).build());
        table.remove_chain("led-to");
        let changes = table.changes();
        let [rest, behind] = &changes.stages()[..] else { panic!("{changes:?}") };
        let is_of_chain = |operation: &Operation<'_>| {
            matches!(operation, Operation::FlushChain("led-to") | Operation::DeleteChain("led-to"))
        };
        assert!(!rest.operations.iter().any(is_of_chain), "{rest:?}");
        assert!(matches!(behind.operations[0], Operation::DeleteElements { .. }), "{behind:?}");
        assert!(behind.operations[1..].iter().all(is_of_chain), "{behind:?}");
    }

    #[test]
    fn ranges_go_after_the_member_that_had_them_asked_for() {
        let Example { mut table, .. } = committed();
        let allowed = table.set_id("allowed").unwrap();
        let restricted = crate::Set {
            name: "restricted".into(),
            key: vec![DataType::InetService],
            data: SetData::None,
            flags: crate::SetFlags::default(),
            type_of: None,
            size: None,
            counter: false,
        };
        let restricted = table.add_set(restricted).unwrap();
        table.insert(restricted, Key::builder().port(80).build(), Value::Member).unwrap();
        table.committed();
        table.remove(restricted, &Key::builder().port(80).build());
        table.remove(allowed, &network(80));
        assert_eq!(deleted_by_stage(&table), [1, 1]);
        // Unless others come, which may overlap.
        table.insert(allowed, network(443), Value::Member).unwrap();
        assert_eq!(deleted_by_stage(&table), [2]);
    }

    #[test]
    fn what_guards_a_transaction_guards_its_parts() {
        let Example { mut table, frontends, slots } = committed();
        table.insert(frontends, frontend(1).build(), goto("refuse")).unwrap();
        table.remove(slots, &frontend(1).slot(0).build());
        let mut changes = table.changes();
        changes.operations.insert(0, Operation::FlushChain("writer"));
        for stage in changes.stages() {
            assert_eq!(stage.operations[0], Operation::FlushChain("writer"), "{stage:?}");
        }
    }
}
