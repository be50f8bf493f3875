//! What is to be removed, and in which order. Pure.

use super::inventory::Inventory;
use super::names::is_kube_proxys;
use super::objects::{ChainName, Object, Operation};
use std::collections::{BTreeMap, BTreeSet};

/// Operations in one transaction: some 8 MiB of messages.
const OPERATIONS: usize = 65_536;

/// What one pass is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Removal {
    /// Tables, then rules of base chains, then the contents of chains, then the chains: whatever
    /// refers to a chain goes before it, and after the rules no packet gets to the rest.
    operations: Vec<Operation>,
    /// What stays, with the reason.
    kept: BTreeMap<ChainName, String>,
}

impl Removal {
    /// Decides what of the inventory goes. `refused` holds what the kernel would not remove before.
    ///
    /// A chain to which a chain of somebody else leads stays, with all chains to which it leads
    /// itself, but rules of base chains that lead to it go.
    pub(super) fn of(inventory: &Inventory, refused: &BTreeMap<Object, String>) -> Removal {
        let bases: BTreeSet<&ChainName> =
            inventory.chains.iter().filter(|(_, base)| *base).map(|(name, _)| name).collect();
        let owned: BTreeSet<&ChainName> = inventory
            .chains
            .iter()
            .filter(|(name, base)| !base && is_kube_proxys(&name.chain))
            .map(|(name, _)| name)
            .collect();
        let mut rules: Vec<(&ChainName, u64)> = Vec::new();
        let mut kept: BTreeMap<ChainName, String> = BTreeMap::new();
        let mut leads_to: BTreeMap<&ChainName, Vec<ChainName>> = BTreeMap::new();
        for jump in &inventory.jumps {
            let to = ChainName { chain: jump.to.clone(), ..jump.from.clone() };
            if !owned.contains(&to) {
                continue;
            }
            let rule = Object::Rule(jump.from.clone(), jump.handle);
            if owned.contains(&jump.from) {
                leads_to.entry(&jump.from).or_default().push(to);
            } else if !bases.contains(&jump.from) {
                kept.insert(to, format!("chain {} leads there", jump.from.chain));
            } else if let Some(error) = refused.get(&rule) {
                let from = &jump.from.chain;
                kept.insert(to, format!("the rule in {from} that leads there stays: {error}"));
            } else {
                rules.push((&jump.from, jump.handle));
            }
        }
        for chain in &owned {
            if let Some(error) = refused.get(&Object::Chain((*chain).clone())) {
                kept.entry((*chain).clone()).or_insert_with(|| error.clone());
            }
        }
        let mut pending: Vec<ChainName> = kept.keys().cloned().collect();
        while let Some(chain) = pending.pop() {
            for to in leads_to.get(&chain).into_iter().flatten() {
                if !kept.contains_key(to) {
                    kept.insert(to.clone(), format!("chain {} leads there", chain.chain));
                    pending.push(to.clone());
                }
            }
        }
        let tables = inventory.tables.iter().copied();
        let tables = tables.filter(|family| !refused.contains_key(&Object::Table(*family)));
        let going: Vec<&ChainName> =
            owned.into_iter().filter(|chain| !kept.contains_key(*chain)).collect();
        let mut operations: Vec<Operation> = tables.map(Operation::DeleteTable).collect();
        operations.extend(
            rules.into_iter().map(|(chain, handle)| Operation::DeleteRule(chain.clone(), handle)),
        );
        operations.extend(going.iter().map(|chain| Operation::FlushChain((*chain).clone())));
        operations.extend(going.iter().map(|chain| Operation::DeleteChain((*chain).clone())));
        Removal { operations, kept }
    }

    /// The operations of each transaction. Any beginning of the list may be committed alone.
    pub(super) fn transactions(&self) -> impl Iterator<Item = &[Operation]> {
        self.operations.chunks(OPERATIONS)
    }

