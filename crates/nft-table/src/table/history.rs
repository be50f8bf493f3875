//! Random histories: whatever a table goes through, the kernel comes to hold what it says.

use super::model::{Model, ModelTable};
use crate::netlink::Batch;
use crate::{
    BaseChain, Chain, ChainType, Data, DataType, Expression, Family, Hook, Key, Rule, Set, SetData,
    SetFlags, SetId, Statement, Table, Value, Verdict,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A state of the table, in small numbers. What does not go together is left out when it is applied.
#[derive(Clone, Debug)]
struct State {
    /// Sets by number: the kind of the set, and its elements.
    sets: BTreeMap<u8, (Kind, BTreeMap<u8, u8>)>,
    /// Chains by number: where they are attached, and what each rule does.
    chains: BTreeMap<u8, (Option<bool>, Vec<RuleOf>)>,
}

/// What a rule does, and the number of the set or chain that it does it with.
type RuleOf = (Does, u8);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Members,
    Ranges,
    Data,
    Verdicts,
    RangeVerdicts,
}

#[derive(Clone, Copy, Debug)]
enum Does {
    Accept,
    LookUp,
    Jump,
}

#[derive(Clone, Debug)]
enum Step {
    /// The table is to be in this state.
    Change(State),
    Commit,
    /// The kernel refuses the difference, and its table is read again.
    Refuse,
    /// Somebody deletes the table; it is read again.
    Lose,
    /// Somebody changes things in the table, which are looked at again.
    Tamper(Vec<(Tamper, u8, u8)>),
    /// The program begins anew, with a table in this state.
    Restart(State),
    DeleteUnused,
}

/// What somebody else does to a table, with the set or chain of a number and a second number.
#[derive(Clone, Copy, Debug)]
enum Tamper {
    DeleteElement,
    AddElement,
    FlushChain,
    AddChain,
    AddSet,
    /// Something that has no key, in the place of which an element stands here.
    AddNameless,
}

const NUMBERS: u8 = 4;

