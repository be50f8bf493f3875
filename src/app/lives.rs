//! A thread or task that dies takes the process with it, under its name: whoever supervises the process then starts it
//! anew, with the rules in place. Nothing that is half alive looks healthy.

use super::logging;
use std::future::Future;
use std::panic::{self, PanicHookInfo};
use std::thread;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

tokio::task_local! {
    static NAME: &'static str;
}

/// Has a panic, of whatever thread or task, end the process. Once, at the start.
pub fn end_with_a_panic() {
    panic::set_hook(Box::new(|panic| {
        let who = NAME
            .try_with(|name| format!("task {name:?}"))
            .unwrap_or_else(|_| format!("thread {:?}", thread::current().name().unwrap_or("?")));
        tracing::error!("{who} died: {}", describe(panic));
        logging::flush();
        std::process::exit(101);
    }));
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no reason given");
    panic.location().map_or_else(|| text.to_owned(), |location| format!("{text} ({location})"))
}

/// Starts a task whose panic is told with this name.
pub fn spawn<F>(name: &'static str, task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(NAME.scope(name, task))
}

/// The same, for one that ends with its handle.
pub fn spawn_owned<F>(name: &'static str, task: F) -> AbortOnDropHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    AbortOnDropHandle::new(spawn(name, task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Which of the two the child of a test is to be.
    const CHILD: &str = "LIVES_CHILD";

    /// Runs a test of this module in a process of its own; what it ended with, and what it said.
    fn child(test: &str) -> (Option<i32>, String) {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([&format!("app::lives::tests::{test}"), "--exact", "--nocapture"]);
        let output = command.env(CHILD, "1").output().expect("run it");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    fn is_child() -> bool {
        if std::env::var_os(CHILD).is_none() {
            return false;
        }
        tracing_subscriber::fmt().init();
        end_with_a_panic();
        true
    }

    #[test]
    fn a_task_that_dies_takes_the_process_with_it() {
        if is_child() {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            return runtime.block_on(async {
                let _ = spawn("watches", async { panic!("out of luck") }).await;
                std::future::pending().await
            });
        }
        let (code, said) = child("a_task_that_dies_takes_the_process_with_it");
        assert_eq!(code, Some(101), "{said}");
        assert!(said.contains("task \"watches\" died: out of luck (src/app/lives.rs:"), "{said}");
    }

    #[test]
    fn a_thread_that_dies_takes_the_process_with_it() {
        if is_child() {
            let body = || panic!("out of {}", "memory");
            thread::Builder::new().name("conntrack".into()).spawn(body).expect("a thread");
            loop {
                thread::park();
            }
        }
        let (code, said) = child("a_thread_that_dies_takes_the_process_with_it");
        assert_eq!(code, Some(101), "{said}");
        assert!(said.contains("thread \"conntrack\" died: out of memory ("), "{said}");
    }
}
