//! What a running proxy answers about itself: the plan's explanation, and what the kernel has of it.
//!
//! ```text
//! http, cli --Answers--> sync thread: explain (pure)
//!                  '---> kernel: elements by key, rules, conntrack
//! ```
//!
//! Nothing here writes. The kernel is asked by key, so the size of the table does not matter.

mod alone;
mod connections;
mod kernel;

pub use alone::read_kernel;

use crate::explain::{
    self, Connections, Explanation, Filter, Origin, Question, Services, Summary, Uncounted,
};
use crate::kernel::addresses::{LocalAddresses, Way, way_to};
use crate::kernel::nft::Error;
use crate::model::{ObjectName, Protocol};
use crate::plan::{Counting, Frontend};
use crate::sync::{Asker, View};
use nft_table::Family;
use serde::Deserialize;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// So many are answered at a time; others hear that this process is busy.
const AT_A_TIME: usize = 2;
/// The sync thread may be writing a large change.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many Services are listed at a time.
const SERVICES: usize = 1000;
/// Of one Service so many frontends are explained.
const FRONTENDS: usize = 16;

/// What is to be explained.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// An address; with `port` and `protocol`.
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    /// `TCP` (the default), `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// `namespace/name` of a Service, instead of an address: all that clients can connect to.
    pub service: Option<String>,
    /// The client's address.
    pub from: Option<IpAddr>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("{0}")]
    BadQuery(String),
    #[error("there is no Service {0} on this node")]
    NoService(String),
    #[error("nothing is in the kernel yet: /healthz says what is still to come")]
    NotYet,
    #[error("the kernel does not say what it has counted: {0}")]
    NotCounted(String),
    #[error("kube-proxy answers others, or writes a large change; try again")]
    Busy,
}

/// Answers questions about the running proxy.
#[derive(Clone, Debug)]
pub struct Answers {
    asker: Asker,
    free: Arc<Semaphore>,
    /// What is counted is read by one at a time; a scrape and a page wait for each other.
    counting: Arc<Semaphore>,
}

impl Answers {
    pub fn new(asker: Asker) -> Answers {
        let free = Arc::new(Semaphore::new(AT_A_TIME));
        Answers { asker, free, counting: Arc::new(Semaphore::new(1)) }
    }

    /// Lists Services.
    ///
    /// # Errors
    /// [`Unanswered::Busy`]
    pub async fn services(&self, filter: Filter) -> Result<Services, Unanswered> {
        let _free = self.free.try_acquire().map_err(|_| Unanswered::Busy)?;
        // The sync thread makes them, and has other things to do.
        let limit = Some(filter.limit.unwrap_or(SERVICES).min(SERVICES));
        let filter = Filter { limit, ..filter };
        let question = move |view: &View<'_>| {
            let list = explain::services(view.planner, &filter);
            let name = |one: &Summary| ObjectName::new(&*one.namespace, &*one.name);
            let names: Vec<ObjectName> = list.services.iter().map(name).collect();
            (explain::connections(view.planner, view.aside, Some(&names), false), list)
        };
        let (uncounted, mut list) = self.ask(question).await?;
        if uncounted.counting != Counting::Off {
            list.count(&count(uncounted).await?);
        }
        Ok(list)
    }

    /// What the kernel has counted of all Services, or of some and of their endpoints.
    ///
    /// # Errors
    /// The kernel does not answer, or there is no time for it.
    pub async fn connections(
        &self,
        services: Option<Vec<ObjectName>>,
    ) -> Result<Connections, Unanswered> {
        let turn = timeout(PATIENCE, self.counting.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Unanswered::Busy) };
        let question = move |view: &View<'_>| {
            explain::connections(view.planner, view.aside, services.as_deref(), true)
        };
        count(self.ask(question).await?).await
    }

    /// Explains an address, or each address of a Service.
    ///
    /// # Errors
    /// The query makes no sense, there is no such Service, or there is no time for it.
    pub async fn explain(&self, query: Query) -> Result<Vec<Explanation>, Unanswered> {
        let _free = self.free.try_acquire().map_err(|_| Unanswered::Busy)?;
        let target = Target::of(&query)?;
        let client = match query.from {
            Some(address) => Some(blocking(move || origin(address)).await?),
            None => None,
        };
        let answers = self.ask(move |view| answers(view, &target, client.as_ref())).await??;
        blocking(move || answers.into_iter().map(kernel::compare).collect()).await
    }

    /// Has the sync thread answer.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let question = move |view: &View<'_>| view.is_running.then(|| question(view));
        let answer = self.asker.ask(question).ok_or(Unanswered::Busy)?;
        match timeout(PATIENCE, answer).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(Unanswered::NotYet),
            Ok(Err(_)) | Err(_) => Err(Unanswered::Busy),
        }
    }
}

