//! Dumps and transactions over one netlink socket, with requests made by `rustables`.
//!
//! Its own way of sending a batch asks for an acknowledgement of every message, which overflows the
//! receive buffer at some 250 of them. Here only the last message is acknowledged.

use super::inventory::ChainName;
use super::names::NFTABLES_TABLE;
use super::removal::Operation;
use crate::kernel::datagram::{error_code, messages};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nft_table::Family;
use nft_table::netlink::numbers;
use nix::sys::socket::{setsockopt, sockopt};
use rustables::error::QueryError;
use rustables::{Batch, Chain, MsgType, ProtocolFamily, Rule, Table};
use std::io;

/// Bytes of the netfilter header at the beginning of a payload; the first is the family.
const NETFILTER_HEADER: usize = 4;
/// Room for refusals, in bytes.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

pub(super) struct Batches {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Why a transaction was not committed. Nothing of it was.
#[derive(Debug)]
pub(super) enum BatchError {
    /// The kernel refused these operations, each for a reason.
    Refused(Vec<(Operation, io::Error)>),
    /// The transaction as a whole failed.
    Failed(io::Error),
}

impl From<io::Error> for BatchError {
    fn from(error: io::Error) -> Self {
        BatchError::Failed(error)
    }
}

impl Batches {
    /// Opens the socket in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Batches> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let _ = socket.set_cap_ack(true);
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
        }
        Ok(Batches { socket, sequence: 0, buffer: Vec::with_capacity(128 * 1024) })
    }

    /// Sends the dump request that `request` makes for a sequence number, and gives the attributes
    /// of each object of families ip and ip6 to `each`. EINTR when the ruleset changed meanwhile.
    pub(super) fn dump(
        &mut self,
        request: impl FnOnce(u32) -> Result<Vec<u8>, QueryError>,
        mut each: impl FnMut(Family, &[u8]),
    ) -> io::Result<()> {
        self.sequence += 1;
        let request = request(self.sequence).map_err(io::Error::other)?;
        self.socket.send(&request, 0)?;
        let mut interrupted = false;
        loop {
            self.receive(0)?;
            for message in messages(&self.buffer) {
                if message.sequence_number() != self.sequence {
                    continue;
                }
                interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                let payload = message.payload();
                match message.message_type() {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match error_code(payload) {
                            0 if interrupted => Err(io::Error::from_raw_os_error(libc::EINTR)),
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    _ => {
                        let attributes = payload.get(NETFILTER_HEADER..).unwrap_or_default();
                        match payload.first().copied() {
                            Some(numbers::IPV4) => each(Family::V4, attributes),
                            Some(numbers::IPV6) => each(Family::V6, attributes),
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    /// Has the kernel take all operations, or none.
    pub(super) fn commit(&mut self, operations: &[Operation]) -> Result<(), BatchError> {
        let mut batch = Batch::new();
        for operation in operations {
            add(&mut batch, operation);
        }
        let mut bytes = batch.finalize();
        // The batch header has number 0, the operations follow.
        let last = operations.len() as u32;
        acknowledge_only(&mut bytes, last);
        self.sequence = self.sequence.max(last);
        let room = bytes.len() + 4096;
        if setsockopt(&self.socket, sockopt::SndBufForce, &room).is_err() {
            let _ = setsockopt(&self.socket, sockopt::SndBuf, &room);
        }
        self.socket.send(&bytes, 0)?;
        self.outcome(operations)
    }

    /// Reads what the kernel answered; all of it is there once the batch is sent.
    fn outcome(&mut self, operations: &[Operation]) -> Result<(), BatchError> {
        let mut refused = Vec::new();
        let mut acknowledged = false;
        loop {
            match self.receive(libc::MSG_DONTWAIT) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
            for message in messages(&self.buffer) {
                if message.message_type() != NLMSG_ERROR {
                    continue;
                }
                let sequence = message.sequence_number() as usize;
                match error_code(message.payload()) {
                    0 => acknowledged |= sequence == operations.len(),
                    code => {
                        let error = io::Error::from_raw_os_error(code);
                        match operations.get(sequence.wrapping_sub(1)) {
                            Some(operation) => refused.push((operation.clone(), error)),
                            None => return Err(error.into()),
                        }
                    }
                }
            }
        }
        match (refused.is_empty(), acknowledged) {
            (false, _) => Err(BatchError::Refused(refused)),
            (true, true) => Ok(()),
            (true, false) => Err(io::Error::other("the kernel did not answer").into()),
        }
    }

    fn receive(&mut self, flags: libc::c_int) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, flags) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
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

/// Takes the wish for an acknowledgement off all messages of a batch but one.
fn acknowledge_only(batch: &mut [u8], sequence: u32) {
    let mut start = 0;
    while let Some(rest) = batch.get_mut(start..)
        && let Ok(message) = NetlinkBuffer::new_checked(&*rest)
    {
        let (length, flags) = (message.length() as usize, message.flags());
        let flags = if message.sequence_number() == sequence { flags } else { flags & !NLM_F_ACK };
        NetlinkBuffer::new(rest).set_flags(flags);
        start += length.next_multiple_of(4);
    }
}
