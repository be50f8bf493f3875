//! Serves the connections of one listener.

use super::connections::Connections;
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// How long a client may take for its request's header, and a connection stay idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause when no connection can be accepted, mostly for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Accepts and serves until it is dropped; then the socket and all its connections are closed.
///
/// Nobody is kept waiting: for each one beyond what [`Connections`] allows another one is closed.
pub async fn serve(listener: TcpListener, router: Router) -> Infallible {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    // `Content-Type`, as Go spells it: for scripts that look for a header as text.
    http.title_case_headers(true);
    let connections: Arc<Mutex<Connections>> = Arc::default();
    let book = || connections.lock().unwrap_or_else(PoisonError::into_inner);
    let mut tasks: JoinSet<u64> = JoinSet::new();
    let mut handles: HashMap<u64, AbortHandle> = HashMap::new();
    loop {
        let (stream, client) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !is_clients_fault(&error) {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            },
            Some(ended) = tasks.join_next() => {
                if let Ok(number) = ended {
                    handles.remove(&number);
                    book().remove(number);
                }
                continue;
            }
        };
        let (number, victim) = book().add(client.ip());
        if let Some(handle) = victim.and_then(|victim| handles.remove(&victim)) {
            handle.abort();
        }
        let service = TowerToHyperService::new(router.clone());
        let connections = connections.clone();
        let service = service_fn(move |request| {
            let (service, busy) = (service.clone(), Busy::new(&connections, number));
            async move {
                let answer = service.call(request).await;
                drop(busy);
                answer
            }
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        // A client that breaks off is nobody's concern, nor is one that reads slowly: its connection counts as idle.
        let handle = tasks.spawn(async move {
            let _ = connection.await;
            number
        });
        handles.insert(number, handle);
    }
}

/// A request of a connection is being answered.
struct Busy(Arc<Mutex<Connections>>, u64);

impl Busy {
    fn new(connections: &Arc<Mutex<Connections>>, number: u64) -> Busy {
        let busy = Busy(connections.clone(), number);
        busy.set(true);
        busy
    }

    fn set(&self, is_busy: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set_busy(self.1, is_busy);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Whether the connection was gone before it could be accepted.
fn is_clients_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
