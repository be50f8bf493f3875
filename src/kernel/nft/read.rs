//! Reading a table from the kernel.
//!
//! What is declared is read until it is of one moment. The generation that tells belongs to the whole network
//! namespace, so that others who change other tables all the time would never let it be; then two equal readings
//! count.
//!
//! Elements are dumped in pieces of 32 KiB, and for each the kernel walks a hash set from its beginning (`nft_rhash_walk`
//! in `net/netfilter/nft_set_hash.c`): the time grows with the square of the elements in one set. No dump is exact:
//! while the kernel makes room in a hash, or elements come and go, some come twice and others not at all.

use super::{Error, Kernel, Nft, TableInfo};
use crate::kernel::netlink::{Dumped, retry};
use hashbrown::HashSet;
use netlink_packet_core::DecodeError;
use nft_table::netlink::dump::{self, DumpedSet, ElementReader};
use nft_table::netlink::numbers::{chain, element, message, rule, set, table};
use nft_table::netlink::{AnonymousSets, SnapshotChain, walk};
use nft_table::{Key, Lifetime, Set, Snapshot, SnapshotSet, Value};
use std::sync::Arc;

/// How often declarations are read while others keep changing the ruleset.
const TRIES: usize = 30;

/// How often a set is dumped while others keep changing the ruleset.
const DUMPS: usize = 3;

impl Nft {
    /// What the kernel has of a table, without elements.
    pub(super) fn read_declarations(&mut self, name: &str) -> Result<Option<Snapshot>, Error> {
        let mut last = None;
        let attempt = || {
            let before = self.generation()?;
            let read = self.try_declarations(name)?;
            // What is changed in another table meanwhile may make a dump skip something, but hardly twice the same.
            let is_quiet = self.generation()? == before;
            let is_same = last.as_ref() == Some(&read);
            last = Some(read.clone());
            Ok::<_, Error>((is_quiet || is_same).then_some(read))
        };
        retry(TRIES, attempt)?.ok_or(Error::Interrupted)
    }

    fn try_declarations(&mut self, name: &str) -> Result<Option<Snapshot>, Error> {
        let Some(info) = self.read_table_info(name)? else { return Ok(None) };
        let mut snapshot = Snapshot { is_foreign: info.is_dormant, ..Snapshot::default() };
        let mut anonymous_sets = AnonymousSets::new();
        for DumpedSet { name: set_name, is_anonymous, set, count } in self.read_sets(name)? {
            if is_anonymous {
                let elements = self.dump_elements(name, &set_name)?;
                anonymous_sets.insert(set_name, dump::protocols(&elements));
                continue;
            }
            let set = SnapshotSet { set, count, ..SnapshotSet::default() };
            snapshot.sets.insert(set_name.into(), set);
        }
        self.read_chains(name, &mut snapshot, &Arc::new(anonymous_sets))?;
        self.read_rules(name, &mut snapshot)?;
        Ok(Some(snapshot))
    }

    /// What the kernel has of a table, with the elements of its sets.
    pub(super) fn read_table(&mut self, name: &str) -> Result<Option<Snapshot>, Error> {
        let Some(mut snapshot) = self.read_declarations(name)? else { return Ok(None) };
        for there in snapshot.sets.values_mut() {
            let Some(set) = there.set.as_ref().filter(|set| !set.flags.dynamic) else { continue };
            let read = self.read_elements(name, set)?;
            (there.elements, there.has_catch_all) = (read.elements, read.has_catch_all);
        }
        Ok(Some(snapshot))
    }

    /// Which table there is of a name, if any.
    pub(super) fn read_table_info(&mut self, name: &str) -> Result<Option<TableInfo>, Error> {
        let what = format!("looking for table inet {name}");
        let mut info = TableInfo::default();
        let found = self.get(
            &what,
            message::GET_TABLE,
            |request| request.string(table::NAME, name),
            |_, attributes| {
                for (kind, value) in walk::attributes(attributes) {
                    match kind {
                        table::FLAGS => {
                            let flags = walk::number(value)?;
                            info.is_dormant = flags & table::DORMANT != 0;
                            info.persists = flags & table::PERSIST != 0;
                        }
                        table::HANDLE => {
                            let handle = value.first_chunk().copied().unwrap_or_default();
                            info.handle = u64::from_be_bytes(handle);
                        }
                        table::OWNER_PORT => info.owner = Some(walk::number(value)?),
                        _ => {}
                    }
                }
                Ok(())
            },
        );
        match found {
            Ok(()) => Ok(Some(info)),
            Err(Error::Request { source, .. }) if source.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read_sets(&mut self, table: &str) -> Result<Vec<DumpedSet>, Error> {
        let what = format!("reading the sets of table inet {table}");
        let mut sets = Vec::new();
        let _ = self.dump_roughly(
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
        let _ = self.dump_roughly(
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
                        is_foreign: dumped.is_foreign,
                    };
                    snapshot.chains.insert(dumped.name.into(), chain);
                }
                Ok(())
            },
        )?;
        Ok(())
    }

    fn read_rules(&mut self, table: &str, snapshot: &mut Snapshot) -> Result<(), Error> {
        let what = format!("reading the rules of table inet {table}");
        let _ = self.dump_roughly(
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
        )?;
        Ok(())
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

    /// The elements of a set, of a dynamic one each once. That others change the ruleset meanwhile does no harm: no set is dumped as it
    /// is at one moment anyway.
    pub(super) fn read_elements(&mut self, table: &str, set: &Set) -> Result<SnapshotSet, Error> {
        let reader = self.read_all(table, set)?;
        let has_catch_all = reader.has_catch_all();
        let mut elements = reader.finish();
        if set.flags.dynamic {
            // While the kernel makes room for more, some come twice.
            let mut keys = HashSet::new();
            elements.retain(|(key, _)| keys.insert(key.clone()));
        }
        Ok(SnapshotSet { elements, has_catch_all, ..SnapshotSet::default() })
    }

    /// A dump that was interrupted by changes of the ruleset is begun anew a few times, for it may end early.
    fn read_all<'a>(&mut self, table: &str, set: &'a Set) -> Result<ElementReader<'a>, Error> {
        let mut last = None;
        let attempt = || {
            let mut reader = ElementReader::new(set);
            let dumped =
                self.each_elements(table, &set.name, |attributes| reader.read(attributes))?;
            last = Some(reader);
            Ok::<_, Error>(if dumped == Dumped::Complete { last.take() } else { None })
        };
        let complete = retry(DUMPS, attempt)?;
        complete.or(last).ok_or(Error::Interrupted)
    }

    /// The elements of a dynamic set that expire, each once.
    pub(super) fn read_expiring(
        &mut self,
        table: &str,
        set: &Set,
    ) -> Result<Vec<(Key, Value, Lifetime)>, Error> {
        let mut elements = self.read_all(table, set)?.finish_expiring();
        let mut keys = HashSet::new();
        elements.retain(|(key, ..)| keys.insert(key.clone()));
        Ok(elements)
    }

    fn dump_elements(&mut self, table: &str, set: &str) -> Result<Vec<Vec<u8>>, Error> {
        let mut messages = Vec::new();
        let _ = self.each_elements(table, set, |attributes| {
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
    ) -> Result<Dumped, Error> {
        let what = format!("reading the elements of set inet {table} {set}");
        self.dump_roughly(
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
