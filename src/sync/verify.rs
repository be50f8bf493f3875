//! The kernel against the plan, without writing: what a proxy that starts now would change.

use crate::kernel::nft::{Error, Kernel};
use crate::plan::layout::TABLE;
use crate::plan::{Planner, is_this_layout};
use nft_table::{Key, Operation, Set, SetId, text};

/// What the kernel would have to be told, in nft's words, an element a line; nothing if it has all that the planner's
/// objects ask for. The planner is one that has not planned yet.
///
/// # Errors
/// The kernel does not answer.
pub fn difference<K: Kernel>(planner: &mut Planner, kernel: &mut K) -> Result<Vec<String>, Error> {
    let there = kernel.snapshot(TABLE)?;
    let ours = there.filter(is_this_layout);
    if let Some(snapshot) = &ours {
        // Whether connections are counted is no difference.
        planner.count_as(snapshot);
        planner.learn_from(snapshot);
        planner.know_sets(snapshot);
    }
    planner.plan_all_next();
    planner.plan();
    planner.table_mut().adopt(ours);
    // A dump may lack some elements, and have others that are gone.
    let pending: Vec<(SetId, Set, Vec<Key>)> = planner
        .table()
        .pending()
        .filter_map(|(id, keys)| Some((id, planner.table().set(id)?.clone(), keys)))
        .filter(|(_, set, _)| !set.flags.interval)
        .collect();
    for (id, set, keys) in pending {
        let asked: Vec<&Key> = keys.iter().collect();
        let values = kernel.lookup(TABLE, &set, &asked)?;
        for (key, value) in keys.iter().zip(values) {
            planner.table_mut().observe(id, key, value);
        }
    }
    planner.remove_emptied();
    let changes = planner.table().changes();
    Ok(changes.operations.iter().flat_map(single).map(|one| text::operation(TABLE, &one)).collect())
}

/// An operation of many elements as many operations of one.
fn single<'a>(operation: &Operation<'a>) -> Vec<Operation<'a>> {
    match operation {
        Operation::AddElements { set, elements } => elements
            .iter()
            .map(|element| Operation::AddElements { set, elements: vec![*element] })
            .collect(),
        Operation::DeleteElements { set, keys } => {
            keys.iter().map(|key| Operation::DeleteElements { set, keys: vec![*key] }).collect()
        }
        one => vec![one.clone()],
    }
}
