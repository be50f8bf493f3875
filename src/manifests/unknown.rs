//! Fields that no object of the kind has: most often a slip of the pen (`nodeport`), which would
//! otherwise be ignored in silence.
//!
//! This parses a piece once more and keeps note of every key on the way, so it is for files that people
//! write, not for a dump of 100,000 objects.

use super::decode::Object;
use super::split::{Form, Piece};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_ignored::Path;
use std::fmt;

/// The paths of unknown fields in a piece from which an object was parsed.
pub fn fields(piece: &Piece<'_>, object: &Object) -> Vec<String> {
    match object {
        Object::Service(_) => of::<Service>(piece),
        Object::EndpointSlice(_) => of::<EndpointSlice>(piece),
        Object::Node(_) => of::<Node>(piece),
        Object::ServiceCidr(_) => of::<ServiceCIDR>(piece),
        Object::Other(_) => Vec::new(),
    }
}

fn of<T: DeserializeOwned>(piece: &Piece<'_>) -> Vec<String> {
    let mut fields = Vec::new();
    let mut note = |path: Path<'_>| {
        let field = Dotted(&path).to_string();
        // Where anchors are, they may be kept under a name of their own.
        if !field.ends_with("<<") {
            fields.push(field);
        }
    };
    // What does not parse has been reported before.
    let _ = match piece.form {
        Form::Json => {
            let mut parser = serde_json::Deserializer::from_str(piece.text);
            serde_ignored::deserialize::<_, _, T>(&mut parser, note).map(drop).map_err(drop)
        }
        Form::Yaml => {
            let parser = serde_norway::Deserializer::from_str(piece.text);
            serde_ignored::deserialize::<_, _, T>(parser, note).map(drop).map_err(drop)
        }
        Form::YamlItem => {
            let parser = serde_norway::Deserializer::from_str(piece.text);
            let items = Vec::<serde_norway::Value>::deserialize(parser).unwrap_or_default();
            items.into_iter().try_for_each(|item| {
                serde_ignored::deserialize::<_, _, T>(item, &mut note).map(drop).map_err(drop)
            })
        }
        Form::YamlList => Ok(()),
    };
    fields
}

/// A path as in all other messages: `spec.ports[0].nodeport`.
struct Dotted<'a>(&'a Path<'a>);

impl fmt::Display for Dotted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Path::Root => Ok(()),
            Path::Seq { parent, index } => write!(f, "{}[{index}]", Dotted(parent)),
            Path::Map { parent, key } => {
                let parent = Dotted(parent).to_string();
                let dot = if parent.is_empty() { "" } else { "." };
                write!(f, "{parent}{dot}{key}")
            }
            Path::Some { parent }
            | Path::NewtypeStruct { parent }
            | Path::NewtypeVariant { parent } => Dotted(parent).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::decode;
    use super::super::split::{Format, split};
    use super::*;

    #[test]
    fn unknown_fields_are_named() {
        let spec = "spec:\n  clusterIp: 10.96.0.1\n  ports:\n  - port: 80\n    nodeport: 30080\n";
        let yaml = format!("apiVersion: v1\nkind: Service\nmetadata: {{labels: {{x: y}}}}\n{spec}");
        let expected = ["spec.clusterIp", "spec.ports[0].nodeport"];
        let read = |text: &str, format| -> Vec<String> {
            let pieces = split(text, format, true).unwrap();
            let object = decode(text, &pieces[0]).unwrap().remove(0);
            fields(&pieces[0], &object)
        };
        assert_eq!(read(&yaml, Format::Yaml), expected);
        let value: serde_json::Value = serde_norway::from_str(&yaml).unwrap();
        assert_eq!(read(&value.to_string(), Format::Json), expected);
        let lines: String = yaml.lines().map(|line| format!("  {line}\n")).collect();
        let list = format!("apiVersion: v1\nkind: List\nitems:\n- {}", &lines[2..]);
        assert_eq!(read(&list, Format::Yaml), expected);
    }
}
