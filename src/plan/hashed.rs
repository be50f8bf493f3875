//! Tables for hashed flows: every node that knows the same endpoints makes the same one, all endpoints have their share
//! of it, and one that comes or goes leaves most entries as they are.
//!
//! Entries and endpoints rank each other by a hash of both, and are matched so that no entry and endpoint would both
//! rather have each other (Gale and Shapley's stable matching), each endpoint with as many entries as it is due. Where one
//! goes, its entries look for others, and few more have to give way. With very many endpoints that takes too long; there
//! the table is Maglev's (section 3.4 of "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016).
//!
//! A hash depends on address, port and the number of the entry only, byte by byte, so that tables are the same on every
//! processor and for ever.

use super::Backend;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

/// Entries of a table: primes, so that Maglev's steps visit all of them.
pub const SIZES: [usize; 4] = [251, 1021, 4093, 16_381];

/// More endpoints are not matched: that would take more than some 20 ms.
const MATCHED: usize = 160;

/// The number of entries for so many endpoints, of which there may be `most`; None: not even the smallest table fits.
///
/// With 2.5 times the square of the number of endpoints a change moves less than 1.5 times as many entries as it has to.
pub fn size(endpoints: usize, most: usize) -> Option<usize> {
    let enough = endpoints.saturating_mul(endpoints).saturating_mul(5) / 2;
    let fit = || SIZES.into_iter().filter(|size| *size <= most);
    let wanted = fit().find(|size| *size >= enough);
    wanted.or_else(|| fit().next_back())
}

/// Which endpoint gets which entry of a table of one of the [`SIZES`]; nothing without endpoints.
pub fn table(endpoints: &[Backend], size: usize) -> Vec<Backend> {
    let mut endpoints = endpoints.to_vec();
    endpoints.sort_unstable();
    let entries = match endpoints.len() {
        0 => return Vec::new(),
        1..=MATCHED => matched(&endpoints, size),
        _ => in_turns(&endpoints, size),
    };
    entries.into_iter().map(|endpoint| endpoints[endpoint]).collect()
}

/// A stable matching: the number of an endpoint for each entry.
fn matched(endpoints: &[Backend], size: usize) -> Vec<usize> {
    let hashes: Vec<u64> = endpoints.iter().map(|endpoint| hash(endpoint, 0)).collect();
    let score = |entry: usize, endpoint: usize| mix(mix(entry as u64 + 1) ^ hashes[endpoint]);
    let due = due(&hashes, size);
    // What each endpoint has, the entry that it would rather give away first.
    let mut held: Vec<BinaryHeap<Reverse<(u64, usize)>>> = vec![BinaryHeap::new(); endpoints.len()];
    // How highly each entry thought of the endpoint that it has asked last.
    let mut asked = vec![u64::MAX; size];
    let mut free: Vec<usize> = (0..size).collect();
    while let Some(entry) = free.pop() {
        let scores = (0..endpoints.len()).map(|endpoint| (score(entry, endpoint), endpoint));
        let next = scores.filter(|(score, _)| *score < asked[entry]).max();
        // There is room for all, so somebody takes it.
        let Some((score, endpoint)) = next else { break };
        asked[entry] = score;
        held[endpoint].push(Reverse((score, entry)));
        if held[endpoint].len() > due[endpoint] {
            free.extend(held[endpoint].pop().map(|Reverse((_, entry))| entry));
        }
    }
    let mut entries = vec![0; size];
    for (endpoint, held) in held.into_iter().enumerate() {
        held.into_iter().for_each(|Reverse((_, entry))| entries[entry] = endpoint);
    }
    entries
}

/// How many entries each endpoint is due: as many as the others, or one more.
fn due(hashes: &[u64], size: usize) -> Vec<usize> {
    let (each, left) = (size / hashes.len(), size % hashes.len());
    let mut order: Vec<usize> = (0..hashes.len()).collect();
    order.sort_unstable_by_key(|endpoint| (mix(hashes[*endpoint]), *endpoint));
    let mut due = vec![each; hashes.len()];
    order[..left].iter().for_each(|endpoint| due[*endpoint] += 1);
    due
}

/// Maglev's table: each endpoint has an order in which it wants the entries, and they take turns.
fn in_turns(endpoints: &[Backend], size: usize) -> Vec<usize> {
    let mut wishes: Vec<Wishes> = endpoints.iter().map(|one| Wishes::of(one, size)).collect();
    let mut entries: Vec<Option<usize>> = vec![None; size];
    for left in (0..size).rev() {
        let endpoint = (size - 1 - left) % endpoints.len();
        let wishes = &mut wishes[endpoint];
        let at = std::iter::repeat_with(|| wishes.next(size)).find(|at| entries[*at].is_none());
        if let Some(at) = at {
            entries[at] = Some(endpoint);
        }
    }
    entries.into_iter().flatten().collect()
}

/// The order in which an endpoint wants entries.
struct Wishes {
    at: usize,
    step: usize,
}

impl Wishes {
    fn of(endpoint: &Backend, size: usize) -> Wishes {
        let (at, step) = (hash(endpoint, 1), hash(endpoint, 2));
        let size = size as u64;
        Wishes { at: (at % size) as usize, step: (step % (size - 1) + 1) as usize }
    }

