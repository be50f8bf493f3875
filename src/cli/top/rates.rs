//! What happened between two looks.

use crate::explain::{Connections, CountedPort};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What the proxy says at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    pub at: Instant,
    pub connections: Connections,
    /// Sums of the samples of each metric.
    pub metrics: HashMap<String, f64>,
}

/// What happened to a Service port, for each second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    pub namespace: String,
    pub name: String,
    /// `http/TCP`
    pub port: String,
    pub served: f64,
    pub refused: f64,
    pub dropped: f64,
    /// Connections since they are counted.
    pub total: u64,
}

/// The same of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointRate {
    pub address: SocketAddr,
    pub served: f64,
    pub total: u64,
}

/// By what Service ports are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Connections a second.
    #[default]
    Rate,
    /// Attempts that came to nothing, a second.
    Failures,
    /// All connections.
    Total,
}

impl Order {
    pub const fn next(self) -> Order {
        match self {
            Order::Rate => Order::Failures,
            Order::Failures => Order::Total,
            Order::Total => Order::Rate,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Order::Rate => "connections/s",
            Order::Failures => "refused and dropped/s",
            Order::Total => "connections in all",
        }
    }
}

type Name<'a> = (&'a str, &'a str, &'a str, &'a str);

fn name(port: &CountedPort) -> Name<'_> {
    (&port.namespace, &port.name, &port.port, &port.protocol)
}

/// What happened to each Service port. A count that fell belongs to something that is gone.
pub fn rates(before: &Look, now: &Look, order: Order) -> Vec<Rate> {
    let earlier: HashMap<Name<'_>, &CountedPort> =
        before.connections.ports.iter().map(|port| (name(port), port)).collect();
    let time = now.at.duration_since(before.at);
    let rate = |port: &CountedPort| {
        let earlier = earlier.get(&name(port));
        let per_second = |of: fn(&CountedPort) -> u64| {
            a_second(of(port), earlier.map_or(0, |earlier| of(earlier)), time)
        };
        Rate {
            namespace: port.namespace.clone(),
            name: port.name.clone(),
            port: format!("{}/{}", port.port, port.protocol),
            served: per_second(|port| port.served),
            refused: per_second(|port| port.refused),
            dropped: per_second(|port| port.dropped),
            total: port.total(),
        }
    };
    let mut rates: Vec<Rate> = now.connections.ports.iter().map(rate).collect();
    let key = |rate: &Rate| match order {
        Order::Rate => rate.served,
        Order::Failures => rate.refused + rate.dropped,
        Order::Total => rate.total as f64,
    };
    // Those that are alike stay in the order of their names.
    rates.sort_by(|a, b| key(b).total_cmp(&key(a)));
    rates
}

/// What happened to the endpoints of a Service port, of which there may be no look before.
pub fn endpoint_rates(
    before: Option<&(Instant, Connections)>,
    now: &(Instant, Connections),
    port: &Rate,
) -> Vec<EndpointRate> {
    let is_it = |there: &&CountedPort| {
        (&there.namespace, &there.name) == (&port.namespace, &port.name)
            && format!("{}/{}", there.port, there.protocol) == port.port
    };
    let find = |look: &'_ (Instant, Connections)| -> HashMap<SocketAddr, u64> {
        let there = look.1.ports.iter().find(is_it);
        let endpoints = there.into_iter().flat_map(|port| &port.endpoints);
        endpoints.map(|endpoint| (endpoint.address, endpoint.connections)).collect()
    };
    let earlier = before.map(find).unwrap_or_default();
    let time = before.map_or(Duration::ZERO, |before| now.0.duration_since(before.0));
    let rate = |(address, total)| EndpointRate {
        address,
        served: earlier.get(&address).map_or(0.0, |earlier| a_second(total, *earlier, time)),
        total,
    };
    let mut rates: Vec<EndpointRate> = find(now).into_iter().map(rate).collect();
    rates.sort_by(|a, b| b.served.total_cmp(&a.served).then(a.address.cmp(&b.address)));
    rates
}

