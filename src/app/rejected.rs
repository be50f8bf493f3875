//! What the kernel has rejected at localhost NodePorts, fetched at every scrape.

use crate::kernel::nft::Nft;
use crate::metrics::Metrics;
use crate::plan::layout::{REJECTED_AT_LOCALHOST, TABLE, localhost_chain};
use anyhow::Context;
use nft_table::Family;
use std::sync::{Mutex, PoisonError};

/// Reads the counters of the kernel whenever the metrics are read.
pub fn count(metrics: &Metrics) -> anyhow::Result<()> {
    let kernel = Nft::open().context("cannot reach nftables")?;
    let of =
        |family| REJECTED_AT_LOCALHOST.map(|protocol| metrics.localhost.rejected(family, protocol));
    let counters = Family::BOTH.map(of);
    let state = Mutex::new((kernel, [[0; REJECTED_AT_LOCALHOST.len()]; 2]));
    metrics.on_scrape(move || {
        let (kernel, seen) = &mut *state.lock().unwrap_or_else(PoisonError::into_inner);
        for ((family, counters), seen) in Family::BOTH.into_iter().zip(&counters).zip(seen) {
            match kernel.counters(TABLE, &localhost_chain(family)) {
                Ok(now) => {
                    for ((counter, seen), now) in counters.iter().zip(seen).zip(now) {
                        let added = since(std::mem::replace(seen, now), now);
                        counter.iter().for_each(|counter| counter.inc_by(added));
                    }
                }
                // As long as there is no such chain nothing is rejected.
                Err(error) => tracing::debug!("{error}"),
            }
        }
    });
    Ok(())
}

/// What a counter has grown by. In a table that was written again it begins anew.
fn since(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_counter_may_begin_anew() {
        assert_eq!(super::since(5, 7), 2);
        assert_eq!(super::since(5, 3), 3);
    }
}
