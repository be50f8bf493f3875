//! One thread that serves every host of a lab: sockets stay in the namespace they were opened in, so a single
//! `poll` loop can be all the pods at once.
//!
//! The service is the same over TCP (line by line), UDP and SCTP (INIT is answered with an INIT ACK whose cookie
//! is the answer): the client sends a token, the server answers [`Answer`]. What comes in over UDP and SCTP is also
//! noted, because there the packet can have arrived although its answer gets lost.

use super::gateway::{Ears, Stray};
use super::outcome::Answer;
use super::sctp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// UDP port on which hosts answer the fences of [`super::client`].
pub const FENCE_PORT: u16 = 7;

/// Where the server's notes go.
#[derive(Default)]
pub struct Notes {
    pub arrived: Mutex<Vec<Answer>>,
    pub strays: Mutex<Vec<Stray>>,
}

/// The serving thread.
pub struct Server {
    pub notes: Arc<Notes>,
    new_sockets: Option<Sender<Service>>,
    bell: UnixStream,
    thread: Option<JoinHandle<()>>,
}

enum Service {
    Listener(TcpListener, Arc<str>),
    Stream(TcpStream, Arc<str>, Vec<u8>),
    Datagram(UdpSocket, Arc<str>),
    Sctp { socket: Socket, name: Arc<str>, address: IpAddr, ports: Vec<u16> },
    Ears(Ears),
    Closed,
}

impl Server {
    pub fn new() -> Server {
        let (bell, rung) = UnixStream::pair().expect("a socket pair");
        rung.set_nonblocking(true).expect("non-blocking");
        let (new_sockets, incoming) = channel();
        let notes = Arc::new(Notes::default());
        let its_notes = notes.clone();
        let thread = thread::Builder::new()
            .name("lab server".into())
            .spawn(move || serve(&rung, &incoming, &its_notes))
            .expect("spawn");
        Server { notes, new_sockets: Some(new_sockets), bell, thread: Some(thread) }
    }

    /// Serves an address of the calling thread's namespace over TCP, UDP and SCTP.
    pub fn serve(&self, name: &str, address: IpAddr, ports: &[u16]) {
        let name: Arc<str> = name.into();
        let fence = UdpSocket::bind((address, FENCE_PORT)).expect("bind the fence port");
        self.add(Service::Datagram(fence, name.clone()));
        for port in ports {
            let local = SocketAddr::new(address, *port);
            self.add(Service::Listener(listener(local), name.clone()));
            let datagrams = UdpSocket::bind(local).expect("bind a UDP port");
            self.add(Service::Datagram(datagrams, name.clone()));
        }
        let socket = sctp::socket(address);
        self.add(Service::Sctp { socket, name, address, ports: ports.to_vec() });
    }

    /// Notes what the gateway hears.
    pub fn listen(&self, ears: Ears) {
        self.add(Service::Ears(ears));
    }

