//! Reading a table from the kernel.
//!
//! A dump comes in pieces of 32 KiB, and for each the kernel walks a hash set from its beginning (`nft_rhash_walk` in
//! `net/netfilter/nft_set_hash.c`): the time grows with the square of the elements in one set. A hundred
//! thousand take a third of a second, five times as many take ten. It is done once, at the start.

use super::{Error, Kernel, Nft};
use hashbrown::HashSet;
use nft_table::netlink::dump::{self, DumpedSet, ElementReader};
use nft_table::netlink::numbers::{chain, element, message, rule, set, table};
use nft_table::netlink::{AnonymousSets, SnapshotChain, walk};
use nft_table::{Key, Set, Snapshot, SnapshotSet, Value};
use std::io;
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
        for _ in 0..TRIES {
            let before = self.generation()?;
            let result = read(self);
            match result {
                Err(Error::Interrupted) => continue,
                _ if self.generation()? != before => continue,
                result => return result,
            }
        }
        Err(Error::Interrupted)
    }

    /// What the kernel has of a table.
    pub(super) fn read_table(&mut self, name: &str) -> Result<Option<Snapshot>, Error> {
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
        let found = self.socket.request(
            &what,
            message::GET_TABLE,
            false,
            |request| request.string(table::NAME, name),
            |_, payload| {
                let found = walk::attributes(payload).find(|(kind, _)| *kind == table::FLAGS);
                flags = found.map_or(Ok(0), |(_, value)| walk::number(value))?;
                Ok(())
            },
        );
        match found {
            Ok(()) => Ok(Some(flags)),
            Err(Error::Request { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn read_sets(&mut self, table: &str) -> Result<Vec<DumpedSet>, Error> {
        let what = format!("reading the sets of table inet {table}");
        let mut sets = Vec::new();
        self.socket.request(
            &what,
            message::GET_SET,
            true,
            |request| request.string(set::TABLE, table),
            |kind, payload| {
                if kind == message::NEW_SET {
                    sets.push(dump::set(payload)?);
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
        self.socket.request(
            &what,
            message::GET_CHAIN,
            true,
            // Older kernels dump the chains of all tables all the same.
            |request| request.string(chain::TABLE, table),
            |kind, payload| {
                if kind != message::NEW_CHAIN {
                    return Ok(());
                }
                let dumped = dump::chain(payload)?;
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
        self.socket.request(
            &what,
            message::GET_RULE,
            true,
            |request| request.string(rule::TABLE, table),
            |kind, payload| {
                let (chain, expressions) = dump::rule(payload);
                if let (message::NEW_RULE, Some(chain)) = (kind, snapshot.chains.get_mut(chain)) {
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
        self.socket.request(
            &what,
            message::GET_RULE,
            true,
            |request| {
                request.string(rule::TABLE, table);
                request.string(rule::CHAIN, chain);
            },
            |kind, payload| {
                if kind == message::NEW_RULE {
                    counters.extend(dump::counter(dump::rule(payload).1));
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
        self.request_elements(table, &set.name, |payload| Ok(reader.read(payload)?))?;
        Ok(reader.finish())
    }

    fn dump_elements(&mut self, table: &str, set: &str) -> Result<Vec<Vec<u8>>, Error> {
        let mut messages = Vec::new();
        self.request_elements(table, set, |payload| {
            messages.push(payload.to_vec());
            Ok(())
        })?;
        Ok(messages)
    }

    fn request_elements(
        &mut self,
        table: &str,
        set: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let what = format!("reading the elements of set inet {table} {set}");
        self.socket.request(
            &what,
            message::GET_ELEMENTS,
            true,
            |request| {
                request.string(element::TABLE, table);
                request.string(element::SET, set);
            },
            |kind, payload| if kind == message::NEW_ELEMENTS { each(payload) } else { Ok(()) },
        )
    }
}
