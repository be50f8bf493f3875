//! Sustained load: threads that open connections in a loop and count every failure, to prove that a change
//! or a restart costs nobody anything.

use super::Client;
use super::client::exchange;
use socket2::Socket;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// A connection that takes longer has failed.
const TOO_LONG: Duration = Duration::from_secs(10);
/// Somewhat less than the second after which a SYN that nobody answers is sent again (`TCP_TIMEOUT_INIT`). One that is
/// sent again sooner was answered, by an endpoint that has not heard of the end of an earlier connection from the same
/// port (RFC 5961: a challenge ACK): nothing of this connection was lost.
const SYN_TIMEOUT: Duration = Duration::from_millis(900);

/// What the load has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Connections answered.
    pub answered: usize,
    /// Connections whose SYN had to be sent again: a packet was lost.
    pub lost: Vec<String>,
    /// Why others failed.
    pub failures: Vec<String>,
    /// Who answered.
    pub endpoints: BTreeMap<String, usize>,
    /// As whom the client was seen there.
    pub sources: BTreeSet<IpAddr>,
}

/// Running load.
pub struct Load {
    report: Mutex<Report>,
    progress: Condvar,
    started: Instant,
    stopped: std::sync::atomic::AtomicBool,
}

impl Load {
    /// Opens connections from a client to a target on `threads` threads while `scenario` runs.
    pub fn during<R>(
        client: &Client,
        target: &str,
        threads: usize,
        scenario: impl FnOnce(&Load) -> R,
    ) -> (Report, R) {
        let target = target.parse().expect("an address and port");
        Load::on_each(client, &[target], threads, scenario)
    }

    /// The same for several targets, in turn.
    pub fn on_each<R>(
        client: &Client,
        targets: &[SocketAddr],
        threads: usize,
        scenario: impl FnOnce(&Load) -> R,
    ) -> (Report, R) {
        let load = Load {
            report: Mutex::default(),
            progress: Condvar::new(),
            started: Instant::now(),
            stopped: false.into(),
        };
        let result = std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| client.inside(|| load.connect_in_a_loop(client, targets)));
            }
            let _stop = StopOnDrop(&load);
            load.wait_for(threads);
            let result = scenario(&load);
            load.wait_for(threads);
            result
        });
        (load.report.into_inner().expect("not poisoned"), result)
    }

    /// Opens one connection and asks who is there. How often its packets had to be sent again until it was open.
    ///
    /// # Errors
    /// It is refused, broken, or too slow.
    pub fn once(client: &Client, target: SocketAddr) -> std::io::Result<u32> {
        client.inside(|| {
            let socket = client.stream(target)?;
            let again = retransmissions(&socket);
            exchange(&mut socket.into(), TOO_LONG)?;
            Ok(again)
        })
    }

    /// Waits until that many more connections have been tried.
    pub fn wait_for(&self, more: usize) {
        let report = self.report.lock().expect("not poisoned");
        let goal = report.tried() + more;
        drop(self.progress.wait_while(report, |report| report.tried() < goal));
    }

    fn connect_in_a_loop(&self, client: &Client, targets: &[SocketAddr]) {
        for target in targets.iter().cycle() {
            if self.stopped.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            let started = Instant::now();
            let result = client.stream(*target).and_then(|socket| {
                // Later ones can come from a busy machine; what the proxy decides is decided on the SYN.
                let again = retransmissions(&socket);
                let mut stream: TcpStream = socket.into();
                Ok((exchange(&mut stream, TOO_LONG)?, again))
            });
            let mut report = self.report.lock().expect("not poisoned");
            match result {
                Ok((answer, again)) => {
                    report.answered += 1;
                    let took = started.elapsed();
                    if again > 0 && took >= SYN_TIMEOUT {
                        let took = took.as_secs_f32();
                        let at = started.duration_since(self.started).as_secs_f32();
                        report.lost.push(format!(
                            "{target}: {again} times after {at} s, which took {took} s"
                        ));
                    }
                    *report.endpoints.entry(answer.endpoint()).or_default() += 1;
                    report.sources.insert(answer.client.ip());
                }
                Err(error) => report.failures.push(format!("{target}: {error}")),
            }
            drop(report);
            self.progress.notify_all();
        }
    }
}

/// Ends the load also when the scenario panics.
struct StopOnDrop<'a>(&'a Load);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Report {
    fn tried(&self) -> usize {
        self.answered + self.failures.len()
    }

    /// Panics unless everything was answered at the first try.
    #[track_caller]
    pub fn assert_no_loss(&self) {
        assert!(self.failures.is_empty(), "{} failed: {:?}", self.failures.len(), self.failures);
        assert!(
            self.lost.is_empty(),
            "of {} connections some lost their first packet: {:?}",
            self.answered,
            self.lost
        );
    }
}

/// `tcpi_total_retrans` of linux/tcp.h.
fn retransmissions(socket: &Socket) -> u32 {
    use std::os::fd::AsRawFd;
    // SAFETY: tcp_info is plain integers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `info`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "TCP_INFO: {}", std::io::Error::last_os_error());
    info.tcpi_total_retrans
}
