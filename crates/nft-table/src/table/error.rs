//! Why a table does not take a set or an element.

use crate::ShapeError;
use std::sync::Arc;

/// Why a [`Table`](crate::Table) does not take a set or an element. The table is then as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// A set does not change its declaration: the old one must be removed before.
    #[error("there is a set {0} already")]
    SetExists(Arc<str>),
    /// The set was removed, or the id is one of another table.
    #[error("there is no such set in this table")]
    NoSet,
    /// Only rules put elements into a dynamic set.
    #[error("set {0} is dynamic: its elements come from rules")]
    Dynamic(Arc<str>),
    /// The declaration, or the element, is none that could be in the kernel.
    #[error("set {set}: {cause}")]
    Shape {
        /// Name of the set.
        set: Arc<str>,
        /// What is wrong with it.
        #[source]
        cause: ShapeError,
    },
}
