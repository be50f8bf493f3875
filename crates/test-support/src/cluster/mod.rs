//! A cluster without nodes: etcd and one kube-apiserver at a time, both in the gateway's namespace, the
//! latter at the address of host `api`.

pub mod objects;
pub mod process;

use crate::lab::{Lab, Namespace};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{Method, Request, header};
use kube::config::{AuthInfo, Config};
use kube::{Client, Error};
use nix::sys::signal::Signal;
use process::Process;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long something that must happen may take before the test counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Port of the API server that nodes know, and of the one that they do not.
pub const PORT: u16 = 6443;
const BACK_DOOR: u16 = 6444;
/// Bearer token of the administrator.
const ADMIN: &str = "e2e-administrator";

/// The running servers and what is needed to talk to them.
pub struct Cluster {
    directory: TempDir,
    tools: PathBuf,
    gateway: OwnedFd,
    api_address: SocketAddr,
    // The order of the fields is the order in which they end.
    api: Option<Process>,
    _etcd: Process,
}

impl Cluster {
    /// Starts the servers in the lab's gateway and waits until they are ready.
    pub fn start(lab: &Lab, tools: PathBuf) -> Cluster {
        let directory = tempfile::Builder::new().prefix("kube-apiserver-").tempdir();
        let directory = directory.expect("a directory for the cluster");
        let root = directory.path();
        write_keys(root);
        let tokens = format!("{ADMIN},admin,admin,\"system:masters\"\n");
        fs::write(root.join("tokens.csv"), tokens).expect("write the tokens");
        let namespace = &lab.machine("api").namespace;
        let etcd = {
            let mut command = Command::new(tools.join("etcd"));
            command.arg("--unsafe-no-fsync").arg("--data-dir").arg(root.join("etcd"));
            command.args(["--listen-client-urls", "http://127.0.0.1:2379"]);
            command.args(["--advertise-client-urls", "http://127.0.0.1:2379"]);
            command.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--log-level", "warn"]);
            command.args(["--quota-backend-bytes", "8589934592"]);
            Process::start(namespace, command, &root.join("etcd.log"))
        };
        let api_address = SocketAddr::new(lab.v4("api"), PORT);
        let gateway = namespace.as_fd().try_clone_to_owned().expect("duplicate a descriptor");
        let mut cluster =
            Cluster { directory, tools, gateway, api_address, api: None, _etcd: etcd };
        cluster.start_api(namespace);
        cluster.write_kubeconfig();
        cluster
    }

    /// The directory for files of the cluster and of nodes.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where nodes reach the API server.
    pub fn url(&self) -> String {
        format!("https://{}", self.api_address)
    }

    /// Its host alone.
    pub fn host(&self) -> String {
        let url = self.url();
        let host = url.trim_start_matches("https://");
        host.rsplit_once(':').map_or(host, |(host, _)| host).trim_matches(['[', ']']).to_owned()
    }

    /// File with the CA certificate of the API server.
    pub fn ca_file(&self) -> PathBuf {
        self.directory().join("certificates/apiserver.crt")
    }

    /// The directory of what `build-tools` has built.
    pub fn tools(&self) -> &Path {
        &self.tools
    }

