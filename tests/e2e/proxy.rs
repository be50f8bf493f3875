//! The program under test, on a node of the lab, as the DaemonSet of `deploy/` would run it.

use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use test_support::cluster::process::Process;
use test_support::cluster::{Cluster, PATIENCE, Token};
use test_support::lab::Machine;

/// What the DaemonSet mounts where.
const MOUNTS: [(&str, &str); 2] = [
    ("/var/run/secrets/kubernetes.io/serviceaccount", "serviceaccount"),
    ("/var/lib/kube-proxy", "configuration"),
];

/// A running kube-proxy.
pub struct Proxy {
    process: Process,
    directory: PathBuf,
    token: Token,
}

impl Proxy {
    /// Writes the files that the pod would find, from the ConfigMap in the cluster, and starts the program
    /// of the DaemonSet in the cluster with the capabilities that it grants.
    pub fn start(cluster: &Cluster, machine: &Machine, node: &str) -> Proxy {
        Proxy::start_program(
            cluster,
            machine,
            node,
            Path::new(env!("CARGO_BIN_EXE_kube-proxy")),
            "nftables",
        )
    }

    /// Upstream's kube-proxy in the same place; it wants more capabilities.
    pub fn start_upstream(cluster: &Cluster, machine: &Machine, node: &str, mode: &str) -> Proxy {
        Proxy::start_program(cluster, machine, node, &cluster.tool("kube-proxy"), mode)
    }

    fn start_program(
        cluster: &Cluster,
        machine: &Machine,
        node: &str,
        program: &Path,
        mode: &str,
    ) -> Proxy {
        let directory = cluster.directory().join(node);
        let place = |text: &str| {
            MOUNTS.iter().fold(text.to_owned(), |text, (mount, own)| {
                text.replace(mount, directory.join(own).to_str().expect("UTF-8"))
            })
        };
        for (_, own) in MOUNTS {
            fs::create_dir_all(directory.join(own)).expect("a directory");
        }
        let map = cluster.get("/api/v1/namespaces/kube-system/configmaps/kube-proxy");
        for (file, text) in map["data"].as_object().expect("data") {
            let text = place(text.as_str().expect("text"));
            let text = text.replace("mode: nftables", &format!("mode: {mode}"));
            fs::write(directory.join("configuration").join(file), text).expect("write");
        }
        fs::copy(cluster.ca_file(), directory.join("serviceaccount/ca.crt")).expect("copy");
        let token = cluster.proxy_token();
        write_token(&directory, &token);
        let daemon_set = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";
        let daemon_set = cluster.get(daemon_set);
        let pod = &daemon_set["spec"]["template"]["spec"];
        let run = |container: &Value, what: &str| {
            let mut words = container["command"].as_array().expect("a command").iter();
            assert_eq!(words.next().expect("a program"), "/usr/local/bin/kube-proxy");
            let mut command = match program.starts_with(cluster.tools()) {
                true => Command::new(program),
                false => confined(container, program),
            };
            // As kubeadm copies them from where it ran. The proxy does not exist.
            command.env("HTTPS_PROXY", "http://192.0.2.1:3128");
            command.env("NO_PROXY", format!(".svc,{}", cluster.host()));
            for word in words {
                let word = word.as_str().expect("text").replace("$(NODE_NAME)", node);
                command.arg(place(&word));
            }
            let log = cluster.directory().join(format!("{what}-{node}.log"));
            Process::start(&machine.namespace, command, &log)
        };
        for container in pod["initContainers"].as_array().into_iter().flatten() {
            run(container, "set-up").assert_success();
        }
        Proxy { process: run(&pod["containers"][0], "kube-proxy"), directory, token }
    }

    /// Panics when the program has ended.
    #[track_caller]
    pub fn assert_running(&mut self) {
        self.process.assert_running();
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until /healthz says that the rules are there.
    #[track_caller]
    pub fn wait_ready(&mut self, machine: &Machine) {
        let start = Instant::now();
        while status(machine, "/healthz").0 != 200 {
            self.process.assert_running();
            if start.elapsed() > PATIENCE {
                self.process.tell_log();
                panic!("kube-proxy is not healthy: {:?}", status(machine, "/healthz"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Gives the program another token, as kubelet does in time, and revokes the one before.
    pub fn replace_token(&mut self, cluster: &Cluster) {
        let old = std::mem::replace(&mut self.token, cluster.proxy_token());
        write_token(&self.directory, &self.token);
        cluster.revoke(&old);
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.join("configuration/config.conf")
    }

    /// Ends it as kubelet does.
    pub fn stop(self) {
        self.process.stop(nix::sys::signal::Signal::SIGTERM);
    }
}

fn write_token(directory: &Path, token: &Token) {
    let file = directory.join("serviceaccount/token");
    let new = file.with_extension("new");
    fs::write(&new, &token.text).and_then(|()| fs::rename(&new, &file)).expect("write the token");
}

/// A command that starts a program as root with only the capabilities of a container.
fn confined(container: &Value, program: &Path) -> Command {
    if container["securityContext"]["privileged"] == true {
        return Command::new(program);
    }
    let mut bounds = "-all".to_owned();
    let added = &container["securityContext"]["capabilities"]["add"];
    for capability in added.as_array().into_iter().flatten() {
        bounds.push_str(",+");
        bounds.push_str(&capability.as_str().expect("text").to_lowercase());
    }
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--bounding-set", &bounds, "--inh-caps=-all", "--"]);
    command.arg(program);
    command
}

/// Status and body of a GET from the health server.
pub fn status(machine: &Machine, path: &str) -> (u16, String) {
    get(machine, 10256, path)
}

/// The metrics page.
pub fn metrics(machine: &Machine) -> String {
    let (code, body) = get(machine, 10249, "/metrics");
    assert_eq!(code, 200, "{body}");
    body
}

/// Status and body of a GET on the node's loopback address; status 0 when there is no answer.
fn get(machine: &Machine, port: u16, path: &str) -> (u16, String) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let answer = machine.namespace.run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    let answer = answer.unwrap_or_default();
    let code = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    (code, body)
}
