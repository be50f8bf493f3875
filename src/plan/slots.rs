//! Which backend stands in which slot.

use super::{Backend, List, hashed, weights};
use crate::model::Algorithm;
use hashbrown::HashMap;

/// How the endpoints of a Service are to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Placing {
    pub algorithm: Algorithm,
    /// Entries of a table for hashed flows; None: as many as are good.
    pub table_size: Option<u16>,
    /// How many slots there may be.
    pub most: usize,
}

/// Slots of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Of new connections: each endpoint as often as its weight says, or the entries of a table for hashed flows.
    pub slots: Vec<Backend>,
    /// Of a table for hashed flows: which entries were others before endpoints began to terminate, for connections that
    /// another node has lost.
    pub draining: Vec<(u32, Backend)>,
}

impl Placing {
    /// Places a list that stood in other slots before.
    pub fn place(self, before: &[Backend], list: &List) -> Placed {
        let List { backends, weights, draining } = list;
        if self.algorithm.is_hash() {
            // A list that fills the room is a table itself.
            let size = self.table_size.map(usize::from).filter(|size| *size <= self.most);
            // As long as one is leaving the table has the size that it had with it.
            let count = backends.len() + draining.len();
            let size = size.or_else(|| hashed::size(count, weights, self.most));
            let Some(size) = size else {
                return Placed { slots: backends.clone(), draining: Vec::new() };
            };
            let slots = hashed::table(backends, weights, size);
            let draining = hashed::draining(&slots, backends, weights, draining);
            return Placed { slots, draining };
        }
        let each = weights::slots(weights, self.most);
        let slots = if each.is_empty() {
            place(before, backends)
        } else if self.algorithm == Algorithm::RoundRobin {
            weights::in_turns(&each).into_iter().map(|one| backends[one]).collect()
        } else {
            let many = backends.iter().zip(&each);
            let many = many.flat_map(|(one, slots)| std::iter::repeat_n(*one, *slots as usize));
            place(before, &many.collect::<Vec<_>>())
        };
        Placed { slots, draining: Vec::new() }
    }
}

/// Places the `wanted` backends, of which one may want several, into slots 0..N-1 so that as few slots as possible change
/// from `before`: what stays keeps its slots, what is new takes slots that became free, and slots that are left over are
/// filled from the end.
pub fn place(before: &[Backend], wanted: &[Backend]) -> Vec<Backend> {
    if before.is_empty() {
        return wanted.to_vec();
    }
    if before == wanted {
        return before.to_vec();
    }
    let mut left: HashMap<&Backend, usize> = HashMap::with_capacity(wanted.len());
    wanted.iter().for_each(|backend| *left.entry(backend).or_default() += 1);
    let mut take = |backend| {
        let left = left.get_mut(backend).filter(|left| **left > 0)?;
        *left -= 1;
        Some(*backend)
    };
    let mut slots: Vec<Option<Backend>> = before.iter().map(&mut take).collect();
    let mut added = wanted.iter().filter_map(take);
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = added.next();
    }
    slots.extend(added.map(Some));
    // Fewer than before: the last ones move into the gaps.
    let mut placed: Vec<Backend> = Vec::with_capacity(wanted.len());
    let mut end = slots.len();
    for index in 0..slots.len() {
        if index >= end {
            break;
        }
        if slots[index].is_none() {
            while end > index + 1 && slots[end - 1].is_none() {
                end -= 1;
            }
            end -= 1;
            if end == index {
                break;
            }
            slots[index] = slots[end].take();
        }
        placed.extend(slots[index]);
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn backend(number: u8) -> Backend {
        Backend { address: Ipv4Addr::new(10, 244, 0, number).into(), port: 8080 }
    }

    fn backends(numbers: impl IntoIterator<Item = u8>) -> Vec<Backend> {
        numbers.into_iter().map(backend).collect()
    }

    #[test]
    fn a_table_is_as_large_as_was_asked_for_where_it_fits() {
        let list = List { backends: backends(1..4), ..List::default() };
        let len = |algorithm, table_size, most| {
            Placing { algorithm, table_size, most }.place(&[], &list).slots.len()
        };
        assert_eq!(len(Algorithm::HashFlow, None, 5000), 251);
        assert_eq!(len(Algorithm::HashFlow, Some(1021), 5000), 1021);
        assert_eq!(len(Algorithm::HashClient, Some(16_381), 5000), 251);
        assert_eq!(len(Algorithm::HashClient, Some(251), 100), 3);
        assert_eq!(len(Algorithm::RoundRobin, Some(1021), 5000), 3);
    }

    #[test]
    fn the_last_slot_moves_into_the_gap() {
        assert_eq!(place(&backends([1, 2, 3, 4]), &backends([1, 3, 4])), backends([1, 4, 3]));
    }

    #[test]
    fn a_replacement_takes_the_free_slot() {
        assert_eq!(place(&backends([1, 2, 3]), &backends([1, 3, 9])), backends([1, 9, 3]));
    }

    #[test]
    fn one_in_many_slots_keeps_the_first() {
        assert_eq!(place(&backends([1, 2, 1, 2, 2, 3]), &backends([1, 2, 4])), backends([1, 2, 4]));
    }

    #[test]
    fn each_keeps_as_many_slots_as_it_wants() {
        assert_eq!(place(&backends([1, 2, 2, 2]), &backends([1, 1, 2, 2])), backends([1, 2, 2, 1]));
        assert_eq!(place(&backends([1, 2, 3]), &backends([2, 2])), backends([2, 2]));
    }

    #[test]
    fn the_last_ones_just_go() {
        assert_eq!(place(&backends([1, 2, 3]), &backends([1])), backends([1]));
        assert_eq!(place(&backends([1, 2, 3]), &backends([])), backends([]));
    }

    proptest! {
        #[test]
        fn every_wanted_backend_stands_in_one_slot_and_few_slots_change(
            before in proptest::collection::hash_set(0u8..40, 0..20),
            wanted in proptest::collection::btree_set(0u8..40, 0..20),
        ) {
            let (before, wanted) = (backends(before), backends(wanted));
            let placed = place(&before, &wanted);
            let mut sorted = placed.clone();
            sorted.sort_unstable();
            prop_assert_eq!(&sorted, &wanted);
            // Not more slots change below the new length than there are backends that go or come.
            let changed = placed.iter().zip(&before).filter(|(a, b)| a != b).count();
            let gone = before.iter().filter(|backend| !wanted.contains(backend)).count();
            prop_assert!(before.is_empty() || changed <= gone);
        }
    }
}
