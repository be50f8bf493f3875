//! From any state to any other: the difference brings the kernel there, whether it is known what the kernel
//! has or read back.

use crate::scenario::{self, affinity, goto};
use kube_proxy::kernel::fake::FakeKernel;
use kube_proxy::kernel::{Kernel, Nft};
use nft_table::Family;
use nft_table::{
    Chain, Constant, Data, Expression, Key, KeyBuilder, Rule, Statement, Table, Value, Verdict,
};
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use test_support::netns::in_namespace;

/// A state of the table, beside the base ruleset, in small numbers.
#[derive(Clone, Debug)]
struct State {
    /// Chains by number, with the variant of their rules.
    chains: BTreeMap<u8, u8>,
    /// Frontends: the chain that they lead to, if it is there, and the comment.
    frontends: BTreeMap<u8, (u8, Option<u8>)>,
    slots: BTreeMap<(u8, u8), u8>,
    cluster_ips: BTreeSet<u8>,
    networks: BTreeSet<u8>,
    interfaces: BTreeSet<u8>,
    allowed: BTreeSet<(u8, u8)>,
    affinities: BTreeSet<u8>,
}

const CHAINS: u8 = 5;

fn state() -> impl Strategy<Value = State> {
    (
        btree_map(0..CHAINS, 0..4_u8, 0..5),
        btree_map(0..12_u8, (0..CHAINS + 1, proptest::option::of(0..3_u8)), 0..10),
        btree_map((0..4_u8, 0..4_u8), 0..3_u8, 0..12),
        btree_set(0..8_u8, 0..6),
        btree_set(0..8_u8, 0..6),
        btree_set(0..6_u8, 0..4),
        btree_set((0..3_u8, 0..4_u8), 0..6),
        btree_set(0..3_u8, 0..3),
    )
        .prop_map(|state| {
            let (chains, frontends, slots, cluster_ips, networks, interfaces, allowed, affinities) =
                state;
            State {
                chains,
                frontends,
                slots,
                cluster_ips,
                networks,
                interfaces,
                allowed,
                affinities,
            }
        })
}

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 96, 0, number).into()
}

fn vip(number: u8) -> KeyBuilder {
    Key::builder().address(address(number)).protocol(6).port(80)
}

fn chain_name(number: u8) -> String {
    format!("test-{number}")
}

impl State {
    /// A chain of a number: its rules lead only to chains of higher numbers.
    fn chain(&self, number: u8, variant: u8) -> Chain {
        let mut rules = Vec::new();
        let next = self.chains.range(number + 1..).next().map(|(next, _)| *next);
        if let (Some(next), true) = (next, variant > 0) {
            let tcp = Statement::Match {
                expression: Expression::Protocol,
                constant: Constant::Protocol(6),
                negated: variant == 2,
            };
            let jump = Statement::Verdict(Verdict::Jump(chain_name(next).into()));
            rules.push(Rule::new(vec![tcp, jump]));
        }
        if variant > 1 {
            let key = vec![Expression::SourceAddress(Family::V4)];
            let set = "pod-sources4".into();
            let protocols = Statement::ProtocolIn(if variant == 3 { &[6, 17] } else { &[6, 132] });
            let in_set = Statement::InSet { key, set, negated: variant == 3 };
            let drop = Statement::Verdict(Verdict::Drop);
            rules.push(Rule::new(vec![protocols, in_set, drop]));
        }
        Chain::regular(chain_name(number), rules)
    }

