//! One cell of the table: a row, a source and a family on one node.

use crate::connections;
use crate::node::{Node, PAYLOAD};
use crate::rows::{Row, Source};
use crate::rules::{Rules, load_dnat};
use nft_table::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Flows, which are the packets of a step, and how many of them are timed together. The first of them warm
/// up what forgetting the flows before has driven from the caches.
pub const FLOWS: usize = 512;
const TOGETHER: usize = 128;

pub struct Cell<'n> {
    pub node: &'n Node,
    row: Row,
    source: Source,
    target: SocketAddr,
    flows: Vec<UdpSocket>,
    best: Duration,
    spoilt: usize,
}

impl<'n> Cell<'n> {
    /// Opens all flows, and checks that packets go where they must.
    pub fn open(node: &'n Node, row: Row, family: Family, source: Source) -> Cell<'n> {
        if node.rules == Rules::Dnat {
            load_dnat(node, row, family);
        }
        node.forget_flows();
        let target = |flow| row.target(node.rules, family, flow);
        let namespace = &node.lab.machine(source.host()).namespace;
        let flows = if row == Row::Connection { 0 } else { FLOWS };
        let flows = namespace.run(|| (0..flows).map(|flow| socket(target(flow))).collect());
        let target = target(0);
        let cell = Cell { node, row, source, target, flows, best: Duration::MAX, spoilt: 0 };
        if row != Row::Connection {
            cell.check();
        }
        cell
    }

    /// Says hello on every flow.
    fn check(&self) {
        // In portions that the endpoints' sockets can hold.
        for flows in self.flows.chunks(TOGETHER) {
            for flow in flows {
                // Refused where there are no endpoints.
                let _ = flow.send(b"?");
            }
            self.node.answer();
        }
        let (mut answered, mut refused) = (0, 0);
        for flow in &self.flows {
            match flow.recv(&mut [0; 64]) {
                Ok(_) => answered += 1,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => refused += 1,
                Err(_) => {}
            }
        }
        let expected = match self.row {
            Row::NoEndpoints => (0, FLOWS),
            // The endpoints of the others do not exist.
            Row::InTurn
                if matches!(
                    self.node.rules,
                    Rules::Ours(_)
                        | Rules::ByService(_)
                        | Rules::ByEndpoint(_)
                        | Rules::By(..)
                        | Rules::Limited(..)
                        | Rules::Upstream(_)
                ) =>
            {
                (0, 0)
            }
            _ => (FLOWS, 0),
        };
        assert_eq!((answered, refused), expected, "{}: answered, refused", self.what());
    }

    /// Measures once more.
    pub fn step(&mut self) {
        if !self.row.is_established() {
            self.node.forget_flows();
        }
        if self.row == Row::Connection {
            let namespace = &self.node.lab.machine(self.source.host()).namespace;
            let time = namespace.run(|| connections::time(self.target, &self.node.listener));
            self.best = self.best.min(time);
            return;
        }
        for flows in self.flows.chunks(TOGETHER) {
            let before = self.node.arrived();
            let start = Instant::now();
            for flow in flows {
                // Refused by a node's own rules, from the node itself.
                let _ = flow.send(&PAYLOAD);
            }
            let time = start.elapsed() / TOGETHER as u32;
            // A packet that is still under way has not been paid for.
            let arrived = self.node.arrived() - before;
            if arrived == if self.row == Row::NoEndpoints { 0 } else { TOGETHER as u64 } {
                self.best = self.best.min(time);
            } else {
                self.spoilt += 1;
            }
        }
        for flow in &self.flows {
            // A refusal that nobody has asked for would take the place of the next packet.
            let _ = flow.take_error();
        }
    }

    /// The shortest time of one packet, or of one connection.
    pub fn result(&self) -> Duration {
        if self.spoilt > 0 {
            eprintln!(
                "{}: {} steps in which not exactly what was sent arrived",
                self.what(),
                self.spoilt
            );
        }
        assert!(self.best < Duration::MAX, "{}: nothing arrives", self.what());
        self.best
    }

    fn what(&self) -> String {
        format!("{}: {}, {}, to {}", self.node.rules, self.row.name(), self.source, self.target)
    }
}

/// A socket that sends to one target only.
fn socket(target: SocketAddr) -> UdpSocket {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).expect("bind");
    socket.connect(target).expect("connect");
    socket.set_nonblocking(true).expect("non-blocking");
    socket
}
