//! The netlink socket: sending, and reading everything that was answered.

use super::error::{Answer, Error};
use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nft_table::netlink::numbers::INET;
use nft_table::netlink::{Writer, walk};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::io;

/// Bytes of the header of a message.
const NETLINK_HEADER: usize = 16;
/// Bytes of the netfilter header at the beginning of a payload.
const NETFILTER_HEADER: usize = 4;
/// Dumps come in pieces of 32 KiB at most (`netlink_dump` in `net/netlink/af_netlink.c`).
const RECEIVE: usize = 128 * 1024;
/// Room for the errors of a transaction.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// Message types that every netlink family has (`linux/netlink.h`).
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A netlink socket of the netfilter family, in the network namespace of the thread that opened it.
///
/// The kernel does what it is asked inside of `sendmsg`, and makes the next piece of a dump inside of
/// `recvmsg`. So an answer is there or will never be, and nothing here waits.
#[derive(Debug)]
pub struct NetfilterSocket {
    socket: Socket,
    buffer: Vec<u8>,
    next_sequence: u32,
    send_buffer: usize,
}

/// What came back for a batch.
#[derive(Debug, Default)]
pub struct Answers {
    pub errors: Vec<Answer>,
    pub acknowledged: bool,
    /// The receive buffer was too small for all answers.
    pub overflow: bool,
}

/// One message of the kernel.
struct Received<'a> {
    message_type: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

fn socket_error(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Socket { what, source }
}

impl NetfilterSocket {
    pub fn open() -> Result<NetfilterSocket, Error> {
        let mut socket = Socket::new(NETLINK_NETFILTER)
            .map_err(socket_error("opening a netfilter netlink socket"))?;
        socket.bind_auto().map_err(socket_error("binding the netlink socket"))?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(socket_error("connecting the netlink socket to the kernel"))?;
        // Errors then carry a text and the place of the error, and not the whole failed message.
        socket.set_ext_ack(true).map_err(socket_error("asking for extended acknowledgements"))?;
        socket.set_cap_ack(true).map_err(socket_error("asking for short acknowledgements"))?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
        }
        let send_buffer = getsockopt(&socket, sockopt::SndBuf).unwrap_or(0);
        Ok(NetfilterSocket {
            socket,
            buffer: Vec::with_capacity(RECEIVE),
            next_sequence: 1,
            send_buffer,
        })
    }

    /// The sequence number to use next.
    pub fn next_sequence(&self) -> u32 {
        self.next_sequence
    }

    /// Sends a batch, whose numbers end before `next_sequence`, in one piece and reads what comes back.
    pub fn send_batch(
        &mut self,
        bytes: &[u8],
        acknowledged: u32,
        next_sequence: u32,
    ) -> Result<Answers, Error> {
        let first = self.next_sequence;
        self.next_sequence = next_sequence;
        self.enlarge_send_buffer(bytes.len());
        self.drain()?;
        match self.socket.send(bytes, 0) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                return Err(Error::TooLarge { bytes: bytes.len(), limit: self.send_buffer });
            }
            Err(source) => {
                return Err(Error::Socket { what: "sending a transaction", source });
            }
        }
        let mut answers = Answers::default();
        while let Some(received) = self.receive(&mut answers.overflow)? {
            for message in Messages(received) {
                let ours = message.sequence.wrapping_sub(first) < next_sequence.wrapping_sub(first);
                if message.message_type != NLMSG_ERROR || !ours {
                    continue;
                }
                let answer = answer(&message);
                if answer.errno != 0 {
                    answers.errors.push(answer);
                } else if answer.sequence == acknowledged {
                    answers.acknowledged = true;
                }
            }
        }
        Ok(answers)
    }

    /// Sends a request and gives the payload of each message of that type in the answer to `each`,
    /// without the netfilter header.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the ruleset changed while it was dumped, [`Error::Request`] if the kernel
    /// answers with an error.
    pub fn request(
        &mut self,
        what: &str,
        message_type: u16,
        dump: bool,
        attributes: impl FnOnce(&mut Writer),
        mut each: impl FnMut(u16, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        let mut writer = Writer::default();
        let flags = if dump { NLM_F_REQUEST | NLM_F_DUMP } else { NLM_F_REQUEST };
        let start = writer.open_message(message_type, flags, sequence, INET, 0);
        attributes(&mut writer);
        writer.close_message(start);
        self.drain()?;
        self.socket.send(&writer.0, 0).map_err(socket_error("sending a request"))?;
        let mut interrupted = false;
        let mut overflow = false;
        while let Some(received) = self.receive(&mut overflow)? {
            for message in Messages(received) {
                if message.sequence != sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                let errno = match message.message_type {
                    NLMSG_ERROR => answer(&message).errno,
                    NLMSG_DONE => -code(message.payload),
                    kind => {
                        each(kind, message.payload.get(NETFILTER_HEADER..).unwrap_or_default())?;
                        if !dump {
                            return Ok(());
                        }
                        continue;
                    }
                };
                return match errno {
                    0 if interrupted || overflow => Err(Error::Interrupted),
                    0 => Ok(()),
                    libc::EINTR => Err(Error::Interrupted),
                    libc::EPERM => Err(Error::Permission),
                    errno => Err(Error::Request {
                        request: what.to_owned(),
                        source: io::Error::from_raw_os_error(errno),
                    }),
                };
            }
        }
        Err(Error::Request {
            request: what.to_owned(),
            source: io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel's answer has no end"),
        })
    }

    /// Throws away what is left of earlier answers.
    fn drain(&mut self) -> Result<(), Error> {
        let mut overflow = false;
        while self.receive(&mut overflow)?.is_some() {}
        Ok(())
    }

    /// One datagram, or None if there is nothing more to read.
    fn receive(&mut self, overflow: &mut bool) -> Result<Option<&[u8]>, Error> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => return Ok(Some(&self.buffer)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(None),
                    Some(libc::EINTR) => {}
                    Some(libc::ENOBUFS) => *overflow = true,
                    _ => return Err(Error::Socket { what: "receiving", source: error }),
                },
            }
        }
    }

    /// Makes the send buffer large enough, as far as the kernel allows.
    fn enlarge_send_buffer(&mut self, bytes: usize) {
        // The kernel keeps some of the buffer for itself.
        let wanted = bytes + 4096;
        if self.send_buffer >= wanted {
            return;
        }
        if setsockopt(&self.socket, sockopt::SndBufForce, &wanted).is_err() {
            let _ = setsockopt(&self.socket, sockopt::SndBuf, &wanted);
        }
        self.send_buffer = getsockopt(&self.socket, sockopt::SndBuf).unwrap_or(wanted);
    }
}

