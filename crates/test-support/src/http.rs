//! The smallest HTTP client that shows everything of an answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// An answer as it came over the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, "" if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, v)| v)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text answer")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.text()))
    }
}

pub fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, "", "")
}

/// Sends one request; `headers` are complete lines ending in CR LF.
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("connect");
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).expect("send");
    let mut answer = Vec::new();
    let mut piece = [0; 16 * 1024];
    // Some servers keep the connection all the same.
    while !is_complete(&answer) {
        match stream.read(&mut piece).expect("receive") {
            0 => break,
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
    parse(&answer)
}

/// Whether as much is there as the answer says that it has.
fn is_complete(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.is_some_and(|length| length.trim().parse() == Ok(answer.len() - end - 4))
}

fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("an end of headers");
    let head = std::str::from_utf8(&answer[..end]).expect("headers in UTF-8");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let headers = lines
        .map(|line| line.split_once(':').expect("a header"))
        .map(|(name, value)| (name.to_string(), value.trim().to_string()))
        .collect();
    Answer { status: status.parse().expect("a status"), headers, body: answer[end + 4..].to_vec() }
}
