//! Who serves a frontend that several Services want: whose ClusterIP it is, then whose load balancer address, and
//! among Services that want it for the same reason the oldest of them.
//!
//! A ClusterIP is the API server's own allocation, and the address of a load balancer its controller's, while whoever
//! may write a Service may write any external IP into it, long before the address is given to somebody.

use super::Frontend;
use crate::model::ObjectName;
use hashbrown::HashMap;
use std::collections::BTreeSet;

/// Why a Service wants a frontend, the strongest reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// `spec.clusterIPs`, and `spec.ports[].nodePort`, which nothing else competes with.
    Allocated,
    /// `status.loadBalancer.ingress[].ip`
    LoadBalancer,
    /// `spec.externalIPs`
    ExternalIp,
}

/// The place of a Service among those that want the same frontend: the stronger reason comes first, then the older
/// Service, then the one whose `namespace/name` sorts first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub reason: Reason,
    /// `metadata.creationTimestamp`, seconds since 1970.
    pub created: i64,
    pub service: ObjectName,
}

/// Owners of all frontends. Nearly all frontends are wanted by one Service only, so the others are
/// kept apart.
#[derive(Debug, Default)]
pub struct Claims {
    owners: HashMap<Frontend, Rank>,
    waiting: HashMap<Frontend, BTreeSet<Rank>>,
}

impl Claims {
    /// Notes that a Service wants `frontend`. Returns the Service that had it and has to give it up now.
    pub fn add(&mut self, frontend: Frontend, rank: Rank) -> Option<ObjectName> {
        let Some(owner) = self.owners.get_mut(&frontend) else {
            self.owners.insert(frontend, rank);
            return None;
        };
        if *owner == rank {
            return None;
        }
        if owner.service == rank.service || rank < *owner {
            let before = std::mem::replace(owner, rank);
            let gives_up = before.service != owner.service;
            let queue = self.waiting.entry(frontend).or_default();
            queue.remove(owner);
            if gives_up {
                queue.insert(before.clone());
            }
            if queue.is_empty() {
                self.waiting.remove(&frontend);
            }
            return gives_up.then_some(before.service);
        }
        self.waiting.entry(frontend).or_default().insert(rank);
        None
    }

    /// Notes that a Service wants `frontend` no more. Returns the Service that has it now instead.
    pub fn remove(&mut self, frontend: &Frontend, rank: &Rank) -> Option<ObjectName> {
        if let Some(queue) = self.waiting.get_mut(frontend) {
            queue.remove(rank);
            if queue.is_empty() {
                self.waiting.remove(frontend);
            }
        }
        if self.owners.get(frontend)? != rank {
            return None;
        }
        let next = self.waiting.get_mut(frontend).and_then(BTreeSet::pop_first);
        if self.waiting.get(frontend).is_some_and(BTreeSet::is_empty) {
            self.waiting.remove(frontend);
        }
        match next {
            Some(rank) => {
                let service = rank.service.clone();
                self.owners.insert(*frontend, rank);
                Some(service)
            }
            None => {
                self.owners.remove(frontend);
                None
            }
        }
    }

    /// Who wants a frontend, who has it first.
    pub fn all(&self, frontend: &Frontend) -> impl Iterator<Item = &Rank> {
        let waiting = self.waiting.get(frontend).into_iter().flatten();
        self.owners.get(frontend).into_iter().chain(waiting)
    }

    /// The Service that serves a frontend.
    pub fn owner(&self, frontend: &Frontend) -> Option<&ObjectName> {
        self.owners.get(frontend).map(|rank| &rank.service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    const FRONTEND: Frontend = Frontend::Ip {
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)),
        protocol: Protocol::Tcp,
        port: 80,
    };

    fn rank(created: i64, name: &str) -> Rank {
        Rank { reason: Reason::Allocated, created, service: ObjectName::new("default", name) }
    }

    #[test]
    fn an_allocated_address_is_not_lost_to_an_older_service() {
        let mut claims = Claims::default();
        claims.add(FRONTEND, Rank { reason: Reason::ExternalIp, ..rank(1, "thief") });
        let balancer = Rank { reason: Reason::LoadBalancer, ..rank(2, "balancer") };
        assert_eq!(claims.add(FRONTEND, balancer).unwrap().name.as_ref(), "thief");
        assert_eq!(claims.add(FRONTEND, rank(3, "owner")).unwrap().name.as_ref(), "balancer");
        assert_eq!(claims.remove(&FRONTEND, &rank(3, "owner")).unwrap().name.as_ref(), "balancer");
    }

    #[test]
    fn the_older_service_wins_whatever_the_order() {
        let mut claims = Claims::default();
        assert_eq!(claims.add(FRONTEND, rank(2, "young")), None);
        assert_eq!(claims.add(FRONTEND, rank(1, "old")).unwrap().name.as_ref(), "young");
        assert_eq!(claims.owner(&FRONTEND).unwrap().name.as_ref(), "old");
        assert_eq!(claims.add(FRONTEND, rank(2, "young")), None);
        assert_eq!(claims.owner(&FRONTEND).unwrap().name.as_ref(), "old");
    }

    #[test]
    fn names_decide_between_services_of_the_same_age() {
        let mut claims = Claims::default();
        claims.add(FRONTEND, rank(1, "b"));
        claims.add(FRONTEND, rank(1, "a"));
        assert_eq!(claims.owner(&FRONTEND).unwrap().name.as_ref(), "a");
    }

    #[test]
    fn the_next_in_age_takes_over() {
        let mut claims = Claims::default();
        for (age, name) in [(3, "c"), (1, "a"), (2, "b")] {
            claims.add(FRONTEND, rank(age, name));
        }
        assert_eq!(claims.remove(&FRONTEND, &rank(1, "a")).unwrap().name.as_ref(), "b");
        assert_eq!(claims.remove(&FRONTEND, &rank(3, "c")), None);
        assert_eq!(claims.remove(&FRONTEND, &rank(2, "b")), None);
        assert_eq!(claims.owner(&FRONTEND), None);
        assert!(claims.owners.is_empty() && claims.waiting.is_empty());
    }
}
