//! Files of a directory of manifests.

use kube_proxy::intake::Options;
use kube_proxy::manifests::fuzzing::{Format, Object, Store, decode, split};
use kube_proxy::model::Change;

/// Reads a file as YAML and as JSON: documents are cut and decoded without a panic, a list means the same cut and whole,
/// and a store that takes the file in, once or twice, and lets go of it is as it was.
pub fn check(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        for format in [Format::Yaml, Format::Json] {
            let (cut, whole) = (read(text, format, true), read(text, format, false));
            // A cut list may fail, and is then read as a whole.
            if let (Some(cut), Some(whole)) = (cut, whole) {
                assert_eq!(cut, whole);
            }
        }
    }
    let mut store = Store::new("node-1", Options::default());
    for name in ["file.yaml", "file.json"] {
        let file = [(name.to_owned(), bytes.to_vec())];
        let read = |_: &str| Ok(bytes.to_vec());
        store.put(&file);
        let there = store.difference(read);
        store.put(&file);
        assert_eq!(store.difference(read), [], "{name} again");
        store.remove(name);
        let gone = store.difference(|_| panic!("no file is left"));
        assert!(gone.iter().all(is_gone), "{gone:?}");
        let came: Vec<&Change> = there.iter().filter(|change| !is_gone(change)).collect();
        assert_eq!(came.len(), gone.len(), "{came:?} {gone:?}");
    }
}

/// The objects of a file, if it can be read.
fn read(text: &str, format: Format, lists: bool) -> Option<Vec<Object>> {
    let pieces = split(text, format, lists).ok()?;
    let mut objects = Vec::new();
    for piece in &pieces {
        objects.extend(decode(text, piece).ok()?);
    }
    Some(objects)
}

fn is_gone(change: &Change) -> bool {
    matches!(
        change,
        Change::Service(_, None)
            | Change::EndpointSlice(_, None)
            | Change::Node(None)
            | Change::ServiceCidr(_, None)
    )
}
