//! What is there: tables, chains of the iptables tables, and the jumps between them.
//!
//! Rules are read with a walker that looks for jumps only, so that a kind of expression that is new
//! does no harm.

use super::LeftoversError;
use super::names::{IPTABLES_TABLES, NFTABLES_TABLE, is_kube_proxys};
use super::objects::{self, ChainName};
use crate::kernel::netlink::{Dumped, HEADER, Netlink};
use nft_table::Family;
use nft_table::netlink::numbers::{self, LIST_ELEMENT, element, rule, verdict};
use nft_table::netlink::walk::{attributes, number, string};
use rustables::error::QueryError;
use rustables::query::get_list_of_objects;
use rustables::{Chain, Rule, Table};
use std::collections::BTreeSet;

/// `NFTA_RULE_HANDLE`, `NFTA_IMMEDIATE_DATA` of linux/netfilter/nf_tables.h.
const RULE_HANDLE: u16 = 3;
const IMMEDIATE_DATA: u16 = 2;
/// `NF_INET_FORWARD` and `NF_DROP` of linux/netfilter.h.
const FORWARD: u32 = 2;
const DROP: u32 = 0;
/// Bytes of the netfilter header at the beginning of a payload; the first is the family.
const NETFILTER_HEADER: usize = 4;

/// A rule that jumps or goes to another chain of its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) from: ChainName,
    /// The kernel's number of the rule.
    pub(super) handle: u64,
    pub(super) to: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Inventory {
    /// The families in which upstream's nftables table exists.
    pub(super) tables: Vec<Family>,
    /// Chains, and whether each is a base chain.
    pub(super) chains: Vec<(ChainName, bool)>,
    pub(super) jumps: Vec<Jump>,
    /// Base chains that drop what is forwarded and nobody accepts, in nft's words: `ip filter FORWARD`.
    pub(super) dropping: Vec<String>,
}

impl Inventory {
    /// Lists everything. None: something changed meanwhile.
    pub(super) fn read(socket: &mut Netlink) -> Result<Option<Inventory>, LeftoversError> {
        let mut inventory = Inventory::default();
        let request = get_list_of_objects::<Table>(libc::NFT_MSG_GETTABLE as u16, 0, None);
        let add = |family, attributes: &[u8]| inventory.add_table(family, attributes);
        if dump(socket, "nftables tables", request, add)? == Dumped::Interrupted {
            return Ok(None);
        }
        let request = get_list_of_objects::<Chain>(libc::NFT_MSG_GETCHAIN as u16, 0, None);
        let add = |family, attributes: &[u8]| inventory.add_chain(family, attributes);
        if dump(socket, "nftables chains", request, add)? == Dumped::Interrupted {
            return Ok(None);
        }
        let owned = inventory.chains.iter().filter(|(name, _)| is_kube_proxys(&name.chain));
        let tables: BTreeSet<_> = owned.map(|(name, _)| (name.family, name.table)).collect();
        for (family, table) in tables {
            let filter = Rule::default().with_table(table);
            let request = get_list_of_objects(libc::NFT_MSG_GETRULE as u16, 0, Some(&filter));
            // For all families the kernel would stop after the first table of this name.
            let request = request.map(|request| of_family(request, family));
            let add = |family, attributes: &[u8]| inventory.add_rule(family, attributes);
            if dump(socket, "nftables rules", request, add)? == Dumped::Interrupted {
                return Ok(None);
            }
        }
        Ok(Some(inventory))
    }

    fn add_table(&mut self, family: Family, bytes: &[u8]) {
        let name = attributes(bytes).find(|(kind, _)| *kind == numbers::table::NAME);
        if name.is_some_and(|(_, name)| string(name) == NFTABLES_TABLE) {
            self.tables.push(family);
        }
    }

