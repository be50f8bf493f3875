//! What an error of the kernel is about: from a message of a batch and an offset in it to an operation and an
//! element.

use super::numbers::{element, message, rule};
use super::walk::{attributes, string};
use netlink_packet_core::{NLA_HEADER_SIZE, NetlinkBuffer};

/// Bytes of the netlink and the netfilter header before the attributes of a message.
const HEADERS: usize = 20;

/// What an error of the kernel is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Index of the operation in the transaction.
    pub operation: usize,
    /// Index of the element in the operation, if the error is about one.
    pub element: Option<usize>,
    /// The kernel's name of the expression in the rule, if the error is about one.
    pub expression: Option<String>,
}

/// A message of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Where it begins in the batch.
    pub start: usize,
    /// Index of the operation that it belongs to.
    pub operation: usize,
    /// Index in the operation of the first element that it carries.
    pub first_element: usize,
}

impl Message {
    /// What the attribute at an offset is about. `batch` holds the message.
    pub fn subject(&self, batch: &[u8], offset: Option<usize>) -> Subject {
        let mut subject = Subject { operation: self.operation, element: None, expression: None };
        let bytes = batch.get(self.start..).unwrap_or_default();
        let Ok(header) = NetlinkBuffer::new_checked(bytes) else { return subject };
        let bytes = &bytes[..header.length() as usize];
        let list = match header.message_type() {
            message::NEW_ELEMENTS | message::DELETE_ELEMENTS => element::ELEMENTS,
            message::NEW_RULE => rule::EXPRESSIONS,
            _ => return subject,
        };
        let offset = offset.and_then(|offset| self.offset_in(bytes, offset));
        let Some((position, entry)) = offset.and_then(|offset| entry_at(bytes, list, offset))
        else {
            return subject;
        };
        if list == rule::EXPRESSIONS {
            subject.expression = attributes(entry)
                .find(|(kind, _)| *kind == rule::EXPRESSION_NAME)
                .map(|(_, name)| string(name).to_owned());
        } else {
            subject.element = Some(self.first_element + element_index(bytes, position));
        }
        subject
    }

    /// Offsets count from the beginning of the message; in older kernels from the beginning of the batch.
    fn offset_in(&self, bytes: &[u8], offset: usize) -> Option<usize> {
        let candidates = [Some(offset), offset.checked_sub(self.start)];
        candidates.into_iter().flatten().find(|offset| (HEADERS..bytes.len()).contains(offset))
    }
}

/// The entry of a list that covers an offset: its position and its attributes.
fn entry_at(message: &[u8], list: u16, offset: usize) -> Option<(usize, &[u8])> {
    let offset_of = |part: &[u8]| part.as_ptr() as usize - message.as_ptr() as usize;
    let (_, entries) = attributes(&message[HEADERS..]).find(|(kind, _)| *kind == list)?;
    attributes(entries).map(|(_, entry)| entry).enumerate().find(|(_, entry)| {
        let start = offset_of(entry);
        (start - NLA_HEADER_SIZE..start + entry.len()).contains(&offset)
    })
}

/// The elements of the operation before the entry at a position. In plain intervals an element is a start
/// and an end, and there may be an end before the first start.
fn element_index(message: &[u8], position: usize) -> usize {
    let is_end = |entry: &[u8]| attributes(entry).any(|(kind, _)| kind == element::FLAGS);
    let entries = || {
        attributes(&message[HEADERS..])
            .filter(|(kind, _)| *kind == element::ELEMENTS)
            .flat_map(|(_, entries)| attributes(entries))
            .map(|(_, entry)| entry)
    };
    let starts = entries().take(position + 1).filter(|entry| !is_end(entry)).count();
    starts.saturating_sub(1)
}