    fn next(&mut self, size: usize) -> usize {
        let at = self.at;
        self.at = (at + self.step) % size;
        at
    }
}

/// FNV-1a of address, port and a number, mixed, for FNV alone leaves the upper bits alike.
fn hash(endpoint: &Backend, number: u8) -> u64 {
    let octets = match endpoint.address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let bytes = octets.into_iter().chain(endpoint.port.to_be_bytes()).chain([number]);
    mix(bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

/// The end of splitmix64.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn endpoint(number: u16) -> Backend {
        let [high, low] = number.to_be_bytes();
        Backend { address: [10, 244, high, low].into(), port: 8080 }
    }

    fn endpoints(count: u16) -> Vec<Backend> {
        (1..=count).map(endpoint).collect()
    }

    /// What other nodes, other processors and other releases make: a table never changes.
    #[test]
    fn tables_are_for_ever() {
        let numbers = |endpoints: &[Backend]| -> Vec<u8> {
            let of = |one: &Backend| match one.address {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(address) => address.octets()[15],
            };
            table(endpoints, SIZES[0])[..24].iter().map(of).collect()
        };
        let v6: Vec<Backend> = (1..4u16)
            .map(|number| Backend {
                address: [0xfd00, 0x10, 0x244, 0, 0, 0, 0, number].into(),
                port: 53,
            })
            .collect();
        assert_eq!(numbers(&endpoints(5)), FROZEN_V4);
        assert_eq!(numbers(&v6), FROZEN_V6);
    }

    const FROZEN_V4: [u8; 24] =
        [4, 1, 5, 1, 1, 1, 2, 1, 2, 3, 2, 3, 3, 2, 5, 3, 2, 2, 5, 4, 3, 3, 1, 5];
    const FROZEN_V6: [u8; 24] =
        [3, 1, 3, 2, 3, 2, 3, 2, 1, 1, 3, 2, 2, 3, 2, 3, 3, 2, 3, 2, 1, 3, 2, 3];

    fn shares(table: &[Backend]) -> HashMap<Backend, usize> {
        table.iter().fold(HashMap::new(), |mut shares, endpoint| {
            *shares.entry(*endpoint).or_default() += 1;
            shares
        })
    }

    /// Entries that lead elsewhere, of those that would have to: 1 is ideal.
    fn disruption(before: &[Backend], after: &[Backend]) -> f64 {
        let moved = before.iter().zip(after).filter(|(a, b)| a != b).count();
        let (old, new) = (shares(before), shares(after));
        let gone: usize =
            old.iter().filter(|(one, _)| !new.contains_key(*one)).map(|(_, n)| n).sum();
        let come: usize =
            new.iter().filter(|(one, _)| !old.contains_key(*one)).map(|(_, n)| n).sum();
        moved as f64 / gone.max(come).max(1) as f64
    }

    #[test]
    fn an_endpoint_that_comes_or_goes_moves_few_others() {
        for count in [2, 5, 10, 20, 40] {
            let all = endpoints(count);
            let size = size(all.len(), usize::MAX).unwrap();
            let whole = table(&all, size);
            let others_of = |gone: usize| {
                let mut others = all.clone();
                others.remove(gone);
                table(&others, size)
            };
            let gone = (0..all.len()).step_by(all.len().div_ceil(10));
            let all: Vec<f64> = gone
                .flat_map(|gone| {
                    let without = others_of(gone);
                    [disruption(&whole, &without), disruption(&without, &whole)]
                })
                .collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            assert!(mean < 1.5, "with {count} endpoints {mean} times as many as had to");
        }
    }

    /// The last entry is some endpoint's, too.
    #[test]
    fn many_endpoints_take_turns() {
        let all = endpoints(1000);
        let made = table(&all, SIZES[3]);
        let shares = shares(&made);
        assert_eq!((made.len(), shares.len()), (SIZES[3], 1000));
        assert!(shares.values().all(|share| (16..=17).contains(share)));
    }

    proptest! {
        #[test]
        fn every_endpoint_has_its_share(
            numbers in prop::collection::btree_set(any::<u16>(), 1..120), most in 251usize..20_000
        ) {
            let all: Vec<Backend> = numbers.into_iter().map(endpoint).collect();
            let size = size(all.len(), most).unwrap();
            prop_assert!(size <= most);
            let made = table(&all, size);
            prop_assert_eq!(made.len(), size);
            let shares = shares(&made);
            prop_assert_eq!(shares.len(), all.len());
            let (least, greatest) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            // They take turns.
            prop_assert!(greatest - least <= 1);
            // In whatever order they were listed.
            let reversed: Vec<Backend> = all.iter().rev().copied().collect();
            prop_assert_eq!(table(&reversed, size), made);
        }
    }

    #[test]
    fn sizes_follow_the_number_of_endpoints() {
        for (endpoints, expected) in
            [(1, 251), (10, 251), (11, 1021), (40, 4093), (41, 16_381), (100_000, 16_381)]
        {
            assert_eq!(size(endpoints, usize::MAX), Some(expected), "{endpoints}");
        }
        assert_eq!(size(40, 1000), Some(251));
        assert_eq!(size(1, 250), None);
        assert!(table(&[], 251).is_empty());
    }
}
