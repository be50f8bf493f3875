//! Reads the text of a configuration file: strict about types, lenient about names.
//!
//! As kube-proxy does it: a field that does not exist or occurs twice is reported and ignored (of
//! two the last one counts), a value of the wrong type is an error. `null` is the same as absent.
//! YAML and JSON are both read; of several YAML documents the first one counts.

use super::document::{API_VERSION, KIND, KubeProxyConfiguration};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;
use std::cell::RefCell;
use std::fmt;

/// Why a file is not a KubeProxyConfiguration.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not valid YAML or JSON: {0}")]
    Syntax(#[from] serde_norway::Error),
    #[error("{field} is {found:?}, but this program reads only {KIND} of {API_VERSION}")]
    Kind { field: &'static str, found: String },
    #[error(
        "the file holds no {KIND}: it must start with apiVersion: {API_VERSION} and kind: {KIND}"
    )]
    NoObject,
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },
}

/// The configuration as written, without defaults, and what is odd about the file.
pub(super) fn decode(text: &str) -> Result<(KubeProxyConfiguration, Vec<String>), DecodeError> {
    let oddities = RefCell::new(Vec::new());
    // As some editors write it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = serde_norway::Deserializer::from_str(text);
    let Some(document) = documents.next() else { return Err(DecodeError::NoObject) };
    let value = Tree { path: String::new(), oddities: &oddities }.deserialize(document)?;
    let mut oddities = oddities.into_inner();

    check_kind(&value)?;
    let mut unknown = |path: serde_ignored::Path<'_>| {
        oddities.push(format!("unknown field {:?}", field_path(&path.to_string())));
    };
    let configuration = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(
        Typed(value),
        &mut unknown,
    ))
    .map_err(|error| DecodeError::Field {
        field: field_path(&error.path().to_string()),
        reason: error.inner().to_string(),
    })?;
    if documents.next().is_some() {
        oddities.push("more than one YAML document, of which only the first counts".to_owned());
    }
    Ok((configuration, oddities))
}

/// Refuses other kinds and versions before their fields are looked at.
fn check_kind(value: &Value) -> Result<(), DecodeError> {
    let Value::Object(object) = value else { return Err(DecodeError::NoObject) };
    for (field, expected) in [("kind", KIND), ("apiVersion", API_VERSION)] {
        match object.get(field) {
            None => return Err(DecodeError::NoObject),
            Some(Value::String(found)) if found == expected => {}
            Some(found) => {
                let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
                return Err(DecodeError::Kind { field, found });
            }
        }
    }
    Ok(())
}

/// `vmodule.0.verbosity` (which is how the path crates write it) as `vmodule[0].verbosity`; `?`
/// stands for an optional field and is no step.
fn field_path(path: &str) -> String {
    let mut out = String::new();
    for step in path.split('.').filter(|step| !matches!(*step, "?" | "")) {
        if step.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str(&format!("[{step}]"));
        } else {
            out.push_str(if out.is_empty() { "" } else { "." });
            out.push_str(step);
        }
    }
    out
}

/// A value that is read as the type of its field wants it.
struct Typed(Value);

impl<'de> IntoDeserializer<'de, serde_json::Error> for Typed {
    type Deserializer = Typed;

    fn into_deserializer(self) -> Typed {
        self
    }
}

impl<'de> Deserializer<'de> for Typed {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(list) => {
                visitor.visit_seq(SeqDeserializer::new(list.into_iter().map(Typed)))
            }
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| (name, Typed(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
            scalar => scalar.deserialize_any(visitor),
        }
    }

