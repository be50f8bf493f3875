//! The hosts of the demo: a pod that says its name, and a client that counts who answers.
//!
//! ```text
//! demo serve NAME PORT        answer every TCP connection with NAME
//! demo ask COUNT ADDRESS      open COUNT connections, print who answered how many
//! demo ask - ADDRESS          the same until standard input ends
//! demo wait ADDRESS           return when the first connection is answered
//! ```
//!
//! `serve` listens on all addresses of both families; ADDRESS is `10.96.0.80:80` or `[fd00::80]:80`.

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A connection that takes longer has failed.
const TOO_LONG: Duration = Duration::from_secs(2);
/// How often `wait` tries anew.
const SOON: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", name, port] => serve(name, port.parse().expect("a port")),
        ["ask", count, address] => ask(count.parse().ok(), address.parse().expect("an address")),
        ["wait", address] => wait(address.parse().expect("an address")),
        _ => {
            eprintln!("see demo/hosts.rs");
            ExitCode::FAILURE
        }
    }
}

fn serve(name: &str, port: u16) -> ExitCode {
    // Without IPV6_V6ONLY, which std leaves alone, IPv4 arrives here too.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("listen");
    for connection in listener.incoming() {
        // A client that has gone again misses nothing.
        let _ = connection.and_then(|mut connection| connection.write_all(name.as_bytes()));
    }
    ExitCode::SUCCESS
}

/// Opens connections one after the other: `count`, or until standard input ends. Fails when one fails.
fn ask(count: Option<usize>, address: SocketAddr) -> ExitCode {
    static STOPPED: AtomicBool = AtomicBool::new(false);
    if count.is_none() {
        thread::spawn(|| {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            STOPPED.store(true, Ordering::Relaxed);
        });
    }
    let mut answers = BTreeMap::<String, usize>::new();
    let mut failures = BTreeMap::<String, usize>::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..count.unwrap_or(usize::MAX) {
        if STOPPED.load(Ordering::Relaxed) {
            break;
        }
        let start = Instant::now();
        match exchange(address, TOO_LONG) {
            Ok(name) => *answers.entry(name).or_default() += 1,
            Err(error) => *failures.entry(error.kind().to_string()).or_default() += 1,
        }
        slowest = slowest.max(start.elapsed());
    }
    let failed: usize = failures.values().sum();
    let counts = |map: BTreeMap<String, usize>| {
        map.into_iter().map(|(what, count)| format!("{what} {count:<6}")).collect::<String>()
    };
    let answers = counts(answers) + &counts(failures);
    let milliseconds = slowest.as_secs_f64() * 1000.0;
    println!("{answers:<36} failed {failed}   slowest {milliseconds:.1} ms");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn wait(address: SocketAddr) -> ExitCode {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if exchange(address, SOON).is_ok() {
            return ExitCode::SUCCESS;
        }
        thread::sleep(SOON);
    }
    eprintln!("{address} does not answer");
    ExitCode::FAILURE
}

/// Opens a connection and reads who answers.
fn exchange(address: SocketAddr, patience: Duration) -> io::Result<String> {
    let mut connection = connect(address, patience)?;
    connection.set_read_timeout(Some(patience))?;
    let mut name = String::new();
    connection.read_to_string(&mut name)?;
    Ok(name)
}

/// Connects, and takes note of ICMP errors also while the kernel is busy with the socket, when it lets others
/// wait until it repeats the SYN after a second. On one machine errors are back that quickly.
fn connect(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    match address {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => return Err(error),
        _ => {}
    }
    let mut writable = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(patience).expect("short");
    if poll(&mut writable, timeout)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if let Some(error) = socket.take_error()?.or_else(|| queued_error(&socket)) {
        return Err(error);
    }
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

/// The ICMP error in a socket's error queue.
fn queued_error(socket: &Socket) -> Option<io::Error> {
    let mut space = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let descriptor = socket.as_raw_fd();
    let flags = MsgFlags::MSG_ERRQUEUE;
    let message = recvmsg::<SockaddrStorage>(descriptor, &mut [], Some(&mut space), flags).ok()?;
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            Some(io::Error::from_raw_os_error(error.ee_errno as i32))
        }
        _ => None,
    })
}
