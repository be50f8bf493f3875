//! Opens and closes listeners as the list of NodePorts changes.

use super::relays::Relays;
use super::service_port::ServicePort;
use super::{LocalhostPort, Observer, connection};
use nft_table::Family;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

/// When listeners that could not be opened are tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The pause after `accept` failed, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener is bound to: 127.0.0.1 or ::1, and a port.
type Key = (Family, u16);

/// Serves the desired list and follows its changes, until its sender is gone; then all listeners
/// are closed. Connections live on as tasks of the runtime.
///
/// A listener that cannot be opened is reported once and tried again every five seconds. Of two
/// Service ports with the same NodePort the first one in the list is served.
pub async fn run(mut desired: watch::Receiver<Arc<[LocalhostPort]>>, observer: impl Observer) {
    let mut manager = Manager {
        services: HashMap::new(),
        listeners: HashMap::new(),
        failed: HashSet::new(),
        open: [0; Family::BOTH.len()],
        relays: Relays::new(),
        observer,
    };
    loop {
        let ports = desired.borrow_and_update().clone();
        manager.apply(&ports).await;
        let retry = Instant::now() + RETRY;
        tokio::select! {
            changed = desired.changed() => if changed.is_err() { break },
            () = sleep_until(retry), if !manager.failed.is_empty() => {}
        }
    }
    manager.apply(&[]).await;
}

struct Manager<O> {
    /// The Service ports that are served, each shared with its listener.
    services: HashMap<(Family, Arc<str>), Arc<ServicePort>>,
    listeners: HashMap<Key, Listener>,
    /// Listeners that could not be opened, which was reported.
    failed: HashSet<Key>,
    /// Open listeners as the observer knows them, in the order of `Family::BOTH`.
    open: [usize; Family::BOTH.len()],
    relays: Arc<Relays>,
    observer: O,
}

impl<O: Observer> Manager<O> {
    async fn apply(&mut self, ports: &[LocalhostPort]) {
        let mut wanted: HashMap<Key, &LocalhostPort> = HashMap::new();
        for port in ports.iter().filter(|port| !port.endpoints.is_empty()) {
            wanted.entry((port.family, port.node_port)).or_insert(port);
        }
        self.update_services(&wanted);
        let gone: Vec<Key> =
            self.listeners.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in gone {
            if let Some(listener) = self.listeners.remove(&key) {
                listener.close().await;
            }
        }
        self.failed.retain(|key| wanted.contains_key(key));
        for (key, port) in wanted {
            let service = self.services[&(port.family, port.service_port.clone())].clone();
            match self.listeners.get(&key) {
                Some(listener) => listener.serve(service),
                None => self.open(key, service).await,
            }
        }
        self.count();
    }

    /// Makes one `ServicePort` for each that is wanted. One that was there before is updated, so
    /// that it keeps its affinity, also when its NodePort changes.
    fn update_services(&mut self, wanted: &HashMap<Key, &LocalhostPort>) {
        let mut before = std::mem::take(&mut self.services);
        for port in wanted.values() {
            let name = (port.family, port.service_port.clone());
            let service = match before.remove(&name) {
                Some(service) => {
                    service.update(port);
                    service
                }
                None => Arc::new(ServicePort::new(port)),
            };
            self.services.insert(name, service);
        }
    }

    async fn open(&mut self, key: Key, service: Arc<ServicePort>) {
        let address = loopback(key);
        let name = service.name.clone();
        match Listener::open(address, service, &self.relays).await {
            Ok(listener) => {
                if self.failed.remove(&key) {
                    warn!(service = %name, %address, "the localhost NodePort is served now");
                }
                self.listeners.insert(key, listener);
            }
            Err(error) => {
                self.observer.listener_failed(key.0);
                if self.failed.insert(key) {
                    warn!(
                        service = %name, %address, %error,
                        "cannot listen for the localhost NodePort; trying again every {RETRY:?}"
                    );
                }
            }
        }
    }

    fn count(&mut self) {
        for (index, family) in Family::BOTH.into_iter().enumerate() {
            let open = self.listeners.keys().filter(|key| key.0 == family).count();
            if open != self.open[index] {
                self.open[index] = open;
                self.observer.listeners(family, open);
            }
        }
    }
}

/// An open listener and the task that accepts from it.
struct Listener {
    /// The Service port that gets the connections.
    service: Arc<Mutex<Arc<ServicePort>>>,
    task: JoinHandle<()>,
}

impl Listener {
    async fn open(
        address: SocketAddr,
        service: Arc<ServicePort>,
        relays: &Arc<Relays>,
    ) -> io::Result<Listener> {
        let listener = TcpListener::bind(address).await?;
        debug!(service = %service.name, %address, "listening for the localhost NodePort");
        let service = Arc::new(Mutex::new(service));
        let task = tokio::spawn(accept(listener, service.clone(), relays.clone()));
        Ok(Listener { service, task })
    }

    /// New connections go to this Service port from now on.
    fn serve(&self, service: Arc<ServicePort>) {
        *self.service.lock().unwrap_or_else(PoisonError::into_inner) = service;
    }

    /// Closes the socket before it returns, so that the port can be bound again.
    async fn close(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, service: Arc<Mutex<Arc<ServicePort>>>, relays: Arc<Relays>) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((client, from)) => {
                failing = false;
                let service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
                relays.spawn(|activity| async move {
                    connection::relay(&service, client, from, activity).await;
                });
            }
            Err(error) => {
                if !failing {
                    let address = listener.local_addr().ok();
                    warn!(?address, %error, "cannot accept a localhost NodePort connection");
                }
                failing = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn loopback((family, port): Key) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::LOCALHOST, port).into(),
        Family::V6 => (Ipv6Addr::LOCALHOST, port).into(),
    }
}
