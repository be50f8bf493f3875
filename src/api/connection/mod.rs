//! The connection to the API server: credentials, rate limit, and what is measured of requests.
//!
//! `kube` reads kubeconfigs and runs exec plug-ins; the way to the server ([`proxy`]), TLS ([`tls`]) and HTTP
//! ([`transport`]) are put together here, to mean what they mean for kube-proxy. Token files are read for every
//! request. When the server cannot be reached or refuses the credentials everything is read again, so that
//! replaced certificates, authorities and servers are picked up without a restart; watches notice nothing.

mod proxy;
mod refusal;
mod tls;
mod token;
mod transport;

use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use thiserror::Error;
use token::TokenFile;
use tower::ServiceBuilder;

/// The most requests that wait for the rate limit.
const WAITING: usize = 64;

/// How to reach the API server; the fields of `clientConnection` and of `--master`.
///
/// `acceptContentTypes` and `contentType` are not among them: they are about lists and watches
/// ([`accept`](super::accept)). What is sent, Events, is JSON, which every server takes.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionOptions {
    /// `clientConnection.kubeconfig`. None, with no `master` either: in-cluster configuration.
    pub kubeconfig: Option<PathBuf>,
    /// `--master`: wins over the kubeconfig's server.
    pub master: Option<String>,
    /// `clientConnection.qps`, requests per second: 0 means 5, negative no limit.
    pub qps: f32,
    /// `clientConnection.burst`: how many requests may go at once; 0 means 10.
    pub burst: u32,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        ConnectionOptions { kubeconfig: None, master: None, qps: 5.0, burst: 10 }
    }
}

