//! What becomes of Services that want what others have, or too much: a line for each of them, however many frontends it
//! is about.

use super::Engine;
use crate::kernel::nft::Kernel;
use crate::model::ObjectName;
use crate::plan::{Dispute, Frontend};
use std::collections::BTreeMap;
use std::fmt;

/// How a Service gets less than it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// It asks for more than one Service may have.
    TooLarge,
    /// Another Service has some of its frontends.
    Taken,
}

impl<K: Kernel> Engine<K> {
    /// Says what the operator should know, and notes for others which Services get less.
    pub(super) fn log_disputes(&mut self) {
        let mut lost = BTreeMap::new();
        let mut taken: BTreeMap<ObjectName, Several> = BTreeMap::new();
        for dispute in self.planner.take_disputes() {
            match dispute {
                Dispute::Lost { service, frontend, to } => {
                    lost.entry((service, to)).or_insert_with(Several::default).add(frontend);
                }
                Dispute::TookOver { service, frontend } => {
                    taken.entry(service).or_default().add(frontend);
                }
                Dispute::Cut { service, endpoints } => {
                    let note = format!(
                        "so many frontends that each of them gets {endpoints} of its endpoints only"
                    );
                    tracing::warn!("Service {service} has {note}");
                    self.short.push((service, Shortage::TooLarge, note));
                }
            }
        }
        for ((service, to), frontends) in lost {
            let note = format!("does not get {frontends}: Service {to} has it first");
            tracing::warn!("Service {service} {note}");
            self.short.push((service, Shortage::Taken, note));
        }
        for (service, frontends) in taken {
            tracing::info!("Service {service} takes over {frontends}");
        }
    }
}

/// Frontends, of which the first few are named.
#[derive(Default)]
struct Several {
    named: Vec<Frontend>,
    count: usize,
}

impl Several {
    const NAMED: usize = 3;

    fn add(&mut self, frontend: Frontend) {
        self.count += 1;
        if self.named.len() < Self::NAMED {
            self.named.push(frontend);
        }
    }
}

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, frontend) in self.named.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{frontend}")?;
        }
        match self.count - self.named.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
