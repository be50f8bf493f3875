//! What of a change has to be in the kernel before the rest of it; [`behind`](super::behind) is the other end.
//!
//! A transaction takes effect at one moment, but a packet that is being evaluated at that moment does not: the rules of
//! all chains are for it those of before, while a look-up finds the elements of after (`nft_do_chain` notes the
//! generation once, `nft_rhash_lookup` and the others ask for it again). So an element may lead it to a chain that
//! was added together with that element, and there it finds no rule at all, and passes as if there was no table. The
//! kernel shows the elements of a concatenation with ranges even later, when all else of the transaction is done
//! (`nft_pipapo_commit`), so a rule that asks for an element of two sets may find it in one of them only.
//!
//! Therefore two things come in a transaction of their own, in which nothing leads to them yet: new chains that an
//! element leads to from then on in the place of something else, and ranges that are added.

use crate::{Chain, Key, Operation, SetData, Transaction, Value};
use std::collections::{HashMap, HashSet};

impl<'a> Transaction<'a> {
    /// Splits a change of a table that is there into what has to come first and the rest of it; None where nothing
    /// has to.
    pub(crate) fn split_ahead(&self) -> Option<[Transaction<'a>; 2]> {
        let mut chains: HashSet<&str> = self.operations.iter().filter_map(new_chain).collect();
        if !self.leads_elsewhere(&chains) {
            chains.clear();
        }
        let ranges = self.added_ranges();
        if chains.is_empty() && ranges.is_empty() {
            return None;
        }
        let is_ahead = |operation: &Operation<'a>| match operation {
            // The new chains may look into it.
            Operation::AddSet(set) => !chains.is_empty() || ranges.contains(&*set.name),
            Operation::AddChain(chain) => chains.contains(&*chain.name),
            Operation::AddRule { chain, .. } => chains.contains(chain),
            Operation::AddElements { set, .. } => ranges.contains(&*set.name),
            _ => false,
        };
        let (ahead, rest) = self.operations.iter().cloned().partition(is_ahead);
        Some([ahead, rest].map(|operations| self.part(operations)))
    }

    /// Sets with concatenations of ranges that get some and lose none: what overlaps has to be exchanged at once.
    fn added_ranges(&self) -> HashSet<&'a str> {
        let added = self.operations.iter().filter_map(|operation| match operation {
            Operation::AddElements { set, .. } if set.is_concatenated_interval() => {
                Some(&*set.name)
            }
            _ => None,
        });
        let loses = |name: &&str| {
            self.operations.iter().any(|operation| match operation {
                Operation::DeleteElements { set, .. } | Operation::FlushSet(set) => {
                    *set.name == **name
                }
                _ => false,
            })
        };
        added.filter(|name| !loses(name)).collect()
    }

    /// Whether a key that led somewhere leads to one of these chains now.
    fn leads_elsewhere(&self, chains: &HashSet<&str>) -> bool {
        if chains.is_empty() {
            return false;
        }
        let mut before: HashMap<&str, HashSet<&Key>> = HashMap::new();
        for operation in &self.operations {
            if let Operation::DeleteElements { set, keys } = operation
                && set.data == SetData::Verdict
            {
                before.entry(&set.name).or_default().extend(keys);
            }
        }
        self.operations.iter().any(|operation| {
            let Operation::AddElements { set, elements } = operation else { return false };
            let Some(before) = before.get(&*set.name) else { return false };
            elements.iter().any(|(key, value)| {
                leads_to(value).is_some_and(|chain| chains.contains(chain)) && before.contains(key)
            })
        })
    }
}

/// A chain that it adds and that nothing but rules and elements leads to.
fn new_chain<'a>(operation: &Operation<'a>) -> Option<&'a str> {
    match operation {
        Operation::AddChain(Chain { name, base: None, .. }) => Some(name),
        _ => None,
    }
}

