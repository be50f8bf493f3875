//! Balancing chains that a large table has before they are needed.

use super::Writer;
use crate::plan::layout::{Balancing, SetKind, SetName};
use nft_table::Family;

/// From so many verdicts in maps on, chains are made ahead: the kernel looks at all of them when a rule is added, and a
/// chain is committed before what leads to it.
const FROM: usize = 10_000;

/// So many chains are made ahead in one transaction at most: for each the kernel looks at a whole bank of slots.
const AT_ONCE: usize = 4;

impl Writer {
    /// Whether chains are idle that should not be there, or spare ones are not there.
    pub(super) fn idle_differ(&self) -> bool {
        if self.has_spares() { self.spares_are_stale } else { !self.idle.is_empty() }
    }

    pub(super) fn has_spares(&self) -> bool {
        let verdicts = [SetKind::ServiceIps, SetKind::ServiceNodeports]
            .into_iter()
            .flat_map(|kind| Family::BOTH.map(|family| SetName::new(kind, family)));
        let maps = verdicts.filter_map(|name| self.sets.get(name));
        maps.map(|id| self.table.len(id)).sum::<usize>() >= FROM
    }

    /// Spare is the chain for one endpoint more than Services have: one of them may have as many any moment.
    pub(super) fn is_spare(&self, chain: &Balancing) -> bool {
        let before = chain.one_less();
        before.is_some_and(|before| self.chain_uses.contains_key(&before))
    }

    /// Makes some of the spare chains that are not there.
    pub(super) fn make_spares(&mut self) {
        let is_there =
            |chain: &Balancing| self.chain_uses.contains_key(chain) || self.idle.contains(chain);
        let next = self.chain_uses.keys().filter_map(|chain| chain.one_more());
        let mut missing: Vec<Balancing> = next.filter(|chain| !is_there(chain)).collect();
        self.spares_are_stale = missing.len() > AT_ONCE;
        missing.truncate(AT_ONCE);
        missing.into_iter().for_each(|chain| self.keep_chain(chain));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Backend;
    use crate::plan::layout::Counting;
    use crate::plan::pods::Pods;
    use nft_table::{Key, Operation, Value, Verdict};
    use std::net::Ipv4Addr;

    const SERVICE_IPS: SetName = SetName::new(SetKind::ServiceIps, Family::V4);

    fn key(number: usize) -> Key {
        let address = Ipv4Addr::from_bits(0x0a60_0000 + number as u32);
        Key::builder().address(address.into()).protocol(6).port(80).build()
    }

    /// A Service with so many endpoints.
    fn put(writer: &mut Writer, number: usize, endpoints: u32) {
        let chain = format!("cluster4-{endpoints}");
        writer.put(SERVICE_IPS, key(number), Value::verdict(Verdict::Goto(chain.into()), None));
    }

    fn tidy(writer: &mut Writer) {
        writer.write_rules();
        writer.table.committed();
        while writer.has_unused() {
            writer.delete_unused();
            writer.table.committed();
        }
    }

    fn numbers(writer: &Writer) -> Vec<u32> {
        let chains = writer.table.chains().into_iter();
        let mut numbers: Vec<u32> =
            chains.filter_map(|chain| Balancing::parse(&chain.name)).map(|c| c.endpoints).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn a_large_table_has_the_next_number_of_endpoints_ahead() {
        let mut writer = Writer::new(Pods::default(), false, Counting::Off);
        let address = Ipv4Addr::new(10, 244, 0, 1).into();
        let slot = Key::builder().address(address).protocol(6).port(80).slot(0).build();
        let slots = SetName::new(SetKind::ClusterEndpoints, Family::V4);
        writer.put(slots, slot, Backend { address, port: 8080 }.to_value());
        (1..FROM).for_each(|number| put(&mut writer, number, 1));
        put(&mut writer, 1, 5);
        tidy(&mut writer);
        put(&mut writer, 1, 1);
        tidy(&mut writer);
        assert_eq!(numbers(&writer), [1], "not large enough");
        put(&mut writer, 0, 1);
        // What the kernel may have refused is not written for nobody.
        put(&mut writer, 0, 2);
        put(&mut writer, 0, 1);
        writer.drop_unwritten();
        assert_eq!(numbers(&writer), [1]);
        tidy(&mut writer);
        assert_eq!(numbers(&writer), [1, 2]);
        put(&mut writer, 0, 2);
        let is_chain = |operation: &Operation<'_>| matches!(operation, Operation::AddChain(_));
        assert!(!writer.table.changes().operations.iter().any(is_chain));
        tidy(&mut writer);
        assert_eq!(numbers(&writer), [1, 2, 3]);
        put(&mut writer, 0, 1);
        tidy(&mut writer);
        assert_eq!(numbers(&writer), [1, 2]);
        // More than are made at once.
        (0..10).for_each(|number| put(&mut writer, number, 10 + 2 * number as u32));
        tidy(&mut writer);
        let all: Vec<u32> = [1, 2].into_iter().chain(10..30).collect();
        assert_eq!(numbers(&writer), all);
        writer.take(SERVICE_IPS, &key(0));
        tidy(&mut writer);
        let used: Vec<u32> = std::iter::once(1).chain((12..30).step_by(2)).collect();
        assert_eq!(numbers(&writer), used);
    }
}
