//! The thread that looks for stale entries and removes them.

use super::filter::DumpFilter;
use super::rule::{Rule, StaleCheck};
use super::socket::ConntrackSocket;
use super::{CleanReport, ConntrackError};
use ipnet::IpNet;
use nft_table::Family;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The wait before frontends are checked again after a failure; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest such wait.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Removes stale conntrack entries in the background. Dropping it waits for the checks that
/// were already handed over.
#[derive(Debug)]
pub struct ConntrackCleaner {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

/// What is to be checked: of each frontend the latest.
#[derive(Debug, Default)]
struct Mailbox {
    content: Mutex<Content>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Content {
    checks: Rule,
    is_closed: bool,
}

impl Mailbox {
    fn content(&self) -> MutexGuard<'_, Content> {
        // Checks are put in and taken out one by one.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConntrackCleaner {
    /// Starts the thread, for the network namespace of the calling thread. `report` is called on
    /// that thread after each pass, once per family that had frontends to check.
    pub fn start(
        report: impl FnMut(CleanReport) + Send + 'static,
    ) -> Result<ConntrackCleaner, ConntrackError> {
        let socket = ConntrackSocket::open()?;
        let mailbox = Arc::new(Mailbox::default());
        let worker = Worker { socket, mailbox: mailbox.clone(), report };
        let thread = thread::Builder::new()
            .name("conntrack".into())
            .spawn(move || worker.run())
            .map_err(ConntrackError::Thread)?;
        Ok(ConntrackCleaner { mailbox, thread: Some(thread) })
    }

    /// Has the entries of these frontends checked. To be called after the transaction that changed
    /// them is committed, with every frontend that came and every UDP frontend that changed or went; after a start, or
    /// when the table was away, with all of them. Returns at once. Checks that come while a pass runs are done together
    /// in the next one. Of the flows to the number of a NodePort only those count that are addressed to one of
    /// `nodeport_networks`: others merely pass this node.
    pub fn check(&self, frontends: Vec<StaleCheck>, nodeport_networks: Vec<IpNet>) {
        if !frontends.is_empty() {
            self.mailbox.content().checks.extend(frontends, nodeport_networks);
            self.mailbox.arrived.notify_one();
        }
    }
}

impl Drop for ConntrackCleaner {
    fn drop(&mut self) {
        self.mailbox.content().is_closed = true;
        self.mailbox.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker<F> {
    socket: ConntrackSocket,
    mailbox: Arc<Mailbox>,
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
    /// failed before is due again after `retry`, or with what is new. False when there is nothing more to come.
    fn wait(&mut self, rule: &mut Rule, retry: Duration) -> bool {
        let deadline = (!rule.is_empty()).then(|| Instant::now() + retry);
        let mut content = self.mailbox.content();
        loop {
            if !content.checks.is_empty() {
                rule.append(&mut content.checks);
                return true;
            }
            if content.is_closed {
                return false;
            }
            let arrived = &self.mailbox.arrived;
            content = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(rest) if rest.is_zero() => return true,
                Some(rest) => {
                    arrived.wait_timeout(content, rest).unwrap_or_else(PoisonError::into_inner).0
                }
                None => arrived.wait(content).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Dumps and deletes for one family; None when it has no frontends to check.
    fn pass(&mut self, rule: &Rule, family: Family) -> Option<CleanReport> {
        let frontends = rule.frontends(family).count();
        if frontends == 0 {
            return None;
        }
        let start = Instant::now();
        let (mut dumped, mut deleted, mut error) = (0, 0, None);
        let filters = rule.protocols(family).into_iter().flat_map(|protocol| {
            let frontends = rule.frontends(family).filter(move |(of, _)| *of == protocol);
            let frontends = frontends.map(|(_, frontend)| frontend);
            let untranslated = rule.is_about_untranslated(protocol);
            DumpFilter::covering(family, protocol, untranslated, frontends)
        });
        for filter in filters {
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
