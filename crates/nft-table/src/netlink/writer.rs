//! Writes netlink messages and attributes straight into one growing buffer.

use netlink_packet_core::{Emitable, NLA_F_NESTED, NLA_HEADER_SIZE, NetlinkHeader};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterProtoFamily};

/// A buffer of messages.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

/// Where a nested attribute that is being written begins.
#[derive(Debug)]
#[must_use]
pub struct Open(usize);

impl Writer {
    /// Writes an attribute with its padding.
    #[inline]
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.header(kind, NLA_HEADER_SIZE + value.len());
        self.0.extend_from_slice(value);
        self.pad();
    }

    /// Writes a string that ends with NUL.
    pub fn string(&mut self, kind: u16, value: &str) {
        self.header(kind, NLA_HEADER_SIZE + value.len() + 1);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self.pad();
    }

    /// Writes a number in network order.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Begins a nested attribute.
    #[inline]
    pub fn open(&mut self, kind: u16) -> Open {
        let open = Open(self.0.len());
        self.header(kind | NLA_F_NESTED, 0);
        open
    }

    /// Ends a nested attribute: it holds what was written since.
    #[inline]
    pub fn close(&mut self, Open(start): Open) {
        let len = u16::try_from(self.0.len() - start).expect("an attribute is below 64 KiB");
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    /// Bytes of a nested attribute so far.
    pub fn len_of(&self, open: &Open) -> usize {
        self.0.len() - open.0
    }

    /// Writes something that knows its length.
    pub fn emit(&mut self, what: &impl Emitable) {
        let start = self.0.len();
        self.0.resize(start + what.buffer_len(), 0);
        what.emit(&mut self.0[start..]);
    }

    /// Begins a message. Returns where it begins.
    pub fn open_message(
        &mut self,
        message_type: u16,
        flags: u16,
        sequence: u32,
        family: u8,
        resource: u16,
    ) -> usize {
        let start = self.0.len();
        let mut header = NetlinkHeader::default();
        header.message_type = message_type;
        header.flags = flags;
        header.sequence_number = sequence;
        self.emit(&header);
        self.emit(&NetfilterHeader::new(NetfilterProtoFamily::from(family), 0, resource));
        start
    }

    /// Ends the message that begins at `start`.
    pub fn close_message(&mut self, start: usize) {
        let len = (self.0.len() - start) as u32;
        self.0[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    #[inline]
    fn header(&mut self, kind: u16, len: usize) {
        let len = u16::try_from(len).expect("an attribute is below 64 KiB");
        let ([a, b], [c, d]) = (len.to_ne_bytes(), kind.to_ne_bytes());
        self.0.extend_from_slice(&[a, b, c, d]);
    }

    #[inline]
    fn pad(&mut self) {
        let len = self.0.len();
        self.0.extend_from_slice(&[0; 3][..len.next_multiple_of(4) - len]);
    }
}
