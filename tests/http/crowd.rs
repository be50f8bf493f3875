//! Servers that everybody connects to who says nothing, or says it slowly.

use axum::Router;
use axum::routing::get as answer;
use kube_proxy::http::Server;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use test_support::http::get;

/// Silent and slow connections.
const CROWD: u32 = 10_000;

/// On a busy machine; the worst time of all is printed.
const DEADLINE: Duration = Duration::from_secs(5);

/// Connects from one of many addresses of this machine.
fn connect(to: SocketAddr, client: u32) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = Ipv4Addr::from(0x7f00_0002 + client);
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of loopback");
    socket.connect(&to.into()).expect("a connection");
    socket.into()
}

/// Whatever a crowd of so many clients does, somebody else is answered.
fn assert_answered_beside(clients: u32) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard.max(soft), hard).expect("more files");
    let crowd = CROWD.min(u32::try_from(hard / 2).unwrap_or(CROWD));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let router = Router::new().route("/livez", answer(async || "ok"));
    let loopback = (Ipv4Addr::LOCALHOST, 0).into();
    let server = {
        let _runtime = runtime.enter();
        Server::start("test", loopback, true, router, |_| unreachable!("hard fail")).unwrap()
    };
    let address = server.address().expect("bound at once");
    let (mut worst, mut probes) = (Duration::ZERO, 0);
    std::thread::scope(|scope| {
        let connected = scope.spawn(|| {
            let mut streams: Vec<TcpStream> = Vec::new();
            for number in 0..crowd {
                let mut stream = connect(address, number % clients);
                if number % 10 == 0 {
                    // One of the slow ones.
                    let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHo");
                }
                streams.push(stream);
            }
            streams
        });
        let mut rounds_after = 0;
        while rounds_after < 20 {
            rounds_after += usize::from(connected.is_finished());
            let start = Instant::now();
            assert_eq!(get(address, "/livez").status, 200);
            worst = worst.max(start.elapsed());
            probes += 1;
        }
        connected.join().expect("the crowd");
    });
    println!("{crowd} connections of {clients} clients: {probes} probes, the slowest {worst:?}");
    assert!(worst < DEADLINE, "{worst:?}");
}

/// One after the other: each needs many files.
#[test]
fn silent_and_slow_clients_keep_nobody_waiting() {
    assert_answered_beside(1);
    assert_answered_beside(CROWD);
}
