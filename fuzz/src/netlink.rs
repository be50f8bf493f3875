//! What comes out of netlink sockets.

use crate::objects;
use kube_proxy::kernel::fuzzing;
use kube_proxy::plan::Planner;
use nft_table::netlink::dump::{self, ElementReader};
use nft_table::netlink::numbers::{element, message};
use nft_table::netlink::{AnonymousSets, Batch, SnapshotChain, walk};
use nft_table::{Set, Snapshot, SnapshotSet, Table};
use std::cell::RefCell;
use std::sync::Arc;

/// Bytes of the header of netlink, and of netfilter after it.
const HEADER: usize = 16;
const NETFILTER_HEADER: usize = 4;

/// Reads two datagrams, which the first byte parts, as answers, as events, and as the dump of a table. A planned table
/// takes such a dump for what the kernel has, and says what would have to change.
pub fn check(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let (one, other) = bytes.split_at(bytes.len().min(usize::from(*first) * 4));
    let answers = fuzzing::read(&[one, other]);

    thread_local! {
        static PLANNED: RefCell<(Planner, Batch)> = planned().into();
    }
    PLANNED.with_borrow_mut(|(planner, batch)| {
        for (sequence, offset) in answers {
            batch.subject(sequence, offset);
        }
        take(planner.table_mut(), &[one, other].concat());
    });
}

/// A planned table, and what is sent for it.
fn planned() -> (Planner, Batch) {
    let planner = objects::planner_of_some();
    let batch = Batch::encode(&planner.table().changes(), 1, None).expect("planned");
    (planner, batch)
}

fn take(table: &mut Table, dump: &[u8]) {
    let snapshot = snapshot(table, dump);
    if snapshot.sets.is_empty() && snapshot.chains.is_empty() {
        return;
    }
    if table.adopt(Some(snapshot)) {
        table.changes();
        table.committed();
        assert!(table.changes().operations.is_empty(), "{:?}", table.changes());
    }
}

/// The table that messages declare.
fn snapshot(table: &Table, bytes: &[u8]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut anonymous = AnonymousSets::new();
    for (message_type, attributes) in messages(bytes) {
        match message_type {
            message::NEW_SET => {
                let Ok(dumped) = dump::set(attributes) else { continue };
                if dumped.is_anonymous {
                    let elements = messages(bytes).map(|(_, attributes)| attributes.to_vec());
                    let elements: Vec<_> = elements.collect();
                    anonymous.insert(dumped.name, dump::protocols(&elements));
                    continue;
                }
                let mut set = SnapshotSet { count: dumped.count, ..SnapshotSet::default() };
                let planned = table.set_id(&dumped.name).and_then(|id| table.set(id));
                for declared in dumped.set.iter().chain(planned) {
                    read_elements(declared, bytes, &mut set);
                }
                set.set = dumped.set;
                snapshot.sets.insert(dumped.name.into(), set);
            }
            message::NEW_CHAIN => {
                let Ok(dumped) = dump::chain(attributes) else { continue };
                let chain = SnapshotChain {
                    base: dumped.base,
                    is_foreign: dumped.is_foreign,
                    anonymous_sets: Arc::new(anonymous.clone()),
                    ..SnapshotChain::default()
                };
                snapshot.chains.insert(dumped.name.into(), chain);
            }
            message::NEW_RULE => {
                let (chain, expressions) = dump::rule(attributes);
                dump::counter(expressions);
                if let Some(chain) = snapshot.chains.get_mut(chain) {
                    chain.rules.push(expressions.to_vec());
                }
            }
            _ => {}
        }
    }
    snapshot
}

fn read_elements(set: &Set, bytes: &[u8], into: &mut SnapshotSet) {
    let mut reader = ElementReader::new(set);
    let mut expiring = ElementReader::new(set);
    let is_its = |(kind, attributes): &(u16, &[u8])| {
        let mut name = walk::attributes(attributes).filter(|(kind, _)| *kind == element::SET);
        *kind == message::NEW_ELEMENTS
            && name.next().is_some_and(|(_, name)| walk::string(name) == &*set.name)
    };
    for (_, attributes) in messages(bytes).filter(is_its) {
        let _ = (reader.read(attributes), expiring.read(attributes));
    }
    into.has_catch_all = reader.has_catch_all();
    reader.last();
    into.elements = reader.finish();
    expiring.finish_expiring();
}

/// The messages: type and attributes.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let message = bytes.get(..length)?;
        let message_type = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((message_type, message.get(HEADER + NETFILTER_HEADER..)?))
    })
}
