//! The one way to talk netlink: a socket, what comes back for a transaction, and one dump loop.
//!
//! ```text
//! nft, conntrack, leftovers, addresses  --requests-->  Netlink  --Transport-->  kernel
//! ```
//!
//! **Nothing here waits.** The kernel does what it is asked inside `sendmsg` (`netlink_rcv_skb`) and
//! makes the next piece of a dump inside `recvmsg` (`netlink_recvmsg` calls `netlink_dump`), both in
//! `net/netlink/af_netlink.c`. So an answer is there, or will never be. Whoever wants events polls the socket.
//!
//! **EINTR** has two meanings. From `recvmsg` it means a signal: the call is repeated here, and nobody hears
//! of it. (`sendmsg` to the kernel sleeps only where no signal wakes it.) In an answer it says, as
//! `NLM_F_DUMP_INTR` on any message of a dump does (`nl_dump_check_consistent` in
//! `include/net/netlink.h`), that what was dumped changed meanwhile: [`Dumped::Interrupted`].
//!
//! **ENOBUFS** from `recvmsg` says that messages are lost because the receive buffer was full
//! (`netlink_overrun`), or that there was no memory for the next piece of a dump. The socket goes on
//! working. A dump is then interrupted as well; a transaction has [`Answers::overflow`], for it is done or
//! refused all the same; of events it has to be assumed that they were about everything.
//!
//! **An interrupted dump** is what [`retry`] is for: begun anew a few times. What then counts differs:
//! nft and addresses want a state that was there at one moment, and fail; conntrack takes what there is,
//! since every entry that was dumped is real; leftovers lists everything anew.

mod error;
mod message;
mod socket;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use message::{Answer, HEADER, Message, Messages, request};
pub use socket::{KernelSocket, Options, Transport};

use netlink_packet_core::{DecodeError, NLM_F_DUMP_INTR, NetlinkBuffer};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

/// Dumps come in pieces of 32 KiB at most (`netlink_recvmsg` sees to it), errors and events are shorter.
const RECEIVE: usize = 128 * 1024;

/// Types below are of netlink itself (`NLMSG_MIN_TYPE` of `linux/netlink.h`).
const MIN_TYPE: u16 = 0x10;

/// A netlink socket with its sequence numbers and its buffer.
#[derive(Debug)]
pub struct Netlink<T = KernelSocket> {
    transport: T,
    buffer: Vec<u8>,
    next_sequence: u32,
}

/// One look at the socket.
#[derive(Debug)]
pub enum Received<'a> {
    Messages(Messages<'a>),
    /// Messages were lost; there may be more to read.
    Overflow,
    /// There is nothing to read.
    Nothing,
}

/// What came back for a transaction.
#[derive(Debug, Default)]
pub struct Answers {
    /// Errors, and acknowledgements where they were asked for, in the kernel's order.
    pub answers: Vec<Answer>,
    /// The receive buffer was too small for all answers.
    pub overflow: bool,
}

/// How a dump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Dumped {
    /// It is what was there at one moment.
    Complete,
    /// Something changed meanwhile: it may lack some things and have others twice.
    Interrupted,
}

impl Netlink {
    /// Opens a socket of a netlink family, in the network namespace of the calling thread.
    pub fn open(protocol: isize, options: &Options<'_>) -> io::Result<Netlink> {
        Ok(Netlink::over(KernelSocket::open(protocol, options)?))
    }
}

impl Netlink {
    /// The number that the kernel knows the socket by (`nl_pid`).
    pub fn port(&self) -> u32 {
        self.transport.port()
    }

    /// Joins a multicast group, or leaves it.
    pub fn set_member(&mut self, group: u32, is_member: bool) -> io::Result<()> {
        self.transport.set_member(group, is_member)
    }
}

impl<T: Transport> Netlink<T> {
    pub(in crate::kernel) fn over(transport: T) -> Netlink<T> {
        Netlink { transport, buffer: Vec::with_capacity(RECEIVE), next_sequence: 1 }
    }

    /// The number that the first message of the next transaction has to have.
    pub fn next_sequence(&self) -> u32 {
        self.next_sequence
    }

