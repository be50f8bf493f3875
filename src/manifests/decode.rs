//! From a piece of text to Kubernetes objects.

use super::head::{Head, Kind};
use super::split::{Form, Piece};
use super::text::{json, yaml};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_norway::Value;

/// An object of a kind that matters, or the kind of one that does not.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Node(Box<Node>),
    ServiceCidr(Box<ServiceCIDR>),
    Other(String),
}

/// A piece that cannot be used, or not all of it.
#[derive(Debug, Default)]
pub struct Bad {
    /// Where and what first, with the field's path and the line of the file.
    pub message: String,
    /// The objects in it that can be used all the same.
    pub others: Vec<Object>,
}

impl From<String> for Bad {
    fn from(message: String) -> Bad {
        Bad { message, others: Vec::new() }
    }
}

/// Parses a piece of a file, which is a part of `file`.
///
/// # Errors
/// What is wrong; one odd item of a list does not spoil the others.
pub fn decode(file: &str, piece: &Piece<'_>) -> Result<Vec<Object>, Bad> {
    if piece.form == Form::YamlList {
        return decode_list(file, piece.text);
    }
    decode_one(file, piece).map_err(|Bad { message, others }| {
        let message = match (piece.item, piece.form) {
            (None, _) => message,
            // The item was parsed as a sequence of its own.
            (Some(item), Form::YamlItem) => {
                let rest = message.strip_prefix(".[0]").unwrap_or(&message);
                let colon = if rest.starts_with(['.', ':']) { "" } else { ": " };
                format!("items[{item}]{colon}{rest}")
            }
            (Some(item), _) => format!("items[{item}].{message}"),
        };
        Bad { message, others }
    })
}

fn decode_one(file: &str, piece: &Piece<'_>) -> Result<Vec<Object>, Bad> {
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
        return Ok(vec![from_value(Some(head), value)?]);
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

fn decode_list(file: &str, text: &str) -> Result<Vec<Object>, Bad> {
    let mut value: Value = yaml(file, text)?;
    value.apply_merge().map_err(|error| error.to_string())?;
    let list: List = serde_norway::from_value(value).map_err(|error| error.to_string())?;
    let head = Head { api_version: list.api_version, kind: list.kind }.list().flatten();
    let (mut objects, mut error) = (Vec::new(), None);
    for (index, item) in list.items.unwrap_or_default().into_iter().enumerate() {
        match from_value(head.as_ref(), item) {
            Ok(object) => objects.push(object),
            Err(message) => drop(error.get_or_insert(format!("items[{index}]: {message}"))),
        }
    }
    match error {
        None => Ok(objects),
        Some(message) => Err(Bad { message, others: objects }),
    }
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
