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

use super::{Backend, weights};
use crate::model::TABLE_SIZES;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

/// Entries of a table. They are primes, so that Maglev's steps visit all of them.
const SIZES: [usize; 4] = {
    let [a, b, c, d] = TABLE_SIZES;
    [a as usize, b as usize, c as usize, d as usize]
};

/// More endpoints are not matched: that would take more than some 20 ms.
const MATCHED: usize = 160;

/// The number of entries for so many endpoints, of which there may be `most`; None: not even the smallest table fits.
///
/// With 2.5 times the square of the number of endpoints a change moves less than 1.5 times as many entries as it has to.
/// With weights (of each, or none) there are so many that no share is more than a hundredth of itself off, where they fit.
pub fn size(endpoints: usize, weights: &[u32], most: usize) -> Option<usize> {
    let enough = endpoints.saturating_mul(endpoints).saturating_mul(5) / 2;
    let fit = || SIZES.into_iter().filter(|size| *size <= most);
    // Who of those with the same weight has one more does not matter here.
    let same = vec![0; weights.len()];
    let is_fine = |size: usize| {
        let due =
            || due(&same, weights, size).into_iter().map(|due| due as u32).collect::<Vec<_>>();
        weights.is_empty() || weights::error(weights, &due()) <= weights::TOLERANCE
    };
    let wanted = fit().find(|size| *size >= enough && is_fine(*size));
    wanted.or_else(|| fit().next_back())
}

/// Which endpoint gets which entry of a table of one of the sizes of [`size`]; nothing without endpoints. `weights` of each
/// endpoint, none 0, or none: all have the same.
pub fn table(endpoints: &[Backend], weights: &[u32], size: usize) -> Vec<Backend> {
    let weights = weights.iter().copied().chain(std::iter::repeat(1));
    let mut endpoints: Vec<(Backend, u32)> = endpoints.iter().copied().zip(weights).collect();
    endpoints.sort_unstable();
    let (endpoints, weights): (Vec<Backend>, Vec<u32>) = endpoints.into_iter().unzip();
    let entries = match endpoints.len() {
        0 => return Vec::new(),
        1..=MATCHED => matched(&endpoints, &weights, size),
        _ => in_turns(&endpoints, &weights, size),
    };
    entries.into_iter().map(|endpoint| endpoints[endpoint]).collect()
}

/// Which entries of `table` were others while endpoints that are `leaving` had a part in it, and which: those of their own,
/// and the few that moved with them. So who has lost a connection of before finds it.
pub fn draining(
    table: &[Backend],
    endpoints: &[Backend],
    weights: &[u32],
    leaving: &[(Backend, u32)],
) -> Vec<(u32, Backend)> {
    if leaving.is_empty() || endpoints.is_empty() {
        return Vec::new();
    }
    let (gone, theirs): (Vec<Backend>, Vec<u32>) = leaving.iter().copied().unzip();
    let weights = if weights.is_empty() { Vec::new() } else { [weights, &theirs].concat() };
    let before = self::table(&[endpoints, &gone].concat(), &weights, table.len());
    let entries = before.into_iter().zip(table).zip(0..);
    entries
        .filter(|((before, now), _)| before != *now)
        .map(|((before, _), n)| (n, before))
        .collect()
}

