//! Probes: one packet or one connection from a host of the lab, and what became of it.

use super::icmp::{ICMP4, ICMP6};
use super::outcome::{Answer, Outcome};
use super::wait::{Ready, Wait};
use super::{Connection, Flow, Host, Lab, sctp, unspecified};
use nix::poll::PollFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long an answer that must come may take before the lab counts as broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Something with an address and a port: `"10.96.0.10:80"`, `(ip, 80)` or a `SocketAddr`.
pub trait Target {
    fn address(&self) -> SocketAddr;
}

impl Target for &str {
    fn address(&self) -> SocketAddr {
        self.parse().unwrap_or_else(|_| panic!("{self} is no address and port"))
    }
}

impl Target for SocketAddr {
    fn address(&self) -> SocketAddr {
        *self
    }
}

impl Target for (IpAddr, u16) {
    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.0, self.1)
    }
}

/// A host in the role of a client.
#[derive(Clone)]
pub struct Client<'l> {
    pub(super) lab: &'l Lab,
    pub(super) host: &'l Host,
    source: Option<IpAddr>,
    port: u16,
}

impl<'l> Client<'l> {
    pub(super) fn new(lab: &'l Lab, host: &'l Host) -> Client<'l> {
        Client { lab, host, source: None, port: 0 }
    }

    /// From this source address, which the host must have.
    pub fn at(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// From this source port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Opens a TCP connection and asks who is there.
    pub fn tcp(&self, target: impl Target) -> Outcome {
        let target = target.address();
        self.inside(|| self.probe_tcp(target))
    }

    /// Sends a datagram and waits for the answer.
    pub fn udp(&self, target: impl Target) -> Outcome {
        let target = target.address();
        self.inside(|| self.probe_udp(target))
    }

    /// Sends an SCTP INIT and waits for the INIT ACK.
    pub fn sctp(&self, target: impl Target) -> Outcome {
        let target = target.address();
        self.inside(|| self.probe_sctp(target))
    }

    /// Sends an ICMP echo request. Kernels answer it, so the endpoint is the host that owns the address, and
    /// the source is the address asked: a reply tells no more.
    pub fn ping(&self, target: IpAddr) -> Outcome {
        self.inside(|| self.probe_icmp(target))
    }

    /// Opens a TCP connection that stays; panics when it cannot.
    pub fn connect(&self, target: impl Target) -> Connection<'l> {
        let target = target.address();
        let stream = self.inside(|| self.stream(target));
        let stream = stream.unwrap_or_else(|error| {
            panic!("{} cannot connect to {target}: {error}", self.host.name)
        });
        Connection::new(self.clone(), target, stream.into())
    }

    /// How long a program waits until its TCP connection is refused; panics when it is not.
    #[track_caller]
    pub fn refused_after(&self, target: impl Target) -> Duration {
        let target = target.address();
        let (result, time) = self.inside(|| {
            let start = Instant::now();
            (self.stream(target), start.elapsed())
        });
        match result {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => time,
            other => panic!("{} to {target} is not refused: {other:?}", self.host.name),
        }
    }

    /// A UDP socket that sends from the same port each time.
    pub fn flow(&self, target: impl Target) -> Flow<'l> {
        let target = target.address();
        let socket = self.inside(|| {
            let socket = self.socket(target, Type::DGRAM, Protocol::UDP);
            socket.connect(&target.into()).expect("connect a UDP socket");
            socket.set_nonblocking(true).expect("non-blocking");
            socket
        });
        Flow::new(self.clone(), target, socket.into())
    }

    /// Opens that many TCP connections, one after the other, and counts who answers; panics when one
    /// is not answered.
    #[track_caller]
    pub fn spread(&self, target: impl Target, connections: usize) -> BTreeMap<String, usize> {
        let target = target.address();
        self.inside(|| {
            let mut counts = BTreeMap::new();
            for _ in 0..connections {
                *counts.entry(self.probe_tcp(target).endpoint().to_owned()).or_default() += 1;
            }
            counts
        })
    }

    /// Runs something in the client's namespace.
    pub(super) fn inside<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.lab.machines[self.host.machine].namespace.run(work)
    }

    /// Source address for a target; unspecified where the kernel shall choose.
    fn local(&self, target: SocketAddr) -> SocketAddr {
        let address = self.source.unwrap_or_else(|| {
            if self.host.unbound {
                return unspecified(target.ip());
            }
            let mut own = self.host.addresses.iter().copied();
            own.find(|ip| ip.is_ipv4() == target.is_ipv4()).expect("dual stack")
        });
        SocketAddr::new(address, self.port)
    }

    pub(super) fn socket(&self, target: SocketAddr, kind: Type, protocol: Protocol) -> Socket {
        let socket = Socket::new(Domain::for_address(target), kind, Some(protocol))
            .unwrap_or_else(|error| panic!("open a socket to {target}: {error}"));
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        let local = self.local(target);
        socket.bind(&local.into()).unwrap_or_else(|error| panic!("bind {local}: {error}"));
        socket
    }

    /// A connected TCP stream that resets on close, so that no TIME_WAIT blocks its port.
    pub(super) fn stream(&self, target: SocketAddr) -> io::Result<Socket> {
        let socket = self.socket(target, Type::STREAM, Protocol::TCP);
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        socket.connect_timeout(&target.into(), PATIENCE)?;
        Ok(socket)
    }

    fn probe_tcp(&self, target: SocketAddr) -> Outcome {
        let socket = self.socket(target, Type::STREAM, Protocol::TCP);
        let mut wait = Wait::new(self, target, Protocol::TCP);
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        socket.set_nonblocking(true).expect("non-blocking");
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                panic!("{} cannot connect to {target}: {error}", self.host.name)
            }
            _ => {}
        }
        wait.port = local_port(&socket);
        loop {
            let ready = wait.until(Some((socket.as_fd(), PollFlags::POLLOUT)));
            if let Some(outcome) = wait.error() {
                return outcome;
            }
            match ready {
                Ready::Silence => return wait.verdict(),
                Ready::Yes => match socket.take_error().expect("SO_ERROR") {
                    None => break,
                    // Or it was open for a moment.
                    Some(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
                        ) =>
                    {
                        return Outcome::Reset;
                    }
                    Some(error) => panic!("{} to {target}: {error}", self.host.name),
                },
                Ready::No => {}
            }
        }
        // Connected: from here on an answer must come, unless somebody in between hangs up.
        socket.set_nonblocking(false).expect("blocking");
        match exchange(&mut socket.into(), PATIENCE) {
            Ok(answer) => answer.reached(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Outcome::Reset,
            Err(error) => panic!("connected to {target}, no answer: {error}"),
        }
    }

    fn probe_udp(&self, target: SocketAddr) -> Outcome {
        let socket = self.socket(target, Type::DGRAM, Protocol::UDP);
        socket.connect(&target.into()).expect("connect a UDP socket");
        socket.set_nonblocking(true).expect("non-blocking");
        self.ask_udp(&socket.into(), target)
    }

    /// One request over a connected, non-blocking socket in the calling thread's namespace.
    pub(super) fn ask_udp(&self, socket: &UdpSocket, target: SocketAddr) -> Outcome {
        let mut wait = Wait::new(self, target, Protocol::UDP);
        wait.port = socket.local_addr().expect("bound").port();
        let token = token();
        sent(socket.send(token.as_bytes()));
        loop {
            let ready = wait.until(Some((socket.as_fd(), PollFlags::POLLIN)));
            let mut buffer = [0; 512];
            if let Ok(length) = socket.recv(&mut buffer) {
                let answer = Answer::parse(&String::from_utf8_lossy(&buffer[..length]));
                match answer.filter(|answer| answer.token == token) {
                    Some(answer) => return answer.reached(),
                    None => continue,
                }
            }
            if let Some(outcome) = wait.error() {
                return outcome;
            }
            if matches!(ready, Ready::Silence) {
                return wait.arrived(&token).unwrap_or_else(|| wait.verdict());
            }
        }
    }

    fn probe_sctp(&self, target: SocketAddr) -> Outcome {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let source = if self.port == 0 { 20_000 + (number % 20_000) as u16 } else { self.port };
        let tag = number.wrapping_mul(0x9e37_79b9) | 1;
        let mut wait = Wait::new(self, target, Protocol::from(i32::from(sctp::PROTOCOL)));
        wait.port = source;
        let socket = sctp::socket(self.local(target).ip());
        socket.set_nonblocking(true).expect("non-blocking");
        let header = sctp::Header { source, destination: target.port(), tag: 0 };
        let bytes = sctp::Packet { header, chunk: sctp::Chunk::Init { tag } }.encode();
        sent(socket.send_to(&bytes, &SockAddr::from(SocketAddr::new(target.ip(), 0))));
        loop {
            let ready = wait.until(Some((socket.as_fd(), PollFlags::POLLIN)));
            let mut buffer = [MaybeUninit::uninit(); 2048];
            while let Ok((from, packet)) = sctp::receive(&socket, &mut buffer) {
                let Some(packet) = packet else { continue };
                let header = sctp::Header { source: target.port(), destination: source, tag };
                if from != target.ip() || packet.header != header {
                    continue;
                }
                match packet.chunk {
                    sctp::Chunk::InitAck { cookie, .. } => {
                        let answer = Answer::parse(&String::from_utf8_lossy(&cookie));
                        return answer.expect("the server's cookie").reached();
                    }
                    sctp::Chunk::Abort => return Outcome::Reset,
                    sctp::Chunk::Init { .. } => {}
                }
            }
            if let Some(outcome) = wait.error() {
                return outcome;
            }
            if matches!(ready, Ready::Silence) {
                return wait.arrived(&format!("{tag:x}")).unwrap_or_else(|| wait.verdict());
            }
        }
    }

    fn probe_icmp(&self, target: IpAddr) -> Outcome {
        let identifier = NUMBER.fetch_add(1, Ordering::Relaxed) as u16;
        let (protocol, kind) = if target.is_ipv4() { (ICMP4, 8_u16) } else { (ICMP6, 128) };
        // Where ports would stand, an echo request has type and code, and its checksum.
        let place = SocketAddr::new(target, 0);
        let mut wait = Wait::new(self, place, Protocol::from(i32::from(protocol)));
        wait.port = kind << 8;
        let local = self.local(place);
        if !local.ip().is_unspecified() {
            wait.watch.socket().bind(&local.into()).expect("bind a raw ICMP socket");
        }
        let request = wait.watch.echo_request(identifier);
        sent(wait.watch.socket().send_to(&request, &SockAddr::from(place)));
        loop {
            let ready = wait.until(None);
            if let Some(outcome) = wait.error() {
                return outcome;
            }
            if wait.replies.contains(&(target, identifier)) {
                let owner = self.lab.hosts.iter().find(|host| host.addresses.contains(&target));
                let name = owner.map_or("nobody", |host| host.name.as_str());
                return Outcome::reached(name, target);
            }
            if matches!(ready, Ready::Silence) {
                return wait.verdict();
            }
        }
    }
}

/// Sends a line over a stream and reads the answer to it.
pub fn exchange(stream: &mut std::net::TcpStream, patience: Duration) -> io::Result<Answer> {
    use std::io::{BufRead, BufReader, Write};
    let token = token();
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("{token}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Answer::parse(&line)
        .filter(|answer| answer.token == token)
        .ok_or_else(|| io::Error::new(ErrorKind::UnexpectedEof, format!("answer {line:?}")))
}

/// A number that no other probe of this process has.
static NUMBER: AtomicU32 = AtomicU32::new(1);

/// What a probe sends, to know its answer.
pub fn token() -> String {
    format!("probe-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn local_port(socket: &Socket) -> u16 {
    socket.local_addr().expect("a local address").as_socket().expect("an IP address").port()
}

/// Accepts that the kernel refuses to send what its own output rules drop or reject: what happened is told
/// by what does or does not come back.
pub fn sent<T>(result: io::Result<T>) {
    if let Err(error) = result {
        let code = error.raw_os_error();
        assert!(matches!(code, Some(libc::EPERM | libc::ECONNREFUSED)), "send: {error}");
    }
}
