//! Objects of cases: merged, placeholders replaced, and read as manifests.

use super::topology::Topology;
use kube_proxy::intake::Options;
use kube_proxy::manifests::Source;
use kube_proxy::model::Change;
use nft_table::Family;
use serde_json::{Map, Value, json};
use std::fs;
use tempfile::TempDir;

/// Merges one object into another as RFC 7386 has it: null takes a field away.
pub fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        if !patch.is_null() {
            *into = patch.clone();
        }
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let object = into.as_object_mut().expect("it is one now");
    for (key, value) in patch {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// `Kind/namespace/name`.
fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let metadata = &object["metadata"];
    let kind = text(&object["kind"]).unwrap_or_else(|| panic!("no kind: {object}"));
    let name = text(&metadata["name"]).unwrap_or_else(|| panic!("no metadata.name: {object}"));
    let namespace = text(&metadata["namespace"]).unwrap_or_else(|| "default".to_owned());
    format!("{kind}/{namespace}/{name}")
}

/// Adds objects, and merges those that are there already.
pub fn change(state: &mut Vec<Value>, changes: &[Value]) {
    for change in changes {
        match state.iter_mut().find(|object| name(object) == name(change)) {
            Some(object) => merge(object, change),
            None => {
                let mut object = json!({});
                merge(&mut object, change);
                state.push(object);
            }
        }
    }
}

/// Deletes `Kind/name` or `Kind/namespace/name`.
pub fn delete(state: &mut Vec<Value>, which: &str) {
    let which = match which.split('/').collect::<Vec<_>>()[..] {
        [kind, name] => format!("{kind}/default/{name}"),
        _ => which.to_owned(),
    };
    let before = state.len();
    state.retain(|object| name(object) != which);
    assert_eq!(state.len() + 1, before, "there is no {which} to delete");
}

/// Manifests without placeholders.
pub fn expand(state: &[Value], topology: &Topology) -> Vec<Value> {
    let mut manifests = Vec::new();
    for object in state {
        let mut object = object.clone();
        let (api_version, is_slice) = match object["kind"].as_str() {
            Some("Service" | "Node") => ("v1", false),
            Some("EndpointSlice") => ("discovery.k8s.io/v1", true),
            Some("ServiceCIDR") => ("networking.k8s.io/v1", false),
            kind => panic!("what is a {kind:?}?"),
        };
        object["apiVersion"] = json!(api_version);
        if !is_slice {
            manifests.push(replaced(&object, None, topology));
            continue;
        }
        endpoints(&mut object, topology);
        match object["addressType"].as_str() {
            Some(_) => manifests.push(replaced(&object, None, topology)),
            None => {
                manifests.extend(Family::BOTH.map(|family| of_family(&object, family, topology)))
            }
        }
    }
    manifests
}

/// A slice without addressType stands for two.
fn of_family(slice: &Value, family: Family, topology: &Topology) -> Value {
    let mut slice = replaced(slice, Some(family), topology);
    let name = slice["metadata"]["name"].as_str().expect("a name");
    slice["metadata"]["name"] = json!(format!("{name}-{}", family.to_string().to_lowercase()));
    slice["addressType"] = json!(family.to_string());
    slice
}

/// In place of an endpoint may stand a host, or `host:` in place of addresses and nodeName. The Service of
/// a slice without that label is the one of the same name.
fn endpoints(slice: &mut Value, topology: &Topology) {
    let name = slice["metadata"]["name"].clone();
    let labels = &mut slice["metadata"]["labels"];
    if labels.is_null() {
        *labels = json!({});
    }
    let labels = labels.as_object_mut().expect("labels");
    labels.entry("kubernetes.io/service-name").or_insert(name);
    for endpoint in slice["endpoints"].as_array_mut().into_iter().flatten() {
        if let Some(host) = endpoint.as_str() {
            *endpoint = json!({ "host": host });
        }
        let object = endpoint.as_object_mut().expect("an endpoint");
        let Some(host) = object.remove("host") else { continue };
        let host = host.as_str().expect("a host");
        let node = topology.host(host).unwrap_or_else(|| panic!("no host {host}")).node.as_str();
        object.insert("addresses".into(), json!([format!("${host}")]));
        object.entry("nodeName").or_insert(json!(node));
    }
}

/// With `$NAME.4` and `$NAME.6` replaced by addresses, and `$NAME` by that of the family. Where there is no
/// family, a list item with `$NAME` in it becomes one per family.
fn replaced(value: &Value, family: Option<Family>, topology: &Topology) -> Value {
    match value {
        Value::String(text) => Value::String(text_replaced(text, family, topology)),
        Value::Array(items) => {
            let mut list = Vec::new();
            for item in items {
                match family {
                    None if is_of_both(item) => {
                        let of = |family| replaced(item, Some(family), topology);
                        list.extend(Family::BOTH.map(of));
                    }
                    _ => list.push(replaced(item, family, topology)),
                }
            }
            Value::Array(list)
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields =
                fields.map(|(key, value)| (key.clone(), replaced(value, family, topology)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// Is there a `$NAME` without family in it, apart from inner lists?
fn is_of_both(item: &Value) -> bool {
    match item {
        Value::String(text) => placeholder(text).is_some_and(|(_, family, _)| family.is_none()),
        Value::Object(fields) => fields.values().any(is_of_both),
        _ => false,
    }
}

/// `$client.4/32` is `client`, IPv4 and `/32`.
fn placeholder(text: &str) -> Option<(&str, Option<Family>, &str)> {
    let rest = text.strip_prefix('$')?;
    let (name, suffix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Some(match (name.strip_suffix(".4"), name.strip_suffix(".6")) {
        (Some(name), _) => (name, Some(Family::V4), suffix),
        (_, Some(name)) => (name, Some(Family::V6), suffix),
        _ => (name, None, suffix),
    })
}

fn text_replaced(text: &str, family: Option<Family>, topology: &Topology) -> String {
    let Some((name, own, suffix)) = placeholder(text) else { return text.to_owned() };
    let family = own.or(family).unwrap_or_else(|| panic!("{text}: of which family?"));
    let addresses = topology.addresses(name);
    let address = addresses.iter().find(|address| Family::of(address) == family);
    format!("{}{suffix}", address.unwrap_or_else(|| panic!("what is {text}?")))
}

/// The changes from one state to the next, as the manifests source sees them.
#[derive(Default)]
pub struct Manifests {
    known: Vec<Change>,
}

impl Manifests {
    /// What differs when these are the objects.
    pub fn changes(&mut self, objects: &[Value]) -> Vec<Change> {
        let directory = TempDir::new().expect("a temporary directory");
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let path = directory.path().join("all.json");
        fs::write(path, list.to_string()).expect("write the manifests");
        let opened = Source::open(directory.path(), "node", Options::default());
        let (_, now) = opened.expect("read the manifests");
        let before = std::mem::replace(&mut self.known, now.clone());
        let gone =
            before.iter().map(without).filter(|old| !now.iter().any(|new| without(new) == *old));
        let new = now.iter().filter(|change| !before.contains(change)).cloned();
        gone.chain(new).collect()
    }
}

/// The change that takes the object of a change away.
fn without(change: &Change) -> Change {
    match change {
        Change::Service(name, _) => Change::Service(name.clone(), None),
        Change::EndpointSlice(name, _) => Change::EndpointSlice(name.clone(), None),
        Change::Node(_) => Change::Node(None),
        Change::ServiceCidr(name, _) => Change::ServiceCidr(name.clone(), None),
    }
}
