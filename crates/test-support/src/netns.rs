//! A network namespace for one test, and the commands that set it up.

use crate::skip;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkUnspec;
use std::process::Command;
use std::thread;

/// Runs a test body on a thread in a new network namespace with loopback up. What the body starts
/// (threads, child processes) is in that namespace too.
pub fn in_namespace(body: impl FnOnce() + Send + 'static) {
    let thread = thread::current().name().unwrap_or("test").to_owned();
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return skip::skip(&format!("cannot make a network namespace: {error}"));
        }
        loopback_up();
        body();
    };
    let joined = thread::Builder::new().name(thread).spawn(run).unwrap().join();
    if let Err(panic) = joined {
        std::panic::resume_unwind(panic);
    }
}

/// `ip link set lo up`; loopback is link 1 of every namespace. No program is started for it: a child would hold
/// copies of other tests' sockets for a moment, and keep ports busy that were just closed.
fn loopback_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        let connection = tokio::spawn(connection);
        handle.link().set(LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
        connection.abort();
    });
}

/// Runs a shell command in the calling thread's namespace and returns what it prints; panics with
/// its error output when it fails.
#[track_caller]
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// True, with a word about it, when a program that the test needs is not installed.
pub fn skip_without(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skip::skip(&format!("the program {program} is not installed"));
    }
    !found
}
