//! What became of a packet, as far as its sender and the rest of the lab can tell.

use super::PORT;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The fate of one probe. Compare it with `assert_eq!`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered by `endpoint` (`a`, or `a:8443` for another port than [`PORT`]), which
    /// saw it come from `source`.
    Reached { endpoint: String, source: IpAddr },
    /// It came to `endpoint`, but the answer did not come back (seen for UDP and SCTP only).
    Unanswered { endpoint: String, source: IpAddr },
    /// ICMP port unreachable came back: rejected, or UDP to a host that does not listen.
    Refused,
    /// A TCP reset or SCTP abort came back: it got to a host that does not listen, or that hung up.
    Reset,
    /// Another ICMP error came back.
    Unreachable { kind: u8, code: u8 },
    /// It came to the gateway still addressed to the VIP, from `source`.
    Untouched { source: IpAddr },
    /// Nothing came back, and nobody saw it: dropped.
    TimedOut,
}

impl Outcome {
    /// The usual expectation.
    pub fn reached(endpoint: &str, source: IpAddr) -> Outcome {
        Outcome::Reached { endpoint: endpoint.to_owned(), source }
    }

    /// Name of the endpoint that answered; panics when nobody did.
    #[track_caller]
    pub fn endpoint(&self) -> &str {
        match self {
            Outcome::Reached { endpoint, .. } => endpoint,
            other => panic!("no endpoint answered: {other:?}"),
        }
    }

    /// Source address that the endpoint saw; panics when nobody answered.
    #[track_caller]
    pub fn source(&self) -> IpAddr {
        match self {
            Outcome::Reached { source, .. } => *source,
            other => panic!("no endpoint answered: {other:?}"),
        }
    }
}

/// What a server says of itself and of its client; the answer on the wire is one line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the client sent, to tell its answer from others.
    pub token: String,
    pub name: String,
    pub client: SocketAddr,
    pub server: SocketAddr,
}

impl Answer {
    /// Reads a line as [`Answer::fmt`] writes it.
    pub fn parse(line: &str) -> Option<Answer> {
        let mut words = line.split_ascii_whitespace();
        let mut next = || words.next();
        Some(Answer {
            token: next()?.to_owned(),
            name: next()?.to_owned(),
            client: next()?.parse().ok()?,
            server: next()?.parse().ok()?,
        })
    }

    /// The server's name, with its port where that is not the usual one.
    pub fn endpoint(&self) -> String {
        match self.server.port() {
            PORT => self.name.clone(),
            port => format!("{}:{port}", self.name),
        }
    }

    /// As the outcome of the probe that it answers.
    pub fn reached(&self) -> Outcome {
        Outcome::Reached { endpoint: self.endpoint(), source: self.client.ip() }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.token, self.name, self.client, self.server)
    }
}
