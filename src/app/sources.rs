//! Where Services come from: a directory of manifests or an API server; and Events back to the latter.

use super::lives;
use super::node_check::NodeCheck;
use crate::api::{self, ConnectionOptions, Event, EventSeverity, EventWriter, Regarding};
use crate::config::{ALLOW_SERVICE_EXTERNAL_IPS, Config, DetectLocal, Source};
use crate::health::PendingTask;
use crate::http::BindError;
use crate::http::service_checks::ListenError;
use crate::intake::{self, ObjectKey, OnProblem, Problem};
use crate::manifests;
use crate::metrics::Metrics;
use crate::metrics::objects::Kind;
use crate::model::{Change, ObjectName};
use crate::sync::{Input, Sender, Shortage};
use anyhow::{Context, anyhow};
use kube::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;

/// How long the first sync waits for this node's Node object, as kube-proxy does: with NodeCIDR the
/// detector is nothing without it.
const NODE_PATIENCE: Duration = Duration::from_secs(30);
const POD_CIDR_PATIENCE: Duration = Duration::from_secs(300);

/// The client of the API server, and the one thread on which all is done with it. A large list holds up no probe so, and
/// a connection and the watches that it feeds need not wake each other.
pub struct ApiServer {
    client: Client,
    /// None: it has ended.
    runtime: Option<Runtime>,
}

impl ApiServer {
    /// Has what is spawned by the calling thread run there, while the guard lives.
    fn enter(&self) -> Option<EnterGuard<'_>> {
        self.runtime.as_ref().map(Runtime::enter)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // Whatever it waits for.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// Connects with the API server, where that is the source.
pub fn connect(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Option<ApiServer>> {
    let (kubeconfig, master) = match &config.source {
        Source::Manifests(_) => return Ok(None),
        Source::Kubeconfig { path, master } => (Some(path.clone()), master.clone()),
        Source::Master(master) => (None, Some(master.clone())),
        Source::InCluster => (None, None),
    };
    let options = ConnectionOptions {
        kubeconfig,
        master,
        qps: config.document.client_connection.qps,
        burst: config.document.client_connection.burst.max(0) as u32,
    };
    let metrics = metrics.clone();
    let observer = Arc::new(move |call: &api::Call<'_>| {
        let api::Call { method, host, code, latency, throttled } = *call;
        metrics.client.answered(method, host, code, latency, throttled);
    });
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("api")
        .enable_all()
        .build()
        .context("cannot start the runtime of the API client")?;
    let client = runtime.block_on(api::connect(options, observer))?;
    Ok(Some(ApiServer { client, runtime: Some(runtime) }))
}

/// Starts the source. The start-up task `pending` is done once the first state is on its way to the kernel.
/// The returned task ends only when the source does, which is an error.
pub fn start(
    config: &Config,
    api_server: Option<&ApiServer>,
    metrics: &Arc<Metrics>,
    events: Events,
    inputs: Sender,
    pending: PendingTask,
) -> anyhow::Result<JoinHandle<anyhow::Error>> {
    let metrics = metrics.clone();
    let on_problem = OnProblem(Arc::new(move |problems| {
        problems.iter().for_each(|problem| metrics.objects.problem(kind(&problem.object)));
        events.object_problems(problems);
    }));
    let intake = intake(config, on_problem);
    match (&config.source, api_server) {
        (Source::Manifests(directory), _) => {
            let (source, changes) = manifests::Source::open(directory, &config.node_name, intake)?;
            inputs.send(Input::Changes(changes));
            inputs.send(Input::Complete);
            drop(pending);
            let send = move |changes| inputs.send(Input::Changes(changes));
            Ok(lives::spawn("manifests", async move {
                match source.run(send).await {
                    Ok(()) => anyhow!("the directory of manifests is not watched any more"),
                    Err(error) => error.into(),
                }
            }))
        }
        (_, Some(api_server)) => {
            let _there = api_server.enter();
            let (unfit, mut is_unfit) = unbounded_channel();
            let options = api_options(config, intake);
            let check = NodeCheck::new(config);
            let pending = Mutex::new(Some(pending));
            let (node_name, has_node) = (config.node_name.clone(), AtomicBool::new(false));
            let sink = move |notice| {
                match &notice {
                    api::Notice::Changes(changes) => {
                        if changes.iter().any(|change| matches!(change, Change::Node(Some(_)))) {
                            has_node.store(true, Ordering::Relaxed);
                        }
                    }
                    api::Notice::Complete if !has_node.load(Ordering::Relaxed) => tracing::warn!(
                        "there is no Node {node_name} yet; if that is not this node's name, set hostnameOverride"
                    ),
                    api::Notice::Complete => {}
                }
                if let api::Notice::Changes(changes) = &notice
                    && let Err(error) = check.look(changes)
                {
                    let _ = unfit.send(error);
                    return;
                }
                let input = match notice {
                    api::Notice::Changes(changes) => Input::Changes(changes),
                    api::Notice::Complete => {
                        pending.lock().unwrap_or_else(PoisonError::into_inner).take();
                        Input::Complete
                    }
                };
                inputs.send(input);
            };
            let mut watches = api::watch(&api_server.client, &options, Arc::new(sink));
            Ok(lives::spawn("watches", async move {
                tokio::select! {
                    ended = watches.join_next() => anyhow!("a watch of the API server ended: {ended:?}"),
                    Some(error) = is_unfit.recv() => error,
                }
            }))
        }
        (_, None) => unreachable!("a client was made for every source but manifests"),
    }
}

/// How objects are judged.
pub fn intake(config: &Config, on_problem: OnProblem) -> intake::Options {
    intake::Options {
        allow_service_external_ips: config.feature_gates.enabled(ALLOW_SERVICE_EXTERNAL_IPS),
        bind_address: config.node_ip_override,
        on_problem,
        ..intake::Options::default()
    }
}

/// How long listing all may take.
const LIST_PATIENCE: Duration = Duration::from_secs(120);

/// All objects that the API server has, once.
pub fn list(
    config: &Config,
    api_server: &ApiServer,
    intake: intake::Options,
) -> anyhow::Result<Vec<Change>> {
    let (send, received) = std::sync::mpsc::channel();
    let _there = api_server.enter();
    let options = api_options(config, intake);
    let _watches =
        api::watch(&api_server.client, &options, Arc::new(move |notice| drop(send.send(notice))));
    let end = std::time::Instant::now() + LIST_PATIENCE;
    let mut changes = Vec::new();
    loop {
        let rest = end.saturating_duration_since(std::time::Instant::now());
        match received.recv_timeout(rest) {
            Ok(api::Notice::Changes(some)) => changes.extend(some),
            Ok(api::Notice::Complete) => return Ok(changes),
            Err(_) => anyhow::bail!(
                "the API server did not list everything in {}",
                humantime::format_duration(LIST_PATIENCE)
            ),
        }
    }
}

fn api_options(config: &Config, intake: intake::Options) -> api::Options {
    let needs_pod_cidrs = config.detect_local == DetectLocal::NodeCidr;
    let client = &config.document.client_connection;
    api::Options {
        node_name: config.node_name.clone(),
        accept: api::accept(&client.accept_content_types, &client.content_type),
        wait_for_node: if needs_pod_cidrs { POD_CIDR_PATIENCE } else { NODE_PATIENCE },
        intake,
    }
}

fn kind(object: &ObjectKey) -> Kind {
    match object {
        ObjectKey::Service(_) => Kind::Service,
        ObjectKey::EndpointSlice(_) => Kind::EndpointSlice,
        ObjectKey::Node(_) => Kind::Node,
        ObjectKey::ServiceCidr(_) => Kind::ServiceCidr,
    }
}

/// Kubernetes Events, where there is an API server to write them to.
#[derive(Clone)]
pub struct Events(Option<EventWriter>);

pub fn events(config: &Config, api_server: Option<&ApiServer>) -> Events {
    Events(api_server.map(|api_server| {
        let _there = api_server.enter();
        EventWriter::start(api_server.client.clone(), &config.node_name)
    }))
}

impl Events {
    pub fn starting(&self) {
        if let Some(writer) = &self.0 {
            writer.publish(Event::starting());
        }
    }