/// The messages of a datagram.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Received<'a>> {
        let header = NetlinkBuffer::new_checked(self.0).ok()?;
        let len = header.length() as usize;
        let received = Received {
            message_type: header.message_type(),
            flags: header.flags(),
            sequence: header.sequence_number(),
            payload: &self.0[NETLINK_HEADER..len],
        };
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(received)
    }
}

/// The errno, below zero, at the beginning of an error or done message.
fn code(payload: &[u8]) -> i32 {
    payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

/// Reads an error message: code, header of the request, the request unless it was left out, attributes.
fn answer(message: &Received<'_>) -> Answer {
    /// `enum nlmsgerr_attrs` of `linux/netlink.h`
    const MESSAGE: u16 = 1;
    const OFFSET: u16 = 2;
    let mut answer = Answer {
        sequence: message.sequence,
        errno: -code(message.payload),
        message: String::new(),
        offset: None,
    };
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return answer;
    }
    let mut start = 4 + NETLINK_HEADER;
    if message.flags & NLM_F_CAPPED == 0 {
        let request = message.payload.get(4..8).and_then(|bytes| bytes.first_chunk());
        start = 4 + request.map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize);
    }
    for (kind, value) in walk::attributes(message.payload.get(start..).unwrap_or_default()) {
        match kind {
            MESSAGE => walk::string(value).clone_into(&mut answer.message),
            OFFSET => {
                answer.offset =
                    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes) as usize);
            }
            _ => {}
        }
    }
    answer
}
