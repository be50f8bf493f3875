//! The messages of a datagram, and what the kernel says in them about a request.

use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use nft_table::netlink::walk;
use std::fmt;
use std::io;

/// Bytes of the header of a message.
pub const HEADER: usize = 16;

/// Where the attributes of an answer begin after its code: of `struct nlmsgerr` a header comes first.
const CODE: usize = 4;

/// A request, padded so that another can follow. It has number 0 until it is sent.
pub fn request<M: NetlinkSerializable>(message: M, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

/// A message of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub message_type: u16,
    pub flags: u16,
    pub sequence: u32,
    /// The socket that an answer is for, or that did what an event is about.
    pub port: u32,
    pub payload: &'a [u8],
}

/// What the kernel says about a request: it is done, or why it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub sequence: u32,
    /// A positive errno; 0 for an acknowledgement, and at the end of a dump.
    pub errno: i32,
    /// What the kernel says beside the errno (extended ACK); mostly empty.
    pub message: String,
    /// Where in the request the attribute at fault begins.
    pub offset: Option<usize>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl<'a> Message<'a> {
    /// The answer, if this is one: `NLMSG_ERROR`, which also acknowledges, or `NLMSG_DONE`.
    pub fn answer(&self) -> Option<Answer> {
        /// `enum nlmsgerr_attrs` of `linux/netlink.h`
        const MESSAGE: u16 = 1;
        const OFFSET: u16 = 2;
        if !matches!(self.message_type, NLMSG_ERROR | NLMSG_DONE) {
            return None;
        }
        let code = self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        let mut answer = Answer {
            sequence: self.sequence,
            errno: code.saturating_neg(),
            message: String::new(),
            offset: None,
        };
        for (kind, value) in walk::attributes(self.attributes()) {
            match kind {
                MESSAGE => walk::string(value).clone_into(&mut answer.message),
                OFFSET => {
                    answer.offset =
                        value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes) as usize);
                }
                _ => {}
            }
        }
        Some(answer)
    }

    /// The attributes of an answer. At the end of a dump they follow the code (`netlink_dump_done`); of
    /// an error the header of the request is in between, with all of the request unless it is capped
    /// (`netlink_ack`).
    fn attributes(&self) -> &'a [u8] {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return &[];
        }
        let request = self.payload.get(CODE..).and_then(|request| request.first_chunk());
        let start = match (self.message_type, request) {
            (NLMSG_DONE, _) | (_, None) => CODE,
            _ if self.flags & NLM_F_CAPPED != 0 => CODE + HEADER,
            (_, Some(length)) => CODE + u32::from_ne_bytes(*length) as usize,
        };
        self.payload.get(start..).unwrap_or_default()
    }
}

/// The messages of a datagram, up to the first that is cut off.
#[derive(Debug)]
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub fn of(datagram: &'a [u8]) -> Messages<'a> {
        Messages(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let message = NetlinkBuffer::new_checked(self.0).ok()?;
        let length = (message.length() as usize).next_multiple_of(4);
        self.0 = self.0.get(length..).unwrap_or_default();
        Some(Message {
            message_type: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            port: message.port_number(),
            payload: message.payload(),
        })
    }
}