    /// `yes`, `no`, `on` and `off` are booleans in YAML 1.1, which is what kube-proxy reads, and
    /// words in YAML 1.2, which is what our parser reads.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0.as_str() {
            Some("y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON") => {
                visitor.visit_bool(true)
            }
            Some("n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF") => {
                visitor.visit_bool(false)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    /// Null is gone by now.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    /// A list is no section: serde would read it as the section's fields in order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(_) => Err(Error::custom("invalid type: a list, expected fields")),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Builds a JSON value from any document; notes duplicate keys, drops nulls of maps.
struct Tree<'a> {
    path: String,
    oddities: &'a RefCell<Vec<String>>,
}

impl<'a> Tree<'a> {
    fn child(&self, step: &str) -> Tree<'a> {
        let dot = if self.path.is_empty() || step.starts_with('[') { "" } else { "." };
        Tree { path: format!("{}{dot}{step}", self.path), oddities: self.oddities }
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    /// A number without a fraction is an integer, however it is written (`5.0`, `1e3`).
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        match value.fract() == 0.0 && value.abs() < 1e15 {
            true => Ok((value as i64).into()),
            false => Ok(value.into()),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) =
            entries.next_element_seed(self.child(&format!("[{}]", list.len())))?
        {
            list.push(entry);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = serde_json::Map::new();
        let mut seen = std::collections::HashSet::new();
        let mut merged = Vec::new();
        while let Some(key) = entries.next_key_seed(self.child("(key)"))? {
            let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            let child = self.child(&key);
            if !seen.insert(key.clone()) {
                let oddity = format!("duplicate field {:?}, of which the last counts", child.path);
                self.oddities.borrow_mut().push(oddity);
            }
            match entries.next_value_seed(child)? {
                value if key == MERGE => {
                    merged = fields_to_merge(value).map_err(A::Error::custom)?
                }
                Value::Null => drop(map.remove(&key)),
                value => drop(map.insert(key, value)),
            }
        }
        // What stands here goes before what is merged in, wherever the key stands.
        merged.retain(|(key, _)| seen.insert(key.clone()));
        map.extend(merged);
        Ok(Value::Object(map))
    }
}

/// The key whose value is the fields of another section (<https://yaml.org/type/merge.html>).
const MERGE: &str = "<<";

/// The fields of a section, or of several, of which the first one goes before the others.
fn fields_to_merge(value: Value) -> Result<Vec<(String, Value)>, &'static str> {
    let sections = match value {
        Value::Array(sections) => sections,
        section => vec![section],
    };
    let mut fields = Vec::new();
    for section in sections {
        let Value::Object(section) = section else {
            return Err("<< wants a section or a list of sections");
        };
        fields.extend(section);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

    fn good(text: &str) -> (KubeProxyConfiguration, Vec<String>) {
        decode(&format!("{HEAD}{text}")).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn bad(text: &str) -> String {
        match decode(text) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{text} was accepted"),
        }
    }

    #[test]
    fn null_is_absent_everywhere() {
        let (c, oddities) = good(
            "mode: null\nconntrack: null\nnftables:\n  syncPeriod: null\n  masqueradeAll: ~\n\
             featureGates: null\nnodePortAddresses: null\nlogging: {vmodule: null}\n",
        );
        assert_eq!(c.mode, "");
        assert_eq!(c.node_port_addresses, None);
        assert!(oddities.is_empty(), "{oddities:?}");
    }

    #[test]
    fn unknown_and_duplicate_fields_are_named_and_the_rest_is_read() {
        let (c, oddities) = good(
            "mode: iptables\nmode: nftables\nudpIdleTimeout: 250ms\n\
             nftables: {masqueradeAll: true, fast: 1, masqueradeAll: false}\n\
             logging:\n  vmodule:\n  - {filePattern: a, verbosity: 3, level: 2}\n",
        );
        assert_eq!(c.mode, "nftables");
        assert!(!c.nftables.masquerade_all);
        assert_eq!(
            oddities,
            [
                "duplicate field \"mode\", of which the last counts",
                "duplicate field \"nftables.masqueradeAll\", of which the last counts",
                "unknown field \"logging.vmodule[0].level\"",
                "unknown field \"nftables.fast\"",
                "unknown field \"udpIdleTimeout\"",
            ]
        );
    }

    #[test]
    fn names_are_case_sensitive() {
        let (c, oddities) = good("clusterCidr: 10.0.0.0/8\n");
        assert_eq!(c.cluster_cidr, "");
        assert_eq!(oddities, ["unknown field \"clusterCidr\""]);
    }

    #[test]
    fn json_is_read_too() {
        let text = r#"{"kind": "KubeProxyConfiguration", "mode": "nftables",
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "clientConnection": {"qps": 7.5}}"#;
        let (c, oddities) = decode(text).unwrap();
        assert_eq!((c.mode.as_str(), c.client_connection.qps), ("nftables", 7.5));
        assert!(oddities.is_empty());
    }

