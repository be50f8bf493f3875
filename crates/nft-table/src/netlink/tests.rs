//! Bytes that nft 1.0.6 sends, and what they become when the kernel gives them back.

use super::dump::{self, ElementReader};
use super::expressions::compile;
use super::numbers::{element, message, rule as rule_number};
use super::walk::{attributes, string};
use super::{Batch, SnapshotChain, Subject, Writer, declarations, userdata};
use crate::Family;
use crate::example::example;
use crate::{
    Constant, Count, Counts, Data, DataType, Expression, Key, Lifetime, Operation, Ownership,
    Reject, Rule, Set, SetData, SetFlags, Statement, Transaction, Value, Verdict,
};
use netlink_packet_core::{NLM_F_ACK, NetlinkBuffer};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn set(key: &[DataType], data: SetData, interval: bool) -> Set {
    Set {
        name: "s".into(),
        key: key.to_vec(),
        data,
        flags: SetFlags { interval, dynamic: false, timeout: false },
        type_of: None,
        size: None,
        counter: false,
    }
}

fn frontends() -> Set {
    use DataType::{InetProto, InetService, Ipv4Address};
    set(&[Ipv4Address, InetProto, InetService], SetData::Verdict, false)
}

fn vip(number: u32) -> Key {
    let address = IpAddr::from(Ipv4Addr::from(0x0a60_0000 + number));
    Key::builder().address(address).protocol(6).port(80).build()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The messages of a batch: type, flags, sequence number and attributes.
fn messages(batch: &Batch) -> Vec<(u16, u16, u32, Vec<u8>)> {
    let mut rest = batch.bytes();
    let mut messages = Vec::new();
    while let Ok(header) = NetlinkBuffer::new_checked(rest) {
        let len = header.length() as usize;
        let attributes = rest[20..len].to_vec();
        messages.push((
            header.message_type(),
            header.flags(),
            header.sequence_number(),
            attributes,
        ));
        rest = &rest[len..];
    }
    assert!(rest.is_empty());
    messages
}

/// The elements that a batch adds, in hexadecimal.
fn elements(batch: &Batch) -> Vec<String> {
    messages(batch)
        .iter()
        .filter(|(kind, ..)| *kind == message::NEW_ELEMENTS)
        .flat_map(|(_, _, _, payload)| attributes(payload))
        .filter(|(kind, _)| *kind == element::ELEMENTS)
        .flat_map(|(_, list)| attributes(list))
        .map(|(_, element)| hex(element))
        .collect()
}

fn add(set: &Set, elements: &[(Key, Value)], first_sequence: u32) -> Batch {
    let elements = elements.iter().map(|(key, value)| (key, value)).collect();
    let operations =
        vec![Operation::AddTable(Ownership::Nobody), Operation::AddElements { set, elements }];
    Batch::encode(&Transaction::new("t", operations), first_sequence, None).unwrap()
}

/// Expressions as `name kind=value ...`, one a line.
fn expressions(statements: Vec<Statement>) -> Vec<String> {
    let mut writer = Writer::default();
    for expression in compile(&Rule::new(statements), 5).expressions {
        writer.emit(&expression);
    }
    let part = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).unwrap().1;
    attributes(&writer.bytes)
        .map(|(_, expression)| {
            let mut text = string(part(expression, rule_number::EXPRESSION_NAME)).to_owned();
            let mut data: Vec<(u16, &[u8])> =
                attributes(part(expression, rule_number::EXPRESSION_DATA)).collect();
            data.sort_unstable();
            for (kind, value) in data {
                text += &format!(" {kind}={}", hex(value));
            }
            text
        })
        .collect()
}

/// A map that rules add to.
fn clients() -> Set {
    use DataType::{InetService, Ipv4Address};
    Set {
        flags: SetFlags { interval: false, dynamic: true, timeout: true },
        size: Some(100),
        ..set(&[Ipv4Address], SetData::Fields(vec![Ipv4Address, InetService]), false)
    }
}

/// For a size that it is told the kernel sets memory aside at once.
#[test]
fn a_dynamic_set_without_a_size_is_declared_without_one() {
    let declared = |set: &Set| format!("{:?}", declarations::set("t", set, 1));
    assert!(declared(&clients()).contains("Size(100)"), "{}", declared(&clients()));
    let without = Set { size: None, ..clients() };
    assert!(!declared(&without).contains("Size("), "{}", declared(&without));
}

