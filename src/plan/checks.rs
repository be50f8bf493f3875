//! What has to hold of every planned table, for tests.

use super::layout::{Balancing, Bank, SetName};
use super::{Planner, layout};
use crate::model::TABLE_SIZES;
use nft_table::{Key, Table, Value};
use std::collections::BTreeMap;

/// A table in words, without what may differ between two equal plans: which backend stands in which
/// slot.
pub fn normal(table: &Table) -> BTreeMap<String, Vec<String>> {
    let mut normal = BTreeMap::new();
    for (id, set) in table.sets() {
        let has_slots = set.name.contains("endpoints") && set.type_of.is_some();
        let mut elements: Vec<String> = Vec::new();
        let mut slots: BTreeMap<Key, Vec<u32>> = BTreeMap::new();
        for (key, value) in table.elements(id) {
            let Value::Data(_) = value else {
                elements.push(in_first_bank(&nft_table::text::element(set, key, value)));
                continue;
            };
            assert!(has_slots);
            let (frontend, slot) = key.0.split_at(key.0.len() - 4);
            let slot = u32::from_ne_bytes(slot.try_into().unwrap());
            slots.entry(Key(frontend.into())).or_default().push(slot);
            elements.push(format!("{frontend:?} {value:?}"));
        }
        for (frontend, mut slots) in slots {
            slots.sort_unstable();
            // Behind a table for hashes there may be some entries of another one.
            let is_table = |size: u32| {
                let (table, behind) = slots.split_at(slots.partition_point(|slot| *slot < size));
                table.len() == size as usize && behind.iter().all(|slot| *slot < 2 * size)
            };
            let is_whole = slots.last().is_some_and(|last| *last as usize + 1 == slots.len());
            let is_one = TABLE_SIZES.iter().any(|size| is_table(u32::from(*size)));
            assert!(is_whole || is_one, "slots of {frontend:?} have gaps: {slots:?}");
        }
        normal.entry(in_first_bank(&set.name)).or_insert_with(Vec::new).extend(elements);
    }
    normal.values_mut().for_each(|elements| elements.sort_unstable());
    for chain in table.chains() {
        let rules = chain.rules.iter().map(|rule| in_first_bank(&rule.to_string()));
        normal.insert(format!("chain {}", in_first_bank(&chain.name)), rules.collect());
    }
    normal
}

/// The text with all names of maps and chains as if nobody had needed a second bank.
fn in_first_bank(text: &str) -> String {
    let word = |word: &str| {
        let (mark, name) = word.split_at(usize::from(word.starts_with('@')));
        let set = SetName::parse(name).map(|set| set.in_bank(Bank(0)).nft().to_string());
        let chain = || Some(Balancing { bank: Bank(0), ..Balancing::parse(name)? }.to_string());
        format!("{mark}{}", set.or_else(chain).unwrap_or_else(|| name.to_owned()))
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// What the kernel would check: everything that is referred to is there.
pub fn assert_no_dangling_references(table: &Table) {
    for chain in table.chains() {
        for rule in &chain.rules {
            rule.sets().for_each(|set| assert!(table.set_id(set).is_some(), "{rule}: no {set}"));
            rule.chains().for_each(|c| assert!(table.chain(c).is_some(), "{rule}: no {c}"));
        }
    }
    for (id, set) in table.sets() {
        for (key, value) in table.elements(id) {
            if let Value::Verdict(element) = value
                && let Some(chain) = element.verdict.chain()
            {
                let text = nft_table::text::element(set, key, value);
                assert!(table.chain(chain).is_some(), "{text}: no chain {chain}");
            }
        }
    }
}

/// A set is there while it has elements. Maps of slots that have none may be there until they are deleted.
pub fn assert_sets_have_elements(planner: &Planner) {
    for (id, set) in planner.table().sets() {
        let name = SetName::parse(&set.name);
        let is_slots = name.is_some_and(|name| layout::SetKind::SLOTS.contains(&name.kind));
        let may_be_empty = planner.has_unused() && (is_slots || set.name.starts_with("affinity"));
        let is_empty = planner.table().len(id) == 0;
        assert!(!is_empty || may_be_empty || set.flags.dynamic, "{} is empty", set.name);
    }
}

/// All chains that base chains do not lead to, by rules or by elements.
pub fn unreachable(table: &Table) -> Vec<String> {
    let chains = table.chains();
    let mut reached: Vec<&str> =
        chains.iter().filter(|chain| chain.base.is_some()).map(|chain| &*chain.name).collect();
    let mut next = 0;
    while let Some(name) = reached.get(next) {
        next += 1;
        let rules = &table.chain(name).expect("no dangling reference").rules;
        let maps = rules.iter().flat_map(|rule| rule.sets()).filter_map(|set| table.set_id(set));
        let elements = maps.flat_map(|id| table.elements(id));
        let by_element = elements.filter_map(|(_, value)| match value {
            Value::Verdict(element) => element.verdict.chain(),
            _ => None,
        });
        let to: Vec<&str> = rules
            .iter()
            .flat_map(|rule| rule.chains())
            .chain(by_element)
            .map(|name| &**name)
            .collect();
        for name in to {
            if !reached.contains(&name) {
                reached.push(name);
            }
        }
    }
    let all = chains.iter().map(|chain| chain.name.to_string());
    all.filter(|name| !reached.contains(&&**name)).collect()
}
