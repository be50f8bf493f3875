//! The servers of health check node ports: one listener per Service and address.
//!
//! Any path and method is answered: 200 where the Service has ready endpoints on this node and the
//! proxy works, else 503. The node's own state (taints, deletion) plays no part.
//!
//! Listeners follow [`ServiceChecks`] by difference: what stays wanted is not touched.

use super::{accept, answer, bind};
use crate::health::{DesiredChecks, Health, Moment, ServiceChecks};
use crate::metrics::Metrics;
use crate::model::ObjectName;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use nft_table::Family;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How long until a port that could not be bound is tried again, if nothing changes before.
const RETRY: Duration = Duration::from_secs(5);

/// The header that says how many local endpoints a node has, for load balancers that weigh nodes.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// The health check of a Service cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for the health check of Service {service}: {source}")]
pub struct ListenError {
    pub service: ObjectName,
    pub address: SocketAddr,
    pub source: io::Error,
}

/// The open listeners. Dropping it closes them and their connections.
pub struct CheckServers {
    desired: watch::Receiver<DesiredChecks>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    report: Box<dyn FnMut(ListenError) + Send>,
    open: BTreeMap<Listener, AbortOnDropHandle<Infallible>>,
    /// Services and ports that do not listen on every address, and were reported for it.
    failing: BTreeSet<(ObjectName, u16)>,
}

/// What tells one listener from another.
type Listener = (ObjectName, SocketAddr);

impl CheckServers {
    /// `report` is told once about each Service whose port cannot be bound.
    pub fn new(
        checks: &ServiceChecks,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        report: impl FnMut(ListenError) + Send + 'static,
    ) -> Self {
        CheckServers {
            desired: checks.watch(),
            health,
            metrics,
            report: Box::new(report),
            open: BTreeMap::new(),
            failing: BTreeSet::new(),
        }
    }

    /// Follows the desired checks until they are dropped.
    pub async fn run(mut self) {
        loop {
            self.reconcile().await;
            let retry = !self.failing.is_empty();
            tokio::select! {
                changed = self.desired.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if retry => {}
            }
        }
    }

    /// Closes what is not wanted any more and tries to open what is missing.
    pub async fn reconcile(&mut self) {
        let wanted = wanted(&self.desired.borrow_and_update());
        // An address may go from one Service to another: first close, then open.
        self.close_unwanted(&wanted).await;
        self.open_missing(&wanted);
        let services: BTreeSet<_> = wanted.iter().map(|(service, _)| service).collect();
        let failing: BTreeSet<_> = self.failing.iter().map(|(service, _)| service).collect();
        let listening = services.len() - failing.len();
        self.metrics.objects.set_health_check_ports(listening, failing.len());
    }

    /// Where it listens and for which Service.
    pub fn listening(&self) -> impl Iterator<Item = &(ObjectName, SocketAddr)> {
        self.open.keys()
    }

    async fn close_unwanted(&mut self, wanted: &BTreeSet<Listener>) {
        let open = std::mem::take(&mut self.open);
        let (keep, close): (_, BTreeMap<_, _>) =
            open.into_iter().partition(|(listener, _)| wanted.contains(listener));
        self.open = keep;
        for ((service, address), task) in close {
            tracing::debug!(%service, %address, "closing health check");
            task.abort();
            // The socket is closed when the task has ended.
            let _ = task.await;
        }
    }

    fn open_missing(&mut self, wanted: &BTreeSet<Listener>) {
        let mut failed = BTreeMap::new();
        for (service, address) in wanted {
            let listener = (service.clone(), *address);
            if self.open.contains_key(&listener) {
                continue;
            }
            match bind::own_family(*address) {
                Ok(socket) => {
                    tracing::debug!(%service, %address, "opening health check");
                    let task = tokio::spawn(accept::serve(
                        socket,
                        self.router(service, Family::of(&address.ip())),
                    ));
                    self.open.insert(listener, AbortOnDropHandle::new(task));
                }
                Err(source) => {
                    let error = ListenError { service: service.clone(), address: *address, source };
                    failed.entry((service.clone(), address.port())).or_insert(error);
                }
            }
        }
        let before = std::mem::take(&mut self.failing);
        self.failing = failed.keys().cloned().collect();
        for (key, error) in failed {
            if !before.contains(&key) {
                tracing::warn!(%error, "will try again");
                (self.report)(error);
            }
        }
    }

    fn router(&self, service: &ObjectName, family: Family) -> Router {
        let check = Check {
            service: service.clone(),
            family,
            desired: self.desired.clone(),
            health: self.health.clone(),
        };
        Router::new().fallback(respond).with_state(Arc::new(check))
    }
}

fn wanted(desired: &DesiredChecks) -> BTreeSet<Listener> {
    let addresses = desired.addresses();
    let listeners = |(service, port): (&ObjectName, u16)| {
        let service = service.clone();
        addresses.iter().map(move |ip| (service.clone(), SocketAddr::new(*ip, port)))
    };
    desired.ports().flat_map(listeners).collect()
}

/// What a listener needs to answer.
struct Check {
    service: ObjectName,
    family: Family,
    desired: watch::Receiver<DesiredChecks>,
    health: Arc<Health>,
}

/// The body, in upstream's form.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: BodyService<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct BodyService<'a> {
    namespace: &'a str,
    name: &'a str,
}

async fn respond(State(check): State<Arc<Check>>) -> Response {
    let service = &check.service;
    let wanted = check.desired.borrow().service(service);
    let local_endpoints = wanted.map_or(0, |wanted| wanted.local_endpoints(check.family));
    let service_proxy_healthy = check.health.is_healthy(Moment::now());
    let body = Body {
        service: BodyService { namespace: &service.namespace, name: &service.name },
        local_endpoints,
        service_proxy_healthy,
    };
    let good = local_endpoints > 0 && service_proxy_healthy;
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = answer::json(status, tab_indented(&body));
    response.headers_mut().insert(WEIGHT, HeaderValue::from(local_endpoints));
    response
}

fn tab_indented(body: &Body) -> String {
    let mut json = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    body.serialize(&mut serde_json::Serializer::with_formatter(&mut json, tabs))
        .expect("the body is always valid JSON");
    String::from_utf8(json).expect("JSON is UTF-8")
}