/// An element of that map and how long it stays, in milliseconds.
fn client(timeout: u64, expires: u64) -> (Key, Value, Lifetime) {
    let address = |number: u32| IpAddr::from(Ipv4Addr::from(number));
    let key = Key::builder().address(address(0xc000_0207)).build();
    let value = Value::Data(Data::address_port(address(0x0af4_000b), 8080));
    let lifetime = Lifetime {
        timeout: Duration::from_millis(timeout),
        expires: Duration::from_millis(expires),
    };
    (key, value, lifetime)
}

fn add_expiring(client: &(Key, Value, Lifetime)) -> Batch {
    let set = clients();
    let (key, value, lifetime) = client;
    let elements = vec![(key, value, *lifetime)];
    let operations = vec![Operation::AddExpiring { set: &set, elements }];
    Batch::encode(&Transaction::new("t", operations), 1, None).unwrap()
}

/// As nft 1.0.6 sends `192.0.2.7 timeout 3h expires 1h : 10.244.0.11 . 8080`.
const CLIENT: &str = "0c0004000000000000a4cb800c00050000000000\
    0036ee800c00018008000100c0000207100002800c0001000af4000b1f900000";

#[test]
fn expiring_elements_are_those_of_nft() {
    assert_eq!(elements(&add_expiring(&client(10_800_000, 3_600_000))), [CLIENT]);
}

#[test]
fn an_element_goes_on_from_what_it_has_counted() {
    let set = Set { counter: true, ..set(&[DataType::InetService], SetData::None, false) };
    let keys = [80, 443].map(|port| Key::builder().port(port).build());
    let count = Count { packets: 3, bytes: 180 };
    let counts: Counts = [(set.name.clone(), [(keys[0].clone(), count)].into())].into();
    for (key, expected) in [(&keys[0], count), (&keys[1], Count::default())] {
        let elements = vec![(key, &Value::Member)];
        let mut transaction =
            Transaction::new("t", vec![Operation::AddElements { set: &set, elements }]);
        transaction.counts = counts.clone().into();
        let batch = Batch::encode(&transaction, 1, None).unwrap();
        let mut reader = ElementReader::new(&set);
        for (kind, _, _, payload) in messages(&batch) {
            if kind == message::NEW_ELEMENTS {
                reader.read(&payload).unwrap();
            }
        }
        assert_eq!(
            (reader.last_count(), reader.last()),
            (expected, Some(&(key.clone(), Value::Member)))
        );
    }
}

#[test]
fn an_element_that_has_expired_is_sent_with_the_shortest_life_there_is() {
    // Of nothing the kernel would make a whole timeout.
    let shortest = elements(&add_expiring(&client(0, 0)));
    assert_eq!(shortest, elements(&add_expiring(&client(10, 10))));
    // It refuses an element that outlives its timeout.
    let longest = elements(&add_expiring(&client(5000, 6000)));
    assert_eq!(longest, elements(&add_expiring(&client(5000, 5000))));
}

#[test]
fn expiring_elements_are_read_with_what_is_left_of_their_lives() {
    let set = clients();
    let expected = client(10_800_000, 3_600_000);
    let read = |batch: &Batch| {
        let mut reader = ElementReader::new(&set);
        for (kind, _, _, payload) in messages(batch) {
            if kind == message::NEW_ELEMENTS {
                reader.read(&payload).unwrap();
            }
        }
        reader
    };
    assert_eq!(read(&add_expiring(&expected)).finish_expiring(), std::slice::from_ref(&expected));
    let (key, value, _) = expected;
    let for_ever = add(&set, &[(key.clone(), value)], 1);
    assert_eq!(read(&for_ever).finish_expiring(), []);
    assert_eq!(read(&for_ever).finish()[0].0, key);
}

#[test]
fn elements_are_those_of_nft() {
    let value = Value::verdict(Verdict::Goto("cluster-3".into()), Some("default/web:http".into()));
    // As nft 1.0.6 sends them.
    let key = "14000180100001000a60000a0600000000500000";
    let verdict = "200002801c00028008000100fffffffc0e000200636c75737465722d33000000";
    let comment = "17000600001164656661756c742f7765623a687474700000";
    assert_eq!(
        elements(&add(&frontends(), &[(vip(10), value)], 1)),
        [[key, verdict, comment].concat()]
    );
}