    /// A program that `build-tools` has built.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.tools.join(name)
    }

    /// The running servers.
    pub fn processes(&self) -> Vec<&Process> {
        self.api.iter().collect()
    }

    /// CPU seconds of the API server and of etcd so far.
    pub fn cpu(&self) -> f64 {
        self.processes().iter().map(|process| process.cpu()).sum::<f64>() + self._etcd.cpu()
    }

    /// Starts the API server where nodes know it and waits until it is ready.
    pub fn start_api(&mut self, namespace: &Namespace) {
        self.start_api_at(namespace, PORT);
    }

    /// Starts it where nodes do not find it: they are cut off, and its history begins anew.
    pub fn start_api_unreachable(&mut self, namespace: &Namespace) {
        self.start_api_at(namespace, BACK_DOOR);
    }

    fn start_api_at(&mut self, namespace: &Namespace, port: u16) {
        let root = self.directory.path();
        let mut command = Command::new(self.tools.join("kube-apiserver"));
        command.args(["--etcd-servers", "http://127.0.0.1:2379", "--authorization-mode=Node,RBAC"]);
        command.arg(format!("--secure-port={port}"));
        command.arg(format!("--advertise-address={}", self.api_address.ip()));
        command.arg("--cert-dir").arg(root.join("certificates"));
        command.arg("--service-account-key-file").arg(root.join("service-account.pub"));
        command.arg("--service-account-signing-key-file").arg(root.join("service-account.key"));
        command.arg("--service-account-issuer=https://kubernetes.default.svc");
        command.arg("--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112");
        command.arg("--token-auth-file").arg(root.join("tokens.csv"));
        command.arg("--allow-privileged");
        // Tests hurry more than clients of a shared server may.
        command.args(["--enable-priority-and-fairness=false", "--max-requests-inflight=0"]);
        command.arg("--max-mutating-requests-inflight=0");
        // Compaction is the tests' to do.
        command.args(["--etcd-compaction-interval=0", "--shutdown-delay-duration=0s"]);
        let log = root.join(format!("kube-apiserver-{port}.log"));
        self.api = Some(Process::start(namespace, command, &log));
        self.api_address.set_port(port);
        let start = Instant::now();
        while self.try_get("/readyz").is_err() {
            self.api.as_mut().expect("just started").assert_running();
            if start.elapsed() > PATIENCE {
                self.api.as_ref().expect("just started").tell_log();
                panic!("kube-apiserver is not ready");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the API server; etcd stays.
    pub fn stop_api(&mut self) {
        // A graceful end waits for watches; nodes must cope with less.
        self.api.take().expect("it runs").stop(Signal::SIGKILL);
    }

    /// Makes etcd forget all versions of objects but the newest.
    pub fn compact(&self) {
        let answer = self.etcd("/v3/kv/range", &json!({"key": "AA=="}));
        let revision = answer["header"]["revision"].clone();
        self.etcd("/v3/kv/compaction", &json!({"revision": revision, "physical": true}));
    }

    /// Writes objects into etcd, by their keys below `/registry/`: at most 128.
    pub fn store(&self, objects: &[(String, Value)]) {
        let encode = |text: String| BASE64_STANDARD.encode(text);
        let put = |(key, object): &(String, Value)| {
            let key = encode(format!("/registry/{key}"));
            json!({"requestPut": {"key": key, "value": encode(object.to_string())}})
        };
        let puts: Vec<Value> = objects.iter().map(put).collect();
        self.etcd("/v3/kv/txn", &json!({"success": puts}));
    }

    /// Waits until the API server and etcd have been idle for two seconds.
    pub fn wait_idle(&self) {
        let mut quiet = 0;
        let mut last = self.cpu();
        while quiet < 8 {
            std::thread::sleep(Duration::from_millis(250));
            let now = self.cpu();
            quiet = if now - last < 0.05 { quiet + 1 } else { 0 };
            last = now;
        }
    }

    fn etcd(&self, path: &str, body: &Value) -> Value {
        self.inside(async {
            let config = Config::new("http://127.0.0.1:2379".parse().expect("a URL"));
            let client = Client::try_from(config).expect("a client");
            let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
            let request = request.body(body.to_string().into_bytes()).expect("a request");
            client.request(request).await.unwrap_or_else(|error| panic!("etcd {path}: {error}"))
        })
    }

    /// Runs something that talks to the API server as administrator.
    pub fn with<R: Send>(&self, work: impl AsyncFnOnce(Client) -> R + Send) -> R {
        self.inside_with(async || work(self.client(ADMIN)).await)
    }

    fn client(&self, token: &str) -> Client {
        let mut config = Config::new(self.url().parse().expect("a URL"));
        config.accept_invalid_certs = true;
        config.default_retry = false;
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        Client::try_from(config).expect("a client")
    }

    fn inside<R: Send>(&self, work: impl Future<Output = R> + Send) -> R {
        self.inside_with(async || work.await)
    }

    fn inside_with<R: Send>(&self, work: impl AsyncFnOnce() -> R + Send) -> R {
        let enter = || {
            nix::sched::setns(&self.gateway, nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("enter the gateway");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(work())
        };
        match std::thread::scope(|scope| scope.spawn(enter).join()) {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn try_get(&self, path: &str) -> Result<String, Error> {
        self.with(async |client| {
            let request = Request::get(path).body(Vec::new()).expect("a request");
            client.request_text(request).await
        })
    }

    /// Creates or changes an object to what is given, as `kubectl apply --server-side` does; with `status`
    /// in it, that too.
    pub fn apply(&self, object: &Value) -> Value {
        self.with(async |client| objects::apply(&client, object).await)
    }

    /// Deletes an object, named by another with its kind and metadata.
    pub fn delete(&self, object: &Value) {
        self.with(async |client| objects::delete(&client, object).await);
    }

    /// Reads any path of the API.
    pub fn get(&self, path: &str) -> Value {
        let text = self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// A token for the ServiceAccount `kube-system/kube-proxy`, from the TokenRequest API. It is bound to a
    /// Secret, as those of pods are to the pod, so that it can be revoked.
    pub fn proxy_token(&self) -> Token {
        let secrets = "/api/v1/namespaces/kube-system/secrets";
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "token-"}});
        let secret =
            self.post(secrets, &secret)["metadata"]["name"].as_str().expect("a name").to_owned();
        let path = "/api/v1/namespaces/kube-system/serviceaccounts/kube-proxy/token";
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": 3600,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": secret},
            },
        });
        let answer = self.post(path, &request);
        Token { text: answer["status"]["token"].as_str().expect("a token").to_owned(), secret }
    }

    /// Makes a token worthless.
    pub fn revoke(&self, token: &Token) {
        self.kubectl(&["-n", "kube-system", "delete", "secret", &token.secret]);
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.with(async |client| {
            let request = Request::builder().method(Method::POST).uri(path);
            let request = request.header(header::CONTENT_TYPE, "application/json");
            let request = request.body(body.to_string().into_bytes()).expect("a request");
            client.request(request).await.unwrap_or_else(|error| panic!("POST {path}: {error}"))
        })
    }

    /// Runs kubectl as administrator and returns what it prints; panics when it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.inside(async {
            let mut command = Command::new(self.tools.join("kubectl"));
            command.arg("--kubeconfig").arg(self.directory().join("admin.kubeconfig"));
            command.env("HOME", self.directory()).args(arguments).output()
        });
        let output = output.unwrap_or_else(|error| panic!("run kubectl: {error}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {errors}", arguments.join(" "));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn write_kubeconfig(&self) {
        let config = kubeconfig(&self.url(), &self.ca_file(), &json!({"token": ADMIN}));
        fs::write(self.directory().join("admin.kubeconfig"), config.to_string()).expect("write");
    }
}

