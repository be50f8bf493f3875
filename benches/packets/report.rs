//! The figures: tables for people, and raw numbers.

use crate::rows::{Row, Source};
use crate::rules::Rules;
use nft_table::Family;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// The size that the short table is about, if it was measured.
const USUAL: usize = 1000;

/// All figures.
#[derive(Default)]
pub struct Report {
    cells: BTreeMap<(Family, Row, Source, Rules), Duration>,
}

impl Report {
    /// Takes note of a time; of several the shortest counts.
    pub fn add(&mut self, row: Row, family: Family, source: Source, rules: Rules, time: Duration) {
        let cell = self.cells.entry((family, row, source, rules)).or_insert(time);
        *cell = time.min(*cell);
    }

    fn get(&self, family: Family, row: Row, source: Source, rules: Rules) -> Option<f64> {
        self.cells.get(&(family, row, source, rules)).map(|time| time.as_nanos() as f64)
    }

    fn all_rules(&self) -> BTreeSet<Rules> {
        self.cells.keys().map(|key| key.3).collect()
    }

    fn rows(&self) -> BTreeSet<Row> {
        self.cells.keys().map(|key| key.1).collect()
    }

    /// The size of the short table: that of both proxies.
    fn size(&self) -> Option<usize> {
        let rules = self.all_rules();
        let both = rules.iter().filter_map(|one| match one {
            Rules::Ours(size) if rules.contains(&Rules::Upstream(*size)) => Some(*size),
            _ => None,
        });
        both.min_by_key(|size| size.abs_diff(USUAL))
    }

    /// Every single figure.
    pub fn raw(&self) -> String {
        let cell = |((family, row, source, rules), time): (&(_, Row, Source, Rules), &Duration)| {
            let family: &Family = family;
            json!({
                "family": family.to_string(), "row": row.name(), "source": source.host(),
                "rules": rules.to_string(), "ns": time.as_nanos() as u64,
            })
        };
        let cells: Vec<Value> = self.cells.iter().map(cell).collect();
        serde_json::to_string_pretty(&cells).expect("JSON")
    }

    /// Ours, and its ratios to upstream's and to the hand-written rule.
    fn write_short(&self, f: &mut fmt::Formatter<'_>, family: Family, size: usize) -> fmt::Result {
        writeln!(
            f,
            "{family}, {size} Services: ours, in ns a packet or connection (ours : upstream, ours : one `dnat` rule)\n"
        )?;
        writeln!(f, "| | from a pod | from the node | from outside |\n|---|---|---|---|")?;
        for row in self.rows() {
            write!(f, "| {} |", row.name())?;
            for source in Source::ALL {
                let get = |rules| self.get(family, row, source, rules);
                let Some(ours) = get(Rules::Ours(size)) else { continue };
                let ratio = |rules| {
                    get(rules).map_or("-".to_owned(), |other| format!("{:.2}", ours / other))
                };
                let (upstream, dnat) = (ratio(Rules::Upstream(size)), ratio(Rules::Dnat));
                write!(f, " {ours:.0} ({upstream}, {dnat}) |")?;
            }
            writeln!(f)?;
        }
        writeln!(f)
    }

    /// Every variant; packets in ns, connections by the second.
    fn write_long(
        &self,
        f: &mut fmt::Formatter<'_>,
        family: Family,
        rows: &[Row],
        figure: impl Fn(f64) -> f64,
    ) -> fmt::Result {
        write!(f, "| |")?;
        let rules = self.all_rules();
        for one in &rules {
            write!(f, " {one} |")?;
        }
        writeln!(f, "\n|---|{}", "---|".repeat(rules.len()))?;
        for (row, source) in rows.iter().flat_map(|row| Source::ALL.map(|source| (*row, source))) {
            write!(f, "| {}, {source} |", row.name())?;
            for one in &rules {
                match self.get(family, row, source, *one) {
                    Some(time) => write!(f, " {:.0} |", figure(time))?,
                    None => write!(f, " - |")?,
                }
            }
            writeln!(f)?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(size) = self.size() {
            for family in Family::BOTH {
                self.write_short(f, family, size)?;
            }
        }
        let (packets, connections): (Vec<Row>, Vec<Row>) =
            self.rows().into_iter().partition(|row| *row != Row::Connection);
        for family in Family::BOTH {
            if !packets.is_empty() {
                writeln!(f, "{family}, ns a packet, by variant and number of Services\n")?;
                self.write_long(f, family, &packets, |time| time)?;
            }
            if !connections.is_empty() {
                writeln!(f, "{family}, connections a second\n")?;
                self.write_long(f, family, &connections, |time| 1e9 / time)?;
            }
        }
        Ok(())
    }
}
