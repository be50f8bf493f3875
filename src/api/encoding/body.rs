//! The bodies of answers: whole, or as the frames of a watch.

use super::Encoding;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, BodyStream};
use kube::client::Body;
use std::io;
use tokio_util::codec::{Decoder, FramedRead, LengthDelimitedCodec};
use tokio_util::io::StreamReader;
use tower::BoxError;

/// The largest event, in bytes: an object of some 1.5 MB, which is what etcd takes, is larger in JSON.
const FRAME: usize = 64 << 20;

/// The events of a watch, each as it was sent.
pub type Frames = BoxStream<'static, io::Result<Bytes>>;

/// Reads a body to its end.
///
/// # Errors
/// The connection ends before that.
pub async fn whole(body: Body) -> io::Result<Bytes> {
    Ok(body.collect().await.map_err(io::Error::other)?.to_bytes())
}

/// Cuts the body of a watch into events. In protobuf each has its length before it, in JSON a line feed behind it.
pub fn frames<B>(body: B, encoding: Encoding) -> Frames
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let data = BodyStream::new(body)
        .try_filter_map(|frame| async move { Ok(frame.into_data().ok()) })
        .map_err(|error| io::Error::other(error.into()));
    let reader = StreamReader::new(Box::pin(data));
    match encoding {
        Encoding::Protobuf => LengthDelimitedCodec::builder()
            .length_field_length(4)
            .max_frame_length(FRAME)
            .new_read(reader)
            .map_ok(BytesMut::freeze)
            .boxed(),
        Encoding::Json => FramedRead::new(reader, Lines::default()).boxed(),
    }
}

/// Lines of bytes. What the end of the stream cuts off is no line.
#[derive(Default)]
struct Lines {
    /// So many bytes have no line feed among them.
    searched: usize,
}

impl Decoder for Lines {
    type Item = Bytes;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
        let end = buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            self.searched = buffer.len();
            if self.searched > FRAME {
                return Err(io::Error::other("an event without an end"));
            }
            return Ok(None);
        };
        let line = buffer.split_to(self.searched + end + 1).freeze();
        self.searched = 0;
        Ok(Some(line))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
        match self.decode(buffer)? {
            Some(line) => Ok(Some(line)),
            None if buffer.is_empty() => Ok(None),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use std::convert::Infallible;

    /// What is read where the body comes in pieces of a size.
    async fn read(body: &[u8], size: usize, encoding: Encoding) -> Vec<Result<String, ()>> {
        let pieces: Vec<_> = body
            .chunks(size)
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let body = StreamBody::new(stream::iter(pieces));
        let text = |frame: io::Result<Bytes>| {
            frame.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(drop)
        };
        frames(body, encoding).map(text).collect().await
    }

    #[tokio::test]
    async fn frames_are_found_however_they_come() {
        let lines = b"{\"a\":1}\n{}\n{\"cut";
        let prefixed = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x02de\0\0\0\x09cut";
        for size in 1..20 {
            let expected = [Ok("{\"a\":1}\n".to_owned()), Ok("{}\n".to_owned()), Err(())];
            assert_eq!(read(lines, size, Encoding::Json).await, expected, "{size}");
            let expected = [Ok("abc".to_owned()), Ok(String::new()), Ok("de".to_owned()), Err(())];
            assert_eq!(read(prefixed, size, Encoding::Protobuf).await, expected, "{size}");
        }
        assert_eq!(read(b"{}\n", 9, Encoding::Json).await, [Ok("{}\n".to_owned())]);
    }
}