/// The same, for who has the plan at hand: asks the kernel of the network namespace of the calling thread, and waits for
/// it.
///
/// # Errors
/// The query makes no sense, or there is no such Service.
pub fn explain_now(view: &View<'_>, query: &Query) -> Result<Vec<Explanation>, Unanswered> {
    let answers = answers(view, &Target::of(query)?, query.from.map(origin).as_ref())?;
    Ok(answers.into_iter().map(kernel::compare).collect())
}

/// What the kernel has counted, of all Services or of some and of their endpoints, for who has the plan at hand.
///
/// # Errors
/// The kernel does not answer.
pub fn connections_now(
    view: &View<'_>,
    services: Option<&[ObjectName]>,
) -> Result<Connections, Error> {
    connections::read(explain::connections(view.planner, view.aside, services, true))
}

/// On a thread that may wait for the kernel.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unanswered> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Unanswered::Busy)
}

async fn count(uncounted: Uncounted) -> Result<Connections, Unanswered> {
    let counted = blocking(move || connections::read(uncounted)).await?;
    counted.map_err(|error| Unanswered::NotCounted(error.to_string()))
}

enum Target {
    Address { address: IpAddr, port: u16, protocol: Protocol },
    Service(ObjectName),
}

impl Target {
    fn of(query: &Query) -> Result<Target, Unanswered> {
        let bad = |text: &str| Unanswered::BadQuery(text.to_owned());
        match query {
            Query { address: Some(address), port: Some(port), protocol, service: None, .. } => {
                let name = protocol.as_deref().unwrap_or("TCP").to_ascii_uppercase();
                let protocol = Protocol::parse(&name)
                    .ok_or_else(|| bad("protocol: must be TCP, UDP or SCTP"))?;
                if query.from.is_some_and(|from| Family::of(&from) != Family::of(address)) {
                    return Err(bad("from: must be of the same IP family as the address"));
                }
                Ok(Target::Address { address: *address, port: *port, protocol })
            }
            Query { service: Some(service), address: None, port: None, protocol: None, .. } => {
                let (namespace, name) = service
                    .split_once('/')
                    .ok_or_else(|| bad("service: must be namespace/name"))?;
                Ok(Target::Service(ObjectName::new(namespace, name)))
            }
            _ => Err(bad("either address and port are needed, or service")),
        }
    }

    /// What is to be explained, one question for each frontend.
    fn questions(&self, view: &View<'_>) -> Result<Vec<(IpAddr, u16, Protocol)>, Unanswered> {
        let name = match self {
            Target::Address { address, port, protocol } => {
                return Ok(vec![(*address, *port, *protocol)]);
            }
            Target::Service(name) => name,
        };
        let unknown = || Unanswered::NoService(name.to_string());
        let there = view.planner.inspect(name).ok_or_else(unknown)?;
        let planned = there.plans.iter().flat_map(|plan| &plan.frontends);
        let frontends = planned.map(|planned| planned.frontend).chain(there.lost.iter().copied());
        let question = |frontend: Frontend| match frontend {
            Frontend::Ip { address, protocol, port } => Some((address, port, protocol)),
            Frontend::NodePort { family, protocol, port } => {
                let networks = view.planner.nodeport_networks().iter();
                let mut addresses = networks.map(ipnet::IpNet::addr);
                let address = addresses.find(|address| Family::of(address) == family)?;
                Some((address, port, protocol))
            }
        };
        Ok(frontends.filter_map(question).take(FRONTENDS).collect())
    }
}

fn answers(
    view: &View<'_>,
    target: &Target,
    client: Option<&Origin>,
) -> Result<Vec<explain::Answer>, Unanswered> {
    let is_local = |address| is_local(view.addresses, address);
    let questions = target.questions(view)?.into_iter();
    let of_family = questions.filter(|(address, ..)| {
        client.is_none_or(|client| Family::of(&client.address) == Family::of(address))
    });
    let answers = of_family.map(|(address, port, protocol)| {
        let question = Question { address, port, protocol, client: client.cloned() };
        explain::explain(view.planner, &is_local, &question)
    });
    Ok(answers.collect())
}

/// What nft's `fib daddr type local` says.
fn is_local(addresses: &LocalAddresses, address: IpAddr) -> bool {
    let routes = [&addresses.local_routes, &addresses.loopback_routes];
    routes.into_iter().flatten().any(|route| route.contains(&address))
}

/// How packets of an address come in. What cannot be told comes from outside.
fn origin(address: IpAddr) -> Origin {
    let interface = match way_to(address) {
        Ok(Way::Own) => None,
        Ok(Way::By(interface)) => Some(interface),
        Ok(Way::Nowhere) | Err(_) => Some("an unknown interface".to_owned()),
    };
    Origin { address, interface }
}
