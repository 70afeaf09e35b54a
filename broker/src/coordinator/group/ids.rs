//! Names of groups, members and static instances: cheap to clone, equal and ordered as their text.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The longest text that a record of a group holds, in bytes (16 bits of length). Kafka reads no
/// longer string from a request either.
pub const TEXT_BYTES_MAX: usize = i16::MAX as usize;

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            /// Copies the text, so that the name keeps no frame alive.
            fn from(text: &str) -> Self {
                if text.is_empty() { Self::default() } else { Self(Arc::from(text)) }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

text! {
    /// A group's id, of any characters. The empty one names no group that can be joined.
    GroupId
}
text! {
    /// A member's id, given by the coordinator. The empty one is a member that has none yet.
    MemberId
}
text! {
    /// A static member's own name (`group.instance.id`, KIP-345).
    InstanceId
}
text! {
    /// Any other small text that is shared: a protocol's name, a client's id, the metadata of a
    /// committed offset.
    Text
}
