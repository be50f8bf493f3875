//! An anonymous network namespace: it has no name and no file, and is gone when the last descriptor,
//! socket and process in it is. Code runs inside on threads of its own, so that no thread of the test
//! runner ever changes namespace.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

/// Owner of a network namespace.
pub struct Namespace {
    descriptor: OwnedFd,
}

impl Namespace {
    /// Makes an empty namespace (`lo` only, down). Needs CAP_SYS_ADMIN.
    pub fn new() -> io::Result<Namespace> {
        let maker = || -> io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        };
        let descriptor = thread::scope(|scope| scope.spawn(maker).join()).expect("no panic")?;
        Ok(Namespace { descriptor })
    }

    /// Runs a closure inside, on a thread of its own. Sockets opened there stay there, whoever uses
    /// them later. A panic inside goes on outside.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let inside = || {
            setns(&self.descriptor, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            work()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs a program inside and returns its standard output; panics when it fails.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        self.try_output(program, arguments)
            .unwrap_or_else(|errors| panic!("{program} {}: {errors}", arguments.join(" ")))
    }

    /// The same, with what it says where it fails.
    pub fn try_output(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self
            .run(|| Command::new(program).args(arguments).output())
            .unwrap_or_else(|error| panic!("run {program}: {error}"));
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Sets sysctls, written with dots (or with slashes, where a name has dots): `net.ipv4.ip_forward`.
    pub fn sysctls(&self, settings: &[(&str, &str)]) {
        self.run(|| {
            for (name, value) in settings {
                let path = format!("/proc/sys/{}", name.replace('.', "/"));
                fs::write(&path, value)
                    .unwrap_or_else(|error| panic!("set {name}={value}: {error}"));
            }
        });
    }

    /// The same for a sysctl that older kernels may not have in a namespace.
    pub fn sysctl_if_there(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| drop(fs::write(path, value)));
    }

    /// A second owner of it, for a process that shall live in it.
    pub fn try_clone(&self) -> OwnedFd {
        self.descriptor.try_clone().expect("duplicate a descriptor")
    }

    /// For messages and system calls that name the namespace by descriptor.
    pub fn raw_descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
