//! What the kernel has counted.

use crate::explain::{Connections, Uncounted};
use crate::kernel::nft::{Error, Kernel, Nft};
use crate::plan::layout::TABLE;
use nft_table::Key;

/// Reads the elements that count, by key.
///
/// # Errors
/// The kernel does not answer.
pub fn read(mut uncounted: Uncounted) -> Result<Connections, Error> {
    let elements = std::mem::take(&mut uncounted.elements);
    let over_chains = std::mem::take(&mut uncounted.over_chains);
    if elements.is_empty() && over_chains.is_empty() {
        return Ok(uncounted.finish());
    }
    let mut nft = Nft::open()?;
    for (chain, port) in over_chains {
        uncounted.count_over(port, &nft.counters(TABLE, &chain)?);
    }
    for (name, elements) in elements {
        let set = name.declaration(uncounted.counting);
        let keys: Vec<&Key> = elements.iter().map(|(key, _)| key).collect();
        let there = nft.counts(TABLE, &set, &keys)?;
        for ((_, port), there) in elements.iter().zip(there) {
            if let Some((value, count)) = there {
                uncounted.count(*port, &value, count);
            }
        }
    }
    Ok(uncounted.finish())
}