    #[test]
    fn booleans_and_integers_are_read_as_yaml_1_1_has_them() {
        let (c, oddities) = good(
            "enableProfiling: yes\noomScoreAdj: -5.0\nconntrack: {min: 1e3, tcpBeLiberal: On}\n\
             iptables: {localhostNodePorts: no}\nfeatureGates: {A: off, B: true}\n\
             clientConnection: {qps: 2.0, burst: 7}\nhostnameOverride: no\n",
        );
        assert!(oddities.is_empty());
        assert!(c.enable_profiling && c.conntrack.tcp_be_liberal);
        assert_eq!((c.oom_score_adj, c.conntrack.min), (Some(-5), Some(1000)));
        assert_eq!(c.iptables.localhost_node_ports, Some(false));
        assert_eq!((c.feature_gates["A"], c.feature_gates["B"]), (false, true));
        assert_eq!((c.client_connection.qps, c.client_connection.burst), (2.0, 7));
        assert_eq!(c.hostname_override, "no");
    }

    #[test]
    fn flush_frequency_is_a_duration_or_nanoseconds() {
        for (text, expected) in
            [("5s", "5s"), ("5000000000", "5s"), ("0", "0s"), ("\"1m\"", "1m0s")]
        {
            let (c, _) = good(&format!("logging: {{flushFrequency: {text}}}\n"));
            assert_eq!(c.logging.flush_frequency.to_string(), expected);
        }
    }

    #[test]
    fn a_wrong_type_is_an_error_that_names_the_field() {
        for (text, field) in [
            ("clientConnection: {burst: many}", "clientConnection.burst: invalid type"),
            ("nftables: {syncPeriod: 30}", "nftables.syncPeriod: invalid type"),
            ("nftables: {syncPeriod: 30 seconds}", "nftables.syncPeriod: unknown unit"),
            ("conntrack: {tcpEstablishedTimeout: 5}", "conntrack.tcpEstablishedTimeout: invalid"),
            ("nodePortAddresses: [10.0.0.0/8, 5]", "nodePortAddresses[1]: invalid type"),
            ("featureGates: {X: maybe}", "featureGates.X: invalid type"),
            ("iptables: []", "iptables: invalid"),
        ] {
            let error = bad(&format!("{HEAD}{text}\n"));
            assert!(error.starts_with(field), "{text}: {error}");
        }
    }

    #[test]
    fn other_kinds_and_broken_files_are_refused() {
        for (text, expected) in [
            ("", "holds no KubeProxyConfiguration"),
            ("# nothing\n", "holds no KubeProxyConfiguration"),
            ("- a\n", "holds no KubeProxyConfiguration"),
            ("kind: KubeProxyConfiguration\n", "holds no KubeProxyConfiguration"),
            ("kind: KubeletConfiguration\napiVersion: v1\n", "kind is \"KubeletConfiguration\""),
            (
                "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v2\n",
                "apiVersion is \"kubeproxy.config.k8s.io/v2\"",
            ),
            ("a: [\n", "not valid YAML or JSON"),
        ] {
            let error = bad(text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-a-z0-9:{}\\[\\]\"'&*!|>#%@,.? \\n]{0,80}") {
            let _ = decode(&text);
            let _ = decode(&format!("{HEAD}{text}"));
            let _ = decode(&format!("{HEAD}logging: {{vmodule: [{text}]}}"));
        }
    }

    #[test]
    fn further_documents_are_reported() {
        let (_, oddities) = good("---\nkind: X\n");
        assert_eq!(oddities, ["more than one YAML document, of which only the first counts"]);
    }
}