    fn add_chain(&mut self, family: Family, bytes: &[u8]) {
        let (mut table, mut chain, mut hook, mut policy) = (None, None, None, None);
        for (kind, value) in attributes(bytes) {
            match kind {
                numbers::chain::TABLE => table = Some(string(value)),
                numbers::chain::NAME => chain = Some(string(value).to_owned()),
                numbers::chain::HOOK => hook = Some(value),
                numbers::chain::POLICY => policy = number(value).ok(),
                _ => {}
            }
        }
        let base = hook.is_some();
        let at = hook.and_then(|hook| {
            attributes(hook).find(|(kind, _)| *kind == numbers::chain::HOOK_NUMBER)
        });
        let at = at.and_then(|(_, value)| number(value).ok());
        if let (Some(FORWARD), Some(DROP), Some(table), Some(chain)) = (at, policy, table, &chain) {
            self.dropping.push(format!("{} {table} {chain}", objects::nft(family)));
        }
        let table = table.and_then(iptables_table);
        if let (Some(table), Some(chain)) = (table, chain) {
            self.chains.push((ChainName { family, table, chain }, base));
        }
    }

    fn add_rule(&mut self, family: Family, bytes: &[u8]) {
        let (mut table, mut chain, mut handle, mut expressions) = (None, None, None, None);
        for (kind, value) in attributes(bytes) {
            match kind {
                rule::TABLE => table = iptables_table(string(value)),
                rule::CHAIN => chain = Some(string(value)),
                RULE_HANDLE => {
                    handle = value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
                }
                rule::EXPRESSIONS => expressions = Some(value),
                _ => {}
            }
        }
        let (Some(table), Some(chain), Some(handle)) = (table, chain, handle) else { return };
        for to in targets(expressions.unwrap_or_default()) {
            let from = ChainName { family, table, chain: chain.to_owned() };
            self.jumps.push(Jump { from, handle, to: to.to_owned() });
        }
    }
}

/// Gives the attributes of each object of families ip and ip6 to `each`.
fn dump(
    socket: &mut Netlink,
    what: &'static str,
    request: Result<Vec<u8>, QueryError>,
    mut each: impl FnMut(Family, &[u8]),
) -> Result<Dumped, LeftoversError> {
    let request = request.map_err(|source| LeftoversError::Request { what, source })?;
    let dumped = socket.dump(request, |message| {
        let attributes = message.payload.get(NETFILTER_HEADER..).unwrap_or_default();
        match message.payload.first().copied() {
            Some(numbers::IPV4) => each(Family::V4, attributes),
            Some(numbers::IPV6) => each(Family::V6, attributes),
            _ => {}
        }
        Ok(())
    });
    dumped.map_err(|source| LeftoversError::List { what, source })
}

/// Limits a request to a family: the first byte after the netlink header.
fn of_family(mut request: Vec<u8>, family: Family) -> Vec<u8> {
    request[HEADER] = match family {
        Family::V4 => numbers::IPV4,
        Family::V6 => numbers::IPV6,
    };
    request
}

/// The table's name, if it is one of those with leftovers.
fn iptables_table(name: &str) -> Option<&'static str> {
    IPTABLES_TABLES.into_iter().find(|table| *table == name)
}

/// The chains that an expression list jumps or goes to.
fn targets(expressions: &[u8]) -> impl Iterator<Item = &str> {
    attributes(expressions).filter(|(kind, _)| *kind == LIST_ELEMENT).filter_map(
        |(_, expression)| {
            let find = |bytes, wanted| {
                attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
            };
            if string(find(expression, rule::EXPRESSION_NAME)?) != "immediate" {
                return None;
            }
            let data = find(find(expression, rule::EXPRESSION_DATA)?, IMMEDIATE_DATA)?;
            let verdict = find(data, element::VERDICT)?;
            let code = number(find(verdict, element::VERDICT_CODE)?).ok()?;
            let jumps = code == verdict::JUMP || code == verdict::GOTO;
            jumps.then_some(string(find(verdict, element::VERDICT_CHAIN)?))
        },
    )
}
