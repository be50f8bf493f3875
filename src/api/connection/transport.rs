//! HTTP with the API server: the way there, TLS, HTTP/2 where the server has it, and what tells that a connection is
//! dead.

use super::{ConnectionError, proxy, tls};
use http::header::{HeaderValue, PROXY_AUTHORIZATION};
use http::{HeaderMap, Uri};
use hyper::rt::{Read, Write};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use percent_encoding::percent_decode_str;
use std::time::Duration;
use tower::{BoxError, Service, ServiceBuilder};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(30);
/// After so long without a word from the server it is asked whether it is there: by HTTP/2 where it has that, and by
/// TCP (client-go's ReadIdleTimeout).
const IDLE: Duration = Duration::from_secs(30);
/// How long it may take to answer that.
const ANSWER: Duration = Duration::from_secs(10);
/// Within this time TCP asks so often (`TCP_KEEPINTVL`).
const PROBES: u32 = 3;
/// A connection of HTTP/1.1 on which nothing has come for this long is taken for dead, whatever TCP says: a balancer
/// between may answer for a server. On watches, servers send a bookmark every minute.
const SILENCE: Duration = Duration::from_secs(150);
/// What the server may send before it is read, of a stream (a watch) and in all, in bytes.
const WINDOW: [u32; 2] = [4 << 20, 16 << 20];

/// A client for the server of a configuration, on the way that its `proxy-url` or the environment says.
pub fn client(config: &Config, proxy_url: Option<&str>) -> Result<Client, ConnectionError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(IDLE));
    tcp.set_keepalive_interval(Some(ANSWER / PROBES));
    tcp.set_keepalive_retries(Some(PROBES));
    tcp.set_tcp_user_timeout(Some(IDLE + ANSWER));
    let environment = proxy::Environment::of_process();
    let way = proxy::of(&config.cluster_url, proxy_url, &environment);
    let Some(proxy) = way.map_err(ConnectionError::Proxy)? else {
        return over(tcp, config);
    };
    match proxy.scheme_str() {
        Some("socks5" | "socks5h") => over(socks(proxy, tcp), config),
        Some("https") => over(tunnel(proxy, tls::around_proxy(tcp)?), config),
        _ => over(tunnel(proxy, tcp), config),
    }
}

/// By way of a proxy of HTTP (`CONNECT`, RFC 9110, section 9.3.6).
fn tunnel<C>(proxy: Uri, connector: C) -> Tunnel<C> {
    let login = login(&proxy);
    let tunnel = Tunnel::new(proxy, connector);
    let Some((user, password)) = login else { return tunnel };
    let text = openssl::base64::encode_block(format!("{user}:{password}").as_bytes());
    let mut headers = HeaderMap::new();
    if let Ok(mut value) = HeaderValue::try_from(format!("Basic {text}")) {
        value.set_sensitive(true);
        headers.insert(PROXY_AUTHORIZATION, value);
    }
    tunnel.with_headers(headers)
}

/// By way of a proxy of SOCKS5 (RFC 1928), which also looks up the server's name.
fn socks<C>(proxy: Uri, connector: C) -> SocksV5<C> {
    let login = login(&proxy);
    let proxy = match (proxy.host(), proxy.port_u16()) {
        (Some(host), None) => format!("socks5://{host}:1080").parse().unwrap_or(proxy),
        _ => proxy,
    };
    let socks = SocksV5::new(proxy, connector);
    match login {
        Some((user, password)) => socks.with_auth(user, password),
        None => socks,
    }
}

/// User and password of a URL.
fn login(url: &Uri) -> Option<(String, String)> {
    let (login, _) = url.authority()?.as_str().rsplit_once('@')?;
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some((decoded(user), decoded(password)))
}

/// A client over connections of this connector.
fn over<C>(connector: C, config: &Config) -> Result<Client, ConnectionError>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin,
    C::Future: Send,
    C::Error: Into<BoxError>,
{
    let mut connector = TimeoutConnector::new(tls::around(connector, config)?);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_read_timeout(Some(SILENCE));
    connector.set_reset_reader_on_write(true);
    let [stream, all] = WINDOW;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_initial_stream_window_size(stream)
        .http2_initial_connection_window_size(all)
        .http2_keep_alive_interval(IDLE)
        .http2_keep_alive_timeout(ANSWER)
        .http2_keep_alive_while_idle(true)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(ConnectionError::Client)?)
        .layer(config.extra_headers_layer().map_err(ConnectionError::Client)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, "default"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_from_the_url() {
        let of = |url: &str| login(&url.parse().expect("a URL"));
        assert_eq!(of("http://proxy:1"), None);
        assert_eq!(of("http://u@proxy:1"), Some(("u".into(), String::new())));
        assert_eq!(of("http://u:p%40%3a%25@proxy:1"), Some(("u".into(), "p@:%".into())));
        assert_eq!(of("http://u:%+1%4@proxy:1"), Some(("u".into(), "%+1%4".into())));
    }
}
