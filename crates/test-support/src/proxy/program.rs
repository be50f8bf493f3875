//! The real program in the node's namespace.

use super::Manifests;
use crate::lab::Lab;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long it may take until something happens that must happen. An emulated machine takes a minute or two to read the
/// program.
const PATIENCE: Duration = Duration::from_secs(300);

/// The program that cargo built for the running test: it lies beside the directory of test programs.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this program");
    let directory = test.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    directory.join("kube-proxy")
}

/// A running `kube-proxy`. It is killed when dropped; its rules stay.
pub struct Program<'l> {
    lab: &'l Lab,
    child: Child,
    log: Arc<Mutex<String>>,
    is_read: Arc<AtomicBool>,
}

impl<'l> Program<'l> {
    /// Starts it as node `node` and waits until it is healthy, that is until its first commit.
    pub fn start(lab: &'l Lab, manifests: &Manifests, config: Option<Value>) -> Program<'l> {
        let mut program = Program::spawn(lab, manifests, config);
        program.wait_until(|program| program.healthz().starts_with("HTTP/1.1 200"));
        program
    }

    /// Starts it with more flags.
    pub fn spawn_with_manifests(
        lab: &'l Lab,
        manifests: &Manifests,
        flags: &[&str],
    ) -> Program<'l> {
        let mut command = Program::command(manifests, None);
        command.args(flags);
        Program::spawn_command(lab, command)
    }

    /// Starts it with more flags, and waits until it is healthy.
    pub fn start_with(lab: &'l Lab, manifests: &Manifests, flags: &[&str]) -> Program<'l> {
        let mut program = Program::spawn_with_manifests(lab, manifests, flags);
        program.wait_until(|program| program.healthz().starts_with("HTTP/1.1 200"));
        program
    }

    /// Starts it. `config` are fields of a KubeProxyConfiguration.
    pub fn spawn(lab: &'l Lab, manifests: &Manifests, config: Option<Value>) -> Program<'l> {
        Program::spawn_command(lab, Program::command(manifests, config))
    }

    fn command(manifests: &Manifests, config: Option<Value>) -> Command {
        let mut command = Command::new(program());
        command.arg("--manifests").arg(manifests.path()).args(["--hostname-override", "node"]);
        // The conntrack table's size is the whole machine's, so it is left alone.
        if let Some(mut config) = config {
            config["conntrack"]["maxPerCore"] = 0.into();
            config["apiVersion"] = "kubeproxy.config.k8s.io/v1alpha1".into();
            config["kind"] = "KubeProxyConfiguration".into();
            // Hidden, so that it is no manifest.
            let path = manifests.path().join(".config");
            std::fs::write(&path, config.to_string()).expect("write the configuration");
            command.arg("--config").arg(path);
        } else {
            command.args(["--conntrack-max-per-core", "0"]);
        }
        command
    }

    /// Starts it with these flags alone.
    pub fn spawn_with(lab: &'l Lab, flags: &[&str]) -> Program<'l> {
        let mut command = Command::new(program());
        command.args(["--hostname-override", "node", "--conntrack-max-per-core", "0"]).args(flags);
        Program::spawn_command(lab, command)
    }

    fn spawn_command(lab: &'l Lab, mut command: Command) -> Program<'l> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let namespace = lab.node().namespace.try_clone();
        // SAFETY: between fork and exec it only makes system calls that may be made there.
        unsafe {
            command.pre_exec(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)?;
                // Whatever becomes of the tests, no proxy outlives them.
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            });
        }
        let mut child = command.spawn().expect("start kube-proxy");
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let keeper = log.clone();
        let is_read = Arc::new(AtomicBool::new(true));
        let reads = is_read.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                while !reads.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let mut log = keeper.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                log.push_str(&line);
                log.push('\n');
            }
        });
        Program { lab, child, log, is_read }
    }

    /// Leaves its log unread from now on.
    pub fn stop_reading(&self) {
        self.is_read.store(false, Ordering::Relaxed);
    }

    /// Waits until something is so; panics with the log when it never is, or when the program ends.
    #[track_caller]
    pub fn wait_until(&mut self, mut is_so: impl FnMut(&Program) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let ended = self.child.try_wait().expect("wait");
            assert!(ended.is_none(), "kube-proxy ended, {ended:?}:\n{}", self.log());
            assert!(start.elapsed() < PATIENCE, "it never came to that:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What GET /healthz answers, status line and all; empty as long as nobody listens.
    pub fn healthz(&self) -> String {
        self.get(10256, "/healthz")
    }

    /// GET on a port of the node's loopback address.
    pub fn get(&self, port: u16, path: &str) -> String {
        self.lab.node().namespace.run(|| {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
                return String::new();
            };
            let mut answer = String::new();
            let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
            let result = stream.write_all(request.as_bytes());
            let _ = result.and_then(|()| stream.read_to_string(&mut answer));
            answer
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself; None if it does not.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + patience;
        loop {
            match self.child.try_wait().expect("wait") {
                None if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                status => return status,
            }
        }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().expect("wait")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.child.id() as i32), signal).expect("signal");
    }

    /// SIGKILL.
    pub fn kill(self) {}
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.is_read.store(true, Ordering::Relaxed);
        if std::thread::panicking() {
            eprintln!("kube-proxy said:\n{}", self.log());
        }
    }
}
