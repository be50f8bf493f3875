//! The netlink messages of a received datagram.

use netlink_packet_core::NetlinkBuffer;

/// The messages, up to the first that is cut off.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let length = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
        Some(message)
    })
}

/// The errno in the payload of NLMSG_ERROR or NLMSG_DONE, positive; 0 for success.
pub(super) fn error_code(payload: &[u8]) -> i32 {
    payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes).abs())
}
