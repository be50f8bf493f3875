//! Reading a table from the kernel.
//!
//! A dump comes in pieces of 32 KiB, and for each the kernel walks a hash set from its beginning (`nft_rhash_walk` in
//! `net/netfilter/nft_set_hash.c`): the time grows with the square of the elements in one set. A hundred
//! thousand take a third of a second, five times as many take ten. It is done once, at the start.

use super::{Error, Kernel, Nft};
use crate::kernel::netlink::retry;
use hashbrown::HashSet;
use netlink_packet_core::DecodeError;
use nft_table::netlink::dump::{self, DumpedSet, ElementReader};
use nft_table::netlink::numbers::{chain, element, message, rule, set, table};
use nft_table::netlink::{AnonymousSets, SnapshotChain, walk};
use nft_table::{Key, Lifetime, Set, Snapshot, SnapshotSet, Value};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How often a dump is tried while others keep changing the ruleset.
const TRIES: usize = 10;

/// Between two attempts to dump a set whose hash table the kernel is resizing.
const RESIZING: Duration = Duration::from_millis(20);

impl Nft {
    /// Reads until nobody has changed the ruleset in between.
    pub(super) fn consistent<T>(
        &mut self,
        mut read: impl FnMut(&mut Nft) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let attempt = || {
            let before = self.generation()?;
            match read(self) {
                Err(Error::Interrupted) => Ok(None),
                _ if self.generation()? != before => Ok(None),
                result => result.map(Some),
            }
        };
        retry(TRIES, attempt)?.ok_or(Error::Interrupted)
    }

    /// What the kernel has of a table, with the elements of its sets or without.
    pub(super) fn read_table(
        &mut self,
        name: &str,
        with_elements: bool,
    ) -> Result<Option<Snapshot>, Error> {
        let Some(flags) = self.read_table_flags(name)? else { return Ok(None) };
        let is_dormant = flags & table::DORMANT != 0;
        let mut snapshot = Snapshot { is_foreign: is_dormant, ..Snapshot::default() };
        let mut anonymous_sets = AnonymousSets::new();
        for DumpedSet { name: set_name, is_anonymous, set, count } in self.read_sets(name)? {
            if is_anonymous {
                let elements = self.dump_elements(name, &set_name)?;
                anonymous_sets.insert(set_name, dump::protocols(&elements));
                continue;
            }
            let elements = match &set {
                _ if !with_elements => Vec::new(),
                Some(set) if set.flags.interval => self.read_elements(name, set)?,
                Some(set) if !set.flags.dynamic => self.read_hash(name, set, count)?,
                _ => Vec::new(),
            };
            snapshot.sets.insert(set_name.into(), SnapshotSet { set, elements });
        }
        self.read_chains(name, &mut snapshot, &Arc::new(anonymous_sets))?;
        self.read_rules(name, &mut snapshot)?;
        Ok(Some(snapshot))
    }

    /// The elements of a hash set. While the kernel resizes its table, for a moment after a large
    /// load, a dump may have some elements twice and lack others; then it is tried again. What is
    /// still lacking in the end is written once more, which changes nothing.
    fn read_hash(
        &mut self,
        table: &str,
        set: &Set,
        count: Option<u32>,
    ) -> Result<Vec<(Key, Value)>, Error> {
        let mut elements = self.read_elements(table, set)?;
        for _ in 0..TRIES {
            let distinct = elements.iter().map(|(key, _)| key).collect::<HashSet<_>>().len();
            let is_counted = count.is_none_or(|count| count as usize == distinct);
            if distinct == elements.len() && is_counted {
                break;
            }
            thread::sleep(RESIZING);
            elements = self.read_elements(table, set)?;
        }
        Ok(elements)
    }

