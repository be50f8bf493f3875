//! A server on a fixed address: bound now, or as soon as the address is free.

use super::{accept, bind};
use axum::Router;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The time between two attempts to bind; it is upstream's.
const RETRY: Duration = Duration::from_secs(5);

/// A server's address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for the {server} server: {source}")]
pub struct BindError {
    /// Which server, as `healthz`.
    pub server: &'static str,
    pub address: SocketAddr,
    pub source: io::Error,
}

/// A running server; dropping it closes its socket and its connections.
#[derive(Debug)]
pub struct Server {
    bound: watch::Receiver<Option<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `router` on `address`. If that cannot be bound it is an error with `hard_fail`;
    /// otherwise `failed` is told once and binding is tried again every five seconds.
    ///
    /// Must be called within a tokio runtime.
    pub fn start(
        server: &'static str,
        address: SocketAddr,
        hard_fail: bool,
        router: Router,
        failed: impl FnOnce(BindError),
    ) -> Result<Server, BindError> {
        let listener = match bind::any_family(address) {
            Ok(listener) => Some(listener),
            Err(source) => {
                let error = BindError { server, address, source };
                if hard_fail {
                    return Err(error);
                }
                tracing::error!(%error, "will try again");
                failed(error);
                None
            }
        };
        let local = |listener: &TcpListener| listener.local_addr().ok();
        let (announce, bound) = watch::channel(listener.as_ref().and_then(local));
        let task = tokio::spawn(async move {
            let listener = match listener {
                Some(listener) => listener,
                None => retry(server, address).await,
            };
            announce.send_replace(local(&listener));
            tracing::info!(server, address = ?local(&listener), "listening");
            match accept::serve(listener, router).await {}
        });
        Ok(Server { bound, task })
    }

    /// Where it listens; `None` as long as it could not bind. The port is the real one if 0 was
    /// asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        *self.bound.borrow()
    }

    /// Where it listens, as soon as it does.
    pub async fn bound(&self) -> SocketAddr {
        let mut bound = self.bound.clone();
        let address = bound.wait_for(Option::is_some).await.map(|address| *address);
        address.ok().flatten().expect("the server's task announces its address and lives")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn retry(server: &'static str, address: SocketAddr) -> TcpListener {
    loop {
        tokio::time::sleep(RETRY).await;
        match bind::any_family(address) {
            Ok(listener) => return listener,
            Err(source) => tracing::debug!(error = %BindError { server, address, source }),
        }
    }
}