    /// A server of this process cannot bind its address.
    pub fn server_failed(&self, reason: &'static str, error: &BindError) {
        self.warn(Regarding::Node, reason, "StartKubeProxy", error.to_string());
    }

    /// A health check node port cannot be bound.
    pub fn health_check_failed(&self, error: &ListenError) {
        let service = Regarding::Service(error.service.clone());
        self.warn(service, "FailedToStartServiceHealthcheck", "Listen", error.to_string());
    }

    /// The kernel refuses what a Service is to become.
    pub fn service_refused(&self, service: &ObjectName, reason: &str) {
        let service = Regarding::Service(service.clone());
        let note = format!("the kernel refuses it, it stays as it was: {reason}");
        self.warn(service, "FailedToProgramService", "Sync", note);
    }

    /// Parts of an object are left out.
    fn object_problems(&self, problems: &[Problem]) {
        let Some((first, more)) = problems.split_first() else { return };
        let ObjectKey::Service(service) = &first.object else { return };
        let more =
            if more.is_empty() { String::new() } else { format!(", and {} more", more.len()) };
        let note = format!("{}: {}{more}", first.field, first.message);
        self.warn(Regarding::Service(service.clone()), "InvalidService", "Read", note);
    }

    /// A Service asks for more than it gets.
    pub fn service_short(&self, service: &ObjectName, how: Shortage, note: &str) {
        let reason = match how {
            Shortage::TooLarge => "ServiceTooLarge",
            Shortage::Taken => "FrontendTaken",
        };
        self.warn(Regarding::Service(service.clone()), reason, "Sync", note.to_owned());
    }

    fn warn(&self, regarding: Regarding, reason: &'static str, action: &'static str, note: String) {
        if let Some(writer) = &self.0 {
            let severity = EventSeverity::Warning;
            writer.publish(Event { regarding, severity, reason, action, note });
        }
    }
}
