//! A transaction as one batch of netlink messages.

use super::declarations;
use super::expressions::{ANONYMOUS_SET, compile};
use super::numbers::{self, element as element_number, message};
use super::subject::{Message, Subject};
use super::writer::{Open, OpenMessage, Writer};
use crate::shape::{Shape, check_name, check_rule, check_word};
use crate::{
    Counts, Key, Lifetime, Operation, Ownership, Rule, Set, ShapeError, Transaction, Value,
};
use netlink_packet_core::{
    Emitable, NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute,
    SetElementList, SetElementMessage, SetMessage, TableAttribute, TableFlags, TableMessage,
};

/// The most bytes of the list of elements in one message: the length of an attribute has 16 bits.
const MAX_LIST: usize = u16::MAX as usize / 4 * 4;

const ADD: u16 = NLM_F_REQUEST | NLM_F_CREATE;
const DELETE: u16 = NLM_F_REQUEST;

/// The messages of a transaction, to be sent with one `sendmsg`.
///
/// Only the last message before the end of the batch asks for an acknowledgement: errors come without
/// asking, and an acknowledgement of each message would overflow the receive buffer.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    first_sequence: u32,
    pub(super) messages: Vec<Message>,
}

/// Why a transaction has no encoding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {operation}{}: {cause}", .element.map(|index| format!(", element {index}")).unwrap_or_default())]
pub struct EncodeError {
    /// Index of the operation in the transaction.
    pub operation: usize,
    /// Index of the element in the operation, if it is one that does not fit.
    pub element: Option<usize>,
    /// What is wrong with it.
    #[source]
    pub cause: ShapeError,
}

impl Batch {
    /// Encodes a transaction. Its messages are numbered from `first_sequence` on. With a generation the
    /// kernel refuses it (ERESTART) if the ruleset has another one by then.
    ///
    /// # Errors
    /// If a name, a declaration, a key or a value is none that the kernel could have. Of
    /// [`Table::changes`](crate::Table::changes) only names of the table and of chains, and rules that are too long,
    /// can be: sets and elements were checked before.
    pub fn encode(
        transaction: &Transaction<'_>,
        first_sequence: u32,
        generation: Option<u32>,
    ) -> Result<Batch, EncodeError> {
        let mut encoder = Encoder {
            table: transaction.table,
            counts: &transaction.counts,
            writer: Writer::with_capacity(estimate(transaction)),
            first_sequence,
            messages: Vec::new(),
            operation: 0,
            element: None,
            next_set_id: 1,
        };
        encoder.control(message::BATCH_BEGIN, generation);
        for (index, operation) in transaction.operations.iter().enumerate() {
            encoder.operation = index;
            encoder.element = None;
            let result = check_name(transaction.table).and_then(|()| encoder.encode(operation));
            result.map_err(|cause| encoder.error(cause))?;
        }
        if let Some(last) = encoder.messages.last() {
            let flags = &mut encoder.writer.bytes[last.start + 6..last.start + 8];
            let asked = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&asked.to_ne_bytes());
        }
        encoder.control(message::BATCH_END, None);
        let Encoder { writer, messages, operation, element, .. } = encoder;
        let bytes = writer.finish().map_err(|cause| EncodeError { operation, element, cause })?;
        Ok(Batch { bytes, first_sequence, messages })
    }

    /// The messages, ready to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The sequence number of the message that is acknowledged.
    pub fn acknowledged(&self) -> u32 {
        self.first_sequence.wrapping_add(self.messages.len() as u32)
    }

    /// The sequence number after those of the batch.
    pub fn next_sequence(&self) -> u32 {
        self.acknowledged().wrapping_add(2)
    }

    /// What the message of a sequence number, and an attribute in it, are about. None for the batch as a
    /// whole and for foreign messages.
    pub fn subject(&self, sequence: u32, offset: Option<usize>) -> Option<Subject> {
        let index = sequence.wrapping_sub(self.first_sequence).checked_sub(1)? as usize;
        Some(self.messages.get(index)?.subject(&self.bytes, offset))
    }
}

