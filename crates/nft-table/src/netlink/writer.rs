//! Writes netlink messages and attributes straight into one growing buffer.

use crate::ShapeError;
use netlink_packet_core::{Emitable, NLA_F_NESTED, NLA_HEADER_SIZE, NetlinkHeader};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterProtoFamily};

/// A buffer of messages. An attribute that is longer than 64 KiB spoils it, as does the end of one that was begun in
/// another buffer: [`Writer::finish`] says so.
#[derive(Debug, Default)]
pub struct Writer {
    pub(super) bytes: Vec<u8>,
    pub(super) is_spoilt: bool,
}

/// Where a nested attribute that is being written begins.
#[derive(Debug)]
#[must_use]
pub struct Open(usize);

/// Where a message that is being written begins.
#[derive(Debug)]
#[must_use]
pub struct OpenMessage(pub(super) usize);

impl Writer {
    /// A buffer with room for so many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(bytes), is_spoilt: false }
    }

    /// The messages and attributes that were written.
    ///
    /// # Errors
    /// [`ShapeError::TooLong`] if an attribute is longer than its length can say.
    pub fn finish(self) -> Result<Vec<u8>, ShapeError> {
        if self.is_spoilt { Err(ShapeError::TooLong) } else { Ok(self.bytes) }
    }

    /// Writes an attribute with its padding.
    #[inline]
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.header(kind, NLA_HEADER_SIZE + value.len());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Writes an attribute with just one attribute in it, as keys and data of elements are.
    #[inline]
    pub(super) fn nested(&mut self, outer: u16, inner: u16, value: &[u8]) {
        let len = NLA_HEADER_SIZE + value.len();
        let outer_len = self.attribute_len(NLA_HEADER_SIZE + len.next_multiple_of(4));
        let inner_len = self.attribute_len(len);
        let ([a, b], [c, d]) = (outer_len.to_ne_bytes(), (outer | NLA_F_NESTED).to_ne_bytes());
        let ([e, f], [g, h]) = (inner_len.to_ne_bytes(), inner.to_ne_bytes());
        self.bytes.extend_from_slice(&[a, b, c, d, e, f, g, h]);
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Writes a string that ends with NUL.
    pub fn string(&mut self, kind: u16, value: &str) {
        self.header(kind, NLA_HEADER_SIZE + value.len() + 1);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// Writes a number in network order.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Begins a nested attribute.
    #[inline]
    pub fn open(&mut self, kind: u16) -> Open {
        let open = Open(self.bytes.len());
        self.header(kind | NLA_F_NESTED, 0);
        open
    }

    /// Ends a nested attribute: it holds what was written since.
    #[inline]
    pub fn close(&mut self, Open(start): Open) {
        let len = self.attribute_len(self.bytes.len().saturating_sub(start));
        self.put(start, len.to_ne_bytes());
    }

    /// Bytes of a nested attribute so far.
    pub(super) fn len_of(&self, open: &Open) -> usize {
        self.bytes.len() - open.0
    }

    /// Writes something that knows its length.
    pub(super) fn emit(&mut self, what: &impl Emitable) {
        let start = self.bytes.len();
        self.bytes.resize(start + what.buffer_len(), 0);
        what.emit(&mut self.bytes[start..]);
    }

    /// Begins a message.
    pub fn open_message(
        &mut self,
        message_type: u16,
        flags: u16,
        sequence: u32,
        family: u8,
        resource: u16,
    ) -> OpenMessage {
        let start = self.bytes.len();
        let mut header = NetlinkHeader::default();
        header.message_type = message_type;
        header.flags = flags;
        header.sequence_number = sequence;
        self.emit(&header);
        self.emit(&NetfilterHeader::new(NetfilterProtoFamily::from(family), 0, resource));
        OpenMessage(start)
    }

    /// Ends a message: it holds what was written since.
    pub fn close_message(&mut self, OpenMessage(start): OpenMessage) {
        let len = self.bytes.len().saturating_sub(start) as u32;
        self.put(start, len.to_ne_bytes());
    }

    /// Puts a length where it belongs.
    #[inline]
    fn put<const N: usize>(&mut self, start: usize, len: [u8; N]) {
        match self.bytes.get_mut(start..start + N) {
            Some(there) => there.copy_from_slice(&len),
            None => self.is_spoilt = true,
        }
    }

    #[inline]
    fn attribute_len(&mut self, len: usize) -> u16 {
        u16::try_from(len).unwrap_or_else(|_| {
            self.is_spoilt = true;
            u16::MAX
        })
    }

    #[inline]
    fn header(&mut self, kind: u16, len: usize) {
        let len = self.attribute_len(len);
        let ([a, b], [c, d]) = (len.to_ne_bytes(), kind.to_ne_bytes());
        self.bytes.extend_from_slice(&[a, b, c, d]);
    }

    #[inline]
    fn pad(&mut self) {
        let len = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 3][..len.next_multiple_of(4) - len]);
    }
}
