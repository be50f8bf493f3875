//! `nft monitor`, while the ruleset changes.

use crate::nft::Nft;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// A running monitor.
pub struct Monitor {
    nft: Nft,
    child: Child,
    output: NamedTempFile,
}

impl Monitor {
    /// Starts it and waits until it sees what happens.
    pub fn start(nft: &Nft) -> Monitor {
        let output = NamedTempFile::new().unwrap();
        let writer = output.reopen().unwrap();
        let child = Command::new(&nft.command)
            .arg("monitor")
            .stdin(Stdio::null())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        let mut monitor = Monitor { nft: nft.clone(), child, output };
        monitor.sees("started");
        monitor
    }

    /// Makes and deletes a table until the monitor has told of it.
    fn sees(&mut self, table: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.text().contains(table) {
            self.nft.run(&format!("add table inet {table}"));
            self.nft.run(&format!("delete table inet {table}"));
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} monitor has ended, {status}: {}", self.nft.command, self.text());
            }
            assert!(Instant::now() < deadline, "{} monitor: {}", self.nft.command, self.text());
            sleep(Duration::from_millis(20));
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.output.path()).unwrap()).into_owned()
    }

    /// What it has seen. It must still be running, and see what comes last.
    pub fn stop(mut self) -> String {
        self.sees("finished");
        self.text()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