fn leads_to(value: &Value) -> Option<&str> {
    match value {
        Value::Verdict(element) => element.verdict.chain().map(|chain| &**chain),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::{Example, frontend, with_slots};
    use crate::{Expression, Family, Key, Rule, SetId, Statement, Verdict};
    use std::net::Ipv4Addr;

    /// A table that the kernel has.
    fn committed() -> Example {
        let mut example = with_slots(2);
        example.table.committed();
        example
    }

    fn goto(chain: &str) -> Value {
        Value::verdict(Verdict::Goto(chain.into()), Some("web".into()))
    }

    /// A chain that goes to another one.
    fn chain(name: &str, to: &str) -> Chain {
        let rule = Rule::new(vec![Statement::Verdict(Verdict::Goto(to.into()))]);
        Chain::regular(name, vec![rule])
    }

    fn range(example: &mut Example, port: u16) -> (SetId, Key) {
        let allowed = example.table.set_id("allowed").expect("of the example");
        let source = Ipv4Addr::new(198, 51, 100, 0);
        let network = ipnet::Ipv4Net::new_assert(source, 24).into();
        (allowed, Key::builder().port(port).network(network))
    }

    #[test]
    fn new_chains_come_before_elements_that_led_elsewhere() {
        let Example { mut table, frontends, slots } = committed();
        let extra = Chain::regular(
            "balance-3",
            vec![Rule::new(vec![Statement::Dnat {
                family: Family::V4,
                key: vec![Expression::SourceAddress(Family::V4)],
                map: "clients".into(),
            }])],
        );
        table.set_chain(extra);
        table.set_chain(chain("outer", "balance-3"));
        table.insert(frontends, frontend(1).build(), goto("outer")).unwrap();
        let data =
            Value::Data(crate::Data::address_port(Ipv4Addr::new(10, 244, 0, 9).into(), 8080));
        table.insert(slots, frontend(1).slot(2).build(), data).unwrap();
        let changes = table.changes();
        let stages = changes.stages();
        let [ahead, rest] = &stages[..] else { panic!("{stages:?}") };
        let names: Vec<&str> = ahead.operations.iter().filter_map(new_chain).collect();
        assert_eq!(names, ["balance-3", "outer"]);
        assert_eq!(ahead.len(), 4, "two chains with a rule each: {ahead:?}");
        let is_elements = |operation: &Operation<'_>| {
            matches!(operation, Operation::AddElements { .. } | Operation::DeleteElements { .. })
        };
        assert!(rest.operations.iter().all(is_elements), "{rest:?}");
        assert_eq!(ahead.len() + rest.len(), changes.len());
    }

    #[test]
    fn elements_that_led_nowhere_come_with_their_chains() {
        let Example { mut table, frontends, .. } = committed();
        table.set_chain(chain("outer", "balance-2"));
        table.insert(frontends, frontend(2).build(), goto("outer")).unwrap();
        assert_eq!(table.changes().stages(), [table.changes()]);
        // Nor does it matter to others that an element leads to another chain that was there.
        table.insert(frontends, frontend(1).build(), goto("refuse")).unwrap();
        assert_eq!(table.changes().stages(), [table.changes()]);
    }

    #[test]
    fn ranges_come_first_unless_others_go() {
        let mut example = committed();
        let (allowed, key) = range(&mut example, 80);
        let Example { mut table, frontends, .. } = example;
        table.insert(allowed, key.clone(), Value::Member).unwrap();
        table.insert(frontends, frontend(1).build(), goto("refuse")).unwrap();
        let changes = table.changes();
        let stages = changes.stages();
        let [ahead, rest] = &stages[..] else { panic!("{stages:?}") };
        assert_eq!((ahead.len(), rest.len()), (1, 2), "{stages:?}");
        assert!(
            matches!(&ahead.operations[..], [Operation::AddElements { set, .. }] if set.name == "allowed".into())
        );
        table.committed();
        let mut example = Example { table, frontends, slots: frontends };
        let (_, other) = range(&mut example, 443);
        example.table.remove(allowed, &key);
        example.table.insert(allowed, other, Value::Member).unwrap();
        assert_eq!(example.table.changes().stages(), [example.table.changes()]);
    }
}
