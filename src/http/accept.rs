//! Serves the connections of one listener.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The most connections that one listener serves at a time. The ports are open to everybody who reaches the
/// node, and the process needs its file descriptors for other things.
const MAX_CONNECTIONS: usize = 512;

/// How long a client may take for its request's header, and a connection stay idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// Pause when no connection can be accepted, mostly for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Accepts and serves until it is dropped; then the socket and all its connections are closed.
pub async fn serve(listener: TcpListener, router: Router) -> Infallible {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    // `Content-Type`, as Go spells it: for scripts that look for a header as text.
    http.title_case_headers(true);
    let service = TowerToHyperService::new(router);
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if !is_clients_fault(&error) {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        // A client that breaks off is nobody's concern.
        connections.spawn(http.serve_connection(TokioIo::new(stream), service.clone()));
    }
}

/// Whether the connection was gone before it could be accepted.
fn is_clients_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
