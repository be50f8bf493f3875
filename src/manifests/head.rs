//! What kind of object a text holds.
//!
//! Most texts tell it without being parsed: in block style, a line that starts with `kind:` in the column
//! of the top-level keys is that key.

use super::text::yaml_lines;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// `apiVersion` and `kind` of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub api_version: Option<String>,
    pub kind: Option<String>,
}

/// By hand, since a derived one takes a sequence for a struct.
impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadVisitor;

        impl<'de> Visitor<'de> for HeadVisitor {
            type Value = Head;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a Kubernetes object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
                let mut head = Head::default();
                while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                    match &*key {
                        "apiVersion" => head.api_version = map.next_value()?,
                        "kind" => head.kind = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(head)
            }
        }

        deserializer.deserialize_map(HeadVisitor)
    }
}

impl Head {
    /// If this is the head of a list, the one that it gives its items: those of a `List` have their
    /// own, those of a `ServiceList` are `Service`s.
    pub fn list(&self) -> Option<Option<Head>> {
        match self.kind.as_deref()?.strip_suffix("List")? {
            "" => Some(None),
            kind => Some(Some(Head {
                api_version: self.api_version.clone(),
                kind: Some(kind.to_owned()),
            })),
        }
    }

    /// Which kind it is.
    pub fn known(&self) -> Result<Kind, String> {
        let (Some(api_version), Some(kind)) = (&self.api_version, &self.kind) else {
            let missing = if self.kind.is_none() { "kind" } else { "apiVersion" };
            return Err(format!("{missing}: missing"));
        };
        let known = match (api_version.as_str(), kind.as_str()) {
            ("v1", "Service") => Kind::Service,
            ("v1", "Node") => Kind::Node,
            ("discovery.k8s.io/v1", "EndpointSlice") => Kind::EndpointSlice,
            ("networking.k8s.io/v1", "ServiceCIDR") => Kind::ServiceCidr,
            _ => Kind::Other,
        };
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let version = match (group, kind.as_str()) {
            _ if known != Kind::Other => return Ok(known),
            ("", "Service" | "Node") => "v1",
            ("discovery.k8s.io", "EndpointSlice") => "discovery.k8s.io/v1",
            ("networking.k8s.io", "ServiceCIDR") => "networking.k8s.io/v1",
            _ => return Ok(Kind::Other),
        };
        Err(format!("apiVersion: {api_version:?} of {kind} is not known, {version} is"))
    }
}

/// The kinds of objects that matter, and all others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Service,
    EndpointSlice,
    Node,
    ServiceCidr,
    Other,
}

/// Shares equal heads: a file has thousands of objects and a few kinds.
#[derive(Debug, Default)]
pub struct Heads(Vec<Arc<Head>>);

impl Heads {
    /// The most heads that are kept to be shared.
    const MOST: usize = 16;

    pub fn share(&mut self, head: Head) -> Arc<Head> {
        if let Some(known) = self.0.iter().find(|known| ***known == head) {
            return known.clone();
        }
        let head = Arc::new(head);
        if self.0.len() < Self::MOST {
            self.0.push(head.clone());
        }
        head
    }
}

/// apiVersion and kind of a mapping in block style whose keys stand at a column; None if only a parser can tell.
pub fn of_yaml(text: &str, column: usize) -> Option<Head> {
    read_off(yaml_lines(text), column)
}

/// The same for an entry of a sequence, whose first key stands behind the dash.
pub fn of_yaml_item(text: &str, dash: usize) -> Option<Head> {
    let rest = &text[dash + 1..];
    let column = dash + 1 + (rest.len() - rest.trim_start_matches(' ').len());
    // The dash is white space for what is behind it.
    let text = format!("{:column$}{}", "", text.get(column..).unwrap_or_default());
    read_off(yaml_lines(&text), column)
}

fn read_off<'a>(lines: impl Iterator<Item = &'a str>, column: usize) -> Option<Head> {
    let mut head = Head::default();
    let mut was_head = false;
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let (margin, line) = line.split_at_checked(column).unwrap_or((line, ""));
        let is_key = margin.bytes().all(|byte| byte == b' ') && !line.starts_with([' ', '\t']);
        if was_head && !is_key && line.starts_with([' ', '\t']) {
            // What stands before goes on here.
            return None;
        }
        was_head = is_key && head_line(line, &mut head)?;
    }
    (head.api_version.is_some() && head.kind.is_some()).then_some(head)
}

/// Whether a line is about the head; None if it is said in a way, or once more, that a parser has to make sense of.
fn head_line(line: &str, head: &mut Head) -> Option<bool> {
    let (place, value) = if let Some(value) = line.strip_prefix("kind:") {
        (&mut head.kind, value)
    } else if let Some(value) = line.strip_prefix("apiVersion:") {
        (&mut head.api_version, value)
    } else {
        return Some(false);
    };
    let value = value.split(" #").next().unwrap_or_default().trim();
    let value = ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(value);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"./-".contains(&byte);
    let is_new = place.is_none() && !value.is_empty() && value.bytes().all(plain);
    is_new.then(|| *place = Some(value.to_owned())).map(|()| true)
}
