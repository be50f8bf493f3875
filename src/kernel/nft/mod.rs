//! The nftables of the kernel: transactions in, snapshots out.

mod error;
mod events;
mod lookup;
mod owner;
mod packets;
mod probe;
mod read;

#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing {
    //! The way in for fuzzing.

    use super::{Message, events};

    /// Reads messages as events of a table.
    pub fn read<'a>(messages: impl Iterator<Item = Message<'a>>) {
        let mut events = events::Events::new("kube-proxy", 1);
        messages.for_each(|message| drop(events.take(&message)));
    }
}

pub use error::{Cause, Error, Fault, Refusal, Refusals};
pub use events::{Process, TableWatch, Touched};
pub use owner::describe_owner;

use crate::kernel::netlink::{Answer, Answers, Dumped, Message, Netlink, Options};
use netlink_packet_core::{DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nft_table::netlink::numbers::{self, INET, message};
use nft_table::netlink::{Batch, Writer, walk};
use nft_table::{Count, Key, Lifetime, Set, Snapshot, Transaction, Value};
use std::io;

/// Room for the errors of a transaction, in bytes.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Elements in a transaction from which on a listener would hold it up, and others with it.
const BULK: usize = 2048;

/// Bytes of the netfilter header at the beginning of a payload.
const NETFILTER_HEADER: usize = 4;

/// What the rest of the program needs of nftables: the seam between it and the kernel.
pub trait Kernel {
    /// Has the kernel take a transaction: all of it, or nothing in case of an error, but for a part
    /// that nothing leads to ([`Transaction::stages`]).
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<(), Error>;

    /// Whether the kernel would take a transaction; nothing of it is ever committed.
    ///
    /// # Errors
    /// What the kernel has against it.
    fn trial(&mut self, transaction: &Transaction<'_>) -> Result<(), Error>;

    /// What the kernel has of a table; None if it has no such table. Elements may be missing, or be gone.
    fn snapshot(&mut self, table: &str) -> Result<Option<Snapshot>, Error>;

    /// The same without elements, which takes no time however many there are.
    fn declarations(&mut self, table: &str) -> Result<Option<Snapshot>, Error>;

    /// Which table of this name there is in family inet, if any.
    fn table(&mut self, table: &str) -> Result<Option<TableInfo>, Error>;

    /// The number of the socket that transactions are sent with: the owner of tables that it owns.
    fn port(&self) -> u32;

    /// What a set that is not one of ranges has under some keys, in their order. Exact, whatever else changes.
    fn lookup(
        &mut self,
        table: &str,
        set: &Set,
        keys: &[&Key],
    ) -> Result<Vec<Option<Value>>, Error>;

    /// The same with what each has counted, in a set with `counter`.
    fn counts(
        &mut self,
        table: &str,
        set: &Set,
        keys: &[&Key],
    ) -> Result<Vec<Option<(Value, Count)>>, Error>;

    /// Whether a set has an element that stands for all keys (`*` in nft), which has no key of its own.
    fn has_catch_all(&mut self, table: &str, set: &Set) -> Result<bool, Error>;

    /// The elements of one set, also of a dynamic one. Expired ones are left out, and each is there once; while others
    /// add and delete some, or while the kernel makes room for more, some may be missing.
    fn elements(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value)>, Error>;

    /// The elements of a dynamic set with what is left of their lives. Packets change them meanwhile, so they are not
    /// of one moment and some may be missing, but none is there twice. Those that never expire are left out.
    fn expiring(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value, Lifetime)>, Error>;

    /// The generation of the ruleset: a number that grows with every change, whoever makes it.
    fn generation(&mut self) -> Result<u32, Error>;

    /// From now on says what others do to a table. Where large transactions are committed, nobody listens, and
    /// nothing is said; [`Kernel::missed_events`] tells.
    fn watch(&mut self, table: &str, on_touch: OnTouch) -> Result<(), Error>;

    /// Whether something was committed, by whomever, that a watch did not see; since the last call.
    fn missed_events(&mut self) -> bool;

    /// Whether a table can be owned and outlive its owner (Linux 6.9).
    fn supports_ownership(&mut self) -> Result<bool, Error>;

    /// Whether elements can be deleted that may not be there (Linux 6.3).
    fn supports_destroy(&mut self) -> Result<bool, Error>;
}

/// Is told what others did to a table; to be quick.
pub type OnTouch = Box<dyn FnMut(Touched) + Send>;

/// A table of family inet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableInfo {
    /// The kernel's number of the table, which no other table gets.
    pub handle: u64,
    /// It outlives its owner.
    pub persists: bool,
    /// The number of the socket that owns it.
    pub owner: Option<u32>,
    /// It was switched off.
    pub is_dormant: bool,
}

/// The nftables of the network namespace in which it was opened. One socket for its life.
#[derive(Debug)]
pub struct Nft {
    socket: Netlink,
    port: u32,
    watch: Option<TableWatch>,
    has_missed_events: bool,
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
            match source.raw_os_error() {
                Some(libc::EPROTONOSUPPORT) => Error::NoNetfilter(source),
                _ => Error::Socket { what: "opening a netfilter netlink socket", source },
            }
        })?;
        let port = socket.port();
        let mut nft = Nft { socket, port, watch: None, has_missed_events: false };
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

    /// Asks for several things in one request, and gives the type and attributes of each message to `each` until the kernel
    /// acknowledges the request. Whether all answers arrived: false if they were too many for the receive buffer.
    ///
    /// # Errors
    /// [`Error::Request`] if the kernel answers with an error, after what it had answered until then.
    fn ask(
        &mut self,
        what: &str,
        message_type: u16,
        request: impl FnOnce(&mut Writer),
        each: impl FnMut(u16, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<bool, Error> {
        let request = encode(message_type, NLM_F_REQUEST | NLM_F_ACK, request)?;
        let asked = self.socket.dump(request, attributes(each));
        asked
            .map(|dumped| dumped == Dumped::Complete)
            .map_err(|error| Error::of_request(what, error))
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
        match self.dump_roughly(what, message_type, request, each)? {
            Dumped::Complete => Ok(()),
            Dumped::Interrupted => Err(Error::Interrupted),
        }
    }

    /// The same, when it does no harm that what is dumped is not of one moment.
    fn dump_roughly(
        &mut self,
        what: &str,
        message_type: u16,
        request: impl FnOnce(&mut Writer),
        each: impl FnMut(u16, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<Dumped, Error> {
        let request = encode(message_type, NLM_F_REQUEST | NLM_F_DUMP, request)?;
        self.socket.dump(request, attributes(each)).map_err(|error| Error::of_request(what, error))
    }

    fn commit_in_stages(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        for (number, stage) in transaction.stages().iter().enumerate() {
            if number > 0 && !transaction.is_staged() {
                packets::let_pass();
            }
            self.commit_at(stage, None)?;
        }
        Ok(())
    }
}

impl Kernel for Nft {
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let is_bulk = transaction.len() > BULK;
        if is_bulk && let Some(watch) = &mut self.watch {
            let _ = watch.leave();
            self.has_missed_events = true;
        }
        let result = self.commit_in_stages(transaction);
        if is_bulk && let Some(watch) = &mut self.watch {
            let _ = watch.join();
        }
        result
    }

    fn snapshot(&mut self, table: &str) -> Result<Option<Snapshot>, Error> {
        self.read_table(table)
    }

    fn declarations(&mut self, table: &str) -> Result<Option<Snapshot>, Error> {
        self.read_declarations(table)
    }

    fn watch(&mut self, table: &str, on_touch: OnTouch) -> Result<(), Error> {
        let mut watch = TableWatch::start(table, self.port, on_touch)?;
        watch.join()?;
        self.watch = Some(watch);
        self.has_missed_events = true;
        Ok(())
    }

    fn missed_events(&mut self) -> bool {
        std::mem::take(&mut self.has_missed_events)
    }

    fn supports_ownership(&mut self) -> Result<bool, Error> {
        self.probe_ownership()
    }

    fn supports_destroy(&mut self) -> Result<bool, Error> {
        self.probe_destroy()
    }

    fn trial(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        self.try_out(transaction)
    }

    fn table(&mut self, table: &str) -> Result<Option<TableInfo>, Error> {
        self.read_table_info(table)
    }

    fn port(&self) -> u32 {
        self.port
    }

    fn lookup(
        &mut self,
        table: &str,
        set: &Set,
        keys: &[&Key],
    ) -> Result<Vec<Option<Value>>, Error> {
        let found = self.look_up(table, set, keys)?;
        Ok(found.into_iter().map(|there| there.map(|(value, _)| value)).collect())
    }

    fn counts(
        &mut self,
        table: &str,
        set: &Set,
        keys: &[&Key],
    ) -> Result<Vec<Option<(Value, Count)>>, Error> {
        self.look_up(table, set, keys)
    }

    fn has_catch_all(&mut self, table: &str, set: &Set) -> Result<bool, Error> {
        self.look_up_catch_all(table, set)
    }

    fn elements(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value)>, Error> {
        self.read_elements(table, set).map(|read| read.elements)
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
