//! The connection to the API server: credentials, rate limit, and what is measured of requests.
//!
//! Token files and in-cluster CA bundles are read again as they change (`kube` does that); when the
//! server refuses the credentials the whole kubeconfig is read again, so that replaced certificates,
//! tokens and servers are picked up without a restart.

use super::gate::{Gate, GateLayer, Limiter};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thiserror::Error;

/// How to reach the API server; the fields of `clientConnection` and of `--master`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionOptions {
    /// `clientConnection.kubeconfig`. None, with no `master` either: in-cluster configuration.
    pub kubeconfig: Option<PathBuf>,
    /// `--master`: wins over the kubeconfig's server.
    pub master: Option<String>,
    /// `clientConnection.acceptContentTypes`; empty: protobuf, else JSON.
    pub accept_content_types: String,
    /// `clientConnection.contentType`; only decides what is accepted when the above is empty.
    pub content_type: String,
    /// `clientConnection.qps`, requests per second: 0 means 5, negative no limit.
    pub qps: f32,
    /// `clientConnection.burst`: 0 means 10.
    pub burst: u32,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        ConnectionOptions {
            kubeconfig: None,
            master: None,
            accept_content_types: String::new(),
            content_type: "application/vnd.kubernetes.protobuf".to_owned(),
            qps: 5.0,
            burst: 10,
        }
    }
}

impl ConnectionOptions {
    /// The `Accept` header of lists and watches.
    pub fn accept(&self) -> String {
        let protobuf = "application/vnd.kubernetes.protobuf";
        let wanted = self.accept_content_types.trim();
        match wanted {
            "" if self.content_type.is_empty() || self.content_type.starts_with(protobuf) => {
                format!("{protobuf},application/json")
            }
            "" => "application/json".to_owned(),
            wanted => wanted.to_owned(),
        }
    }
}

/// Why there can be no connection.
#[derive(Debug, Error)]
pub enum ConnectionError {
    #[error("cannot use the kubeconfig {path}: {source}")]
    Kubeconfig { path: PathBuf, source: kube::config::KubeconfigError },
    #[error(
        "no kubeconfig and no --master are given, and there is no in-cluster configuration: {0}"
    )]
    InCluster(#[source] kube::config::InClusterError),
    #[error("the API server's address {url:?} is not a URL: {source}")]
    Master { url: String, source: http::uri::InvalidUri },
    #[error("cannot set up the client for the API server: {0}")]
    Client(#[source] kube::Error),
}

/// One request to the API server, for metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Call<'a> {
    /// HTTP method: `GET`, `POST`, `PATCH`.
    pub method: &'a str,
    /// Host and port of the server.
    pub host: &'a str,
    /// HTTP status; None when there was no response.
    pub code: Option<u16>,
    /// From sending to the response's headers.
    pub latency: Duration,
    /// How long the rate limit held the request back before.
    pub throttled: Duration,
}

/// Receives every request; source of the `rest_client_*` metrics.
pub type Observer = Arc<dyn Fn(&Call<'_>) + Send + Sync>;

/// A client that can be made anew. Clones share everything.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    options: ConnectionOptions,
    observer: Observer,
    limiter: Limiter,
    /// The client and how many there were before it.
    current: Mutex<(Client, u64)>,
}

impl Connection {
    /// Reads the configuration and sets up a client; nothing is sent yet. Must be called inside a
    /// tokio runtime.
    pub async fn open(
        options: ConnectionOptions,
        observer: Observer,
    ) -> Result<Connection, ConnectionError> {
        let limiter = Limiter::new(options.qps, options.burst);
        let client = build(&options, &limiter, &observer).await?;
        let current = Mutex::new((client, 0));
        Ok(Connection { shared: Arc::new(Shared { options, observer, limiter, current }) })
    }

    /// A connection over a ready client, for tests.
    #[cfg(test)]
    pub(super) fn over(client: Client) -> Connection {
        let options =
            ConnectionOptions { master: Some("http://unused".into()), ..Default::default() };
        let limiter = Limiter::new(-1.0, 0);
        let observer: Observer = Arc::new(|_| {});
        let current = Mutex::new((client, 0));
        Connection { shared: Arc::new(Shared { options, observer, limiter, current }) }
    }

    /// The client, and its number: a later one replaces the credentials.
    pub fn client(&self) -> (Client, u64) {
        self.shared.current.lock().expect("no holder panics").clone()
    }

    /// The `Accept` header of lists and watches.
    pub fn accept(&self) -> String {
        self.shared.options.accept()
    }

    /// Reads the configuration again, unless someone has since client `number` was handed out. The
    /// old client stays when that fails.
    pub async fn renew(&self, number: u64) {
        if self.client().1 != number {
            return;
        }
        let shared = &self.shared;
        match build(&shared.options, &shared.limiter, &shared.observer).await {
            Ok(client) => {
                let mut current = shared.current.lock().expect("no holder panics");
                if current.1 == number {
                    *current = (client, number + 1);
                }
            }
            Err(err) => tracing::warn!("keeping the old credentials: {err}"),
        }
    }
}