    fn add(&self, service: Service) {
        service.nonblocking();
        self.new_sockets.as_ref().expect("running").send(service).expect("server runs");
        (&self.bell).write_all(b"!").expect("ring");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.new_sockets = None;
        let _ = (&self.bell).write_all(b"!");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A TCP listener with a backlog for many connections at once.
fn listener(local: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))
        .expect("a TCP socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&local.into()).expect("bind a TCP port");
    socket.listen(1024).expect("listen");
    socket.into()
}

fn serve(rung: &UnixStream, incoming: &Receiver<Service>, notes: &Notes) {
    let mut services: Vec<Service> = Vec::new();
    loop {
        let ready: Vec<bool> = {
            let descriptors = services.iter().map(Service::descriptor).chain([rung.as_fd()]);
            let mut polled: Vec<PollFd> =
                descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) => polled.iter().map(|fd| fd.any().unwrap_or(true)).collect(),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => panic!("poll: {error}"),
            }
        };
        let mut accepted = Vec::new();
        for (service, _) in services.iter_mut().zip(&ready).filter(|(_, ready)| **ready) {
            service.work(notes, &mut accepted);
        }
        services.retain(|service| !matches!(service, Service::Closed));
        services.append(&mut accepted);
        if ready.last() == Some(&true) {
            let _ = (&*rung).read(&mut [0; 256]);
            loop {
                match incoming.try_recv() {
                    Ok(service) => services.push(service),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
        }
    }
}

impl Service {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Service::Listener(socket, _) => socket.as_fd(),
            Service::Stream(socket, ..) => socket.as_fd(),
            Service::Datagram(socket, _) => socket.as_fd(),
            Service::Sctp { socket, .. } => socket.as_fd(),
            Service::Ears(ears) => ears.as_fd(),
            Service::Closed => unreachable!("closed services are removed before the next poll"),
        }
    }

    fn nonblocking(&self) {
        let result = match self {
            Service::Listener(socket, _) => socket.set_nonblocking(true),
            Service::Stream(socket, ..) => socket.set_nonblocking(true),
            Service::Datagram(socket, _) => socket.set_nonblocking(true),
            Service::Sctp { socket, .. } => socket.set_nonblocking(true),
            Service::Ears(_) | Service::Closed => Ok(()),
        };
        result.expect("non-blocking");
    }

    /// Does all there is to do on a readable socket.
    fn work(&mut self, notes: &Notes, accepted: &mut Vec<Service>) {
        let result = match self {
            Service::Listener(socket, name) => accept_all(socket, name, accepted),
            Service::Stream(socket, name, line) => answer_lines(socket, name, line),
            Service::Datagram(socket, name) => answer_datagrams(socket, name, notes),
            Service::Sctp { socket, name, address, ports } => {
                answer_inits(socket, name, *address, ports, notes)
            }
            Service::Ears(ears) => ears.hear(&mut notes.strays.lock().expect("not poisoned")),
            Service::Closed => return,
        };
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // An ICMP error about an earlier answer; the socket goes on.
            Err(_) if !matches!(self, Service::Stream(..)) => {}
            Err(_) | Ok(()) => *self = Service::Closed,
        }
    }
}

fn accept_all(
    socket: &TcpListener,
    name: &Arc<str>,
    accepted: &mut Vec<Service>,
) -> io::Result<()> {
    loop {
        let (stream, _) = socket.accept()?;
        stream.set_nonblocking(true)?;
        accepted.push(Service::Stream(stream, name.clone(), Vec::new()));
    }
}

/// Answers complete lines; Ok when the client has closed.
fn answer_lines(socket: &mut TcpStream, name: &str, line: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut buffer = [0; 512];
        let length = socket.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        for byte in &buffer[..length] {
            if *byte != b'\n' {
                line.push(*byte);
                continue;
            }
            let token = String::from_utf8_lossy(&std::mem::take(line)).into_owned();
            let (client, server) = (socket.peer_addr()?, socket.local_addr()?);
            let answer = Answer { token, name: name.to_owned(), client, server };
            socket.write_all(format!("{answer}\n").as_bytes())?;
        }
    }
}

fn answer_datagrams(socket: &UdpSocket, name: &str, notes: &Notes) -> io::Result<()> {
    let server = socket.local_addr()?;
    loop {
        let mut buffer = [0; 512];
        let (length, client) = socket.recv_from(&mut buffer)?;
        let token = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let answer = Answer { token, name: name.to_owned(), client, server };
        let reply = answer.to_string();
        if server.port() != FENCE_PORT {
            notes.arrived.lock().expect("not poisoned").push(answer);
        }
        let _ = socket.send_to(reply.as_bytes(), client);
    }
}

fn answer_inits(
    socket: &Socket,
    name: &str,
    address: IpAddr,
    ports: &[u16],
    notes: &Notes,
) -> io::Result<()> {
    loop {
        let mut buffer = [MaybeUninit::uninit(); 2048];
        let (client, packet) = sctp::receive(socket, &mut buffer)?;
        let Some(sctp::Packet { header, chunk: sctp::Chunk::Init { tag } }) = packet else {
            continue;
        };
        let reply = sctp::Header { source: header.destination, destination: header.source, tag };
        let server = SocketAddr::new(address, header.destination);
        let client = SocketAddr::new(client, header.source);
        let chunk = if ports.contains(&server.port()) {
            let name = name.to_owned();
            let answer = Answer { token: format!("{tag:x}"), name, client, server };
            let cookie = answer.to_string().into_bytes();
            notes.arrived.lock().expect("not poisoned").push(answer);
            sctp::Chunk::InitAck { tag: !tag, cookie }
        } else {
            sctp::Chunk::Abort
        };
        let bytes = sctp::Packet { header: reply, chunk }.encode();
        let _ = socket.send_to(&bytes, &SockAddr::from(SocketAddr::new(client.ip(), 0)));
    }
}