/// Bytes that the batch needs at most, or nearly so.
fn estimate(transaction: &Transaction<'_>) -> usize {
    let of = |operation: &Operation<'_>| match operation {
        Operation::AddElements { set, elements } => {
            let comments: usize = elements
                .iter()
                .map(|(_, value)| match value {
                    Value::Verdict(element) => {
                        element.verdict.chain().map_or(0, |chain| chain.len() + 4)
                            + element.comment.as_ref().map_or(0, |comment| comment.len() + 12)
                            + 28
                    }
                    _ => 0,
                })
                .sum();
            let key = 12 + set.key_len();
            let keys = if set.flags.interval { 2 * key + 16 } else { key };
            elements.len() * (4 + keys + set.data_len() + 12) + comments
        }
        Operation::AddExpiring { set, elements } => {
            elements.len() * (4 + 12 + set.key_len() + set.data_len() + 12 + 24)
        }
        Operation::DeleteElements { set, keys } | Operation::DestroyElements { set, keys } => {
            keys.len() * (2 * set.key_len() + 24)
        }
        _ => 1024,
    };
    let bytes: usize = transaction.operations.iter().map(of).sum();
    bytes + bytes / 512 + 4096
}

struct Encoder<'a> {
    table: &'a str,
    counts: &'a Counts,
    writer: Writer,
    first_sequence: u32,
    messages: Vec<Message>,
    /// What is being written: the index of an operation, and that of an element if it does not fit.
    operation: usize,
    element: Option<usize>,
    next_set_id: u32,
}

