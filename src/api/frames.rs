//! Cutting a watch response into events, in the two encodings that API servers speak.
//!
//! Protobuf frames carry a four-byte big-endian length and then a `meta.v1.WatchEvent`; JSON events
//! are one to a line. A [`Frames`] keeps what it has not handed out yet, so waiting for the next
//! frame may be given up at any moment.

use super::wire::{Fields, WireError, unwrap_envelope};
use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt;
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

/// Longer frames are taken for a broken stream: etcd refuses objects beyond 1.5 MiB, JSON and
/// annotations included.
const MAX_FRAME: usize = 16 << 20;

/// Why a response could not be read on.
#[derive(Debug, Error)]
pub enum FrameError {
    #[error("the connection broke: {0}")]
    Body(#[source] kube::Error),
    #[error("a frame of {0} bytes: this is no watch stream")]
    TooLong(usize),
}

/// How a response is encoded, from its Content-Type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    /// The encoding that a Content-Type names; JSON unless it says protobuf.
    pub fn of(content_type: &str) -> Encoding {
        if content_type.starts_with("application/vnd.kubernetes.protobuf") {
            Encoding::Protobuf
        } else {
            Encoding::Json
        }
    }
}

/// The type of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// A watch event; `object` is still encoded (without the envelope, for protobuf).
#[derive(Clone, Copy, Debug)]
pub struct RawEvent<'a> {
    pub event_type: EventType,
    pub object: &'a [u8],
}

/// Why a frame is not an event.
#[derive(Debug, Error)]
pub enum EventError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("unknown event type {0:?}")]
    Type(String),
}

#[derive(Deserialize)]
struct JsonEvent<'a> {
    #[serde(rename = "type")]
    event_type: EventType,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl<'a> RawEvent<'a> {
    /// Reads the event around an object.
    pub fn read(encoding: Encoding, frame: &'a [u8]) -> Result<RawEvent<'a>, EventError> {
        if encoding == Encoding::Json {
            let event: JsonEvent<'a> = serde_json::from_slice(frame)?;
            let object = event.object.get().as_bytes();
            return Ok(RawEvent { event_type: event.event_type, object });
        }
        let (mut event_type, mut object): (&str, &[u8]) = ("", &[]);
        for field in Fields::new(frame) {
            let field = field?;
            match field.number {
                1 => event_type = field.text()?,
                2 => {
                    for field in field.message()? {
                        let field = field?;
                        if field.number == 1 {
                            object = unwrap_envelope(field.bytes()?)?;
                        }
                    }
                }
                _ => {}
            }
        }
        let event_type = match event_type {
            "ADDED" => EventType::Added,
            "MODIFIED" => EventType::Modified,
            "DELETED" => EventType::Deleted,
            "BOOKMARK" => EventType::Bookmark,
            "ERROR" => EventType::Error,
            other => return Err(EventError::Type(other.to_owned())),
        };
        Ok(RawEvent { event_type, object })
    }
}

/// The frames of a response body.
pub struct Frames {
    body: Body,
    encoding: Encoding,
    buffer: BytesMut,
    /// How much of `buffer` holds no line end (JSON): not searched again.
    searched: usize,
    /// The body has ended; it is not polled again.
    ended: bool,
}

impl Frames {
    pub fn new(body: Body, encoding: Encoding) -> Self {
        Frames { body, encoding, buffer: BytesMut::new(), searched: 0, ended: false }
    }

    /// A whole frame out of the buffer.
    fn cut(&mut self) -> Result<Option<Bytes>, FrameError> {
        match self.encoding {
            Encoding::Protobuf => {
                let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
                let length = u32::from_be_bytes(*prefix) as usize;
                if length > MAX_FRAME {
                    return Err(FrameError::TooLong(length));
                }
                if self.buffer.len() < 4 + length {
                    return Ok(None);
                }
                self.buffer.advance(4);
                Ok(Some(self.buffer.split_to(length).freeze()))
            }
            Encoding::Json => loop {
                let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
                let Some(end) = end.map(|end| self.searched + end) else {
                    self.searched = self.buffer.len();
                    if self.searched > MAX_FRAME {
                        return Err(FrameError::TooLong(self.searched));
                    }
                    return Ok(None);
                };
                self.searched = 0;
                let line = self.buffer.split_to(end + 1).freeze();
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
            },
        }
    }

    /// The next frame; None when the server has ended the response. A frame that the end cuts short
    /// is dropped: the watch resumes before it.
    pub async fn next(&mut self) -> Option<Result<Bytes, FrameError>> {
        loop {
            if let Some(frame) = self.cut().transpose() {
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(err)) => {
                    self.ended = true;
                    return Some(Err(FrameError::Body(err)));
                }
                None => self.ended = true,
            }
        }
    }

    /// A frame that is here already, without waiting for the network. None also at the end of the
    /// response; [`Self::next`] tells which.
    pub fn ready(&mut self) -> Option<Result<Bytes, FrameError>> {
        self.next().now_or_never().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(encoding: Encoding, body: &[u8]) -> Frames {
        Frames::new(Body::from(body.to_vec()), encoding)
    }

    #[tokio::test]
    async fn protobuf_frames() {
        let mut frames = frames(Encoding::Protobuf, &[0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 9, 1]);
        assert_eq!(frames.next().await.expect("a frame").expect("readable"), &[1u8, 2][..]);
        assert_eq!(frames.ready().expect("a frame").expect("readable"), &[][..]);
        assert!(frames.next().await.is_none(), "the frame that is cut short is dropped");
    }

    #[tokio::test]
    async fn an_absurd_length_is_an_error() {
        let mut frames = frames(Encoding::Protobuf, &[0xff, 0, 0, 2, 1, 2]);
        assert!(matches!(frames.next().await, Some(Err(FrameError::TooLong(_)))));
    }

    #[tokio::test]
    async fn json_lines() {
        let text = b"{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n\n{\"type\":\"ERROR\",\"object\":{}}\nrest";
        let mut frames = frames(Encoding::Json, text);
        let line = frames.next().await.expect("a frame").expect("readable");
        let event = RawEvent::read(Encoding::Json, &line).expect("an event");
        assert_eq!(event.event_type, EventType::Added);
        assert_eq!(event.object, b"{\"a\":1}");
        let line = frames.next().await.expect("a frame").expect("readable");
        let event = RawEvent::read(Encoding::Json, &line).expect("an event");
        assert_eq!(event.event_type, EventType::Error);
        assert!(frames.next().await.is_none());
    }

    #[test]
    fn encodings_by_content_type() {
        let watch = "application/vnd.kubernetes.protobuf;stream=watch";
        assert_eq!(Encoding::of(watch), Encoding::Protobuf);
        assert_eq!(Encoding::of("application/json;stream=watch"), Encoding::Json);
    }
}
