//! The nftables of the kernel: transactions in, snapshots out.

mod error;
mod probe;
mod read;

pub use error::{Cause, Error, Refusal, Refusals};

use crate::kernel::netlink::{Answer, Answers, Dumped, Message, Netlink, Options};
use netlink_packet_core::{DecodeError, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nft_table::netlink::numbers::{self, INET, message};
use nft_table::netlink::{Batch, Writer, walk};
use nft_table::{Key, Lifetime, Set, Snapshot, Transaction, Value};
use std::io;

/// Room for the errors of a transaction, in bytes.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Bytes of the netfilter header at the beginning of a payload.
const NETFILTER_HEADER: usize = 4;

/// What the rest of the program needs of nftables: the seam between it and the kernel.
pub trait Kernel {
    /// Has the kernel take a transaction: all of it, or nothing in case of an error, but for a part
    /// that nothing leads to ([`Transaction::stages`]).
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<(), Error>;

    /// What the kernel has of a table; None if it has no such table.
    fn snapshot(&mut self, table: &str) -> Result<Option<Snapshot>, Error>;

    /// The same without elements, which takes no time however many there are.
    fn declarations(&mut self, table: &str) -> Result<Option<Snapshot>, Error>;

    /// Whether there is a table of this name in family inet.
    fn has_table(&mut self, table: &str) -> Result<bool, Error>;

    /// The elements of one set, also of a dynamic one. Expired ones are left out.
    fn elements(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value)>, Error>;

    /// The elements of a dynamic set with what is left of their lives. Packets change them meanwhile, so they are not
    /// of one moment and some may be missing, but none is there twice. Those that never expire are left out.
    fn expiring(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value, Lifetime)>, Error>;

    /// The generation of the ruleset: a number that grows with every change, whoever makes it.
    fn generation(&mut self) -> Result<u32, Error>;
}

/// The nftables of the network namespace in which it was opened. One socket for its life.
#[derive(Debug)]
pub struct Nft {
    socket: Netlink,
}

impl Nft {
    /// Opens the socket, in the network namespace of this thread.
    ///
    /// # Errors
    /// [`Error::Permission`] without CAP_NET_ADMIN there; [`Error::Unsupported`] if the kernel has no
    /// nftables.
    pub fn open() -> Result<Nft, Error> {
        let options = Options { receive_buffer: Some(RECEIVE_BUFFER), ..Options::default() };
        let socket = Netlink::open(NETLINK_NETFILTER, &options).map_err(|source| {
            Error::Socket { what: "opening a netfilter netlink socket", source }
        })?;
        let mut nft = Nft { socket };
        match nft.generation() {
            Ok(_) => Ok(nft),
            Err(Error::Request { source, .. }) => Err(Error::Unsupported(source)),
            Err(error) => Err(error),
        }
    }

    /// Commits a transaction that was made for a generation of the ruleset.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the ruleset has another generation by now.
    pub fn commit_at(
        &mut self,
        transaction: &Transaction<'_>,
        generation: Option<u32>,
    ) -> Result<(), Error> {
        if transaction.is_empty() {
            return Ok(());
        }
        let before = self.generation()?;
        let batch = Batch::encode(transaction, self.socket.next_sequence(), generation)?;
        let answers = self
            .socket
            .transact(batch.bytes(), batch.next_sequence())
            .map_err(|error| Error::of_request("sending a transaction", error))?;
        self.outcome(transaction, &batch, answers, before)
    }

    fn outcome(
        &mut self,
        transaction: &Transaction<'_>,
        batch: &Batch,
        answers: Answers,
        before: u32,
    ) -> Result<(), Error> {
        let (acknowledgements, errors): (Vec<Answer>, Vec<Answer>) =
            answers.answers.into_iter().partition(|answer| answer.errno == 0);
        // Against the batch as a whole: the kernel has not looked at its messages.
        if let [only] = &errors[..] {
            if only.errno == libc::ERESTART {
                return Err(Error::Interrupted);
            }
            if only.errno == libc::EPERM && batch.subject(only.sequence, None).is_none() {
                return Err(Error::Permission);
            }
        }
        if !errors.is_empty() {
            let refusal = |answer| Refusal::of(transaction, batch, answer);
            return Err(Error::Refused(Refusals(errors.into_iter().map(refusal).collect())));
        }
        // Where the acknowledgement was lost, the generation tells.
        let last = batch.acknowledged();
        if acknowledgements.iter().any(|answer| answer.sequence == last)
            || self.generation()? == before.wrapping_add(1)
        {
            return Ok(());
        }
        Err(Error::AnswerLost)
    }

    /// Asks for one message, and gives its type and attributes to `each`. `what` is for errors.
    ///
    /// # Errors
    /// [`Error::Request`] if the kernel answers with an error.
    fn get(
        &mut self,
        what: &str,
        message_type: u16,
        request: impl FnOnce(&mut Writer),
        each: impl FnMut(u16, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), Error> {
        let request = encode(message_type, NLM_F_REQUEST, request)?;
        self.socket.get(request, attributes(each)).map_err(|error| Error::of_request(what, error))
    }

    /// Asks for all there is of a kind, and gives the type and attributes of each message to `each`. `what` is for
    /// errors.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the ruleset changed while it was dumped.
    fn dump(
        &mut self,
        what: &str,
        message_type: u16,
        request: impl FnOnce(&mut Writer),
        each: impl FnMut(u16, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), Error> {
        let request = encode(message_type, NLM_F_REQUEST | NLM_F_DUMP, request)?;
        match self.socket.dump(request, attributes(each)) {
            Ok(Dumped::Complete) => Ok(()),
            Ok(Dumped::Interrupted) => Err(Error::Interrupted),
            Err(error) => Err(Error::of_request(what, error)),
        }
    }
}

impl Kernel for Nft {
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        transaction.stages().iter().try_for_each(|stage| self.commit_at(stage, None))
    }

    fn snapshot(&mut self, table: &str) -> Result<Option<Snapshot>, Error> {
        self.consistent(|nft| nft.read_table(table, true))
    }

    fn declarations(&mut self, table: &str) -> Result<Option<Snapshot>, Error> {
        self.consistent(|nft| nft.read_table(table, false))
    }

    fn has_table(&mut self, table: &str) -> Result<bool, Error> {
        Ok(self.read_table_flags(table)?.is_some())
    }

    fn elements(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value)>, Error> {
        self.consistent(|nft| nft.read_elements(table, set))
    }

    fn expiring(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value, Lifetime)>, Error> {
        self.read_expiring(table, set)
    }

    fn generation(&mut self) -> Result<u32, Error> {
        let mut generation = 0;
        self.get(
            "reading the generation of the ruleset",
            message::GET_GENERATION,
            |_| {},
            |message_type, attributes| {
                let id =
                    walk::attributes(attributes).find(|(kind, _)| *kind == numbers::GENERATION_ID);
                if let (message::NEW_GENERATION, Some((_, value))) = (message_type, id) {
                    generation = walk::number(value)?;
                }
                Ok(())
            },
        )?;
        Ok(generation)
    }
}

/// A request about objects of family inet; the socket numbers it.
fn encode(
    message_type: u16,
    flags: u16,
    attributes: impl FnOnce(&mut Writer),
) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::default();
    let start = writer.open_message(message_type, flags, 0, INET, 0);
    attributes(&mut writer);
    writer.close_message(start);
    writer.finish().map_err(|error| Error::Socket {
        what: "encoding a request",
        source: io::Error::new(io::ErrorKind::InvalidInput, error),
    })
}

/// Takes the netfilter header off a message.
fn attributes(
    mut each: impl FnMut(u16, &[u8]) -> Result<(), DecodeError>,
) -> impl FnMut(&Message<'_>) -> Result<(), DecodeError> {
    move |message| {
        each(message.message_type, message.payload.get(NETFILTER_HEADER..).unwrap_or_default())
    }
}
