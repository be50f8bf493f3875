//! Connections that stay open while the Services behind them change.

use super::client::{PATIENCE, exchange};
use super::{Client, Outcome};
use std::net::{SocketAddr, TcpStream, UdpSocket};

/// An open TCP connection.
pub struct Connection<'l> {
    client: Client<'l>,
    target: SocketAddr,
    stream: TcpStream,
}

impl<'l> Connection<'l> {
    pub(super) fn new(client: Client<'l>, target: SocketAddr, stream: TcpStream) -> Connection<'l> {
        Connection { client, target, stream }
    }

    /// Asks over the connection who is at the other end; panics when it is broken.
    #[track_caller]
    pub fn ask(&mut self) -> Outcome {
        match exchange(&mut self.stream, PATIENCE) {
            Ok(answer) => answer.reached(),
            Err(error) => panic!("the connection to {} is broken: {error}", self.target),
        }
    }

    /// The same, with the error where it is broken.
    pub fn try_ask(&mut self) -> std::io::Result<Outcome> {
        exchange(&mut self.stream, PATIENCE).map(|answer| answer.reached())
    }

    /// The client that opened it, for another one from the same place.
    pub fn client(&self) -> &Client<'l> {
        &self.client
    }

    /// The client's own address and port.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("bound")
    }
}

/// A UDP socket whose packets all belong to one flow.
pub struct Flow<'l> {
    client: Client<'l>,
    target: SocketAddr,
    socket: UdpSocket,
}

impl<'l> Flow<'l> {
    pub(super) fn new(client: Client<'l>, target: SocketAddr, socket: UdpSocket) -> Flow<'l> {
        Flow { client, target, socket }
    }

    /// Sends one more datagram of the flow.
    pub fn ask(&self) -> Outcome {
        self.client.inside(|| self.client.ask_udp(&self.socket, self.target))
    }
}