/// Most sets and chains of a number are alike in all states: otherwise no table would be adopted.
fn state() -> impl Strategy<Value = State> {
    use Kind::{Data, Members, RangeVerdicts, Ranges, Verdicts};
    const KINDS: [Kind; NUMBERS as usize] = [Verdicts, Data, Ranges, RangeVerdicts];
    let other_kind = prop::option::weighted(0.1, prop::sample::select(vec![Members, Verdicts]));
    let other_base = prop::option::weighted(0.1, any::<Option<bool>>());
    let does = prop::sample::select(vec![Does::Accept, Does::LookUp, Does::Jump]);
    let set = (other_kind, btree_map(0..6_u8, 0..NUMBERS, 0..5));
    let chain = (other_base, vec((does, 0..NUMBERS), 0..3));
    let numbers = || 0..NUMBERS;
    (btree_map(numbers(), set, 0..4), btree_map(numbers(), chain, 0..5)).prop_map(|state| {
        let set = |(number, (kind, elements))| {
            (number, (Option::unwrap_or(kind, KINDS[usize::from(number)]), elements))
        };
        let chain = |(number, (base, rules))| {
            (number, (Option::unwrap_or(base, (number == 0).then_some(true)), rules))
        };
        State {
            sets: state.0.into_iter().map(set).collect(),
            chains: state.1.into_iter().map(chain).collect(),
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => state().prop_map(Step::Change),
        5 => Just(Step::Commit),
        2 => Just(Step::Refuse),
        1 => Just(Step::Lose),
        2 => vec((tamper(), 0..NUMBERS, 0..6_u8), 1..4).prop_map(Step::Tamper),
        2 => state().prop_map(Step::Restart),
        1 => Just(Step::DeleteUnused),
    ]
}

fn tamper() -> impl Strategy<Value = Tamper> {
    use Tamper::{AddChain, AddElement, AddNameless, AddSet, DeleteElement, FlushChain};
    prop::sample::select(vec![DeleteElement, AddElement, FlushChain, AddChain, AddSet, AddNameless])
}

fn set_name(number: u8) -> String {
    format!("set-{number}")
}

fn chain_name(number: u8) -> String {
    format!("chain-{number}")
}

impl State {
    fn is_regular(&self, chain: u8) -> bool {
        self.chains.get(&chain).is_some_and(|(base, _)| base.is_none())
    }

    fn set(number: u8, kind: Kind) -> Set {
        let data = match kind {
            Kind::Members | Kind::Ranges => SetData::None,
            Kind::Data => SetData::Fields(vec![DataType::Ipv4Address, DataType::InetService]),
            Kind::Verdicts | Kind::RangeVerdicts => SetData::Verdict,
        };
        let interval = matches!(kind, Kind::Ranges | Kind::RangeVerdicts);
        Set {
            name: set_name(number).into(),
            key: vec![DataType::Ipv4Address],
            data,
            flags: SetFlags { interval, dynamic: false, timeout: false },
            type_of: None,
            size: None,
            counter: false,
        }
    }

    fn element(&self, kind: Kind, key: u8, value: u8) -> (Key, Value) {
        let address = Ipv4Addr::new(10, 0, 0, 10 * key);
        let builder = Key::builder().address(address.into());
        let key = match kind {
            // As long as the value says: a range with another end is another range.
            Kind::Ranges | Kind::RangeVerdicts => {
                let last = Ipv4Addr::new(10, 0, 0, 10 * key + value);
                builder.to(Key::builder().address(last.into()))
            }
            _ => builder.build(),
        };
        let value = match kind {
            Kind::Members | Kind::Ranges => Value::Member,
            Kind::Data => Value::Data(Data::address_port(address.into(), value.into())),
            Kind::Verdicts | Kind::RangeVerdicts if self.is_regular(value) => {
                Value::verdict(Verdict::Goto(chain_name(value).into()), None)
            }
            Kind::Verdicts | Kind::RangeVerdicts => Value::verdict(Verdict::Drop, None),
        };
        (key, value)
    }

    /// Rules lead to sets that are there, and to regular chains of higher numbers.
    fn chain(&self, number: u8) -> Option<Chain> {
        let (base, rules) = self.chains.get(&number)?;
        let rule = |(does, to): &RuleOf| {
            let key = vec![Expression::SourceAddress(Family::V4)];
            let statement = match does {
                Does::LookUp => {
                    let (kind, _) = self.sets.get(to)?;
                    let name = set_name(*to).into();
                    match kind {
                        Kind::Verdicts | Kind::RangeVerdicts => {
                            Statement::VerdictMap { key, map: name }
                        }
                        Kind::Data => Statement::Dnat { family: Family::V4, key, map: name },
                        _ => Statement::InSet { key, set: name, negated: false },
                    }
                }
                Does::Jump if *to > number && self.is_regular(*to) => {
                    Statement::Verdict(Verdict::Jump(chain_name(*to).into()))
                }
                Does::Jump | Does::Accept => Statement::Verdict(Verdict::Accept),
            };
            Some(Rule::new(vec![statement]))
        };
        let base = base.map(|first| BaseChain {
            chain_type: ChainType::Nat,
            hook: Hook::Prerouting,
            priority: if first { -100 } else { 0 },
        });
        let rules = rules.iter().filter_map(rule).collect();
        Some(Chain { name: chain_name(number).into(), base, rules })
    }

    /// Brings a table to this state, from whatever other.
    fn apply(&self, table: &mut Table) {
        for number in 0..NUMBERS {
            let wanted = self.sets.get(&number);
            let id = table.set_id(&set_name(number));
            let declaration = wanted.map(|(kind, _)| State::set(number, *kind));
            let id = id.filter(|id| {
                let stays = table.set(*id) == declaration.as_ref();
                if !stays {
                    table.remove_set(*id);
                }
                stays
            });
            if let (Some(set), Some((kind, elements))) = (declaration, wanted) {
                let id = id.unwrap_or_else(|| table.add_set(set).unwrap());
                let element = |(key, value): (&u8, &u8)| self.element(*kind, *key, *value);
                table.replace_elements(id, elements.iter().map(element).collect()).unwrap();
            }
        }
        for number in 0..NUMBERS {
            match self.chain(number) {
                Some(chain) => table.set_chain(chain),
                None => table.remove_chain(&chain_name(number)),
            }
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new("history");
        self.apply(&mut table);
        table
    }
}

/// Does to the kernel's table what somebody else would; returns the sets that have something nameless then.
fn tamper_with(kernel: &mut Model, what: &[(Tamper, u8, u8)]) -> Vec<Arc<str>> {
    let mut nameless = Vec::new();
    let Some(there) = &mut kernel.0 else { return nameless };
    for (tamper, number, other) in what {
        let set = there.sets.get_mut(&*set_name(*number));
        let key = |set: &Set| {
            let address = Ipv4Addr::new(10, 0, 1, 10 * other);
            let builder = Key::builder().address(address.into());
            if set.flags.interval {
                builder.to(Key::builder().address(address.into()))
            } else {
                builder.build()
            }
        };
        let value = |set: &Set| match set.data {
            SetData::None => Value::Member,
            SetData::Verdict => Value::verdict(Verdict::Drop, None),
            SetData::Fields(_) => {
                Value::Data(Data::address_port(Ipv4Addr::new(10, 0, 2, *other).into(), 1))
            }
        };
        match (tamper, set) {
            (Tamper::DeleteElement, Some((_, elements))) => {
                let key = elements.keys().nth(usize::from(*other)).cloned();
                key.map(|key| elements.remove(&key));
            }
            (Tamper::AddElement, Some((set, elements))) => {
                elements.insert(key(set), value(set));
            }
            (Tamper::AddNameless, Some((set, elements))) => {
                nameless.push(set.name.clone());
                elements.insert(key(set), value(set));
            }
            (Tamper::FlushChain, _) => {
                if let Some((_, rules)) = there.chains.get_mut(&*chain_name(*number)) {
                    rules.clear();
                }
            }
            (Tamper::AddChain, _) => {
                let base = BaseChain {
                    chain_type: ChainType::Filter,
                    hook: Hook::Input,
                    priority: i32::from(*other),
                };
                let chain = (other % 2 == 0).then_some(base);
                there.chains.insert(format!("foreign-{number}").into(), (chain, Vec::new()));
            }
            (Tamper::AddSet, _) => {
                let mut set = State::set(*number, Kind::Members);
                set.name = format!("foreign-{number}").into();
                there.sets.insert(set.name.clone(), (set, BTreeMap::new()));
            }
            _ => {}
        }
    }
    nameless
}

/// Looks again at what the kernel has: what is declared, and of each set every element, by key or all at once.
fn look_again(kernel: &Model, table: &mut Table, nameless: &[Arc<str>]) {
    let Some(mut declared) = kernel.snapshot() else {
        table.adopt(None);
        return;
    };
    let mut elements = BTreeMap::new();
    for (name, set) in &mut declared.sets {
        elements.insert(name.clone(), std::mem::take(&mut set.elements));
    }
    if table.adopt_declarations(declared).is_none() {
        return;
    }
    let sets: Vec<(SetId, Set)> = table.sets().map(|(id, set)| (id, set.clone())).collect();
    for (index, (id, set)) in sets.into_iter().enumerate() {
        let Some(there) = elements.remove(&set.name) else { continue };
        if nameless.contains(&set.name) {
            table.rewrite(id);
        } else if index % 2 == 0 || set.flags.interval {
            table.observe_all(id, there);
        } else {
            let believed: Vec<Key> = table.believed_keys(id).cloned().collect();
            let there: BTreeMap<Key, Value> = there.into_iter().collect();
            for key in believed.iter().chain(there.keys()) {
                table.observe(id, key, there.get(key).cloned());
            }
        }
    }
}

/// What the kernel should have.
fn wanted(table: &Table) -> ModelTable {
    let mut wanted = ModelTable::default();
    for (id, set) in table.sets() {
        let elements = table.elements(id).map(|(key, value)| (key.clone(), value.clone()));
        wanted.sets.insert(set.name.clone(), (set.clone(), elements.collect()));
    }
    for chain in table.chains() {
        wanted.chains.insert(chain.name.clone(), (chain.base, chain.rules.clone()));
    }
    wanted
}

/// Commits, and looks whether the kernel has what it should, with or without what nobody asked for.
fn commit(kernel: &mut Model, table: &mut Table) -> Result<(), TestCaseError> {
    let changes = table.changes();
    prop_assert!(Batch::encode(&changes, 1, None).is_ok());
    let result = kernel.commit(&changes);
    prop_assert!(result.is_ok(), "{}\n{changes:#?}", result.unwrap_err());
    table.committed();
    prop_assert!(table.changes().is_empty(), "{:#?}", table.changes());
    let mut there = kernel.0.clone().unwrap();
    let wanted = wanted(table);
    if table.has_unused() {
        there.sets.retain(|name, _| wanted.sets.contains_key(name));
        there.chains.retain(|name, _| wanted.chains.contains_key(name));
    }
    prop_assert_eq!(there, wanted);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_kernel_comes_to_hold_what_the_table_says(
        first in state(),
        steps in vec(step(), 1..12),
    ) {
        let (mut kernel, mut table) = (Model::default(), first.table());
        for step in steps {
            match step {
                Step::Change(state) => state.apply(&mut table),
                Step::Commit => commit(&mut kernel, &mut table)?,
                Step::Refuse => {
                    table.adopt(kernel.snapshot());
                }
                Step::Lose => {
                    kernel.0 = None;
                    prop_assert!(!table.adopt(None));
                }
                Step::Tamper(what) => {
                    let nameless = tamper_with(&mut kernel, &what);
                    look_again(&kernel, &mut table, &nameless);
                }
                Step::Restart(state) => {
                    table = state.table();
                    table.adopt(kernel.snapshot());
                }
                Step::DeleteUnused => table.delete_unused(),
            }
        }
        table.delete_unused();
        commit(&mut kernel, &mut table)?;
        prop_assert_eq!(kernel.0.clone(), Some(wanted(&table)), "and nothing is left over");
        // What was committed is what is read back.
        table.adopt(kernel.snapshot());
        prop_assert!(table.changes().is_empty(), "{:#?}", table.changes());
    }

    #[test]
    fn back_and_forth_leaves_nothing_to_do(there in state(), elsewhere in state()) {
        let (mut kernel, mut table) = (Model::default(), there.table());
        commit(&mut kernel, &mut table)?;
        elsewhere.apply(&mut table);
        there.apply(&mut table);
        // But for sets: one that goes and comes is made anew.
        let is_same = |(number, (kind, _)): (&u8, &(Kind, BTreeMap<u8, u8>))| {
            elsewhere.sets.get(number).is_some_and(|(other, _)| other == kind)
        };
        if there.sets.iter().all(is_same) {
            prop_assert!(table.changes().is_empty(), "{:#?}", table.changes());
        }
        commit(&mut kernel, &mut table)?;
    }
}
