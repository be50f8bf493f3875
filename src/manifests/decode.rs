//! From a piece of text to Kubernetes objects.

use super::split::{Form, Piece};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_norway::Value;
use std::borrow::Cow;
use std::fmt;

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

    fn known(&self) -> Result<Kind, String> {
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Service,
    EndpointSlice,
    Node,
    ServiceCidr,
    Other,
}

/// An object of a kind that matters, or the kind of one that does not.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Node(Box<Node>),
    ServiceCidr(Box<ServiceCIDR>),
    Other(String),
}

/// Parses a piece of a file. The error says where and what, with the field's path and the line of the
/// file (the piece is a part of `file`).
pub fn decode(file: &str, piece: &Piece<'_>) -> Result<Vec<Object>, String> {
    let decoded = match piece.form {
        Form::YamlList => decode_list(file, piece.text),
        _ => decode_one(file, piece),
    };
    decoded.map_err(|message| match (piece.item, piece.form) {
        (None, _) => message,
        // The item was parsed as a sequence of its own.
        (Some(item), Form::YamlItem) => {
            let rest = message.strip_prefix(".[0]").unwrap_or(&message);
            let colon = if rest.starts_with(['.', ':']) { "" } else { ": " };
            format!("items[{item}]{colon}{rest}")
        }
        (Some(item), _) => format!("items[{item}].{message}"),
    })
}

fn decode_one(file: &str, piece: &Piece<'_>) -> Result<Vec<Object>, String> {
    let parsed: Head;
    let head = match &piece.head {
        Some(head) => head,
        None => {
            parsed = read(file, piece)?;
            if parsed.list().is_some() && piece.form == Form::Yaml {
                return decode_list(file, piece.text);
            }
            &parsed
        }
    };
    // A merge key (`<<: *anchor`) is only honoured by way of a `Value`.
    if piece.form != Form::Json && piece.text.contains("<<:") {
        let mut value: Value = read(file, piece)?;
        value.apply_merge().map_err(|error| error.to_string())?;
        return from_value(Some(head), value).map(|object| vec![object]);
    }
    let object = match head.known()? {
        Kind::Service => Object::Service(Box::new(read(file, piece)?)),
        Kind::EndpointSlice => Object::EndpointSlice(Box::new(read(file, piece)?)),
        Kind::Node => Object::Node(Box::new(read(file, piece)?)),
        Kind::ServiceCidr => Object::ServiceCidr(Box::new(read(file, piece)?)),
        Kind::Other => Object::Other(head.kind.clone().unwrap_or_default()),
    };
    Ok(vec![object])
}

/// A list that could not be cut into items.
#[derive(Deserialize)]
struct List {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<String>,
    items: Option<Vec<Value>>,
}

fn decode_list(file: &str, text: &str) -> Result<Vec<Object>, String> {
    let mut value: Value = yaml(file, text)?;
    value.apply_merge().map_err(|error| error.to_string())?;
    let list: List = serde_norway::from_value(value).map_err(|error| error.to_string())?;
    let head = Head { api_version: list.api_version, kind: list.kind }.list().flatten();
    let items = list.items.unwrap_or_default().into_iter().enumerate();
    items
        .map(|(index, item)| {
            from_value(head.as_ref(), item).map_err(|message| format!("items[{index}]: {message}"))
        })
        .collect()
}

fn from_value(head: Option<&Head>, value: Value) -> Result<Object, String> {
    fn typed<T: DeserializeOwned>(value: Value) -> Result<Box<T>, String> {
        serde_norway::from_value(value).map(Box::new).map_err(|error| error.to_string())
    }
    let own: Head;
    let head = match head {
        Some(head) => head,
        None => {
            own = Head::deserialize(&value).map_err(|error| error.to_string())?;
            &own
        }
    };
    Ok(match head.known()? {
        Kind::Service => Object::Service(typed(value)?),
        Kind::EndpointSlice => Object::EndpointSlice(typed(value)?),
        Kind::Node => Object::Node(typed(value)?),
        Kind::ServiceCidr => Object::ServiceCidr(typed(value)?),
        Kind::Other => Object::Other(head.kind.clone().unwrap_or_default()),
    })
}

fn read<T: DeserializeOwned>(file: &str, piece: &Piece<'_>) -> Result<T, String> {
    match piece.form {
        Form::Json => json(file, piece.text),
        Form::YamlItem => yaml::<(T,)>(file, piece.text).map(|(value,)| value),
        Form::Yaml | Form::YamlList => yaml(file, piece.text),
    }
}

fn yaml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, String> {
    serde_norway::from_str(text).or_else(|_| {
        // Once more, with all lines where they are in the file.
        serde_norway::from_str(&padded(file, text)).map_err(|error| error.to_string())
    })
}

/// Parses a part of a JSON file.
pub fn json<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).or_else(|_| {
        let padded = padded(file, text);
        let mut parser = serde_json::Deserializer::from_str(&padded);
        serde_path_to_error::deserialize(&mut parser).map_err(|error| error.to_string())
    })
}

/// A part of a file where it stands in the file, but with white space before it, so that the parser
/// names lines and columns of the file.
fn padded(file: &str, text: &str) -> String {
    let offset = (text.as_ptr() as usize).saturating_sub(file.as_ptr() as usize);
    let before = file.get(..offset).unwrap_or_default();
    let (lines, line) = before
        .rsplit_once('\n')
        .map_or((0, before), |(lines, line)| (lines.matches('\n').count() + 1, line));
    let mut padded = "\n".repeat(lines);
    padded.extend(line.bytes().map(|_| ' '));
    padded.push_str(text);
    padded
}
