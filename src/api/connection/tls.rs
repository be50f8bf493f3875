//! TLS with the API server, as lenient and as strict as Go's `crypto/tls`, which the clusters were made for.
//!
//! OpenSSL takes what real clusters have and rustls does not: client certificates of X.509 version 1, a server's
//! certificate that is its own authority, P-521. From Go come: TLS 1.2 at least, every certificate of the bundle is
//! trusted as it is, one of them that cannot be read spoils nothing, and a server's name has to be among its
//! alternative names, whatever its common name is.

use super::ConnectionError;
use http::Uri;
use hyper_openssl::client::legacy::HttpsConnector;
use kube::Config;
use kube::client::ConfigExt;
use openssl::error::ErrorStack;
use openssl::ssl::{ConnectConfiguration, SslConnectorBuilder, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags};
use std::net::IpAddr;

/// What the client offers to speak inside TLS, each after its length (ALPN, RFC 7301).
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";
/// What it speaks with a proxy.
const PROTOCOLS_OF_PROXY: &[u8] = b"\x08http/1.1";

/// Puts TLS around what a connector connects, where the URL is one of https.
pub fn around<C>(connector: C, config: &Config) -> Result<HttpsConnector<C>, ConnectionError> {
    wrap(connector, config, PROTOCOLS)
}

/// TLS with a proxy, whose certificate one of the system's authorities has signed.
pub fn around_proxy<C>(connector: C) -> Result<HttpsConnector<C>, ConnectionError> {
    wrap(connector, &Config::new(Uri::from_static("https://proxy")), PROTOCOLS_OF_PROXY)
}

fn wrap<C>(
    connector: C,
    config: &Config,
    protocols: &[u8],
) -> Result<HttpsConnector<C>, ConnectionError> {
    // The authorities are ours: kube would add them to those of the system.
    let mut identity = config.clone();
    identity.root_cert = None;
    let mut builder = identity.openssl_ssl_connector_builder().map_err(ConnectionError::Client)?;
    builder.set_alpn_protos(protocols).map_err(ConnectionError::Tls)?;
    // A list is tens of thousands of small records. Without this, each takes two reads of the socket.
    builder.set_read_ahead(true);
    trust(&mut builder, config.root_cert.as_deref())?;
    let mut connector =
        HttpsConnector::with_connector(connector, builder).map_err(ConnectionError::Tls)?;
    let (name, insecure) = (config.tls_server_name.clone(), config.accept_invalid_certs);
    connector.set_callback(move |ssl, uri| {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        expect(ssl, name.as_deref().filter(|name| !name.is_empty()).unwrap_or(host), insecure)
    });
    Ok(connector)
}

/// Trusts these authorities, or those of the system.
fn trust(
    builder: &mut SslConnectorBuilder,
    authorities: Option<&[Vec<u8>]>,
) -> Result<(), ConnectionError> {
    builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map_err(ConnectionError::Tls)?;
    let Some(authorities) = authorities else {
        let probed = openssl_probe::probe();
        let directory = probed.cert_dir.first().map(|directory| directory.as_path());
        if probed.cert_file.is_some() || directory.is_some() {
            let result = builder.load_verify_locations(probed.cert_file.as_deref(), directory);
            result.map_err(ConnectionError::Tls)?;
        }
        return Ok(());
    };
    let mut store = X509StoreBuilder::new().map_err(ConnectionError::Tls)?;
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN).map_err(ConnectionError::Tls)?;
    let mut first_error = None;
    let mut trusted = 0;
    for der in authorities {
        match X509::from_der(der).and_then(|certificate| store.add_cert(certificate)) {
            Ok(()) => trusted += 1,
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    match first_error {
        Some(error) if trusted == 0 => return Err(ConnectionError::Authorities(error)),
        Some(error) => tracing::warn!("a certificate of the CA bundle is left out: {error}"),
        None => {}
    }
    builder.set_cert_store(store.build());
    Ok(())
}

/// Whom to expect on the other side.
fn expect(ssl: &mut ConnectConfiguration, name: &str, insecure: bool) -> Result<(), ErrorStack> {
    ssl.set_verify_hostname(false);
    ssl.set_use_server_name_indication(false);
    let ip = name.parse::<IpAddr>().ok();
    if ip.is_none() {
        // An address is never indicated (RFC 6066, section 3).
        ssl.set_hostname(name)?;
    }
    if insecure {
        ssl.set_verify(SslVerifyMode::NONE);
        return Ok(());
    }
    let wanted = ssl.param_mut();
    wanted
        .set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS | X509CheckFlags::NEVER_CHECK_SUBJECT);
    match ip {
        Some(ip) => wanted.set_ip(ip),
        None => wanted.set_host(name),
    }
}
