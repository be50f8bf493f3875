//! Whatever files hold.

use super::*;
use proptest::prelude::*;

/// Strings near to YAML and JSON.
fn some_text() -> impl Strategy<Value = String> {
    let parts = [
        "apiVersion: v1\n",
        "kind: Service\n",
        "kind: List\n",
        "items:\n",
        "- ",
        "  ",
        "---\n",
        "...\n",
        "spec:\n",
        "  ports:\n",
        "  - port: 80\n",
        "metadata: {name: a}\n",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        ":",
        ",",
        "\n",
        "\r\n",
        "\r",
        "\u{85}",
        "\t",
        "#",
        "&a ",
        "*a",
        "<<: ",
        "|",
        ">",
        "%YAML 1.2\n",
        "\u{feff}",
        "é",
        "{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": [",
        "null",
        "1e400",
        "!!binary ",
    ];
    let part = prop_oneof![
        9 => proptest::sample::select(parts.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,3}",
    ];
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

/// The state that changes lead to.
fn apply(state: &mut BTreeMap<String, Change>, changes: Vec<Change>) {
    for change in changes {
        let key = match &change {
            Change::Service(name, _) => format!("Service {name}"),
            Change::EndpointSlice(name, _) => format!("EndpointSlice {name}"),
            Change::Node(_) => "Node".to_owned(),
            Change::ServiceCidr(name, _) => format!("ServiceCIDR {name}"),
        };
        let gone = matches!(
            change,
            Change::Service(_, None)
                | Change::EndpointSlice(_, None)
                | Change::Node(None)
                | Change::ServiceCidr(_, None)
        );
        let before = if gone { state.remove(&key) } else { state.insert(key, change.clone()) };
        assert_ne!(before.as_ref(), Some(&change), "sent twice");
        assert!(!gone || before.is_some(), "{change:?} takes away what was not there");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in some_text()) {
        for format in [Format::Yaml, Format::Json] {
            for lists in [true, false] {
                for piece in split(&text, format, lists).iter().flatten() {
                    let _ = decode(&text, piece);
                }
            }
        }
        let mut store = new_store();
        store.put(&[("a.yaml".to_owned(), text.clone().into_bytes()), ("a.json".to_owned(), text.into_bytes())]);
        store.difference(|_| Ok(Vec::new()));
    }

    /// A list means the same cut into items and as a whole.
    #[test]
    fn cut_lists_are_whole_lists(items in proptest::collection::vec((0..3usize, 0..2usize, any::<bool>()), 0..5)) {
        let mut text = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
        for (number, (indent, gap, comment)) in items.iter().enumerate() {
            let margin = " ".repeat(items[0].0);
            if *comment { text += &format!("{}# - apiVersion: v2\n", " ".repeat(*indent)); }
            text += &format!(
                "{margin}- {space}apiVersion: v1\n{margin}  {space}kind: Service\n{margin}  {space}metadata:\n\
                 {margin}  {space}  name: s{number}\n{margin}  {space}  annotations:\n{margin}  {space}    x: |\n\
                 {margin}  {space}      - a\n\n", space = " ".repeat(*gap));
        }
        let read = |lists| -> Vec<Object> {
            let pieces = split(&text, Format::Yaml, lists).unwrap();
            pieces.iter().flat_map(|piece| decode(&text, piece).unwrap()).collect()
        };
        prop_assert_eq!(read(true), read(false));
        prop_assert_eq!(read(true).len(), items.len());
    }

    /// Whatever files are written and deleted, in whatever looks, the changes lead to what the files
    /// hold: each file's last good version, the first file counting.
    #[test]
    fn changes_lead_to_what_the_files_hold(
        looks in proptest::collection::vec(proptest::collection::vec(
            (0..4usize, proptest::option::weighted(0.8, proptest::collection::vec((0..4u8, 1..4u8), 0..4)), any::<bool>()), 0..4), 1..12),
    ) {
        let mut store = new_store();
        let mut disk: BTreeMap<String, String> = BTreeMap::new();
        let mut good: BTreeMap<String, Vec<(u8, u8)>> = BTreeMap::new();
        let mut state = BTreeMap::new();
        for look in looks {
            for (file, objects, broken) in look {
                let name = format!("{file}.yaml");
                match objects {
                    None => {
                        disk.remove(&name);
                        good.remove(&name);
                        store.remove(&name);
                    }
                    // A broken version may not be the one that counts later and is read again.
                    Some(_) if broken && !good.contains_key(&name) => {
                        disk.insert(name.clone(), "kind: [".to_owned());
                        store.put(&[(name.clone(), b"kind: [".to_vec())]);
                    }
                    Some(objects) => {
                        let text: Vec<_> = objects.iter().map(|(object, version)| {
                            service(&format!("s{object}"), &format!("10.96.0.{version}"))
                        }).collect();
                        let text = text.join("---\n");
                        store.put(&[(name.clone(), text.clone().into_bytes())]);
                        disk.insert(name.clone(), text);
                        good.insert(name, objects);
                    }
                }
            }
            let changes = store.difference(|name| Ok(disk[name].clone().into_bytes()));
            apply(&mut state, changes);
            let mut expected = BTreeMap::new();
            for (object, version) in good.values().flatten() {
                expected.entry(format!("Service default/s{object}")).or_insert(*version);
            }
            let shown: BTreeMap<_, _> = state.iter().map(|(key, change)| (key.clone(), short(change))).collect();
            let expected: BTreeMap<_, _> = expected.into_iter().map(|(key, version)| {
                let text = format!("{key} 10.96.0.{version}");
                (key, text)
            }).collect();
            prop_assert_eq!(shown, expected);
        }
    }
}
