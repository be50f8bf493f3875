//! A network namespace for one test, made without starting a process: a child would hold copies of
//! the other tests' sockets for a moment, and keep ports busy that were just closed.

#[path = "../skip/mod.rs"]
mod skip;

use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkUnspec;
use std::thread;

/// Runs a test body on a thread in a new network namespace with loopback up. Threads that the body
/// starts are in that namespace too.
pub fn in_namespace(body: impl FnOnce() + Send + 'static) {
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return skip::skip(&format!("cannot make a network namespace: {error}"));
        }
        loopback_up();
        body();
    };
    let name = thread::current().name().unwrap_or("test").to_owned();
    let joined = thread::Builder::new().name(name).spawn(run).unwrap().join();
    if let Err(panic) = joined {
        std::panic::resume_unwind(panic);
    }
}

/// `ip link set lo up`; loopback is link 1 of every namespace.
fn loopback_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        let connection = tokio::spawn(connection);
        handle.link().set(LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
        connection.abort();
    });
}