/// How much a metric has risen in a second.
pub fn metric(before: &Look, now: &Look, name: &str) -> f64 {
    let of = |look: &Look| look.metrics.get(name).copied().unwrap_or_default();
    let time = now.at.duration_since(before.at).as_secs_f64();
    if time > 0.0 { ((of(now) - of(before)) / time).max(0.0) } else { 0.0 }
}

fn a_second(now: u64, before: u64, time: Duration) -> f64 {
    let time = time.as_secs_f64();
    if time > 0.0 { now.saturating_sub(before) as f64 / time } else { 0.0 }
}

/// The sums of the samples of each metric, of one IP family where they are parted by it: a sync is of both.
pub fn samples(text: &str) -> HashMap<String, f64> {
    let mut sums = HashMap::new();
    let mut families: HashMap<&str, &str> = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let family = labels.split_once("ip_family=\"").and_then(|(_, rest)| rest.split('"').next());
        if let Some(family) = family
            && *families.entry(name).or_insert(family) != family
        {
            continue;
        }
        if let Ok(value) = value.parse::<f64>() {
            *sums.entry(name.to_owned()).or_insert(0.0) += value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::CountedEndpoint;

    fn port(name: &str, served: u64, refused: u64) -> CountedPort {
        CountedPort {
            namespace: "shop".into(),
            name: name.into(),
            port: "http".into(),
            protocol: "TCP".into(),
            served,
            refused,
            ..CountedPort::default()
        }
    }

    fn looks(before: Vec<CountedPort>, now: Vec<CountedPort>) -> (Look, Look) {
        let start = Instant::now();
        let look = |ports, seconds| Look {
            at: start + Duration::from_secs(seconds),
            connections: Connections { ports, ..Connections::default() },
            metrics: HashMap::new(),
        };
        (look(before, 0), look(now, 2))
    }

    #[test]
    fn rates_are_by_second_and_sorted() {
        let before = vec![port("a", 10, 0), port("b", 100, 5)];
        let now = vec![port("a", 30, 0), port("b", 104, 25), port("new", 3, 0)];
        let (before, now) = looks(before, now);
        let of = |order| -> Vec<(String, f64)> {
            let rates = rates(&before, &now, order);
            rates.into_iter().map(|rate| (rate.name, rate.served)).collect()
        };
        let named = |rates: [(&str, f64); 3]| rates.map(|(name, rate)| (name.to_owned(), rate));
        assert_eq!(of(Order::Rate), named([("a", 10.0), ("b", 2.0), ("new", 1.5)]));
        assert_eq!(of(Order::Failures)[0].0, "b");
        assert_eq!(of(Order::Total)[0].0, "b");
    }

    #[test]
    fn what_is_gone_makes_no_negative_rate() {
        let (before, now) = looks(vec![port("a", 10, 0)], vec![port("a", 4, 0)]);
        assert_eq!(rates(&before, &now, Order::Rate)[0].served, 0.0);
    }

    #[test]
    fn endpoints_have_rates_once_there_are_two_looks() {
        let address: SocketAddr = "10.244.0.1:80".parse().unwrap();
        let look = |connections| {
            let endpoints = vec![CountedEndpoint { address, connections }];
            let ports = vec![CountedPort { endpoints, ..port("a", 0, 0) }];
            Connections { ports, ..Connections::default() }
        };
        let start = Instant::now();
        let rate = Rate {
            namespace: "shop".into(),
            name: "a".into(),
            port: "http/TCP".into(),
            ..Rate::default()
        };
        let first = (start, look(4));
        assert_eq!(endpoint_rates(None, &first, &rate)[0].served, 0.0);
        let second = (start + Duration::from_secs(2), look(10));
        let rates = endpoint_rates(Some(&first), &second, &rate);
        assert_eq!(rates, [EndpointRate { address, served: 3.0, total: 10 }]);
    }

    #[test]
    fn samples_of_one_family_are_added_up() {
        let text = "# TYPE syncs counter\nsyncs{ip_family=\"IPv4\"} 3\nsyncs{ip_family=\"IPv6\"} 3\n\
                    refused{class=\"a\"} 1\nrefused{class=\"b\"} 2\nplain 4\n";
        let samples = samples(text);
        assert_eq!((samples["syncs"], samples["refused"], samples["plain"]), (3.0, 3.0, 4.0));
    }
}