    /// The flags of a table, if it is there.
    pub(super) fn read_table_flags(&mut self, name: &str) -> Result<Option<u32>, Error> {
        let what = format!("looking for table inet {name}");
        let mut flags = 0;
        let found = self.get(
            &what,
            message::GET_TABLE,
            |request| request.string(table::NAME, name),
            |_, attributes| {
                let found = walk::attributes(attributes).find(|(kind, _)| *kind == table::FLAGS);
                flags = found.map_or(Ok(0), |(_, value)| walk::number(value))?;
                Ok(())
            },
        );
        match found {
            Ok(()) => Ok(Some(flags)),
            Err(Error::Request { source, .. }) if source.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read_sets(&mut self, table: &str) -> Result<Vec<DumpedSet>, Error> {
        let what = format!("reading the sets of table inet {table}");
        let mut sets = Vec::new();
        self.dump(
            &what,
            message::GET_SET,
            |request| request.string(set::TABLE, table),
            |message_type, attributes| {
                if message_type == message::NEW_SET {
                    sets.push(dump::set(attributes)?);
                }
                Ok(())
            },
        )?;
        Ok(sets)
    }

    fn read_chains(
        &mut self,
        table: &str,
        snapshot: &mut Snapshot,
        anonymous_sets: &Arc<AnonymousSets>,
    ) -> Result<(), Error> {
        let what = format!("reading the chains of table inet {table}");
        self.dump(
            &what,
            message::GET_CHAIN,
            // Older kernels dump the chains of all tables all the same.
            |request| request.string(chain::TABLE, table),
            |message_type, attributes| {
                if message_type != message::NEW_CHAIN {
                    return Ok(());
                }
                let dumped = dump::chain(attributes)?;
                if dumped.table == table {
                    let chain = SnapshotChain {
                        base: dumped.base,
                        rules: Vec::new(),
                        anonymous_sets: anonymous_sets.clone(),
                    };
                    snapshot.is_foreign |= dumped.is_foreign;
                    snapshot.chains.insert(dumped.name.into(), chain);
                }
                Ok(())
            },
        )
    }

    fn read_rules(&mut self, table: &str, snapshot: &mut Snapshot) -> Result<(), Error> {
        let what = format!("reading the rules of table inet {table}");
        self.dump(
            &what,
            message::GET_RULE,
            |request| request.string(rule::TABLE, table),
            |message_type, attributes| {
                let (chain, expressions) = dump::rule(attributes);
                if let (message::NEW_RULE, Some(chain)) =
                    (message_type, snapshot.chains.get_mut(chain))
                {
                    chain.rules.push(expressions.to_vec());
                }
                Ok(())
            },
        )
    }

    /// The packets that the counters of a chain have counted, in the order of its rules.
    ///
    /// # Errors
    /// [`Error::Request`] if there is no such chain.
    pub fn counters(&mut self, table: &str, chain: &str) -> Result<Vec<u64>, Error> {
        let what = format!("reading the counters of chain inet {table} {chain}");
        let mut counters = Vec::new();
        self.dump(
            &what,
            message::GET_RULE,
            |request| {
                request.string(rule::TABLE, table);
                request.string(rule::CHAIN, chain);
            },
            |message_type, attributes| {
                if message_type == message::NEW_RULE {
                    counters.extend(dump::counter(dump::rule(attributes).1));
                }
                Ok(())
            },
        )?;
        Ok(counters)
    }

    /// The elements of a set.
    pub(super) fn read_elements(
        &mut self,
        table: &str,
        set: &Set,
    ) -> Result<Vec<(Key, Value)>, Error> {
        let mut reader = ElementReader::new(set);
        self.each_elements(table, &set.name, |attributes| reader.read(attributes))?;
        Ok(reader.finish())
    }

    /// The elements of a dynamic set that expire, each once. That others change the ruleset meanwhile does no harm:
    /// what packets change all the while is never of one moment.
    pub(super) fn read_expiring(
        &mut self,
        table: &str,
        set: &Set,
    ) -> Result<Vec<(Key, Value, Lifetime)>, Error> {
        let mut reader = ElementReader::new(set);
        self.each_elements(table, &set.name, |attributes| reader.read(attributes))?;
        let mut elements = reader.finish_expiring();
        let mut keys = HashSet::new();
        elements.retain(|(key, ..)| keys.insert(key.clone()));
        Ok(elements)
    }

    fn dump_elements(&mut self, table: &str, set: &str) -> Result<Vec<Vec<u8>>, Error> {
        let mut messages = Vec::new();
        self.each_elements(table, set, |attributes| {
            messages.push(attributes.to_vec());
            Ok(())
        })?;
        Ok(messages)
    }

    fn each_elements(
        &mut self,
        table: &str,
        set: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), Error> {
        let what = format!("reading the elements of set inet {table} {set}");
        self.dump(
            &what,
            message::GET_ELEMENTS,
            |request| {
                request.string(element::TABLE, table);
                request.string(element::SET, set);
            },
            |message_type, attributes| {
                if message_type == message::NEW_ELEMENTS { each(attributes) } else { Ok(()) }
            },
        )
    }
}