    /// What stays, for messages.
    pub(super) fn kept(&self) -> Vec<String> {
        self.kept.iter().map(|(chain, reason)| format!("chain {chain} ({reason})")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::inventory::Jump;
    use super::*;
    use nft_table::Family;

    fn nat(chain: &str) -> ChainName {
        ChainName { family: Family::V4, table: "nat", chain: chain.to_owned() }
    }

    /// Chains of the table `ip nat`; base chains are those in capitals without `KUBE`.
    fn inventory(chains: &[&str], jumps: &[(&str, &str)]) -> Inventory {
        let base = |chain: &str| ["PREROUTING", "OUTPUT", "POSTROUTING"].contains(&chain);
        Inventory {
            tables: vec![],
            chains: chains.iter().map(|chain| (nat(chain), base(chain))).collect(),
            jumps: (1..)
                .zip(jumps)
                .map(|(handle, (from, to))| Jump { from: nat(from), handle, to: (*to).into() })
                .collect(),
            dropping: vec![],
        }
    }

    fn operations(inventory: &Inventory) -> Vec<String> {
        let removal = Removal::of(inventory, &BTreeMap::new());
        removal.operations.iter().map(Operation::to_string).collect()
    }

    #[test]
    fn rules_go_first_then_contents_then_chains() {
        let inventory = inventory(
            &["PREROUTING", "KUBE-SERVICES", "KUBE-SVC-A"],
            &[("PREROUTING", "KUBE-SERVICES"), ("KUBE-SERVICES", "KUBE-SVC-A")],
        );
        assert_eq!(
            operations(&inventory),
            [
                "delete rule ip nat PREROUTING handle 1",
                "flush chain ip nat KUBE-SERVICES",
                "flush chain ip nat KUBE-SVC-A",
                "delete chain ip nat KUBE-SERVICES",
                "delete chain ip nat KUBE-SVC-A",
            ]
        );
    }

    #[test]
    fn the_tables_of_the_nftables_mode_go() {
        let inventory = Inventory { tables: vec![Family::V4, Family::V6], ..Inventory::default() };
        assert_eq!(
            operations(&inventory),
            ["delete table ip kube-proxy", "delete table ip6 kube-proxy"]
        );
    }

    #[test]
    fn what_others_have_stays() {
        let inventory = inventory(
            &["PREROUTING", "KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "CNI-HOSTPORT"],
            &[("PREROUTING", "CNI-HOSTPORT"), ("PREROUTING", "KUBE-FIREWALL")],
        );
        assert_eq!(operations(&inventory), Vec::<String>::new());
    }

    #[test]
    fn a_chain_that_others_use_stays_with_all_it_leads_to() {
        let inventory = inventory(
            &["OUTPUT", "CNI-DN-1", "KUBE-MARK-MASQ", "KUBE-SVC-A", "KUBE-SEP-A", "KUBE-SVC-B"],
            &[
                ("CNI-DN-1", "KUBE-MARK-MASQ"),
                ("CNI-DN-1", "KUBE-SVC-A"),
                ("KUBE-SVC-A", "KUBE-SEP-A"),
                ("KUBE-SVC-B", "KUBE-MARK-MASQ"),
                ("OUTPUT", "KUBE-SVC-A"),
            ],
        );
        assert_eq!(
            operations(&inventory),
            [
                "delete rule ip nat OUTPUT handle 5",
                "flush chain ip nat KUBE-SVC-B",
                "delete chain ip nat KUBE-SVC-B",
            ]
        );
        let removal = Removal::of(&inventory, &BTreeMap::new());
        assert_eq!(
            removal.kept(),
            [
                "chain ip nat KUBE-MARK-MASQ (chain CNI-DN-1 leads there)",
                "chain ip nat KUBE-SEP-A (chain KUBE-SVC-A leads there)",
                "chain ip nat KUBE-SVC-A (chain CNI-DN-1 leads there)",
            ]
        );
    }

    #[test]
    fn what_the_kernel_refused_is_left_out() {
        let inventory = Inventory {
            tables: vec![Family::V4],
            ..inventory(
                &["PREROUTING", "OUTPUT", "KUBE-SERVICES", "KUBE-SVC-A", "KUBE-FORWARD"],
                &[
                    ("PREROUTING", "KUBE-SERVICES"),
                    ("KUBE-SERVICES", "KUBE-SVC-A"),
                    ("OUTPUT", "KUBE-FORWARD"),
                ],
            )
        };
        let refused = BTreeMap::from([
            (Object::Table(Family::V4), "busy".to_owned()),
            (Object::Chain(nat("KUBE-SERVICES")), "busy".to_owned()),
            (Object::Rule(nat("OUTPUT"), 3), "no".to_owned()),
        ]);
        let removal = Removal::of(&inventory, &refused);
        assert_eq!(removal.operations, [Operation::DeleteRule(nat("PREROUTING"), 1)]);
        assert_eq!(
            removal.kept(),
            [
                "chain ip nat KUBE-FORWARD (the rule in OUTPUT that leads there stays: no)",
                "chain ip nat KUBE-SERVICES (busy)",
                "chain ip nat KUBE-SVC-A (chain KUBE-SERVICES leads there)",
            ]
        );
    }

    #[test]
    fn chains_of_the_same_name_in_other_tables_are_others() {
        let filter = ChainName { table: "filter", ..nat("KUBE-SERVICES") };
        let v6 = ChainName { family: Family::V6, ..nat("KUBE-SERVICES") };
        let mut inventory = inventory(&["X", "KUBE-SERVICES"], &[("X", "KUBE-SERVICES")]);
        inventory.chains.extend([(filter, false), (v6, false)]);
        assert_eq!(
            operations(&inventory),
            [
                "flush chain ip filter KUBE-SERVICES",
                "flush chain ip6 nat KUBE-SERVICES",
                "delete chain ip filter KUBE-SERVICES",
                "delete chain ip6 nat KUBE-SERVICES",
            ]
        );
    }
}