async fn build(
    options: &ConnectionOptions,
    limiter: &Limiter,
    observer: &Observer,
) -> Result<Client, ConnectionError> {
    let mut config = match (&options.kubeconfig, &options.master) {
        (Some(path), _) => from_kubeconfig(path).await?,
        (None, Some(_)) => Config::new(http::Uri::from_static("http://localhost")),
        (None, None) => Config::incluster().map_err(ConnectionError::InCluster)?,
    };
    if let Some(master) = &options.master {
        config.cluster_url = master_url(master, &config)?;
    }
    // The watches retry on their own, and no response is waited for longer than they say.
    config.default_retry = false;
    let agent = concat!("kube-proxy/", env!("CARGO_PKG_VERSION"), " (linux)");
    let agent = http::HeaderValue::from_static(agent);
    config.headers.push((http::header::USER_AGENT, agent));
    let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
    let layer = GateLayer::new(limiter.clone(), observer.clone(), host.into());
    let builder: ClientBuilder<Gate<_>> =
        ClientBuilder::try_from(config).map_err(ConnectionError::Client)?.with_layer(&layer);
    Ok(builder.build())
}

async fn from_kubeconfig(path: &Path) -> Result<Config, ConnectionError> {
    let fail = |source| ConnectionError::Kubeconfig { path: path.to_owned(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(fail)?;
    let ca_file = certificate_authority(&kubeconfig);
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(fail)?;
    // Followed as it changes, like the in-cluster one.
    config.root_cert_file = ca_file.filter(|_| config.root_cert.is_some());
    Ok(config)
}

/// The CA bundle's file of the current context's cluster, unless the bundle is in the kubeconfig.
fn certificate_authority(kubeconfig: &Kubeconfig) -> Option<PathBuf> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == *current)?;
    let name = &context.context.as_ref()?.cluster;
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == *name)?;
    let cluster = cluster.cluster.as_ref()?;
    if cluster.certificate_authority_data.is_some() {
        return None;
    }
    cluster.certificate_authority.as_ref().map(PathBuf::from)
}

/// `--master` without a scheme means https where a CA is configured, else http, as client-go does.
fn master_url(master: &str, config: &Config) -> Result<http::Uri, ConnectionError> {
    let url = if master.contains("://") {
        master.to_owned()
    } else if config.root_cert.is_some() {
        format!("https://{master}")
    } else {
        format!("http://{master}")
    };
    url.parse().map_err(|source| ConnectionError::Master { url, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_content_types() {
        let mut options = ConnectionOptions::default();
        assert_eq!(options.accept(), "application/vnd.kubernetes.protobuf,application/json");
        options.content_type = "application/json".into();
        assert_eq!(options.accept(), "application/json");
        options.accept_content_types = "application/vnd.kubernetes.protobuf".into();
        assert_eq!(options.accept(), "application/vnd.kubernetes.protobuf");
    }

    fn kubeconfig(dir: &Path, server: &str) -> PathBuf {
        let path = dir.join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: {server}\n\
             contexts:\n- name: x\n  context: {{cluster: c, user: u}}\ncurrent-context: x\n\
             users:\n- name: u\n  user: {{}}\n"
        );
        std::fs::write(&path, text).expect("the kubeconfig is written");
        path
    }

    #[tokio::test]
    async fn the_kubeconfig_is_read_again_on_demand() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = kubeconfig(dir.path(), "http://one:1");
        let options = ConnectionOptions { kubeconfig: Some(path.clone()), ..Default::default() };
        let connection =
            Connection::open(options, Arc::new(|_| {})).await.expect("the kubeconfig is good");
        assert_eq!(connection.client().1, 0);
        connection.renew(0).await;
        assert_eq!(connection.client().1, 1);
        connection.renew(0).await;
        assert_eq!(connection.client().1, 1, "someone else had done it");
        std::fs::remove_file(&path).expect("the kubeconfig goes");
        connection.renew(1).await;
        assert_eq!(connection.client().1, 1, "the old client stays");
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let options =
            ConnectionOptions { kubeconfig: Some("/nowhere/config".into()), ..Default::default() };
        let err = Connection::open(options, Arc::new(|_| {})).await.err().expect("refused");
        assert!(err.to_string().contains("/nowhere/config"), "{err}");
    }

    #[tokio::test]
    async fn a_master_wins_over_the_kubeconfig() {
        let bare = Config::new(http::Uri::from_static("http://localhost"));
        let url = |master| master_url(master, &bare).map(|url| url.to_string()).ok();
        assert_eq!(url("10.0.0.1:8080").as_deref(), Some("http://10.0.0.1:8080/"));
        assert_eq!(url("https://h:6443").as_deref(), Some("https://h:6443/"));
        assert_eq!(url("https://bad host"), None);
    }
}
