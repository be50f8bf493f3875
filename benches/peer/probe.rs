//! Connecting again and again until the right pod answers.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// A SYN that is not answered within this is given up.
const PATIENCE: u16 = 3;
/// Between attempts, so that the probe leaves the processors to those that are measured.
const PAUSE: Duration = Duration::from_micros(300);
/// After this the program under test counts as broken.
const LIMIT: Duration = Duration::from_secs(300);

/// Connects from the calling thread's namespace until `pod` answers; returns when that was.
pub fn first_answer(target: SocketAddr, pod: &str, mut still: impl FnMut()) -> Instant {
    let start = Instant::now();
    loop {
        if ask(target).is_some_and(|name| name == pod) {
            return Instant::now();
        }
        still();
        assert!(start.elapsed() < LIMIT, "{pod} never answers at {target}");
        std::thread::sleep(PAUSE);
    }
}

/// Opens a connection and returns the name of the pod behind it.
fn ask(target: SocketAddr) -> Option<String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    socket.set_nonblocking(true).expect("non-blocking");
    let _ = socket.connect(&target.into());
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut polled, PollTimeout::from(PATIENCE)).expect("poll") == 0
        || socket.take_error().expect("SO_ERROR").is_some()
    {
        return None;
    }
    socket.set_nonblocking(false).expect("blocking");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    stream.write_all(b"probe\n").ok()?;
    let mut answer = [0; 256];
    let length = stream.read(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    answer.split_whitespace().nth(1).map(str::to_owned)
}
