//! A server of HTTPS that tells what it was asked with, and proxies on the way to it.

use crate::certificates::Pair;
use openssl::ssl::{NameType, Ssl, SslAcceptor, SslMethod, SslStream, SslVerifyMode};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server saw of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub authorization: Option<String>,
    /// The common name of the client's certificate.
    pub client: Option<String>,
    /// The name that TLS indicated.
    pub indicated: Option<String>,
}

/// Serves `/version` at an address for as long as the process runs.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub fn start(address: &str, pair: &Pair, chain: &[Pair]) -> Server {
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        acceptor.set_private_key(&pair.key).unwrap();
        acceptor.set_certificate(&pair.certificate).unwrap();
        for issuer in chain {
            acceptor.add_extra_chain_cert(issuer.certificate.clone()).unwrap();
        }
        acceptor.set_groups_list("X25519:P-256:P-384:P-521").unwrap();
        // Whatever it is: what counts here is whether the client sends it.
        acceptor.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        let acceptor = acceptor.build();
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let told = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (acceptor, told) = (acceptor.clone(), told.clone());
                thread::spawn(move || {
                    let ssl = Ssl::new(acceptor.context()).unwrap();
                    let mut stream = SslStream::new(ssl, stream).unwrap();
                    if stream.accept().is_ok() {
                        serve(stream, &told);
                    }
                });
            }
        });
        Server { address, seen }
    }

    /// What was seen of the last request.
    pub fn last(&self) -> Option<Seen> {
        self.seen.lock().unwrap().last().cloned()
    }
}

fn serve(stream: SslStream<TcpStream>, told: &Mutex<Vec<Seen>>) {
    let certificate = stream.ssl().peer_certificate();
    let client = certificate.and_then(|certificate| {
        certificate.subject_name().entries().next()?.data().to_string().ok()
    });
    let indicated = stream.ssl().servername(NameType::HOST_NAME).map(str::to_owned);
    let mut stream = BufReader::new(stream);
    loop {
        let mut seen =
            Seen { client: client.clone(), indicated: indicated.clone(), ..Seen::default() };
        let Some(head) = head(&mut stream) else { return };
        for line in &head {
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("authorization")
            {
                seen.authorization = Some(value.to_owned());
            }
        }
        told.lock().unwrap().push(seen);
        let body = r#"{"major":"1","minor":"36","gitVersion":"v1.36.0","gitCommit":"","gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The lines of the next request's head.
fn head(stream: &mut impl BufRead) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            return Some(lines);
        }
        lines.push(line);
    }
}

/// A proxy of HTTP; tells the head of each request.
pub fn tunnel() -> (SocketAddr, Arc<Mutex<Vec<Vec<String>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heads: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let told = heads.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Some(head) = head(&mut reader) else { continue };
            let target = head[0].split(' ').nth(1).unwrap().to_owned();
            told.lock().unwrap().push(head);
            let server = TcpStream::connect(target).unwrap();
            (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            join(stream, server);
        }
    });
    (address, heads)
}

/// A proxy of SOCKS5 without a login; tells the targets.
pub fn socks() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let targets: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = targets.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut greeting = [0; 3];
            stream.read_exact(&mut greeting).unwrap();
            assert_eq!(greeting, [5, 1, 0]);
            stream.write_all(&[5, 0]).unwrap();
            let mut request = [0; 5];
            stream.read_exact(&mut request).unwrap();
            let host = match request[3] {
                1 => {
                    let mut rest = [0; 3];
                    stream.read_exact(&mut rest).unwrap();
                    format!("{}.{}.{}.{}", request[4], rest[0], rest[1], rest[2])
                }
                _ => {
                    let mut name = vec![0; request[4].into()];
                    stream.read_exact(&mut name).unwrap();
                    String::from_utf8(name).unwrap()
                }
            };
            let mut port = [0; 2];
            stream.read_exact(&mut port).unwrap();
            let target = format!("{host}:{}", u16::from_be_bytes(port));
            told.lock().unwrap().push(target.clone());
            let server = TcpStream::connect(target).unwrap();
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
            join(stream, server);
        }
    });
    (address, targets)
}

/// Copies both ways.
fn join(one: TcpStream, other: TcpStream) {
    for (mut from, mut to) in [(one.try_clone().unwrap(), other.try_clone().unwrap()), (other, one)]
    {
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
