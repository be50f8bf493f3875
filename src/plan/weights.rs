//! From weights to slots: small numbers of them in nearly the same proportions.

/// How far the share of an endpoint may be from what its weight asks for: a hundredth of it.
pub(super) const TOLERANCE: f64 = 0.01;

/// How many slots each endpoint gets, given their weights, of which none is 0: the fewest with which no share is more than
/// a hundredth of itself off, or `most` in all with the least error, but one for each. The same weight gets the same
/// number. Empty weights: all have the same.
pub fn slots(weights: &[u32], most: usize) -> Vec<u32> {
    let Some(least) = weights.iter().min().copied() else { return Vec::new() };
    let mut kinds: Vec<(u32, usize)> = Vec::new();
    let mut sorted = weights.to_vec();
    sorted.sort_unstable();
    for weight in sorted {
        match kinds.last_mut() {
            Some((kind, count)) if *kind == weight => *count += 1,
            _ => kinds.push((weight, 1)),
        }
    }
    let mut best: Option<(f64, Vec<u32>)> = None;
    // The lightest gets 1, 2, 3, ... slots, or so many that another one gets a whole number.
    for slots in 1_u32.. {
        let scaled = |weight: u32| f64::from(weight) * f64::from(slots) / f64::from(least);
        let given: Vec<u32> =
            kinds.iter().map(|(weight, _)| scaled(*weight).round() as u32).collect();
        let of_all: usize =
            given.iter().zip(&kinds).map(|(given, (_, count))| *given as usize * count).sum();
        if of_all > most {
            break;
        }
        let error = worst(&kinds, &given);
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, given));
        }
        if error <= TOLERANCE {
            break;
        }
    }
    let given = best.map(|(_, given)| given).unwrap_or_else(|| squeezed(&kinds, most));
    let of = |weight: &u32| {
        let kind = kinds.binary_search_by_key(weight, |(kind, _)| *kind);
        kind.map_or(1, |kind| given[kind])
    };
    weights.iter().map(of).collect()
}

/// Where not even one slot for the lightest leaves enough for the others: as many as there are, but one for each.
fn squeezed(kinds: &[(u32, usize)], most: usize) -> Vec<u32> {
    let (count, sum) = kinds.iter().fold((0, 0.0), |(count, sum), (weight, of)| {
        (count + of, sum + f64::from(*weight) * *of as f64)
    });
    let left = most.saturating_sub(count) as f64;
    kinds.iter().map(|(weight, _)| 1 + (f64::from(*weight) / sum * left) as u32).collect()
}

/// By which part of itself a share is off at most.
fn worst(kinds: &[(u32, usize)], given: &[u32]) -> f64 {
    let weights: f64 = kinds.iter().map(|(weight, count)| f64::from(*weight) * *count as f64).sum();
    let slots: f64 =
        kinds.iter().zip(given).map(|((_, count), given)| f64::from(*given) * *count as f64).sum();
    let off = kinds.iter().zip(given).map(|((weight, _), given)| {
        (f64::from(*given) / slots * weights / f64::from(*weight) - 1.0).abs()
    });
    off.fold(0.0, f64::max)
}

/// By which part of itself the share of an endpoint is off at most, given what each weighs and has.
pub fn error(weights: &[u32], slots: &[u32]) -> f64 {
    let kinds: Vec<(u32, usize)> = weights.iter().map(|weight| (*weight, 1)).collect();
    worst(&kinds, slots)
}

/// The order in which endpoints with so many slots each take turns, so that nobody has long to wait: the turns of each are
/// spread evenly.
pub fn in_turns(slots: &[u32]) -> Vec<usize> {
    let turns_of = |(one, slots): (usize, &u32)| {
        let slots = u64::from(*slots);
        // In the middle of its part of the whole, in fixed point, which is the same on every processor.
        (0..slots).map(move |turn| (((2 * turn + 1) << 40) / (2 * slots), one))
    };
    let mut turns: Vec<(u64, usize)> = slots.iter().enumerate().flat_map(turns_of).collect();
    turns.sort_unstable();
    turns.into_iter().map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_few_slots_as_will_do() {
        for (weights, expected) in [
            (&[1, 9][..], &[1, 9][..]),
            (&[10, 90, 90], &[1, 9, 9]),
            (&[100, 101], &[1, 1]),
            (&[2, 3], &[2, 3]),
            (&[5], &[1]),
            (&[7, 7, 7], &[1, 1, 1]),
            (&[1, 1000], &[1, 1000]),
            (&[333, 667], &[1, 2]),
            (&[], &[]),
        ] {
            assert_eq!(slots(weights, 4096), expected, "{weights:?}");
        }
        // No more than there may be, and nobody without.
        assert_eq!(slots(&[1, 1_000_000], 100), [1, 98]);
        assert_eq!(slots(&[1, 2, 3], 3), [1, 1, 1]);
    }

    #[test]
    fn the_heavy_do_not_go_all_at_once() {
        assert_eq!(in_turns(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(in_turns(&[5, 1, 1]), [0, 0, 0, 1, 2, 0, 0]);
        assert!(in_turns(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn shares_are_a_hundredth_off_at_most(weights in prop::collection::vec(1_u32..200, 1..12)) {
            let slots = slots(&weights, 32_768);
            prop_assert!(error(&weights, &slots) <= TOLERANCE + 1e-9, "{slots:?}");
            for (place, weight) in weights.iter().enumerate() {
                let same = weights.iter().position(|other| other == weight).unwrap();
                prop_assert_eq!(slots[place], slots[same]);
            }
        }

        #[test]
        fn nobody_is_left_out_and_there_are_not_too_many(
            weights in prop::collection::vec(prop_oneof![1_u32..10, 1_u32..1_000_000], 1..40), more in 0_usize..500,
        ) {
            let most = weights.len() + more;
            let slots = slots(&weights, most);
            prop_assert!(slots.iter().all(|slots| *slots > 0));
            prop_assert!(slots.iter().sum::<u32>() as usize <= most);
        }

        #[test]
        fn everybody_has_their_turns(slots in prop::collection::vec(1_u32..9, 1..9)) {
            let turns = in_turns(&slots);
            for (one, slots) in slots.iter().enumerate() {
                prop_assert_eq!(turns.iter().filter(|turn| **turn == one).count(), *slots as usize);
            }
        }
    }
}
