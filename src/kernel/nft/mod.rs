//! The nftables of the kernel: transactions in, snapshots out.

mod error;
mod probe;
mod read;
mod socket;

pub use error::{Cause, Error, Refusal, Refusals};

use error::Answer;
use nft_table::netlink::numbers::{self, message};
use nft_table::netlink::{Batch, walk};
use nft_table::{Key, Set, Snapshot, Transaction, Value};
use socket::{Answers, NetfilterSocket};

/// What the rest of the program needs of nftables: the seam between it and the kernel.
pub trait Kernel {
    /// Has the kernel take a transaction: all of it, or nothing in case of an error. Of a new table an
    /// error may leave a part, which leads nowhere ([`Transaction::stages`]).
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<(), Error>;

    /// What the kernel has of a table; None if it has no such table.
    fn snapshot(&mut self, table: &str) -> Result<Option<Snapshot>, Error>;

    /// Whether there is a table of this name in family inet.
    fn has_table(&mut self, table: &str) -> Result<bool, Error>;

    /// The elements of one set, also of a dynamic one. Expired ones are left out.
    fn elements(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value)>, Error>;

    /// The generation of the ruleset: a number that grows with every change, whoever makes it.
    fn generation(&mut self) -> Result<u32, Error>;
}

/// The nftables of the network namespace in which it was opened. One socket for its life.
#[derive(Debug)]
pub struct Nft {
    socket: NetfilterSocket,
}

impl Nft {
    /// Opens the socket, in the network namespace of this thread.
    ///
    /// # Errors
    /// [`Error::Permission`] without CAP_NET_ADMIN there; [`Error::Unsupported`] if the kernel has no
    /// nftables.
    pub fn open() -> Result<Nft, Error> {
        let mut nft = Nft { socket: NetfilterSocket::open()? };
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
        let batch = Batch::encode(transaction, self.socket.next_sequence(), generation);
        let answers =
            self.socket.send_batch(batch.bytes(), batch.acknowledged(), batch.next_sequence())?;
        self.outcome(transaction, &batch, answers, before)
    }

    fn outcome(
        &mut self,
        transaction: &Transaction<'_>,
        batch: &Batch,
        answers: Answers,
        before: u32,
    ) -> Result<(), Error> {
        // Against the batch as a whole: the kernel has not looked at its messages.
        let whole = |answer: &Answer, errno| answer.errno == errno && answers.errors.len() == 1;
        if let [only] = &answers.errors[..] {
            if whole(only, libc::ERESTART) {
                return Err(Error::Interrupted);
            }
            if whole(only, libc::EPERM) && batch.place(only.sequence, None).is_none() {
                return Err(Error::Permission);
            }
        }
        if !answers.errors.is_empty() {
            let refusal = |answer| Refusal::of(transaction, batch, answer);
            return Err(Error::Refused(Refusals(
                answers.errors.into_iter().map(refusal).collect(),
            )));
        }
        // Without an acknowledgement the generation tells.
        if answers.acknowledged || self.generation()? == before.wrapping_add(1) {
            return Ok(());
        }
        Err(Error::AnswerLost)
    }
}

impl Kernel for Nft {
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        transaction.stages().iter().try_for_each(|stage| self.commit_at(stage, None))
    }

    fn snapshot(&mut self, table: &str) -> Result<Option<Snapshot>, Error> {
        self.consistent(|nft| nft.read_table(table))
    }

    fn has_table(&mut self, table: &str) -> Result<bool, Error> {
        Ok(self.read_table_flags(table)?.is_some())
    }

    fn elements(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value)>, Error> {
        self.consistent(|nft| nft.read_elements(table, set))
    }

    fn generation(&mut self) -> Result<u32, Error> {
        let mut generation = 0;
        self.socket.request(
            "reading the generation of the ruleset",
            message::GET_GENERATION,
            false,
            |_| {},
            |kind, payload| {
                let id =
                    walk::attributes(payload).find(|(kind, _)| *kind == numbers::GENERATION_ID);
                if let (message::NEW_GENERATION, Some((_, value))) = (kind, id) {
                    generation = walk::number(value)?;
                }
                Ok(())
            },
        )?;
        Ok(generation)
    }
}
