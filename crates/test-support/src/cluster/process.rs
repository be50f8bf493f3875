//! Programs that run in a network namespace, with their output in a file.

use crate::lab::Namespace;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Lines of a log that are shown after a failure.
const SHOWN: usize = 40;

/// A running program; dropping it ends it.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program in a namespace; its output goes to `log`. It is killed when the calling thread
    /// ends, so call this from the main thread.
    pub fn start(namespace: &Namespace, mut command: Command, log: &Path) -> Process {
        let output = File::create(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let errors = output.try_clone().expect("duplicate a descriptor");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let descriptor = namespace.raw_descriptor();
        // SAFETY: only system calls that are safe after fork; the descriptor is open until exec.
        unsafe {
            command.pre_exec(move || {
                setns(BorrowedFd::borrow_raw(descriptor), CloneFlags::CLONE_NEWNET)?;
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            });
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().unwrap_or_else(|error| panic!("run {program}: {error}"));
        Process { child, log: log.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the process is ours");
    }

    /// Panics with the log when the program has ended.
    #[track_caller]
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("our child") {
            self.tell_log();
            panic!("{} has ended: {status}", self.name());
        }
    }

    /// Ends the program and waits for that.
    pub fn stop(mut self, signal: Signal) {
        self.signal(signal);
        self.child.wait().expect("our child");
    }

    /// Waits until the program ends by itself; panics with its log when it fails.
    #[track_caller]
    pub fn assert_success(mut self) {
        let status = self.child.wait().expect("our child");
        if !status.success() {
            self.tell_log();
            panic!("{} has failed: {status}", self.name());
        }
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn name(&self) -> String {
        self.log.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Prints the end of the log.
    pub fn tell_log(&self) {
        println!("--- {} ({})", self.name(), self.log.display());
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(SHOWN)..] {
            println!("{}", line.chars().take(400).collect::<String>());
        }
    }

    /// Resident memory in KiB: now and at its highest.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Waits until the program has used no processor time for a second.
    pub fn wait_idle(&self) {
        let mut last = self.cpu();
        let mut quiet = 0;
        while quiet < 4 {
            std::thread::sleep(Duration::from_millis(250));
            let now = self.cpu();
            quiet = if now - last < 0.005 { quiet + 1 } else { 0 };
            last = now;
        }
    }

    /// CPU time so far, of the program and its ended children, in seconds.
    pub fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        // utime, stime, cutime and cstime of proc_pid_stat(5), counted from field 3.
        let ticks: u64 =
            rest.split_whitespace().skip(11).take(4).filter_map(|t| t.parse::<u64>().ok()).sum();
        // SAFETY: no preconditions.
        ticks as f64 / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