#[test]
fn ranges_have_starts_and_ends() {
    let set = set(&[DataType::Ipv4Address], SetData::None, true);
    let network = |text: &str| (Key::builder().network(text.parse().unwrap()), Value::Member);
    let start = |address| format!("0c00018008000100{address}");
    let end = |address| format!("0800030000000001{}", start(address));
    let open = |address| format!("{}0a0006000104010000000000", start(address));
    let networks = [network("10.0.0.0/24"), network("10.0.1.0/24"), network("255.0.0.0/8")];
    let expected = [
        end("00000000"),
        start("0a000000"),
        end("0a000100"),
        start("0a000100"),
        end("0a000200"),
        open("ff000000"),
    ];
    assert_eq!(elements(&add(&set, &networks, 1)), expected);
    assert_eq!(elements(&add(&set, &[network("0.0.0.0/0")], 1)), [open("00000000")]);
}

#[test]
fn lists_are_split_and_only_the_last_message_asks_for_an_acknowledgement() {
    let elements: Vec<(Key, Value)> = (0..5000)
        .map(|number| {
            let comment = "x".repeat(number as usize % 128).into();
            (vip(number), Value::verdict(Verdict::Drop, Some(comment)))
        })
        .collect();
    let batch = add(&frontends(), &elements, 7);
    let messages = messages(&batch);
    let kinds: Vec<u16> = messages.iter().map(|(kind, ..)| *kind).collect();
    assert_eq!(kinds[..3], [message::BATCH_BEGIN, message::NEW_TABLE, message::NEW_ELEMENTS]);
    assert_eq!(kinds.last(), Some(&message::BATCH_END));
    assert!(kinds.len() > 8, "{kinds:?}");
    for (index, (_, flags, sequence, payload)) in messages.iter().enumerate() {
        assert_eq!(*sequence, 7 + index as u32);
        assert_eq!(flags & NLM_F_ACK != 0, index == messages.len() - 2);
        assert!(payload.len() <= 66_000);
    }
    assert_eq!(batch.acknowledged(), 7 + messages.len() as u32 - 2);
    assert_eq!(batch.next_sequence(), 7 + messages.len() as u32);
    let set = frontends();
    let mut reader = ElementReader::new(&set);
    for (.., payload) in &messages[2..messages.len() - 1] {
        reader.read(payload).unwrap();
    }
    assert_eq!(reader.finish(), elements);
}

#[test]
fn an_offset_names_the_element() {
    let elements: Vec<(Key, Value)> =
        (0..3000).map(|number| (vip(number), Value::verdict(Verdict::Drop, None))).collect();
    let batch = add(&frontends(), &elements, 1);
    let subject = |element| Subject { operation: 1, element, expression: None };
    // Each element takes 40 bytes, after 20 bytes of headers and 20 of names and the list's header.
    let (header, size) = (40, 40);
    let first_of_second = batch.messages[2].first_element;
    assert_eq!(first_of_second, 65_528 / size);
    assert_eq!(batch.subject(3, Some(header)), Some(subject(Some(0))));
    assert_eq!(batch.subject(3, Some(header + 5 * size)), Some(subject(Some(5))));
    let found = batch.subject(4, Some(header + 7 * size + 4));
    assert_eq!(found, Some(subject(Some(first_of_second + 7))));
    // Some kernels count from the beginning of the batch.
    let from_batch = batch.messages[2].start + header + 7 * size;
    assert_eq!(batch.subject(4, Some(from_batch)), found);
    assert_eq!(batch.subject(3, None), Some(subject(None)));
    assert_eq!(batch.subject(2, None), Some(Subject { operation: 0, ..subject(None) }));
    assert_eq!(batch.subject(1, None), None);
    assert_eq!(batch.subject(99, None), None);
}

