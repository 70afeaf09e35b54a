//! The macro behind the tables: one list declares the keys and the struct that holds their values.

/// Declares a configuration struct and the table of its keys at once.
///
/// Each row is `/// documentation` (which becomes the field's and the key's), then
/// `field: Type = key("name", "default")...;`. The `plain` part lists fields that are no keys.
macro_rules! config_table {
    (
        $(#[$meta:meta])*
        pub struct $name:ident, table $keys:ident;
        plain { $($(#[$plain_meta:meta])* $plain:ident: $plain_type:ty,)* }
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $row:expr;)+
    ) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Debug)]
        pub struct $name {
            $($(#[$plain_meta])* pub $plain: $plain_type,)*
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        /// The table of the scope's keys, in the order of their names.
        pub static $keys: &[$crate::config::key::ConfigKey] = &[
            $($row.typed(
                <$type as $crate::config::value::ConfigValue>::KIND,
                concat!($($doc),+),
            ),)+
        ];

        impl $name {
            /// Reads every field. `lookup` gives the normalized text of a key that is set or has a
            /// default.
            fn read(
                $($plain: $plain_type,)*
                mut lookup: impl FnMut(&'static $crate::config::key::ConfigKey) -> Option<String>,
            ) -> Self {
                let mut keys = $keys.iter();
                $(
                    let key = keys.next().expect("the table has a row for each field");
                    let text = lookup(key);
                    let value = $crate::config::value::ConfigValue::read(text.as_deref());
                    let $field: $type = value.expect("a normalized value fits its type");
                )+
                Self { $($plain,)* $($field,)+ }
            }
        }
    };
}