impl Encoder<'_> {
    /// The message that begins or ends a batch.
    fn control(&mut self, message_type: u16, generation: Option<u32>) {
        let sequence = match message_type {
            message::BATCH_BEGIN => self.first_sequence,
            _ => self.first_sequence.wrapping_add(self.messages.len() as u32 + 1),
        };
        let start =
            self.writer.open_message(message_type, NLM_F_REQUEST, sequence, 0, numbers::SUBSYSTEM);
        if let Some(generation) = generation {
            self.writer.number(numbers::BATCH_GENERATION, generation);
        }
        self.writer.close_message(start);
    }

    fn open_message(&mut self, message_type: u16, flags: u16, first_element: usize) -> OpenMessage {
        let sequence = self.first_sequence.wrapping_add(self.messages.len() as u32 + 1);
        let open = self.writer.open_message(message_type, flags, sequence, numbers::INET, 0);
        self.messages.push(Message { start: open.0, operation: self.operation, first_element });
        open
    }

    fn message(&mut self, flags: u16, content: NfTablesMessage) {
        let message_type = numbers::SUBSYSTEM << 8 | u16::from(u8::from(content.message_type()));
        let start = self.open_message(message_type, flags, 0);
        self.writer.emit(&content);
        self.writer.close_message(start);
    }

    fn error(&self, cause: ShapeError) -> EncodeError {
        EncodeError { operation: self.operation, element: self.element, cause }
    }

    fn encode(&mut self, operation: &Operation<'_>) -> Result<(), ShapeError> {
        let table = self.table.to_owned();
        match operation {
            Operation::AddTable(ownership) => {
                let flags = match ownership {
                    Ownership::Nobody => 0,
                    Ownership::OwnedPersistent => numbers::table::OWNER | numbers::table::PERSIST,
                };
                let flags = TableFlags::from_bits_retain(flags);
                let attributes = vec![TableAttribute::Name(table), TableAttribute::Flags(flags)];
                self.message(ADD, NfTablesMessage::NewTable(TableMessage { attributes }));
            }
            Operation::DeleteTable => {
                let attributes = vec![TableAttribute::Name(table)];
                self.message(DELETE, NfTablesMessage::DeleteTable(TableMessage { attributes }));
            }
            Operation::FlushChain(chain) => {
                check_name(chain)?;
                let attributes =
                    vec![RuleAttribute::Table(table), RuleAttribute::Chain((*chain).to_owned())];
                self.message(DELETE, NfTablesMessage::DeleteRule(RuleMessage { attributes }));
            }
            Operation::DeleteChain(chain) => {
                check_name(chain)?;
                let attributes =
                    vec![ChainAttribute::Table(table), ChainAttribute::Name((*chain).to_owned())];
                self.message(DELETE, NfTablesMessage::DeleteChain(ChainMessage { attributes }));
            }
            Operation::DeleteSet(set) => {
                check_name(set)?;
                let attributes =
                    vec![SetAttribute::Table(table), SetAttribute::Name((*set).to_owned())];
                self.message(DELETE, NfTablesMessage::DeleteSet(SetMessage { attributes }));
            }
            Operation::AddSet(set) => {
                set.check()?;
                let id = self.set_id();
                let attributes = declarations::set(&table, set, id);
                self.message(ADD, NfTablesMessage::NewSet(SetMessage { attributes }));
            }
            Operation::AddChain(chain) => {
                check_word(&chain.name)?;
                let attributes = declarations::chain(&table, chain);
                self.message(ADD, NfTablesMessage::NewChain(ChainMessage { attributes }));
            }
            Operation::AddRule { chain, rule } => return self.add_rule(chain, rule),
            Operation::FlushSet(set) => {
                check_name(&set.name)?;
                let attributes =
                    vec![SetElementList::Table(table), SetElementList::Set(set.name.to_string())];
                let content = SetElementMessage { attributes };
                self.message(DELETE, NfTablesMessage::DeleteSetElement(content));
            }
            Operation::DeleteElements { set, keys } => {
                return self.delete_elements(message::DELETE_ELEMENTS, set, keys);
            }
            Operation::DestroyElements { set, keys } => {
                return self.delete_elements(message::DESTROY_ELEMENTS, set, keys);
            }
            Operation::AddElements { set, elements } => return self.add_elements(set, elements),
            Operation::AddExpiring { set, elements } => return self.add_expiring(set, elements),
        }
        Ok(())
    }

    fn set_id(&mut self) -> u32 {
        self.next_set_id += 1;
        self.next_set_id - 1
    }

    /// A rule comes after the anonymous sets that it looks into.
    fn add_rule(&mut self, chain: &str, rule: &Rule) -> Result<(), ShapeError> {
        check_word(chain)?;
        check_rule(rule)?;
        let compiled = compile(rule, self.next_set_id);
        let len: usize = compiled.expressions.iter().map(Emitable::buffer_len).sum();
        if len + NLA_HEADER_SIZE > usize::from(u16::MAX) {
            return Err(ShapeError::TooLong);
        }
        for protocols in &compiled.anonymous_sets {
            let id = self.set_id();
            let attributes = declarations::protocols(self.table, protocols, id);
            self.message(ADD, NfTablesMessage::NewSet(SetMessage { attributes }));
            let mut list = List::new(message::NEW_ELEMENTS, ADD, ANONYMOUS_SET, Some(id));
            for protocol in *protocols {
                list.add(self, 0, |writer| {
                    let element = writer.open(numbers::LIST_ELEMENT);
                    let key = writer.open(element_number::KEY);
                    writer.attribute(element_number::VALUE, &[*protocol]);
                    writer.close(key);
                    writer.close(element);
                });
            }
            list.end(self);
        }
        let attributes = vec![
            RuleAttribute::Table(self.table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(compiled.expressions),
        ];
        let content = NfTablesMessage::NewRule(RuleMessage { attributes });
        self.message(ADD | NLM_F_APPEND, content);
        Ok(())
    }

    fn delete_elements(
        &mut self,
        message_type: u16,
        set: &Set,
        keys: &[&Key],
    ) -> Result<(), ShapeError> {
        set.check()?;
        let shape = Shape::of(set);
        let mut list = List::new(message_type, DELETE, &set.name, None);
        for (index, key) in keys.iter().enumerate() {
            self.checked(index, shape.check_key(key))?;
            if set.is_plain_interval() {
                list.add(self, index, |writer| shape.write_range(writer, key, &Value::Member));
            } else {
                list.add(self, index, |writer| shape.write(writer, key, None));
            }
        }
        list.end(self);
        Ok(())
    }

    fn add_elements(&mut self, set: &Set, elements: &[(&Key, &Value)]) -> Result<(), ShapeError> {
        set.check()?;
        let shape = Shape::of(set);
        let counts = self.counts.get(&set.name).filter(|_| set.counter);
        let mut list = List::new(message::NEW_ELEMENTS, ADD, &set.name, None);
        for (index, (key, value)) in elements.iter().enumerate() {
            let fits = shape.check_key(key).and_then(|()| shape.check_value(value));
            self.checked(index, fits)?;
            if set.is_plain_interval() {
                let leading = index == 0 && shape.first(key).iter().any(|byte| *byte != 0);
                list.add(self, index, |writer| {
                    if leading {
                        shape.write_leading_end(writer);
                    }
                    shape.write_range(writer, key, value);
                });
            } else if let Some(count) = counts.and_then(|counts| counts.get(*key)) {
                list.add(self, index, |writer| shape.write_counted(writer, key, value, *count));
            } else {
                list.add(self, index, |writer| shape.write(writer, key, Some(value)));
            }
        }
        list.end(self);
        Ok(())
    }

    fn add_expiring(
        &mut self,
        set: &Set,
        elements: &[(&Key, &Value, Lifetime)],
    ) -> Result<(), ShapeError> {
        set.check()?;
        let shape = Shape::of(set);
        let mut list = List::new(message::NEW_ELEMENTS, ADD, &set.name, None);
        for (index, (key, value, lifetime)) in elements.iter().enumerate() {
            let fits = shape.check_key(key).and_then(|()| shape.check_value(value));
            self.checked(index, fits)?;
            list.add(self, index, |writer| shape.write_expiring(writer, key, value, *lifetime));
        }
        list.end(self);
        Ok(())
    }

    /// Remembers the element that does not fit.
    #[inline]
    fn checked(&mut self, index: usize, fits: Result<(), ShapeError>) -> Result<(), ShapeError> {
        fits.inspect_err(|_| self.element = Some(index))
    }
}