#[test]
fn an_offset_names_the_range() {
    let set = set(&[DataType::Ipv4Address], SetData::None, true);
    let network = |number: u8| {
        let network = format!("10.{number}.0.0/24").parse().unwrap();
        (Key::builder().network(network), Value::Member)
    };
    let batch = add(&set, &[network(1), network(3), network(5)], 1);
    // The leading end, then a start and an end for each.
    let (header, start, end) = (40_usize, 16, 24);
    let element = |offset| batch.subject(3, Some(header + offset)).unwrap().element;
    assert_eq!(element(0), Some(0));
    assert_eq!(element(end), Some(0));
    assert_eq!(element(end + start), Some(0));
    assert_eq!(element(end + start + end), Some(1));
    assert_eq!(element(end + 2 * (start + end)), Some(2));
}

#[test]
fn an_offset_names_the_expression() {
    let rule = Rule::new(vec![Statement::Reject(Reject::Family(Family::V4))]);
    let operations = vec![Operation::AddRule { chain: "c", rule: &rule }];
    let batch = Batch::encode(&Transaction::new("t", operations), 1, None).unwrap();
    let expression = |offset| batch.subject(2, Some(offset)).unwrap().expression;
    // Expressions of 36 and 44 bytes after 20 bytes of headers and 20 of names and the list's header.
    assert_eq!(expression(40).as_deref(), Some("meta"));
    assert_eq!(expression(40 + 36).as_deref(), Some("cmp"));
    assert_eq!(expression(40 + 36 + 44).as_deref(), Some("reject"));
}

#[test]
fn a_batch_can_be_for_a_generation() {
    let transaction = Transaction::new("t", vec![Operation::AddTable(Ownership::Nobody)]);
    let batch = Batch::encode(&transaction, 1, Some(0x1234)).unwrap();
    assert_eq!(hex(&messages(&batch)[0].3), "0800010000001234");
}

#[test]
fn concatenations_fill_consecutive_registers() {
    let key = |family| {
        vec![
            Expression::DestinationAddress(family),
            Expression::Protocol,
            Expression::DestinationPort,
            Expression::Random(3),
        ]
    };
    // dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 3 map @m
    let dnat = |family| vec![Statement::Dnat { family, key: key(family), map: "m".into() }];
    let expected = [
        "meta 1=00000001 2=0000000f",
        "cmp 1=00000001 2=00000000 3=050001000a000000",
        "payload 1=00000001 2=00000001 3=00000018 4=00000010",
        "meta 1=00000002 2=00000010",
        "payload 1=0000000d 2=00000002 3=00000002 4=00000002",
        "numgen 1=0000000e 2=00000003 3=00000001 4=00000000",
        "lookup 1=6d00 2=00000001 3=00000001",
        "nat 1=00000001 2=0000000a 3=00000001 5=00000002",
    ];
    assert_eq!(expressions(dnat(Family::V6)), expected);
    let v4 = expressions(dnat(Family::V4));
    assert_eq!(
        v4[3..6],
        [
            "meta 1=00000009 2=00000010",
            "payload 1=0000000a 2=00000002 3=00000002 4=00000002",
            "numgen 1=0000000b 2=00000003 3=00000001 4=00000000",
        ]
    );
    assert_eq!(v4[7], "nat 1=00000001 2=00000002 3=00000001 5=00000009");
}

#[test]
fn bits_are_compared_with_zero() {
    let status = |negated| {
        let (expression, constant) = (Expression::CtStatus, Constant::StatusDnat);
        expressions(vec![Statement::Match { expression, constant, negated }])
    };
    let load = "ct 1=00000001 2=00000002";
    let mask = "bitwise 1=00000001 2=00000001 3=00000004 4=0800010020000000 5=0800010000000000";
    // ct status dnat: not zero; ct status ! dnat: zero.
    let compare = |operator| format!("cmp 1=00000001 2={operator} 3=0800010000000000");
    assert_eq!(status(false), [load, mask, &compare("00000001")]);
    assert_eq!(status(true), [load, mask, &compare("00000000")]);
}

#[test]
fn the_family_is_matched_once_and_only_where_needed() {
    let in_set =
        |expression| Statement::InSet { key: vec![expression], set: "s".into(), negated: false };
    let v4 = Expression::DestinationAddress(Family::V4);
    let count = |statements: Vec<Statement>| {
        expressions(statements).iter().filter(|line| line.ends_with("2=0000000f")).count()
    };
    let family = Statement::Match {
        expression: Expression::NetworkFamily,
        constant: Constant::Family(Family::V4),
        negated: false,
    };
    let reject = || Statement::Reject(Reject::Family(Family::V4));
    assert_eq!(count(vec![in_set(v4), in_set(v4), reject()]), 1);
    assert_eq!(count(vec![family, in_set(v4)]), 1);
    assert_eq!(count(vec![reject()]), 1);
    assert_eq!(count(vec![Statement::Reject(Reject::AnyFamily)]), 0);
    assert_eq!(count(vec![in_set(Expression::CtOriginalDestination(Family::V4))]), 0);
}

