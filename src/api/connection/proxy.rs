//! Which proxy, if any, leads to the API server: the kubeconfig's `proxy-url`, else `HTTPS_PROXY`, `HTTP_PROXY` and
//! `NO_PROXY` with the meaning that they have for kube-proxy (Go's `golang.org/x/net/http/httpproxy`).

use http::Uri;
use ipnet::IpNet;
use std::net::IpAddr;

/// The values of the variables, those in capitals first, as Go takes them.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub https: String,
    pub http: String,
    pub none: String,
}

impl Environment {
    /// What this process was given.
    pub fn of_process() -> Environment {
        let value = |name: &str| {
            let names = [name.to_uppercase(), name.to_lowercase()];
            let mut values = names.iter().filter_map(|name| std::env::var(name).ok());
            values.find(|value| !value.is_empty()).unwrap_or_default()
        };
        Environment {
            https: value("https_proxy"),
            http: value("http_proxy"),
            none: value("no_proxy"),
        }
    }
}

/// The proxy for a server, as an absolute URL.
///
/// # Errors
/// What is no URL of a proxy, with where it is from.
pub fn of(
    server: &Uri,
    proxy_url: Option<&str>,
    environment: &Environment,
) -> Result<Option<Uri>, String> {
    if let Some(url) = proxy_url.filter(|url| !url.is_empty()) {
        return parse(url)
            .map(Some)
            .map_err(|why| format!("proxy-url {url:?} of the cluster {why}"));
    }
    let (name, url) = match server.scheme_str() {
        Some("https") => ("HTTPS_PROXY", &environment.https),
        _ => ("HTTP_PROXY", &environment.http),
    };
    if url.is_empty() || goes_directly(server, &environment.none) {
        return Ok(None);
    }
    parse(url).map(Some).map_err(|why| format!("{name} {url:?} {why}"))
}

/// A URL of a proxy. Without a scheme that proxies have it is taken for one of HTTP.
fn parse(text: &str) -> Result<Uri, String> {
    let has_scheme = ["http://", "https://", "socks5://", "socks5h://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme)));
    let url = if has_scheme { text.to_owned() } else { format!("http://{text}") };
    match url.parse::<Uri>() {
        Ok(url) if url.host().is_some_and(|host| !host.is_empty()) => Ok(url),
        Ok(_) => Err("names no host".to_owned()),
        Err(error) => Err(format!("is not a URL: {error}")),
    }
}

/// Whether a server is reached without the proxy of the environment: a loopback address always is.
fn goes_directly(server: &Uri, none: &str) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let host = host.trim_end_matches('.').to_lowercase();
    let default = if server.scheme_str() == Some("https") { 443 } else { 80 };
    let port = server.port_u16().unwrap_or(default);
    let ip = host.parse::<IpAddr>().ok();
    host == "localhost"
        || ip.is_some_and(|ip| ip.is_loopback())
        || none.split(',').any(|entry| matches(&entry.trim().to_lowercase(), &host, ip, port))
}

/// Whether an entry of `NO_PROXY` is about a server: `*`, a network, an address, or a domain, of which a leading dot
/// leaves only what is below it; addresses and domains maybe with a port.
fn matches(entry: &str, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(network) = entry.parse::<IpNet>() {
        return ip.is_some_and(|ip| network.contains(&ip));
    }
    let (name, of_port) = split_port(entry);
    if name.is_empty() || of_port.is_some_and(|of_port| of_port != port) {
        return false;
    }
    if let Ok(address) = name.parse::<IpAddr>() {
        return ip == Some(address);
    }
    let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(name),
        None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
    }
}

/// `host:port`, `[address]:port` or neither.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    let split = entry.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
    match split {
        Some((name, port)) if !name.contains(':') || name.starts_with('[') => {
            (name.trim_matches(['[', ']']), Some(port))
        }
        _ => (entry.trim_matches(['[', ']']), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(server: &str, environment: &Environment) -> Result<Option<String>, String> {
        let uri = of(&server.parse().expect("a URL"), None, environment)?;
        Ok(uri.map(|uri| uri.to_string()))
    }

    #[test]
    fn what_no_proxy_names_is_reached_directly() {
        for (none, server, direct) in [
            ("", "https://10.96.0.1", false),
            ("", "https://127.0.0.1:6443", true),
            ("", "https://[::1]:6443", true),
            ("", "https://localhost:6443", true),
            ("*", "https://10.96.0.1", true),
            ("10.96.0.0/12,.svc", "https://10.96.0.1:443", true),
            ("fd00::/8", "https://[fd00::1]:6443", true),
            ("10.0.0.0/8", "https://api.example.com:6443", false),
            ("10.96.0.1", "https://10.96.0.1:6443", true),
            ("10.96.0.1:443", "https://10.96.0.1:6443", false),
            ("10.96.0.1:443", "https://10.96.0.1", true),
            ("[fd00::1]:6443", "https://[fd00::1]:6443", true),
            ("fd00::1", "https://[fd00::1]:6443", true),
            ("example.com", "https://example.com", true),
            ("example.com", "https://api.Example.com", true),
            ("example.com", "https://notexample.com", false),
            (".example.com", "https://example.com", false),
            (".example.com", "https://api.example.com", true),
            ("*.example.com", "https://api.example.com", true),
            ("*.example.com", "https://example.com", false),
            ("a, example.com:6443 ,b", "https://example.com:6443", true),
            ("example.com:6443", "https://example.com", false),
            (",,", "https://example.com", false),
        ] {
            let environment = Environment {
                https: "proxy:3128".into(),
                none: none.into(),
                ..Environment::default()
            };
            let expected = (!direct).then(|| "http://proxy:3128/".to_owned());
            assert_eq!(proxy(server, &environment), Ok(expected), "{none} {server}");
        }
    }

    #[test]
    fn the_scheme_says_which_variable_counts() {
        let environment = Environment {
            https: "http://u:p@secure:1".into(),
            http: "socks5://plain:2".into(),
            none: String::new(),
        };
        let of = |server| proxy(server, &environment).expect("URLs").expect("a proxy");
        assert_eq!(of("https://api:6443"), "http://u:p@secure:1/");
        assert_eq!(of("http://api:8080"), "socks5://plain:2/");
        assert_eq!(proxy("https://api", &Environment::default()), Ok(None));
    }

    #[test]
    fn the_kubeconfig_goes_before_the_environment() {
        let environment = Environment {
            https: "http://environment:1".into(),
            none: "*".into(),
            ..Environment::default()
        };
        let server: Uri = "https://api".parse().expect("a URL");
        let uri = of(&server, Some("https://own:3129"), &environment).expect("a URL");
        assert_eq!(uri.expect("a proxy").to_string(), "https://own:3129/");
        let error = of(&server, Some("http://"), &environment).expect_err("no host");
        assert!(error.starts_with("proxy-url \"http://\" of the cluster"), "{error}");
        let environment = Environment { https: "a b".into(), ..Environment::default() };
        let error = of(&server, None, &environment).expect_err("no URL");
        assert!(error.starts_with("HTTPS_PROXY \"a b\" is not a URL"), "{error}");
    }
}
