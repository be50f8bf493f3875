//! Nothing that the library is given makes it panic: transactions that no table makes, dumps of any bytes.

use nft_table::netlink::dump::{self, ElementReader};
use nft_table::netlink::{Batch, EncodeError, SnapshotChain, Writer, numbers};
use nft_table::{
    Chain, Constant, DataType, Expression, Key, Lifetime, Operation, Ownership, Rule, Set, SetData,
    SetFlags, ShapeError, Statement, Transaction, Value, Verdict, text,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;

fn set(key: Vec<DataType>, data: SetData, interval: bool) -> Set {
    let flags = SetFlags { interval, dynamic: false, timeout: false };
    Set { name: "s".into(), key, data, flags, type_of: None, size: None, counter: false }
}

fn encode(operation: Operation<'_>) -> Result<Batch, EncodeError> {
    let operations = vec![Operation::AddTable(Ownership::Nobody), operation];
    Batch::encode(&Transaction::new("t", operations), 1, None)
}

fn error(operation: Operation<'_>) -> EncodeError {
    encode(operation).expect_err("it has no encoding")
}

#[test]
fn an_element_that_does_not_fit_is_named() {
    let set = set(vec![DataType::Ipv4Address], SetData::Verdict, false);
    let (right, short) = (Key(vec![10, 0, 0, 1].into()), Key(vec![10, 0].into()));
    let (drop, member) = (Value::verdict(Verdict::Drop, None), Value::Member);
    let wrong = |element, cause| EncodeError { operation: 1, element: Some(element), cause };
    let refused = error(Operation::AddElements {
        set: &set,
        elements: vec![(&right, &drop), (&short, &drop)],
    });
    assert_eq!(refused, wrong(1, ShapeError::Key { len: 2, expected: 4 }));
    let refused = error(Operation::AddElements { set: &set, elements: vec![(&right, &member)] });
    assert_eq!(refused, wrong(0, ShapeError::Value));
    let refused =
        error(Operation::DeleteElements { set: &set, keys: vec![&right, &right, &short] });
    assert_eq!(refused, wrong(2, ShapeError::Key { len: 2, expected: 4 }));
    let lifetime = Lifetime { timeout: Duration::MAX, expires: Duration::MAX };
    let elements = vec![(&right, &drop, lifetime), (&short, &drop, lifetime)];
    let expiring = error(Operation::AddExpiring { set: &set, elements });
    assert_eq!(expiring, wrong(1, ShapeError::Key { len: 2, expected: 4 }));
    let elements = vec![(&right, &member, lifetime)];
    let expiring = error(Operation::AddExpiring { set: &set, elements });
    assert_eq!(expiring, wrong(0, ShapeError::Value));
    assert_eq!(
        refused.to_string(),
        "operation 1, element 2: a key of 2 bytes in a set whose keys have 4"
    );
}

/// Words of a listing: a string in quotation marks is one, as is what nft reads as a name.
fn words(text: &str) -> Vec<&str> {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            c if is_inner(c) => rest.find(|c| !is_inner(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        words.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    words
}

proptest! {
    /// Whatever a name or a comment is, it is refused, or stands in the listing as one word.
    #[test]
    fn nothing_breaks_out_of_a_listing(
        name in "[a\"'}{;#@\\\\ \n\t/.0é-]{0,4}|[a-z]{1,3}",
        comment in "[a\"'}{;#@\\\\ \n\t/.0é-]{0,4}",
    ) {
        let mut set = set(vec![DataType::Ipv4Address], SetData::Verdict, false);
        let key = Key(vec![10, 0, 0, 1].into());
        let value = Value::verdict(Verdict::Goto(name.as_str().into()), Some(comment.as_str().into()));
        if encode(Operation::AddElements { set: &set, elements: vec![(&key, &value)] }).is_ok() {
            let quoted = format!("\"{comment}\"");
            let text = text::element(&set, &key, &value);
            let expected = ["10.0.0.1", "comment", &quoted, ":", "goto", &name];
            prop_assert_eq!(words(&text), expected);
        }
        set.name = name.as_str().into();
        let chain = Chain::regular(name.as_str(), Vec::new());
        let rule = Rule::new(vec![Statement::Verdict(Verdict::Jump(name.as_str().into()))]);
        for operation in [
            Operation::AddSet(&set),
            Operation::AddChain(&chain),
            Operation::AddRule { chain: &name, rule: &rule },
            Operation::AddRule { chain: "c", rule: &rule },
        ] {
            let text = text::operation("t", &operation);
            if encode(operation).is_ok() {
                prop_assert!(words(&text).contains(&name.as_str()), "{}", text);
                prop_assert!(!text.contains(['"', '\n', '#']), "{}", text);
            }
        }
    }
}

#[test]
fn names_that_no_kernel_takes_are_refused() {
    let long = "n".repeat(70_000);
    let chain = Chain::regular(long.as_str(), Vec::new());
    let in_set = |set: &str| {
        Rule::new(vec![Statement::InSet { key: vec![], set: set.into(), negated: false }])
    };
    let rule = in_set(&long);
    let mut set = set(vec![DataType::Ipv4Address], SetData::None, false);
    set.name = long.as_str().into();
    for operation in [
        Operation::FlushChain(&long),
        Operation::DeleteChain(""),
        Operation::DeleteSet("a\0b"),
        Operation::AddChain(&chain),
        Operation::AddSet(&set),
        Operation::FlushSet(&set),
        Operation::AddRule { chain: "c", rule: &rule },
        Operation::AddRule { chain: &long, rule: &in_set("s") },
        Operation::AddElements { set: &set, elements: Vec::new() },
    ] {
        assert!(matches!(error(operation).cause, ShapeError::Name(_)));
    }
    for name in ["", "a\0b", "an-interface-name"] {
        for constant in [Constant::Interface(name.into()), Constant::InterfacePrefix(name.into())] {
            let expression = Expression::InputInterface;
            let rule = Rule::new(vec![Statement::Match { expression, constant, negated: false }]);
            let refused = error(Operation::AddRule { chain: "c", rule: &rule });
            assert_eq!(refused.cause, ShapeError::Interface(name.into()));
        }
    }
    let transaction = Transaction::new(&long, vec![Operation::AddTable(Ownership::Nobody)]);
    assert!(Batch::encode(&transaction, 1, None).is_err());
    // Nor has the kernel such a chain.
    let chain = Chain::regular("c", vec![rule]);
    assert!(!SnapshotChain::of(&chain).has_rules_of(&chain));
}

#[test]
fn a_rule_that_fills_more_than_an_attribute_is_refused() {
    let key = vec![Expression::Protocol; 4000];
    let rule = Rule::new(vec![Statement::InSet { key, set: "s".into(), negated: false }]);
    assert_eq!(error(Operation::AddRule { chain: "c", rule: &rule }).cause, ShapeError::TooLong);
}

#[test]
fn an_attribute_that_is_too_long_spoils_what_is_written() {
    let longest = usize::from(u16::MAX) - 4;
    for (len, fits) in [(longest, true), (longest + 1, false), (200_000, false)] {
        let mut writer = Writer::default();
        writer.attribute(1, &vec![0; len]);
        assert_eq!(writer.finish().is_ok(), fits, "{len}");
    }
    let mut writer = Writer::default();
    let list = writer.open(1);
    writer.attribute(1, &vec![0; 40_000]);
    writer.attribute(1, &vec![0; 40_000]);
    writer.close(list);
    assert_eq!(writer.finish(), Err(ShapeError::TooLong));
    // What was begun elsewhere.
    let mut other = Writer::default();
    other.number(1, 1);
    let (message, list) = (other.open_message(1, 0, 1, 1, 0), other.open(1));
    let mut writer = Writer::default();
    writer.close(list);
    assert!(writer.finish().is_err());
    let mut writer = Writer::default();
    writer.close_message(message);
    assert!(writer.finish().is_err());
}

fn data_type() -> impl Strategy<Value = DataType> {
    use DataType::*;
    prop::sample::select(vec![
        Ipv4Address,
        Ipv6Address,
        InetProto,
        InetService,
        InterfaceName,
        Slot,
    ])
}

fn any_set() -> impl Strategy<Value = Set> {
    let data = prop_oneof![
        Just(SetData::None),
        Just(SetData::Verdict),
        vec(data_type(), 0..4).prop_map(SetData::Fields),
    ];
    (vec(data_type(), 0..7), data, any::<bool>())
        .prop_map(|(key, data, interval)| set(key, data, interval))
}

/// Attributes as the kernel may have them, or nearly so: kind, and bytes or attributes in turn.
fn attributes() -> impl Strategy<Value = Vec<u8>> {
    let leaf = vec(any::<u8>(), 0..40);
    leaf.prop_recursive(4, 40, 6, |inner| {
        vec((0..16_u16, inner), 0..6).prop_map(|all| {
            let mut writer = Writer::default();
            all.iter().for_each(|(kind, value)| writer.attribute(*kind, value));
            writer.finish().unwrap()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_key_has_a_text_and_an_encoding_or_an_error(
        set in any_set(),
        key in vec(any::<u8>(), 0..90),
        comment in ".{0,200}",
        timeout in any::<Duration>(),
        expires in any::<Duration>(),
    ) {
        let key = Key(key.into());
        text::key(&set, &key);
        for value in [Value::Member, Value::verdict(Verdict::Jump("c".into()), Some(comment.into()))] {
            text::element(&set, &key, &value);
            let elements = vec![(&key, &value)];
            let _ = encode(Operation::AddElements { set: &set, elements });
            let _ = encode(Operation::DeleteElements { set: &set, keys: vec![&key] });
            let lifetime = Lifetime { timeout, expires };
            text::expiring(&set, &key, &value, lifetime);
            let elements = vec![(&key, &value, lifetime)];
            let _ = encode(Operation::AddExpiring { set: &set, elements });
        }
        let _ = encode(Operation::AddSet(&set));
    }

    #[test]
    fn any_dump_is_read_or_an_error(set in any_set(), bytes in attributes(), list in attributes()) {
        let _ = dump::set(&bytes);
        let _ = dump::chain(&bytes);
        dump::counter(dump::rule(&bytes).1);
        dump::protocols(std::slice::from_ref(&bytes));
        let snapshot = SnapshotChain { rules: vec![bytes.clone()], ..SnapshotChain::default() };
        let rule = Rule::new(vec![Statement::ProtocolIn(&[6, 17]), Statement::Masquerade]);
        snapshot.has_rules_of(&Chain::regular("c", vec![rule]));
        for bytes in [bytes, list] {
            let mut writer = Writer::default();
            writer.attribute(numbers::element::ELEMENTS, &bytes);
            let bytes = writer.finish().unwrap();
            for dynamic in [false, true] {
                let flags = SetFlags { dynamic, ..set.flags };
                let set = Set { flags, ..set.clone() };
                let mut reader = ElementReader::new(&set);
                if reader.read(&bytes).is_ok() && dynamic {
                    reader.finish_expiring();
                } else {
                    reader.finish();
                }
            }
        }
    }
}
