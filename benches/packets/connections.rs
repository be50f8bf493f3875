//! Whole TCP connections: open, ask, answer, close. Both ends are the same thread, because the kernel takes every
//! packet all the way within the call that sends it; so no wake-up of another thread is measured.

use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Connections that are timed together, and how often.
const TOGETHER: u32 = 32;
const TIMES: usize = 4;

/// The shortest time of one connection from the calling thread's namespace.
pub fn time(target: SocketAddr, listener: &TcpListener) -> Duration {
    let some = |_| {
        let start = Instant::now();
        (0..TOGETHER).for_each(|_| connect(target, listener));
        start.elapsed() / TOGETHER
    };
    (0..TIMES).map(some).min().expect("once at least")
}

fn connect(target: SocketAddr, listener: &TcpListener) {
    let mut client = TcpStream::connect(target).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    let mut buffer = [0; 64];
    client.write_all(b"?").expect("ask");
    assert_eq!(server.read(&mut buffer).expect("the question"), 1);
    server.write_all(b"!").expect("answer");
    assert_eq!(client.read(&mut buffer).expect("the answer"), 1);
    drop(server);
    assert_eq!(client.read(&mut buffer).expect("the end"), 0);
    // With a reset, so that no end of it waits for a minute.
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}
