//! What can go wrong with a list or a watch, and what each case means for going on.

use super::frames::{Encoding, EventError, FrameError};
use super::protobuf::{self, StatusText};
use super::wire::{WireError, unwrap_envelope};
use http::{Response, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::Deserialize;
use std::time::Duration;
use thiserror::Error;
use tokio::time::timeout;

/// The longest error text that is read.
const MAX_STATUS: usize = 64 << 10;

/// Why a list or watch ended.
#[derive(Debug, Error)]
pub enum WatchError {
    #[error("no answer: {}", chain(.0))]
    Request(#[source] kube::Error),
    #[error("the server says {code} {reason}: {message}")]
    Status { code: u16, reason: String, message: String, retry_after: Option<Duration> },
    #[error("nothing has come for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("not a watch event: {0}")]
    Event(#[from] EventError),
    #[error("not the object expected: {0}")]
    Wire(#[from] WireError),
    #[error("not the object expected: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the server ended the watch at once")]
    Short,
    #[error("an object without resourceVersion")]
    NoVersion,
}

/// An error with all its causes: the top one alone says only "client error (Connect)".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let one = error.to_string();
        if !text.contains(&one) {
            text.push_str(": ");
            text.push_str(&one);
        }
        cause = error.source();
    }
    text
}

impl WatchError {
    /// The error that an event of type ERROR, or the body of a refusal, stands for.
    pub fn of_status(encoding: Encoding, object: &[u8]) -> WatchError {
        let StatusText { code, reason, message } =
            read_status(encoding, object).unwrap_or_default();
        WatchError::Status { code, reason, message, retry_after: None }
    }

    fn status(&self) -> Option<(u16, &str, &str)> {
        match self {
            WatchError::Status { code, reason, message, .. } => Some((*code, reason, message)),
            _ => None,
        }
    }

    /// The version from which the watch was to go on is gone from the server.
    pub fn is_expired(&self) -> bool {
        self.status()
            .is_some_and(|(code, reason, _)| code == 410 || matches!(reason, "Expired" | "Gone"))
    }

    /// The server does not take the parameters of a streaming list: the feature is off or unknown.
    pub fn is_refused(&self) -> bool {
        self.status().is_some_and(|(code, ..)| matches!(code, 400 | 422))
    }

    /// The server has not yet seen the version that we have.
    pub fn is_version_unknown(&self) -> bool {
        self.status().is_some_and(|(_, _, message)| message.contains("Too large resource version"))
    }

    /// The server lacks the kind, or the role does not grant it.
    pub fn is_missing(&self) -> bool {
        self.status().is_some_and(|(code, ..)| matches!(code, 403 | 404))
    }

    /// The server does not take the credentials.
    pub fn is_unauthorized(&self) -> bool {
        match self {
            WatchError::Request(kube::Error::Auth(_)) => true,
            _ => self.status().is_some_and(|(code, ..)| code == 401),
        }
    }

    /// How long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            WatchError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct JsonStatus {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

fn read_status(encoding: Encoding, object: &[u8]) -> Option<StatusText> {
    match encoding {
        Encoding::Protobuf => protobuf::status(object).ok(),
        Encoding::Json => {
            let JsonStatus { code, reason, message } = serde_json::from_slice(object).ok()?;
            Some(StatusText { code, reason, message })
        }
    }
}

/// The error of a response that is not a success.
pub async fn status_of(response: Response<Body>) -> WatchError {
    let (head, body) = response.into_parts();
    let code = head.status;
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let seconds = text(header::RETRY_AFTER).and_then(|text| text.trim().parse().ok());
    let retry_after = seconds.map(Duration::from_secs);
    let encoding = Encoding::of(text(header::CONTENT_TYPE).unwrap_or_default());
    let body = Limited::new(body, MAX_STATUS).collect();
    let body = match timeout(Duration::from_secs(10), body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Default::default(),
    };
    let status = match encoding {
        Encoding::Protobuf => {
            unwrap_envelope(&body).ok().and_then(|raw| read_status(encoding, raw))
        }
        Encoding::Json => read_status(encoding, &body),
    };
    let StatusText { reason, message, .. } = status.unwrap_or_else(|| StatusText {
        // Proxies in between answer in plain text.
        message: String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned(),
        reason: code.canonical_reason().unwrap_or_default().to_owned(),
        code: 0,
    });
    WatchError::Status { code: code.as_u16(), reason, message, retry_after }
}