    /// Brings a table to this state, from whatever other.
    fn apply(&self, table: &mut Table) {
        for number in 0..3 {
            let name = format!("affinity4-{number}-cluster");
            let is_there = table.chain(&name).is_some();
            if self.affinities.contains(&number) && !is_there {
                table.set_chain(Chain::regular("cluster-2", vec![]));
                affinity(table, Family::V4, &number.to_string());
            } else if !self.affinities.contains(&number) && is_there {
                table.remove_chain(&name);
                table.remove_chain(&format!("affinity4-{number}-remember"));
                table.remove_set(table.set_id(&name).unwrap());
            }
        }
        if self.affinities.is_empty() {
            table.remove_chain("cluster-2");
        }
        for number in 0..CHAINS {
            match self.chains.get(&number) {
                Some(variant) => table.set_chain(self.chain(number, *variant)),
                None => table.remove_chain(&chain_name(number)),
            }
        }
        let members = |keys: Vec<Key>| keys.into_iter().map(|key| (key, Value::Member)).collect();
        let mut replace = |set: &str, elements: Vec<(Key, Value)>| {
            let id = table.set_id(set).unwrap();
            table.replace_elements(id, elements).unwrap();
        };
        let frontends = self.frontends.iter().map(|(number, (chain, comment))| {
            let value = match self.chains.contains_key(chain) {
                true => goto(&chain_name(*chain)),
                false => Value::verdict(Verdict::Drop, None),
            };
            let Value::Verdict(mut element) = value else { unreachable!() };
            element.comment = comment.map(|comment| format!("ns/name:{comment}").into());
            (vip(*number).build(), Value::Verdict(element))
        });
        replace("service-ips4", frontends.collect());
        let slots = self.slots.iter().map(|((number, slot), endpoint)| {
            let data = Value::Data(Data::address_port(address(*endpoint), 8080));
            (vip(*number).slot((*slot).into()).build(), data)
        });
        replace("cluster-endpoints4", slots.collect());
        let addresses =
            self.cluster_ips.iter().map(|number| Key::builder().address(address(*number)).build());
        replace("cluster-ips4", members(addresses.collect()));
        // Neighbours, the beginning and the end of all addresses among them.
        let network = |number: &u8| {
            let text = format!("{}.0.0.0/8", [0, 1, 2, 10, 12, 13, 254, 255][usize::from(*number)]);
            Key::builder().network(text.parse().unwrap())
        };
        replace("pod-sources4", members(self.networks.iter().map(network).collect()));
        let interface = |number: &u8| {
            let name = ["cni0", "eth", "eth0", "etha", "veth", "zz"][usize::from(*number)];
            let key = match number {
                4 => Key::builder().interface_prefix(name),
                _ => Key::builder().interface(name).map(|name| name.clone().to(name)),
            };
            key.unwrap()
        };
        replace("pod-interfaces", members(self.interfaces.iter().map(interface).collect()));
        let allowed = |(number, network): &(u8, u8)| {
            let text = ["192.0.2.1/32", "198.51.100.0/24", "203.0.113.128/25", "10.0.0.0/8"];
            vip(*number).network(text[usize::from(*network)].parse().unwrap())
        };
        replace("allowed-sources4", members(self.allowed.iter().map(allowed).collect()));
    }

    fn fresh(&self) -> Table {
        let mut table = scenario::table();
        self.apply(&mut table);
        table
    }
}

fn commit(kernel: &mut impl Kernel, table: &mut Table) -> Result<(), TestCaseError> {
    let changes = table.changes();
    let result = kernel.commit(&changes);
    prop_assert!(result.is_ok(), "{}\n{changes:#?}", result.unwrap_err());
    table.committed();
    Ok(())
}

fn adopt(kernel: &mut impl Kernel, table: &mut Table, tidy: bool) {
    table.adopt(kernel.snapshot(scenario::TABLE).unwrap());
    if tidy {
        table.delete_unused();
    }
}

fn is_in_kernel(kernel: &mut impl Kernel, state: &State, tidy: bool) -> Result<(), TestCaseError> {
    let mut table = state.fresh();
    adopt(kernel, &mut table, tidy);
    prop_assert!(table.changes().is_empty(), "{:#?}", table.changes());
    Ok(())
}

/// Each case finds what the last one left in the kernel.
fn leads_from_any_state_to_any_other(kernel: impl Kernel, cases: u32) {
    let kernel = RefCell::new(kernel);
    let states = (state(), state(), state(), any::<bool>());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&states, |(first, second, third, tidy)| {
        let kernel = &mut *kernel.borrow_mut();
        let mut table = first.fresh();
        adopt(kernel, &mut table, tidy);
        commit(kernel, &mut table)?;
        is_in_kernel(kernel, &first, tidy)?;
        // What the kernel has is known from before.
        second.apply(&mut table);
        commit(kernel, &mut table)?;
        is_in_kernel(kernel, &second, tidy)?;
        // Back and forth: only sets that went and came are made anew.
        third.apply(&mut table);
        second.apply(&mut table);
        let stay = second.affinities.is_subset(&third.affinities) && tidy;
        prop_assert!(table.changes().is_empty() || !stay, "{:#?}", table.changes());
        commit(kernel, &mut table)?;
        is_in_kernel(kernel, &second, tidy)?;
        // What the kernel has is read back.
        let mut table = third.fresh();
        adopt(kernel, &mut table, tidy);
        commit(kernel, &mut table)?;
        is_in_kernel(kernel, &third, tidy)?;
        adopt(kernel, &mut table, true);
        commit(kernel, &mut table)?;
        is_in_kernel(kernel, &third, true)
    });
    result.unwrap();
    assert!(kernel.into_inner().generation().unwrap() > 1);
}

#[test]
fn the_difference_leads_from_any_state_to_any_other() {
    in_namespace(|| leads_from_any_state_to_any_other(Nft::open().unwrap(), 40));
}

#[test]
fn and_so_it_does_in_the_kernel_in_memory() {
    leads_from_any_state_to_any_other(FakeKernel::new(), 40);
}