impl ConnectionOptions {
    /// The rate limit: a number of requests, and the period in which that many may go. In the long run
    /// that comes to `qps`.
    fn rate(&self) -> (u64, Duration) {
        let burst = if self.burst == 0 { 10 } else { self.burst };
        let qps = if self.qps == 0.0 { 5.0 } else { self.qps };
        let seconds = burst as f32 / qps;
        if seconds > 0.0 {
            let time = Duration::from_secs_f32(seconds.min(3600.0));
            return (burst.into(), time.max(Duration::from_nanos(1)));
        }
        // No limit: negative or infinite.
        (u64::MAX, Duration::from_secs(1))
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
    #[error("the way to the API server: {0}")]
    Proxy(String),
    #[error("the CA bundle for the API server holds no certificate that can be read: {0}")]
    Authorities(#[source] openssl::error::ErrorStack),
    #[error("cannot read the token for the API server from {path}: {source}")]
    Token { path: PathBuf, source: io::Error },
    #[error("cannot set up TLS with the API server: {0}")]
    Tls(#[source] openssl::error::ErrorStack),
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

/// Called after every request; the `rest_client_*` metrics come from it.
pub type Observer = Arc<dyn Fn(&Call<'_>) + Send + Sync>;

/// Reads the configuration and sets up a client; nothing is sent yet. Must be called inside a tokio
/// runtime.
pub async fn connect(
    options: ConnectionOptions,
    observer: Observer,
) -> Result<Client, ConnectionError> {
    let (burst, time) = options.rate();
    let server = Mutex::new(Server::open(&options).await?);
    let link = Arc::new(Link { options, observer, server });
    let service = ServiceBuilder::new()
        .map_request(|mut request: Request<Body>| {
            request.extensions_mut().insert(Asked(Instant::now()));
            request
        })
        .buffer(WAITING)
        .rate_limit(burst, time)
        .service_fn(move |request| link.clone().send(request));
    Ok(Client::new(service, "default"))
}

/// When a request was asked for, before the rate limit.
#[derive(Clone, Copy)]
struct Asked(Instant);

/// The client of one reading of the configuration.
#[derive(Clone)]
struct Server {
    client: Client,
    /// Where the credential is a token in a file.
    token: Option<Arc<TokenFile>>,
    /// Host and port.
    host: Arc<str>,
}

/// What stays when the configuration is read again.
struct Link {
    options: ConnectionOptions,
    observer: Observer,
    server: Mutex<Server>,
}

impl Link {
    async fn send(self: Arc<Self>, mut request: Request<Body>) -> kube::Result<Response<Body>> {
        let Server { client, token, host } = self.server.lock().expect("no holder panics").clone();
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, token.header());
        }
        let method = request.method().clone();
        let asked = request.extensions().get::<Asked>().map(|asked| asked.0);
        let sent = Instant::now();
        let response = client.send(request).await;
        let code = response.as_ref().ok().map(Response::status);
        (self.observer)(&Call {
            method: method.as_str(),
            host: &host,
            code: code.map(|code| code.as_u16()),
            latency: sent.elapsed(),
            throttled: asked.map_or(Duration::ZERO, |asked| sent.duration_since(asked)),
        });
        if code.is_none_or(|code| code == StatusCode::UNAUTHORIZED) {
            self.renew().await;
        }
        match response {
            Ok(response) => Ok(refusal::with_status(response).await),
            Err(error) => Err(error),
        }
    }

    /// Reads the configuration again for the next request; the old client stays when that fails.
    async fn renew(&self) {
        match Server::open(&self.options).await {
            Ok(server) => *self.server.lock().expect("no holder panics") = server,
            Err(err) => tracing::warn!("keeping the old credentials: {err}"),
        }
    }
}

impl Server {
    async fn open(options: &ConnectionOptions) -> Result<Server, ConnectionError> {
        let (mut config, proxy_url) = match (&options.kubeconfig, &options.master) {
            (Some(path), _) => from_kubeconfig(path).await?,
            (None, Some(_)) => (Config::new(http::Uri::from_static("http://localhost")), None),
            (None, None) => (Config::incluster().map_err(ConnectionError::InCluster)?, None),
        };
        if let Some(master) = &options.master {
            config.cluster_url = master_url(master, &config)?;
        }
        let agent = concat!("kube-proxy/", env!("CARGO_PKG_VERSION"), " (linux)");
        let agent = http::HeaderValue::from_static(agent);
        config.headers.push((http::header::USER_AGENT, agent));
        let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let token = TokenFile::take_from(&mut config.auth_info)?.map(Arc::new);
        let client = transport::client(&config, proxy_url.as_deref())?;
        Ok(Server { client, token, host: host.into() })
    }
}

/// What the current context of a file comes to, and the `proxy-url` of its cluster.
async fn from_kubeconfig(path: &Path) -> Result<(Config, Option<String>), ConnectionError> {
    let fail = |source| ConnectionError::Kubeconfig { path: path.to_owned(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(fail)?;
    let proxy_url = proxy_url(&kubeconfig);
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(fail)?;
    Ok((config, proxy_url))
}

fn proxy_url(kubeconfig: &Kubeconfig) -> Option<String> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == *current)?;
    let name = &context.context.as_ref()?.cluster;
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == *name)?;
    cluster.cluster.as_ref()?.proxy_url.clone()
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
    fn rates() {
        let rate = |qps, burst| ConnectionOptions { qps, burst, ..Default::default() }.rate();
        assert_eq!(rate(0.0, 0), (10, Duration::from_secs(2)));
        assert_eq!(rate(50.0, 100), (100, Duration::from_secs(2)));
        for qps in [-1.0, f32::INFINITY, f32::NAN] {
            assert_eq!(rate(qps, 1), (u64::MAX, Duration::from_secs(1)), "{qps}");
        }
        assert_eq!(rate(1e-30, 1), (1, Duration::from_hours(1)));
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
    async fn refused_credentials_are_read_again_and_calls_observed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = kubeconfig(dir.path(), "http://two:2");
        let options = ConnectionOptions { kubeconfig: Some(path.clone()), ..Default::default() };
        let calls: Arc<Mutex<Vec<String>>> = Arc::default();
        let observer: Observer = {
            let calls = calls.clone();
            Arc::new(move |call: &Call<'_>| {
                let line = format!("{} {} {:?}", call.method, call.host, call.code);
                calls.lock().expect("no holder panics").push(line);
            })
        };
        let answering = |code: u16| {
            let answer = tower::service_fn(move |_: Request<Body>| async move {
                Response::builder().status(code).body(Body::empty())
            });
            Server { client: Client::new(answer, "default"), token: None, host: "one:1".into() }
        };
        let server = Mutex::new(answering(200));
        let link = Arc::new(Link { options, observer, server });
        let host = || link.server.lock().expect("no holder panics").host.to_string();
        let send = || link.clone().send(Request::new(Body::empty()));
        send().await.expect("a response");
        assert_eq!(host(), "one:1");
        *link.server.lock().expect("no holder panics") = answering(401);
        std::fs::rename(&path, dir.path().join("away")).expect("the kubeconfig goes");
        send().await.expect("a response");
        assert_eq!(host(), "one:1", "the old client stays");
        std::fs::rename(dir.path().join("away"), &path).expect("the kubeconfig is back");
        send().await.expect("a response");
        assert_eq!(host(), "two:2");
        let calls = calls.lock().expect("no holder panics");
        assert_eq!(*calls, ["GET one:1 Some(200)", "GET one:1 Some(401)", "GET one:1 Some(401)"]);
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let options =
            ConnectionOptions { kubeconfig: Some("/nowhere/config".into()), ..Default::default() };
        let err = connect(options, Arc::new(|_| {})).await.err().expect("refused");
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