#[test]
fn an_update_has_its_data_in_the_next_large_register() {
    let update = |family| {
        expressions(vec![Statement::Update {
            map: "m".into(),
            key: vec![Expression::SourceAddress(family)],
            data: vec![Expression::DestinationAddress(family), Expression::DestinationPort],
            timeout_seconds: 10_800,
        }])
    };
    let dynset = "dynset 1=6d00 3=00000001 4=00000001 5=00000002 6=0000000000a4cb80".to_owned();
    assert_eq!(
        update(Family::V4)[4..],
        ["payload 1=0000000d 2=00000002 3=00000002 4=00000002".to_owned(), dynset.clone(),]
    );
    assert_eq!(
        update(Family::V6)[4..],
        ["payload 1=00000003 2=00000002 3=00000002 4=00000002".to_owned(), dynset,]
    );
}

#[test]
fn anonymous_sets_come_before_their_rule() {
    let rule = Rule::new(vec![Statement::ProtocolIn(&[6, 17]), Statement::Masquerade]);
    let operations = vec![Operation::AddRule { chain: "c", rule: &rule }];
    let batch = Batch::encode(&Transaction::new("t", operations), 1, None).unwrap();
    let kinds: Vec<u16> = messages(&batch).iter().map(|(kind, ..)| *kind).collect();
    let expected = [
        message::BATCH_BEGIN,
        message::NEW_SET,
        message::NEW_ELEMENTS,
        message::NEW_RULE,
        message::BATCH_END,
    ];
    assert_eq!(kinds, expected);
    assert_eq!(elements(&batch), ["0c0001800500010006000000", "0c0001800500010011000000"]);
}

#[test]
fn user_data_says_what_was_declared() {
    let table = example().table;
    for (_, set) in table.sets() {
        let declaration = userdata::declaration(&userdata::of_set(set));
        assert!(!declaration.more);
        assert_eq!(declaration.key.zip(declaration.data), set.type_of);
    }
    // A comment, auto-merge; a typeof that is not known here.
    assert!(userdata::declaration(&[7, 2, b'x', 0]).more);
    assert!(userdata::declaration(&[2, 4, 1, 0, 0, 0]).more);
    assert!(userdata::declaration(&[3, 6, 0, 4, 99, 0, 0, 0]).more);
}

#[test]
fn a_chain_is_its_own_snapshot_and_no_other() {
    let table = example().table;
    for chain in table.chains() {
        let there = SnapshotChain::of(chain);
        assert!(there.has_rules_of(chain));
        for other in table.chains() {
            assert_eq!(there.has_rules_of(other), other.rules == chain.rules, "{chain}{other}");
        }
    }
}

#[test]
fn malformed_dumps_are_errors() {
    let set = set(&[DataType::Ipv4Address], SetData::Fields(vec![DataType::Ipv4Address]), false);
    let read = |element: &str| {
        let bytes: Vec<u8> = (0..element.len() / 2)
            .map(|index| u8::from_str_radix(&element[2 * index..2 * index + 2], 16).unwrap())
            .collect();
        let mut writer = Writer::default();
        let list = writer.open(element::ELEMENTS);
        writer.attribute(1, &bytes);
        writer.close(list);
        let mut reader = ElementReader::new(&set);
        reader.read(&writer.bytes).map(|()| reader.finish())
    };
    assert!(read("0c00010008000100").is_err(), "a length beyond the end");
    assert!(read("0c0001000600010001020000").is_err(), "a key that is too short");
    assert!(read("").is_err(), "no key");
    let data = Data::new(&[1, 2, 3, 4]).unwrap();
    let key = Key(smallvec::smallvec![10, 0, 0, 1]);
    let expected = vec![(key, Value::Data(data))];
    assert_eq!(read("0c000100080001000a0000010c0002000800010001020304").unwrap(), expected);
    assert!(dump::set(&[1, 2, 3]).is_err());
}
