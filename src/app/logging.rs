//! Logs to standard error, in text or JSON, at a verbosity that can be changed while running.
//!
//! A thread of its own writes the lines. Who logs never waits for the reader: where that stalls, lines are dropped and
//! counted.

use crate::config::{LogFormat, Logging};
use anyhow::Context;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// Changes what is logged: takes directives as [`EnvFilter`] reads them.
pub type SetFilter = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Lines that wait for the reader at most.
const LINES: usize = 10_000;

/// How long the end of the process waits for the last lines to be written.
const PATIENCE: Duration = Duration::from_millis(300);

static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How many lines were dropped because nobody read them.
pub fn dropped_lines() -> usize {
    DROPPED.get().map_or(0, ErrorCounter::dropped_lines)
}

/// Writes what was logged so far, as far as somebody reads it. To be called at the end of the process.
pub fn flush() {
    let writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(writer) = writer else { return };
    let (done, is_done) = mpsc::channel();
    let write = move || {
        drop(writer);
        let _ = done.send(());
    };
    if thread::Builder::new().name("log".into()).spawn(write).is_ok() {
        let _ = is_done.recv_timeout(PATIENCE);
    }
}

/// Starts logging. Call once.
pub fn init(logging: &Logging) -> anyhow::Result<SetFilter> {
    let filter = EnvFilter::try_new(logging.filter()).context("the log filter is invalid")?;
    let (filter, handle) = reload::Layer::new(filter);
    let (stderr, writer) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES)
        .thread_name("log")
        .finish(std::io::stderr());
    let _ = DROPPED.set(stderr.error_counter());
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match logging.format {
        LogFormat::Text => {
            lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed()
        }
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(Arc::new(move |directives| {
        let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    }))
}
