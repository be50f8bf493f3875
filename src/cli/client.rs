//! Asks the running proxy.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// A large change may be under way.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the proxy answers, as text.
///
/// # Errors
/// Nobody answers there, or there is no answer to this.
pub fn get(server: &str, path: &str) -> anyhow::Result<String> {
    let uri: Uri = format!("http://{server}{path}")
        .parse()
        .with_context(|| format!("--server {server}: not HOST:PORT"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(PATIENCE));
        let client: Client<_, Empty<Bytes>> =
            Client::builder(TokioExecutor::new()).build(connector);
        let answer = client.get(uri).await.with_context(|| {
            format!(
                "no kube-proxy answers at {server}: does it run on this node, and is its metricsBindAddress another \
                 (--server)?"
            )
        })?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    });
    match answer? {
        (StatusCode::OK, body) => Ok(body),
        (StatusCode::NOT_FOUND, body) if body.starts_with("404") => {
            bail!("what answers at {server} does not know {path}: is it an older version?")
        }
        (_, body) => bail!("{}", body.trim_end()),
    }
}
