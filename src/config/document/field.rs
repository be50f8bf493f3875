//! How a field of the document is defined: its type, its default and its flag in one place.

use crate::config::GoDuration;
use std::collections::BTreeMap;

/// A field as Go sees it: its zero value means "not set", unless it is a pointer (here `Option`).
pub(in crate::config) trait Field {
    /// Whether it says nothing, so that the default takes its place.
    fn is_unset(&self) -> bool;

    /// Fills in what a section holds.
    fn fill_in(&mut self) {}
}

impl Field for String {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl Field for bool {
    fn is_unset(&self) -> bool {
        !self
    }
}

impl Field for i32 {
    fn is_unset(&self) -> bool {
        *self == 0
    }
}

impl Field for u32 {
    fn is_unset(&self) -> bool {
        *self == 0
    }
}

impl Field for f32 {
    fn is_unset(&self) -> bool {
        *self == 0.0
    }
}

impl Field for GoDuration {
    fn is_unset(&self) -> bool {
        self.is_zero()
    }
}

impl<T> Field for Vec<T> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Field for BTreeMap<K, V> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

/// Behind a pointer, zero says something, too, while an empty list does not.
impl<T: Pointee> Field for Option<T> {
    fn is_unset(&self) -> bool {
        self.as_ref().is_none_or(T::says_nothing)
    }
}

/// What an optional field may hold.
pub(in crate::config) trait Pointee {
    fn says_nothing(&self) -> bool {
        false
    }
}

impl Pointee for i32 {}
impl Pointee for bool {}
impl Pointee for GoDuration {}

impl<T> Pointee for Vec<T> {
    fn says_nothing(&self) -> bool {
        self.is_empty()
    }
}

/// Defines a section of the document: a struct that serde reads and writes under the API's names,
/// whose flags clap reads, and whose fields have their defaults behind an equals sign. A field
/// without one keeps Go's zero value; a field without a flag says `#[arg(skip)]`.
macro_rules! section {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[$field_meta:meta])* $field:ident: $type:ty $(= $default:expr)?,)*
        }
    ) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Args)]
        #[serde(rename_all = "camelCase", default)]
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl Field for $name {
            fn is_unset(&self) -> bool {
                false
            }

            fn fill_in(&mut self) {
                $(
                    $(if self.$field.is_unset() {
                        self.$field = $default.into();
                    })?
                    self.$field.fill_in();
                )*
            }
        }
    };
}

pub(super) use section;
