//! Asks the running proxy.

use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::time::Duration;

/// A large change may be under way.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--server {0}: not HOST:PORT")]
    Server(String),
    #[error(
        "no kube-proxy answers at {server}: does it run on this node, and is its metricsBindAddress another (--server)?"
    )]
    NoProxy { server: String },
    #[error(
        "what answers at {server} does not know {path}: is it an older version, or does it have --status-page=false?"
    )]
    Unknown { server: String, path: String },
    /// In the proxy's own words.
    #[error("{0}")]
    Refused(String),
    #[error("the answer breaks off: {0}")]
    BrokenOff(hyper::Error),
    #[error("cannot wait for an answer: {0}")]
    Runtime(std::io::Error),
}

/// What the proxy answers, as text.
///
/// # Errors
/// Nobody answers there, or there is no answer to this.
pub fn get(server: &str, path: &str) -> Result<String, Error> {
    let uri: Uri =
        format!("http://{server}{path}").parse().map_err(|_| Error::Server(server.to_owned()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (status, body) = runtime.map_err(Error::Runtime)?.block_on(async {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(PATIENCE));
        let client: Client<_, Empty<Bytes>> =
            Client::builder(TokioExecutor::new()).build(connector);
        let answer = client.get(uri).await;
        let answer = answer.map_err(|_| Error::NoProxy { server: server.to_owned() })?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(Error::BrokenOff)?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    })?;
    match status {
        StatusCode::OK => Ok(body),
        StatusCode::NOT_FOUND if body.starts_with("404") => {
            Err(Error::Unknown { server: server.to_owned(), path: path.to_owned() })
        }
        _ => Err(Error::Refused(body.trim_end().to_owned())),
    }
}

/// Takes everything out of strings that a terminal would act on: names of objects may hold anything.
pub fn make_printable(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace(char::is_control, "\u{fffd}"),
        Value::Array(list) => list.iter_mut().for_each(make_printable),
        Value::Object(fields) => fields.values_mut().for_each(make_printable),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_that_it_would_act_on() {
        let mut answer =
            serde_json::json!([{"port": "a\u{1b}[2Jb\r", "n": 1, "list": ["\u{9b}1m"]}]);
        make_printable(&mut answer);
        let shown =
            serde_json::json!([{"port": "a\u{fffd}[2Jb\u{fffd}", "n": 1, "list": ["\u{fffd}1m"]}]);
        assert_eq!(answer, shown);
    }
}
