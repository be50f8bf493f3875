//! Transactions, with messages made by `rustables`.
//!
//! Its own way of sending a batch asks for an acknowledgement of every message, which overflows the
//! receive buffer at some 250 of them. Here only the last message is acknowledged.

use super::names::NFTABLES_TABLE;
use super::objects::{ChainName, Operation};
use crate::kernel::netlink::{Error, Netlink};
use netlink_packet_core::{NLM_F_ACK, NetlinkBuffer};
use nft_table::Family;
use rustables::{Batch, Chain, MsgType, ProtocolFamily, Rule, Table};

/// How a transaction ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Committed,
    /// The kernel refused these operations, each for a reason. Nothing was done.
    Refused(Vec<(Operation, Error)>),
    /// The kernel was interrupted. Nothing was done.
    Interrupted,
}

/// Has the kernel take all operations, or none.
pub(super) fn commit(socket: &mut Netlink, operations: &[Operation]) -> Result<Outcome, Error> {
    let mut batch = Batch::new();
    for operation in operations {
        add(&mut batch, operation);
    }
    let mut bytes = batch.finalize();
    let first = socket.next_sequence();
    // The batch header has number 0, the operations follow, and the end of the batch.
    let last = operations.len() as u32;
    number(&mut bytes, first, last);
    let answers = socket.transact(&bytes, first.wrapping_add(last).wrapping_add(2))?;
    if answers.overflow {
        return Err(Error::Lost);
    }
    let mut refused = Vec::new();
    let mut acknowledged = false;
    for answer in answers.answers {
        let number = answer.sequence.wrapping_sub(first);
        let operation = operations.get((number as usize).wrapping_sub(1));
        match (answer.errno, operation) {
            (0, _) => acknowledged |= number == last,
            (_, Some(operation)) => refused.push((operation.clone(), Error::Kernel(answer))),
            // About the transaction as a whole.
            (libc::EINTR, None) => return Ok(Outcome::Interrupted),
            (_, None) => return Err(Error::Kernel(answer)),
        }
    }
    match (refused.is_empty(), acknowledged) {
        (false, _) => Ok(Outcome::Refused(refused)),
        (true, true) => Ok(Outcome::Committed),
        (true, false) => Err(Error::NoEnd),
    }
}

/// Appends one operation, as one message.
fn add(batch: &mut Batch, operation: &Operation) {
    let chain = |name: &ChainName| {
        let table = Table::new(family(name.family)).with_name(name.table);
        Chain::new(&table).with_name(name.chain.as_str())
    };
    match operation {
        Operation::DeleteTable(of) => {
            batch.add(&Table::new(family(*of)).with_name(NFTABLES_TABLE), MsgType::Del);
        }
        Operation::DeleteChain(name) => batch.add(&chain(name), MsgType::Del),
        // Without a handle all rules of the chain go.
        Operation::FlushChain(name) => batch.add(&rule(&chain(name)), MsgType::Del),
        Operation::DeleteRule(name, handle) => {
            batch.add(&rule(&chain(name)).with_handle(*handle), MsgType::Del);
        }
    }
}

fn rule(chain: &Chain) -> Rule {
    Rule::new(chain).expect("the chain has a table and a name")
}

fn family(family: Family) -> ProtocolFamily {
    match family {
        Family::V4 => ProtocolFamily::Ipv4,
        Family::V6 => ProtocolFamily::Ipv6,
    }
}

/// Numbers a batch from `first` on, and takes the wish for an acknowledgement off all of its messages but
/// the one that had the number `acknowledged`.
fn number(batch: &mut [u8], first: u32, acknowledged: u32) {
    let mut start = 0;
    while let Some(rest) = batch.get_mut(start..)
        && let Ok(message) = NetlinkBuffer::new_checked(&*rest)
    {
        let (length, flags) = (message.length() as usize, message.flags());
        let number = message.sequence_number();
        let mut message = NetlinkBuffer::new(rest);
        if number != acknowledged {
            message.set_flags(flags & !NLM_F_ACK);
        }
        message.set_sequence_number(first.wrapping_add(number));
        start += length.next_multiple_of(4);
    }
}
