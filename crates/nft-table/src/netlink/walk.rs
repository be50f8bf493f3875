//! Walks over attributes without copying them.

use netlink_packet_core::{DecodeError, NLA_HEADER_SIZE, NlasIterator};

/// The attributes in a buffer: kind and value. After an error there is no more.
pub fn walk(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), DecodeError>> {
    NlasIterator::new(bytes).map(|attribute| {
        let attribute = attribute?;
        let (kind, len) = (attribute.kind(), usize::from(attribute.length()));
        Ok((kind, &attribute.into_inner()[NLA_HEADER_SIZE..len]))
    })
}

/// The attributes in a buffer, up to the first that is malformed.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    walk(bytes).map_while(Result::ok)
}

/// A string without the NUL at its end; empty if it is not UTF-8.
pub fn string(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).unwrap_or_default()
}

/// A 32-bit number in network order.
///
/// # Errors
/// If there are not four bytes.
pub fn number(bytes: &[u8]) -> Result<u32, DecodeError> {
    netlink_packet_core::parse_u32_be(bytes)
}
