//! What the server is told that this program accepts.

use super::{JSON, PROTOBUF};
use http::HeaderValue;

/// The `Accept` header for `clientConnection.acceptContentTypes` and `contentType`: the former, or else the latter and
/// JSON as well, which a server without protobuf then sends. Protobuf and JSON can be read, and whatever else is named
/// is left out.
pub fn accept(accept_content_types: &str, content_type: &str) -> HeaderValue {
    let of = |text: &str| {
        let types = text.split(',').map(|one| one.split(';').next().unwrap_or_default().trim());
        let mut accepted: Vec<&'static str> = Vec::new();
        for name in types.filter(|name| !name.is_empty()) {
            match [PROTOBUF, JSON].into_iter().find(|known| known.eq_ignore_ascii_case(name)) {
                Some(known) => accepted.push(known),
                None if name == "*/*" => accepted.push(JSON),
                None => tracing::warn!(
                    "clientConnection: {name:?} cannot be read, {PROTOBUF} and {JSON} can"
                ),
            }
        }
        accepted
    };
    let mut accepted = of(accept_content_types);
    if accepted.is_empty() {
        accepted = of(content_type);
        if accepted.is_empty() {
            accepted.push(PROTOBUF);
        }
        if !accepted.contains(&JSON) {
            accepted.push(JSON);
        }
    }
    HeaderValue::try_from(accepted.join(",")).unwrap_or(HeaderValue::from_static(JSON))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_upstream_accepts() {
        let both = "application/vnd.kubernetes.protobuf,application/json";
        for (accept_types, content_type, expected) in [
            ("", "", both),
            ("", PROTOBUF, both),
            ("", JSON, JSON),
            (JSON, PROTOBUF, JSON),
            (PROTOBUF, JSON, PROTOBUF),
            ("application/json, application/vnd.kubernetes.protobuf;q=0.5", "", {
                "application/json,application/vnd.kubernetes.protobuf"
            }),
            ("application/vnd.kubernetes.protobuf, */*", "", both),
            ("application/cbor", PROTOBUF, both),
            ("application/cbor,application/json", PROTOBUF, JSON),
            ("", "text/plain", both),
        ] {
            assert_eq!(
                accept(accept_types, content_type),
                expected,
                "{accept_types} {content_type}"
            );
        }
    }
}