/// Elements of a set, spread over as many messages as they need.
struct List<'a> {
    message_type: u16,
    flags: u16,
    set: &'a str,
    set_id: Option<u32>,
    /// Where the message begins that is being written, and its list of elements.
    open: Option<(OpenMessage, Open)>,
}

impl<'a> List<'a> {
    fn new(message_type: u16, flags: u16, set: &'a str, set_id: Option<u32>) -> List<'a> {
        List { message_type, flags, set, set_id, open: None }
    }

    /// Adds what `write` writes, which belongs to an element of the operation; in a new message if it
    /// does not fit.
    #[inline]
    fn add(&mut self, encoder: &mut Encoder<'_>, element: usize, write: impl Fn(&mut Writer)) {
        if self.open.is_none() {
            self.begin(encoder, element);
        }
        let before = encoder.writer.bytes.len();
        write(&mut encoder.writer);
        let is_full = |(_, list): &(OpenMessage, Open)| encoder.writer.len_of(list) > MAX_LIST;
        if self.open.as_ref().is_some_and(is_full) {
            encoder.writer.bytes.truncate(before);
            self.end(encoder);
            self.begin(encoder, element);
            write(&mut encoder.writer);
        }
    }

    fn begin(&mut self, encoder: &mut Encoder<'_>, element: usize) {
        let start = encoder.open_message(self.message_type, self.flags, element);
        encoder.writer.string(element_number::TABLE, encoder.table);
        encoder.writer.string(element_number::SET, self.set);
        if let Some(id) = self.set_id {
            encoder.writer.number(element_number::SET_ID, id);
        }
        self.open = Some((start, encoder.writer.open(element_number::ELEMENTS)));
    }

    fn end(&mut self, encoder: &mut Encoder<'_>) {
        if let Some((start, list)) = self.open.take() {
            encoder.writer.close(list);
            encoder.writer.close_message(start);
        }
    }
}
