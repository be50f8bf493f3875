//! Connections to API servers of every shape that clusters have: handshakes with a real server.

mod certificates;
mod server;

use certificates::{Pair, Shape, authority, p521, rsa};
use kube_proxy::api::{ConnectionOptions, connect};
use server::{Seen, Server, socks, tunnel};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A kubeconfig with these lines in its cluster and its user, asked for the server's version. The error has all its causes.
async fn ask(directory: &Path, server: &str, cluster: &str, user: &str) -> Result<(), String> {
    let path = directory.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts:\n- name: x\n  context: {{cluster: c, user: u}}\n\
         clusters:\n- name: c\n  cluster:\n    server: https://{server}\n{}\nusers:\n- name: u\n  user:\n{}\n",
        indented(cluster),
        indented(if user.is_empty() { "username: \"\"" } else { user }),
    );
    fs::write(&path, text).unwrap();
    let options = ConnectionOptions { kubeconfig: Some(path), ..Default::default() };
    let client = connect(options, Arc::new(|_| {})).await.map_err(|error| error.to_string())?;
    let version = client.apiserver_version().await;
    version.map(|version| assert_eq!(version.minor, "36")).map_err(|error| format!("{error:?}"))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(directory: &TempDir, name: &str, text: &str) -> String {
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A server at 127.0.0.1 with an ordinary certificate, and its authority.
fn ordinary() -> (Server, Pair) {
    let authority = authority("kubernetes");
    let pair =
        Shape::new("kube-apiserver", &["127.0.0.1", "kubernetes"]).signed_by(Some(&authority));
    (Server::start("127.0.0.1:0", &pair, &[]), authority)
}

#[tokio::test]
async fn certificates_of_clients() {
    let (server, authority) = ordinary();
    let directory = directory();
    let ca = write(&directory, "ca.crt", &authority.pem());
    let shape = |name| Shape::new(name, &[]);
    for (name, pair) in [
        ("ordinary", shape("ordinary").signed_by(Some(&authority))),
        ("version-1", Shape { version: 1, ..shape("version-1") }.signed_by(Some(&authority))),
        ("p-521", Shape { key: p521(), ..shape("p-521") }.signed_by(Some(&authority))),
        ("rsa", Shape { key: rsa(), ..shape("rsa") }.signed_by(Some(&authority))),
        ("self-signed", Shape { is_authority: true, ..shape("self-signed") }.signed_by(None)),
    ] {
        let certificate = write(&directory, "client.crt", &pair.pem());
        let key = write(&directory, "client.key", &pair.key_pem());
        let user = format!("client-certificate: {certificate}\nclient-key: {key}");
        let cluster = format!("certificate-authority: {ca}");
        let answer = ask(directory.path(), &server.address.to_string(), &cluster, &user).await;
        assert_eq!(answer, Ok(()), "{name}");
        assert_eq!(server.last().unwrap().client.as_deref(), Some(name));
        // From where the kubeconfig is.
        let user = "client-certificate: client.crt\nclient-key: ./client.key";
        let cluster = "certificate-authority: ca.crt";
        let answer = ask(directory.path(), &server.address.to_string(), cluster, user).await;
        assert_eq!(answer, Ok(()), "{name}, relative");
    }
}

#[tokio::test]
async fn certificates_of_servers() {
    let root = authority("root");
    let stranger = authority("stranger");
    let between = Shape { is_authority: true, ..Shape::new("between", &[]) }.signed_by(Some(&root));
    let named = |names| Shape::new("kube-apiserver", names);
    let at_home: &[&str] = &["127.0.0.1"];
    let own = Shape { is_authority: true, ..named(at_home) }.signed_by(None);
    let plain_own = named(at_home).signed_by(None);
    let good = named(at_home).signed_by(Some(&root));
    let behind = named(at_home).signed_by(Some(&between));
    let large =
        Shape { key: p521(), is_authority: true, ..Shape::new("large", &[]) }.signed_by(None);
    let of_large = Shape { key: p521(), ..named(at_home) }.signed_by(Some(&large));
    let by_host = named(&["kubernetes"]).signed_by(Some(&root));
    let by_common_name = Shape::new("127.0.0.1", &[]).signed_by(Some(&root));
    let old = Shape { version: 1, ..named(&[]) }.signed_by(Some(&root));
    let several = format!(
        "# two authorities\nsubject=/CN=stranger\r\n{}\n-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n\
         Certificate:\n    Data:\n        Version: 3 (0x2)\n{}-- the end\n",
        stranger.pem(),
        root.pem()
    );
    let alone: &[Pair] = &[];
    for (name, pair, chain, bundle, more, works) in [
        ("ordinary", &good, alone, root.pem(), "", true),
        ("its own authority", &own, alone, own.pem(), "", true),
        ("trusted as it is", &plain_own, alone, plain_own.pem(), "", true),
        ("P-521", &of_large, alone, large.pem(), "", true),
        ("a chain", &behind, std::slice::from_ref(&between), root.pem(), "", true),
        ("an authority in between is trusted", &behind, alone, between.pem(), "", true),
        ("several and text", &good, alone, several, "", true),
        ("by another name", &by_host, alone, root.pem(), "tls-server-name: kubernetes", true),
        ("not checked", &own, alone, String::new(), "insecure-skip-tls-verify: true", true),
        (
            "version 1, not checked",
            &old,
            alone,
            String::new(),
            "insecure-skip-tls-verify: true",
            true,
        ),
        ("of a stranger", &good, alone, stranger.pem(), "", false),
        ("for another host", &by_host, alone, root.pem(), "", false),
        ("by its common name", &by_common_name, alone, root.pem(), "", false),
        ("another one's name", &good, alone, root.pem(), "tls-server-name: kubernetes", false),
        ("a chain that is cut", &behind, alone, root.pem(), "", false),
        (
            "no certificate",
            &good,
            alone,
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".into(),
            "",
            false,
        ),
    ] {
        let server = Server::start("127.0.0.1:0", pair, chain);
        let directory = directory();
        let path = write(&directory, "ca.crt", &bundle);
        let mut cluster = more.to_owned();
        if !bundle.is_empty() {
            cluster = format!("certificate-authority: {path}\n{more}");
        }
        let answer = ask(directory.path(), &server.address.to_string(), &cluster, "token: t").await;
        assert_eq!(answer.is_ok(), works, "{name}: {answer:?}");
        if more.starts_with("tls-server-name") && works {
            assert_eq!(server.last().unwrap().indicated.as_deref(), Some("kubernetes"), "{name}");
        }
    }
}

#[tokio::test]
async fn an_address_of_ipv6() {
    let authority = authority("kubernetes");
    let pair = Shape::new("kube-apiserver", &["::1"]).signed_by(Some(&authority));
    let server = Server::start("[::1]:0", &pair, &[]);
    let directory = directory();
    let path = write(&directory, "ca.crt", &authority.pem());
    let cluster = format!("certificate-authority: {path}");
    let answer = ask(directory.path(), &server.address.to_string(), &cluster, "token: t").await;
    assert_eq!(answer, Ok(()));
    assert_eq!(server.last().unwrap().indicated, None);
}

#[tokio::test]
async fn tokens() {
    let (server, authority) = ordinary();
    let directory = directory();
    write(&directory, "ca.crt", &authority.pem());
    write(&directory, "token", "from-file\n");
    let plugin = |status: &str| {
        format!(
            "exec:\n  apiVersion: client.authentication.k8s.io/v1\n  interactiveMode: Never\n  command: /bin/sh\n  args:\n  - -c\n\
             \x20 - |\n    echo '{{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \"status\": {status}}}'"
        )
    };
    for (user, authorization) in [
        ("token: plain".to_owned(), Some("Bearer plain")),
        ("token: \"with a line feed\\n\"".to_owned(), Some("Bearer with a line feed")),
        ("tokenFile: token".to_owned(), Some("Bearer from-file")),
        ("token: other\ntokenFile: token".to_owned(), Some("Bearer from-file")),
        (plugin("{\"token\": \"of-plugin\"}"), Some("Bearer of-plugin")),
        ("username: u\npassword: p".to_owned(), Some("Basic dTpw")),
        (String::new(), None),
    ] {
        let cluster = "certificate-authority: ca.crt";
        let answer = ask(directory.path(), &server.address.to_string(), cluster, &user).await;
        assert_eq!(answer, Ok(()), "{user}");
        let seen = server.last().unwrap();
        assert_eq!(seen.authorization.as_deref(), authorization, "{user}");
    }
    let client = Shape::new("of-plugin", &[]).signed_by(Some(&authority));
    let json = |text: String| text.replace('\n', "\\\\n");
    let user = plugin(&format!(
        "{{\"clientCertificateData\": \"{}\", \"clientKeyData\": \"{}\"}}",
        json(client.pem()),
        json(client.key_pem())
    ));
    let cluster = "certificate-authority: ca.crt";
    let answer = ask(directory.path(), &server.address.to_string(), cluster, &user).await;
    assert_eq!(answer, Ok(()));
    let expected = Seen { client: Some("of-plugin".to_owned()), ..Seen::default() };
    assert_eq!(server.last(), Some(expected));
}

#[tokio::test]
async fn proxies() {
    let (server, authority) = ordinary();
    let directory = directory();
    write(&directory, "ca.crt", &authority.pem());
    let target = server.address.to_string();
    let (tunnel, heads) = tunnel();
    let cluster = |url: String| format!("certificate-authority: ca.crt\nproxy-url: {url}");
    let through = cluster(format!("http://user:p%40ss@{tunnel}"));
    assert_eq!(ask(directory.path(), &target, &through, "token: t").await, Ok(()));
    let heads = heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0][0], format!("CONNECT {target} HTTP/1.1"));
    let login = heads[0].iter().find(|line| line.to_lowercase().starts_with("proxy-authorization"));
    assert!(login.is_some_and(|line| line.ends_with("Basic dXNlcjpwQHNz")), "{heads:?}");

    let (socks, targets) = socks();
    let through = cluster(format!("socks5://{socks}"));
    assert_eq!(ask(directory.path(), &target, &through, "token: t").await, Ok(()));
    assert_eq!(*targets.lock().unwrap(), [target.as_str()]);

    let bad =
        ask(directory.path(), &target, &cluster("\"http://a b\"".to_owned()), "token: t").await;
    assert!(bad.as_ref().is_err_and(|error| error.contains("proxy")), "{bad:?}");
}
