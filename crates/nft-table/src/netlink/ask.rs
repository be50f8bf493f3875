//! Requests for single elements (`NFT_MSG_GETSETELEM` without the flag of a dump).
//!
//! The kernel looks each one up in the hash of the set, so it costs the same whatever the size of the set, and other
//! changes of the ruleset do not disturb it.

use super::numbers::{LIST_ELEMENT, element as number};
use super::writer::Writer;
use crate::shape::Shape;
use crate::{Key, Set, ShapeError};

/// Writes the attributes of a request for the elements of some keys. It is answered with a message for each, in this
/// order; the first that is not there ends it with ENOENT. Not for sets of ranges.
///
/// # Errors
/// If the set or a key is none that the kernel could have.
pub fn elements_by_key(
    out: &mut Writer,
    table: &str,
    set: &Set,
    keys: &[&Key],
) -> Result<(), ShapeError> {
    set.check()?;
    let shape = Shape::of(set);
    keys.iter().try_for_each(|key| shape.check_key(key))?;
    out.string(number::TABLE, table);
    out.string(number::SET, &set.name);
    shape.write_request(out, keys);
    Ok(())
}

/// Writes the attributes of a request for the element that stands for all keys (`*` in nft).
pub fn the_catch_all(out: &mut Writer, table: &str, set: &Set) {
    out.string(number::TABLE, table);
    out.string(number::SET, &set.name);
    let list = out.open(number::ELEMENTS);
    let element = out.open(LIST_ELEMENT);
    out.number(number::FLAGS, number::CATCH_ALL);
    out.close(element);
    out.close(list);
}