/// A ServiceAccount's token.
pub struct Token {
    pub text: String,
    /// The Secret that it is bound to.
    secret: String,
}

/// A kubeconfig; JSON is YAML.
pub fn kubeconfig(server: &str, ca_file: &Path, user: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
        "clusters": [{"name": "e2e", "cluster": {"server": server, "certificate-authority": ca_file}}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
        "users": [{"name": "e2e", "user": user}],
    })
}

/// Writes a fresh ECDSA key, with which the server signs tokens, and its public half.
fn write_keys(directory: &Path) {
    // SubjectPublicKeyInfo of a P-256 key (RFC 5480) up to the point itself.
    const INFO: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let private = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref(), &random).expect("a key");
    let public = [&INFO, pair.public_key().as_ref()].concat();
    for (name, kind, der) in [
        ("service-account.key", "PRIVATE KEY", private.as_ref()),
        ("service-account.pub", "PUBLIC KEY", &public),
    ] {
        let pem = format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", base64(der));
        fs::write(directory.join(name), pem).expect("write a key");
    }
}

/// Base64 of RFC 4648, in one line.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..4 {
            match place <= chunk.len() {
                true => text.push(DIGITS[(word >> (18 - 6 * place)) as usize & 63] as char),
                false => text.push('='),
            }
        }
    }
    text
}
