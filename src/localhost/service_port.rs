//! Chooses an endpoint for each new connection to one Service port.

use super::LocalhostPort;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What the listener of a Service port needs to know, shared with the manager that updates it.
#[derive(Debug)]
pub(super) struct ServicePort {
    pub(super) name: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    endpoints: Arc<[SocketAddr]>,
    affinity: Option<Duration>,
    /// By client address. Only local addresses get here, so there are few.
    pinned: HashMap<IpAddr, Pin>,
}

#[derive(Debug)]
struct Pin {
    endpoint: SocketAddr,
    /// When the client last opened a connection.
    refreshed: Instant,
}

impl ServicePort {
    pub(super) fn new(port: &LocalhostPort) -> ServicePort {
        ServicePort {
            name: port.service_port.clone(),
            state: Mutex::new(State {
                endpoints: port.endpoints.clone(),
                affinity: port.affinity,
                pinned: HashMap::new(),
            }),
        }
    }

    /// Takes over a new list and timeout. Clients of endpoints that went are free at once, and all
    /// are when affinity is switched off.
    pub(super) fn update(&self, port: &LocalhostPort) {
        let mut state = self.lock();
        state.endpoints = port.endpoints.clone();
        state.affinity = port.affinity;
        let State { endpoints, affinity, pinned } = &mut *state;
        match affinity {
            None => pinned.clear(),
            Some(timeout) => pinned.retain(|_, pin| {
                pin.refreshed.elapsed() < *timeout && endpoints.contains(&pin.endpoint)
            }),
        }
    }

    /// The endpoint for a new connection: the client's pinned one, else a random one, which a
    /// Service port with affinity pins. None when there is no endpoint (any more).
    pub(super) fn choose(&self, client: IpAddr) -> Option<SocketAddr> {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(timeout) = state.affinity
            && let Some(pin) = state.pinned.get_mut(&client)
            && now - pin.refreshed < timeout
        {
            pin.refreshed = now;
            return Some(pin.endpoint);
        }
        if state.endpoints.is_empty() {
            return None;
        }
        let endpoint = state.endpoints[fastrand::usize(..state.endpoints.len())];
        if state.affinity.is_some() {
            state.pinned.insert(client, Pin { endpoint, refreshed: now });
        }
        Some(endpoint)
    }

    /// The state is consistent whenever the lock is free, so a panic of its last holder is no
    /// reason not to go on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nft_table::Family;
    use std::collections::BTreeMap;

    const TIMEOUT: Duration = Duration::from_secs(100);

    fn port(endpoints: u8, affinity: Option<Duration>) -> LocalhostPort {
        LocalhostPort {
            service_port: "default/web:http".into(),
            family: Family::V4,
            node_port: 30080,
            endpoints: (1..=endpoints).map(endpoint).collect(),
            affinity,
        }
    }

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 244, 0, last], 8080))
    }

    fn client(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    #[test]
    fn endpoints_are_chosen_at_random_and_evenly() {
        fastrand::seed(7);
        let service = ServicePort::new(&port(3, None));
        let mut counts = BTreeMap::new();
        for _ in 0..3000 {
            *counts.entry(service.choose(client(1)).unwrap()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 3);
        assert!(counts.values().all(|&count| (850..1150).contains(&count)), "{counts:?}");
    }

    #[test]
    fn without_endpoints_nothing_is_chosen() {
        assert_eq!(ServicePort::new(&port(0, None)).choose(client(1)), None);
        assert_eq!(ServicePort::new(&port(0, Some(TIMEOUT))).choose(client(1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_keeps_its_endpoint_until_the_timeout_after_its_last_connection() {
        let service = ServicePort::new(&port(200, Some(TIMEOUT)));
        let first = service.choose(client(1)).unwrap();
        for _ in 0..10 {
            tokio::time::advance(TIMEOUT - Duration::from_secs(1)).await;
            assert_eq!(service.choose(client(1)), Some(first), "each connection refreshes");
        }
        let others: Vec<_> = (2..50).filter_map(|i| service.choose(client(i))).collect();
        assert!(others.iter().any(|other| *other != first), "each client has its own");
        // One of a few expiries draws another endpoint.
        let moved = async || {
            tokio::time::advance(TIMEOUT).await;
            service.choose(client(1)) != Some(first)
        };
        assert!(moved().await || moved().await || moved().await || moved().await);
    }

    #[test]
    fn a_client_of_an_endpoint_that_went_is_free_at_once() {
        let service = ServicePort::new(&port(1, Some(TIMEOUT)));
        assert_eq!(service.choose(client(1)), Some(endpoint(1)));
        let mut changed = port(0, Some(TIMEOUT));
        changed.endpoints = [endpoint(2)].into();
        service.update(&changed);
        assert_eq!(service.choose(client(1)), Some(endpoint(2)));
        service.update(&port(2, Some(TIMEOUT)));
        assert_eq!(service.choose(client(1)), Some(endpoint(2)), "an added endpoint moves nobody");
    }

    #[test]
    fn affinity_ends_when_switched_off() {
        let service = ServicePort::new(&port(1, Some(TIMEOUT)));
        service.choose(client(1));
        service.update(&port(1, None));
        assert!(service.lock().pinned.is_empty());
        service.choose(client(1));
        assert!(service.lock().pinned.is_empty());
    }
}
