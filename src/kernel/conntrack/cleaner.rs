//! The thread that looks for stale entries and removes them.

use super::filter::DumpFilter;
use super::rule::{Rule, StaleCheck};
use super::socket::ConntrackSocket;
use super::{CleanReport, ConntrackError};
use nft_table::Family;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The wait before frontends are checked again after a failure; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest such wait.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Removes stale UDP conntrack entries in the background. Dropping it waits for the checks that
/// were already handed over.
#[derive(Debug)]
pub struct ConntrackCleaner {
    checks: Option<Sender<Vec<StaleCheck>>>,
    thread: Option<JoinHandle<()>>,
}

impl ConntrackCleaner {
    /// Starts the thread, for the network namespace of the calling thread. `report` is called on
    /// that thread after each pass, once per family that had frontends to check.
    pub fn start(
        report: impl FnMut(CleanReport) + Send + 'static,
    ) -> Result<ConntrackCleaner, ConntrackError> {
        let socket = ConntrackSocket::open()?;
        let (sender, checks) = mpsc::channel();
        let worker = Worker { socket, checks, report };
        let thread = thread::Builder::new()
            .name("conntrack".into())
            .spawn(move || worker.run())
            .map_err(ConntrackError::Thread)?;
        Ok(ConntrackCleaner { checks: Some(sender), thread: Some(thread) })
    }

    /// Has the entries of these frontends checked. To be called after the transaction that changed
    /// them is committed, with every UDP frontend that changed or went; after a start with all of
    /// them. Returns at once. Checks that come while a pass runs are done together in the next one.
    pub fn check(&self, frontends: Vec<StaleCheck>) {
        if let Some(checks) = &self.checks
            && !frontends.is_empty()
        {
            // The thread ends only when this sender is gone.
            let _ = checks.send(frontends);
        }
    }
}

impl Drop for ConntrackCleaner {
    fn drop(&mut self) {
        self.checks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker<F> {
    socket: ConntrackSocket,
    checks: Receiver<Vec<StaleCheck>>,
    report: F,
}

impl<F: FnMut(CleanReport)> Worker<F> {
    fn run(mut self) {
        let mut rule = Rule::default();
        let mut retry = FIRST_RETRY;
        while self.wait(&mut rule, retry) {
            for family in Family::BOTH {
                let Some(report) = self.pass(&rule, family) else { continue };
                if report.error.is_none() {
                    rule.remove_family(family);
                }
                (self.report)(report);
            }
            // What is left failed.
            retry = if rule.is_empty() { FIRST_RETRY } else { LAST_RETRY.min(retry * 2) };
        }
    }

    /// Adds all checks that are there to the rule, and waits for some when there are none. What
    /// failed before is due again after `retry`. False when there is nothing more to come.
    fn wait(&mut self, rule: &mut Rule, retry: Duration) -> bool {
        let first = if rule.is_empty() {
            self.checks.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            self.checks.recv_timeout(retry)
        };
        match first {
            Ok(checks) => rule.extend(checks),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        while let Ok(checks) = self.checks.try_recv() {
            rule.extend(checks);
        }
        true
    }

    /// Dumps and deletes for one family; None when it has no frontends to check.
    fn pass(&mut self, rule: &Rule, family: Family) -> Option<CleanReport> {
        let frontends = rule.frontends(family).count();
        if frontends == 0 {
            return None;
        }
        let start = Instant::now();
        let (mut dumped, mut deleted, mut error) = (0, 0, None);
        for filter in DumpFilter::covering(family, rule.frontends(family)) {
            match self.socket.find(&filter, &|flow| rule.is_stale(flow)) {
                Ok(found) => {
                    dumped += found.dumped;
                    let (gone, failure) = self.socket.delete(family, found.stale);
                    deleted += gone;
                    error = error.or(failure);
                }
                Err(failure) => {
                    error = Some(failure);
                    break;
                }
            }
        }
        Some(CleanReport { family, frontends, dumped, deleted, duration: start.elapsed(), error })
    }
}