    /// Sends the messages of a transaction, which are numbered from [`Netlink::next_sequence`] up to
    /// `end`, in one piece, and reads what comes back.
    pub fn transact(&mut self, messages: &[u8], end: u32) -> Result<Answers, Error> {
        let first = self.next_sequence;
        self.next_sequence = end;
        self.drain()?;
        self.transport.send(messages)?;
        let mut answers = Answers::default();
        loop {
            match self.receive()? {
                Received::Messages(messages) => {
                    let ours = messages.filter(|message| {
                        message.sequence.wrapping_sub(first) < end.wrapping_sub(first)
                    });
                    answers.answers.extend(ours.filter_map(|message| message.answer()));
                }
                Received::Overflow => answers.overflow = true,
                Received::Nothing => return Ok(answers),
            }
        }
    }

    /// Sends a request that is answered by one message, and gives it to `each`. The request is numbered
    /// here.
    pub fn get(
        &mut self,
        request: Vec<u8>,
        mut each: impl FnMut(&Message<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), Error> {
        match self.ask(request, |message| each(message).map(ControlFlow::Break))? {
            Dumped::Complete => Ok(()),
            Dumped::Interrupted => Err(Error::Interrupted { attempts: 1 }),
        }
    }

    /// Sends a request with `NLM_F_DUMP`, and gives all messages of the answer to `each`. The request is
    /// numbered here.
    pub fn dump(
        &mut self,
        request: Vec<u8>,
        mut each: impl FnMut(&Message<'_>) -> Result<(), DecodeError>,
    ) -> Result<Dumped, Error> {
        self.ask(request, |message| each(message).map(ControlFlow::Continue))
    }

    /// The loop: until the kernel says that it was all, or `each` that it has seen enough.
    fn ask(
        &mut self,
        mut request: Vec<u8>,
        mut each: impl FnMut(&Message<'_>) -> Result<ControlFlow<()>, DecodeError>,
    ) -> Result<Dumped, Error> {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        NetlinkBuffer::new(&mut request).set_sequence_number(sequence);
        self.drain()?;
        self.transport.send(&request)?;
        let mut dumped = Dumped::Complete;
        loop {
            let messages = match self.receive()? {
                Received::Messages(messages) => messages,
                Received::Overflow => {
                    dumped = Dumped::Interrupted;
                    continue;
                }
                Received::Nothing => return Err(Error::NoEnd),
            };
            for message in messages.filter(|message| message.sequence == sequence) {
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    dumped = Dumped::Interrupted;
                }
                match message.answer() {
                    Some(Answer { errno: 0, .. }) => return Ok(dumped),
                    Some(Answer { errno: libc::EINTR, .. }) => return Ok(Dumped::Interrupted),
                    Some(answer) => return Err(Error::Kernel(answer)),
                    None if message.message_type < MIN_TYPE => {}
                    None if each(&message)?.is_break() => return Ok(Dumped::Complete),
                    None => {}
                }
            }
        }
    }

    /// One datagram, if there is one.
    pub fn receive(&mut self) -> Result<Received<'_>, Error> {
        loop {
            self.buffer.clear();
            match self.transport.receive(&mut self.buffer) {
                Ok(()) => return Ok(Received::Messages(Messages::of(&self.buffer))),
                Err(source) => match source.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(Received::Nothing),
                    Some(libc::EINTR) => {}
                    Some(libc::ENOBUFS) => return Ok(Received::Overflow),
                    _ => return Err(Error::Socket { what: "receiving over netlink", source }),
                },
            }
        }
    }

    /// Throws away what is left of earlier answers: a dump that was given up goes on until it is read to
    /// its end, and keeps the kernel from beginning another (EBUSY of `__netlink_dump_start`).
    fn drain(&mut self) -> Result<(), Error> {
        while !matches!(self.receive()?, Received::Nothing) {}
        Ok(())
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

/// Makes attempts until one gives something, at most so many. None, of an attempt and of all of them:
/// something changed meanwhile.
pub fn retry<T, E>(
    attempts: usize,
    mut attempt: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    for _ in 0..attempts {
        if let Some(result) = attempt()? {
            return Ok(Some(result));
        }
    }
    Ok(None)
}
