//! What the kernel holds of a table is byte for byte the same whether it came from here or from nft 1.0.6.
//!
//! So every nft can list it: newer versions write user data that 1.0.6 does not survive reading. What older ones
//! do not survive is all that differs: the type of slot numbers.

use crate::scenario;
use kube_proxy::kernel::{Kernel, Nft};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nft_table::Family;
use nft_table::netlink::{Writer, numbers, walk};
use nft_table::{DataType, Expression, Set, SetData, SetFlags, Table};
use std::collections::BTreeMap;
use std::fmt::Write;
use test_support::netns::{in_namespace, sh, skip_without};

/// The attributes of all messages of a dump.
fn dump(message_type: u16, attributes: impl FnOnce(&mut Writer)) -> Vec<Vec<u8>> {
    let mut writer = Writer::default();
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    let start = writer.open_message(message_type, flags, 1, numbers::INET, 0);
    attributes(&mut writer);
    writer.close_message(start);
    let socket = Socket::new(NETLINK_NETFILTER).unwrap();
    socket.connect(&SocketAddr::new(0, 0)).unwrap();
    socket.send(&writer.finish().unwrap(), 0).unwrap();
    let mut messages = Vec::new();
    loop {
        let (received, _) = socket.recv_from_full().unwrap();
        let mut rest = &received[..];
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            match message.message_type() {
                3 => return messages,
                2 => panic!("the kernel refuses to dump"),
                _ => messages.push(message.payload()[4..].to_vec()),
            }
            rest = &rest[(message.length() as usize).next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn value(bytes: &[u8], wanted: u16) -> &[u8] {
    walk::attributes(bytes).find(|(kind, _)| *kind == wanted).map_or(&[], |(_, value)| value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Sets with their attributes but for the handle, elements, and rules, as text.
fn everything() -> BTreeMap<String, Vec<String>> {
    const HANDLE: u16 = 16;
    let table = |writer: &mut Writer| writer.string(1, "kube-proxy");
    let mut all = BTreeMap::new();
    for set in dump(numbers::message::GET_SET, table) {
        let name = walk::string(value(&set, numbers::set::NAME)).to_owned();
        let attributes = walk::attributes(&set)
            .filter(|(kind, _)| *kind != HANDLE)
            .map(|(kind, value)| format!("{kind} {}", hex(value)));
        all.insert(format!("set {name}"), attributes.collect());
        let elements = dump(numbers::message::GET_ELEMENTS, |writer| {
            table(writer);
            writer.string(numbers::element::SET, &name);
        });
        let mut elements: Vec<String> = elements
            .iter()
            .flat_map(|message| walk::attributes(value(message, numbers::element::ELEMENTS)))
            .map(|(_, element)| hex(element))
            .collect();
        elements.sort_unstable();
        all.insert(format!("elements {name}"), elements);
    }
    for rule in dump(numbers::message::GET_RULE, table) {
        let chain = walk::string(value(&rule, numbers::rule::CHAIN));
        let expressions = walk::attributes(value(&rule, numbers::rule::EXPRESSIONS))
            // The one difference: nft converts the byte order of a single byte.
            .filter(|(_, expression)| !expression[4..].starts_with(b"byteorder\0"))
            .map(|(_, expression)| hex(expression));
        let expressions = expressions.collect::<Vec<_>>().join(" ");
        all.entry(format!("rules {chain}")).or_default().push(expressions);
    }
    all
}

/// An attribute of a set as it is with our type for slot numbers in the place of nft's own, `integer`.
fn with_our_slots(attribute: &str) -> String {
    const INTEGER: u32 = 4;
    let key_type = attribute.strip_prefix(&format!("{} ", numbers::set::KEY_TYPE));
    let Some(key_type) = key_type else { return attribute.to_owned() };
    let mut number = u32::from_str_radix(key_type, 16).unwrap();
    for shift in (0..30).step_by(6) {
        if number >> shift & 0x3f == INTEGER {
            number += (DataType::Slot.number() - INTEGER) << shift;
        }
    }
    format!("{} {number:08x}", numbers::set::KEY_TYPE)
}

/// One set of every kind beside the base table.
fn every_set() -> Vec<Set> {
    use DataType::*;
    let mut sets = Vec::new();
    let mut add = |key: &[DataType], data: SetData, interval, type_of| {
        let name = format!("test-{}", sets.len()).into();
        let flags = SetFlags { interval, dynamic: false, timeout: false };
        let counter = !interval && sets.len() % 2 == 1;
        sets.push(Set { name, key: key.to_vec(), data, flags, type_of, size: Some(77), counter });
    };
    let pair = || SetData::Fields(vec![Ipv4Address, InetService]);
    for one in [Ipv4Address, Ipv6Address, InetProto, InetService, InterfaceName] {
        for data in [SetData::None, SetData::Verdict, pair(), SetData::Fields(vec![one])] {
            add(&[one], data.clone(), false, None);
            add(&[one, Ipv4Address], data.clone(), false, None);
            add(&[one], data.clone(), true, None);
            add(&[one, Ipv4Address], data, true, None);
        }
    }
    let [daddr, saddr] = [Expression::DestinationAddress, Expression::SourceAddress];
    for family in Family::BOTH {
        let address = if family == Family::V4 { Ipv4Address } else { Ipv6Address };
        let single = |expression: Expression| {
            let key = vec![expression.data_type().unwrap()];
            (key, vec![expression])
        };
        for (key, expressions) in [
            single(daddr(family)),
            single(saddr(family)),
            single(Expression::Protocol),
            single(Expression::DestinationPort),
            single(Expression::InputInterface),
            single(Expression::CtOriginalDestination(family)),
            single(Expression::Random(7)),
            (
                vec![address, InetProto, InetService, Slot],
                vec![
                    saddr(family),
                    Expression::Protocol,
                    Expression::DestinationPort,
                    Expression::Random(2),
                ],
            ),
        ] {
            let data = vec![daddr(family), Expression::DestinationPort];
            let fields = SetData::Fields(vec![address, InetService]);
            add(&key, fields, false, Some((expressions.clone(), data)));
            let single = SetData::Fields(vec![address]);
            add(&key, single, false, Some((expressions.clone(), vec![daddr(family)])));
            add(&key, SetData::None, false, Some((expressions, vec![])));
        }
    }
    sets
}

fn table() -> Table {
    let mut table = scenario::table();
    scenario::fill(&mut table);
    for set in every_set() {
        table.add_set(set).unwrap();
    }
    table
}

#[test]
fn the_kernel_holds_the_bytes_of_nft() {
    if skip_without("nft") {
        return;
    }
    if !sh("nft --version").contains("v1.0.6") {
        return test_support::skip::tell("nft is not version 1.0.6, whose bytes these are");
    }
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        nft.commit(&table().changes()).unwrap_or_else(|error| panic!("{error}"));
        let mut again = table();
        again.adopt(nft.snapshot("kube-proxy").unwrap());
        assert!(again.changes().is_empty(), "{:#?}", again.changes());
        let ours = everything();
        sh("nft delete table inet kube-proxy");
        let text = table().to_string();
        sh(&format!("nft -f - <<'E'\n{text}\nE"));
        let theirs = everything();
        for (what, attributes) in &theirs {
            let attributes = match what.starts_with("set ") {
                true => &attributes.iter().map(|attribute| with_our_slots(attribute)).collect(),
                false => attributes,
            };
            assert_eq!(ours.get(what), Some(attributes), "{what}");
        }
        assert_eq!(ours.len(), theirs.len());
    });
}
