//! Waiting for what becomes of a probe.
//!
//! Silence proves nothing on a busy machine, so a probe that hears nothing sends *fences* after its packet: UDP
//! requests to the node (or to the gateway, from the node itself) that are answered by the same server thread. What
//! has not arrived when they have been answered was dropped. So a drop costs less than a tenth of a second, and
//! everything else may take as long as it needs.

use super::Client;
use super::client::{PATIENCE, sent, token};
use super::gateway::Stray;
use super::icmp::{ICMP4, ICMP6, Message, Watch};
use super::outcome::Outcome;
use super::server::FENCE_PORT;
use nft_table::Family;
use nix::poll::{PollFd, PollFlags, poll};
use socket2::{Protocol, Type};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long to listen before the fences are sent.
const QUIET: Duration = Duration::from_millis(30);
/// How often to look meanwhile whether the gateway has seen the packet.
const LOOK: Duration = Duration::from_millis(3);
/// How long to listen after them.
const AFTERMATH: Duration = Duration::from_millis(30);
/// What a wait ended with.
pub enum Ready {
    /// The socket is.
    Yes,
    /// Something else happened; ask again.
    No,
    /// Nothing happened before the fences were answered, or the packet was seen to go elsewhere.
    Silence,
}

/// Waits for the outcome of one probe.
pub struct Wait<'c> {
    client: &'c Client<'c>,
    target: SocketAddr,
    protocol: u8,
    /// Source port.
    pub port: u16,
    pub watch: Watch,
    /// Echo replies that came: from whom, and their identifiers.
    pub replies: Vec<(IpAddr, u16)>,
    /// Strays noted before the probe.
    strays_before: usize,
    start: Instant,
    fenced: Option<Instant>,
}

impl<'c> Wait<'c> {
    /// Must exist before the packet is sent.
    pub fn new(client: &'c Client<'c>, target: SocketAddr, protocol: Protocol) -> Wait<'c> {
        let strays_before = client.lab.server.notes.strays.lock().expect("not poisoned").len();
        Wait {
            client,
            target,
            protocol: i32::from(protocol) as u8,
            port: 0,
            watch: Watch::open(Family::of(&target.ip())),
            replies: Vec::new(),
            strays_before,
            start: Instant::now(),
            fenced: None,
        }
    }

    /// Waits for the socket, if there is one beside the ICMP watch, or for an ICMP message.
    pub fn until(&mut self, socket: Option<(BorrowedFd, PollFlags)>) -> Ready {
        let deadline = match self.fenced {
            None => self.start + QUIET,
            Some(fenced) => fenced + AFTERMATH,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let now = left.min(LOOK);
        let mut polled = vec![PollFd::new(self.watch.as_fd(), PollFlags::POLLIN)];
        polled.extend(socket.map(|(socket, events)| PollFd::new(socket, events)));
        let milliseconds = now.as_micros().div_ceil(1000) as u16;
        match poll(&mut polled, milliseconds) {
            Ok(0) => {}
            Ok(_) if polled.len() > 1 && polled[1].any() == Some(true) => return Ready::Yes,
            Ok(_) | Err(nix::errno::Errno::EINTR) => return Ready::No,
            Err(error) => panic!("poll: {error}"),
        }
        if self.stray().is_some() {
            return Ready::Silence;
        }
        if left > now {
            return Ready::No;
        }
        if self.fenced.is_some() {
            return Ready::Silence;
        }
        for _ in 0..3 {
            self.fence();
        }
        self.fenced = Some(Instant::now());
        Ready::No
    }

    /// Sends a fence and waits for its answer.
    fn fence(&self) {
        let family = Family::of(&self.target.ip());
        let client = self.client;
        let to = if client.host.name == "node" { "gateway" } else { "node" };
        let target = SocketAddr::new(client.lab.ip(to, family), FENCE_PORT);
        let socket: UdpSocket = client.socket(target, Type::DGRAM, Protocol::UDP).into();
        socket.connect(target).expect("connect the fence");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("SO_RCVTIMEO");
        let token = token();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            sent(socket.send(token.as_bytes()));
            if socket.recv(&mut [0; 512]).is_ok() {
                return;
            }
        }
        panic!("{} gets no answer from {to} itself: the lab is broken", client.host.name);
    }

    /// The ICMP error about this probe, if one came.
    pub fn error(&mut self) -> Option<Outcome> {
        while let Some(message) = self.watch.next() {
            match message {
                Message::EchoReply { from, identifier } => self.replies.push((from, identifier)),
                Message::Error { kind, code, about } if self.is_mine(&about) => {
                    let refused = self.watch.is_port_unreachable(kind, code);
                    let other = Outcome::Unreachable { kind, code };
                    return Some(if refused { Outcome::Refused } else { other });
                }
                Message::Error { .. } => {}
            }
        }
        None
    }

    fn is_mine(&self, packet: &Stray) -> bool {
        let is_icmp = matches!(self.protocol, ICMP4 | ICMP6);
        packet.protocol == self.protocol
            && packet.destination == self.target.ip()
            && packet.source_port == self.port
            && (is_icmp || packet.destination_port == self.target.port())
    }

    /// Did the token arrive at a server, although no answer came back?
    pub fn arrived(&self, token: &str) -> Option<Outcome> {
        let arrived = self.client.lab.server.notes.arrived.lock().expect("not poisoned");
        arrived.iter().find(|answer| answer.token == token).map(|answer| Outcome::Unanswered {
            endpoint: answer.endpoint(),
            source: answer.client.ip(),
        })
    }

    /// Nobody answered: was it seen at the gateway?
    pub fn verdict(&self) -> Outcome {
        match self.stray() {
            Some(source) => Outcome::Untouched { source },
            None => Outcome::TimedOut,
        }
    }

    /// Where the packet came from that the gateway has seen, if it has.
    fn stray(&self) -> Option<IpAddr> {
        let strays = self.client.lab.server.notes.strays.lock().expect("not poisoned");
        let mut new = strays[self.strays_before..].iter();
        let is_icmp = matches!(self.protocol, ICMP4 | ICMP6);
        let found = new.find(|stray| {
            stray.protocol == self.protocol
                && stray.destination == self.target.ip()
                && (is_icmp || stray.destination_port == self.target.port())
        });
        found.map(|stray| stray.source)
    }
}
