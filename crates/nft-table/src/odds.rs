//! Every outcome of a packet, whatever is drawn.

use crate::Table;
use crate::evaluate::{EvaluateError, Machine, Outcome, Packet, evaluate};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What dynamic maps hold: map, key and data.
pub type Learned = HashMap<(Arc<str>, Vec<u8>), Vec<u8>>;

/// What may become of a packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Possibility {
    /// How likely it is that exactly these numbers are drawn.
    pub odds: f64,
    /// What becomes of the packet then.
    pub outcome: Outcome,
    /// What dynamic maps hold afterwards.
    pub learned: Learned,
}

/// Follows a packet with every number that can be drawn on its way, one after the other.
///
/// # Errors
/// If the packet comes to a rule that makes no sense.
pub fn possibilities(
    table: &Table,
    packet: &Packet,
    is_local: &dyn Fn(IpAddr) -> bool,
    learned: &Learned,
) -> Result<Vec<Possibility>, EvaluateError> {
    let mut all = Vec::new();
    // The numbers to draw, each with how many there are to draw from.
    let mut script: Vec<(u32, u32)> = Vec::new();
    loop {
        let mut drawn = 0;
        let mut learned = learned.clone();
        let mut random = |below| {
            // The same choices lead to the same draw.
            if drawn == script.len() {
                script.push((0, below));
            }
            drawn += 1;
            script[drawn - 1].0
        };
        let mut machine = Machine { is_local, random: &mut random, learned: &mut learned };
        let outcome = evaluate(table, packet.clone(), &mut machine)?;
        let odds = script.iter().map(|(_, below)| 1.0 / f64::from(*below)).product();
        all.push(Possibility { odds, outcome, learned });
        while script.last().is_some_and(|(number, below)| number + 1 >= *below) {
            script.pop();
        }
        match script.last_mut() {
            Some((number, _)) => *number += 1,
            None => return Ok(all),
        }
    }
}
