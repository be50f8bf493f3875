//! Which backend stands in which slot.

use super::Backend;
use hashbrown::HashSet;

/// Places the `wanted` backends into slots 0..N-1 so that as few slots as possible change from
/// `before`: what stays keeps its slot, what is new takes a slot that became free, and slots that are
/// left over are filled from the end.
pub fn place(before: &[Backend], wanted: &[Backend]) -> Vec<Backend> {
    if before.is_empty() {
        return wanted.to_vec();
    }
    if before == wanted {
        return before.to_vec();
    }
    // One that stands in several slots, as in a table for hashed flows, keeps the first.
    let mut left: HashSet<&Backend> = wanted.iter().collect();
    let mut slots: Vec<Option<Backend>> =
        before.iter().map(|backend| left.remove(backend).then_some(*backend)).collect();
    let kept: HashSet<&Backend> = before.iter().collect();
    let mut added = wanted.iter().filter(|backend| !kept.contains(backend));
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = added.next().copied();
    }
    slots.extend(added.map(|backend| Some(*backend)));
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