/// A stable matching: the number of an endpoint for each entry.
fn matched(endpoints: &[Backend], weights: &[u32], size: usize) -> Vec<usize> {
    let hashes: Vec<u64> = endpoints.iter().map(|endpoint| hash(endpoint, 0)).collect();
    let score = |entry: usize, endpoint: usize| mix(mix(entry as u64 + 1) ^ hashes[endpoint]);
    let due = due(&hashes, weights, size);
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

/// How many entries each endpoint is due: as its weight says, or one more. None is left out, as long as there are enough.
fn due(hashes: &[u64], weights: &[u32], size: usize) -> Vec<usize> {
    let mut due: Vec<usize> = floors(weights, size).into_iter().map(|due| due as usize).collect();
    let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let rest = |endpoint: usize| u64::from(weights[endpoint]) * size as u64 % all;
    let mut order: Vec<usize> = (0..hashes.len()).collect();
    order.sort_unstable_by_key(|one| (Reverse(rest(*one)), mix(hashes[*one]), *one));
    let given: usize = due.iter().sum();
    order.iter().take(size.saturating_sub(given)).for_each(|one| due[*one] += 1);
    // Those that have one although less is due have it from those with most.
    for _ in size..given {
        let most = (0..due.len()).max_by_key(|one| (due[*one], mix(hashes[*one])));
        most.into_iter().for_each(|one| due[one] -= 1);
    }
    due
}

/// Whole entries that each endpoint is due, and one at least.
fn floors(weights: &[u32], size: usize) -> Vec<u32> {
    let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let floor = |weight: &u32| (u64::from(*weight) * size as u64 / all.max(1)).max(1) as u32;
    weights.iter().map(floor).collect()
}

/// Maglev's table: each endpoint has an order in which it wants the entries, and they take turns.
fn in_turns(endpoints: &[Backend], weights: &[u32], size: usize) -> Vec<usize> {
    let mut wishes: Vec<Wishes> = endpoints.iter().map(|one| Wishes::of(one, size)).collect();
    let mut entries: Vec<Option<usize>> = vec![None; size];
    let is_even = weights.iter().all(|weight| *weight == weights[0]);
    let turns: Vec<usize> = if is_even || endpoints.len() > size {
        (0..size).map(|turn| turn % endpoints.len()).collect()
    } else {
        let hashes: Vec<u64> = endpoints.iter().map(|endpoint| hash(endpoint, 0)).collect();
        let due: Vec<u32> = due(&hashes, weights, size).into_iter().map(|due| due as u32).collect();
        weights::in_turns(&due)
    };
    for endpoint in turns {
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
            table(endpoints, &[], SIZES[0])[..24].iter().map(of).collect()
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

    #[test]
    fn tables_with_weights_are_for_ever() {
        let made = table(&endpoints(3), &[1, 2, 5], SIZES[0]);
        let numbers: Vec<u8> = made[..24]
            .iter()
            .map(|one| match one.address {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(address) => address.octets()[15],
            })
            .collect();
        assert_eq!(numbers, FROZEN_WEIGHTS);
    }

    const FROZEN_WEIGHTS: [u8; 24] =
        [3, 3, 3, 3, 1, 3, 2, 1, 3, 3, 2, 3, 3, 2, 2, 3, 2, 2, 3, 3, 3, 3, 3, 3];
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

    /// Also prints the table of the README (`--nocapture`).
    #[test]
    fn an_endpoint_that_comes_or_goes_moves_few_others() {
        for count in [2, 5, 10, 20, 40] {
            let all = endpoints(count);
            let size = size(all.len(), &[], usize::MAX).unwrap();
            let whole = table(&all, &[], size);
            let others_of = |gone: usize| {
                let mut others = all.clone();
                others.remove(gone);
                table(&others, &[], size)
            };
            let gone: Vec<usize> = (0..all.len()).step_by(all.len().div_ceil(10)).collect();
            let mean = |of: &dyn Fn(&[Backend]) -> f64| {
                gone.iter().map(|gone| of(&others_of(*gone))).sum::<f64>() / gone.len() as f64
            };
            let removed = mean(&|without| disruption(&whole, without));
            let added = mean(&|without| disruption(without, &whole));
            println!("| {count} | {size} | {removed:.2} | {added:.2} |");
            assert!(removed < 1.5 && added < 1.5, "with {count} endpoints {removed}, {added}");
        }
    }

    /// The last entry is some endpoint's, too.
    #[test]
    fn many_endpoints_take_turns() {
        let all = endpoints(1000);
        let made = table(&all, &[], SIZES[3]);
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
            let size = size(all.len(), &[], most).unwrap();
            prop_assert!(size <= most);
            let made = table(&all, &[], size);
            prop_assert_eq!(made.len(), size);
            let shares = shares(&made);
            prop_assert_eq!(shares.len(), all.len());
            let (least, greatest) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            // They take turns.
            prop_assert!(greatest - least <= 1);
            // In whatever order they were listed.
            let reversed: Vec<Backend> = all.iter().rev().copied().collect();
            prop_assert_eq!(table(&reversed, &[], size), made);
        }
    }

    #[test]
    fn weights_are_kept() {
        let all = endpoints(10);
        let weights = [1, 9, 9, 9, 9, 9, 9, 9, 9, 9];
        let size = size(10, &weights, usize::MAX).unwrap();
        let made = table(&all, &weights, size);
        let shares = shares(&made);
        let given: Vec<u32> = all.iter().map(|one| shares[one] as u32).collect();
        assert!(weights::error(&weights, &given) <= weights::TOLERANCE, "{given:?}");
        // Nobody is left out, however little is due.
        let shares = self::shares(&table(&endpoints(3), &[1, 1000, 1], SIZES[0]));
        assert_eq!((shares[&all[0]], shares[&all[1]], shares[&all[2]]), (1, 249, 1));
        let heavy: Vec<u32> = (0..200).map(|one| if one == 7 { 50 } else { 1 }).collect();
        let shares = self::shares(&table(&endpoints(200), &heavy, SIZES[1]));
        assert_eq!((shares.len(), shares[&endpoint(8)]), (200, 205));
    }

    #[test]
    fn flows_of_before_are_found() {
        let all = endpoints(5);
        let (gone, left) = (all[2], [&all[..2], &all[3..]].concat());
        for (weights, theirs) in [(&[][..], 1), (&[1, 2, 4, 5][..], 3)] {
            let before = match theirs {
                1 => table(&all, &[], 251),
                _ => table(&all, &[1, 2, 3, 4, 5], 251),
            };
            let now = table(&left, weights, 251);
            let behind: HashMap<u32, Backend> =
                draining(&now, &left, weights, &[(gone, theirs)]).into_iter().collect();
            for (entry, before) in (0..).zip(before) {
                assert_eq!(*behind.get(&entry).unwrap_or(&now[entry as usize]), before);
            }
            assert!((40..100).contains(&behind.len()), "{}", behind.len());
        }
        assert!(draining(&table(&all, &[], 251), &all, &[], &[]).is_empty());
    }

    #[test]
    fn sizes_follow_the_number_of_endpoints() {
        for (endpoints, expected) in
            [(1, 251), (10, 251), (11, 1021), (40, 4093), (41, 16_381), (100_000, 16_381)]
        {
            assert_eq!(size(endpoints, &[], usize::MAX), Some(expected), "{endpoints}");
        }
        assert_eq!(size(40, &[], 1000), Some(251));
        assert_eq!(size(1, &[], 250), None);
        assert!(table(&[], &[], 251).is_empty());
    }
}
