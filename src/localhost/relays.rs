//! The relayed connections that are open. Each takes two file descriptors, which the rest of the program needs as
//! well; so there is a limit, and beyond it the connection that has been silent for the longest time goes.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Connections at most, over all Services; fewer where the process may not have many files.
const MOST: u64 = 1024;

/// A connection that is silent for so long has ended, as conntrack would have it for one that the kernel translates
/// (`nf_conntrack_tcp_timeout_established` as kube-proxy sets it).
pub(super) const IDLE: Duration = Duration::from_secs(86_400);

/// All relays of the process.
#[derive(Debug)]
pub(super) struct Relays {
    started: Instant,
    most: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    relays: HashMap<u64, (Activity, Option<AbortHandle>)>,
}

impl Relays {
    /// As many as the process can afford: a quarter of its file descriptors.
    pub fn new() -> Arc<Relays> {
        let files = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        let files = files.map_or(1024, |(soft, _)| soft);
        Relays::at_most((files / 8).clamp(16, MOST) as usize)
    }

    pub(super) fn at_most(most: usize) -> Arc<Relays> {
        Arc::new(Relays { started: Instant::now(), most, open: Mutex::default() })
    }

    /// Runs a relay as a task of the runtime. If there are too many, the one that was silent longest is closed.
    pub fn spawn<F>(self: &Arc<Self>, relay: impl FnOnce(Activity) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let activity = Activity::new(self.started);
        let number = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.relays.len() >= self.most {
                open.close_the_most_silent();
            }
            open.next += 1;
            let number = open.next;
            open.relays.insert(number, (activity.clone(), None));
            number
        };
        let ended = Ended { relays: self.clone(), number };
        let relay = relay(activity);
        let task = tokio::spawn(async move {
            let _ended = ended;
            relay.await;
        });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.relays.get_mut(&number) {
            Some((_, handle)) => *handle = Some(task.abort_handle()),
            // It has ended, or has had to make room.
            None => task.abort(),
        }
    }
}

impl Open {
    fn close_the_most_silent(&mut self) {
        let most_silent =
            self.relays.iter().min_by_key(|(number, (activity, _))| (activity.last(), **number));
        let Some(number) = most_silent.map(|(number, _)| *number) else { return };
        if let Some((_, Some(handle))) = self.relays.remove(&number) {
            tracing::debug!("a silent connection to a localhost NodePort makes room for a new one");
            handle.abort();
        }
    }
}

/// Takes a relay off the list when its task ends, however it does.
struct Ended {
    relays: Arc<Relays>,
    number: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let mut open = self.relays.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.relays.remove(&self.number);
    }
}

/// When something came last over a relay, from either side.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    started: Instant,
    /// Milliseconds since then.
    last: Arc<AtomicU64>,
}

impl Activity {
    fn new(started: Instant) -> Activity {
        let activity = Activity { started, last: Arc::default() };
        activity.note();
        activity
    }

    fn note(&self) {
        let millis = self.started.elapsed().as_millis();
        self.last.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Ends when nothing has come for so long.
    pub async fn silence(&self, idle: Duration) {
        loop {
            let end = self.started + Duration::from_millis(self.last()) + idle;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    /// A stream whose reads count.
    pub fn of(&self, stream: TcpStream) -> Noted {
        Noted { stream, activity: self.clone() }
    }
}

/// A stream whose reads are noted.
pub(super) struct Noted {
    pub stream: TcpStream,
    activity: Activity,
}

impl AsyncRead for Noted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        self.activity.note();
        Poll::Ready(result)
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::sync::oneshot;

    #[tokio::test(start_paused = true)]
    async fn beyond_the_limit_the_most_silent_one_goes() {
        let relays = Relays::at_most(2);
        let open = |relays: &Arc<Relays>| {
            let (alive, is_alive) = oneshot::channel::<()>();
            let (give, take) = std::sync::mpsc::channel();
            relays.spawn(|activity| {
                give.send(activity).expect("taken below");
                async move {
                    let _alive = alive;
                    pending::<()>().await;
                }
            });
            (take.recv().expect("an activity"), is_alive)
        };
        let mut all = Vec::new();
        for _ in 0..2 {
            all.push(open(&relays));
            tokio::time::advance(Duration::from_millis(5)).await;
        }
        all[0].0.note();
        all.push(open(&relays));
        tokio::task::yield_now().await;
        let is_open: Vec<bool> = all
            .iter_mut()
            .map(|(_, alive)| alive.try_recv() == Err(oneshot::error::TryRecvError::Empty))
            .collect();
        assert_eq!(is_open, [true, false, true]);
        assert_eq!(relays.open.lock().unwrap().relays.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_what_nothing_comes_over() {
        let activity = Activity::new(Instant::now());
        let begun = Instant::now();
        let silence = activity.silence(Duration::from_secs(60));
        let traffic = async {
            tokio::time::sleep(Duration::from_secs(40)).await;
            activity.note();
            pending::<()>().await;
        };
        tokio::select! { () = silence => {}, () = traffic => {} }
        assert_eq!(begun.elapsed().as_secs(), 100);
    }
}
