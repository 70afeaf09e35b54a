//! The operating system's file system: written with `pwritev`, read through read-only maps.
